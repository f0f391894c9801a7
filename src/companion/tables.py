"""Reading a small CSV against a schema, with errors of one line.

Run tables have a reader of their own (`companion.runs`): they may be large, and say more about units.
"""

import csv
import os
import stat
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from companion.errors import InputError

#: Largest file that is read, bytes.
MAX_TABLE_BYTES = 64 * 2**20


def read_table(path: str | os.PathLike[str], schema: pa.DataFrameSchema) -> pd.DataFrame:
    """The rows of a CSV file (UTF-8, commas), with the schema's types and a fresh index.

    Columns that the schema does not have are kept as text. An empty cell is NaN where the schema allows it.

    Raises
    ------
    InputError
        one line that names the file, and the row (the header is row 1), column and value at fault.
    """
    source = os.fspath(path)
    frame = _cells(source)
    if missing := [name for name, column in schema.columns.items() if column.required and name not in frame]:
        there = ", ".join(map(str, frame.columns[:20]))
        raise InputError(f"{source}: column {', '.join(map(repr, missing))} is missing; there are {there}")
    for name, column in schema.columns.items():
        if name in frame and column.dtype is not None and str(column.dtype).startswith(("int", "float")):
            frame[name] = _numbers(frame[name], str(column.dtype).startswith("int"), source)
    try:
        return schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        raise InputError(f"{source}: {_first_fault(error.failure_cases)}") from None


def _cells(source: str) -> pd.DataFrame:
    """All cells as text, empty ones as None."""
    try:
        _check_file(source)
        with open(source, encoding="utf-8-sig", newline="") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file, strict=True), 1) if any(row)]
    except FileNotFoundError:
        raise InputError(f"{source}: no such file") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source}: not a CSV table in UTF-8: {error}") from None
    if not rows:
        raise InputError(f"{source}: the file is empty")
    names = [name.strip() for name in rows[0][1]]
    if len(set(names)) < len(names):
        raise InputError(f"{source}: row 1: a column stands there twice")
    if len(rows) == 1:
        raise InputError(f"{source}: has a header but no rows")
    for number, row in rows[1:]:
        if len(row) != len(names):
            raise InputError(f"{source}: row {number}: has {len(row)} cells, the header has {len(names)} columns")
    cells = [[cell.strip() or None for cell in row] for _, row in rows[1:]]
    return pd.DataFrame(cells, columns=names, index=[number for number, _ in rows[1:]], dtype=object)


def _check_file(source: str) -> None:
    """An InputError for what is no file of a table's size; a pipe or a device may never end."""
    if "\0" in source:
        raise InputError(f"{source!r}: is not the name of a file")
    status = os.stat(source)
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{source}: is a folder, not a CSV file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{source}: is not a regular file")
    if status.st_size > MAX_TABLE_BYTES:
        raise InputError(f"{source}: larger than {MAX_TABLE_BYTES // 2**20} MiB")


def _numbers(column: pd.Series, whole: bool, source: str) -> pd.Series:
    """A column of text as numbers; empty cells become NaN."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = (values.isna() & column.notna()) | ~np.isfinite(values.fillna(0))
    fault = "a number"
    if whole and not wrong.any():
        # beyond 2^53 float64 no longer tells whole numbers apart
        wrong = values.notna() & ((values != np.floor(values)) | (values.abs() > 2**53))
        fault = "a whole number of at most 2^53"
    if wrong.any():
        row: Any = wrong.idxmax()
        raise InputError(f"{source}: row {row}, column {column.name!r}: {column[row]!r} is not {fault}")
    return values.astype(int) if whole and values.notna().all() else values


def _first_fault(cases: pd.DataFrame) -> str:
    """The first failure in the order of the rows, in words."""
    case = cases.sort_values("index", kind="stable").iloc[0]
    words = {"not_nullable": "the cell is empty", "field_uniqueness": f"{case['failure_case']!r} stands there twice"}
    told = words.get(str(case["check"]), f"{case['failure_case']} {case['check']}")
    return f"row {case['index']}, column {case['column']!r}: {told}"
