"""How certain the parameters of a fit are, by refits of resampled runs: intervals, and bands of the loss.

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
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.fitting.bootstrap import check_resamples, percentile_interval, quantile_ends
from companion.fitting.derivatives import Rows, to_raw
from companion.fitting.identification import NEEDED_VALUES, terms_of_one_variable
from companion.fitting.newton import SMALL_FLOOR, minimize_all
from companion.fitting.results import UNKNOWN, Result
from companion.fitting.sharing import shared
from companion.fitting.solved import Solved
from companion.formatting import percent
from companion.laws.base import Array, Law

#: Resamples that take their Newton steps together, and how many numbers their weights may hold in all.
BATCH, BATCH_NUMBERS = 125, 2**19
#: Share of lost resamples above which the others no longer stand for all.
MOST = 0.5
#: Residuals that a prediction band uses: more of them change no digit that is printed.
NOISE_VALUES = 2000


@dataclass(frozen=True, kw_only=True)
class Bootstrap(Result):
    """Refits of resampled runs.

    `theta` has shape (R, p), solver parameters in the law's order; rows of resamples that could not be fitted are NaN.
    `cluster` is the column whose values were drawn whole, None for single runs. Where `withheld` gives a
    reason, every interval and band is NaN.
    """

    fit: Solved
    theta: Array
    seed: int
    cluster: str | None

    @property
    def samples(self) -> pd.DataFrame:
        """Parameters by name, one row per resample."""
        return pd.DataFrame(self.all_laws.parameters)

    @property
    def all_laws(self) -> Any:
        """All refits as one law with parameters of shape (R,), NaN where a resample could not be fitted."""
        return type(self.fit.law).from_theta(self.theta)

    @property
    def laws(self) -> Any:
        """The refits that there are, as one law with parameters of shape (R',).

        Raises
        ------
        InputError
            if no resample could be fitted.
        """
        usable = ~np.isnan(self.theta).any(axis=1)
        if not usable.any():
            raise InputError(f"no resample of the law could be fitted: {self.withheld}")
        return type(self.fit.law).from_theta(self.theta[usable])

    @property
    def lost(self) -> float:
        """Share of resamples without a fit, between 0 and 1."""
        return float(np.isnan(self.theta).any(axis=1).mean())

    @property
    def at_bound(self) -> float:
        """Share of resamples with a free parameter at the edge of its box, between 0 and 1."""
        law, free = self.fit.law, self.fit.free.copy()
        for shift in law.SHIFTS:  # prefactors are boxed in centered coordinates; their bounds follow the exponents
            free[law.index(shift.prefactor)] = False
        lower, upper = law.bounds()
        return float(((self.theta <= lower + 1e-9) | (self.theta >= upper - 1e-9))[:, free].any(axis=1).mean())

    def as_dict(self) -> dict[str, Any]:
        """Seed, cluster and `theta` as lists; null where a resample could not be fitted."""
        theta = [[None if math.isnan(value) else value for value in row] for row in self.theta.tolist()]
        return {"seed": self.seed, "cluster": self.cluster, "theta": theta}

    @classmethod
    def from_json(cls, text: str) -> "Bootstrap":
        """The bootstrap in a file that `companion fit --save` wrote.

        Raises
        ------
        InputError
            if the text is not a saved fit, or was saved without resamples.
        """
        fit = Solved.from_json(text)
        try:
            read = json.loads(text)["bootstrap"]
            theta = np.array(read["theta"], dtype=float).reshape(-1, len(fit.theta))
            return cls(fit=fit, theta=theta, seed=int(read["seed"]), cluster=read["cluster"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"not a saved bootstrap: {' '.join(str(error).split())}") from error

    @property
    def withheld(self) -> str:
        """Why there are no intervals, in one clause; empty where there are."""
        if self.fit.intervals_withheld:
            return self.fit.intervals_withheld
        return (
            f"{percent(self.lost)} of the resamples hold too few different runs for a fit" if self.lost > MOST else ""
        )

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of one free parameter.

        (NaN, NaN) for a fixed parameter, where intervals are withheld, and where the resamples agree to the last digit,
        at a bound: an interval without width would claim to know what the runs cannot say.
        """
        index = self.fit.law.index(name)
        if name in self.fit.fixed:
            return UNKNOWN
        column = self.theta[:, index]
        return self._interval(np.exp(column) if name in self.fit.law.LOGARITHMIC else column, level)

    def interval_of(self, function: Callable[[Any], float], level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of any number computed from a law, e.g. `lambda law: law.optimum(1e21)[0]`.

        (NaN, NaN) as for `interval`, and where the number is not finite for most of the resamples.
        """
        usable = type(self.fit.law).from_theta(self.theta[~np.isnan(self.theta).any(axis=1)])
        return self._interval([_or_nan(function, law) for law in usable], level)

    def _interval(self, values: ArrayLike, level: float) -> tuple[float, float]:
        low, high = percentile_interval(values, level)
        few = np.isfinite(np.asarray(values, dtype=float)).sum() < (1 - MOST) * len(self.theta)
        return UNKNOWN if few or self.withheld or not low < high else (low, high)

    def confidence_band(self, num_params: ArrayLike, num_tokens: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of the law's loss at points of shape (n,): where the mean of many runs would lie."""
        curves = self._log_curves(num_params, num_tokens)
        if self.withheld:
            return _no_band(curves)
        low, high = quantile_ends(np.exp(curves), level)
        return low, high

    def prediction_band(self, num_params: ArrayLike, num_tokens: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of the loss of one new run at points of shape (n,): the law's uncertainty plus the runs' scatter.

        The scatter is that of the fit's residuals, widened for the parameters that were fitted. Every law meets every
        residual, so no chance enters.
        """
        curves = self._log_curves(num_params, num_tokens)
        if self.withheld:
            return _no_band(curves)
        widening = np.sqrt(self.fit.num_rows / (self.fit.num_rows - self.fit.num_free))
        noise = _repeated(self.fit.residuals * widening, self.fit.rows.weights)
        bands = [quantile_ends(np.exp((curve[:, None] + noise).ravel()), level) for curve in curves.T]
        low, high = np.array(bands).T
        return low, high

    def _log_curves(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Array:
        log_n, log_d = np.atleast_1d(np.log(num_params)), np.atleast_1d(np.log(num_tokens))
        log_n, log_d = np.broadcast_arrays(log_n.astype(float), log_d.astype(float))
        usable = self.theta[~np.isnan(self.theta).any(axis=1)]
        return self.fit.law.log_predictions(usable, log_n.ravel(), log_d.ravel())


def bootstrap_fit(
    fit: Solved,
    num_resamples: int = 1000,
    *,
    seed: int = 0,
    cluster: str | None = None,
    num_jobs: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
) -> Bootstrap:
    """The work of `companion.fitting.Fit.bootstrap`, which describes the arguments."""
    check_resamples(num_resamples)
    if fit.intervals_withheld:
        return Bootstrap(fit=fit, theta=np.full((num_resamples, len(fit.theta)), np.nan), seed=seed, cluster=cluster)
    labels = _labels(fit, cluster)
    size = max(1, min(BATCH, BATCH_NUMBERS // len(fit.data)))
    batches = _resampled_weights(fit, labels, num_resamples, size, seed)
    from tqdm import tqdm

    theta = []
    with tqdm(total=num_resamples, desc="resamples", delay=2, disable=not progress, file=sys.stderr) as bar:
        for part in shared(partial(refit, fit), batches, num_jobs if num_resamples > size else 1, scheduler):
            theta.append(part)
            bar.update(len(part))
    return Bootstrap(fit=fit, theta=np.concatenate(theta), seed=seed, cluster=cluster)


def _labels(fit: Solved, cluster: str | None) -> NDArray[np.intp]:
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
    fit: Solved, labels: NDArray[np.intp], num_resamples: int, size: int, seed: int
) -> Iterator[Array]:
    """Weights of the resamples, `size` at a time, shape (size, n); one stream of draws, so the size does not matter."""
    number, rng = int(labels.max()) + 1, np.random.default_rng(seed)
    chances = np.full(number, 1 / number)
    for start in range(0, num_resamples, size):
        counts = rng.multinomial(number, chances, size=min(size, num_resamples - start))
        yield counts[:, labels] * fit.rows.weights


def refit(fit: Solved, weights: Array) -> Array:
    """Best parameters for every row of weights, shape (R, p); NaN where a resample holds too few different runs.

    Parameters
    ----------
    fit
        gives the data and the starts.
    weights
        shape (R, n).
    """
    rows = replace(fit.rows, weights=weights)
    starts = _starts(fit)
    best_theta = np.full((len(weights), len(fit.theta)), np.nan)
    best_objective = np.full(len(weights), np.inf)
    for start in starts:
        solutions = minimize_all(np.tile(start, (len(weights), 1)), rows, fit.free, tolerance=1e-10)
        better = solutions.objective < best_objective
        best_theta[better], best_objective[better] = solutions.theta[better], solutions.objective[better]
    _put_floor_at_zero(best_theta, best_objective, rows, fit.free)
    for term in terms_of_one_variable(type(fit.law)):
        logs = (fit.rows.log_n, fit.rows.log_d)[term.variable]
        distinct = np.array([np.unique(logs[row > 0]).size for row in weights])
        best_theta[distinct < NEEDED_VALUES] = np.nan
    best_theta[(weights > 0).sum(axis=1) <= fit.num_free] = np.nan
    return to_raw(best_theta, rows)


def _put_floor_at_zero(theta: Array, least: Array, rows: Rows, free: NDArray[np.bool_]) -> None:
    """Move E to its bound wherever a small E ends no lower: steps toward it stop early (see `creep_to_bounds`)."""
    if not free[0]:
        return
    lowest = rows.law.bounds()[0][0]
    small = np.log(SMALL_FLOOR) + float(rows.log_loss.min())
    creeping = np.flatnonzero((theta[:, 0] > lowest) & (theta[:, 0] < small))
    if creeping.size:
        start = theta[creeping]
        start[:, 0] = lowest
        ends = minimize_all(start, replace(rows, weights=rows.weights[creeping]), free, tolerance=1e-10)
        lower = ends.objective <= least[creeping]
        theta[creeping[lower]] = ends.theta[lower]


def _starts(fit: Solved) -> Array:
    """The optimum, and two places at some distance on either side of it along the worst-known direction."""
    theta = fit.theta_centered
    direction = np.zeros(len(theta))
    direction[fit.free] = fit.worst_direction
    direction /= np.abs(direction).max()
    if len(fit.data) > BATCH_NUMBERS // BATCH:  # many runs: one basin, and every start costs much
        return theta[None]
    return np.clip(np.stack([theta, theta + 0.3 * direction, theta - 0.3 * direction]), *fit.law.bounds())


def _or_nan(function: Callable[[Any], float], law: Law) -> float:
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
