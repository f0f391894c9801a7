"""Inference times of one model: the paper's runtime model, its fit, and what the measurements can say about it.

    time to first token = FLOPs / alpha_eff + eps
    step time           = bytes / beta_eff + eps + batch_size · eps_bp

(arXiv 2510.02228, section on inference): FLOPs of the prefill without the unembedding; bytes of the cache of keys and
values, or of the mLSTM state, half-way through the generation. Both are linear in 1/alpha_eff, 1/beta_eff, eps and
eps_bp, so a look at the design says which of them the measurements determine. `inference.runtime_model` fits all sizes
at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import forward_flops
from companion.accounting.inference import BF16, Precision, count_step
from companion.errors import InputError
from companion.fitting.bootstrap import percentile_interval
from companion.fitting.results import Result, check_name
from companion.formatting import level_text
from companion.inference.solve import free_columns, least_squares_start, solve_times, usable_resamples
from companion.inference.timings import COLUMNS, Quantity, by_model, measured, middle_context

Array = NDArray[np.float64]
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
        timings, see `companion.inference.timings.load_inference`. Rows without a prompt are left out, as published.
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
    >>> from companion.inference import load_paper_inference
    >>> found = fit_inference(load_paper_inference(), "transformer", "7b", "ttft", num_resamples=10)
    >>> print(f"{found.rms_log_error:.2f}")
    0.08
    """
    rows = fitted_rows(table, architecture, model_size, quantity, smallest_batch)
    times = rows[COLUMNS[quantity]].to_numpy(dtype=float)
    design = design_of(rows, quantity)
    start = least_squares_start(design / times[:, None], np.ones(len(rows)))
    solution = solve_times(design, times, start, objective)
    return fit_from_solution(
        solution,
        lambda weights: solve_times(design, times, solution, objective, weights),
        design,
        times,
        of=(architecture, model_size, quantity),
        num_resamples=num_resamples,
        seed=seed,
        level=level,
    )


def fit_from_solution(
    solution: Array,
    solve: Callable[[Array], Array],
    design: Array,
    times: Array,
    *,
    of: tuple[str, str, Quantity],
    num_resamples: int,
    seed: int,
    level: float,
    used: NDArray[np.bool_] | None = None,
) -> InferenceFit:
    """The fit of coefficients that a search found: with resamples, residuals and what the timings leave free.

    Parameters
    ----------
    solution
        the coefficients, shape (k,).
    solve
        the same search for a resample: coefficients (k,) from how often each row counts, shape (n,).
    design, times
        shape (n, k), see `design_of`, and seconds, shape (n,).
    of
        architecture, model size and quantity.
    num_resamples, seed, level
        as for `fit_inference`.
    used
        the rows that the solution comes from, shape (n,); all unless given.
    """
    architecture, model_size, quantity = of
    relative = design / times[:, None]
    free, singular = free_columns(relative if used is None else relative[used])
    resamples = [
        solve(weights) if kept else np.full(len(solution), np.nan)
        for weights, kept in usable_resamples(relative, num_resamples, seed)
    ]
    predicted = design @ solution
    fit = InferenceFit(
        architecture=architecture,
        model_size=model_size,
        quantity=quantity,
        coefficients=np.where(free, np.nan, solution),
        resamples=np.array(resamples).reshape(-1, len(solution)),
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
                f"its inverse is {fit.coefficients[0]:.3g}, {level_text(level)} interval {low:.3g} to {high:.3g}: "
                "not above 0"
            )
    elif names[0] not in reasons and not fit.coefficients[0] > 0:
        reasons[names[0]] = f"its inverse is {fit.coefficients[0]:.3g}: not above 0"
    return reasons
