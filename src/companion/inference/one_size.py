"""Inference times of one model: the paper's runtime model, its fit, and what the measurements can say about it.

    time to first token = FLOPs / alpha_eff + eps
    step time           = bytes / beta_eff + eps + batch_size · eps_bp

(arXiv 2510.02228, section on inference): FLOPs of the prefill without the unembedding; bytes of the cache of keys and
values, or of the mLSTM state, half-way through the generation. Both are linear in 1/alpha_eff, 1/beta_eff, eps and
eps_bp, so a look at the design says which of them the measurements determine. `inference.runtime_model` fits all sizes
at once.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import forward_flops
from companion.accounting.inference import BF16, Precision, count_prefill, count_step
from companion.architectures import ARCHITECTURES, Architecture, make_architecture
from companion.errors import InputError, NotApplicable
from companion.fitting.bootstrap import percentile_interval
from companion.fitting.results import Result, check_name
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware
from companion.inference.checks import gaps_note, repeats_note, unit_note
from companion.inference.solve import free_columns, least_squares_start, solve_times, usable_resamples
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
#: Step times are fitted from this batch on (the authors' choice).
SMALLEST_BATCH = 8

_SHAPES = ("d_model", "n_layers", "n_heads", "d_ff")
#: Shapes that a table may have; an empty cell stands for the value that `make_architecture` takes.
_MORE_SHAPES = (
    "d_qk", "d_hv", "vocab_size", "n_kv_heads", "tied_embeddings", "qk_norm", "window", "attention_every",
    "attention_heads",
)  # fmt: skip


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
        **{name: _column(int, strict=name != "d_ff") for name in _SHAPES},
        **{name: pa.Column(float, nullable=True, required=False) for name in _MORE_SHAPES},
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

    Required columns: `architecture, model_size, d_model, n_layers, n_heads, d_ff, batch_size, prefill_length,
    generation_length` and one of `ttft_s`, `step_time_s`; a time may be missing in any row. Optional columns for
    other shapes: `d_qk`, `d_hv`, `vocab_size`, `n_kv_heads`, `tied_embeddings` and `qk_norm` (0 or 1),
    `window`, `attention_every`, `attention_heads`.

    What does not stop a fit but may mislead it (another unit than seconds, rows that repeat others, an empty column of
    times) is a `UserWarning` each, and a sentence in the list `attrs["notes"]` of the result.

    Raises
    ------
    InputError
        one line that names file, row, column and value.

    Examples
    --------
    >>> len(load_inference("data/inference.csv"))
    1560
    """
    table = read_table(path, _SCHEMA)
    times = {name: table[name] for name in COLUMNS.values() if name in table}
    if not times:
        raise InputError(f"{os.fspath(path)}: columns 'ttft_s' and 'step_time_s' are both missing")
    if all(values.isna().all() for values in times.values()):
        raise InputError(f"{os.fspath(path)}: column {', '.join(map(repr, times))} is empty: no times")
    for _, row in table.drop_duplicates(_shape_columns(table)).iterrows():
        try:
            model_of(row)
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {row['architecture']} {row['model_size']}: {error}") from error
    table.attrs["source"] = os.fspath(path)
    table.attrs["notes"] = _notes(table, times)
    for note in table.attrs["notes"]:
        warnings.warn(f"{os.fspath(path)}: {note}", UserWarning, stacklevel=2)
    return table


def _notes(table: pd.DataFrame, times: dict[str, pd.Series]) -> list[str]:
    device = get_hardware(REFERENCE_HARDWARE)
    found = [gaps_note(times)]
    for quantity, column in COLUMNS.items():
        if column in times:
            least = least_seconds(table, quantity, device)  # type: ignore[arg-type]
            found.append(unit_note(column, times[column].to_numpy(dtype=float), least, device.label))
    keys = [*_shape_columns(table), "batch_size", "prefill_length", "generation_length", *times]
    found.append(repeats_note(table, keys))
    return [note for note in found if note]


def least_seconds(rows: pd.DataFrame, quantity: Quantity, hardware: str | Hardware = REFERENCE_HARDWARE) -> Array:
    """Roofline time of every row, shape (n,); NaN for a prefill of a prompt below one chunk."""
    least = np.full(len(rows), np.nan)
    batch = rows["batch_size"].to_numpy()
    prompt = rows["prefill_length"].to_numpy()
    for model, at in by_model(rows):
        if quantity == "ttft":
            at = at[prompt[at] >= PAPER.chunk_size]
            if not len(at):
                continue
            counted = count_prefill(model, prompt[at], batch[at])
        else:
            counted = count_step(model, middle_context(rows)[at], batch[at])
        least[at] = counted.roofline(hardware).seconds
    return least


def load_paper_inference() -> pd.DataFrame:
    """The authors' 1,560 timings (`data/inference.csv`).

    Examples
    --------
    >>> load_paper_inference()["architecture"].nunique()
    2
    """
    return load_inference(data_dir() / "inference.csv")


def measured(table: pd.DataFrame, architecture: str, quantity: Quantity, model_size: str | None = None) -> pd.DataFrame:
    """Rows with a measurement of one quantity for one architecture, and one size if given.

    Raises
    ------
    InputError
        if the quantity or size is not in the table; the message says what is.
    NotApplicable
        if the table has no such column of times, or no timings of the architecture.
    """
    source = table.attrs.get("source", "the table of timings")
    if quantity not in COLUMNS:
        raise InputError(f"quantity {quantity!r} is not one of {', '.join(COLUMNS)}")
    if COLUMNS[quantity] not in table:
        raise NotApplicable(f"{source}: no column {COLUMNS[quantity]!r}")
    chosen = table
    for name, value in (("architecture", architecture), ("model_size", model_size)):
        if value is not None:
            kept = chosen[chosen[name] == value]
            if kept.empty:
                there = ", ".join(dict.fromkeys(map(str, chosen[name])))
                error = NotApplicable if name == "architecture" else InputError
                raise error(f"{source}: no rows with {name} {value}; there are {there}")
            chosen = kept
    return chosen[chosen[COLUMNS[quantity]].notna()]


def model_of(row: Any) -> Architecture:
    """The model that a row of the table times."""
    shapes = {name: int(row[name]) for name in _SHAPES}
    given = {name: row[name] for name in _MORE_SHAPES if name in row and not pd.isna(row[name])}
    return make_architecture(row["architecture"], **shapes, **given)


def _shape_columns(table: pd.DataFrame) -> list[str]:
    return ["architecture", *_SHAPES, *(name for name in _MORE_SHAPES if name in table)]


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
    labels = rows.groupby(_shape_columns(rows), sort=False, dropna=False).ngroup().to_numpy()
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [(model_of(rows.iloc[at[0]]), at) for at in places]


@dataclass(frozen=True, kw_only=True)
class InferenceFit(Result):
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

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a parameter; a rate whose inverse may be 0 has no upper end (infinite).

        NaN where the parameter is not determined, without resamples, or where more than half of them are lost.
        """
        names = PARAMETERS[self.quantity]
        check_name(name, names, self.quantity)
        column = names.index(name)
        if np.isnan(self.coefficients[column]) or not self.resamples.size or self.num_lost > len(self.resamples) / 2:
            return (float("nan"), float("nan"))
        low, high = percentile_interval(self.resamples[:, column], level)
        if column > 0:
            return (low, high)
        return (1 / high if high > 0 else float("nan"), 1 / low if low > 0 else float("inf"))

    @property
    def num_lost(self) -> int:
        """Resamples that left a parameter free which all timings determine; with most lost there are no intervals."""
        return int(np.isnan(self.resamples).any(axis=1).sum())

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
        bootstrap over the rows. A resample whose rows leave a parameter free that all rows determine is lost (NaN).
    level
        of the interval that must lie above 0 for a rate to count as identified.
    objective
        `relative`: squares of log residuals; `milliseconds`: squares of Huber-transformed residuals in
        milliseconds, the published objective of the time to first token (`companion.inference.published` has the rest).
    smallest_batch
        leaves smaller batches out; by default 8 for step times, as published.

    Raises
    ------
    InputError
        if there are no such timings.

    Examples
    --------
    >>> found = fit_inference(load_paper_inference(), "transformer", "7b", "ttft", num_resamples=10)
    >>> print(f"{found.rms_log_error:.2f}")
    0.08
    """
    rows, names = fitted_rows(table, architecture, model_size, quantity, smallest_batch), PARAMETERS[quantity]
    times = rows[COLUMNS[quantity]].to_numpy(dtype=float)
    design = design_of(rows, quantity)
    relative = design / times[:, None]
    free, singular = free_columns(relative)
    start = least_squares_start(relative, np.ones(len(rows)))
    solution = solve_times(design, times, start, objective)
    resamples = [
        solve_times(design, times, solution, objective, weights) if kept else np.full(len(names), np.nan)
        for weights, kept in usable_resamples(relative, num_resamples, seed)
    ]
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
        if there are no such timings.
    """
    rows = measured(table, architecture, quantity, model_size)
    least = smallest_batch if smallest_batch is not None else (SMALLEST_BATCH if quantity == "step_time" else 1)
    rows = rows[(rows["prefill_length"] > 0) & (rows["batch_size"] >= least)]
    if rows.empty:
        raise InputError(
            f"{table.attrs.get('source', 'timings')}: 0 {quantity} timings of {architecture} {model_size} "
            f"with a prompt and a batch of at least {least}"
        )
    return rows


def unidentified(fit: InferenceFit, free: Sequence[bool] | NDArray[np.bool_], level: float) -> dict[str, str]:
    """Why a parameter is not identified, by name: its column is tied to others, or its rate may be infinite or less."""
    names, number = PARAMETERS[fit.quantity], len(fit.log_residuals)
    tied = [name for name, is_free in zip(names, free, strict=True) if is_free]
    reasons = {}
    for name in tied:
        others = " and ".join(other for other in tied if other != name)
        reasons[name] = f"trades off exactly with {others}: their columns are proportional in these measurements"
        if len(tied) > 2:
            reasons[name] = f"trades off exactly with {others}: a combination of their columns cancels here"
        if number < len(names):
            reasons[name] = f"{number} timing{'s' * (number > 1)} cannot determine {len(names)} parameters"
    if names[0] not in reasons and fit.resamples.size and fit.num_lost <= len(fit.resamples) / 2:
        low, high = percentile_interval(fit.resamples[:, 0], level)
        if not low > 0:
            reasons[names[0]] = (
                f"its inverse is {fit.coefficients[0]:.3g}, {level:.0%} interval {low:.3g} to {high:.3g}: not above 0"
            )
    elif names[0] not in reasons and not fit.coefficients[0] > 0:
        reasons[names[0]] = f"its inverse is {fit.coefficients[0]:.3g}: not above 0"
    return reasons
