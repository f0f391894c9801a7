"""The runtime models as their authors fitted them: one bootstrap resample of the timings, squares of Huber losses.

`inference.one_size` fits every timing once. The published constants (`inference_fits` of `data/published.yaml`)
come from another procedure, found out from the numbers and recorded in `data/inference_fit_rows.csv`:

* rows with a prompt, and of the step times those with a batch of 8 or more;
* a resample of these rows with replacement (`default_rng(0)`, as many draws as rows), which a default argument drew;
* the Huber loss of each residual, handed to `least_squares` as if it were a residual: the objective is the sum of the
  *squares* of the Huber losses, fourth powers of small residuals;
* MINPACK's `lmdif` without scaling of the parameters, all tolerances 1e-15, from one start;
* a count of FLOPs and bytes of their own (`companion.inference.published_count`).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import leastsq
from scipy.special import huber

from companion.errors import InputError
from companion.inference.one_size import PARAMETERS, InferenceFit, fit_from_solution, fitted_rows
from companion.inference.published_count import published_work
from companion.inference.timings import COLUMNS, Array, Quantity

#: Seed of the resample that the published fits drew.
PUBLISHED_SEED = 0
#: Significant digits of the authors' timings in `data/inference.csv`.
TIME_DIGITS = 6
#: All three tolerances of the published search.
TOLERANCE = 1e-15
#: Calls of the objective after which a search ends; the published ones needed fewer than 200.
MOST_CALLS = 2000


@dataclass(frozen=True)
class PublishedObjective:
    """What a published search squares and sums: Huber losses of residuals in `unit`, or residuals without `delta`."""

    unit: str
    delta: float | None

    def terms(self, predicted: Array, times: Array) -> Array:
        """The terms that are squared, shape (n,), from seconds."""
        residuals = 1e3 * (predicted - times) if self.unit == "milliseconds" else _log_ratio(predicted / times)
        return residuals if self.delta is None else np.asarray(huber(self.delta, residuals))


#: The published objectives by name. The last belongs to one fit (Transformer 7B), whose cell sets delta to 0.
OBJECTIVES = {
    "milliseconds": PublishedObjective("milliseconds", 1.0),
    "logarithms": PublishedObjective("logarithms", 100.0),
    "plain logarithms": PublishedObjective("logarithms", None),
}
#: The objective of most fits of a quantity.
USUAL_OBJECTIVE = {"ttft": "milliseconds", "step_time": "logarithms"}
#: The models in words.
PUBLISHED_FORMS = {
    "ttft": "seconds = prefill FLOPs by the authors' count / alpha_eff + eps",
    "step_time": "seconds = bytes of the step by the authors' count / beta_eff + eps + batch_size * eps_bp",
}
#: Where the published searches start; rates in FLOP/s or bytes/s, constants in seconds.
STARTS = {
    ("xlstm", "ttft"): (0.9 * 900e12, 2e-3),
    ("transformer", "ttft"): (0.39 * 900e12, 1e-3),
    ("xlstm", "step_time"): (3.35e12, 1e-4, 1e-5),
    ("transformer", "step_time"): (3.35e12, 1e-4, 1e-5),
}


def published_draw(num_rows: int, seed: int = PUBLISHED_SEED) -> NDArray[np.int64]:
    """How often each of `num_rows` rows, in the order of the table, is in the published resample; shape (n,)."""
    return np.bincount(np.random.default_rng(seed).integers(0, num_rows, num_rows), minlength=num_rows)


def fit_published(
    table: pd.DataFrame,
    architecture: str,
    model_size: str,
    quantity: Quantity,
    *,
    objective: str | None = None,
    every_row_once: bool = False,
    num_resamples: int = 400,
    seed: int = 0,
    level: float = 0.95,
    smallest_batch: int | None = None,
) -> InferenceFit:
    """The runtime model of one size by the published procedure.

    Parameters
    ----------
    table, architecture, model_size, quantity, smallest_batch
        as for `companion.inference.one_size.fit_inference`. The resample depends on the order of the rows.
    objective
        a name of `OBJECTIVES`; by default the one that most published fits of the quantity have.
    every_row_once
        the same search on the timings themselves, without the resample.
    num_resamples, seed
        further resamples, for intervals: how far the constants move with the draw.
    level
        of the interval that must lie above 0 for a rate to count as identified.

    Returns
    -------
    InferenceFit
        `log_residuals` are those of every timing, drawn or not.

    Raises
    ------
    InputError
        for an unknown objective, if there are no such timings, or too few for the parameters.
    """
    chosen = _objective(USUAL_OBJECTIVE[quantity] if objective is None else objective)
    rows = fitted_rows(table, architecture, model_size, quantity, smallest_batch)
    times, design = rows[COLUMNS[quantity]].to_numpy(dtype=float), published_design(rows, quantity)
    start = np.array(STARTS[architecture, quantity])
    counts = np.ones(len(rows)) if every_row_once else published_draw(len(rows)).astype(float)
    return fit_from_solution(
        solve_published(design, times, start, chosen, counts),
        lambda draw: solve_published(design, times, start, chosen, draw),
        design,
        times,
        of=(architecture, model_size, quantity),
        num_resamples=num_resamples,
        seed=seed,
        level=level,
        used=counts > 0,
    )


def search_shortfall(table: pd.DataFrame, architecture: str, model_size: str, quantity: Quantity) -> dict[str, float]:
    """How far the published search of a fit stops from the least value of its own objective.

    Returns
    -------
    dict[str, float]
        `excess`: objective at its end over the least one that a search in parameters near 1 finds, minus 1; and by name
        the parameters there over those at its end, minus 1.
    """
    rows, chosen = fitted_rows(table, architecture, model_size, quantity), _objective(USUAL_OBJECTIVE[quantity])
    times, design = rows[COLUMNS[quantity]].to_numpy(dtype=float), published_design(rows, quantity)
    start, counts = np.array(STARTS[architecture, quantity]), published_draw(len(rows)).astype(float)
    end = solve_published(design, times, start, chosen, counts)
    units = np.abs([1 / end[0], *end[1:]])
    scaled = design / np.array([units[0], *1 / units[1:]])
    better = solve_published(scaled, times, start / units, chosen, counts) * np.array([1 / units[0], *units[1:]])
    objectives = [(counts * chosen.terms(design @ where, times) ** 2).sum() for where in (end, better)]
    change = better / end - 1
    change[0] = end[0] / better[0] - 1
    return {"excess": float(objectives[0] / objectives[1] - 1)} | dict(
        zip(PARAMETERS[quantity], change.tolist(), strict=True)
    )


def published_draws(
    table: pd.DataFrame, architecture: str, model_size: str, quantity: Quantity, objective: str, *, num_draws: int
) -> dict[str, Array]:
    """Parameters by name, shape (1 + num_draws,): on the times as stored, then on times drawn within their rounding.

    The authors' timings are stored with `TIME_DIGITS` significant digits.
    """
    chosen, rows = _objective(objective), fitted_rows(table, architecture, model_size, quantity)
    times, design = rows[COLUMNS[quantity]].to_numpy(dtype=float), published_design(rows, quantity)
    half_unit = 0.5 * 10.0 ** (np.floor(np.log10(times)) + 1 - TIME_DIGITS)
    rng = np.random.default_rng(0)
    several = [times, *(times + rng.uniform(-half_unit, half_unit) for _ in range(num_draws))]
    start, counts = np.array(STARTS[architecture, quantity]), published_draw(len(rows)).astype(float)
    found = np.array([solve_published(design, drawn, start, chosen, counts) for drawn in several])
    return dict(zip(PARAMETERS[quantity], np.column_stack([1 / found[:, :1], found[:, 1:]]).T, strict=True))


def published_design(rows: pd.DataFrame, quantity: Quantity) -> Array:
    """Columns that the coefficients multiply, with the authors' count: shape (n, 2) for `ttft`, (n, 3) for steps."""
    columns = [published_work(rows, quantity), np.ones(len(rows)), rows["batch_size"].to_numpy(dtype=float)]
    return np.stack(columns[: len(PARAMETERS[quantity])], axis=1)


def solve_published(
    design: Array, times: Array, start: Array, objective: PublishedObjective, counts: Array | None = None
) -> Array:
    """Where the published search ends, as coefficients of the columns of a design; shape (k,).

    The search varies the rate, not its inverse, and does not scale the parameters: beside a rate of 1e12 the constants
    weigh nothing, so it may stop short of the minimum, as the published ones did. The derivatives are differences with
    steps relative to each parameter, as in MINPACK's `lmdif`. `scipy.optimize.leastsq` still calls it; later versions
    of `least_squares(method="lm")` scale, and take absolute steps below 1: their ends differ from the fourth digit.

    Parameters
    ----------
    design
        shape (n, k), the column of the rate first.
    times
        seconds, shape (n,).
    start
        rate and constants, shape (k,).
    objective
        what is squared and summed.
    counts
        how often each row counts, shape (n,); once unless given.
    """
    # MINPACK needs at least as many terms as parameters; rows that count 0 times change nothing
    missing = max(0, len(start) - len(times))
    root = np.pad(np.ones(len(times)) if counts is None else np.sqrt(counts), (0, missing))
    design, times = np.pad(design, ((0, missing), (0, 0)), mode="edge"), np.pad(times, (0, missing), mode="edge")

    def terms(parameters: Array) -> Array:
        # a step may try a rate of exactly 0; an infinite time is no better than a very long one
        rate = parameters[0] if parameters[0] != 0 else np.finfo(float).tiny
        predicted = np.clip(design[:, 0] / rate + design[:, 1:] @ parameters[1:], -1e100, 1e100)
        return root * objective.terms(predicted, times)

    options = {"xtol": TOLERANCE, "ftol": TOLERANCE, "gtol": TOLERANCE, "maxfev": MOST_CALLS}
    with np.errstate(all="ignore"):  # a step may go anywhere; MINPACK takes it back where the terms grow
        found, *_ = leastsq(terms, start, diag=np.ones(len(start)), full_output=True, **options)
    return np.concatenate([1 / found[:1], found[1:]])


def _objective(name: str) -> PublishedObjective:
    if name not in OBJECTIVES:
        raise InputError(f"objective {name!r} of the published procedure is not one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def _log_ratio(ratio: Array) -> Array:
    """ln of predicted over measured, below a thousandth its tangent: no step can leave the domain."""
    return np.where(ratio > 1e-3, np.log(np.maximum(ratio, 1e-3)), np.log(1e-3) + (ratio - 1e-3) * 1e3)
