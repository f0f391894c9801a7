"""Which column of a log is which quantity, and its cells as numbers."""

import re
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.formatting import quoted
from companion.runs.import_.columns import listed, values_of
from companion.training.import_.cells import Cells
from companion.training.import_.run_log import (
    HISTORY,
    SETTINGS,
    TARGETS,
    TEXT_SETTINGS,
    RunLog,
    find_name,
    make_history,
)

_LOSSES = ("train_loss", "val_loss", "grad_norm")
_NOT_FINITE = ("nan", "inf", "infinity")
#: A name that says milliseconds.
_MILLI = re.compile(r"[_\s(\[]ms\b|milliseconds", re.IGNORECASE)


#: The key of settings that name no run.
NO_RUN = "None"


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raise an InputError if a mapping names something that is no column of a log."""
    if unknown := [name for name in mapping if name not in TARGETS]:
        raise InputError(f"--map {unknown[0]}=...: {unknown[0]!r} is not a column of a log ({', '.join(TARGETS)})")


def logs_of_cells(
    cells: Cells,
    source: str,
    mapping: Mapping[str, str],
    said: dict[str, str],
    *,
    optional: Container[str] = (),
    settings_only: bool = False,
) -> list[RunLog]:
    """The runs of a table of records; `said` collects what every column was read from.

    An entry of the mapping whose target is `optional` and whose columns the table lacks is passed over.

    Raises
    ------
    InputError
        one line that names the file, row, column and value: no steps, no known quantity, a cell that is no number.
    """
    table = cells.table
    mapping = {n: v for n, v in mapping.items() if n not in optional or not _is_name(v) or v in table.columns}
    sources = _find(table, mapping, source, settings_only)
    values = pd.DataFrame(index=table.index)
    for target, name in sources.items():
        if target in ("run", *TEXT_SETTINGS):
            if name in table.columns:
                values[target], said[target] = table[name], f"column {name!r}"
            elif target in mapping and target != "run":
                values[target], said[target] = name, f"{name!r}, as asked"
            continue
        try:
            values[target], words = values_of(table, target, _spelled(name, table), source)
        except InputError as error:
            if target in optional and ("no column" in str(error) or "neither a column" in str(error)):
                continue
            raise
        if target == "step_time_s" and name in table.columns and _MILLI.search(name):
            values[target] = pd.to_numeric(values[target]) / 1000
            words += ", milliseconds as its name says"
        if target in _LOSSES and name in table.columns:
            lost = table[name].map(lambda cell: cell is not None and cell.lower().lstrip("+-") in _NOT_FINITE)
            values[target] = values[target].where(~lost, np.inf)
        said[target] = words
    keys = values["run"] if "run" in values else pd.Series(None, index=table.index, dtype=object)
    keys = keys.where(keys.notna(), cells.key or NO_RUN)
    found = []
    for key, rows in values.groupby(keys.to_numpy(), sort=False):
        log = RunLog(run=str(key), where=f"{source} (row {rows.index[0]})", settings=_settings(rows))
        log.history = make_history({n: rows[n] for n in HISTORY if n in rows})
        log.notes += _varying(rows)
        found.append(log)
    if cells.notes:
        found[-1].notes += cells.notes
    return found


def _find(table: pd.DataFrame, mapping: Mapping[str, str], source: str, settings_only: bool) -> dict[str, str]:
    found = {target: name for target, name in mapping.items()}
    taken = set(found.values())
    for target in TARGETS:
        if target in found or (settings_only and target in HISTORY):
            continue
        names = [name for name in find_name(target, table.columns) if name not in taken]
        if len(names) > 1:
            some = ", ".join(names[:6])
            raise InputError(f"{source}: several columns may be {target} ({some}): choose with --map {target}=NAME")
        if names:
            found[target] = names[0]
            taken.add(names[0])
    if settings_only:
        return found
    if "step" not in found:
        raise InputError(f"{source}: no column of steps: name it with --map step=NAME; there are {listed(table)}")
    if not any(target in found for target in HISTORY[1:-1]):
        raise InputError(
            f"{source}: no column of a loss, step time or gradient norm: name one with --map train_loss=NAME; "
            f"there are {listed(table)}"
        )
    return found


def _is_name(text: str) -> bool:
    """Whether a mapping names one column rather than an expression."""
    return not re.search(r"[*+()`]| [-/] |^[0-9.eE]+$", text)


def _spelled(text: str, table: pd.DataFrame) -> str:
    """An expression whose names with spaces or slashes are put in backquotes: `time ms / 1000`."""
    if text in table.columns or "`" in text:
        return text
    odd = sorted((n for n in table.columns if not n.isidentifier() and n in text), key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, odd)) + ")", text) if odd else [text]
    return "".join(f"`{piece}`" if piece in odd else piece for piece in pieces)


def _settings(rows: pd.DataFrame) -> dict[str, Any]:
    """What holds of the whole run: the last value, of counts that grow and of a learning rate the largest."""
    found: dict[str, Any] = {}
    for name in SETTINGS:
        if name not in rows or not len(known := rows[name].dropna()):
            continue
        if name in TEXT_SETTINGS:
            found[name] = str(known.iloc[-1])
        else:
            found[name] = max(known) if name in ("num_tokens", "train_flops", "learning_rate") else known.iloc[-1]
    return found


def _varying(rows: pd.DataFrame) -> list[str]:
    notes = []
    for name in SETTINGS:
        if name in rows and name not in ("num_tokens", "train_flops", "learning_rate", "state", "status"):
            values = list(dict.fromkeys(rows[name].dropna()))
            if len(values) > 1:
                notes.append(f"{name} changes from {quoted(values[0])} to {quoted(values[-1])}: the last one is kept")
    return notes
