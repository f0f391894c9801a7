"""How well the parameters of a parametric fit are known: bootstrap, profile likelihood, bands of the loss.

The bootstrap refits every resample from the optimum and from the basins that the fit found beside it. Resamples run in
batches of fixed size, so the result does not depend on how many processes or machines share them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.errors import InputError
from companion.fitting.bootstrap import percentile_interval, resample_counts
from companion.fitting.parametric import PARAMETERS, ParametricFit
from companion.fitting.parametric_kernel import Array, Rows, log_predictions, objective, to_raw
from companion.fitting.parametric_solver import LOWER, UPPER, minimize_all
from companion.laws import LossSurface

#: Resamples that take their Newton steps together.
BATCH = 125
#: Parameters whose profile is one-dimensional in the solver's coordinates.
PROFILED = ("E", "alpha", "beta", "gamma")


@dataclass(frozen=True, kw_only=True)
class ParametricBootstrap:
    """Refits of resampled runs.

    `theta` has shape (R, 6): log E, log A, log B, alpha, beta, log gamma; rows of resamples that could not be fitted
    are NaN. `cluster` is the column whose values were drawn whole, None for single runs.
    """

    fit: ParametricFit
    theta: Array
    seed: int
    cluster: str | None

    @property
    def samples(self) -> pd.DataFrame:
        """Parameters by name, one row per resample."""
        columns = [np.exp(self.theta[:, 0]), np.exp(self.theta[:, 1]), np.exp(self.theta[:, 2])]
        columns += [self.theta[:, 3], self.theta[:, 4], np.exp(self.theta[:, 5])]
        return pd.DataFrame(dict(zip(PARAMETERS, columns, strict=True)))

    @property
    def lost(self) -> float:
        """Share of resamples without a fit, between 0 and 1."""
        return float(np.isnan(self.theta).any(axis=1).mean())

    @property
    def at_bound(self) -> float:
        """Share of resamples with a free parameter at the edge of its box, between 0 and 1."""
        free = self.fit.free.copy()
        free[1:3] = False  # A and B are boxed in centred coordinates; their bounds follow the exponents
        return float(((self.theta <= LOWER + 1e-9) | (self.theta >= UPPER - 1e-9))[:, free].any(axis=1).mean())

    def interval(self, parameter: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of one free parameter.

        (NaN, NaN) for a fixed gamma, and where the resamples agree to the last digit, at a bound: an interval without
        width would claim to know what the runs cannot say.
        """
        if parameter not in PARAMETERS:
            raise InputError(f"no parameter {parameter!r}; there are {', '.join(PARAMETERS)}")
        if parameter == "gamma" and not self.fit.gamma_free:
            return (float("nan"), float("nan"))
        low, high = percentile_interval(self.samples[parameter], level)
        return (low, high) if low < high else (float("nan"), float("nan"))

    def interval_of(self, function: Callable[[LossSurface], float], level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of any number computed from a law, e.g. `lambda law: law.optimum(1e21)[0]`."""
        usable = self.samples[list(PARAMETERS)].dropna().to_numpy()
        laws = (LossSurface(**dict(zip(PARAMETERS, row.tolist(), strict=True))) for row in usable)
        return percentile_interval([function(law) for law in laws], level)

    def confidence_band(self, num_params: Any, num_tokens: Any, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of the law's loss at points of shape (n,): where the mean of many runs would lie."""
        return _quantiles(np.exp(self._log_curves(num_params, num_tokens)), level)

    def prediction_band(self, num_params: Any, num_tokens: Any, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of the loss of a single new run at points of shape (n,): the law's own doubt plus the runs' scatter.

        The scatter is that of the fit's residuals, widened for the parameters that were fitted. Every law meets every
        residual, so no chance enters.
        """
        curves = self._log_curves(num_params, num_tokens)
        weights = self.fit.rows.weights
        widening = np.sqrt(self.fit.num_rows / (self.fit.num_rows - self.fit.num_free))
        noise = np.repeat(self.fit.residuals * widening, np.ceil(weights).astype(int))
        bands = [_quantiles(np.exp((curve[:, None] + noise).ravel()), level) for curve in curves.T]
        low, high = np.array(bands).T
        return low, high

    def _log_curves(self, num_params: Any, num_tokens: Any) -> Array:
        log_n, log_d = np.atleast_1d(np.log(num_params)), np.atleast_1d(np.log(num_tokens))
        log_n, log_d = np.broadcast_arrays(log_n.astype(float), log_d.astype(float))
        usable = self.theta[~np.isnan(self.theta).any(axis=1)]
        rows = Rows(log_n.ravel(), log_d.ravel(), np.zeros(log_n.size), np.ones(log_n.size), 1.0, (0.0, 0.0))
        return log_predictions(usable, rows)


def bootstrap_parametric(
    fit: ParametricFit,
    num_resamples: int = 1000,
    *,
    seed: int = 0,
    cluster: str | None = None,
    num_jobs: int = 1,
    scheduler: str | None = None,
) -> ParametricBootstrap:
    """Refit resampled runs.

    Parameters
    ----------
    fit
        the fit whose doubt is wanted.
    num_resamples, seed
        R and the seed of the draws; the same seed gives the same bits, however the work is shared.
    cluster
        `num_params` draws whole model sizes: right where runs of one size share a deviation; None draws runs.
    num_jobs
        processes on this machine (joblib).
    scheduler
        address of a Dask scheduler (`tcp://host:8786`) that takes the batches instead.

    Raises
    ------
    InputError
        for an unknown cluster column, fewer than three clusters, or a scheduler that does not answer.
    """
    weights = _resampled_weights(fit, num_resamples, seed, cluster)
    batches = [weights[start : start + BATCH] for start in range(0, num_resamples, BATCH)]
    theta = np.concatenate(_shared(fit, batches, num_jobs, scheduler))
    return ParametricBootstrap(fit=fit, theta=theta, seed=seed, cluster=cluster)


def _resampled_weights(fit: ParametricFit, num_resamples: int, seed: int, cluster: str | None) -> Array:
    if cluster is None:
        return resample_counts(np.zeros(len(fit.data)), num_resamples, seed) * fit.rows.weights
    if cluster not in ("num_params", "num_tokens"):
        raise InputError(f"bootstrap: cluster {cluster!r} is not one of num_params, num_tokens")
    values, labels = np.unique(fit.data[cluster], return_inverse=True)
    if values.size < 3:
        raise InputError(
            f"bootstrap: {values.size} different {cluster}; at least 3 are needed to draw them as clusters"
        )
    return resample_counts(np.zeros(values.size), num_resamples, seed)[:, labels] * fit.rows.weights


def _shared(fit: ParametricFit, batches: Sequence[Array], num_jobs: int, scheduler: str | None) -> list[Array]:
    """Refit all batches here, in processes, or on a Dask cluster."""
    if scheduler is not None:
        try:
            from distributed import Client
        except ImportError as error:
            raise InputError(f"a scheduler needs dask: pip install 'dask[distributed]' ({error})") from error
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise InputError(f"scheduler {scheduler}: {' '.join(str(error).split())}") from error
        with client:
            return list(client.gather(client.map(refit, [fit] * len(batches), batches, pure=False)))
    if num_jobs == 1 or len(batches) == 1:
        return [refit(fit, batch) for batch in batches]
    from joblib import Parallel, delayed

    return list(Parallel(n_jobs=num_jobs)(delayed(refit)(fit, batch) for batch in batches))


def refit(fit: ParametricFit, weights: Array) -> Array:
    """Best parameters for every row of weights, shape (R, 6); NaN where a resample holds too few different runs.

    Parameters
    ----------
    fit
        gives the data and the starts.
    weights
        shape (R, n).
    """
    rows = replace(fit.rows, weights=weights)
    starts = _starts(fit)
    best_theta = np.full((len(weights), 6), np.nan)
    best_objective = np.full(len(weights), np.inf)
    for start in starts:
        solutions = minimize_all(np.tile(start, (len(weights), 1)), rows, fit.free, tolerance=1e-10)
        better = solutions.objective < best_objective
        best_theta[better], best_objective[better] = solutions.theta[better], solutions.objective[better]
    distinct = np.array([np.unique(fit.rows.log_n[row > 0]).size for row in weights])
    best_theta[(distinct < 2) | ((weights > 0).sum(axis=1) <= fit.num_free)] = np.nan
    return to_raw(best_theta, rows.center)


def _starts(fit: ParametricFit) -> Array:
    """The optimum, and two places at some distance on either side of it along the worst-known direction."""
    theta = fit.theta_centred
    direction = np.zeros(6)
    direction[fit.free] = np.linalg.svd(fit._scaled_design)[2][-1]
    direction /= np.abs(direction).max()
    return np.clip(np.stack([theta, theta + 0.3 * direction, theta - 0.3 * direction]), LOWER, UPPER)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Least objective as a function of one parameter.

    `values` (ascending) and `drop` have shape (K,); `drop` is twice the loss of quasi-log-likelihood against the
    optimum, to be compared with chi-squared of one degree of freedom.
    """

    parameter: str
    values: Array
    drop: Array

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the drop stays below the chi-squared quantile; infinite (or 0) where the grid ends before it rises."""
        threshold = stats.chi2.ppf(level, 1)
        inside = self.drop <= threshold
        if not inside.any():
            return (float("nan"), float("nan"))
        first, last = np.flatnonzero(inside)[[0, -1]]
        low = 0.0 if first == 0 else self._crossing(first - 1, first, threshold)
        high = float("inf") if last == len(inside) - 1 else self._crossing(last + 1, last, threshold)
        return (low, high)

    def _crossing(self, outside: int, inside: int, threshold: float) -> float:
        # drop is close to quadratic, so its root is close to linear
        roots = np.sqrt(np.maximum([self.drop[inside], self.drop[outside]], 0))
        share = (np.sqrt(threshold) - roots[0]) / (roots[1] - roots[0])
        return float(self.values[inside] + share * (self.values[outside] - self.values[inside]))


def profile(fit: ParametricFit, parameter: str, width: float = 1.2, num_points: int = 61) -> Profile:
    """Profile of E, alpha, beta or gamma over a factor of exp(width) on either side of the fit.

    The objective is turned into a quasi-likelihood by the scale of its score, tau = mean psi² / mean psi' (Heritier and
    Ronchetti 1994, robust likelihood-ratio tests); for least squares that is the residual variance.

    Raises
    ------
    InputError
        for a parameter that has no profile or is not free.
    """
    if parameter not in PROFILED:
        raise InputError(f"profile of {parameter!r}: there are {', '.join(PROFILED)}")
    index = PARAMETERS.index(parameter)
    if not fit.free[index]:
        raise InputError("profile of gamma: it was fixed in this fit")
    steps = np.linspace(-1, 1, num_points)
    # dense near the optimum, where the interval of a well-known parameter ends
    values = getattr(fit.law, parameter) * np.exp(width * steps * np.abs(steps))
    if parameter == "E":  # it may lie above the lowest losses, not above all
        values = values[values < np.exp(fit.rows.log_loss).max()]
    theta = np.tile(fit.theta_centred, (len(values), 1))
    theta[:, index] = values if parameter in ("alpha", "beta") else np.log(values)
    free = fit.free.copy()
    free[index] = False
    least = _continued(theta, fit.rows, free, int(np.argmin(np.abs(values - getattr(fit.law, parameter)))))
    return Profile(parameter=parameter, values=values, drop=2 * (least - fit.objective) / _score_scale(fit))


def _continued(theta: Array, rows: Rows, free: NDArray[np.bool_], middle: int) -> Array:
    """Least objectives along a grid, each point started from its neighbour nearer to the optimum."""
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


def _score_scale(fit: ParametricFit) -> float:
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


def _quantiles(samples: Array, level: float) -> tuple[Array, Array]:
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
