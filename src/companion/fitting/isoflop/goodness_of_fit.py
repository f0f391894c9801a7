"""Goodness of fit of the two models behind an IsoFLOP power law: the line through the optima, and the parabolas."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from companion.errors import InputError
from companion.fitting.isoflop.profiles import IsoflopFit, IsoflopProfile


@dataclass(frozen=True, kw_only=True)
class LawScatter:
    """Whether optima scatter about a power law as much as their own standard errors say.

    `pulls` are distances from the weighted line in units of each optimum's standard error, shape (n,); `chi_square` is
    the sum of their squares. `closer` and `farther` are the chances that optima with these errors, lying on a true
    power law, scatter less or more than seen.
    """

    pulls: NDArray[np.float64]
    chi_square: float
    degrees_of_freedom: int
    closer: float
    farther: float


def law_scatter(fit: IsoflopFit) -> LawScatter:
    """Chi-square test of the power law against the optima's own errors, weighted by their inverse variances.

    Raises
    ------
    InputError
        with fewer than three optima that have a standard error.
    """
    usable = [(p, p.fit) for p in fit.optima if p.fit and 0 < p.fit.log10_x_opt_standard_error < np.inf]
    if len(usable) < 3:
        found = f"{len(usable)} {'optimum' if len(usable) == 1 else 'optima'}"
        raise InputError(f"scatter about the power law: {found} with a standard error; 3 are needed")
    log_x = np.log10([parabola.law.x_opt for _, parabola in usable])
    log_flops = np.log10([profile.mean_train_flops for profile, _ in usable])
    errors = np.array([parabola.log10_x_opt_standard_error for _, parabola in usable])
    weights = errors**-2.0
    u = log_flops - np.average(log_flops, weights=weights)
    slope = np.sum(weights * u * log_x) / np.sum(weights * u**2)
    pulls = (log_x - np.average(log_x, weights=weights) - slope * u) / errors
    chi_square, dof = float(np.sum(pulls**2)), len(usable) - 2
    return LawScatter(
        pulls=pulls,
        chi_square=chi_square,
        degrees_of_freedom=dof,
        closer=float(stats.chi2.cdf(chi_square, dof)),
        farther=float(stats.chi2.sf(chi_square, dof)),
    )


@dataclass(frozen=True, kw_only=True)
class Skew:
    """A profile fitted by a cubic instead of a parabola.

    `p_value` is that of the cubic term (F test), `x_opt` the cubic's minimum next to the parabola's (NaN if it has none
    within the sampled sizes).
    """

    p_value: float
    x_opt: float


def skew(profile: IsoflopProfile) -> Skew:
    """Whether the profile is a parabola: the cubic term's significance, and where the minimum would be with it.

    Raises
    ------
    InputError
        with fewer than five different sizes, or without an optimum.
    """
    if profile.fit is None or not profile.has_optimum or np.unique(profile.x).size < 5:
        raise InputError(f"budget {profile.isoflop_budget:g}: a cubic needs five sizes and a parabola with an optimum")
    u = np.log10(profile.x / profile.fit.law.x_opt)
    root = np.sqrt(profile.weights)
    cubic = np.polynomial.Polynomial.fit(u, profile.loss, 3, w=root, domain=[-1, 1])
    without = float(np.sum((root * profile.fit.residuals) ** 2))
    remaining = float(np.sum((root * (profile.loss - cubic(u))) ** 2))
    dof = float(profile.weights.sum() - 4)
    f_value = (without - remaining) / (remaining / dof) if dof > 0 and remaining > 0 else np.nan
    roots = cubic.deriv().roots()
    minima = np.array([r.real for r in roots if abs(r.imag) < 1e-9 and cubic.deriv(2)(r.real) > 0])
    minima = minima[(minima >= u.min()) & (minima <= u.max())]
    return Skew(
        p_value=float(stats.f.sf(f_value, 1, dof)),
        x_opt=float(profile.fit.law.x_opt * 10 ** minima[0]) if minima.size else float("nan"),
    )
