"""Which runs, budgets and sizes enter an IsoFLOP fit."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.isoflop.profiles import fit_isoflop, isoflop_groups
from companion.runs.select import assign_budgets, subset
from companion.runs.where import table_name


def isoflop_runs(runs: pd.DataFrame, architecture: str, context_length: int | None = None) -> pd.DataFrame:
    """The IsoFLOP runs of one architecture and context, each with a budget.

    A table without an experiment called `isoflop` is taken whole, one without `context_length` as one context; budgets
    that it does not name are read off gaps in `train_flops`.

    Raises
    ------
    InputError
        if nothing is left, or the runs form no separate budgets.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> len(isoflop_runs(load_paper_runs(), "xlstm", 8192))
    145
    """
    named = "experiment" in runs.columns and bool((runs["experiment"] == "isoflop").any())
    chosen = subset(
        runs,
        architecture=architecture,
        context_length=context_length if "context_length" in runs.columns else None,
        experiment="isoflop" if named else None,
    )
    if "isoflop_budget" not in chosen.columns or chosen["isoflop_budget"].isna().all():
        chosen = assign_budgets(chosen)
    return chosen[chosen["isoflop_budget"].notna()]


def contexts_of(runs: pd.DataFrame, architectures: Sequence[str]) -> list[int | None]:
    """Context lengths at which all architectures have IsoFLOP runs, ascending; [None] if the table names none."""
    if "context_length" not in runs.columns or runs["context_length"].isna().all():
        return [None]
    found = [set(isoflop_runs(runs, architecture)["context_length"].dropna()) for architecture in architectures]
    return [int(length) for length in sorted(set.intersection(*found))]


def budgets_between(runs: pd.DataFrame, lowest: float, highest: float) -> list[float]:
    """Budgets whose runs have a mean train_flops from `lowest` to `highest`, FLOP: the published rule.

    Raises
    ------
    InputError
        if there are fewer than two; the message says which mean FLOPs there are.
    """
    means = runs.groupby("isoflop_budget")["train_flops"].mean()
    found = [float(budget) for budget in means.index[(means >= lowest) & (means <= highest)]]
    if len(found) < 2:
        there = ", ".join(f"{mean:.3g}" for mean in means)
        raise InputError(
            f"{table_name(runs)}: {len(found)} IsoFLOP budget{'s' * (len(found) != 1)} with a mean train_flops from "
            f"{lowest:g} to {highest:g}; a power law needs at least 2, and there are {there}"
        )
    return found


def settings_by_budget(runs: pd.DataFrame) -> pd.DataFrame:
    """What the runs of every budget have in common and what not.

    Returns
    -------
    DataFrame
        one row per budget: `isoflop_budget`, `num_runs`, `mean_train_flops`, `flops_spread` (largest over smallest),
        `smallest`, `largest` (num_params); where the table says so also `batch_tokens` (mean tokens per step) and
        `learning_rate_low`, `learning_rate_high`.
    """
    rows = []
    for budget, group in runs.groupby("isoflop_budget"):
        row = {
            "isoflop_budget": budget,
            "num_runs": len(group),
            "mean_train_flops": group["train_flops"].mean(),
            "flops_spread": group["train_flops"].max() / group["train_flops"].min(),
            "smallest": group["num_params"].min(),
            "largest": group["num_params"].max(),
        }
        if {"batch_size_seqs", "context_length"} <= set(group.columns):
            row["batch_tokens"] = (group["batch_size_seqs"] * group["context_length"]).mean()
        if "learning_rate" in group.columns:
            row["learning_rate_low"] = group["learning_rate"].min()
            row["learning_rate_high"] = group["learning_rate"].max()
        rows.append(row)
    return pd.DataFrame(rows)


def near_optimum(runs: pd.DataFrame, decades: float, x: str = "num_params") -> pd.DataFrame:
    """Runs whose x lies within this many decades of their budget's optimum (that of the parabola through all its runs).

    Budgets without an optimum are left out.

    Raises
    ------
    InputError
        as `fit_isoflop`, or if no run is that close.
    """
    groups = isoflop_groups(runs, x)
    kept = [
        groups[profile.isoflop_budget][np.abs(np.log10(profile.x / profile.fit.law.x_opt)) <= decades]
        for profile in fit_isoflop(runs, x, num_resamples=0).optima
        if profile.fit
    ]
    chosen = pd.concat(kept)
    if chosen.empty:
        raise InputError(f"no run within {decades:g} decades of an optimum")
    return chosen
