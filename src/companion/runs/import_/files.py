"""Records of training runs as people have them: CSV, TSV, JSON, JSON lines, Parquet, read as text cells.

Nested objects become names with dots (`config.model.d_model`, `results.0.loss`). Nothing is converted here: a cell
keeps its text, so that `412M` and `3e18 FLOP` reach `companion.runs.import_.values`.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from companion.errors import InputError
from companion.runs.load import MAX_FILE_BYTES
from companion.tables import json_fault, open_table, path_name, unreadable

#: Formats by the ending of a file's name.
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
#: Name of the column that holds the keys of an object of objects or lists: a budget, or the name of a run.
KEY = "key"
_SEPARATORS = (",", "\t", ";", "|")
#: Elements of a list that become columns of their own; longer lists (curves, arguments) stay one cell.
_LONGEST_LIST = 20


def read_records(path: str | os.PathLike[str], file_format: str | None = None) -> pd.DataFrame:
    """Cells of a file of runs as text, one row a run; an empty cell is None.

    Parameters
    ----------
    path
        a file, or a folder of JSON files with one run each.
    file_format
        `csv`, `tsv`, `json`, `jsonl` or `parquet`; by default what the file's name says.

    Returns
    -------
    DataFrame
        of text with the row numbers of the file (a CSV's header is row 1) as index. `attrs["decimal_comma"]` says
        whether numbers are written as 1,5.

    Raises
    ------
    InputError
        one line that names the file, and the row where there is one.
    """
    source = Path(path)
    if source.is_dir():
        return _folder(source)
    chosen = file_format or FORMATS.get(source.suffix.lower())
    if chosen is None:
        raise InputError(f"{source}: format {source.suffix or 'without an ending'} is not known; give --format")
    if chosen == "parquet":
        return _parquet(source)
    text = _text(source)
    if chosen in ("csv", "tsv"):
        return _separated(text, source, "\t" if chosen == "tsv" else None)
    return _frame(_json_lines(text, source) if chosen == "jsonl" else _json(text, source), source)


def _bytes(source: Path) -> bytes:
    try:
        with open_table(source, MAX_FILE_BYTES) as file:
            return file.read()
    except OSError as error:
        raise unreadable(path_name(source), error) from None


def _text(source: Path) -> str:
    try:
        text = _bytes(source).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: byte {error.start} is not UTF-8; save it as UTF-8 text") from None
    if not text.strip():
        raise InputError(f"{source}: the file is empty")
    if "\0" in text:
        raise InputError(f"{source}: holds NUL bytes; this is a binary file")
    return text


def _separated(text: str, source: Path, separator: str | None) -> pd.DataFrame:
    header = text.lstrip("\r\n").splitlines()[0]
    chosen = separator or max(_SEPARATORS, key=header.count)
    try:
        rows = [
            (number, [cell.strip() for cell in row])
            for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=chosen, strict=True), 1)
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise InputError(f"{source}: is not a table of separated values: {error}") from None
    names = rows[0][1]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source}: row {rows[0][0]}: column {twice!r} appears twice")
    for number, row in rows[1:]:
        if len(row) != len(names):
            raise InputError(f"{source}: row {number}: has {len(row)} cells, the header has {len(names)} columns")
    if len(rows) == 1:
        raise InputError(f"{source}: has a header but no runs")
    # a row index that pandas wrote along has no name: it holds nothing
    columns = [name or f"unnamed_{place}" for place, name in enumerate(names, 1)]
    cells = [[cell or None for cell in row] for _, row in rows[1:]]
    frame = pd.DataFrame(cells, columns=columns, index=[number for number, _ in rows[1:]], dtype=object)
    frame.attrs["decimal_comma"] = chosen != ","
    return frame


# ---- JSON ----------------------------------------------------------------------------------------


def _json(text: str, source: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line under the name .json
            return _json_lines(text, source)
        raise InputError(f"{source}: is not JSON: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: is not JSON of runs: {json_fault(error)}") from None
    return list(_runs_in(value, source))


def _json_lines(text: str, source: Path) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source}: row {number}: is not JSON: {json_fault(error)}") from None
        if not isinstance(value, dict):
            raise InputError(f"{source}: row {number}: is not an object with the figures of a run")
        found.append(value)
    return found


def _runs_in(value: Any, source: Path) -> Iterator[dict[str, Any]]:
    """The runs of a JSON value: a list of objects, columns as lists, or either of these under keys."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        yield from value
        return
    if isinstance(value, dict) and value:
        entries = list(value.values())
        if all(isinstance(entry, dict) for entry in entries):  # a run, or columns, under every key
            for key, entry in value.items():
                yield from ({KEY: key, **run} for run in _runs_of_key(entry, source))
            return
        if all(isinstance(entry, list) for entry in entries):
            if all(isinstance(run, dict) for entry in entries for run in entry):  # runs of every budget
                yield from ({KEY: key, **run} for key, entry in value.items() for run in entry)
                return
            if len({len(entry) for entry in entries}) == 1:  # columns
                yield from (dict(zip(value, row, strict=True)) for row in zip(*entries, strict=True))
                return
        inner = [entry for entry in entries if isinstance(entry, list | dict) and _holds_runs(entry)]
        if len(inner) == 1:  # the runs beside a version, a date, ...
            yield from _runs_in(inner[0], source)
            return
        if any(isinstance(entry, int | float) for entry in entries):
            yield value
            return
    raise InputError(f"{source}: holds no runs: a list of objects is needed, or lists or objects of runs under keys")


def _runs_of_key(entry: dict[str, Any], source: Path) -> list[dict[str, Any]]:
    nested = list(entry.values())
    columns = nested and all(isinstance(value, list) for value in nested) and len({len(v) for v in nested}) == 1
    return list(_runs_in(entry, source)) if columns else [entry]


def _holds_runs(value: Any) -> bool:
    entries = list(value.values()) if isinstance(value, dict) else value
    return bool(entries) and all(isinstance(entry, dict | list) for entry in entries)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _flat(entry, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list) and len(value) <= _LONGEST_LIST and any(isinstance(v, dict | list) for v in value):
        for place, entry in enumerate(value):
            yield from _flat(entry, f"{prefix}.{place}" if prefix else str(place))
    elif not isinstance(value, list):
        yield prefix, value


def _frame(records: Iterable[dict[str, Any]], source: Path) -> pd.DataFrame:
    rows = [{name: _cell(value) for name, value in _flat(record)} for record in records]
    if not rows:
        raise InputError(f"{source}: holds no runs")
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name) for name in names] for row in rows]
    frame = pd.DataFrame(cells, columns=names, index=range(1, len(rows) + 1), dtype=object)
    frame.attrs["decimal_comma"] = False
    return frame


def _cell(value: Any) -> str | None:
    """A value as text; nothing for null, NaN and empty text."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    text = str(value).strip()
    return text or None


# ---- other containers ----------------------------------------------------------------------------


def _parquet(source: Path) -> pd.DataFrame:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{source}: Parquet needs pyarrow (pip install pyarrow)") from None
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(_bytes(source)))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{source}: is not a Parquet table: {' '.join(str(error).split())[:200]}") from None
    return _frame(table.to_pylist(), source)


def _folder(source: Path) -> pd.DataFrame:
    files = sorted(path for path in source.glob("*.json") if path.is_file())
    if not files:
        raise InputError(f"{source}: is a folder without .json files")
    records = []
    for path in files:
        try:
            value = json.loads(_text(path))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: is not JSON: line {error.lineno}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: is not JSON of a run: {json_fault(error)}") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}: is not an object with the figures of one run")
        records.append({KEY: path.stem, **value})
    return _frame(records, source)
