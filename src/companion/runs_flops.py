"""train_flops of a run table counted again, under any convention.

Apart from `companion.runs`, which knows tables but no architectures, and from `companion.accounting`, which knows
shapes but no tables.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion.accounting import Convention, train_flops
from companion.architectures import ARCHITECTURES, make_architecture
from companion.errors import InputError
from companion.runs import SHAPE_COLUMNS
from companion.runs_where import table_name

#: Columns that a count needs.
NEEDED_COLUMNS = ("architecture", "context_length", "num_tokens", *SHAPE_COLUMNS)


def missing_for_recount(runs: pd.DataFrame) -> str:
    """What keeps the runs from being counted again, in words; empty if nothing does."""
    absent = [column for column in NEEDED_COLUMNS if column not in runs.columns]
    if absent:
        return f"no column {', '.join(map(repr, absent))}"
    unknown = sorted(set(runs["architecture"]) - set(ARCHITECTURES))
    if unknown:
        return f"no count for architecture {', '.join(map(repr, unknown))}, only for {', '.join(ARCHITECTURES)}"
    for column in NEEDED_COLUMNS:
        if empty := int(runs[column].isna().sum()):
            return f"column {column!r} is empty in {empty} of {len(runs)} runs"
    return ""


def recount(
    runs: pd.DataFrame, convention: str | Convention | Mapping[str, str | Convention], source: str | None = None
) -> pd.Series:
    """train_flops of every run from its shapes, context and tokens.

    Parameters
    ----------
    runs
        a run table with the shapes of the models.
    convention
        a `Convention`, the name of one, or one of these per architecture.
    source
        what messages call the table; by default the file it was loaded from.

    Returns
    -------
    Series
        float64, FLOP, with the index of `runs`; the column `train_flops` itself is not used.

    Raises
    ------
    InputError
        if a column or cell is missing, or an architecture or convention is not known.
    """
    label = table_name(runs, source)
    if reason := missing_for_recount(runs):
        raise InputError(f"{label}: train_flops cannot be counted again: {reason}")
    result = pd.Series(np.nan, index=runs.index, name="train_flops")
    for name, group in runs.groupby("architecture"):
        if isinstance(convention, Mapping) and name not in convention:
            raise InputError(f"{label}: no convention is given for architecture {str(name)!r}")
        chosen = convention[str(name)] if isinstance(convention, Mapping) else convention
        architecture = make_architecture(str(name), **{shape: group[shape].to_numpy() for shape in SHAPE_COLUMNS})
        lengths, tokens = group["context_length"].to_numpy(), group["num_tokens"].to_numpy()
        result[group.index] = train_flops(architecture, lengths, tokens, chosen)
    return result
