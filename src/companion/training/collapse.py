"""Whether normalized loss curves fall on one another: a cheap test of how evenly runs are tuned.

Source: Qiu, Xiao, Wilson, Pennington and Agarwala, *Scaling Collapse Reveals Universal Dynamics in Compute-Optimally
Trained Neural Networks* (arXiv 2507.02119): reducible loss over its final value against compute over its final value is
one curve for compute-optimal runs of all sizes, and stops being one where hyperparameters are not scaled well. Their
runs share one schedule in units of the run; warm-up and cool-down of a fixed number of steps break that.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from companion.errors import InputError
from companion.formatting import plural, quoted
from companion.training.curve_faults import MAD_TO_STD
from companion.training.curves import WINDOW, on_common_axis

#: Where normalized curves are compared by default, fractions of the run; at 1 they are equal by construction.
COMPARE_AT = tuple(np.arange(5, 101) / 100)
#: The spread is taken from this fraction of the run on.
BEGIN = 0.5


def normalized_curves(
    curves: pd.DataFrame,
    logs: pd.DataFrame,
    irreducible: float | Mapping[str, float] | pd.Series,
    *,
    fractions: ArrayLike = COMPARE_AT,
    window: float = WINDOW,
) -> pd.DataFrame:
    """Reducible training loss over its value at the end of the run, along the run.

    With fixed N and batch, the fraction of the steps is the fraction of the run's compute.

    Parameters
    ----------
    curves, logs
        of `load_training_curves` and `load_training_logs`; every run of the logs must have reached its end.
    irreducible
        E of the fitted law, nats per token; a mapping from run to E where runs belong to several laws.
    fractions, window
        as in `on_common_axis`; the end is added if it is not among the fractions.

    Returns
    -------
    DataFrame
        (L(fraction) − E) / (L(1) − E), indexed by run, one column a fraction.

    Raises
    ------
    InputError
        if E is not below the loss of a run, a run did not reach its end, or has no curve or no E.
    """
    at = np.union1d(np.asarray(fractions, dtype=float), [1.0])
    loss = on_common_axis(curves, logs, fractions=at, window=window)
    floor = pd.Series(irreducible, index=loss.index) if isinstance(irreducible, float | int) else pd.Series(irreducible)
    floor = floor.reindex(loss.index).astype(float)
    if (lacking := floor.isna()).any():
        raise InputError(f"irreducible loss: run {quoted(floor.index[lacking][0])} has none")
    excess = loss.sub(floor, axis=0)
    end = excess[1.0]
    if (short := end.isna()).any():
        raise InputError(f"training logs: run {quoted(end.index[short][0])} has no loss at its end; leave it out")
    if (low := excess.min(axis=1) <= 0).any():
        run = low.index[low][0]
        raise InputError(
            f"irreducible loss {floor[run]:g} is not below the training loss of run {quoted(run)}, "
            f"{loss.loc[run].min():g}"
        )
    return excess.div(end, axis=0)


def collapse_spread(normalized: pd.DataFrame) -> pd.Series:
    """Spread of normalized curves at every fraction: standard deviation over mean across runs, after arXiv 2507.02119.

    Raises
    ------
    InputError
        for fewer than 3 runs.
    """
    if len(normalized) < 3:
        raise InputError(f"collapse: {plural(len(normalized), 'run')}; a spread needs at least 3")
    return (normalized.std(axis=0) / normalized.mean(axis=0)).rename("spread")


def collapse_score(normalized: pd.DataFrame, begin: float = BEGIN) -> float:
    """Root mean square of the spread over fractions from `begin` to the end (left out): 0 is perfect collapse.

    Raises
    ------
    InputError
        for fewer than 3 runs, or no fraction between `begin` and 1.
    """
    spread = collapse_spread(_between(normalized, begin))
    return float(np.sqrt(np.mean(spread**2)))


def stands_out(
    normalized: pd.DataFrame, begin: float = BEGIN, train_steps: pd.Series | None = None
) -> tuple[pd.DataFrame, float]:
    """Runs by how far their normalized curve lies from the others', and how much of that their steps explain.

    Parameters
    ----------
    normalized
        of `normalized_curves`.
    begin
        fractions from here on count.
    train_steps
        steps of the runs, indexed by run. If given, the part of the deviations that is quadratic in 1 / steps is taken
        out first: warm-up and cool-down of fixed steps are shares of the run that depend on nothing else.

    Returns
    -------
    tuple
        a table indexed by run, the farthest first: `deviation`, the mean of log(curve / median curve) (above 0: the run
        had more to gain than the others until its end), and `score`, its distance from the median deviation in robust
        standard deviations; and R², the share of the variance of the deviations that the steps explain, 0 without them.

    Raises
    ------
    InputError
        for fewer than 3 runs (5 with steps), no fraction between `begin` and 1, or a run without steps.
    """
    part = _between(normalized, begin)
    if len(part) < (least := 3 if train_steps is None else 5):
        raise InputError(f"collapse: {plural(len(part), 'run')}; at least {least} are needed")
    deviation = np.log(part.div(part.median(axis=0), axis=1)).mean(axis=1)
    explained = 0.0
    if train_steps is not None:
        inverse = 1e3 / train_steps.reindex(deviation.index).astype(float)
        if (lacking := inverse.isna()).any():
            raise InputError(f"train_steps: run {quoted(inverse.index[lacking][0])} has none")
        features = np.column_stack([np.ones(len(inverse)), inverse, inverse**2])
        rest = deviation - features @ np.linalg.lstsq(features, deviation.to_numpy(), rcond=None)[0]
        explained = 1 - float(rest.var() / deviation.var()) if deviation.var() > 0 else 0.0
        deviation = rest
    distance = deviation - deviation.median()
    scale = MAD_TO_STD * distance.abs().median()
    score = distance / scale if scale > 0 else distance * 0.0
    table = pd.DataFrame({"deviation": deviation, "score": score})
    return table.sort_values("score", key=lambda values: -values.abs(), kind="stable"), explained


def _between(normalized: pd.DataFrame, begin: float) -> pd.DataFrame:
    at = normalized.columns.to_numpy(float)
    part = normalized.loc[:, (at >= begin - 1e-12) & (at < 1)]
    if part.empty:
        raise InputError(f"collapse: no fraction between begin = {begin:g} and the end of the run")
    return part
