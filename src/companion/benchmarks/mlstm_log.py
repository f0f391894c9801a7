"""The log of changes to the mLSTM kernels: what each was expected to bring, and what it brought.

A prediction is written down before the change is timed (`data/benchmarks/kernel_predictions.csv`). What was measured
while the work went on stands beside it; otherwise it is looked up in the records of `kernel_benchmark`. These keep the
timings of earlier states of the kernels, so that they also tell what all changes brought together.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.benchmarks.records import read_records
from companion.errors import InputError

#: What a row of the log must say, beside the columns that a lookup fills.
COLUMNS = ("date", "change", "part", "kernel", "case", "implementation", "chunk_size", "predicted_seconds", "reason")
_MEASURED = ("measured_seconds", "measured_on", "measured_by")


def load_log(path: Path, records: Path | None = None, gpu: str | None = None) -> pd.DataFrame:
    """The log with a measurement for every prediction that has one.

    Parameters
    ----------
    path
        CSV file with `COLUMNS`, and `measured_seconds`, `measured_on` (GPU), `measured_by` where they are known.
    records
        file of `kernel_benchmark` for the other rows: the fastest candidate of a kernel (`tuning`), the cell of a pass,
        the step of a CUDA graph. The last record of a cell counts; of candidates, those of the last state of the code.
    gpu
        whose records; by default that of the last record.

    Returns
    -------
    DataFrame with the columns of the file and `ratio`, measured over predicted; NaN where nothing was measured.

    Raises
    ------
    InputError
        if a file cannot be read, a column is missing, or a time is not a positive number.
    """
    try:
        log = pd.read_csv(path, dtype=dict.fromkeys(("kernel", "measured_on", "measured_by"), "object"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    if missing := [name for name in (*COLUMNS, *_MEASURED) if name not in log]:
        raise InputError(f"{path}: no column {', '.join(missing)}")
    for name in ("predicted_seconds", "measured_seconds"):
        numbers = pd.to_numeric(log[name], errors="coerce")
        wrong = ~(numbers > 0) & (log[name].notna() | (name == "predicted_seconds"))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(f"{path}: {name} of row {row + 1} is {str(log[name].iloc[row])!r}, not a positive number")
        log[name] = numbers
    if records is not None:
        _look_up(log, records, gpu)
    log["ratio"] = log["measured_seconds"] / log["predicted_seconds"]
    return log


def gains(records: Path, gpu: str | None = None) -> pd.DataFrame:
    """Cells of our kernels that were timed with more than one state of the code: the first time and the last.

    Parameters
    ----------
    records, gpu
        as of `load_log`.

    Returns
    -------
    DataFrame with `part`, `case`, `implementation`, `first_seconds`, `last_seconds`, `gain` (their ratio), and
    `first_date`, `last_date`; steps are those of CUDA graphs.
    """
    cells: dict[tuple[str, str, str], list[tuple[str, float, str]]] = {}
    for record, result in _results(records, gpu):
        if result["part"] != "tuning" and result["implementation"].startswith("companion"):
            cell = (result["part"], result["case"], result["implementation"])
            found = (str(record["parameters"].get("code")), float(result["seconds_median"]), str(record["date"])[:10])
            cells.setdefault(cell, []).append(found)
    ends = ((cell, found[0], found[-1]) for cell, found in cells.items())
    rows = [(*cell, a[1], b[1], a[1] / b[1], a[2], b[2]) for cell, a, b in ends if a[0] != b[0]]
    names = ("part", "case", "implementation", "first_seconds", "last_seconds", "gain", "first_date", "last_date")
    return pd.DataFrame(rows, columns=list(names))


def _results(records: Path, gpu: str | None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Timed results of one GPU with their records, oldest first."""
    kept = [record for record in read_records(records) if record["benchmark"] == "kernels"]
    wanted = kept[-1]["parameters"]["gpu"] if gpu is None and kept else gpu
    for record in kept:
        if record["parameters"]["gpu"] == wanted:
            for result in record["results"]:
                if result.get("skipped") is None and result.get("launch") != "calls":
                    yield record, result


def _look_up(log: pd.DataFrame, records: Path, gpu: str | None) -> None:
    """Fill in what the records say of rows without a measurement."""
    found: dict[tuple[Any, ...], dict[Any, tuple[str, float, list[str]]]] = {}
    for record, result in _results(records, gpu):
        where = [record["parameters"]["gpu"], f"{records.name}, {str(record['date'])[:10]}"]
        choices = found.setdefault(_cell(result), {})
        choices.pop(result.get("configuration"), None)  # the newest is the last
        choices[result.get("configuration")] = (
            str(record["parameters"].get("code")),
            float(result["seconds_median"]),
            where,
        )
    known = {}
    for number, row in log[log["measured_seconds"].isna()].iterrows():
        if cells := list(found.get(_wanted(row), {}).values()):
            _, seconds, where = min((x for x in cells if x[0] == cells[-1][0]), key=lambda x: x[1])
            known[number] = [seconds, *where]
    log.update(pd.DataFrame.from_dict(known, orient="index", columns=list(_MEASURED)))


def _cell(result: dict[str, Any]) -> tuple[Any, ...]:
    """Part, case, implementation and kernel."""
    return result["part"], result["case"], result["implementation"], result.get("kernel")


def _wanted(row: pd.Series) -> tuple[Any, ...]:
    tuning = row["part"] == "tuning"
    name = f"{row['implementation']}, chunk {int(row['chunk_size'])}" if tuning else row["implementation"]
    return row["part"], row["case"], name, row["kernel"] if tuning else None
