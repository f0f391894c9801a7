"""What a run table needs and a file does not have, from what it has: sums of counts, tokens, compute."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import CONVENTIONS, PAPER, num_params
from companion.accounting import train_flops as count_train_flops
from companion.architectures import ARCHITECTURES
from companion.errors import InputError
from companion.runs import SHAPE_COLUMNS
from companion.runs_flops import models_of

#: FLOPs per parameter and token (arXiv 2001.08361, section 2.1).
SIX = 6.0


@dataclass
class Derivation:
    """Values by column with what was derived filled in, sentences about it, and a mark for every row."""

    values: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    marks: pd.Series = field(default_factory=lambda: pd.Series(dtype=object))

    def column(self, name: str) -> pd.Series:
        """A column as float64, NaN where the file has no value."""
        if name not in self.values:
            return pd.Series(np.nan, index=self.values.index)
        return pd.to_numeric(self.values[name]).astype(float)

    def fill(self, name: str, values: pd.Series, how: str) -> None:
        """Fill the empty cells of a column, and say how."""
        before = self.values[name] if name in self.values else pd.Series(None, index=self.values.index, dtype=object)
        new = before.isna() & values.notna()
        if not new.any():
            return
        self.values[name] = before.astype(object).where(~new, values)
        rows = "all rows" if new.all() else f"{int(new.sum())} of {len(new)} rows"
        self.notes.append(f"{name} = {how} in {rows}")
        self.marks = self.marks.where(
            ~new, self.marks + self.marks.map(lambda mark: "; " if mark else "") + f"{name}={how}"
        )


def derive(values: pd.DataFrame, source: str, convention: str | None = None) -> Derivation:
    """Fill in parameters, tokens, compute, loss and architecture where they follow from other columns.

    Parameters
    ----------
    values
        numbers and text by the names of a run table and of `companion.runs_import_values.PARTS`.
    source
        what messages call the file.
    convention
        how a missing train_flops is counted; see `companion.runs_import.import_runs`.

    Raises
    ------
    InputError
        if the convention is not known or needs shapes that are not there.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} is not known; there are {', '.join(CONVENTIONS)}")
    found = Derivation(values.copy(), marks=pd.Series("", index=values.index, dtype=object))
    if "architecture" not in found.values or found.values["architecture"].isna().all():
        found.values["architecture"] = "model"
        found.notes.append("architecture = 'model' in all rows: the file names none (set it with --architecture NAME)")
    elif (empty := found.values["architecture"].isna()).any():
        found.fill("architecture", pd.Series("model", index=found.values.index), "'model'")
    found.values["architecture"] = found.values["architecture"].astype(str).str.strip().str.lower()

    size, parts = found.column("num_params"), found.column("embedding_params") + found.column("other_params")
    found.fill("num_params", parts, "embedding_params + other_params")
    if size.isna().any() and "num_params" not in values and parts.isna().all() and "other_params" in values:
        found.fill("num_params", found.column("other_params"), "other_params (no count of the embedding)")
    shapes = _countable(found.values)
    if shapes.any() and found.column("num_params").isna().any():
        found.fill(
            "num_params", _from_shapes(found.values, shapes, lambda model, rows: num_params(model)), "count of shapes"
        )

    if "perplexity" in values:
        found.fill("val_loss", np.log(found.column("perplexity").where(lambda p: p > 0)), "ln(perplexity)")
    _tokens_and_flops(found, shapes, source, convention)
    for name in ("num_params", "num_tokens", "train_flops", "val_loss"):
        if name not in found.values:
            found.values[name] = None
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
        raise InputError(
            f"{source}: convention {chosen} needs context_length and {', '.join(SHAPE_COLUMNS)} in all rows"
        )

    def count(model: Any, rows: pd.DataFrame) -> Any:
        return count_train_flops(model, rows["context_length"].astype(float), rows["num_tokens"].astype(float), chosen)

    found.fill("train_flops", _from_shapes(found.values, by_shapes, count), f"count of shapes, convention {chosen}")


def _countable(values: pd.DataFrame) -> pd.Series:
    """Rows whose shapes are all there, of an architecture that we count."""
    if not set(SHAPE_COLUMNS) <= set(values.columns):
        return pd.Series(False, index=values.index)
    return values[list(SHAPE_COLUMNS)].notna().all(axis=1) & values["architecture"].isin(list(ARCHITECTURES))


def _from_shapes(values: pd.DataFrame, rows: pd.Series, count: Any) -> pd.Series:
    result = pd.Series(np.nan, index=values.index, dtype=object)
    for _, group in values[rows].groupby("architecture"):
        numbers = group.apply(lambda column: pd.to_numeric(column) if column.name != "architecture" else column)
        result[group.index] = np.asarray(count(models_of(numbers), numbers), dtype=object)
    return result
