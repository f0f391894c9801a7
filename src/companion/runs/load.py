"""Run tables: load, check, choose, describe. The paper's runs and a reader's own go through the same functions.

A table has one row per training run and at least `architecture, num_params, num_tokens, train_flops, val_loss`
(`COLUMNS` describes all known columns, with units). `load_runs` reads a CSV file, `subset` chooses rows,
`assign_budgets` derives the IsoFLOP budgets of a table that names none, `pareto_front` finds the runs that no other
run beats.
"""

import codecs
import csv
import gc
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO, TextIO

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.formatting import cut, plural, quoted
from companion.paths import data_dir
from companion.runs.cells import convert, convert_unknown
from companion.runs.groups import split_at_gaps
from companion.runs.header import check_header
from companion.runs.schema import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    OPTIONAL_SHAPE_COLUMNS,
    REQUIRED_COLUMNS,
    RUN_SCHEMA,
    SHAPE_COLUMNS,
    RunTableWarning,
    check_runs,
    check_with_notes,
)
from companion.runs.summary import summary
from companion.runs.where import table_name, where_mask, why_missing
from companion.tables import csv_fault, open_table, path_name, separator_fault, text_fault, unreadable

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
    "with_active_params",
]

MAX_FILE_BYTES = 256 * 2**20
"""Largest file that `load_runs` reads, bytes."""
_CHUNK_ROWS = 20_000
_BLOCK_BYTES = 2**20
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


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
    DataFrame with the file's columns in its order and a fresh index: num_params and num_tokens int64 (fractions are
    rounded, with a `RunTableWarning`); other whole numbers int64, or float64 with NaN where cells are empty;
    architecture in lower case. Unknown columns are kept: float64 if all their cells are numbers, else text.
    `attrs["source"]` holds the path, for messages. `companion.runs.findings.find_all` says what in a table that loads
    may change conclusions.

    Raises
    ------
    InputError
        one line that names the file, the row (as a spreadsheet numbers it: the header is row 1), column and value.

    Examples
    --------
    >>> len(load_runs("data/runs.csv"))
    640
    """
    frame, notes = read_runs(path, strict)
    for note in notes:
        warnings.warn(RunTableWarning(f"{frame.attrs['source']}: {note}"), stacklevel=2)
    return frame.reset_index(drop=True)


def load_paper_runs() -> pd.DataFrame:
    """The 640 runs of the paper (`data/runs.csv`; `data/README.md` says where every column comes from).

    Raises
    ------
    InputError
        if the project's data folder is not found.

    Examples
    --------
    >>> len(load_paper_runs())
    640
    """
    return load_runs(data_dir() / "runs.csv")


def read_runs(path: str | os.PathLike[str], strict: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """A checked run table whose index names the rows of the file, and the notes that `load_runs` warns of."""
    source = path_name(path)
    _check_encoding(path, source)
    with open_table(path, MAX_FILE_BYTES) as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="\n")
        chunks = _chunks(text, source)
        first = next(chunks, None)
        if first is None:
            raise InputError(f"{source}: the file is empty")
        rows, lines = first
        header_row, names = rows[0], [name.strip() for name in lines[0]]
        if fault := separator_fault(lines[0]):
            raise InputError(f"{source}: row {header_row}: {fault}")
        notes = check_header(names, source, header_row, strict, lines[1:1001])
        with _collector_paused():
            frame = _frame(chain([(rows[1:], lines[1:])], chunks), names, source)
    empty = [name for name in names if name in COLUMNS and frame[name].isna().all()]
    if empty and strict:
        raise InputError(f"{source}: row {header_row}, column {quoted(empty[0])}: has no value in any row")
    if empty:
        notes.append(f"no value in any row: column {', '.join(map(quoted, empty))}")
    checked, more = check_with_notes(frame, source)
    checked.attrs["source"] = source
    return checked, notes + more


def _check_encoding(path: str | os.PathLike[str], source: str) -> None:
    """Raise an InputError that names the row if the file is not text in UTF-8. Reads it once, at little cost."""
    try:
        with open_table(path, MAX_FILE_BYTES) as handle:
            if _is_text(handle):
                return
            handle.seek(0)
            for number, line in enumerate(handle, start=1):
                if fault := text_fault(line, number):
                    raise InputError(f"{source}: {fault}")
    except OSError as error:
        raise unreadable(source, error) from None


def _is_text(handle: BinaryIO) -> bool:
    """Whether the whole file is UTF-8 without NUL bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while block := handle.read(_BLOCK_BYTES):
            if b"\0" in block or (block.startswith(_UTF16_MARKS) and handle.tell() == len(block)):
                return False
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without the search for cycles: millions of lists of text hold none, and set it off again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _chunks(text: TextIO, source: str) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Row numbers and fields of all rows that are not blank, in pieces."""
    row = 0
    here: list[int] = []
    lines: list[list[str]] = []
    try:
        for row, fields in enumerate(csv.reader(text, strict=True), start=1):
            if len(fields) > 1 or (fields and fields[0].strip()):
                here.append(row)
                lines.append(fields)
                if len(lines) >= _CHUNK_ROWS:
                    yield here, lines
                    here, lines = [], []
    except csv.Error as error:
        raise InputError(f"{source}: row {row + 1}: {csv_fault(error)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{source}: changed while it was read") from None
    except OSError as error:
        raise unreadable(source, error) from None
    if lines:
        yield here, lines


def _frame(chunks: Iterable[tuple[list[int], list[list[str]]]], names: Sequence[str], source: str) -> pd.DataFrame:
    """Typed table of all rows, indexed by row number. Works in pieces, so that text never piles up."""
    rows: list[NDArray[np.int64]] = []
    pieces: dict[str, list[pd.Series]] = {name: [] for name in names if name in COLUMNS}
    others: dict[str, list[str]] = {name: [] for name in names if name not in COLUMNS}
    for here, lines in chunks:
        if set(map(len, lines)) - {len(names)}:
            row, line = next((row, line) for row, line in zip(here, lines, strict=True) if len(line) != len(names))
            has, should = plural(len(line), "cell"), plural(len(names), "column")
            hint = "; a comma inside a number or text without quotes?" if len(line) > len(names) else ""
            raise InputError(f"{source}: row {row}: has {has}, the header has {should}{hint}")
        for name, cells in zip(names, zip(*lines, strict=True), strict=False):
            if name in COLUMNS:
                pieces[name].append(convert(name, cells, here, source))
            else:
                others[name].extend(map(sys.intern, cells))
        rows.append(np.array(here, dtype=np.int64))
    if not sum(map(len, rows)):
        raise InputError(f"{source}: has a header but no runs")
    columns = {name: pd.concat(parts, ignore_index=True) for name, parts in pieces.items()}
    columns |= {name: convert_unknown(name, others.pop(name)) for name in list(others)}
    frame = pd.DataFrame({name: columns[name] for name in names})
    frame.index = pd.Index(np.concatenate(rows))
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

    Examples
    --------
    >>> len(subset(load_paper_runs(), "xlstm", where="num_params >= 1e9"))
    79
    """
    label = table_name(runs, source)
    keep = np.ones(len(runs), dtype=bool)
    asked: dict[str, Any] = {
        "architecture": architecture.strip().lower() if architecture is not None else None,
        "context_length": context_length,
        "experiment": experiment,
    }
    path: list[str] = []
    for column, value in asked.items():
        if value is None:
            continue
        if problem := why_missing(runs, column):
            raise InputError(f"{label}: {problem}, so runs with {column} {value} cannot be chosen")
        kept = keep & (runs[column] == value).to_numpy(bool)
        having = f" among those with {', '.join(path)}" if path else ""
        if not kept.any():
            there = _plain_values(runs.loc[keep, column])
            there = f"the table has {there}" if there else f"their {column} is empty"
            raise InputError(f"{label}: no runs with {column} {value}{having}; {there}")
        path.append(f"{column} {value}")
        keep = kept
    if where is not None:
        keep = keep & where_mask(runs, where, label)  # over all runs: a column that is empty in some is not empty
        if not keep.any():
            having = f" among those with {', '.join(path)}" if path else ""
            raise InputError(f"{label}: no runs where {quoted(where)}{having}")
    return runs[keep].copy()


def _plain_values(column: pd.Series) -> str:
    """The values of a column in order, at most 20 of them."""
    values = sorted(column.dropna().unique().tolist())
    named = [f"{value:.15g}" if isinstance(value, float) else cut(str(value)) for value in values[:20]]
    return ", ".join(named) + (f" and {len(values) - 20} more" if len(values) > 20 else "")


# ---- what a table holds --------------------------------------------------------------------------


def assign_budgets(runs: pd.DataFrame, tolerance: float = 0.1, source: str | None = None) -> pd.DataFrame:
    """Give every run without an isoflop_budget the budget of the cluster of train_flops it belongs to.

    Within each architecture (and context_length, where known) runs are sorted by log10 train_flops; a gap above
    `tolerance` starts a new cluster, whose budget is the geometric mean of its train_flops, rounded to 2 significant
    digits. So the budgets of two architectures may read 6.0e18 and 6.1e18 where one number was meant. Budgets that the
    table names already stay as they are. If some runs are labeled `isoflop` in the column experiment, only those get a
    budget. No other function calls this.

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

    Examples
    --------
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop").drop(columns="isoflop_budget")
    >>> assign_budgets(runs)["isoflop_budget"].nunique()
    5
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance {quoted(tolerance)}: must be a positive number (log10 of FLOP)")
    result = runs.copy()
    budgets = np.full(len(runs), np.nan)
    if "isoflop_budget" in runs.columns:
        budgets = runs["isoflop_budget"].to_numpy(np.float64, copy=True)
    todo = np.isnan(budgets)
    if "experiment" in runs.columns and (runs["experiment"] == "isoflop").any():
        todo &= (runs["experiment"] == "isoflop").to_numpy(bool)
    keys = [key for key in ("architecture", "context_length") if key in runs.columns and runs[key].notna().any()]
    logs = np.log10(runs["train_flops"].to_numpy(np.float64))
    groups = runs.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    for group in np.unique(groups[todo]):
        at = np.flatnonzero(todo & (groups == group))
        for cluster in (at[part] for part in split_at_gaps(logs[at], tolerance)):
            low, high = logs[cluster[0]], logs[cluster[-1]]
            if high - low > 2 * tolerance:
                raise InputError(_no_budgets(runs, cluster, keys, tolerance, table_name(runs, source)))
            budgets[cluster] = float(f"{10 ** logs[cluster].mean():.1e}")
    result["isoflop_budget"] = budgets
    return result


def _no_budgets(
    runs: pd.DataFrame, cluster: NDArray[np.intp], keys: Sequence[str], tolerance: float, label: str
) -> str:
    """Why a cluster of runs is not a budget, and what to do."""
    first = runs.iloc[cluster[0]]
    of = " ".join(str(first[key]) if key == "architecture" else f"T = {first[key]:g}" for key in keys)
    flops = runs["train_flops"].iloc[cluster]
    return (
        f"{label}: column 'train_flops': {plural(len(cluster), 'run')} of {of} from {flops.min():.3g} to "
        f"{flops.max():.3g} FLOP form no separate budgets (no gap above {tolerance:g} in log10); "
        "name them in a column isoflop_budget"
    )


def with_active_params(runs: pd.DataFrame, source: str | None = None) -> pd.DataFrame:
    """A copy in which num_params is num_active_params: the N of a mixture of experts that one token uses.

    Runs without a value keep num_params (a dense model uses all of its parameters for every token).

    Raises
    ------
    InputError
        if the table has no num_active_params.

    Examples
    --------
    >>> sparse = load_paper_runs().assign(num_active_params=10**8)
    >>> int(with_active_params(sparse)["num_params"].max())
    100000000
    """
    if problem := why_missing(runs, "num_active_params"):
        raise InputError(f"{table_name(runs, source)}: {problem}")
    active = runs["num_active_params"].fillna(runs["num_params"]).astype(np.int64)
    return runs.assign(num_params=active)


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

    Examples
    --------
    >>> pareto_front([1e18, 2e18, 3e18], [3.0, 3.1, 2.9]).tolist()
    [0, 2]
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
