"""Curves of training runs on one axis: the fraction of the run, the same for runs of 1,800 and of 50,000 steps."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.fitting.isoflop import isoflop_groups
from companion.formatting import quoted
from companion.training.logs import last_attempt

#: Where curves are read off by default, fractions of the run.
FRACTIONS = tuple(np.arange(1, 101) / 100)
#: A value is the mean of the points in the last twentieth of the run up to there, so that it never looks ahead.
WINDOW = 0.05
#: Fewer points than this make no curve.
MIN_POINTS = 5
#: Runs that may be compared: same architecture, same context length.
FAMILY = ("architecture", "context_length")

Array = NDArray[np.float64]


def on_common_axis(
    curves: pd.DataFrame,
    logs: pd.DataFrame,
    column: str = "train_loss",
    *,
    fractions: ArrayLike = FRACTIONS,
    window: float = WINDOW,
) -> pd.DataFrame:
    """A column of the curves at given fractions of every run.

    Parameters
    ----------
    curves
        of `load_training_curves`; runs that are not in `logs` are left out.
    logs
        of `load_training_logs`, of which `run` and `train_steps` are used.
    column
        `train_loss`, `grad_norm` or `val_loss`.
    fractions
        of the steps of the run, shape (f,), each above 0 and at most 1.
    window
        the value at a fraction is the mean of the points in (fraction − window, fraction]; 0 interpolates between
        points instead, which looks ahead and suits a validation loss of a few points.

    Returns
    -------
    DataFrame
        indexed by run in the order of `logs`, one column a fraction; NaN before the first point, past the last one
        (half a window is allowed), and where a window holds no point.

    Raises
    ------
    InputError
        for a run without a curve or with fewer than 5 points of the column (2 where they are interpolated), a fraction
        or a window out of range, a missing column.

    Examples
    --------
    >>> from companion.training import load_training_curves, load_training_logs
    >>> logs = load_training_logs()
    >>> loss = on_common_axis(load_training_curves(), logs, fractions=[1 / 3, 1])
    >>> loss.shape
    (431, 2)
    """
    at = np.unique(np.asarray(fractions, dtype=float))
    if not at.size or not (at > 0).all() or at[-1] > 1:
        raise InputError("fractions of a run must be above 0 and at most 1")
    if not 0 <= window < 1:
        raise InputError(f"window {window:g} is not a share of the run, at least 0 and below 1")
    need(logs, ("run", "train_steps"), "training logs")
    points = _points(curves, logs, column, MIN_POINTS if window else 2)
    code = points["code"].to_numpy()
    where = points["fraction"].to_numpy()
    values = points[column].to_numpy(float)
    first = np.searchsorted(code, np.arange(len(logs)), side="left")
    end = np.searchsorted(code, np.arange(len(logs)), side="right")
    if window:
        table = _trailing_means(code, where, values, end, at, window)
    else:
        table = np.array(
            [np.interp(at, where[a:b], values[a:b], left=np.nan, right=np.nan) for a, b in zip(first, end, strict=True)]
        )
    return pd.DataFrame(table, index=pd.Index(logs["run"], name="run"), columns=pd.Index(at, name="fraction"))


def finished_runs(logs: pd.DataFrame) -> pd.DataFrame:
    """Runs that finished with a validation loss.

    Raises
    ------
    InputError
        if there is none.
    """
    need(logs, ("run", "val_loss", "status"), "training logs")
    done = logs[(logs["status"] == "finished") & logs["val_loss"].notna()]
    if done.empty:
        raise InputError(f"{logs.attrs.get('source', 'training logs')}: no finished run has a validation loss")
    return done


def with_budgets(logs: pd.DataFrame, family: Sequence[str] = FAMILY) -> pd.DataFrame:
    """The logs with `isoflop_budget`: as the table has it, else read off gaps in `train_flops`, family by family.

    Raises
    ------
    InputError
        if the runs of a family form no separate budgets, or a column is missing.
    """
    need(logs, (*family, "train_flops"), "training logs")
    budgets = pd.Series(np.nan, index=logs.index)
    for _, runs in logs.groupby(list(family), sort=False):
        for budget, group in isoflop_groups(runs, "num_params").items():
            budgets[group.index] = budget
    return logs.assign(isoflop_budget=budgets)


def need(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """InputError that names the first column that a table lacks."""
    if missing := [name for name in columns if name not in frame]:
        raise InputError(f"{frame.attrs.get('source', what)}: column {missing[0]!r} is missing")


def _points(curves: pd.DataFrame, logs: pd.DataFrame, column: str, least: int) -> pd.DataFrame:
    """Points with a value, with the position of their run in `logs` and the fraction of the run, in this order."""
    need(curves, ("run", "step", column), "curves")
    if (twice := logs["run"].duplicated()).any():
        raise InputError(f"training logs: run {quoted(logs.loc[twice, 'run'].iloc[0])} appears twice")
    points = last_attempt(curves)
    code = pd.Index(logs["run"]).get_indexer(points["run"])
    points = points.assign(code=code)[(code >= 0) & points[column].notna().to_numpy()]
    number = np.bincount(points["code"], minlength=len(logs))
    if (few := number < least).any():
        at = int(np.argmax(few))
        raise InputError(
            f"{curves.attrs.get('source', 'curves')}: run {quoted(logs['run'].iloc[at])}: column {column!r} has "
            f"{number[at]} values; at least {least} are needed"
        )
    steps = logs["train_steps"].to_numpy(float)[points["code"]]
    points = points.assign(fraction=points["step"].to_numpy(float) / steps)
    if (past := points["fraction"] > 1).any():
        row = points[past].iloc[0]
        raise InputError(
            f"{curves.attrs.get('source', 'curves')}: run {quoted(row['run'])}: step {row['step']} is past the last "
            f"step of the run, train_steps = {logs['train_steps'].iloc[row['code']]}"
        )
    return points.sort_values(["code", "fraction"], kind="stable")


def _trailing_means(
    code: NDArray[np.intp], where: Array, values: Array, end: NDArray[np.intp], at: Array, window: float
) -> Array:
    """Means over (at − window, at] of every run, shape (runs, fractions)."""
    # Fractions lie in [0, 1], so that runs two apart on a line never meet.
    line = 2.0 * code + where
    starts = 2.0 * np.arange(len(end))[:, None]
    low = np.searchsorted(line, starts + np.maximum(at - window, 0) + 1e-12, side="right")
    high = np.searchsorted(line, starts + at + 1e-12, side="right")
    held = high > low
    # Sums of windows one by one: differences of one running sum would drown losses beside a gradient norm of 1e16.
    padded = np.append(values, 0.0)
    sums = np.add.reduceat(padded, np.stack([low, high], axis=-1).ravel())[::2].reshape(low.shape)
    means = np.full(low.shape, np.nan)
    means[held] = sums[held] / (high - low)[held]
    means[at > where[end - 1][:, None] + window / 2] = np.nan
    return means
