"""What a batch size means for compute-optimal training: the optimum of a profile, an exponent, a critical batch.

The relation between batch and tokens is that of McCandlish et al. (arXiv 1812.06162), which Bergsma et al. (arXiv
2505.13738, "Power Lines") use for language models: to reach the same loss at batch B takes

    D = D_min · (1 + B / B_crit),

where B_crit grows as a power of D_min and hardly with N. Theirs are this form and the power laws of B_crit and of the
best batch B_opt, with exponents near 0.46 and 0.38. Ours is everything computed here: no constant of theirs enters.

Through a loss surface the relation becomes a loss difference between two batches at equal D, which pairs of runs
measure. It describes training whose other settings were tuned at every batch. Pairs whose learning rate, warm-up and
cool-down were not tuned also hold what that costs, so a B_crit read off them is a lower bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost, resample_counts
from companion.fitting.isoflop.parabola import optima_of_resamples
from companion.fitting.isoflop.profiles import IsoflopProfile, fit_profile, isoflop_groups
from companion.fitting.results import Result, check_name
from companion.formatting import plural
from companion.laws import LossSurface
from companion.numeric import Values

Array = NDArray[np.float64]

#: The batch of the runs that a loss surface was fitted to: that of the first or of the second runs of the pairs.
Side = Literal["first", "second"]
#: Shares of the tokens below which a critical batch is not searched, relative to its bounds: rounding.
EDGE = 1e-9


@dataclass(frozen=True, kw_only=True)
class OptimumShift(Result):
    """Optima of two profiles over the same sizes, one per batch, and their ratio.

    `ratio` is N\\* at the second over that at the first batch; `ratio_resamples` (R,) come from resampled pairs, so
    that whatever both parabolas miss in the same way cancels. NaN where a resample has no optimum.
    """

    first: IsoflopProfile
    second: IsoflopProfile
    ratio: float
    ratio_resamples: Array

    def interval(self, name: str = "ratio", level: float = 0.95) -> tuple[float, float]:
        """Paired bootstrap interval of `ratio`."""
        check_name(name, ("ratio",), "a shift of the optimum")
        return interval_with_lost(self.ratio_resamples, level)


def optimum_shift(pairs: pd.DataFrame, num_resamples: int = 2000, seed: int = 0) -> OptimumShift:
    """What the second batch does to the optimal size N\\* of the profile that the pairs form.

    Parameters
    ----------
    pairs
        of `pair_batches`, all of about one budget of compute.

    Raises
    ------
    InputError
        if either parabola has no optimum, or there are fewer than five pairs.
    """
    if len(pairs) < 5:
        raise InputError(f"shift of the optimum: {plural(len(pairs), 'pair')}; at least 5 are needed")
    sizes, flops = pairs["num_params"].to_numpy(float), np.ones(len(pairs))
    profiles = [fit_profile(1.0, sizes, pairs[f"{side}_loss"], flops) for side in ("first", "second")]
    for side, profile in zip(("first", "second"), profiles, strict=True):
        if not profile.has_optimum:
            raise InputError(f"shift of the optimum: {side} batch: {profile.fault}")
    counts = resample_counts(np.zeros(len(pairs)), num_resamples, seed)
    first, second = (optima_of_resamples(sizes, profile.loss, counts)[0] for profile in profiles)
    return OptimumShift(
        first=profiles[0],
        second=profiles[1],
        ratio=profiles[1].x_opt / profiles[0].x_opt,
        ratio_resamples=second / first,
    )


def shifts_by_window(
    pairs: pd.DataFrame, decades: Sequence[float], num_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The shift of the optimum from the sizes near it alone: how much of it a parabola far from the optimum makes.

    Parameters
    ----------
    pairs
        of `pair_batches`.
    decades
        half widths of the windows around the middle of both optima, in log10 N.

    Returns
    -------
    DataFrame
        one row per window that holds at least five pairs and two optima: `decades`, `num_pairs`, `first`, `second`
        (N\\*), `ratio`, `low`, `high`.
    """
    whole = optimum_shift(pairs, 1)
    distance = np.abs(np.log10(pairs["num_params"] / np.sqrt(whole.first.x_opt * whole.second.x_opt)))
    rows = []
    for width in decades:
        inside = pairs[distance <= width]
        try:
            found = optimum_shift(inside, num_resamples, seed)
        except InputError:  # a window too narrow for a parabola has no row, as documented
            continue
        low, high = found.interval(level=level)
        optima = {"first": found.first.x_opt, "second": found.second.x_opt, "ratio": found.ratio}
        rows.append({"decades": width, "num_pairs": len(inside), **optima, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["decades", "num_pairs", "first", "second", "ratio", "low", "high"])


def exponent_change(runs: pd.DataFrame, budget: float, ratio: ArrayLike, budgets: list[float] | None = None) -> Values:
    """Change of the two-step exponent of N\\* if the optimum of one budget is multiplied by `ratio`.

    The exponent is a least-squares slope in logarithms, so the change is exact: the budget's lever times log10 of the
    ratio. With one ratio it says what a study finds that changes the batch at this budget and nowhere else.

    Parameters
    ----------
    runs
        IsoFLOP runs of one architecture and context length (see `companion.fitting.isoflop.fit_isoflop`).
    budget
        the budget whose optimum moves, one of those in the table.
    ratio
        any shape.
    budgets
        budgets that make the law; all if not given.

    Raises
    ------
    InputError
        if the budget is not among those of the law, or the law has only one.
    """
    groups = isoflop_groups(runs, "num_params", None, budgets)
    labels = np.array(list(groups))
    if not (at := np.isclose(labels, budget, rtol=1e-6)).any():
        raise InputError(f"budget {budget:g} is not among those of the law: {', '.join(f'{b:g}' for b in labels)}")
    if labels.size < 2:
        raise InputError("change of the exponent: a power law needs at least two budgets")
    log_flops = np.log10([group["train_flops"].mean() for group in groups.values()])
    offset = log_flops - log_flops.mean()
    return float((offset / (offset @ offset))[at][0]) * np.log10(ratio)


def scaled_batch_change(ratio: ArrayLike, batch_exponent: float) -> Values:
    """Change of the exponent of N\\* in a study whose batch grows as C^batch_exponent, against one with a fixed batch.

    If every doubling of the batch multiplies N\\* by the same `ratio`, then N\\* gains a factor C^(batch_exponent ·
    log2 ratio). That the ratio is the same at every budget is an assumption: it was measured at one.

    Examples
    --------
    >>> print(f"{scaled_batch_change(0.5, 0.25):.2f}")
    -0.25
    """
    return batch_exponent * np.log2(np.asarray(ratio, dtype=float))


# ---- a critical batch ------------------------------------------------------------------------------------


def token_share(first_batch: ArrayLike, second_batch: ArrayLike, critical_batch: ArrayLike) -> Values:
    """Tokens that reach the same loss at the first batch, as a share of those at the second: from 1 to B_1/B_2.

    (1 + B_1/B_crit) / (1 + B_2/B_crit), from D = D_min·(1 + B/B_crit) (arXiv 2505.13738) with one B_crit for both.

    Parameters
    ----------
    first_batch, second_batch, critical_batch
        tokens; they broadcast.
    """
    first, second, critical = (np.asarray(value, dtype=float) for value in (first_batch, second_batch, critical_batch))
    return (critical + first) / (critical + second)


def predicted_difference(
    pairs: pd.DataFrame, surface: LossSurface, critical_batch: ArrayLike, surface_of: Side = "first"
) -> Array:
    """Loss differences that a critical batch predicts for the pairs, shape (n,), nats per token.

    Parameters
    ----------
    pairs
        of `companion.training.batch.pair_batches`, with batches in tokens.
    surface
        a loss surface of runs at one of the two batches.
    critical_batch
        B_crit in tokens, one value or one per pair; 0 gives the largest difference that the relation allows.
    surface_of
        whether the surface is that of the first or of the second batch.

    Raises
    ------
    InputError
        if `surface_of` is neither.
    """
    return _Pairs(pairs, surface, surface_of).predict(critical_batch)


class _Pairs:
    """What a prediction for pairs needs, as arrays of shape (n,)."""

    def __init__(self, pairs: pd.DataFrame, surface: LossSurface, surface_of: Side) -> None:
        if surface_of not in ("first", "second"):
            raise InputError(f"surface_of {surface_of!r} is neither 'first' nor 'second'")
        names = ("num_params", "second_num_tokens", "first_batch", "second_batch", "difference")
        self.sizes, self.tokens, self.first, self.second, self.difference = (pairs[n].to_numpy(float) for n in names)
        self.surface, self.of_first = surface, surface_of == "first"
        self.here = np.asarray(surface.predict(self.sizes, self.tokens), dtype=float)

    def predict(self, critical_batch: ArrayLike, rows: Any = slice(None)) -> Array:
        share = token_share(self.first[rows], self.second[rows], critical_batch)
        tokens = self.tokens[rows] * share if self.of_first else self.tokens[rows] / share
        change = np.asarray(self.surface.predict(self.sizes[rows], tokens), dtype=float) - self.here[rows]
        return change if self.of_first else -change


def implied_critical_batch(pairs: pd.DataFrame, surface: LossSurface, surface_of: Side = "first") -> pd.DataFrame:
    """B_crit that would explain each pair's difference, and how much any B_crit could explain.

    Parameters
    ----------
    pairs, surface, surface_of
        as in `predicted_difference`.

    Returns
    -------
    DataFrame
        one row per pair: `num_params`, `num_tokens`, `second_steps`, `difference`, `limit` (the difference as B_crit
        goes to 0), `token_share` (the function of that name) and `critical_batch` in tokens. The last is NaN where the
        difference is not positive or above the limit: then the relation does not describe the pair, whatever B_crit is.
    """
    data = _Pairs(pairs, surface, surface_of)
    sign = 1.0 if data.of_first else -1.0
    # the surface solved for tokens: L = E + (A N^-alpha + B D^-beta)^gamma
    with np.errstate(invalid="ignore", divide="ignore"):
        from_size, _ = surface.terms(data.sizes, data.tokens)
        from_tokens = (data.here + sign * data.difference - surface.E) ** (1 / surface.gamma) - from_size
        share = ((from_tokens / surface.B) ** (-1 / surface.beta) / data.tokens) ** sign
        described = (share < 1 - EDGE) & (share > data.first / data.second + EDGE)
        critical = np.where(described, (data.second * share - data.first) / (1 - share), np.nan)
    return pd.DataFrame(
        {
            "num_params": pairs["num_params"].to_numpy(),
            "num_tokens": pairs["second_num_tokens"].to_numpy(),
            "second_steps": pairs["second_steps"].to_numpy(),
            "difference": data.difference,
            "limit": data.predict(0.0),
            "token_share": share,
            "critical_batch": critical,
        }
    )


@dataclass(frozen=True, kw_only=True)
class CriticalBatchFit(Result):
    """B_crit = at_reference · (D / reference_tokens)^exponent in tokens, fitted to paired differences.

    `fixed_exponent` says whether the exponent was given. `residual_deviation` is in nats per token. The resamples (R,)
    are refits of resampled pairs with the loss surface as it is: its own error is not in them.
    """

    at_reference: float
    exponent: float
    reference_tokens: float
    fixed_exponent: bool
    residual_deviation: float
    at_reference_resamples: Array
    exponent_resamples: Array

    def predict(self, num_tokens: ArrayLike) -> Values:
        """B_crit in tokens at these D, any shape."""
        return self.at_reference * (np.asarray(num_tokens, dtype=float) / self.reference_tokens) ** self.exponent

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of `at_reference` or `exponent`."""
        samples = {"at_reference": self.at_reference_resamples, "exponent": self.exponent_resamples}
        check_name(name, samples, "a critical batch")
        return interval_with_lost(samples[name], level)


def fit_critical_batch(
    pairs: pd.DataFrame,
    surface: LossSurface,
    surface_of: Side = "first",
    exponent: float | None = None,
    num_resamples: int = 400,
    seed: int = 0,
) -> CriticalBatchFit:
    """The power law B_crit(D) that explains the differences of the pairs best, by least squares.

    Parameters
    ----------
    pairs, surface, surface_of
        as in `predicted_difference`.
    exponent
        of D, if it is to be held; None fits it.
    num_resamples, seed
        resamples of the pairs.

    Raises
    ------
    InputError
        with fewer than four pairs, or if the search does not converge.
    """
    if len(pairs) < 4:
        raise InputError(f"critical batch: {plural(len(pairs), 'pair')}; at least 4 are needed")
    log_tokens = np.log(pairs["second_num_tokens"].to_numpy(float))
    reference = float(np.exp(log_tokens.mean()))
    u, data = log_tokens - np.log(reference), _Pairs(pairs, surface, surface_of)

    def residuals(parameters: Array, rows: NDArray[np.int64]) -> Array:
        slope = parameters[1] if exponent is None else exponent
        return data.predict(np.exp(parameters[0] + slope * u[rows]), rows) - data.difference[rows]

    def solve(counts: Array, start: Array) -> Array:
        rows = np.repeat(np.arange(len(pairs)), counts.astype(int))
        found = least_squares(residuals, start, args=(rows,), method="lm")
        return np.asarray(found.x if found.success else np.full(start.size, np.nan), dtype=np.float64)

    start = np.array([np.log(pairs["second_batch"].mean()), *([0.5] if exponent is None else [])])
    best = solve(np.ones(len(pairs)), start)
    if not np.isfinite(best).all():
        raise InputError("critical batch: the search did not converge; do the differences fall as D grows?")
    samples = np.array([solve(c, best) for c in resample_counts(np.zeros(len(pairs)), num_resamples, seed)])
    left = residuals(best, np.arange(len(pairs)))
    slope = float(best[1]) if exponent is None else float(exponent)
    return CriticalBatchFit(
        at_reference=float(np.exp(best[0])),
        exponent=slope,
        reference_tokens=reference,
        fixed_exponent=exponent is not None,
        residual_deviation=float(np.sqrt(left @ left / (len(pairs) - best.size))),
        at_reference_resamples=np.exp(samples[:, 0]),
        exponent_resamples=samples[:, 1] if exponent is None else np.full(num_resamples, slope),
    )
