"""A run table from what people have: other names, other units, split counts, missing compute.

`import_runs` reads a file (`companion.runs.import_.files`), finds the columns of a run table in it, converts units,
derives what follows from other columns, and says all of it: `Imported.mapping`, `.derived`, `.dropped`. What was
derived is also marked in every row, in the column `derived`.
"""

import difflib
import os
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.architectures import ARCHITECTURES
from companion.errors import InputError
from companion.runs.import_.columns import find_columns, is_numeric, listed, values_of
from companion.runs.import_.derive import Derivation, derive
from companion.runs.import_.files import read_records
from companion.runs.import_.values import plain_name
from companion.runs.load import COLUMNS, REQUIRED_COLUMNS, load_runs

#: Mappings of well-known sets of runs: column of a run table -> name, expression or constant in the file.
PRESETS: dict[str, dict[str, str]] = {
    # Stanford CS336, assignment 3: a JSON list of {parameters, compute_budget, final_loss}
    "cs336": {"num_params": "parameters", "isoflop_budget": "compute_budget", "val_loss": "final_loss"},
    # Gadre et al. (arXiv 2403.08540), exp_data/models: a folder of JSON files; the second result is C4
    "gadre": {
        "num_params": "hyperparameters.params",
        "num_tokens": "hyperparameters.tokens",
        "val_loss": "results.1.loss",
        "learning_rate": "hyperparameters.lr",
        "batch_size_seqs": "hyperparameters.global_bs",
    },
    # IsoFLOP points of several studies in one CSV (Open-Athena/scaling-law-analysis)
    "open-athena": {
        "architecture": "model",
        "num_params": "params",
        "num_tokens": "tokens",
        "isoflop_budget": "budget",
        "val_loss": "loss",
    },
    # Epoch AI's points of the Chinchilla figure (arXiv 2404.10102)
    "epoch-chinchilla": {"num_params": "N", "train_flops": "C", "val_loss": "loss"},
    # hadasah/scaling_laws
    "misfitting": {"num_params": "N", "num_tokens": "D", "train_flops": "C", "val_loss": "loss"},
}
#: Text columns with at most this many values are kept by default: they distinguish sets of runs.
MAX_LABELS = 20


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A run table and how it came about.

    `runs` is the table (one row a run, columns in the order of `companion.runs.COLUMNS`, then labels); `mapping` says
    for each column what it was read from; `derived` and `dropped` are sentences; `left_out` names columns of the file
    that are not in the table.
    """

    source: str
    runs: pd.DataFrame
    mapping: dict[str, str]
    derived: tuple[str, ...]
    dropped: tuple[str, ...]
    left_out: tuple[str, ...]

    def write(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the table as CSV, whole or not at all, after `load_runs` has accepted it; return the path.

        Raises
        ------
        InputError
            if the file exists and may not be overwritten, cannot be written, or the table is not a valid run table.
        """
        target = Path(path)
        check_target(target, overwrite)
        try:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
                part = Path(folder) / target.name
                self.runs.to_csv(part, index=False)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # labels are kept on purpose
                    try:
                        load_runs(part)
                    except InputError as error:
                        problem = str(error).removeprefix(f"{part}: ")
                        raise InputError(f"{self.source}: the imported table is not valid: {problem}") from None
                os.replace(part, target)
        except OSError as error:
            raise InputError(f"{target}: cannot be written: {error.strerror}") from None
        return target


def check_target(target: Path, overwrite: bool) -> None:
    """Raise an InputError unless a table can be written there."""
    if target.is_dir():
        raise InputError(f"{target}: is a folder")
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; give --force to overwrite it")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{target}: cannot be written: the folder is read-only")


def import_runs(
    path: str | os.PathLike[str],
    mapping: Mapping[str, str] | None = None,
    *,
    preset: str | None = None,
    architecture: str | None = None,
    convention: str | None = None,
    keep: Sequence[str] = (),
    file_format: str | None = None,
) -> Imported:
    """Read runs from a file of somebody's own making.

    Parameters
    ----------
    path
        CSV, TSV, JSON, JSON lines or Parquet; or a folder of JSON files, one run each.
    mapping
        column of a run table -> column of the file, or an expression of columns such as `emb + other`; names with
        spaces are in backquotes. Columns that are not named are found by their usual names.
    preset
        a mapping of `PRESETS`.
    architecture
        the architecture of all runs; by default the column for it, else `model`.
    convention
        how a missing train_flops is counted: `6ND` or a convention of `companion.accounting`, which needs shapes. By
        default from shapes if all are given, else 6ND.
    keep
        further columns of the file to keep as they are.
    file_format
        as in `companion.runs.import_.files.read_records`.

    Raises
    ------
    InputError
        one line that names the file, and the row, column or value at fault.
    """
    cells = read_records(path, file_format)
    source = os.fspath(path)
    given = dict(mapping or {})
    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f"preset {preset!r} is not known; there are {', '.join(PRESETS)}")
        # what a set has only in part (a learning rate, say) is taken where it is
        usual = {n: v for n, v in PRESETS[preset].items() if v in cells.columns or n in REQUIRED_COLUMNS}
        given = usual | given
    if architecture is not None:
        given.pop("architecture", None)
    sources = find_columns(cells, given, source, skip=() if architecture is None else ("architecture",))
    values = pd.DataFrame(index=cells.index)
    said = {}
    for target, name in sources.items():
        values[target], said[target] = values_of(cells, target, name, source)
    if architecture is not None:
        values["architecture"], said["architecture"] = architecture, f"{architecture!r}, as asked"
    found = derive(values, source, convention)
    table, dropped = _complete(found, source)
    labels = _labels(cells, set(sources.values()), keep, source)
    for name, label in labels.items():
        table[_safe_name(label)] = cells.loc[table.index, name]
    table, repeated = _without_repeats(table)
    left_out = [name for name in cells.columns if name not in {*sources.values(), *labels}]
    return Imported(
        source=source,
        runs=table,
        mapping=said,
        derived=tuple(found.notes),
        dropped=(*dropped, *repeated),
        left_out=tuple(name for name in left_out if not _mentioned(name, sources.values())),
    )


# ---- rows ----------------------------------------------------------------------------------------


def _complete(found: Derivation, source: str) -> tuple[pd.DataFrame, list[str]]:
    """Typed table of the rows that have all required values, and which rows have not."""
    values, notes = found.table.copy(), list[str]()
    for name in ("num_params", "num_tokens", "train_flops", "val_loss"):
        empty = values[name].isna()
        if empty.all():
            what = {"val_loss": "a final loss", "num_params": "a size", "num_tokens": "tokens"}.get(name, "compute")
            hint = f"name the column with --map {name}=NAME"
            if name == "num_params" and "d_model" in values:
                hint += f", or the architecture ({', '.join(ARCHITECTURES)}) to count it from shapes"
            raise InputError(f"{source}: {what} ({name}) is in no row: {hint}")
        if empty.any():
            notes.append(f"{_rows(values.index[empty])} without {name}")
            values = values[~empty]
    marks = found.marks.loc[values.index]
    table = pd.DataFrame(index=values.index)
    for name, spec in COLUMNS.items():
        if name == "derived" or name not in values.columns or values[name].isna().all():
            continue
        table[name] = _typed(values[name], name, spec.kind, source)
    if marks.astype(bool).any():
        table["derived"] = marks.where(marks != "", None)
    return table, notes


def _typed(column: pd.Series, name: str, kind: str, source: str) -> pd.Series:
    if kind == "text":
        return column.astype(str).where(column.notna(), None)
    if kind == "number":
        return column.astype(float)
    whole: list[int | None] = []
    for row, value in column.items():
        if pd.isna(value):
            whole.append(None)
            continue
        number = value if isinstance(value, int) else round(float(value))
        if name not in ("num_params", "num_tokens", "num_active_params") and abs(number - value) > 1e-6 * abs(value):
            raise InputError(f"{source}: row {row}, column {name!r}: {value} is not a whole number")
        if abs(number) >= 2**63:
            raise InputError(f"{source}: row {row}, column {name!r}: {value} is beyond 2^63")
        whole.append(number)
    complete = all(number is not None for number in whole)
    return pd.Series(whole, index=column.index, dtype=np.int64 if complete else object)


def _rows(index: Any) -> str:
    """`row 7`, or `3 rows (7, 9, 12)`."""
    listed = ", ".join(map(str, index[:5])) + (", ..." if len(index) > 5 else "")
    return f"row {listed}" if len(index) == 1 else f"{len(index)} rows ({listed})"


def _without_repeats(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    again = table.astype(str).duplicated()
    notes = [f"{_rows(table.index[again])} equal to an earlier one in every column"] if again.any() else []
    return table[~again].reset_index(drop=True), notes


def _labels(cells: pd.DataFrame, used: set[str], keep: Sequence[str], source: str) -> dict[str, str]:
    """Further columns to keep: those asked for, and text that distinguishes few sets of runs."""
    if missing := [name for name in keep if name not in cells.columns]:
        raise InputError(f"{source}: --keep {missing[0]}: no such column; there are {listed(cells)}")
    most = min(MAX_LABELS, len(cells) - 1)
    others = [name for name in cells.columns if name not in used]
    few = [name for name in others if not is_numeric(cells[name]) and 2 <= cells[name].nunique() <= most]
    return {name: name for name in others if name in few or name in keep}


def _safe_name(name: str) -> str:
    """A name that `--where` can use and that no check takes for a misspelled column."""
    plain = plain_name(name)
    near = difflib.get_close_matches(plain, list(COLUMNS), n=1, cutoff=0.8)
    return f"own_{plain}" if near or not plain.isidentifier() else plain


def _mentioned(name: str, sources: Any) -> bool:
    """Whether an expression of the mapping uses a column."""
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for text in sources if text != name)
