"""Read and check a run table. The paper's runs and a reader's own go through the same functions.

A table has one row per training run and at least `architecture, num_params, num_tokens, train_flops, val_loss`
(`COLUMNS` describes all known columns, with units).
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
from typing import BinaryIO, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.formatting import plural, quoted
from companion.paths import data_dir
from companion.runs.cells import convert, convert_unknown
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
from companion.runs.where import where_mask
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
    "check_runs",
    "load_paper_runs",
    "load_runs",
    "summary",
    "where_mask",
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
    DataFrame
        with the file's columns in its order and a fresh index: num_params and num_tokens int64 (fractions are rounded,
        with a `RunTableWarning`); other whole numbers int64, or float64 with NaN where cells are empty; architecture in
        lower case. Unknown columns are kept: float64 if all their cells are numbers, else text. `attrs["source"]` holds
        the path, for messages. `companion.runs.findings.find_all` says what in a table that loads may change
        conclusions.

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
