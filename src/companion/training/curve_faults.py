"""What a table of final losses does not show: spikes, runs that leave the band of their siblings, twins that part."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.formatting import plural, quoted
from companion.training.curves import MIN_POINTS, need
from companion.training.logs import last_attempt

#: Points of the running median that a jump is measured from.
MEDIAN_POINTS = 5
#: Robust standard deviations above the running median that make a spike.
SPIKE_Z = 8.0
#: A jump smaller than this is no spike, however quiet the run, nats per token.
LEAST_JUMP = 0.03
#: The standard deviation of normal numbers over their median absolute deviation.
MAD_TO_STD = 1.4826
#: A run has left the band of its siblings when this many points in a row are outside it.
STAY = 3
#: Widths of the band, in robust standard deviations of the siblings.
BAND_Z = 4.0


def spikes(
    curves: pd.DataFrame,
    *,
    threshold: float = SPIKE_Z,
    least_jump: float = LEAST_JUMP,
    median_points: int = MEDIAN_POINTS,
) -> pd.DataFrame:
    """Points at which the training loss jumped above its recent past.

    The jump of a point is its loss less the median of the `median_points` points before it. Jumps of one run scatter
    around their own median, which is below zero while the loss falls: the score is a point's distance from it over
    1.4826 times the median absolute deviation of the run's jumps. Neighbors above the threshold are one spike, at its
    highest point. A curve of about a hundred points shows few spikes: one that comes and heals between two points is
    missed, and numbers of runs compare only where their points are equally dense.

    Parameters
    ----------
    curves
        of `load_training_curves`, with `train_loss`.
    threshold
        least score of a spike, robust standard deviations of the run's jumps.
    least_jump
        least jump of a spike, nats per token.
    median_points
        points of the running median.

    Returns
    -------
    DataFrame
        a row a spike: `run`, `step`, `jump` (nats per token), `score`, `train_loss`; and, where the curves have
        `grad_norm`, `grad_norm_ratio` and `grad_norm_ratio_before`, the gradient norm at the spike and one point
        before its first point, over the running median before the spike.

    Raises
    ------
    InputError
        for a run with fewer points than the running median needs, or an option out of range.
    """
    need(curves, ("run", "step", "train_loss"), "curves")
    if threshold <= 0 or median_points < 2:
        raise InputError(f"spikes: threshold {threshold:g} must be positive, median_points {median_points} at least 2")
    points = last_attempt(curves)
    points = points[points["train_loss"].notna()].reset_index(drop=True)
    number = points.groupby("run")["step"].transform("size")
    if (few := number < median_points + MIN_POINTS).any():
        run = points.loc[few, "run"].iloc[0]
        raise InputError(
            f"{curves.attrs.get('source', 'curves')}: run {quoted(run)}: {plural(int(number[few].iloc[0]), 'point')} "
            f"with a training loss; spikes need at least {median_points + MIN_POINTS}"
        )
    points["jump"] = points["train_loss"] - _median_before(points, "train_loss", median_points)
    deviation = points["jump"] - points.groupby("run")["jump"].transform("median")
    scale = MAD_TO_STD * deviation.abs().groupby(points["run"]).transform("median")
    with np.errstate(divide="ignore", invalid="ignore"):
        points["score"] = deviation / scale
    high = (points["score"] > threshold) & (points["jump"] > least_jump)
    begins = high & ~(high.groupby(points["run"]).shift(fill_value=False))
    points["spike"] = begins.cumsum()
    columns = ["run", "step", "jump", "score", "train_loss"]
    top = points[high].sort_values("score", ascending=False, kind="stable").drop_duplicates("spike").sort_index()
    if "grad_norm" in points:
        usual = _median_before(points, "grad_norm", median_points)
        first = points.index[begins]
        top["grad_norm_ratio"] = top["grad_norm"] / usual[first].to_numpy()
        before = points.groupby("run")["grad_norm"].shift()
        # The median before the point before: a gradient that has begun to grow must not raise its own measure.
        top["grad_norm_ratio_before"] = (before / usual.groupby(points["run"]).shift())[first].to_numpy()
        columns += ["grad_norm_ratio", "grad_norm_ratio_before"]
    return top[columns].reset_index(drop=True)


def spike_counts(
    found: pd.DataFrame, logs: pd.DataFrame, by: Sequence[str] = ("architecture", "learning_rate")
) -> pd.DataFrame:
    """How many runs spiked, by columns of the logs.

    Parameters
    ----------
    found
        of `spikes`.
    logs
        the runs whose curves were searched, with `run`, `train_steps` and the columns of `by`.

    Returns
    -------
    DataFrame
        with `by`, `num_runs`, `num_spiked` (runs with a spike), `num_spikes`, `spikes_per_1000_steps`, and
        `median_fraction` of the run at which spikes came.
    """
    need(logs, ("run", "train_steps", *by), "training logs")
    number = found.groupby("run").size().reindex(logs["run"]).fillna(0).to_numpy(int)
    runs = logs.assign(spikes_of_run=number, spiked=number > 0)
    table = runs.groupby(list(by), dropna=False).agg(
        num_runs=("run", "size"),
        num_spiked=("spiked", "sum"),
        num_spikes=("spikes_of_run", "sum"),
        steps=("train_steps", "sum"),
    )
    each = found.merge(logs[["run", "train_steps", *by]], on="run")
    each["fraction"] = each["step"] / each["train_steps"]
    table["spikes_per_1000_steps"] = 1000 * table["num_spikes"] / table.pop("steps")
    table["median_fraction"] = each.groupby(list(by), dropna=False)["fraction"].median().reindex(table.index)
    return table.reset_index()


def siblings(
    logs: pd.DataFrame, run: str, size_factor: float = 2.0, learning_rate_factor: float | None = None
) -> list[str]:
    """Finished runs of the same architecture, context length and batch with about as many parameters.

    Parameters
    ----------
    logs
        of `load_training_logs`.
    run
        the run whose siblings are asked for; it is not among them.
    size_factor
        N of a sibling is at most this factor away.
    learning_rate_factor
        so is its peak learning rate from this factor; None takes any.

    Raises
    ------
    InputError
        if the run is not in the table.
    """
    need(logs, ("run", "architecture", "context_length", "num_params", "status"), "training logs")
    own = logs[logs["run"] == run]
    if own.empty:
        raise InputError(f"{logs.attrs.get('source', 'training logs')}: no run {quoted(run)}")
    row = own.iloc[0]
    alike = (logs["status"] == "finished") & (logs["run"] != run)
    for name in ("architecture", "context_length", "batch_size_seqs"):
        if name in logs:
            alike &= logs[name] == row[name]
    alike &= np.abs(np.log(logs["num_params"] / row["num_params"])) <= np.log(size_factor) + 1e-12
    if learning_rate_factor is not None:
        need(logs, ("learning_rate",), "training logs")
        ratio = np.abs(np.log(logs["learning_rate"] / row["learning_rate"]))
        alike &= ratio <= np.log(learning_rate_factor) + 1e-12
    return logs.loc[alike, "run"].tolist()


def left_band(
    curves: pd.DataFrame,
    run: str,
    others: Sequence[str],
    column: str = "train_loss",
    *,
    width: float = BAND_Z,
    stay: int = STAY,
) -> tuple[int | None, pd.DataFrame]:
    """The step at which a run rose above its siblings and stayed there, and the band.

    The band is compared step by step, because warm-up counts steps; logarithms are compared, so that a gradient norm of
    1e16 is as good as one of 10. Its upper edge is the median of the siblings plus `width` robust standard deviations
    (1.4826 times the median absolute deviation, at least 1 % of the value).

    Parameters
    ----------
    curves
        of `load_training_curves`.
    run, others
        the run and its siblings (see `siblings`), keys of `curves`.
    column
        `train_loss` or `grad_norm`.
    width
        of the band above the median, robust standard deviations.
    stay
        points in a row that must be above it; the last points of a log count as far as they go.

    Returns
    -------
    tuple
        the first step of those, None if there is none; and a table by `step` with the column of the `run`, `median` and
        `upper` of the siblings, `num_siblings` still training.

    Raises
    ------
    InputError
        for fewer than 3 siblings, a run without a curve, or an unknown column.
    """
    need(curves, ("run", "step", column), "curves")
    if len(others) < 3:
        raise InputError(f"run {quoted(run)}: a band needs at least 3 siblings, not {len(others)}")
    points = last_attempt(curves[curves["run"].isin([run, *others])])
    own = points[points["run"] == run]
    own = own[own[column] > 0]
    if own.empty:
        raise InputError(f"{curves.attrs.get('source', 'curves')}: run {quoted(run)} has no {column} above 0")
    steps = own["step"].to_numpy(float)
    band = np.full((len(others), len(steps)), np.nan)
    for row, sibling in enumerate(others):
        curve = points[(points["run"] == sibling) & (points[column] > 0)]
        if len(curve):
            band[row] = np.interp(steps, curve["step"], np.log(curve[column]), left=np.nan, right=np.nan)
    number = np.isfinite(band).sum(axis=0)
    known = number >= 3
    steps, band, number = steps[known], band[:, known], number[known]
    middle = np.nanmedian(band, axis=0)
    scale = np.maximum(MAD_TO_STD * np.nanmedian(np.abs(band - middle), axis=0), 0.01)
    values = np.log(own[column].to_numpy(float)[known])
    at = _first_to_stay(values > middle + width * scale, stay)
    table = pd.DataFrame(
        {
            "step": steps.astype(int),
            column: np.exp(values),
            "median": np.exp(middle),
            "upper": np.exp(middle + width * scale),
            "num_siblings": number,
        }
    )
    return (None if at is None else int(steps[at])), table


def failures(
    curves: pd.DataFrame, logs: pd.DataFrame, size_factor: float = 1.6, *, width: float = BAND_Z, stay: int = STAY
) -> pd.DataFrame:
    """Runs that diverged or were stopped, and when they could have been seen.

    Parameters
    ----------
    curves, logs
        of `load_training_curves` and `load_training_logs`.
    size_factor
        see `siblings`.
    width, stay
        see `left_band`.

    Returns
    -------
    DataFrame
        a row a run that did not finish: `run`, `status`, `architecture`, `context_length`, `num_params`,
        `learning_rate`, `num_siblings`, `sibling_learning_rate` (their median), `loss_step` and `grad_norm_step` (where
        it left their band; NaN where it did not, or there are fewer than 3 siblings), `last_step` of its curve,
        `train_steps`.

    Raises
    ------
    InputError
        if all runs finished, or a column is missing.
    """
    need(logs, ("run", "status", "learning_rate", "train_steps"), "training logs")
    failed = logs[logs["status"] != "finished"]
    if failed.empty:
        raise InputError(f"{logs.attrs.get('source', 'training logs')}: all runs finished")
    rates = logs.set_index("run")["learning_rate"]
    rows = []
    for run in failed["run"]:
        others = siblings(logs, run, size_factor)
        steps = {
            name: left_band(curves, run, others, column, width=width, stay=stay)[0] if len(others) >= 3 else None
            for name, column in (("loss_step", "train_loss"), ("grad_norm_step", "grad_norm"))
        }
        last = curves.loc[curves["run"] == run, "step"].max()
        rows.append((len(others), rates[others].median(), steps["loss_step"], steps["grad_norm_step"], last))
    names = ["num_siblings", "sibling_learning_rate", "loss_step", "grad_norm_step", "last_step"]
    found = pd.DataFrame(rows, columns=names).astype({"loss_step": float, "grad_norm_step": float})
    known = ["run", "status", "architecture", "context_length", "num_params", "learning_rate", "train_steps"]
    return pd.concat([failed[known].reset_index(drop=True), found], axis=1)


def parting(
    curves: pd.DataFrame, first: str, second: str, column: str = "train_loss", *, width: float = 6.0, stay: int = STAY
) -> tuple[int | None, pd.DataFrame]:
    """Where the curves of two trainings of one configuration part for good, and their difference.

    They have parted at the first step from which on, to the end, differences keep one sign and stay above `width` times
    the scatter of the difference. Scatter: the robust standard deviation of the changes of the difference from point to
    point, over √2; it is small where both saw the same batches, because their noise is then the same.

    Returns
    -------
    tuple
        the step, None if they never part (or fewer than `stay` points follow); and a table of the steps that both
        logged: `step`, `first`, `second`, `difference` (first less second, nats per token).

    Raises
    ------
    InputError
        for fewer than 5 steps that both logged.
    """
    need(curves, ("run", "step", column), "curves")
    points = last_attempt(curves[curves["run"].isin([first, second])])
    wide = points.pivot_table(index="step", columns="run", values=column)
    wide = wide.reindex(columns=[first, second]).dropna()
    if len(wide) < MIN_POINTS:
        raise InputError(
            f"{curves.attrs.get('source', 'curves')}: runs {quoted(first)} and {quoted(second)} share "
            f"{plural(len(wide), 'step')} with a {column}; at least {MIN_POINTS} are needed"
        )
    difference = (wide[first] - wide[second]).to_numpy()
    changes = np.diff(difference)
    scatter = MAD_TO_STD * np.median(np.abs(changes - np.median(changes))) / np.sqrt(2)
    sign = np.sign(difference[-1])
    inside = np.flatnonzero(sign * difference <= width * scatter)
    at = int(inside[-1]) + 1 if inside.size else 0
    parted = len(difference) - at >= stay and sign != 0
    table = pd.DataFrame(
        {"step": wide.index, "first": wide[first].array, "second": wide[second].array, "difference": difference}
    )
    return (int(table["step"][at]) if parted else None), table


def common_noise(curves: pd.DataFrame, runs: Sequence[str], *, begin: int = 0, min_steps: int = 8) -> float:
    """How far training losses of runs rise and fall together from step to step: near 1 if they saw the same batches.

    Every run is compared with the next of the list, at the steps after `begin` that both logged: how far each loss lies
    from the straight line between its neighbors, so that a falling trend drops out, however uneven the steps.

    Returns
    -------
    float
        median correlation over the pairs that share `min_steps` steps or more.

    Raises
    ------
    InputError
        if no pair shares so many.
    """
    need(curves, ("run", "step", "train_loss"), "curves")
    points = last_attempt(curves[curves["run"].isin(runs) & (curves["step"] > begin)])
    losses = {str(run): curve.set_index("step")["train_loss"].dropna() for run, curve in points.groupby("run")}
    found = []
    for first, second in pairwise(runs):
        if first not in losses or second not in losses:
            continue
        both = pd.concat([losses[first], losses[second]], axis=1, join="inner")
        if len(both) >= min_steps:
            bends = _bends(both.index.to_numpy(float), both.to_numpy())
            if (bends.std(axis=0) > 0).all():
                found.append(float(np.asarray(np.corrcoef(bends.T))[0, 1]))
    if not found:
        raise InputError(
            f"{curves.attrs.get('source', 'curves')}: no two neighbors of {plural(len(runs), 'run')} share {min_steps} "
            f"steps with a training loss after step {begin}"
        )
    return float(np.median(found))


def _bends(steps: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values, shape (n, k), less the straight line between the neighbors before and after, shape (n − 2, k)."""
    share = ((steps[1:-1] - steps[:-2]) / (steps[2:] - steps[:-2]))[:, None]
    return values[1:-1] - (1 - share) * values[:-2] - share * values[2:]


def _median_before(points: pd.DataFrame, column: str, number: int) -> pd.Series:
    """Median of the points before each, of the same run; NaN for the first `number` points of a run."""
    median = points.groupby("run")[column].rolling(number).median().reset_index(level=0, drop=True).sort_index()
    return median.groupby(points["run"]).shift()


def _first_to_stay(outside: NDArray[np.bool_], stay: int) -> int | None:
    """Where the first run of `stay` true values begins; one that the end cuts short counts."""
    length = 0
    for at, out in enumerate(outside):
        length = length + 1 if out else 0
        if length and (length >= stay or at == len(outside) - 1):
            return at - length + 1
    return None
