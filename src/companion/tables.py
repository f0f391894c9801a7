"""Reading a small CSV against a schema, with errors of one line.

Run tables have a reader of their own (`companion.runs.load`): they may be large, and say more about units.
"""

import csv
import os
import stat
import zlib
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pandera.pandas as pa

from companion.errors import InputError
from companion.formatting import cut, plural, quoted

#: Largest file that is read, bytes.
MAX_TABLE_BYTES = 64 * 2**20
_SEPARATORS = ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars"))


def read_table(path: str | os.PathLike[str], schema: pa.DataFrameSchema) -> pd.DataFrame:
    """The rows of a CSV file (UTF-8, commas; plain or compressed with gzip), with the schema's types and a fresh index.

    Columns that the schema does not have are kept as text. An empty cell is NaN where the schema allows it.

    Raises
    ------
    InputError
        one line that names the file, and the row (the header is row 1), column and value at fault.
    """
    source = path_name(path)
    frame = _cells(path, source)
    if missing := [name for name, column in schema.columns.items() if column.required and name not in frame]:
        there = cut(", ".join(map(str, frame.columns[:20])), 400)
        raise InputError(f"{source}: column {', '.join(map(quoted, missing))} is missing; the table has {there}")
    for name, column in schema.columns.items():
        if name in frame and column.dtype is not None and str(column.dtype).startswith(("int", "float")):
            frame[name] = _numbers(frame[name], str(column.dtype).startswith("int"), source)
    try:
        return schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        raise InputError(f"{source}: {_first_fault(error.failure_cases)}") from None


def open_table(path: str | os.PathLike[str], limit: int) -> BinaryIO:
    """A regular file of at most `limit` bytes, open for reading bytes.

    Raises
    ------
    InputError
        if the path is a folder, a pipe, a device, missing, too large or not readable: one line that begins with it.
    """
    source = path_name(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{source}: is a folder, not a CSV file")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{source}: is not a regular file")
        if status.st_size > limit:
            size = f"{status.st_size / 2**20:.4g} MiB, the limit is {limit / 2**20:g} MiB"
            raise InputError(f"{source}: the file is too large: {size}")
        return open(path, "rb")
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(source, error) from None


def unreadable(source: str, error: OSError | ValueError) -> InputError:
    """What to raise for an error of the operating system, while a file is opened or read."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{source}: no such file")
    reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
    return InputError(f"{source}: cannot be read: {reason}")


def path_name(path: str | os.PathLike[str]) -> str:
    """A path as messages print it, on one line."""
    text = os.fspath(path)
    return text if text.isprintable() and text else repr(text)


def text_fault(raw: bytes, number: int) -> str:
    """Why a line of a file, number from 1, is not text in UTF-8; empty if it is."""
    if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "row 1: the text is UTF-16; save it as UTF-8"
    if b"\0" in raw:
        return f"row {number}: holds NUL bytes; this is a binary file, or UTF-16 text, not CSV in UTF-8"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte 0x{raw[error.start]:02x} is not UTF-8; a binary file, or text to save as UTF-8"
        return f"row {number}: {problem}"
    return ""


def csv_fault(error: csv.Error) -> str:
    """What is wrong with text that the csv module cannot read."""
    reason = str(error)
    if "new-line character" in reason:
        reason = "lines end in a lone carriage return; save it with line feeds"
    elif "end of data" in reason:
        reason = "a quotation mark is never closed"
    elif "field limit" in reason:
        reason = f"{reason} characters; is a quotation mark never closed?"
    return f"is not CSV: {reason}"


def json_fault(error: ValueError | RecursionError) -> str:
    """What is wrong with text that the json module cannot read."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(getattr(error, "msg", "a whole number has more digits than Python reads"))


def separator_fault(fields: list[str]) -> str:
    """How a header that was split at commas is separated in truth; empty if by commas."""
    text = ",".join(fields)
    for separator, words in _SEPARATORS:
        if text.count(separator) >= len(fields):
            return f"columns are separated by {words}; save it with commas"
    return ""


def unpacked(data: bytes, source: str, limit: int = MAX_TABLE_BYTES) -> bytes:
    """The bytes of a file, those of a file compressed with gzip unpacked.

    Raises
    ------
    InputError
        if it is damaged, cut off or, unpacked, larger than `limit` bytes: one line that begins with `source`.
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise InputError(f"{source}: the compressed file is damaged: {error}") from None
    if len(plain) > limit:
        raise InputError(f"{source}: the unpacked file is too large: the limit is {limit / 2**20:g} MiB")
    if not unpacker.eof:
        raise InputError(f"{source}: the compressed file is cut off after {len(plain):,} bytes of its content")
    return plain


def _cells(path: str | os.PathLike[str], source: str) -> pd.DataFrame:
    """All cells as text, empty ones as None."""
    row = 0
    try:
        with open_table(path, MAX_TABLE_BYTES) as file:
            lines = unpacked(file.read(), source).split(b"\n")
        for number, line in enumerate(lines, 1):
            if fault := text_fault(line, number):
                raise InputError(f"{source}: {fault}")
        texts = [line.decode("utf-8-sig" if number == 0 else "utf-8") + "\n" for number, line in enumerate(lines)]
        rows = []
        for row, fields in enumerate(csv.reader(texts, strict=True), 1):
            if any(field.strip() for field in fields):
                rows.append((row, fields))
    except OSError as error:
        raise unreadable(source, error) from None
    except csv.Error as error:
        raise InputError(f"{source}: row {row + 1}: {csv_fault(error)}") from None
    if not rows:
        raise InputError(f"{source}: the file is empty")
    names = [name.strip() for name in rows[0][1]]
    if fault := separator_fault(names):
        raise InputError(f"{source}: row {rows[0][0]}: {fault}")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"{source}: row {rows[0][0]}, column {quoted(name)}: appears twice")
    if len(rows) == 1:
        raise InputError(f"{source}: has a header but no rows")
    for number, fields in rows[1:]:
        if len(fields) != len(names):
            has, should = plural(len(fields), "cell"), plural(len(names), "column")
            raise InputError(f"{source}: row {number}: has {has}, the header has {should}")
    cells = [[cell.strip() or None for cell in fields] for _, fields in rows[1:]]
    return pd.DataFrame(cells, columns=names, index=[number for number, _ in rows[1:]], dtype=object)


def _numbers(column: pd.Series, whole: bool, source: str) -> pd.Series:
    """A column of text as numbers; empty cells become NaN."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = (values.isna() & column.notna()) | ~np.isfinite(values.fillna(0))
    fault = "a number"
    if whole and not wrong.any():
        # beyond 2^53 float64 no longer distinguishes whole numbers
        wrong = values.notna() & ((values != np.floor(values)) | (values.abs() > 2**53))
        fault = "a whole number of at most 2^53"
    if wrong.any():
        row: Any = wrong.idxmax()
        raise InputError(f"{source}: row {row}, column {column.name!r}: {quoted(column[row])} is not {fault}")
    return values.astype(int) if whole and values.notna().all() else values


def _first_fault(cases: pd.DataFrame) -> str:
    """The first failure in the order of the rows, in words."""
    case = cases.sort_values("index", kind="stable").iloc[0]
    check, value = str(case["check"]), case["failure_case"]
    words = {"not_nullable": "the cell is empty", "field_uniqueness": f"{quoted(value)} appears twice"}
    place = f"row {case['index']}, " if pd.notna(case["index"]) else ""
    return f"{place}column {quoted(case['column'])}: {words.get(check, f'{value} {check}')}"
