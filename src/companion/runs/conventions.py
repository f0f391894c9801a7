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
    get_convention,
    num_params,
)
from companion.accounting.breakdown import COMPONENTS
from companion.architectures import ARCHITECTURES
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
    DataFrame
        with one row per `architecture` and `context_length` of the countable runs: `num_runs`, `num_params_equal` (runs
        whose N is exactly that of the shapes), `train_flops_equal` (runs whose C is that of the table, both rounded to
        that many digits), and `largest_difference` (relative, of C). No rows if nothing can be counted.
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
    """Values rounded to this many significant digits."""
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


def _num_params(runs: pd.DataFrame) -> pd.Series:
    result = pd.Series(0, index=runs.index)
    for _, group in runs.groupby("architecture"):
        result[group.index] = np.asarray(num_params(models_of(group)))
    return result
