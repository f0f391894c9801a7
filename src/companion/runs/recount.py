"""The models of a run table, and its train_flops counted again under any convention.

Apart from `companion.runs.load`, which knows tables but no architectures, and from `companion.accounting`, which knows
shapes but no tables.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import Convention, train_flops
from companion.architectures import ARCHITECTURES, VOCAB_SIZE, Architecture, make_architecture
from companion.architectures.base import usual_attention_heads
from companion.errors import InputError
from companion.runs.load import OPTIONAL_SHAPE_COLUMNS, SHAPE_COLUMNS
from companion.runs.where import table_name

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
            whole = "is empty" if empty == len(runs) else f"is empty in {empty} of {len(runs)} runs"
            return f"column {column!r} {whole}"
    return ""


def models_of(runs: pd.DataFrame, source: str | None = None) -> Architecture:
    """The models of runs of one architecture, as one object whose shapes are arrays of shape (n,).

    Parameters
    ----------
    runs
        rows of a run table, all of one architecture, with all `SHAPE_COLUMNS`. The `OPTIONAL_SHAPE_COLUMNS` are used
        where the table has them; an empty cell takes the default of `companion.architectures`.
    source
        what messages call the table; by default the file it was loaded from.

    Raises
    ------
    InputError
        if a row has shapes that no model can have; the message names the row.
    """
    name = str(runs["architecture"].iloc[0])
    shapes = _shapes(runs, name)
    try:
        return make_architecture(name, **shapes)
    except InputError as error:
        for at, index in enumerate(runs.index):
            try:
                row = _shapes(runs.iloc[[at]], name)
                make_architecture(name, **{key: int(values[0]) for key, values in row.items()})
            except InputError as fault:
                raise InputError(f"{table_name(runs, source)}: {_row(runs, index)}: {fault}") from None
        raise InputError(f"{table_name(runs, source)}: {error}") from None


def _shapes(runs: pd.DataFrame, name: str) -> dict[str, Any]:
    """Every shape by name, empty cells of the optional ones filled with what they stand for."""
    shapes = {column: runs[column].to_numpy() for column in SHAPE_COLUMNS}
    usual_every = ARCHITECTURES[name].usual_attention_every if name in ARCHITECTURES else None
    defaults = {
        "vocab_size": VOCAB_SIZE,
        "n_kv_heads": runs["n_heads"],
        "window": 0,
        "attention_every": usual_every or 0,
        "attention_heads": usual_attention_heads(runs["d_model"].to_numpy(), runs["n_heads"].to_numpy()),
        "tied_embeddings": 0,
        "qk_norm": 0,
    }
    for column in OPTIONAL_SHAPE_COLUMNS:
        if column in runs.columns:
            given = pd.to_numeric(runs[column])
            if given.notna().any():
                shapes[column] = given.where(given.notna(), defaults[column]).to_numpy()
    if "attention_every" in shapes and "n_kv_heads" in shapes:  # of attention, not of the hybrid's own mixer
        empty = pd.to_numeric(runs["n_kv_heads"]).isna().to_numpy() & (shapes["attention_every"] > 0)
        heads = np.asarray(shapes.get("attention_heads", defaults["attention_heads"]))
        shapes["n_kv_heads"] = np.where(empty, heads, shapes["n_kv_heads"])
    return shapes


def _row(runs: pd.DataFrame, index: Any) -> str:
    """A row as a spreadsheet numbers it where the table came from a file, else by its index."""
    return f"row {index + 2}" if "source" in runs.attrs and isinstance(index, int | np.integer) else f"row {index}"


def recount(
    runs: pd.DataFrame, convention: str | Convention | Mapping[str, str | Convention], source: str | None = None
) -> pd.Series:
    """train_flops of every run from its shapes, context and tokens.

    Parameters
    ----------
    runs
        a run table with the shapes of the models (see `models_of`).
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
        if a column or cell is missing, a shape is wrong, or an architecture or convention is not known.
    """
    label = table_name(runs, source)
    if reason := missing_for_recount(runs):
        raise InputError(f"{label}: train_flops cannot be counted again: {reason}")
    result = pd.Series(np.nan, index=runs.index, name="train_flops")
    for name, group in runs.groupby("architecture"):
        if isinstance(convention, Mapping) and name not in convention:
            raise InputError(f"{label}: no convention is given for architecture {str(name)!r}")
        chosen = convention[str(name)] if isinstance(convention, Mapping) else convention
        architecture = models_of(group, label)
        lengths, tokens = group["context_length"].to_numpy(), group["num_tokens"].to_numpy()
        try:
            result[group.index] = np.asarray(train_flops(architecture, lengths, tokens, chosen))
        except InputError as error:
            raise InputError(f"{label}: {name}: {error}") from None
    return result
