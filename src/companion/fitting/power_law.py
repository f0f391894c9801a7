"""Power laws by least squares in logarithms."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from companion.errors import InputError
from companion.fitting.results import Result, check_name
from companion.laws import PowerLaw

#: A standard error of the exponent below this is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class PowerLawFit(Result):
    """A fitted power law and how well it is known.

    `covariance` is that of (log prefactor, exponent), shape (2, 2), natural logarithms; NaN when only two points leave
    no residual degree of freedom. `residuals` are log y minus the fit, shape (n,).
    """

    law: PowerLaw
    covariance: NDArray[np.float64]
    residuals: NDArray[np.float64]
    degrees_of_freedom: float

    @property
    def exponent_standard_error(self) -> float:
        """Standard error of the exponent: the root of its variance."""
        return float(np.sqrt(self.covariance[1, 1]))

    @property
    def log_prefactor_standard_error(self) -> float:
        """Standard error of the natural logarithm of the prefactor."""
        return float(np.sqrt(self.covariance[0, 0]))

    @property
    def prefactor_standard_error(self) -> float:
        """Standard error of the prefactor to first order. The error is asymmetric: prefer the interval."""
        return self.law.prefactor * self.log_prefactor_standard_error

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Student-t confidence interval of `exponent` or `prefactor` (the latter from its logarithm).

        With three points the factor is 12.7 standard errors at 95 %, not 2. (NaN, NaN) without a degree of freedom, for
        points that lie on the law within rounding, and where an end is not a number that can be written.
        """
        check_name(name, ("exponent", "prefactor"), "a power law")
        known = self.degrees_of_freedom > 0 and self.exponent_standard_error > ROUNDING
        t = stats.t.ppf((1 + level) / 2, self.degrees_of_freedom) if known else np.nan
        if name == "exponent":
            half = t * self.exponent_standard_error
            return (self.law.exponent - half, self.law.exponent + half)
        half = t * self.log_prefactor_standard_error
        with np.errstate(over="ignore", divide="ignore"):
            center = np.log(self.law.prefactor)
            return _finite(np.exp(center - half), np.exp(center + half))


def fit_power_law(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> PowerLawFit:
    """Least squares of log y on log x.

    Parameters
    ----------
    x, y
        positive, shape (n,), n at least 2, at least two different x.
    weights
        how many points each row stands for, shape (n,); all 1 if not given.

    Raises
    ------
    InputError
        for non-positive or non-finite values, or fewer than two different x.

    Examples
    --------
    >>> found = fit_power_law([1e18, 1e19, 1e20], [1e8, 3.2e8, 1e9])
    >>> round(found.law.exponent, 3)
    0.5
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    for name, values in (("x", x), ("y", y)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise InputError(f"power law: {name} has a value that is not positive and finite")
    if np.unique(x[w > 0]).size < 2:
        raise InputError("power law: at least two different values of x are needed")
    log_x, log_y = np.log(x), np.log(y)
    mean_x, mean_y = np.average(log_x, weights=w), np.average(log_y, weights=w)
    u = log_x - mean_x  # centered: the two parameters are then uncorrelated, which keeps the arithmetic exact
    spread = float(np.sum(w * u * u))
    exponent = float(np.sum(w * u * (log_y - mean_y)) / spread)
    residuals = log_y - mean_y - exponent * u
    dof = float(w.sum() - 2)
    variance = float(np.sum(w * residuals**2) / dof) if dof > 0 else float("nan")
    covariance = variance * np.array(
        [[1 / w.sum() + mean_x**2 / spread, -mean_x / spread], [-mean_x / spread, 1 / spread]]
    )
    with np.errstate(over="ignore"):  # y at x = 1 may be too large or too small to write
        law = PowerLaw(prefactor=float(np.exp(mean_y - exponent * mean_x)), exponent=exponent)
    return PowerLawFit(law=law, covariance=covariance, residuals=residuals, degrees_of_freedom=dof)


def undefined_power_law() -> PowerLawFit:
    """A law without a value, for points that define none: prefactor, exponent and errors are NaN."""
    return PowerLawFit(
        law=PowerLaw(prefactor=float("nan"), exponent=float("nan")),
        covariance=np.full((2, 2), np.nan),
        residuals=np.empty(0),
        degrees_of_freedom=0.0,
    )


def _finite(low: float, high: float) -> tuple[float, float]:
    """Both ends of a positive quantity, or (NaN, NaN) where one is infinite, or zero by underflow."""
    known = np.isfinite([low, high]).all() and low > 0
    return (float(low), float(high)) if known else (float("nan"), float("nan"))
