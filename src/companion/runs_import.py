"""A run table from what people have: other names, other units, split counts, missing compute.

`import_runs` reads a file (`companion.runs_import_files`), finds the columns of a run table in it, converts units,
derives what follows from other columns, and says all of it: `Imported.mapping`, `.derived`, `.dropped`. What was
derived is also marked in every row, in the column `derived`.
"""

import ast
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

from companion.errors import InputError
from companion.runs import COLUMNS, REQUIRED_COLUMNS, load_runs
from companion.runs_import_derive import Derivation, derive
from companion.runs_import_files import KEY, read_records
from companion.runs_import_values import ALIASES, PARTS, header_unit, plain_name, read_number

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
#: Text columns with at most this many values are kept unasked: they tell sets of runs apart.
MAX_LABELS = 20
_NO_VALUE = {"nan", "null", "none", "na", "n/a", "#n/a", "-", "--", "?"}
_DIVERGED = {"inf", "+inf", "infinity", "-inf", "diverged", "div"}
_TARGETS = (*COLUMNS, *PARTS)
_NAMED = tuple(name for name in ALIASES if name in COLUMNS)


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
        spaces stand in backquotes. Columns that are not named are found by their usual names.
    preset
        a mapping of `PRESETS`.
    architecture
        the architecture of all runs; by default the column for it, else `model`.
    convention
        how a missing train_flops is counted: `6ND` or a convention of `companion.accounting`, which needs shapes. By
        default from shapes where all are there, else 6ND.
    keep
        further columns of the file to keep as they are.
    file_format
        as in `companion.runs_import_files.read_records`.

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
    sources = _find_columns(cells, given, source, skip=() if architecture is None else ("architecture",))
    values = pd.DataFrame(index=cells.index)
    said = {}
    for target, name in sources.items():
        values[target], said[target] = _values(cells, target, name, source)
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


# ---- which column is what ------------------------------------------------------------------------


def _find_columns(cells: pd.DataFrame, given: Mapping[str, str], source: str, skip: Sequence[str]) -> dict[str, str]:
    """Column of a run table -> column or expression of the file, in the order of the schema."""
    if unknown := [name for name in given if name not in _TARGETS]:
        raise InputError(f"--map {unknown[0]}=...: {unknown[0]!r} is no column of a run table ({', '.join(_TARGETS)})")
    found = dict(given)
    taken = set(given.values())
    for target in (*_NAMED, *PARTS):
        if target in found or target in skip:
            continue
        candidates = [name for name in _candidates(cells, target) if name not in taken]
        if not candidates:
            continue
        if len(candidates) > 1 and target == "val_loss":
            listed = ", ".join(candidates[:6]) + (" ..." if len(candidates) > 6 else "")
            raise InputError(f"{source}: several columns may be the loss ({listed}): choose with --map val_loss=NAME")
        if len(candidates) == 1:
            found[target] = candidates[0]
            taken.add(candidates[0])
    for name in COLUMNS:
        if name in cells.columns and name not in found and name not in skip and name not in taken:
            found[name] = name
    if "isoflop_budget" not in found and KEY in cells.columns and KEY not in taken and _budgets(cells[KEY]):
        found["isoflop_budget"] = KEY
    return {name: found[name] for name in _TARGETS if name in found}


def _candidates(cells: pd.DataFrame, target: str) -> list[str]:
    """Columns that have a usual name of the target and hold values that fit, the best kind of name only."""
    text = target in ("architecture", "experiment", "source")
    for ending in (False, True):  # whole names before the last part of nested ones
        plain = {name: plain_name(re.split(r"[./]", name)[-1] if ending else name) for name in cells.columns}
        for alias in {**ALIASES, **PARTS}[target]:
            if ending and len(alias) == 1:
                continue
            named = [name for name, short in plain.items() if short == alias]
            if alias == "model":
                named = [name for name in named if _names_families(cells[name])]
            fitting = [name for name in named if text or _numeric(cells[name])]
            if fitting:
                return fitting
    return []


def _numeric(column: pd.Series) -> bool:
    """Whether all cells are numbers, flags, or empty, and one is not empty."""
    filled = [text for text in column if text is not None and text.lower() not in _NO_VALUE | _DIVERGED]
    if not filled:
        return False
    try:
        for text in filled:
            if text.lower() not in ("true", "false"):
                read_number(text, True)
    except InputError:
        return False
    return True


def _names_families(column: pd.Series) -> bool:
    """Whether a column `model` holds architectures rather than sizes such as 160m or single runs."""
    names = [str(text) for text in column.dropna()]
    return len(set(names)) < max(2, len(names)) and not any(re.search(r"\d+[kmbKMB]\b", name) for name in names)


def _budgets(column: pd.Series) -> bool:
    """Whether keys are FLOPs: numbers so large that they count nothing else."""
    return _numeric(column) and all(text is not None and read_number(text).value > 1e12 for text in column)


# ---- cells to values -----------------------------------------------------------------------------


def _values(cells: pd.DataFrame, target: str, name: str, source: str) -> tuple[pd.Series, str]:
    """Values of one column of a run table, and in words what they were read from."""
    spec = COLUMNS.get(target)
    if spec is not None and spec.kind == "text":
        if name not in cells.columns:
            raise InputError(f"{source}: no column {name!r}; there are {_listed(cells)}")
        return cells[name].astype(object), f"column {name!r}"
    if name not in cells.columns:
        return _expression(cells, name, source), f"{name}"
    header = header_unit(name)
    unit_seen = False
    numbers: list[float | int | None] = []
    for row, text in cells[name].items():
        if text is None or text.lower() in _NO_VALUE | _DIVERGED:
            numbers.append(None)
            continue
        if text.lower() in ("true", "false"):
            numbers.append(int(text.lower() == "true"))
            continue
        try:
            number = read_number(text, bool(cells.attrs.get("decimal_comma")))
        except InputError as error:
            raise InputError(f"{source}: row {row}, column {name!r}: {error}") from None
        unit_seen |= number.with_unit
        numbers.append(number.value if number.with_unit or header is None else number.value * header)
    said = f"column {name!r}"
    if header is not None:
        said += f", times {header:g} as its name says"
    elif unit_seen:
        said += ", with the units in its cells"
    return pd.Series(numbers, index=cells.index, dtype=object), said


def _expression(cells: pd.DataFrame, text: str, source: str) -> pd.Series:
    """An arithmetic expression of columns and numbers, never executed: parsed and walked."""
    names: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        names[f"_quoted_{len(names)}"] = match[1]
        return f"_quoted_{len(names) - 1}"

    def refuse(problem: str) -> InputError:
        return InputError(f"{source}: --map ...={text}: {problem}")

    def column(name: str) -> Any:
        if name not in cells.columns:
            raise refuse(f"no column {name!r}; there are {_listed(cells)}")
        values = [
            np.nan if cell is None or cell.lower() in _NO_VALUE | _DIVERGED
            else float(read_number(cell, bool(cells.attrs.get("decimal_comma"))).value)
            for cell in cells[name]
        ]  # fmt: skip
        return np.array(values) * (header_unit(name) or 1.0)

    def evaluate(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as value):
                return float(value)
            case ast.Name(id=name):
                return column(names.get(name, name))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -evaluate(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                with np.errstate(all="ignore"):
                    return _ARITHMETIC[type(op)](evaluate(left), evaluate(right))
        raise refuse("write columns and numbers with + - * / and parentheses; backquotes around other names")

    quoted = re.sub(r"`([^`]+)`", stand_in, text)
    try:
        values = evaluate(ast.parse(quoted.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError):
        raise refuse(f"is neither a column nor an expression; there are {_listed(cells)}") from None
    filled = pd.Series(values, index=cells.index).astype(float)
    return filled.astype(object).where(np.isfinite(filled), None)


_ARITHMETIC = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide}


def _listed(cells: pd.DataFrame) -> str:
    names = list(map(str, cells.columns))
    return ", ".join(names[:25]) + (f" and {len(names) - 25} more" if len(names) > 25 else "")


# ---- rows ----------------------------------------------------------------------------------------


def _complete(found: Derivation, source: str) -> tuple[pd.DataFrame, list[str]]:
    """Typed table of the rows that have all required values, and which rows have not."""
    values, notes = found.table.copy(), list[str]()
    for name in ("num_params", "num_tokens", "train_flops", "val_loss"):
        empty = values[name].isna()
        if empty.all():
            what = {"val_loss": "a final loss", "num_params": "a size", "num_tokens": "tokens"}.get(name, "compute")
            raise InputError(f"{source}: {what} ({name}) is in no row: name the column with --map {name}=NAME")
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
    """Further columns to keep: those asked for, and text that tells few sets of runs apart."""
    if missing := [name for name in keep if name not in cells.columns]:
        raise InputError(f"{source}: --keep {missing[0]}: no such column; there are {_listed(cells)}")
    most = min(MAX_LABELS, len(cells) - 1)
    others = [name for name in cells.columns if name not in used]
    few = [name for name in others if not _numeric(cells[name]) and 2 <= cells[name].nunique() <= most]
    return {name: name for name in others if name in few or name in keep}


def _safe_name(name: str) -> str:
    """A name that `--where` can use and that no check takes for a misspelt column."""
    plain = plain_name(name)
    near = difflib.get_close_matches(plain, list(COLUMNS), n=1, cutoff=0.8)
    return f"own_{plain}" if near or not plain.isidentifier() else plain


def _mentioned(name: str, sources: Any) -> bool:
    """Whether an expression of the mapping uses a column."""
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for text in sources if text != name)
