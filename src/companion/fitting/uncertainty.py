"""How well the parameters of a parametric fit are known: bootstrap, profile likelihood, bands of the loss.

The bootstrap refits every resample from the optimum and from the basins that the fit found beside it. Resamples run in
batches of fixed size, so the result does not depend on how many processes or machines share them.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.errors import InputError
from companion.fitting.bootstrap import MAX_RESAMPLES, percentile_interval
from companion.fitting.derivatives import Array, Rows, log_predictions, objective, to_raw
from companion.fitting.identification import NEEDED_VALUES
from companion.fitting.newton import LOWER, UPPER, minimize_all
from companion.fitting.parametric import PARAMETERS, ParametricFit
from companion.fitting.sharing import shared
from companion.laws import LossSurface

#: Resamples that take their Newton steps together, and how many numbers their weights may hold in all.
BATCH, BATCH_NUMBERS = 125, 2**19
#: Share of lost resamples above which the others no longer stand for all.
MOST = 0.5
#: Residuals that a prediction band uses: more of them change no digit that is printed.
NOISE_VALUES = 2000
#: Parameters whose profile is one-dimensional in the solver's coordinates.
PROFILED = ("E", "alpha", "beta", "gamma")


@dataclass(frozen=True, kw_only=True)
class ParametricBootstrap:
    """Refits of resampled runs.

    `theta` has shape (R, 6): log E, log A, log B, alpha, beta, log gamma; rows of resamples that could not be fitted
    are NaN. `cluster` is the column whose values were drawn whole, None for single runs. Where `withheld` gives a
    reason, every interval and band is NaN.
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

    def as_dict(self) -> dict[str, Any]:
        """Seed, cluster and `theta` as lists; null where a resample could not be fitted."""
        theta = [[None if math.isnan(value) else value for value in row] for row in self.theta.tolist()]
        return {"seed": self.seed, "cluster": self.cluster, "theta": theta}

    @classmethod
    def from_json(cls, text: str) -> "ParametricBootstrap":
        """The bootstrap in a file that `companion fit --save` wrote.

        Raises
        ------
        InputError
            if the text is not a saved fit, or was saved without resamples.
        """
        fit = ParametricFit.from_json(text)
        try:
            read = json.loads(text)["bootstrap"]
            theta = np.array(read["theta"], dtype=float).reshape(-1, 6)
            return cls(fit=fit, theta=theta, seed=int(read["seed"]), cluster=read["cluster"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"not a saved bootstrap: {' '.join(str(error).split())}") from error

    @property
    def withheld(self) -> str:
        """Why there are no intervals, in one clause; empty where there are."""
        if self.fit.intervals_withheld:
            return self.fit.intervals_withheld
        return f"{self.lost:.1%} of the resamples hold too few different runs for a fit" if self.lost > MOST else ""

    def interval(self, parameter: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of one free parameter.

        (NaN, NaN) for a fixed gamma, where intervals are withheld, and where the resamples agree to the last digit, at
        a bound: an interval without width would claim to know what the runs cannot say.
        """
        if parameter not in PARAMETERS:
            raise InputError(f"no parameter {parameter!r}; there are {', '.join(PARAMETERS)}")
        if parameter == "gamma" and not self.fit.gamma_free:
            return (float("nan"), float("nan"))
        return self._interval(self.samples[parameter], level)

    def interval_of(self, function: Callable[[LossSurface], float], level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of any number computed from a law, e.g. `lambda law: law.optimum(1e21)[0]`.

        (NaN, NaN) as for `interval`, and where the number is not finite for most of the resamples.
        """
        usable = self.samples[list(PARAMETERS)].dropna().to_numpy()
        laws = (LossSurface(**dict(zip(PARAMETERS, row.tolist(), strict=True))) for row in usable)
        return self._interval([_or_nan(function, law) for law in laws], level)

    def _interval(self, values: Any, level: float) -> tuple[float, float]:
        low, high = percentile_interval(values, level)
        few = np.isfinite(np.asarray(values, dtype=float)).sum() < (1 - MOST) * len(self.theta)
        return (float("nan"), float("nan")) if few or self.withheld or not low < high else (low, high)

    def confidence_band(self, num_params: Any, num_tokens: Any, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of the law's loss at points of shape (n,): where the mean of many runs would lie."""
        curves = self._log_curves(num_params, num_tokens)
        return _no_band(curves) if self.withheld else _quantiles(np.exp(curves), level)

    def prediction_band(self, num_params: Any, num_tokens: Any, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of the loss of a single new run at points of shape (n,): the law's own doubt plus the runs' scatter.

        The scatter is that of the fit's residuals, widened for the parameters that were fitted. Every law meets every
        residual, so no chance enters.
        """
        curves = self._log_curves(num_params, num_tokens)
        if self.withheld:
            return _no_band(curves)
        widening = np.sqrt(self.fit.num_rows / (self.fit.num_rows - self.fit.num_free))
        noise = _repeated(self.fit.residuals * widening, self.fit.rows.weights)
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
    progress: bool = False,
) -> ParametricBootstrap:
    """Refit resampled runs; where the fit withholds intervals (`ParametricFit.intervals_withheld`), all NaN at once.

    Parameters
    ----------
    fit
        the fit whose uncertainty is asked for.
    num_resamples, seed
        R and the seed of the draws; the same seed gives the same bits, however the work is shared.
    cluster
        `num_params` draws whole model sizes: right where runs of one size share a deviation; None draws runs.
    num_jobs
        processes on this machine (joblib).
    scheduler
        address of a Dask scheduler (`tcp://host:8786`) that takes the batches instead.
    progress
        show a progress bar on stderr once two seconds have passed.

    Raises
    ------
    InputError
        for an unknown cluster column, fewer than three clusters, too many resamples, or a scheduler that does not
        answer.
    """
    if not 1 <= num_resamples <= MAX_RESAMPLES:
        raise InputError(f"bootstrap: {num_resamples} resamples; 1 to {MAX_RESAMPLES} can be drawn")
    if fit.intervals_withheld:
        return ParametricBootstrap(fit=fit, theta=np.full((num_resamples, 6), np.nan), seed=seed, cluster=cluster)
    labels = _labels(fit, cluster)
    size = max(1, min(BATCH, BATCH_NUMBERS // len(fit.data)))
    batches = _resampled_weights(fit, labels, num_resamples, size, seed)
    from tqdm import tqdm

    theta = []
    with tqdm(total=num_resamples, desc="resamples", delay=2, disable=not progress, file=sys.stderr) as bar:
        for part in shared(partial(refit, fit), batches, num_jobs if num_resamples > size else 1, scheduler):
            theta.append(part)
            bar.update(len(part))
    return ParametricBootstrap(fit=fit, theta=np.concatenate(theta), seed=seed, cluster=cluster)


def _labels(fit: ParametricFit, cluster: str | None) -> NDArray[np.intp]:
    """What every row is drawn with: itself, or all rows of the same value."""
    if cluster is None:
        return np.arange(len(fit.data))
    if cluster not in ("num_params", "num_tokens"):
        raise InputError(f"bootstrap: cluster {cluster!r} is not one of num_params, num_tokens")
    values, labels = np.unique(fit.data[cluster], return_inverse=True)
    if values.size < 3:
        raise InputError(
            f"bootstrap: {values.size} different {cluster}; at least 3 are needed to draw them as clusters"
        )
    return labels


def _resampled_weights(
    fit: ParametricFit, labels: NDArray[np.intp], num_resamples: int, size: int, seed: int
) -> Iterator[Array]:
    """Weights of the resamples, `size` at a time, shape (size, n); one stream of draws, so the size does not matter."""
    number, rng = int(labels.max()) + 1, np.random.default_rng(seed)
    chances = np.full(number, 1 / number)
    for start in range(0, num_resamples, size):
        counts = rng.multinomial(number, chances, size=min(size, num_resamples - start))
        yield counts[:, labels] * fit.rows.weights


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
    _put_floor_at_zero(best_theta, best_objective, rows, fit.free)
    for name in ("log_n", "log_d"):
        distinct = np.array([np.unique(getattr(fit.rows, name)[row > 0]).size for row in weights])
        best_theta[distinct < NEEDED_VALUES] = np.nan
    best_theta[(weights > 0).sum(axis=1) <= fit.num_free] = np.nan
    return to_raw(best_theta, rows.center)


def _put_floor_at_zero(theta: Array, least: Array, rows: Rows, free: NDArray[np.bool_]) -> None:
    """Move E to its bound wherever a small E ends no lower: steps towards it stop early (see `creep_to_bounds`)."""
    small = np.log(0.05) + float(rows.log_loss.min())
    creeping = np.flatnonzero((theta[:, 0] > LOWER[0]) & (theta[:, 0] < small))
    if creeping.size:
        start = theta[creeping]
        start[:, 0] = LOWER[0]
        ends = minimize_all(start, replace(rows, weights=rows.weights[creeping]), free, tolerance=1e-10)
        lower = ends.objective <= least[creeping]
        theta[creeping[lower]] = ends.theta[lower]


def _starts(fit: ParametricFit) -> Array:
    """The optimum, and two places at some distance on either side of it along the worst-known direction."""
    theta = fit.theta_centred
    direction = np.zeros(6)
    direction[fit.free] = fit.worst_direction
    direction /= np.abs(direction).max()
    if len(fit.data) > BATCH_NUMBERS // BATCH:  # many runs: one basin, and every start costs much
        return theta[None]
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
        """Where the drop stays below the chi-squared quantile; infinite (or 0) where the grid ends before it rises.

        (NaN, NaN) where it has no width: runs without scatter.
        """
        threshold = stats.chi2.ppf(level, 1)
        inside = self.drop <= threshold
        if not inside.any():
            return (float("nan"), float("nan"))
        first, last = np.flatnonzero(inside)[[0, -1]]
        low = 0.0 if first == 0 else self._crossing(first - 1, first, threshold)
        high = float("inf") if last == len(inside) - 1 else self._crossing(last + 1, last, threshold)
        return (low, high) if low < high else (float("nan"), float("nan"))

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
    logs = parameter in ("E", "gamma")
    inner = np.log(values) if logs else values
    values = values[(inner >= LOWER[index]) & (inner <= UPPER[index])]
    theta = np.tile(fit.theta_centred, (len(values), 1))
    theta[:, index] = np.log(values) if logs else values
    free = fit.free.copy()
    free[index] = False
    least = _continued(theta, fit.rows, free, int(np.argmin(np.abs(values - getattr(fit.law, parameter)))))
    with np.errstate(over="ignore"):  # runs without scatter
        drop = 2 * (least - fit.objective) / max(_score_scale(fit), 1e-300)
    return Profile(parameter=parameter, values=values, drop=drop)


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


def _or_nan(function: Callable[[LossSurface], float], law: LossSurface) -> float:
    """A number read off a law; NaN where an extreme resample takes it out of range."""
    try:
        return float(function(law))
    except OverflowError:
        return float("nan")


def _no_band(curves: Array) -> tuple[Array, Array]:
    nothing = np.full(curves.shape[1], np.nan)
    return nothing, nothing.copy()


def _repeated(values: Array, weights: Array) -> Array:
    """Values as often as their weights say, rounded up; of a large table `NOISE_VALUES` quantiles instead."""
    times = np.ceil(weights)
    if times.sum() <= NOISE_VALUES:
        return np.repeat(values, times.astype(int))
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    places = (np.arange(NOISE_VALUES) + 0.5) / NOISE_VALUES
    return values[order][np.minimum(np.searchsorted(share, places), len(values) - 1)]
