"""Choose runs of a table: by what they are, by budget, by active parameters, by what no other run beats."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.formatting import cut, plural, quoted
from companion.runs.groups import split_at_gaps
from companion.runs.where import table_name, where_mask, why_missing


def subset(
    runs: pd.DataFrame,
    architecture: str | None = None,
    context_length: int | None = None,
    experiment: str | None = None,
    where: str | None = None,
    source: str | None = None,
) -> pd.DataFrame:
    """The runs that match all of what is given (None: any), as a copy with their index kept.

    Parameters
    ----------
    runs
        a run table (n, columns).
    architecture, context_length, experiment
        the value a run must have; context_length in tokens.
    where
        a condition on the columns, see `where_mask`.
    source
        what messages call the table; by default the file it was loaded from.

    Raises
    ------
    InputError
        if a column asked for is absent or nothing matches; the message lists what the table has.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> len(subset(load_paper_runs(), "xlstm", where="num_params >= 1e9"))
    79
    """
    label = table_name(runs, source)
    keep = np.ones(len(runs), dtype=bool)
    asked: dict[str, Any] = {
        "architecture": architecture.strip().lower() if architecture is not None else None,
        "context_length": context_length,
        "experiment": experiment,
    }
    path: list[str] = []
    for column, value in asked.items():
        if value is None:
            continue
        if problem := why_missing(runs, column):
            raise InputError(f"{label}: {problem}, so runs with {column} {value} cannot be chosen")
        kept = keep & (runs[column] == value).to_numpy(bool)
        having = f" among those with {', '.join(path)}" if path else ""
        if not kept.any():
            there = _plain_values(runs.loc[keep, column])
            there = f"the table has {there}" if there else f"their {column} is empty"
            raise InputError(f"{label}: no runs with {column} {value}{having}; {there}")
        path.append(f"{column} {value}")
        keep = kept
    if where is not None:
        keep = keep & where_mask(runs, where, label)  # over all runs: a column that is empty in some is not empty
        if not keep.any():
            having = f" among those with {', '.join(path)}" if path else ""
            raise InputError(f"{label}: no runs where {quoted(where)}{having}")
    return runs[keep].copy()


def _plain_values(column: pd.Series) -> str:
    """The values of a column in order, at most 20 of them."""
    values = sorted(column.dropna().unique().tolist())
    named = [f"{value:.15g}" if isinstance(value, float) else cut(str(value)) for value in values[:20]]
    return ", ".join(named) + (f" and {len(values) - 20} more" if len(values) > 20 else "")


def assign_budgets(runs: pd.DataFrame, tolerance: float = 0.1, source: str | None = None) -> pd.DataFrame:
    """Give every run without an isoflop_budget the budget of the cluster of train_flops it belongs to.

    Within each architecture (and context_length, where known) runs are sorted by log10 train_flops; a gap above
    `tolerance` starts a new cluster, whose budget is the geometric mean of its train_flops, rounded to 2 significant
    digits. So the budgets of two architectures may read 6.0e18 and 6.1e18 where one number was meant. Budgets that the
    table names already stay as they are. If some runs are labeled `isoflop` in the column experiment, only those get a
    budget. No other function calls this.

    Parameters
    ----------
    tolerance
        gap in log10 of FLOP, > 0; 0.1 is 26 %.

    Returns
    -------
    A copy with the column isoflop_budget, float64, FLOP (NaN for runs outside the IsoFLOP experiment).

    Raises
    ------
    InputError
        if a cluster is wider than twice the tolerance: then the runs form no separate budgets.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop").drop(columns="isoflop_budget")
    >>> assign_budgets(runs)["isoflop_budget"].nunique()
    5
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance {quoted(tolerance)}: must be a positive number (log10 of FLOP)")
    result = runs.copy()
    budgets = np.full(len(runs), np.nan)
    if "isoflop_budget" in runs.columns:
        budgets = runs["isoflop_budget"].to_numpy(np.float64, copy=True)
    todo = np.isnan(budgets)
    if "experiment" in runs.columns and (runs["experiment"] == "isoflop").any():
        todo &= (runs["experiment"] == "isoflop").to_numpy(bool)
    keys = [key for key in ("architecture", "context_length") if key in runs.columns and runs[key].notna().any()]
    logs = np.log10(runs["train_flops"].to_numpy(np.float64))
    groups = runs.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    for group in np.unique(groups[todo]):
        at = np.flatnonzero(todo & (groups == group))
        for cluster in (at[part] for part in split_at_gaps(logs[at], tolerance)):
            low, high = logs[cluster[0]], logs[cluster[-1]]
            if high - low > 2 * tolerance:
                raise InputError(_no_budgets(runs, cluster, keys, tolerance, table_name(runs, source)))
            budgets[cluster] = float(f"{10 ** logs[cluster].mean():.1e}")
    result["isoflop_budget"] = budgets
    return result


def _no_budgets(
    runs: pd.DataFrame, cluster: NDArray[np.intp], keys: Sequence[str], tolerance: float, label: str
) -> str:
    """Why a cluster of runs is not a budget, and what to do."""
    first = runs.iloc[cluster[0]]
    of = " ".join(str(first[key]) if key == "architecture" else f"T = {first[key]:g}" for key in keys)
    flops = runs["train_flops"].iloc[cluster]
    return (
        f"{label}: column 'train_flops': {plural(len(cluster), 'run')} of {of} from {flops.min():.3g} to "
        f"{flops.max():.3g} FLOP form no separate budgets (no gap above {tolerance:g} in log10); "
        "name them in a column isoflop_budget"
    )


def with_active_params(runs: pd.DataFrame, source: str | None = None) -> pd.DataFrame:
    """A copy in which num_params is num_active_params: the N of a mixture of experts that one token uses.

    Runs without a value keep num_params (a dense model uses all of its parameters for every token).

    Raises
    ------
    InputError
        if the table has no num_active_params.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> sparse = load_paper_runs().assign(num_active_params=10**8)
    >>> int(with_active_params(sparse)["num_params"].max())
    100000000
    """
    if problem := why_missing(runs, "num_active_params"):
        raise InputError(f"{table_name(runs, source)}: {problem}")
    active = runs["num_active_params"].fillna(runs["num_params"]).astype(np.int64)
    return runs.assign(num_params=active)


def pareto_front(train_flops: ArrayLike, loss: ArrayLike) -> NDArray[np.intp]:
    """Indices of the runs that no other run beats, by increasing train_flops.

    A run is beaten if another one needs no more compute and reaches no higher loss, and is better in at least one of
    the two. Runs that are equal in both do not beat each other. O(n log n).

    Parameters
    ----------
    train_flops, loss
        (n,) each, FLOP and nats per token, finite.

    Raises
    ------
    InputError
        if the shapes differ, are not (n,), or a value is not finite.

    Examples
    --------
    >>> pareto_front([1e18, 2e18, 3e18], [3.0, 3.1, 2.9]).tolist()
    [0, 2]
    """
    compute, height = np.asarray(train_flops, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if compute.ndim != 1 or compute.shape != height.shape:
        raise InputError(f"train_flops {compute.shape} and loss {height.shape}: both must have the same shape (n,)")
    if not (np.isfinite(compute).all() and np.isfinite(height).all()):
        raise InputError("train_flops and loss must be finite")
    order = np.lexsort((height, compute))
    if not len(order):
        return order
    compute, height = compute[order], height[order]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(height)[:-1]))
    fresh = np.concatenate(([True], (np.diff(compute) != 0) | (np.diff(height) != 0)))  # first of runs equal in both
    keep = (fresh & (height < best_before))[np.flatnonzero(fresh)][np.cumsum(fresh) - 1]
    return order[keep]
