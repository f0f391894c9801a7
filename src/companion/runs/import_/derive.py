"""What a run table needs and a file does not have, from what it has: sums of counts, tokens, compute."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import CONVENTIONS, PAPER, num_params
from companion.accounting import train_flops as count_train_flops
from companion.architectures import ARCHITECTURES, VOCAB_SIZE, make_architecture
from companion.errors import InputError
from companion.runs.load import OPTIONAL_SHAPE_COLUMNS, SHAPE_COLUMNS
from companion.runs.recount import models_of

#: FLOPs per parameter and token (arXiv 2001.08361, section 2.1).
SIX = 6.0


@dataclass
class Derivation:
    """Values by column with what was derived filled in, sentences about it, and a mark for every row."""

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    marks: pd.Series = field(default_factory=lambda: pd.Series(dtype=object))

    def column(self, name: str) -> pd.Series:
        """A column as float64, NaN where the file has no value."""
        if name not in self.table:
            return pd.Series(np.nan, index=self.table.index)
        return pd.to_numeric(self.table[name]).astype(float)

    def fill(self, name: str, values: pd.Series, how: str) -> None:
        """Fill the empty cells of a column, and say how."""
        before = self.table[name] if name in self.table else pd.Series(None, index=self.table.index, dtype=object)
        usable = values.map(lambda value: isinstance(value, str) or (pd.notna(value) and np.isfinite(value)))
        new = before.isna() & usable
        if not new.any():
            return
        self.table[name] = before.astype(object).where(~new, values)
        rows = "all rows" if new.all() else f"{int(new.sum())} of {len(new)} rows"
        self.notes.append(f"{name} = {how} in {rows}")
        between = self.marks.map(lambda mark: "; " if mark else "")
        self.marks = self.marks.where(~new, self.marks + between + f"{name}={how}")


def derive(values: pd.DataFrame, source: str, convention: str | None = None) -> Derivation:
    """Fill in parameters, tokens, compute, loss and architecture where they follow from other columns.

    Parameters
    ----------
    values
        numbers and text by the names of a run table and of `companion.runs.import_.values.PARTS`.
    source
        what messages call the file.
    convention
        how a missing train_flops is counted; see `companion.runs.import_.import_runs`.

    Raises
    ------
    InputError
        if the convention is not known or needs shapes that are missing.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} is not known; there are {', '.join(CONVENTIONS)}")
    found = Derivation(values.copy(), marks=pd.Series("", index=values.index, dtype=object))
    if "architecture" not in found.table or found.table["architecture"].isna().all():
        found.table["architecture"] = "model"
        found.notes.append("architecture = 'model' in all rows: the file names none (set it with --architecture NAME)")
    else:
        found.fill("architecture", pd.Series("model", index=found.table.index), "'model'")
    found.table["architecture"] = found.table["architecture"].astype(str).str.strip().str.lower()

    size, parts = found.column("num_params"), found.column("embedding_params") + found.column("other_params")
    found.fill("num_params", parts, "embedding_params + other_params")
    if size.isna().any() and "num_params" not in values and parts.isna().all() and "other_params" in values:
        found.fill("num_params", found.column("other_params"), "other_params (no count of the embedding)")
    _default_shapes(found)
    shapes = _countable(found.table)
    if shapes.any() and found.column("num_params").isna().any():
        counted = _from_shapes(found.table, shapes, source, lambda model, rows: num_params(model))
        vocabulary = "" if found.column("vocab_size").notna().any() else f" with a vocabulary of {VOCAB_SIZE}"
        found.fill("num_params", counted, f"count of shapes{vocabulary}")

    if "perplexity" in values:
        found.fill("val_loss", np.log(found.column("perplexity").where(lambda p: p > 0)), "ln(perplexity)")
    _tokens_and_flops(found, shapes, source, convention)
    for name in ("num_params", "num_tokens", "train_flops", "val_loss"):
        if name not in found.table:
            found.table[name] = None
    return found


def _tokens_and_flops(found: Derivation, shapes: pd.Series, source: str, convention: str | None) -> None:
    product = found.column("batch_size_seqs") * found.column("context_length") * found.column("train_steps")
    found.fill("num_tokens", product, "batch_size_seqs * context_length * train_steps")
    found.fill("num_tokens", found.column("batch_tokens") * found.column("train_steps"), "batch_tokens * train_steps")
    size = found.column("num_params")
    found.fill("num_tokens", found.column("tokens_per_param") * size, "tokens_per_param * num_params")
    if found.column("num_tokens").isna().any():
        found.fill("num_tokens", found.column("train_flops") / (SIX * size), "train_flops / (6 * num_params)")
        budget = found.column("isoflop_budget")
        found.fill("num_tokens", budget / (SIX * size), "isoflop_budget / (6 * num_params)")
        from_budget = found.marks.str.contains("num_tokens=isoflop_budget", regex=False)
        found.fill("train_flops", budget.where(from_budget), "isoflop_budget")
    missing = found.column("train_flops").isna() & found.column("num_tokens").notna() & size.notna()
    if not missing.any():
        return
    by_shapes = shapes & missing & found.column("context_length").notna()
    chosen = convention or (PAPER.name if (by_shapes == missing).all() else "6ND")
    if chosen == "6ND":
        found.fill("train_flops", SIX * size * found.column("num_tokens"), "6 * num_params * num_tokens")
        return
    if not (by_shapes == missing).all():
        needed = ", ".join(("context_length", *SHAPE_COLUMNS))
        raise InputError(f"{source}: convention {chosen} needs {needed} in all rows")

    def count(model: Any, rows: pd.DataFrame) -> Any:
        length, tokens = (rows[name].to_numpy(dtype=float) for name in ("context_length", "num_tokens"))
        return pd.Series(np.asarray(count_train_flops(model, length, tokens, chosen)), index=rows.index)

    found.fill(
        "train_flops", _from_shapes(found.table, by_shapes, source, count), f"count of shapes, convention {chosen}"
    )


def _default_shapes(found: Derivation) -> None:
    """Fill in head widths and the feed-forward width of our architectures by their rules, where no row has them."""
    table = found.table
    if not {"d_model", "n_layers", "n_heads"} <= set(table.columns):
        return
    for name in table["architecture"].unique():
        rows = (table["architecture"] == name) & table[["d_model", "n_layers", "n_heads"]].notna().all(axis=1)
        if name not in ARCHITECTURES or not rows.any():
            continue
        given = [column for column in SHAPE_COLUMNS if column in table and table.loc[rows, column].notna().all()]
        shapes = {column: pd.to_numeric(table.loc[rows, column]).to_numpy() for column in given}
        model = make_architecture(str(name), **shapes)
        for column in ("d_hv", "d_qk", "d_ff"):
            if column not in given:
                values = pd.Series(np.nan, index=table.index, dtype=object)
                values[rows] = np.broadcast_to(getattr(model, column), rows.sum()).tolist()
                found.fill(column, values, f"rule of the {name}")


def _countable(values: pd.DataFrame) -> pd.Series:
    """Rows whose shapes are all there, of an architecture that we count."""
    if not set(SHAPE_COLUMNS) <= set(values.columns):
        return pd.Series(False, index=values.index)
    return values[list(SHAPE_COLUMNS)].notna().all(axis=1) & values["architecture"].isin(list(ARCHITECTURES))


def _from_shapes(values: pd.DataFrame, rows: pd.Series, source: str, count: Any) -> pd.Series:
    result = pd.Series(np.nan, index=values.index, dtype=object)
    for _, group in values[rows].groupby("architecture"):
        numbers = group.copy()
        for column in (*SHAPE_COLUMNS, *OPTIONAL_SHAPE_COLUMNS):
            if column in numbers:
                numbers[column] = pd.to_numeric(numbers[column])
        counted: Any = count(models_of(numbers, source), numbers)
        result[group.index] = np.array(counted, dtype=object)
    return result
