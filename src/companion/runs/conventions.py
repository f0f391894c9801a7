"""A run table under other conventions of counting: does its own count hold, and how far do others move it?

Rows without shapes, or of an architecture that the package cannot count, are left out (NaN); 6ND needs none.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.accounting import (
    CONVENTIONS,
    PAPER,
    Convention,
    count_flops,
    count_params,
    get_convention,
    num_params,
)
from companion.accounting.breakdown import COMPONENTS
from companion.architectures import ARCHITECTURES, Architecture
from companion.errors import InputError
from companion.runs.recount import NEEDED_COLUMNS, models_of, recount


def countable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose cost follows from the table: shapes, context and tokens known, architecture one of ours."""
    if not set(NEEDED_COLUMNS) <= set(runs.columns):
        return runs.iloc[:0]
    known = runs[list(NEEDED_COLUMNS)].notna().all(axis=1) & runs["architecture"].isin(list(ARCHITECTURES))
    return runs[known]


def check_counts(runs: pd.DataFrame, convention: str | Convention = PAPER, digits: int = 6) -> pd.DataFrame:
    """num_params and train_flops of a table against a count from its shapes.

    Parameters
    ----------
    runs
        a run table.
    convention
        what `train_flops` is held to follow.
    digits
        significant digits to which both values of `train_flops` are compared.

    Returns
    -------
    DataFrame with one row per `architecture` and `context_length` of the countable runs: `num_runs`,
    `num_params_equal` (runs whose N is exactly that of the shapes), `train_flops_equal` (runs whose C is that of the
    table, both rounded to that many digits), and `largest_difference` (relative, of C). No rows if nothing can be
    counted.
    """
    chosen = countable(runs)
    by, whole = ["architecture", "context_length"], ["num_runs", "num_params_equal", "train_flops_equal"]
    if chosen.empty:
        kinds = dict.fromkeys([*whole, "context_length"], int) | {"largest_difference": float}
        return pd.DataFrame(columns=[*by, *whole, "largest_difference"]).astype(kinds)
    ours = recount(chosen, convention)
    frame = chosen[by].assign(
        num_runs=1,
        num_params_equal=_num_params(chosen) == chosen["num_params"],
        train_flops_equal=_rounded(ours, digits) == _rounded(chosen["train_flops"], digits),
        largest_difference=(ours / chosen["train_flops"] - 1).abs(),
    )
    how = {name: "max" if name == "largest_difference" else "sum" for name in frame.columns[2:]}
    return frame.groupby(by).agg(how).reset_index().astype({"context_length": int})


def _rounded(values: pd.Series, digits: int) -> np.ndarray:
    """Values to so many significant digits."""
    return np.array([float(f"{value:.{digits - 1}e}") for value in values])


def convention_ratios(runs: pd.DataFrame, conventions: Sequence[str | Convention] = tuple(CONVENTIONS)) -> pd.DataFrame:
    """Training compute by other conventions over the `train_flops` of the table, for every run.

    Returns
    -------
    DataFrame
        index of `runs`, one column per convention, named as it; NaN where a run cannot be counted. A convention that
        prices every weight alike is 6·N·D from the table itself and needs no shapes.
    """
    chosen, ratios = countable(runs), pd.DataFrame(index=runs.index)
    for convention in map(get_convention, conventions):
        if convention.rule == "6ND" and set(convention.counted_weights) == set(COMPONENTS):
            factor = 2 * (1 + convention.backward_factor)
            flops = factor * runs["num_params"].astype(float) * runs["num_tokens"]
        else:
            flops = pd.Series(np.nan, index=runs.index)
            if len(chosen):
                flops[chosen.index] = recount(chosen, convention)
        ratios[convention.name] = flops / runs["train_flops"]
    return ratios


def median_ratios(runs: pd.DataFrame, ratios: pd.DataFrame) -> pd.DataFrame:
    """Medians of `convention_ratios` by architecture, and how far they lie apart.

    Returns
    -------
    DataFrame with `context_length` (where the table has it), `convention`, one column per architecture, named as it,
    and `apart`: the largest of these medians over the smallest. A comparison of architectures at equal compute moves
    by this factor when the convention changes. Conventions without any value are left out.
    """
    by = ["context_length"] if "context_length" in runs and runs["context_length"].notna().any() else []
    long = ratios.join(runs[["architecture", *by]]).melt(["architecture", *by], var_name="convention").dropna()
    table = long.pivot_table("value", [*by, "convention"], "architecture", aggfunc="median", sort=False)
    table["apart"] = table.max(axis=1) / table.min(axis=1)
    return table.rename_axis(columns=None).reset_index()


def smallest_model(runs: pd.DataFrame, architecture: str) -> Architecture:
    """The countable model of an architecture with the fewest parameters.

    Raises
    ------
    InputError
        if the table has no countable run of it.
    """
    rows = countable(runs)
    rows = rows[rows["architecture"] == architecture]
    if rows.empty:
        raise InputError(f"no run of architecture {architecture!r} has the shapes that a count needs")
    smallest = models_of(rows.sort_values("num_params", kind="stable").iloc[:1])
    return type(smallest)(**{name: np.asarray(value).item() for name, value in smallest.shapes().items()})


def share_table(runs: pd.DataFrame, convention: str | Convention = PAPER) -> pd.DataFrame:
    """Shares in parameters and in FLOPs for every countable run.

    Returns
    -------
    DataFrame
        index of the countable runs: `architecture`, `num_params`, and between 0 and 1 the shares of embedding and
        unembedding in the parameters (`params_share`) and in the training FLOPs (`flops_share`), and that of the mixer
        core in the FLOPs (`core_share`).
    """
    chosen = countable(runs)
    shares = chosen[["architecture", "num_params"]].assign(params_share=np.nan, flops_share=np.nan, core_share=np.nan)
    for _, group in chosen.groupby("architecture"):
        model = models_of(group)
        weights, flops = count_params(model), count_flops(model, group["context_length"].to_numpy(), convention)
        shares.loc[group.index, "params_share"] = (weights.embedding + weights.unembedding) / weights.total
        shares.loc[group.index, "flops_share"] = flops.share("embedding") + flops.share("unembedding")
        shares.loc[group.index, "core_share"] = flops.share("mixer_core")
    return shares


def _num_params(runs: pd.DataFrame) -> pd.Series:
    result = pd.Series(0, index=runs.index)
    for _, group in runs.groupby("architecture"):
        result[group.index] = num_params(models_of(group))
    return result
