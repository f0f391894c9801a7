"""The log of changes to the mLSTM kernels: what each was expected to bring, and what it brought.

A prediction is written down before the change is timed (`data/benchmarks/kernel_predictions.csv`). What was measured
while the work went on is kept beside it; otherwise it is looked up in the records of `companion bench kernels`. These
keep the timings of earlier states of the kernels, so that they also show what all changes brought together.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.benchmarks.kernels.identity import identity_of
from companion.benchmarks.records import read_records
from companion.errors import InputError

#: Columns that a log must have, besides those that a lookup fills.
COLUMNS = (
    "date",
    "change",
    "part",
    "kernel",
    "case",
    "implementation",
    "chunk_size",
    "predicted_seconds",
    "gpu",
    "reason",
)
_MEASURED = ("measured_seconds", "measured_on", "measured_by")


def load_log(path: Path, records: Path | None = None) -> pd.DataFrame:
    """The log with a measurement for every prediction that has one.

    Parameters
    ----------
    path
        CSV file with `COLUMNS` (`gpu`: on which a time is expected), and `measured_seconds`, `measured_on` (GPU),
        `measured_by` where they are known.
    records
        file of `companion bench kernels` for the other rows, of the GPU they name: the fastest candidate of a kernel
        (`tuning`), the cell of a pass, the step of a CUDA graph. The last record of a cell counts; of candidates, those
        of the last state of the code. Records from before the day of the prediction do not count.

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
        _look_up(log, records)
    log["ratio"] = log["measured_seconds"] / log["predicted_seconds"]
    return log


def gains(records: Path, gpu: str | None = None) -> pd.DataFrame:
    """Cells of our kernels that were timed with more than one state of the code: the first time and the last.

    Parameters
    ----------
    records
        as of `load_log`.
    gpu
        whose records; by default those of every GPU.

    Returns
    -------
    DataFrame
        with `gpu`, `part`, `case`, `implementation`, `first_seconds`, `last_seconds`, `gain` (their ratio), and
        `first_date`, `last_date`; steps are those of CUDA graphs.
    """
    cells: dict[tuple[str, ...], list[tuple[str, float, str]]] = {}
    for record, result in _results(records, gpu):
        if result["part"] != "tuning" and result["implementation"].startswith("companion"):
            cell = (record["parameters"]["gpu"], result["part"], result["case"], result["implementation"])
            found = (identity_of(record["parameters"]).code, float(result["seconds_median"]), str(record["date"])[:10])
            cells.setdefault(cell, []).append(found)
    ends = ((cell, found[0], found[-1]) for cell, found in cells.items())
    rows = [(*cell, a[1], b[1], a[1] / b[1], a[2], b[2]) for cell, a, b in ends if a[0] != b[0]]
    names = (
        "gpu",
        "part",
        "case",
        "implementation",
        "first_seconds",
        "last_seconds",
        "gain",
        "first_date",
        "last_date",
    )
    return pd.DataFrame(rows, columns=list(names))


def against_peer(records: Path, peer: str) -> pd.DataFrame:
    """Our kernels beside a published one, wherever both were timed: the last time of each, on every GPU.

    Parameters
    ----------
    records
        as of `load_log`.
    peer
        name of an implementation in the records.

    Returns
    -------
    DataFrame
        with `gpu`, `part`, `case`, `implementation` (ours), `seconds`, `peer_seconds`, `ratio` (theirs over ours), and
        of ours `context_length` (sequences), `batch_size`, `share_of_peak_bytes` and `code` (the state of the kernels,
        as `identity_of` finds it); steps are those of graphs.
    """
    last, codes = {}, {}
    for record, result in _results(records, None):
        if result["part"] != "tuning":
            cell = (record["parameters"]["gpu"], result["part"], result["case"], result["implementation"])
            last[cell], codes[cell] = result, identity_of(record["parameters"]).code
    rows = []
    for (gpu, part, case, name), mine in last.items():
        theirs = last.get((gpu, part, case, peer))
        if name.startswith("companion") and theirs is not None:
            both = (float(mine["seconds_median"]), float(theirs["seconds_median"]))
            sizes = tuple(mine.get(key) for key in ("context_length", "batch_size", "share_of_peak_bytes"))
            rows.append((gpu, part, case, name, *both, both[1] / both[0], *sizes, codes[gpu, part, case, name]))
    names = ("gpu", "part", "case", "implementation", "seconds", "peer_seconds", "ratio")
    return pd.DataFrame(rows, columns=[*names, "context_length", "batch_size", "share_of_peak_bytes", "code"])


def _results(records: Path, gpu: str | None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Timed results, of one GPU if it is named, with their records, oldest first."""
    for record in read_records(records):
        if record["benchmark"] == "kernels" and (gpu is None or record["parameters"]["gpu"] == gpu):
            for result in record["results"]:
                if result.get("skipped") is None and result.get("launch") != "calls":
                    yield record, result


def _look_up(log: pd.DataFrame, records: Path) -> None:
    """Fill in what the records say of rows without a measurement."""
    found: dict[tuple[Any, ...], dict[Any, tuple[str, float, list[str], str]]] = {}
    for record, result in _results(records, None):
        day = str(record["date"])[:10]
        where = [record["parameters"]["gpu"], f"{records.name}, {day}"]
        choices = found.setdefault((record["parameters"]["gpu"], *_cell(result)), {})
        choices.pop(result.get("configuration"), None)  # the newest is the last
        choices[result.get("configuration")] = (
            identity_of(record["parameters"]).code,
            float(result["seconds_median"]),
            where,
            day,
        )
    known = {}
    for number, row in log[log["measured_seconds"].isna()].iterrows():
        if cells := [x for x in found.get(_wanted(row), {}).values() if x[3] >= str(row["date"])]:
            _, seconds, where, _ = min((x for x in cells if x[0] == cells[-1][0]), key=lambda x: x[1])
            known[number] = [seconds, *where]
    log.update(pd.DataFrame.from_dict(known, orient="index", columns=list(_MEASURED)))


def _cell(result: dict[str, Any]) -> tuple[Any, ...]:
    """Part, case, implementation and kernel."""
    return result["part"], result["case"], result["implementation"], result.get("kernel")


def _wanted(row: pd.Series) -> tuple[Any, ...]:
    tuning = row["part"] == "tuning"
    name = f"{row['implementation']}, chunk {int(row['chunk_size'])}" if tuning else row["implementation"]
    return row["gpu"], row["part"], row["case"], name, row["kernel"] if tuning else None
