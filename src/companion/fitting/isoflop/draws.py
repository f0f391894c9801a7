"""How well the optimum of a parabola is known: optima drawn from what the runs leave open.

A parabola has three coefficients, and four or five runs leave one or two degrees of freedom. Resampling such runs finds
intervals that are far too narrow: a resample repeats runs, passes near those it has, and never shows a scatter that the
table does not show. Here the coefficients are drawn from their multivariate Student distribution around the fit: a
variance s²·nu/chi²(nu), then normal coefficients with that variance. Under normal scatter of equal size within one
profile, the drawn optima have the quantiles of Fieller's exact interval, and what is computed from several optima
carries the error of each. Sources: Fieller (1954); Box and Tiao, Bayesian Inference in Statistical Analysis (1973),
section 2.7.

A variance with a few degrees of freedom is often too small by chance, and then the optimum looks well known. A profile
with fewer than `ENOUGH_DEGREES` therefore takes the larger of its own variance and the mean over the profiles, and with
one degree of freedom, which says next to nothing, as if it had `SHARED_DEGREES`. `companion.benchmarks.coverage` shows
that the intervals hold the truth then, whether or not the scatter differs from budget to budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.fitting.bootstrap import check_resamples

Array = NDArray[np.float64]

#: Residual degrees of freedom from which a profile's own variance is taken as it is.
ENOUGH_DEGREES = 5
#: Degrees of freedom of a variance that has one of its own and is compared with those of other profiles.
SHARED_DEGREES = 1.5
#: An optimum farther outside the sampled sizes than this many decades, or than their own range, says nothing.
FAR_DECADES = 1.0
#: Scatter below this share of the loss is rounding.
ROUNDING = 1e-10


@dataclass(frozen=True, kw_only=True)
class ParabolaSpread:
    """A parabola of loss in u = (log10 x - center) / scale, and how far its coefficients scatter.

    `coefficients` (3,) are those of u², u and 1. A draw adds `factor` (3, 3) times three normal numbers of variance
    `variance`, which has `degrees_of_freedom`. `lowest` and `highest` are the sampled u. `fault` says why nothing can
    be drawn; it is empty if something can.
    """

    center: float
    scale: float
    coefficients: Array
    factor: Array
    variance: float
    degrees_of_freedom: int
    lowest: float
    highest: float
    fault: str


def far_outside(u_opt: Any, lowest: float, highest: float) -> Any:
    """Whether an optimum (any shape, decades) lies absurdly far outside the sampled sizes (decades)."""
    reach = max(FAR_DECADES, highest - lowest)
    return (u_opt < lowest - reach) | (u_opt > highest + reach)


def parabola_spread(x: Any, loss: Any, weights: Any = None) -> ParabolaSpread:
    """Coefficients, scatter and degrees of freedom of a weighted parabola.

    Every row is one run with its own scatter, whatever it weighs: a run that counts three times is not three runs.

    Parameters
    ----------
    x, loss, weights
        as in `isoflop.parabola.fit_parabola`, shape (n,), at least three different x of positive weight.
    """
    x, loss = np.asarray(x, dtype=float), np.asarray(loss, dtype=float)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    used = w > 0
    z, y, w = np.log10(x[used]), loss[used], w[used] / w[used].mean()
    center, scale = float(z.mean()), float(np.ptp(z)) / 2
    u = (z - center) / scale
    design, root = np.stack([u**2, u, np.ones_like(u)], axis=1), np.sqrt(w)
    q_matrix, r_matrix = np.linalg.qr(design * root[:, None])
    inverse = np.linalg.inv(r_matrix)
    coefficients = inverse @ (q_matrix.T @ (root * y))
    factor = inverse @ np.linalg.cholesky((q_matrix * w[:, None]).T @ q_matrix)
    residuals = y - design @ coefficients
    # E(r'r) = variance · trace of (I - H)'(I - H), which is n - 3 for equal weights
    trace = y.size - 6 + float(np.sum((design.T @ design) * (factor @ factor.T)))
    dof = int(y.size - 3)
    variance = float(residuals @ residuals) / trace if dof > 0 else float("nan")
    fault = ""
    if dof < 1:
        fault = "three runs leave no degree of freedom to judge a parabola by"
    elif np.sqrt(variance) <= ROUNDING * np.abs(y).max():
        fault = "the runs lie on their parabola within rounding: there is no scatter to draw an interval from"
    return ParabolaSpread(
        center=center,
        scale=scale,
        coefficients=coefficients,
        factor=factor,
        variance=variance,
        degrees_of_freedom=dof,
        lowest=float(u.min()),
        highest=float(u.max()),
        fault=fault,
    )


def draw_optima(spreads: Sequence[ParabolaSpread], num_resamples: int, seed: int) -> tuple[Array, Array]:
    """Optima of drawn parabolas, and the losses there.

    Parameters
    ----------
    spreads
        one per profile, B of them; each is drawn on its own.
    num_resamples
        R.
    seed
        of NumPy's PCG64; the same seed gives the same draws.

    Returns
    -------
    log10 x_opt, loss_opt
        shape (R, B); NaN where a drawn parabola has no minimum, or one that lies `far_outside`, and throughout a column
        whose profile has a `fault`.
    """
    check_resamples(num_resamples)
    rng = np.random.default_rng(seed)
    log_x_opt = np.full((num_resamples, len(spreads)), np.nan)
    loss_opt = log_x_opt.copy()
    for index, (spread, (variance, dof)) in enumerate(zip(spreads, _variances(spreads), strict=True)):
        if spread.fault:
            continue
        normal = rng.standard_normal((num_resamples, 3))
        deviation = np.sqrt(variance * dof / rng.chisquare(dof, num_resamples))
        quadratic, linear, constant = (spread.coefficients + deviation[:, None] * (normal @ spread.factor.T)).T
        safe = np.where(quadratic > 0, quadratic, np.nan)
        with np.errstate(over="ignore"):  # a nearly flat draw may put its optimum at infinity
            u_opt = -linear / (2 * safe)
            found = spread.scale * u_opt
            found[far_outside(found, spread.scale * spread.lowest, spread.scale * spread.highest)] = np.nan
            log_x_opt[:, index] = spread.center + found
            loss_opt[:, index] = np.where(np.isfinite(found), constant - linear**2 / (4 * safe), np.nan)
    return log_x_opt, loss_opt


def _variances(spreads: Sequence[ParabolaSpread]) -> list[tuple[float, float]]:
    """Variance and degrees of freedom to draw every profile with."""
    known = [spread.variance for spread in spreads if spread.degrees_of_freedom > 0]
    result = []
    for spread in spreads:
        dof = spread.degrees_of_freedom
        if 0 < dof < ENOUGH_DEGREES and len(known) > 1:
            result.append((max(spread.variance, float(np.mean(known))), max(SHARED_DEGREES, float(dof))))
        else:
            result.append((spread.variance, float(dof)))
    return result
