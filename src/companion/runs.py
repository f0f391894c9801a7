"""Run tables: load, check, choose, describe. The paper's runs and a reader's own go through the same functions.

A table has one row per training run and at least `architecture, num_params, num_tokens, train_flops, val_loss`
(`COLUMNS` describes all known columns, with units). `load_runs` reads a CSV file, `subset` chooses rows,
`assign_budgets` derives the IsoFLOP budgets of a table that names none, `pareto_front` finds the runs that no other
run beats.
"""

import csv
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.paths import data_dir
from companion.runs_schema import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    OPTIONAL_SHAPE_COLUMNS,
    REQUIRED_COLUMNS,
    RUN_SCHEMA,
    SHAPE_COLUMNS,
    RunTableWarning,
    check_header,
    check_runs,
    convert,
    convert_unknown,
    show,
)
from companion.runs_where import table_name, where_mask

__all__ = [
    "COLUMNS",
    "MAX_FILE_BYTES",
    "OPTIONAL_COLUMNS",
    "OPTIONAL_SHAPE_COLUMNS",
    "REQUIRED_COLUMNS",
    "RUN_SCHEMA",
    "SHAPE_COLUMNS",
    "RunTableWarning",
    "assign_budgets",
    "check_runs",
    "load_paper_runs",
    "load_runs",
    "pareto_front",
    "subset",
    "summary",
    "where_mask",
]

MAX_FILE_BYTES = 256 * 2**20
"""Largest file that `load_runs` reads, bytes."""
_CHUNK_ROWS = 50_000
_SEPARATORS = ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars"))


# ---- loading -------------------------------------------------------------------------------------


def load_runs(path: str | os.PathLike[str], strict: bool = False) -> pd.DataFrame:
    """Read and check a run table.

    Parameters
    ----------
    path
        a comma-separated UTF-8 file (a byte-order mark is fine), header in its first row, at most `MAX_FILE_BYTES`.
    strict
        make unknown columns, and known ones without any value, an error instead of a `RunTableWarning`.

    Returns
    -------
    DataFrame with the file's columns in its order and a fresh index: num_params and num_tokens int64; other whole
    numbers int64, or float64 with NaN where cells are empty; architecture in lower case. Unknown columns are kept:
    float64 if all their cells are numbers, else text. `attrs["source"]` holds the path, for messages.

    Raises
    ------
    InputError
        one line that names the file, the row (as a spreadsheet numbers it: the header is row 1), column and value.
    """
    source = _one_line(path)
    with _open(path, source) as handle:
        records = _records(handle, source)
        header_row, fields = next(records, (0, []))
        if not fields:
            raise InputError(f"{source}: the file is empty")
        text = ",".join(fields)
        for separator, words in _SEPARATORS:
            if text.count(separator) >= len(fields):
                raise InputError(f"{source}: row {header_row}: columns are separated by {words}; save it with commas")
        names = [name.strip() for name in fields]
        check_header(names, source, header_row, strict)
        frame = _frame(records, names, source)
    empty = [name for name in names if name in COLUMNS and frame[name].isna().all()]
    if empty and strict:
        raise InputError(f"{source}: row {header_row}, column {show(empty[0])}: has no value in any row")
    if empty:
        warnings.warn(
            RunTableWarning(f"{source}: no value in any row: column {', '.join(map(show, empty))}"), stacklevel=2
        )
    checked = check_runs(frame, source).reset_index(drop=True)
    checked.attrs["source"] = source
    return checked


def load_paper_runs() -> pd.DataFrame:
    """The 640 runs of the paper (`data/runs.csv`; `data/README.md` says where every column comes from).

    Raises
    ------
    InputError
        if the project's data folder is not found.
    """
    return load_runs(data_dir() / "runs.csv")


def _one_line(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if text.isprintable() and text else repr(text)


def _open(path: str | os.PathLike[str], source: str) -> BinaryIO:
    """Open a regular file of an acceptable size for reading bytes."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{source}: is a folder, not a CSV file")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{source}: is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            size, limit = status.st_size / 2**20, MAX_FILE_BYTES / 2**20
            raise InputError(f"{source}: the file is too large: {size:.4g} MiB, the limit is {limit:g} MiB")
        return open(path, "rb")
    except FileNotFoundError:
        raise InputError(f"{source}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{source}: cannot be read: {reason}") from None


def _lines(handle: BinaryIO, source: str) -> Iterator[str]:
    for number, raw in enumerate(handle, start=1):
        if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{source}: row 1: the text is UTF-16; save it as UTF-8")
        if b"\0" in raw:
            raise InputError(f"{source}: row {number}: holds NUL bytes; this is a binary file, not CSV")
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            problem = f"byte 0x{raw[error.start]:02x} is not UTF-8; a binary file, or text to save as UTF-8"
            raise InputError(f"{source}: row {number}: {problem}") from None


def _records(handle: BinaryIO, source: str) -> Iterator[tuple[int, list[str]]]:
    """(row number, fields) of every row that is not blank."""
    reader = csv.reader(_lines(handle, source), strict=True)
    row = 0
    try:
        for row, fields in enumerate(reader, start=1):
            if fields and not (len(fields) == 1 and not fields[0].strip()):
                yield row, fields
    except csv.Error as error:
        reason = str(error)
        if "new-line character" in reason:
            reason = "lines end in a lone carriage return; save it with line feeds"
        elif "end of data" in reason:
            reason = "a quotation mark is never closed"
        raise InputError(f"{source}: row {row + 1}: is not CSV: {reason}") from None


def _frame(records: Iterator[tuple[int, list[str]]], names: Sequence[str], source: str) -> pd.DataFrame:
    """Typed table of all records, indexed by row number. Works in pieces, so that text never piles up."""
    rows: list[int] = []
    pieces: dict[str, list[pd.Series]] = {name: [] for name in names if name in COLUMNS}
    others: dict[str, list[str]] = {name: [] for name in names if name not in COLUMNS}
    while chunk := list(islice(records, _CHUNK_ROWS)):
        for row, fields in chunk:
            if len(fields) != len(names):
                raise InputError(f"{source}: row {row}: has {len(fields)} cells, the header has {len(names)} columns")
        here = [row for row, _ in chunk]
        for name, cells in zip(names, zip(*(fields for _, fields in chunk), strict=True), strict=True):
            if name in COLUMNS:
                pieces[name].append(convert(name, cells, here, source))
            else:
                others[name].extend(map(sys.intern, cells))
        rows.extend(here)
    if not rows:
        raise InputError(f"{source}: has a header but no runs")
    columns = {name: pd.concat(parts, ignore_index=True) for name, parts in pieces.items()}
    columns |= {name: convert_unknown(name, cells) for name, cells in others.items()}
    frame = pd.DataFrame({name: columns[name] for name in names})
    frame.index = pd.Index(rows)
    return frame


# ---- choosing rows -------------------------------------------------------------------------------


def subset(
    runs: pd.DataFrame,
    architecture: str | None = None,
    context_length: int | None = None,
    experiment: str | None = None,
    where: str | None = None,
    source: str | None = None,
) -> pd.DataFrame:
    """The runs that match all of what is given (None: any), as a copy with their index kept.

    Parameters
    ----------
    runs
        a run table (n, columns).
    architecture, context_length, experiment
        the value a run must have; context_length in tokens.
    where
        a condition on the columns, see `where_mask`.
    source
        what messages call the table; by default the file it was loaded from.

    Raises
    ------
    InputError
        if a column asked for is absent or nothing matches; the message lists what the table has.
    """
    label = table_name(runs, source)
    chosen = runs
    wanted: dict[str, Any] = {
        "architecture": architecture.strip().lower() if architecture is not None else None,
        "context_length": context_length,
        "experiment": experiment,
    }
    path: list[str] = []
    for column, value in wanted.items():
        if value is None:
            continue
        if column not in runs.columns:
            raise InputError(f"{label}: no column {column!r}, so runs with {column} {value} cannot be chosen")
        kept = chosen[chosen[column] == value]
        if kept.empty:
            there = ", ".join(_plain_values(chosen[column])) or "none"
            having = f" among those with {', '.join(path)}" if path else ""
            raise InputError(f"{label}: no runs with {column} {value}{having}; the table has {there}")
        path.append(f"{column} {value}")
        chosen = kept
    if where is not None:
        chosen = chosen[where_mask(chosen, where, label)]
        if chosen.empty:
            having = f" among those with {', '.join(path)}" if path else ""
            raise InputError(f"{label}: no runs where {show(where)}{having}")
    return chosen.copy()


def _plain_values(column: pd.Series) -> list[str]:
    values = sorted(column.dropna().unique().tolist())
    return [
        f"{value:g}" if isinstance(value, float) and not value.is_integer() else str(value) for value in values[:20]
    ]


# ---- what a table holds --------------------------------------------------------------------------


def assign_budgets(runs: pd.DataFrame, tolerance: float = 0.1, source: str | None = None) -> pd.DataFrame:
    """Give every run without an isoflop_budget the budget of the cluster of train_flops it belongs to.

    Within each architecture (and context_length, where known) runs are sorted by log10 train_flops; a gap above
    `tolerance` starts a new cluster, whose budget is the geometric mean of its train_flops, rounded to 2 significant
    digits. So the budgets of two architectures may read 6.0e18 and 6.1e18 where one number was meant. Budgets that the
    table names already stay as they are. If some runs are labelled `isoflop` in the column experiment, only those get a
    budget. Nothing calls this unasked.

    Parameters
    ----------
    tolerance
        gap in log10 of FLOP, > 0; 0.1 is 26 %.

    Returns
    -------
    A copy with the column isoflop_budget, float64, FLOP (NaN for runs outside the IsoFLOP experiment).

    Raises
    ------
    InputError
        if a cluster is wider than twice the tolerance: then the runs form no separate budgets.
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance {show(tolerance)}: must be a positive number (log10 of FLOP)")
    result = runs.copy()
    budgets = np.full(len(runs), np.nan)
    if "isoflop_budget" in runs.columns:
        budgets = runs["isoflop_budget"].to_numpy(np.float64, copy=True)
    todo = np.isnan(budgets)
    if "experiment" in runs.columns and (runs["experiment"] == "isoflop").any():
        todo &= (runs["experiment"] == "isoflop").to_numpy(bool)
    keys = [key for key in ("architecture", "context_length") if key in runs.columns]
    logs = np.log10(runs["train_flops"].to_numpy(np.float64))
    groups = runs.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    for group in np.unique(groups[todo]):
        at = np.flatnonzero(todo & (groups == group))
        at = at[np.argsort(logs[at], kind="stable")]
        for cluster in np.split(at, np.flatnonzero(np.diff(logs[at]) > tolerance) + 1):
            low, high = logs[cluster[0]], logs[cluster[-1]]
            if high - low > 2 * tolerance:
                name = " ".join(str(runs[key].iloc[cluster[0]]) for key in keys)
                raise InputError(
                    f"{table_name(runs, source)}: column 'train_flops': runs of {name} from {10**low:.3g} to "
                    f"{10**high:.3g} FLOP form no separate budgets (no gap above {tolerance:g} in log10); "
                    "name them in a column isoflop_budget"
                )
            budgets[cluster] = float(f"{10 ** logs[cluster].mean():.1e}")
    result["isoflop_budget"] = budgets
    return result


def summary(runs: pd.DataFrame) -> dict[str, Any]:
    """What a run table holds, as plain numbers, lists and dicts (ready for JSON).

    Returns
    -------
    dict with `num_runs`, `by_architecture`, `by_set` (architecture, experiment, context_length and their num_runs),
    ranges (`min`, `median`, `max`) of num_params, num_tokens, tokens_per_param, train_flops (FLOP) and val_loss (nats
    per token), `sum_train_flops`, `context_lengths` (tokens), `isoflop_budgets` (FLOP), `num_repeated_configurations`
    (runs that repeat architecture, context_length, num_params and num_tokens of an earlier one), and
    `num_runs_in_published_fits` (with multiplicity; None if that column is absent).
    """
    keys = [key for key in ("architecture", "experiment", "context_length") if key in runs.columns]
    sets = runs.groupby(keys, dropna=False).size().reset_index(name="num_runs")
    same = [key for key in ("architecture", "context_length", "num_params", "num_tokens") if key in runs.columns]
    counted = runs.get("multiplicity_in_published_fits")
    ratio = runs["num_tokens"] / runs["num_params"]
    result: dict[str, Any] = {
        "num_runs": len(runs),
        "by_architecture": {
            str(key): int(count) for key, count in runs["architecture"].value_counts().sort_index().items()
        },
        "by_set": [{key: _plain(value) for key, value in row.items()} for row in sets.to_dict("records")],
    }
    for name in ("num_params", "num_tokens", "train_flops", "val_loss"):
        result[name] = _range(runs[name])
    result["tokens_per_param"] = _range(ratio)
    result["sum_train_flops"] = float(runs["train_flops"].sum())
    for name, plural in (("context_length", "context_lengths"), ("isoflop_budget", "isoflop_budgets")):
        known = runs[name].dropna().unique().tolist() if name in runs.columns else []
        result[plural] = sorted(_plain(value) for value in known)
    result["num_repeated_configurations"] = int(runs.duplicated(same).sum())
    result["num_runs_in_published_fits"] = None if counted is None else int(counted.fillna(1).sum())
    return result


def _range(column: pd.Series) -> dict[str, Any]:
    return {"min": _plain(column.min()), "median": float(column.median()), "max": _plain(column.max())}


def _plain(value: Any) -> Any:
    """A NumPy scalar as a Python one, NaN as None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def pareto_front(train_flops: ArrayLike, loss: ArrayLike) -> NDArray[np.intp]:
    """Indices of the runs that no other run beats, by increasing train_flops.

    A run is beaten if another one needs no more compute and reaches no higher loss, and is better in at least one of
    the two. Runs that are equal in both do not beat each other. O(n log n).

    Parameters
    ----------
    train_flops, loss
        (n,) each, FLOP and nats per token, finite.

    Raises
    ------
    InputError
        if the shapes differ, are not (n,), or a value is not finite.
    """
    compute, height = np.asarray(train_flops, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if compute.ndim != 1 or compute.shape != height.shape:
        raise InputError(f"train_flops {compute.shape} and loss {height.shape}: both must have the same shape (n,)")
    if not (np.isfinite(compute).all() and np.isfinite(height).all()):
        raise InputError("train_flops and loss must be finite")
    order = np.lexsort((height, compute))
    if not len(order):
        return order
    compute, height = compute[order], height[order]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(height)[:-1]))
    fresh = np.concatenate(([True], (np.diff(compute) != 0) | (np.diff(height) != 0)))  # first of runs equal in both
    keep = (fresh & (height < best_before))[np.flatnonzero(fresh)][np.cumsum(fresh) - 1]
    return order[keep]
