"""Records of measurements: one JSON object per line, each with the machine, the versions and the command behind it.

A record names no host and no user: the model of the processor and the number of cores say what a reader can compare.
`data/benchmarks/README.md` lists the fields.
"""

import contextlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from companion.errors import InputError
from companion.paths import data_dir

try:
    import fcntl
except ImportError:  # not on Windows: appends are then not locked against each other
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FIELDS",
    "append_record",
    "deliver",
    "git_commit",
    "latest_record",
    "machine",
    "new_record",
    "read_records",
]

#: What every record has.
FIELDS = ("benchmark", "date", "command", "machine", "versions", "git_commit", "parameters", "results")
_CPU_NAME = re.compile(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", re.MULTILINE)


def new_record(
    benchmark: str,
    command: str,
    parameters: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    packages: Sequence[str] = ("numpy",),
) -> dict[str, Any]:
    """A record of what was just measured here.

    Parameters
    ----------
    benchmark
        name of what was measured.
    command
        command line that repeats it.
    parameters
        what the measurement depends on.
    results
        one mapping per measured quantity; values with units in their names.
    packages
        distributions whose versions matter.

    Examples
    --------
    >>> record = new_record("sums", "python sums.py", {"rows": 10}, [{"sum_s": 1e-6}])
    >>> sorted(record) == sorted(FIELDS)
    True
    """
    return {
        "benchmark": benchmark,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": command,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "git_commit": git_commit(),
        "parameters": dict(parameters),
        "results": [dict(result) for result in results],
    }


def machine() -> dict[str, Any]:
    """The machine without its name: `cpu` model, `cores` this process may use, `system` and `architecture`.

    Examples
    --------
    >>> list(machine())
    ['cpu', 'cores', 'system', 'architecture']
    """
    cpu = platform.processor()
    with contextlib.suppress(OSError):
        if found := _CPU_NAME.search(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")):
            cpu = found[1].strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpu": cpu or "unknown",
        "cores": cores,
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def git_commit(folder: Path | None = None) -> str | None:
    """Commit of the checkout that holds this file, or `folder`; with `+changes` if files differ; None if unknown.

    Examples
    --------
    >>> git_commit(Path("/")) is None
    True
    """
    where = Path(__file__).resolve().parent if folder is None else folder
    try:
        commit = _git(where, "rev-parse", "HEAD")
        changed = _git(where, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line at the end of a file, whole or not at all; the file and its folder are made if missing.

    Several processes may append at the same time.

    Raises
    ------
    InputError
        if the record misses a field of `FIELDS`, holds what JSON cannot (NaN included), or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "sums.jsonl"
    ...     append_record(path, new_record("sums", "python sums.py", {"rows": 10}, [{"sum_s": 1e-6}]))
    ...     len(read_records(path))
    1
    """
    if missing := [field for field in FIELDS if field not in record]:
        raise InputError(f"record: no field {', '.join(missing)}")
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"record: cannot be written as JSON: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _append(descriptor, line)
        finally:
            os.close(descriptor)  # releases the lock too
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def deliver(record: Mapping[str, Any], out: str | None, file_name: str, summary: str = "") -> None:
    """Print a record for `-`; else print the summary and append the record to `out`.

    Without `out` that is the named file in data/benchmarks of the checkout.

    Raises
    ------
    InputError
        as `append_record`.

    Examples
    --------
    >>> deliver(new_record("sums", "python sums.py", {}, []), "-", "sums.jsonl")  # doctest: +ELLIPSIS
    {"benchmark": "sums", ...}
    """
    if out == "-":
        print(json.dumps(record, ensure_ascii=False))
        return
    if summary:
        print(summary)
    path = Path(out) if out else data_dir() / "benchmarks" / file_name
    append_record(path, record)
    print(f"recorded in {path}")


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file, in its order.

    Raises
    ------
    InputError
        if the file cannot be read, or a line is not a record; the message names the line.

    Examples
    --------
    >>> {record["benchmark"] for record in read_records(data_dir() / "benchmarks" / "accounting.jsonl")}
    {'accounting'}
    """
    return list(_records(path))


def latest_record(path: Path, benchmark: str) -> dict[str, Any]:
    """The last record of a benchmark.

    Raises
    ------
    InputError
        if there is none, or see `read_records`.

    Examples
    --------
    >>> record = latest_record(data_dir() / "benchmarks" / "accounting.jsonl", "accounting")
    >>> record["machine"]["system"]
    'Linux'
    """
    for record in reversed(read_records(path)):
        if record["benchmark"] == benchmark:
            return record
    raise InputError(f"{path}: no record of benchmark {benchmark!r}")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            from companion.tables import json_fault  # here: it needs pandera, and a GPU machine may lack that

            raise InputError(f"{path}: line {number}: is not JSON: {json_fault(error)}") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}: line {number}: is not an object")
        if missing := [field for field in FIELDS if field not in record]:
            raise InputError(f"{path}: line {number}: no field {', '.join(missing)}")
        yield record


def _append(descriptor: int, line: bytes) -> None:
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    size = os.fstat(descriptor).st_size
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        if os.read(descriptor, 1) != b"\n":
            line = b"\n" + line  # someone's last line has no end: do not glue to it
    try:
        written = 0
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _git(folder: Path, *arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    return run.stdout.strip()
