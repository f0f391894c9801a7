"""What runs say about a law, to first order: information matrices, and standard errors of any quantity.

A run at (N, D) whose log loss scatters by sigma adds j jᵀ / sigma² to the information, with j the exact gradient of
log L in the free parameters. The standard error of a quantity g is the delta method's, sqrt(cᵀ M⁻¹ c) with c the slope
of g.

What is assumed: the law holds, the scatter of log L is normal, independent and of one size at every run, and the
fit is near enough to the truth for its first order. A fit with a Huber delta below the scatter is less efficient than
least squares; under normal scatter by the factor of `huber_efficiency`, which is applied. Nothing here regularizes: a
quantity that the runs do not determine has an infinite standard error.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from companion.errors import InputError
from companion.fitting.fit import HUBER_DELTA
from companion.fitting.identification import ILL_CONDITIONED
from companion.fitting.solved import NOT_IDENTIFIED, Solved
from companion.laws.base import Array, Law
from companion.study.next_runs.quantities import Quantity

#: Share of the largest eigenvalue of the scaled information below which a direction is not known at all.
_NO_INFORMATION = ILL_CONDITIONED**-2
#: Share of a slope along an unknown direction that is rounding.
_ROUNDING = 1e-6
#: Degrees of freedom from which the scatter of repeated runs is used.
ENOUGH_REPEATS = 5
#: Residuals beyond this many times their 68 % quantile count as that: the Huber loss ignores outliers, too.
_WINSOR = 3.0


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviation of log L about the law, its degrees of freedom, and where it comes from."""

    sd: float
    degrees: float = math.inf
    source: str = "given"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sd) and self.sd > 0 and self.degrees > 0):
            raise InputError(f"noise {self.sd:g}, {self.degrees:g} degrees of freedom: both must be positive")

    def quantile(self, level: float) -> float:
        """How many standard errors an interval reaches to either side, by Student's t."""
        return float(stats.t.ppf((1 + level) / 2, self.degrees))


def noise_of(fit: Solved) -> Noise:
    """The scatter of a fit's residuals, winsorized as `companion.fitting.identification.standard_errors` does.

    It holds what the law misses besides what seeds scatter: both stand between a new run and the law. Where the fit
    passes through all runs, there is no scatter to be seen.

    Raises
    ------
    InputError
        if no degrees of freedom are left, or the residuals are zero.
    """
    residuals = fit.residuals[fit.rows.weights > 0]
    degrees = len(residuals) - fit.num_free
    if degrees < 1:
        raise InputError(
            f"noise: {len(residuals)} runs for {fit.num_free} free parameters leave no scatter to estimate"
        )
    size = np.abs(residuals)
    size = np.minimum(size, _WINSOR * np.quantile(size, 0.683, method="higher"))
    sd = float(np.sqrt((size**2).sum() / degrees))
    if not sd > 1e-12:
        raise InputError("noise: the runs lie on the law without scatter; give the noise of the log loss")
    return Noise(sd=sd, degrees=degrees, source="residuals of the fit")


def repeat_noise(runs: pd.DataFrame) -> Noise | None:
    """The scatter of runs that repeat a (N, D), about the mean of their log loss; None with too few repeats.

    Examples
    --------
    >>> twice = pd.DataFrame({"num_params": [1e8] * 8, "num_tokens": [1e9] * 8, "val_loss": [3.0, 3.03] * 4})
    >>> f"{repeat_noise(twice).sd:.4f}"
    '0.0053'
    """
    groups = pd.DataFrame(
        {"group": runs.groupby(["num_params", "num_tokens"]).ngroup(), "log": np.log(runs["val_loss"])}
    )
    away = groups["log"] - groups.groupby("group")["log"].transform("mean")
    degrees = len(groups) - groups["group"].nunique()
    sd = float(np.sqrt((away**2).sum() / degrees)) if degrees >= ENOUGH_REPEATS else 0.0
    return Noise(sd=sd, degrees=degrees, source="repeated runs") if sd > 0 else None


def huber_efficiency(noise: float, huber_delta: float) -> float:
    """Variance of least squares over that of a Huber fit under normal scatter, between 2/pi and 1.

    Source: Huber 1964, Robust estimation of a location parameter: the asymptotic variance is E psi² / (E psi')².

    Examples
    --------
    >>> round(huber_efficiency(1.0, 1.345), 2), round(huber_efficiency(1.0, 1e-6), 3)
    (0.95, 0.637)
    """
    k = huber_delta / noise
    if math.isinf(k) or k > 8:
        return 1.0
    inside = math.erf(k / math.sqrt(2))  # E psi'
    density = math.exp(-(k**2) / 2) / math.sqrt(2 * math.pi)
    outside = 1 - inside
    # the series of erf - 2 k density loses its digits for small k
    middle = inside - 2 * k * density if k > 1e-3 else math.sqrt(2 / math.pi) * k**3 / 3
    return float(inside**2 / (middle + k**2 * outside))


@dataclass(frozen=True, kw_only=True)
class LinearLaw:
    """A law near its parameters, to first order.

    Attributes
    ----------
    law
        the law at its parameters.
    theta
        solver parameters of centered logs, shape (p,); `center` is what was subtracted from log N and log D.
    free
        which of them the runs must determine, shape (p,): f of them.
    noise
        of the log loss.
    huber_delta
        of the fits whose certainty is asked for.
    notes
        what was held besides what the fit held.
    """

    law: Law
    theta: Array
    center: tuple[float, float]
    free: NDArray[np.bool_]
    noise: Noise
    huber_delta: float = HUBER_DELTA
    notes: tuple[str, ...] = ()

    @property
    def effective_noise(self) -> float:
        """The noise under which least squares would be as uncertain as the Huber fit is."""
        return self.noise.sd / math.sqrt(huber_efficiency(self.noise.sd, self.huber_delta))

    @property
    def names(self) -> list[str]:
        """The free parameters."""
        return [name for name, free in zip(self.law.PARAMETERS, self.free, strict=True) if free]

    def sensitivities(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Array:
        """Rows j / sigma of runs (n,), shape (n, f): their sum of squares is the information."""
        log_n = np.log(np.asarray(num_params, dtype=float)) - self.center[0]
        log_d = np.log(np.asarray(num_tokens, dtype=float)) - self.center[1]
        gradient = self.law.expand(self.theta[None], log_n, log_d).gradient[0]
        return np.asarray(gradient[:, self.free] / self.effective_noise)

    def information(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Array:
        """Information matrix of runs (n,), shape (f, f)."""
        rows = self.sensitivities(num_params, num_tokens)
        return np.asarray(rows.T @ rows)

    def slope(self, quantity: Quantity) -> Array:
        """Slope of a quantity in the free parameters, shape (f,)."""
        law = type(self.law)
        slope = quantity.slope(law, law.shifted(self.theta, self.center, +1.0)).copy()
        for shift in law.SHIFTS:  # a centered exponent moves the plain prefactor
            slope[law.index(shift.exponent)] += slope[law.index(shift.prefactor)] * self.center[shift.variable]
        return np.asarray(slope[self.free])

    def standard_error(self, information: Array, quantity: Quantity) -> float:
        """Of ln(value) or of the value, as the quantity's `in_logs` says; infinite where runs do not determine it."""
        return math.sqrt(variance_of(information, self.slope(quantity)))


def variance_of(information: Array, slope: Array) -> float:
    """cᵀ M⁻¹ c; infinite where c has a part along a direction of which the information M says nothing.

    Examples
    --------
    >>> variance_of(np.diag([4.0, 0.0]), np.array([1.0, 0.0]))
    0.25
    >>> variance_of(np.diag([4.0, 0.0]), np.array([1.0, 0.1]))
    inf
    """
    norms = np.sqrt(np.diag(information))
    if not norms.any():
        return math.inf if slope.any() else 0.0
    scale = np.where(norms > 0, norms, norms.max())
    values, directions = np.linalg.eigh(information / np.outer(scale, scale))
    known = values > _NO_INFORMATION * values[-1]
    parts = directions.T @ (slope / scale)
    if np.abs(parts[~known]).max(initial=0.0) > _ROUNDING * np.abs(parts).max(initial=0.0):
        return math.inf
    return float((parts[known] ** 2 / values[known]).sum())


def condition_number(information: Array) -> float:
    """Of the design behind an information matrix, its columns scaled to unit norm; infinite where it has no rank."""
    norms = np.sqrt(np.diag(information))
    if not (norms > 0).all():
        return math.inf
    values = np.linalg.eigvalsh(information / np.outer(norms, norms))
    return math.sqrt(values[-1] / values[0]) if values[0] > _NO_INFORMATION * values[-1] else math.inf


def linearize(fit: Solved, noise: Noise | None = None) -> LinearLaw:
    """A fitted law to first order. Parameters at a bound are held there, and `notes` says so.

    Raises
    ------
    InputError
        if the law is not identified: its parameters are not where runs would be judged from.

    Examples
    --------
    >>> from companion import LossSurface, fit
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> linear = linearize(fit(LossSurface, runs, gamma=1))
    >>> known = linear.information(runs["num_params"], runs["num_tokens"])
    >>> from companion.study.next_runs.quantities import SizeExponent
    >>> f"{linear.standard_error(known, SizeExponent()):.3f}"
    '0.016'
    """
    if fit.status == NOT_IDENTIFIED:
        raise InputError(f"the law is not identified: {fit.status_detail}")
    stuck = fit.at_bound
    free = fit.free & ~np.isin(fit.law.PARAMETERS, stuck)
    return LinearLaw(
        law=fit.law,
        theta=fit.theta_centered,
        center=fit.rows.center,
        free=free,
        noise=noise_of(fit) if noise is None else noise,
        huber_delta=fit.huber_delta,
        notes=tuple(f"{name} is at its bound and held there" for name in stuck),
    )


def linear_law(
    law: Law,
    noise: float,
    held: Iterable[str] = (),
    huber_delta: float = HUBER_DELTA,
    center: tuple[float, float] = (20.0, 24.0),
) -> LinearLaw:
    """A known law to first order, e.g. to judge designs before any run.

    Parameters
    ----------
    noise
        standard deviation of the log loss.
    held
        parameters that are known, e.g. `gamma`.
    center
        about where log N and log D of the runs lie; it changes no result, only rounding.

    Examples
    --------
    >>> from companion.laws import LossSurface
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> linear_law(law, 0.005, held=["gamma"]).names
    ['E', 'A', 'B', 'alpha', 'beta']
    """
    names, of = law.PARAMETERS, type(law)
    for name in (known := tuple(held)):
        of.index(name)
    values = np.array([float(getattr(law, name)) for name in names])
    theta = np.where([name in of.LOGARITHMIC for name in names], np.log(np.maximum(values, 1e-300)), values)
    return LinearLaw(
        law=law,
        theta=of.shifted(theta, center, -1.0),
        center=center,
        free=np.array([name not in known for name in names]),
        noise=Noise(sd=noise),
        huber_delta=huber_delta,
    )
