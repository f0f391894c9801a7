"""Fit a law of the loss to a run table: `fit(law, runs)` gives a `Fit`.

Source of the objective: arXiv 2510.02228 (gamma free) and arXiv 2203.15556, approach 3 (gamma = 1): the Huber loss of
log L predicted less log L observed, summed over the runs.
"""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.fitting.derivatives import Rows, to_raw
from companion.fitting.identification import free_directions
from companion.fitting.inputs import checked_columns, checked_options
from companion.fitting.newton import MAX_ITERATIONS, Solutions, creep_to_bounds, minimize_all
from companion.fitting.results import Result
from companion.fitting.solved import AT_BOUND, CONVERGED, NOT_IDENTIFIED, OUT_OF_ITERATIONS, Solved, rows_of
from companion.fitting.starts import projected_starts
from companion.fitting.uncertainty import Bootstrap, bootstrap_fit
from companion.laws.base import Array, Law

#: The headline setting of arXiv 2510.02228.
HUBER_DELTA = 1e-3
#: Above this many rows the starts are run to their ends on a part of the table first.
MANY_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Fit(Solved, Result):
    """A fitted law, how the fit ended, the data it saw, and how certain its numbers are.

    Examples
    --------
    >>> from companion import LossSurface, fit
    >>> from companion.runs import load_paper_runs, subset
    >>> found = fit(LossSurface, subset(load_paper_runs(), "xlstm", 8192, "isoflop"), gamma=1)
    >>> low, high = found.bootstrap(100).interval("alpha")
    >>> bool(low < found.parameters["alpha"] < high)
    True
    """

    def bootstrap(
        self,
        num_resamples: int = 1000,
        *,
        seed: int = 0,
        cluster: str | None = None,
        num_jobs: int = 1,
        scheduler: str | None = None,
        progress: bool = False,
    ) -> Bootstrap:
        """Refits of resampled runs; where the fit withholds intervals (`intervals_withheld`), all NaN at once.

        Parameters
        ----------
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
        return bootstrap_fit(
            self,
            num_resamples,
            seed=seed,
            cluster=cluster,
            num_jobs=num_jobs,
            scheduler=scheduler,
            progress=progress,
        )

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a parameter over 1,000 resamples of the runs, seed 0 (see `bootstrap`)."""
        return self._usual_bootstrap.interval(name, level)

    def predict(self, num_params: ArrayLike, num_tokens: ArrayLike, level: float | None = None) -> Any:
        """Loss in nats per token; with a level also the band of the law, as (loss, low, high).

        The band says where the mean of many runs would lie; `bootstrap().prediction_band` holds a single new run.
        """
        loss = self.law.predict(num_params, num_tokens)
        if level is None:
            return loss
        return (loss, *self._usual_bootstrap.confidence_band(num_params, num_tokens, level))

    @cached_property
    def _usual_bootstrap(self) -> Bootstrap:
        return self.bootstrap()


def fit(
    law: type[Law],
    runs: pd.DataFrame,
    *,
    huber_delta: float = HUBER_DELTA,
    weights: str | None = None,
    num_starts: int = 32,
    max_iterations: int = MAX_ITERATIONS,
    progress: bool = False,
    **fixed: float | None,
) -> Fit:
    """The law of least objective: the Huber loss of log predicted minus log observed loss, summed over the runs.

    Parameters
    ----------
    law
        the class of the law: `LossSurface`, `ProductLaw`, or a `companion.laws.Law` of your own.
    runs
        columns num_params, num_tokens, val_loss; one row per run.
    huber_delta
        where the loss of a log residual turns linear, above 0; `math.inf` is least squares.
    weights
        column of row weights, e.g. `multiplicity_in_published_fits`.
    num_starts
        points of the variable-projection grid from which Newton steps start.
    max_iterations
        Newton steps of every start; more of them end what is `out of iterations`.
    progress
        count the steps on stderr once two seconds have passed.
    fixed
        a parameter to hold at a value, if the law allows it: `gamma=1` is the Chinchilla form of `LossSurface`, and
        `E=3.81` a floor that is known beforehand, nats per token. None leaves the parameter free.

    Raises
    ------
    InputError
        if a column is missing or holds a value that cannot be, for fewer rows than parameters, a single model size or a
        single number of tokens, a held E that is not below all losses, or a wrong option.

    Examples
    --------
    >>> from companion import LossSurface, fit
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> fit(LossSurface, runs, gamma=1).status
    'converged'
    """
    begin = time.perf_counter()
    held = checked_options(law, fixed, huber_delta, num_starts, max_iterations)
    free = np.array([name not in held for name in law.PARAMETERS])
    data = checked_columns(runs, weights, num_free=int(free.sum()))
    rows = rows_of(law, data, huber_delta)
    lowest = float(np.exp(rows.log_loss[rows.weights > 0].min()))
    if held.get("E", 0.0) >= lowest:
        raise InputError(f"E {held['E']:g} is not below the lowest loss of the runs, {lowest:g}")
    starts = projected_starts(rows, held, num_starts)
    if len(data) > MANY_ROWS:
        starts = _leading_ends(starts, rows, free, max_iterations)
    solutions = minimize_all(starts, rows, free, max_iterations, progress=progress)
    return _finished(solutions, data, rows, held, begin, max_iterations)


def _leading_ends(starts: Array, rows: Rows, free: NDArray[np.bool_], max_iterations: int, keep: int = 4) -> Array:
    """Where the starts end on a part of a large table, the best few different ends: the basins, found at less cost."""
    used = np.flatnonzero(rows.weights > 0)
    part = np.sort(np.random.default_rng(0).permutation(used)[:MANY_ROWS])
    ends = minimize_all(starts, rows.part(part), free, max_iterations)
    order = np.argsort(ends.objective)
    distinct = [order[0]]
    for at in order[1:]:
        if (
            np.isfinite(ends.objective[at])
            and min(np.abs(ends.theta[at] - ends.theta[i]).max() for i in distinct) > 0.05
        ):
            distinct.append(at)
    return ends.theta[distinct[:keep]]


def _finished(
    solutions: Solutions, data: pd.DataFrame, rows: Rows, held: dict[str, float], begin: float, max_iterations: int
) -> Fit:
    free = np.array([name not in held for name in rows.law.PARAMETERS])
    best = creep_to_bounds(solutions.best(), rows, free, max_iterations)
    theta = to_raw(best.theta[0], rows)
    found = Fit(
        law=rows.law.from_theta(theta, held),
        objective=float(best.objective[0]),
        status=CONVERGED,
        status_detail="",
        data=data,
        fixed=held,
        huber_delta=rows.huber_delta,
        theta=theta,
        start_objectives=np.sort(solutions.objective[np.isfinite(solutions.objective)]),
        seconds=time.perf_counter() - begin,
    )
    status, detail = _judge(found, bool(best.converged[0]), max_iterations)
    return replace(found, status=status, status_detail=detail)


def _judge(found: Fit, converged: bool, max_iterations: int) -> tuple[str, str]:
    """Status and its reason: what stops a reader from trusting the parameters, the gravest first."""
    if reason := free_directions(found):
        return NOT_IDENTIFIED, reason
    if found.at_bound:
        return AT_BOUND, ", ".join(found.at_bound)
    return (CONVERGED, "") if converged else (OUT_OF_ITERATIONS, f"{max_iterations} steps did not settle")
