"""How certain one parameter of a fit is, by the profile of its objective."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from companion.errors import InputError
from companion.fitting.derivatives import Rows, objective
from companion.fitting.newton import minimize_all
from companion.fitting.results import UNKNOWN, Result, check_name
from companion.fitting.solved import Solved
from companion.laws.base import Array, Law


def profiled(law: type[Law]) -> tuple[str, ...]:
    """Parameters whose profile is one-dimensional in the solver's coordinates: all but prefactors.

    Examples
    --------
    >>> from companion.laws import LossSurface
    >>> profiled(LossSurface)
    ('E', 'alpha', 'beta', 'gamma')
    """
    prefactors = {shift.prefactor for shift in law.SHIFTS}
    return tuple(name for name in law.PARAMETERS if name not in prefactors)


@dataclass(frozen=True, kw_only=True)
class Profile(Result):
    """Least objective as a function of one parameter.

    `values` (ascending) and `drop` have shape (K,); `drop` is twice the loss of quasi-log-likelihood against the
    optimum, to be compared with chi-squared of one degree of freedom.
    """

    parameter: str
    values: Array
    drop: Array

    def interval(self, name: str = "", level: float = 0.95) -> tuple[float, float]:
        """Of the parameter, whose name may be left out: where the drop stays below the chi-squared quantile.

        Infinite (or 0) where the grid ends before the drop rises.
        (NaN, NaN) where it has no width: runs without scatter.
        """
        check_name(name or self.parameter, (self.parameter,), f"the profile of {self.parameter}")
        threshold = stats.chi2.ppf(level, 1)
        inside = self.drop <= threshold
        if not inside.any():
            return UNKNOWN
        first, last = np.flatnonzero(inside)[[0, -1]]
        low = 0.0 if first == 0 else self._crossing(first - 1, first, threshold)
        high = float("inf") if last == len(inside) - 1 else self._crossing(last + 1, last, threshold)
        return (low, high) if low < high else UNKNOWN

    def _crossing(self, outside: int, inside: int, threshold: float) -> float:
        # drop is close to quadratic, so its root is close to linear
        roots = np.sqrt(np.maximum([self.drop[inside], self.drop[outside]], 0))
        share = (np.sqrt(threshold) - roots[0]) / (roots[1] - roots[0])
        return float(self.values[inside] + share * (self.values[outside] - self.values[inside]))


def profile(fit: Solved, parameter: str, width: float = 1.2, num_points: int = 61) -> Profile:
    """Profile of E, an exponent or gamma over a factor of exp(width) on either side of the fit.

    The objective is turned into a quasi-likelihood by the scale of its score, tau = mean psi² / mean psi' (Heritier and
    Ronchetti 1994, robust likelihood-ratio tests); for least squares that is the residual variance.

    Raises
    ------
    InputError
        for a parameter that has no profile or is not free.

    Examples
    --------
    >>> from companion import LossSurface, fit
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> found = fit(LossSurface, runs, gamma=1)
    >>> low, high = profile(found, "alpha").interval()
    >>> bool(low < found.parameters["alpha"] < high)
    True
    """
    known = profiled(type(fit.law))
    if parameter not in known:
        raise InputError(f"profile of {parameter!r}: there are {', '.join(known)}")
    index = fit.law.index(parameter)
    if not fit.free[index]:
        raise InputError(f"profile of {parameter}: it was fixed in this fit")
    steps = np.linspace(-1, 1, num_points)
    # dense near the optimum, where the interval of a well-known parameter ends
    values = getattr(fit.law, parameter) * np.exp(width * steps * np.abs(steps))
    if parameter == "E":  # it may lie above the lowest losses, not above all
        values = values[values < np.exp(fit.rows.log_loss).max()]
    logs = parameter in fit.law.LOGARITHMIC
    inner = np.log(values) if logs else values
    lower, upper = fit.law.bounds()
    values = values[(inner >= lower[index]) & (inner <= upper[index])]
    theta = np.tile(fit.theta_centered, (len(values), 1))
    theta[:, index] = np.log(values) if logs else values
    free = fit.free.copy()
    free[index] = False
    least = _continued(theta, fit.rows, free, int(np.argmin(np.abs(values - getattr(fit.law, parameter)))))
    with np.errstate(over="ignore"):  # runs without scatter
        drop = 2 * (least - fit.objective) / max(_score_scale(fit), 1e-300)
    return Profile(parameter=parameter, values=values, drop=drop)


def _continued(theta: Array, rows: Rows, free: NDArray[np.bool_], middle: int) -> Array:
    """Least objectives along a grid, each point started from its neighbor nearer to the optimum."""
    least = np.full(len(theta), np.inf)
    fixed = ~free
    for path in (range(middle, len(theta)), range(middle, -1, -1)):
        start = theta[middle]
        for at in path:
            start = np.where(fixed, theta[at], start)
            solution = minimize_all(start[None], rows, free, tolerance=1e-12)
            start = solution.theta[0]
            least[at] = min(least[at], float(objective(start[None], rows)[0]))
    return least


def _score_scale(fit: Solved) -> float:
    delta, residuals, weights = fit.huber_delta, fit.residuals, fit.rows.weights
    total = weights.sum()
    psi = np.clip(residuals, -delta, delta)
    variance = (weights * psi**2).sum() / total * total / max(total - fit.num_free, 1)
    # mean psi' is the share of residuals within delta; a small delta holds few, so their density is read off a wider
    # window (Silverman's rule) and scaled down
    deviation = min(np.std(residuals), np.subtract(*np.percentile(residuals, [75, 25])) / 1.349)
    window = max(delta, 1.06 * deviation * len(residuals) ** -0.2)
    slope = (weights * (np.abs(residuals) <= window)).sum() / total * (delta / window if math.isfinite(delta) else 1.0)
    return float(variance / max(slope, 1 / total))
