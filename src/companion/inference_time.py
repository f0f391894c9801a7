"""Inference times of one model: the paper's runtime model, its fit, and what the measurements can say about it.

    time to first token = FLOPs / alpha_eff + eps
    step time           = bytes / beta_eff + eps + batch_size · eps_bp

(arXiv 2510.02228, section on inference): FLOPs of the prefill without the unembedding; bytes of the cache of keys and
values, or of the mLSTM state, half-way through the generation. Both are linear in 1/alpha_eff, 1/beta_eff, eps and
eps_bp, so a look at the design says which of them the measurements determine. `companion.runtime_model` fits all sizes
at once.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import huber

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import forward_flops
from companion.accounting.inference import BF16, Precision, count_step
from companion.architectures import ARCHITECTURES, Architecture, make_architecture
from companion.errors import InputError
from companion.fitting.bootstrap import percentile_interval, resample_counts
from companion.paths import data_dir
from companion.tables import read_table

Array = NDArray[np.float64]
Quantity = Literal["ttft", "step_time"]
#: Column of each quantity, seconds.
COLUMNS = {"ttft": "ttft_s", "step_time": "step_time_s"}
#: Parameters of each quantity, in the order of the columns of the design; rates come as their inverse there.
PARAMETERS = {
    "ttft": ("alpha_eff_flops_per_s", "eps_s"),
    "step_time": ("beta_eff_bytes_per_s", "eps_s", "eps_bp_s"),
}
#: The models in words.
FORMS = {
    "ttft": "seconds = prefill FLOPs without unembedding / alpha_eff + eps",
    "step_time": "seconds = bytes of cache or state / beta_eff + eps + batch_size * eps_bp",
}
#: Smallest over largest singular value of the scaled design below which a direction counts as free.
FREE_DIRECTION = 1e-7
#: Step times are fitted from this batch on (the authors' choice).
SMALLEST_BATCH = 8

_SHAPES = ("d_model", "n_layers", "n_heads", "d_ff")


def _column(dtype: type, *, strict: bool = True) -> pa.Column:
    check = pa.Check.gt(0, error="must be positive") if strict else pa.Check.ge(0, error="must not be negative")
    return pa.Column(dtype, check)


#: Nothing on a GPU takes less than a nanosecond, and nobody waits more than a year for a token.
_TIME = pa.Column(
    float, pa.Check.in_range(1e-9, 3e7, error="is not a time in seconds (1e-9 to 3e7)"), nullable=True, required=False
)
_SCHEMA = pa.DataFrameSchema(
    {
        "architecture": pa.Column(
            object, pa.Check.isin(list(ARCHITECTURES), error=f"is not one of {', '.join(ARCHITECTURES)}")
        ),
        "model_size": pa.Column(object),
        **{name: _column(int) for name in _SHAPES},
        "num_params": pa.Column(int, pa.Check.gt(0, error="must be positive"), required=False),
        "batch_size": _column(int),
        "prefill_length": _column(int, strict=False),
        "generation_length": _column(int),
        "ttft_s": _TIME,
        "step_time_s": _TIME,
    }
)


def load_inference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A table of inference timings with the columns of `data/inference.csv` (see `data/README.md`).

    Needed are `architecture, model_size, d_model, n_layers, n_heads, d_ff, batch_size, prefill_length,
    generation_length` and one of `ttft_s`, `step_time_s`; a time may be missing in any row.

    Raises
    ------
    InputError
        one line that names file, row, column and value.
    """
    table = read_table(path, _SCHEMA)
    if not set(COLUMNS.values()) & set(table.columns):
        raise InputError(f"{os.fspath(path)}: neither column 'ttft_s' nor 'step_time_s' is there")
    for _, row in table.drop_duplicates(["architecture", *_SHAPES]).iterrows():
        try:
            model_of(row)
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {row['architecture']} {row['model_size']}: {error}") from error
    table.attrs["source"] = os.fspath(path)
    return table


def load_paper_inference() -> pd.DataFrame:
    """The authors' 1,560 timings (`data/inference.csv`)."""
    return load_inference(data_dir() / "inference.csv")


def measured(table: pd.DataFrame, architecture: str, quantity: Quantity, model_size: str | None = None) -> pd.DataFrame:
    """Rows with a measurement of one quantity for one architecture, and one size if given.

    Raises
    ------
    InputError
        if the quantity, architecture or size is not in the table; the message says what is.
    """
    source = table.attrs.get("source", "the table of timings")
    if quantity not in COLUMNS:
        raise InputError(f"quantity {quantity!r} is not one of {', '.join(COLUMNS)}")
    if COLUMNS[quantity] not in table:
        raise InputError(f"{source}: no column {COLUMNS[quantity]!r}")
    chosen = table
    for name, value in (("architecture", architecture), ("model_size", model_size)):
        if value is not None:
            kept = chosen[chosen[name] == value]
            if kept.empty:
                there = ", ".join(dict.fromkeys(map(str, chosen[name])))
                raise InputError(f"{source}: no rows with {name} {value}; there are {there}")
            chosen = kept
    return chosen[chosen[COLUMNS[quantity]].notna()]


def model_of(row: Any) -> Architecture:
    """The model that a row of the table times."""
    return make_architecture(row["architecture"], **{name: int(row[name]) for name in _SHAPES})


def prefill_flops(rows: pd.DataFrame, convention: str | Convention = PAPER) -> Array:
    """FLOPs of the prefill of every row without the unembedding, shape (n,); 0 for an empty prompt."""
    chosen, result = get_convention(convention), np.zeros(len(rows))
    for shapes, at in by_model(rows):
        T = rows["prefill_length"].to_numpy(dtype=float)[at]
        forward = forward_flops(shapes, np.maximum(T, 1), chosen)
        batch = rows["batch_size"].to_numpy(dtype=float)[at]
        result[at] = np.where(T > 0, batch * (forward.total - forward.unembedding), 0.0)
    return result


def generation_bytes(rows: pd.DataFrame, precision: Precision = BF16) -> Array:
    """Bytes of cache or state that one step moves half-way through the generation, shape (n,)."""
    result = np.zeros(len(rows))
    for shapes, at in by_model(rows):
        context = middle_context(rows)[at]
        step = count_step(shapes, context, rows["batch_size"].to_numpy()[at], precision=precision)
        result[at] = step.traffic.cache
    return result


def middle_context(rows: pd.DataFrame) -> Array:
    """Tokens of context at the middle of the generation, whole numbers, shape (n,)."""
    return np.asarray(rows["prefill_length"] + (rows["generation_length"] + 1) // 2, dtype=float)


def by_model(rows: pd.DataFrame) -> list[tuple[Architecture, NDArray[np.intp]]]:
    """Every different model of the rows, and the positions of its rows."""
    labels = rows.groupby(["architecture", *_SHAPES], sort=False).ngroup().to_numpy()
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [(model_of(rows.iloc[at[0]]), at) for at in places]


@dataclass(frozen=True, kw_only=True)
class InferenceFit:
    """A fitted runtime model of one size.

    `coefficients` belong to the columns of the design (1/alpha_eff or 1/beta_eff first), NaN where they are not
    determined; `resamples` has shape (R, number of coefficients). `reasons` says by name why a parameter is not
    identified. `log_residuals` are log predicted minus log measured time, shape (n,); NaN where the predicted time is
    not above 0.
    """

    architecture: str
    model_size: str
    quantity: Quantity
    coefficients: Array
    resamples: Array
    reasons: dict[str, str]
    log_residuals: Array
    singular_values: Array

    @property
    def parameters(self) -> dict[str, float]:
        """By name: rates in FLOP/s or bytes/s, constants in seconds; NaN where the design leaves them free."""
        with np.errstate(divide="ignore"):
            values = np.concatenate([1 / self.coefficients[:1], self.coefficients[1:]])
        return dict(zip(PARAMETERS[self.quantity], values.tolist(), strict=True))

    @property
    def identified(self) -> dict[str, bool]:
        """Whether the measurements determine a parameter: no free direction, and for a rate a positive interval."""
        return {name: name not in self.reasons for name in PARAMETERS[self.quantity]}

    def interval(self, parameter: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a parameter; a rate whose inverse may be 0 has no upper end (infinite)."""
        names = PARAMETERS[self.quantity]
        if parameter not in names:
            raise InputError(f"{self.quantity} has no parameter {parameter!r}; there are {', '.join(names)}")
        column = names.index(parameter)
        if np.isnan(self.coefficients[column]) or not self.resamples.size:
            return (float("nan"), float("nan"))
        low, high = percentile_interval(self.resamples[:, column], level)
        if column > 0:
            return (low, high)
        return (1 / high if high > 0 else float("nan"), 1 / low if low > 0 else float("inf"))

    @property
    def rms_log_error(self) -> float:
        """Root mean square of the log residuals; NaN if a predicted time is not above 0."""
        return float(np.sqrt(np.mean(self.log_residuals**2)))

    @property
    def num_impossible(self) -> int:
        """Timings whose predicted time is not above 0."""
        return int(np.isnan(self.log_residuals).sum())


def design_of(rows: pd.DataFrame, quantity: Quantity, convention: str | Convention = PAPER) -> Array:
    """Columns that the coefficients multiply, shape (n, 2) for `ttft` and (n, 3) for `step_time`."""
    ones = np.ones(len(rows))
    if quantity == "ttft":
        return np.stack([prefill_flops(rows, convention), ones], axis=1)
    return np.stack([generation_bytes(rows), ones, rows["batch_size"].to_numpy(dtype=float)], axis=1)


def fit_inference(
    table: pd.DataFrame,
    architecture: str,
    model_size: str,
    quantity: Quantity,
    *,
    num_resamples: int = 400,
    seed: int = 0,
    level: float = 0.95,
    objective: Literal["relative", "milliseconds"] = "relative",
    smallest_batch: int | None = None,
) -> InferenceFit:
    """The paper's runtime model for one size.

    Parameters
    ----------
    table
        timings, see `load_inference`. Rows without a prompt are left out, as published.
    architecture, model_size, quantity
        which timings.
    num_resamples, seed
        bootstrap over the rows.
    level
        of the interval that must lie above 0 for a rate to count as identified.
    objective
        `relative`: squares of log residuals; `milliseconds`: squares of Huber-transformed residuals in milliseconds, as
        the published times to first token were fitted.
    smallest_batch
        leaves smaller batches out; by default 8 for step times, as published.

    Raises
    ------
    InputError
        if there are no such timings, or too few for the parameters.
    """
    rows, names = fitted_rows(table, architecture, model_size, quantity, smallest_batch), PARAMETERS[quantity]
    times = rows[COLUMNS[quantity]].to_numpy(dtype=float)
    design = design_of(rows, quantity)
    free, singular = free_columns(design / times[:, None])
    start = np.linalg.lstsq(design / times[:, None], np.ones(len(rows)), rcond=FREE_DIRECTION)[0]
    solution = solve_times(design, times, start, objective)
    counts = resample_counts(np.zeros(len(rows)), num_resamples, seed) if num_resamples else np.empty((0, len(rows)))
    resamples = [solve_times(design, times, solution, objective, weights) for weights in counts.astype(float)]
    predicted = design @ solution
    fit = InferenceFit(
        architecture=architecture,
        model_size=model_size,
        quantity=quantity,
        coefficients=np.where(free, np.nan, solution),
        resamples=np.array(resamples).reshape(-1, len(names)),
        reasons={},
        log_residuals=np.log(np.where(predicted > 0, predicted, np.nan) / times),
        singular_values=singular,
    )
    return replace(fit, reasons=unidentified(fit, free, level))


def fitted_rows(
    table: pd.DataFrame, architecture: str, model_size: str, quantity: Quantity, smallest_batch: int | None = None
) -> pd.DataFrame:
    """The timings of one size that a fit uses: with a prompt, and a batch of at least `smallest_batch`.

    Raises
    ------
    InputError
        if there are no such timings, or too few for the parameters of the quantity.
    """
    rows = measured(table, architecture, quantity, model_size)
    least = smallest_batch if smallest_batch is not None else (SMALLEST_BATCH if quantity == "step_time" else 1)
    rows = rows[(rows["prefill_length"] > 0) & (rows["batch_size"] >= least)]
    needed = len(PARAMETERS[quantity]) + 1
    if len(rows) < needed:
        raise InputError(
            f"{table.attrs.get('source', 'timings')}: {len(rows)} {quantity} timings of {architecture} {model_size} "
            f"with a prompt and a batch of at least {least}; {needed} are needed"
        )
    return rows


def solve_times(
    design: Array,
    times: Array,
    start: Array,
    objective: Literal["relative", "milliseconds"] = "relative",
    weights: Array | None = None,
    known: Array | float = 0.0,
) -> Array:
    """Coefficients of least weighted squares of log residuals, or of Huber-transformed milliseconds; shape (k,).

    `known` seconds, a number or shape (n,), are added to what the coefficients predict.
    """
    scale = np.abs(design).max(axis=0)
    scaled, root = design / scale, np.ones(len(times)) if weights is None else np.sqrt(weights)

    def residuals(coefficients: Array) -> Array:
        predicted = known + scaled @ coefficients
        if objective == "milliseconds":
            return root * huber(1.0, 1e3 * (predicted - times))
        # below a thousandth of the time the logarithm goes on as its tangent: no step can leave its domain
        ratio = predicted / times
        return root * np.where(ratio > 1e-3, np.log(np.maximum(ratio, 1e-3)), np.log(1e-3) + (ratio - 1e-3) * 1e3)

    def jacobian(coefficients: Array) -> Array:
        predicted = known + scaled @ coefficients
        if objective == "milliseconds":
            slope = 1e3 * np.clip(1e3 * (predicted - times), -1, 1)
        else:
            slope = 1 / np.maximum(predicted, 1e-3 * times)
        return (root * slope)[:, None] * scaled

    found = least_squares(residuals, start * scale, jacobian, method="lm", x_scale="jac", xtol=1e-13, ftol=1e-13)
    return np.asarray(found.x / scale)


def free_columns(design: Array) -> tuple[NDArray[np.bool_], Array]:
    """Which coefficients a design leaves free, shape (k,), and its singular values with columns of unit norm."""
    norms = np.linalg.norm(design, axis=0)
    _, singular, directions = np.linalg.svd(design / np.where(norms > 0, norms, 1.0), full_matrices=False)
    null = directions[singular < FREE_DIRECTION * singular[0]]
    return (np.abs(null) > 1e-6).any(axis=0) | (norms == 0), singular


def unidentified(fit: InferenceFit, free: Sequence[bool] | NDArray[np.bool_], level: float) -> dict[str, str]:
    """Why a parameter is not identified, by name: its column is tied to others, or its rate has no positive interval."""
    names = PARAMETERS[fit.quantity]
    tied = [name for name, is_free in zip(names, free, strict=True) if is_free]
    reasons = {}
    for name in tied:
        others = " and ".join(other for other in tied if other != name)
        reasons[name] = f"trades off exactly with {others}: their columns are proportional in these measurements"
    if names[0] not in reasons and fit.resamples.size:
        low, high = percentile_interval(fit.resamples[:, 0], level)
        if not low > 0:
            reasons[names[0]] = (
                f"its inverse is {fit.coefficients[0]:.3g}, {level:.0%} interval {low:.3g} to {high:.3g}: not above 0"
            )
    elif names[0] not in reasons and not fit.coefficients[0] > 0:
        reasons[names[0]] = f"its inverse is {fit.coefficients[0]:.3g}: not above 0"
    return reasons
