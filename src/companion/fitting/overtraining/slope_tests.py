"""Tests of the over-training slopes: are the lines parallel, are they straight, how large a difference could be seen.

All of them are regressions of log loss on log compute with an intercept per ratio of tokens to parameters, on the runs
that `companion.fitting.overtraining.exponents.fit_overtraining_slopes` used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from companion.errors import InputError
from companion.fitting.overtraining.exponents import OvertrainingSlopes, fit_slopes_by_ratio

Array = NDArray[np.float64]
#: What the lines of all ratios may have in common besides a slope.
SHAPES = ("straight", "bent", "by size")


@dataclass(frozen=True, kw_only=True)
class Coefficient:
    """One coefficient of a regression, with Student's test against 0."""

    value: float
    standard_error: float
    degrees_of_freedom: int

    @property
    def p_value(self) -> float:
        """Two-sided; NaN without residual degrees of freedom or scatter."""
        if self.degrees_of_freedom < 1 or not self.standard_error > 0:
            return float("nan")
        return float(2 * stats.t.sf(abs(self.value) / self.standard_error, self.degrees_of_freedom))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval."""
        if self.degrees_of_freedom < 1:
            return (float("nan"), float("nan"))
        half = stats.t.ppf((1 + level) / 2, self.degrees_of_freedom) * self.standard_error
        return (float(self.value - half), float(self.value + half))


def bending(slopes: OvertrainingSlopes) -> Coefficient:
    """How the slope changes along the lines: d eta / d log10 C, one value for all ratios beside their own slopes.

    Negative: loss falls more and more slowly than a power law, as it must when there is an irreducible loss.

    Raises
    ------
    InputError
        if the runs leave no degree of freedom for a common curvature.
    """
    _, log_c, log_l, intercepts = _columns(slopes)
    design = np.hstack([intercepts, intercepts * log_c[:, None], (log_c**2)[:, None]])
    # d log L / d ln C has the derivative 2·coefficient per unit of ln C, and eta is its negative
    return _last(design, log_l, -2 * np.log(10))


def bending_if_possible(data: pd.DataFrame) -> Coefficient:
    """`bending` of some of the runs; value and error NaN, no degree of freedom, where they are too few.

    Parameters
    ----------
    data
        as in `fit_slopes_by_ratio`; ratios with fewer than three runs do not count.
    """
    try:
        return bending(fit_slopes_by_ratio(data))
    except InputError:  # no ratio with a line, or no degree of freedom left
        return Coefficient(value=float("nan"), standard_error=float("nan"), degrees_of_freedom=0)


def slope_trend(slopes: OvertrainingSlopes) -> Coefficient:
    """How eta changes with the ratio: d eta / d log10 M, one value for all lines; 0 where they are parallel.

    Raises
    ------
    InputError
        for a single ratio, or if the runs leave no degree of freedom.

    Examples
    --------
    >>> from companion.fitting.overtraining import fit_overtraining_slopes
    >>> from companion.runs import load_paper_runs, subset
    >>> trend = slope_trend(fit_overtraining_slopes(subset(load_paper_runs(), "xlstm")))
    >>> low, high = trend.interval()
    >>> low < trend.value < high
    True
    """
    if len(slopes.laws) < 2:
        raise InputError("over-training: one ratio of tokens to parameters only: nothing to compare its slope with")
    _, _, log_l, _ = _columns(slopes)
    return _last(_designs(slopes, "straight")[2], log_l, -1.0)


def parallel_tests(slopes: OvertrainingSlopes) -> pd.DataFrame:
    """Whether the ratios have slopes of their own, for three ideas of what the lines look like (`SHAPES`).

    `straight` is the test of `fit_overtraining_slopes`. `bent` lets all lines bend alike, and compares slopes at equal
    compute. `by size` gives every model size a deviation that its runs share: curves of any shape, but the same for
    all ratios; where small models lie off every line by the same amount, this is the sharper test.

    Returns
    -------
    DataFrame
        with one row per shape: `shape`, `scatter` (residual standard deviation of log loss with own slopes), `between`,
        `within` (degrees of freedom), `f_statistic`, `p_value`, and `trend_p_value` for slopes that change steadily
        with log M (one degree of freedom). NaN where the runs are too few.
    """
    log_l = np.log(slopes.data["val_loss"].to_numpy())[None]
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        common, own, steady = _designs(slopes, shape)
        f, p, degrees, scatter = _f_test(log_l, common, own)
        trend = _f_test(log_l, common, steady)[1]
        rows.append(
            {
                "shape": shape,
                "scatter": float(scatter[0]),
                "between": degrees[0],
                "within": degrees[1],
                "f_statistic": float(f[0]),
                "p_value": float(p[0]),
                "trend_p_value": float(trend[0]),
            }
        )
    return pd.DataFrame(rows)


def slope_power(
    slopes: OvertrainingSlopes,
    total_changes: Sequence[float],
    shape: str = "straight",
    *,
    level: float = 0.05,
    num_simulations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often the tests would find a difference that is there, by simulation on the same design.

    eta is made to rise steadily with log M, by `total_change` from the smallest ratio to the largest; the scatter is
    normal with the residual variance of that shape.

    Returns
    -------
    DataFrame
        with one row per change: `total_change`, `f_test`, `trend_test` (share of simulations with p below `level`; at a
        change of 0 that is the false-alarm rate).

    Raises
    ------
    InputError
        for an unknown shape, a single ratio, or no residual degree of freedom.
    """
    if shape not in SHAPES:
        raise InputError(f"shape {shape!r} is not one of {', '.join(SHAPES)}")
    ratio, log_c, log_l, _ = _columns(slopes)
    log_m = np.log10(ratio)
    common, own, steady = _designs(slopes, shape)
    _, _, degrees, scatter = _f_test(log_l[None], common, own)
    if degrees[0] < 1 or degrees[1] < 1:
        raise InputError(
            "over-training: the power needs at least two ratios and more runs than the lines have parameters"
        )
    noise = np.random.default_rng(seed).normal(0.0, float(scatter[0]), size=(num_simulations, len(log_c)))
    rows = []
    for change in total_changes:
        eta = change * ((log_m - log_m.min()) / np.ptp(log_m) - 0.5)
        losses = -eta * log_c + noise
        p_values = {"f_test": _f_test(losses, common, own)[1], "trend_test": _f_test(losses, common, steady)[1]}
        rows.append({"total_change": float(change)} | {name: float((p < level).mean()) for name, p in p_values.items()})
    return pd.DataFrame(rows)


def detectable_change(power: pd.DataFrame, test: str = "f_test", target: float = 0.8) -> float:
    """The change that a test finds with a target power, interpolated in a `slope_power` table; NaN if none does."""
    found = np.maximum.accumulate(power[test].to_numpy())
    if found[-1] < target:
        return float("nan")
    return float(np.interp(target, found, power["total_change"]))


def heterogeneity(values: ArrayLike, errors: ArrayLike) -> tuple[float, float]:
    """Cochran's Q of estimates (n,) with known standard errors (n,), and its p-value (chi-squared, n − 1).

    Source: Cochran 1954, The combination of estimates from different experiments.

    Raises
    ------
    InputError
        for fewer than two estimates, or an error that is not positive and finite.
    """
    estimates, sigma = np.asarray(values, dtype=float), np.asarray(errors, dtype=float)
    if estimates.size < 2:
        raise InputError("heterogeneity: at least two estimates are needed")
    if not (np.isfinite(sigma).all() and (sigma > 0).all()):
        raise InputError("heterogeneity: every standard error must be positive and finite")
    weights = sigma**-2
    q = float((weights * (estimates - np.average(estimates, weights=weights)) ** 2).sum())
    return q, float(stats.chi2.sf(q, estimates.size - 1))


def compare_slopes(first: OvertrainingSlopes, second: OvertrainingSlopes) -> Coefficient:
    """Common eta of the first minus that of the second; degrees of freedom by Welch and Satterthwaite."""
    errors = [fits.common_eta_standard_error for fits in (first, second)]
    degrees = [max(len(fits.data) - len(fits.laws) - 1, 1) for fits in (first, second)]
    variance = errors[0] ** 2 + errors[1] ** 2
    shares = sum(error**4 / dof for error, dof in zip(errors, degrees, strict=True))
    return Coefficient(
        value=first.common_eta - second.common_eta,
        standard_error=float(np.sqrt(variance)),
        degrees_of_freedom=int(variance**2 / shares) if shares > 0 else min(degrees),
    )


# ---- regressions ---------------------------------------------------------------------------------


def _columns(slopes: OvertrainingSlopes) -> tuple[Array, Array, Array, Array]:
    """Ratio (n,), ln C about its mean (n,), ln L (n,) and the indicators of the ratios (n, k)."""
    ratio = slopes.data["tokens_per_param"].to_numpy()
    log_c = np.log(slopes.data["train_flops"].to_numpy())
    indicators = (ratio[:, None] == np.unique(ratio)).astype(float)
    return ratio, log_c - log_c.mean(), np.log(slopes.data["val_loss"].to_numpy()), indicators


def _designs(slopes: OvertrainingSlopes, shape: str) -> tuple[Array, Array, Array]:
    """Designs with a common slope, with own slopes, and with slopes that change steadily with log M."""
    ratio, x, _, intercepts = _columns(slopes)
    base = [intercepts]
    if shape == "bent":
        base.append((x**2)[:, None])
    if shape == "by size":
        size = slopes.data["num_params"].to_numpy()
        base.append((size[:, None] == np.unique(size)).astype(float))
        x = np.log(size) - np.log(size).mean()  # within a ratio, compute is a function of size
    log_m = np.log10(ratio)
    common = np.hstack([*base, x[:, None]])
    return (
        common,
        np.hstack([*base, intercepts * x[:, None]]),
        np.hstack([common, (x * (log_m - log_m.mean()))[:, None]]),
    )


def _last(design: Array, response: Array, factor: float) -> Coefficient:
    """The last coefficient of a least-squares fit, times a factor."""
    degrees = len(response) - design.shape[1]
    if degrees < 1:
        raise InputError(
            f"over-training: {len(response)} runs for {design.shape[1]} coefficients; more runs per ratio are needed"
        )
    # the last column without what the others explain
    rest, last = design[:, :-1], design[:, -1]
    basis = np.linalg.qr(rest)[0]
    unique = last - basis @ (basis.T @ last)
    left = response - basis @ (basis.T @ response)
    spread = float(unique @ unique)
    value = float(unique @ left) / spread
    error = float(np.sqrt(np.sum((left - value * unique) ** 2) / degrees / spread))
    return Coefficient(value=factor * value, standard_error=abs(factor) * error, degrees_of_freedom=degrees)


def _f_test(responses: Array, smaller: Array, larger: Array) -> tuple[Array, Array, tuple[int, int], Array]:
    """F, p, degrees of freedom and residual scatter of the larger of two nested designs; responses (R, n)."""
    squares, ranks = [], []
    for design in (smaller, larger):
        left, singular, _ = np.linalg.svd(design, full_matrices=False)
        basis = left[:, singular > 1e-9 * singular[0]]
        squares.append(((responses - responses @ basis @ basis.T) ** 2).sum(axis=1))
        ranks.append(basis.shape[1])
    degrees = (ranks[1] - ranks[0], responses.shape[1] - ranks[1])
    nothing = np.full(len(responses), np.nan)
    if degrees[1] < 1:
        return nothing, nothing, degrees, nothing
    variance = squares[1] / degrees[1]
    if degrees[0] < 1 or not (variance > 1e-24).all():
        return nothing, nothing, degrees, np.sqrt(variance)
    f_statistic = np.maximum(squares[0] - squares[1], 0.0) / degrees[0] / variance
    return f_statistic, np.asarray(stats.f.sf(f_statistic, *degrees)), degrees, np.sqrt(variance)
