"""Logs as text cells: CSV and TSV, wandb's exports of charts, JSON and JSON lines; plain or compressed with gzip."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from companion.errors import InputError
from companion.formatting import cut, quoted
from companion.tables import csv_fault, json_fault, text_fault

#: A column of a chart that wandb exported: `run - metric`, and the extremes of smoothed points.
_PANEL = re.compile(r"(?P<run>.+?) - (?P<metric>.+?)(?P<extreme>__MIN|__MAX)?")
_RUN, _HISTORY = (
    ("name", "display_name", "run_name", "run", "run_id", "id"),
    ("history", "_history", "log_history", "logs"),
)
#: Objects inside a run whose entries are settings.
_GROUPS = ("config", "summary", "settings", "hparams", "summary_metrics", "summarymetrics")


@dataclass
class Cells:
    """Text cells of a file: `table` (index: rows of the file), `notes` on what was cut off, `key` of its only run."""

    table: pd.DataFrame
    notes: list[str]
    key: str | None = None


def read_cells(data: bytes, source: Path, kind: str) -> list[Cells]:
    """The cells of a file, in one table, or one a run where a JSON file nests histories in runs.

    Parameters
    ----------
    data
        bytes of the file, unpacked.
    source
        what messages call it; its name is the key of a run without one.
    kind
        `csv`, `tsv`, `json` or `jsonl`.

    Raises
    ------
    InputError
        one line that names the file and row. A last record that is cut off is left out with a note instead.
    """
    if not data.strip():
        raise InputError(f"{source}: the file is empty")
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if fault := text_fault(line, number):
            if number == len(lines) > 1 and b"\0" not in line:  # cut inside a character
                lines[-1] = line.decode("utf-8", errors="ignore").encode()
                continue
            raise InputError(f"{source}: {fault}")
    text = b"\n".join(lines).decode("utf-8-sig")
    if kind in ("csv", "tsv"):
        return [_separated(text, source, "\t" if kind == "tsv" else None)]
    if kind == "jsonl":
        return _of_values(*_lines(text, source), source)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _of_values(*_lines(text, source), source)
        at_end = error.pos >= len(text.rstrip()) - 1 or "Unterminated" in error.msg
        what = "is cut off" if at_end else f"is not JSON: {error.msg}"
        raise InputError(f"{source}: {what}, line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: is not JSON of runs: {json_fault(error)}") from None
    return _of_values(value, [], source)


# ---- separated values ----------------------------------------------------------------------------


def _separated(text: str, source: Path, separator: str | None) -> Cells:
    header = text.lstrip("\r\n").splitlines()[0]
    chosen = separator or max((",", "\t", ";"), key=header.count)
    rows: list[tuple[int, list[str]]] = []
    reader, notes, whole = (
        csv.reader(io.StringIO(text, newline=""), delimiter=chosen, strict=True),
        list[str](),
        text.endswith("\n"),
    )
    try:
        rows.extend((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
    except csv.Error as error:
        if "end of data" not in str(error) or whole or len(rows) < 2:
            raise InputError(f"{source}: row {reader.line_num}: {csv_fault(error)}") from None
        notes.append(f"row {reader.line_num} is cut off and left out")
    names = [name.strip() or f"unnamed_{place}" for place, name in enumerate(rows[0][1], 1)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{source}: row {rows[0][0]}: column {quoted(twice[0])} appears twice")
    if len(rows) > 1 and not whole and len(rows[-1][1]) < len(names):
        notes.append(f"row {rows[-1][0]} is cut off and left out")
        rows.pop()
    for number, row in rows[1:]:
        if len(row) != len(names):
            raise InputError(f"{source}: row {number}: has {len(row)} cells, the header has {len(names)} columns")
    if len(rows) == 1:
        raise InputError(f"{source}: has a header but no records")
    cells = [[cell.strip() or None for cell in row] for _, row in rows[1:]]
    table = pd.DataFrame(cells, columns=names, index=[number for number, _ in rows[1:]], dtype=object)
    table.attrs["decimal_comma"] = chosen == ";"
    return Cells(_long(table), notes)


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """Columns `run - metric` of a chart as a table with a column `run` and one of each metric; other tables as is."""
    parts = {name: match for name in table.columns if (match := _PANEL.fullmatch(name))}
    steps = [name for name in table.columns if name not in parts]
    if not parts or not any(name.lower().strip("_") in ("step", "global_step", "train/global_step") for name in steps):
        return table
    runs: dict[str, dict[str, str]] = {}
    for name, match in parts.items():
        if match["extreme"] is None:
            runs.setdefault(match["run"], {})[match["metric"]] = name
    found = []
    for run, columns in runs.items():
        columns.pop("_step", None)  # the axis again
        part = table[[*steps, *columns.values()]].set_axis([*steps, *columns], axis=1)
        found.append(part[part[list(columns)].notna().any(axis=1)].assign(run=run))
    long = pd.concat(found) if found else table[steps].assign(run=None)
    long.attrs = dict(table.attrs)
    return long.astype(object).where(long.notna(), None)


# ---- JSON ----------------------------------------------------------------------------------------


def _lines(text: str, source: Path) -> tuple[list[Any], list[str]]:
    found, notes = list[Any](), list[str]()
    lines = text.split("\n")
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == last and number == len(lines) and found and isinstance(error, json.JSONDecodeError):
                notes.append(f"row {number} is cut off and left out")
                break
            raise InputError(f"{source}: row {number}: is not JSON: {json_fault(error)}") from None
        if not isinstance(value, dict):
            raise InputError(f"{source}: row {number}: is not an object with the figures of a record")
        found.append(value)
    return found, notes


def _of_values(value: Any, notes: list[str], source: Path) -> list[Cells]:
    """Tables of a JSON value: runs with histories, or records (with the key of their run, if any)."""
    if isinstance(value, dict) and (inner := [v for v in value.values() if _is_records(v)]) and _history(value) is None:
        value = inner[0] if len(inner) == 1 else value
    if isinstance(value, dict) and all(
        isinstance(entry, dict) and _history(entry) is not None for entry in value.values()
    ):
        value = [{"run": key, **entry} for key, entry in value.items()]
    if isinstance(value, dict) and _history(value) is not None:
        value = [value]
    if isinstance(value, dict):  # columns
        lists = {name: entry for name, entry in value.items() if isinstance(entry, list)}
        if lists and len({len(entry) for entry in lists.values()}) == 1:
            rest = {name: entry for name, entry in value.items() if name not in lists}
            value = [rest | dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if not _is_records(value):
        raise InputError(f"{source}: holds no log: a list of records is needed, or runs with a 'history'")
    if not any(_history(entry) is not None for entry in value):
        return [Cells(_frame(value), notes)]
    found = []
    for number, run in enumerate(value, 1):
        history = _history(run)
        if history is None:
            raise InputError(f"{source}: run {number} has no 'history' with records, others have")
        names = [run[name] for name in _RUN if isinstance(run.get(name), str | int)]
        outer = {name: entry for name, entry in run.items() if name not in (*_HISTORY, *_RUN)}
        found.append(
            Cells(
                _frame([{**dict(_flat(outer)), **record} for record in history]), [], str(names[0]) if names else None
            )
        )
    found[0].notes += notes
    return found


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _history(run: dict[str, Any]) -> list[dict[str, Any]] | None:
    found = [run[name] for name in _HISTORY if _is_records(run.get(name))]
    return found[0] if found else None


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in value.items():
        whole = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(entry, dict) and entry.keys() == {"value", "desc"}:  # wandb's config.yaml
            entry = entry["value"]
        if isinstance(entry, dict):
            yield from _flat(entry, "" if str(name).lower() in _GROUPS else whole)
        elif not isinstance(entry, list):
            yield whole, entry


def _frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    rows = [{name: _cell(entry) for name, entry in _flat(record)} for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = pd.DataFrame([[row.get(n) for n in names] for row in rows], columns=names, dtype=object)
    frame.index += 1
    return frame


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else repr(value)
    return cut(text.strip(), 400) or None
