"""Tables that describe a run table: what was trained, with which settings, how often, and how it was counted.

Every function takes any run table: a column that it lacks comes out empty.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from companion.errors import InputError
from companion.fitting.isoflop.parabola import fit_parabola
from companion.fitting.pareto import READINGS, beaten, compare_architectures
from companion.runs.recount import missing_for_recount, recount
from companion.runs.select import subset

#: Columns that distinguish groups of runs, in the order of the tables.
DESIGN_COLUMNS = ("experiment", "context_length", "isoflop_budget")
#: Columns in which two runs of the same configuration agree.
CONFIGURATION_COLUMNS = ("architecture", "context_length", "num_params", "num_tokens")


def count_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs and their ranges by experiment, context length and budget.

    Returns
    -------
    DataFrame with `DESIGN_COLUMNS`, one column of counts per architecture (named as it), and the least and largest
    `num_params`, `num_tokens` and `tokens_per_param` of each group.
    """
    keys = [column for column in DESIGN_COLUMNS if column in runs]
    frame = runs.assign(tokens_per_param=runs["num_tokens"] / runs["num_params"], everything="all")
    frame = pd.concat([frame, pd.get_dummies(frame["architecture"], dtype=int)], axis=1)
    groups = frame.groupby(keys or "everything", dropna=False)
    table = pd.DataFrame({name: groups[name].sum() for name in _names(runs)})
    for column in ("num_params", "num_tokens", "tokens_per_param"):
        table[f"{column}_min"], table[f"{column}_max"] = groups[column].min(), groups[column].max()
    return _with_columns(table.reset_index(), DESIGN_COLUMNS)


def settings_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Learning rates and batches by experiment, context length and architecture.

    Returns
    -------
    DataFrame with `experiment`, `context_length`, `architecture`, `num_runs`, least and largest `learning_rate`,
    `batch_tokens` (tokens per optimizer step) and `train_steps`.
    """
    frame = _with_columns(runs, ("learning_rate", "batch_size_seqs", "context_length", "train_steps"))
    frame["batch_tokens"] = frame["batch_size_seqs"].astype(float) * frame["context_length"].astype(float)
    keys = [column for column in ("experiment", "context_length", "architecture") if column in runs]
    groups = frame.groupby(keys, dropna=False)
    table = groups.size().rename("num_runs").to_frame()
    for column in ("learning_rate", "batch_tokens", "train_steps"):
        values = groups[column]
        table[f"{column}_min"], table[f"{column}_max"] = values.min().astype(float), values.max().astype(float)
    return _with_columns(table.reset_index(), ("experiment", "context_length"))


def learning_rate_overlap(runs: pd.DataFrame, first: str, second: str) -> tuple[int, int]:
    """Widths trained in both architectures at the same context, and those of them with the same learning rates.

    Returns
    -------
    (number of pairs of context_length and d_model in both, number of these with equal sets of learning rates);
    (0, 0) where a column is missing.
    """
    if not {"context_length", "d_model", "learning_rate"} <= set(runs.columns):
        return (0, 0)
    rates = [
        subset(runs, name).groupby(["context_length", "d_model"])["learning_rate"].agg(frozenset)
        for name in (first, second)
    ]
    both = rates[0].index.intersection(rates[1].index)
    return len(both), sum(rates[0][key] == rates[1][key] for key in both)


def repeated_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs whose architecture, context length, N and D occur more than once, sorted by these."""
    keys = [column for column in CONFIGURATION_COLUMNS if column in runs]
    again = runs[runs.duplicated(keys, keep=False)]
    return again.sort_values(keys, kind="stable")


def deviation_of_pair(difference: float, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Standard deviation of one run, from the difference of two repeats: estimate and confidence interval.

    The difference of two independent normal values has variance 2·s²; one pair is one degree of freedom.

    Parameters
    ----------
    difference
        loss of one repeat minus that of the other, nats per token.
    level
        between 0 and 1.

    Raises
    ------
    InputError
        if the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level} of an interval is not between 0 and 1")
    estimate = abs(difference) / np.sqrt(2)
    low, high = (float(estimate / np.sqrt(stats.chi2.ppf(p, 1))) for p in ((1 + level) / 2, (1 - level) / 2))
    return float(estimate), (low, high)


def profile_scatter(runs: pd.DataFrame) -> pd.DataFrame:
    """Scatter of the losses of every IsoFLOP profile around its parabola in log N.

    Profiles with fewer than four sizes, or without a budget, are left out.

    Returns
    -------
    DataFrame with `architecture`, `context_length`, `isoflop_budget`, `num_runs`, `num_imposed` (runs whose loss was
    reconstructed with the published parabola imposed: their scatter says nothing) and `deviation` (standard deviation
    of the residuals, nats per token).
    """
    keys = ["architecture", "context_length", "isoflop_budget"]
    frame = _with_columns(runs, ("context_length", "isoflop_budget", "imposed_published_fit"))
    rows = []
    for key, part in frame[frame["isoflop_budget"].notna()].groupby(keys, dropna=False):
        if part["num_params"].nunique() < 4:
            continue
        fit = fit_parabola(part["num_params"], part["val_loss"])
        deviation = float(np.sqrt(np.sum(fit.residuals**2) / fit.degrees_of_freedom))
        imposed = int(part["imposed_published_fit"].fillna(0).sum())
        rows.append((*np.atleast_1d(np.array(key, dtype=object)), len(part), imposed, deviation))
    return pd.DataFrame(rows, columns=[*keys, "num_runs", "num_imposed", "deviation"])


def flops_table(runs: pd.DataFrame, convention: str = "paper") -> pd.DataFrame:
    """How `train_flops` was counted: against a convention, and against 6·N·D.

    Returns
    -------
    DataFrame with `architecture`, `context_length`, `num_runs`, `largest_deviation` (relative, from the convention; NaN
    where shapes are not known), and `ratio_min`, `ratio_median`, `ratio_max` of train_flops to 6·N·D.
    """
    deviation = np.full(len(runs), np.nan)
    if not missing_for_recount(runs):
        deviation = np.abs(runs["train_flops"] / recount(runs, convention) - 1).to_numpy()
    frame = runs.assign(
        deviation=deviation,
        ratio=runs["train_flops"] / (6.0 * runs["num_params"].astype(float) * runs["num_tokens"].astype(float)),
    )
    keys = [column for column in ("architecture", "context_length") if column in runs]
    groups = frame.groupby(keys, dropna=False)
    table = groups.size().rename("num_runs").to_frame()
    table["largest_deviation"] = groups["deviation"].max()
    for name in ("min", "median", "max"):
        table[f"ratio_{name}"] = groups["ratio"].agg(name)
    return _with_columns(table.reset_index(), ("architecture", "context_length"))


def front_designs(runs: pd.DataFrame, rows: Any) -> pd.DataFrame:
    """Which experiments the runs of a front belong to: `experiment`, `num_runs` and the range of `train_flops`.

    Parameters
    ----------
    runs
        the table that a front was fitted to.
    rows
        positions in it, e.g. `ParetoFront.rows`.
    """
    frame = _with_columns(runs.iloc[rows], ("experiment",))
    names = frame["experiment"].astype(object).where(frame["experiment"].notna(), "")
    groups = frame["train_flops"].groupby(names)
    return groups.agg(num_runs="size", train_flops_min="min", train_flops_max="max").reset_index()


def front_table(runs: pd.DataFrame, first: str, second: str, by: str = "context_length") -> pd.DataFrame:
    """Two architectures compared in every reading, for each value of a column (or once, if there is no such column).

    Values of the column for which one architecture has no runs, or the fronts share no range, are left out.

    Returns
    -------
    DataFrame with the columns `by`, `reading`, `second_runs_on_front`, `second_beaten_on_front` (runs of the second's
    front that some run of the first beats), `from_flops`, `to_flops` (FLOP, the common range), `share_lower`,
    `median_gap`, `smallest_gap` (nats per token) and `flops_factor` (median).

    Raises
    ------
    InputError
        if no value has runs of both whose fronts share a range.
    """
    groups = list(runs.groupby(by)) if by in runs and runs[by].notna().any() else [("all", runs)]
    rows = []
    for value, group in groups:
        if not {first, second} <= set(group["architecture"]):
            continue
        for reading in READINGS:
            try:
                found = compare_architectures(group, first, second, reading)
            except InputError:  # the fronts share no range
                continue
            front = found.second
            rows.append(
                {
                    by: value,
                    "reading": reading,
                    "second_runs_on_front": front.rows.size,
                    "second_beaten_on_front": int(beaten(front.train_flops, front.loss, found.first).sum()),
                    "from_flops": found.flops_range[0],
                    "to_flops": found.flops_range[1],
                    "share_lower": found.share_lower,
                    "median_gap": found.loss_gap.quantile(0.5),
                    "smallest_gap": found.loss_gap.minimum,
                    "flops_factor": found.flops_factor(),
                }
            )
    if not rows:
        raise InputError(f"no {by} has runs of both {first} and {second} whose fronts share a range")
    return pd.DataFrame(rows)


def with_ranges(table: pd.DataFrame, columns: Mapping[str, Callable[[float], str]]) -> pd.DataFrame:
    """Every pair of columns `name_min`, `name_max` as one column `name` of text, such as `83.6M–546M`.

    Parameters
    ----------
    columns
        by name: how a number becomes text. Equal ends are written once; unknown ones as a dash.
    """
    result = table.copy()
    for name, style in columns.items():
        ends = [result.pop(f"{name}_{end}") for end in ("min", "max")]
        texts = [
            "–" if pd.isna(low) else "–".join(dict.fromkeys((style(low), style(high))))
            for low, high in zip(*ends, strict=True)
        ]
        result[name] = texts
    return result


def exchanged(runs: pd.DataFrame, one: Any, other: Any, column: str = "val_loss") -> pd.DataFrame:
    """A copy in which two runs have each other's value of a column.

    Parameters
    ----------
    one, other
        index labels of the two runs.
    """
    result = runs.copy()
    result.loc[[one, other], column] = runs.loc[[other, one], column].to_numpy()
    return result


def step_from_neighbor(runs: pd.DataFrame, row: Any, family: str = "d_model") -> float:
    """Loss of a run minus that of the run nearest in log N among those with the same width; nats per token.

    Parameters
    ----------
    runs
        runs of one profile.
    row
        index label of the run.
    family
        column that says which runs belong together.

    Raises
    ------
    InputError
        if no other run belongs to the family.
    """
    others = runs[(runs[family] == runs.loc[row, family]) & (runs.index != row)]
    if others.empty:
        raise InputError(f"no other run has the {family} of run {row}")
    distance = (np.log(others["num_params"]) - np.log(runs.loc[row, "num_params"])).abs()
    return float(runs.loc[row, "val_loss"] - others["val_loss"].loc[distance.idxmin()])


def _names(runs: pd.DataFrame) -> list[str]:
    return sorted(map(str, runs["architecture"].unique()))


def _with_columns(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """A copy with these columns in front, empty where the table has none."""
    rest = [column for column in table.columns if column not in (*columns, "everything")]
    return table.reindex(columns=[*columns, *rest])
