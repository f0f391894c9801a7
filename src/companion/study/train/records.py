"""Records of finished runs: one JSON file each, `RUN_ID.json`, with a checksum inside. No torch.

Fields
------
`record_version`, `run_id`, `recipe`
    what was run; the identity follows from the recipe.
`status`, `step`
    `finished`, or `diverged` with the step (from 1) after which the run was given up.
`val_loss`, `val_loss_stderr`
    mean loss of the held-out sequences at the end, nats per token, and its standard error over sequences; null if the
    run diverged.
`train_loss`, `train_loss_steps`
    mean loss of the last steps of the curve (1 % of all, at least one) and how many these are; of a run that diverged
    the last finite loss of the curve.
`num_params`, `num_tokens`, `train_flops`
    N, D and C (convention `paper`) of the recipe; of a run that diverged, D and C until then.
`curve`
    lists `step`, `num_tokens`, `loss`, `learning_rate`, `grad_norm` of equal length: means over blocks of steps, with
    the number of the last step of each block. A value that is not finite is null.
`evaluations`
    `step` and `val_loss` of every evaluation, the last one included.
`loss_floor`, `loss_floor_stderr`
    lowest loss that the corpus allows, where it is known; null elsewhere.
`seconds`, `seconds_compile`, `tokens_per_s`, `utilization`
    of training and its tokens, over all sessions of a run that was resumed, without evaluations and checkpoints;
    compilation and capture apart. Utilization is
    `train_flops` over seconds and the peak of the GPUs (`data/hardware.csv`); null where that is not known.
`peak_memory_bytes`, `launch`, `device`, `num_gpus`, `machine`, `versions`, `git_commit`, `date`, `corpus`
    where and how it ran; memory is the most that one GPU held, null on a CPU, of which `num_gpus` is 0; `launch` is
    `eager`, `compiled` or `graph`; `corpus` is what the corpus says of its tokens.
`processes_per_gpu`
    processes of the sweep that shared the GPU, null where that is not known: times and utilization are those of a run
    alone only where it is 1. Records of earlier versions lack it.
`checksum`
    SHA-256 of everything else as canonical JSON.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from companion.errors import InputError
from companion.paths import write_whole
from companion.study.train.files import NotJson, read_json
from companion.study.train.recipe import Recipe, canonical_json

RECORD_VERSION = 1
#: What became of a run.
STATUSES = ("finished", "diverged")
#: Largest file that is read, bytes; a record has about 50 kB.
MAX_RECORD_BYTES = 16 * 2**20
CURVE_FIELDS = ("step", "num_tokens", "loss", "learning_rate", "grad_norm")
#: What every record has, `checksum` aside, which `write_record` adds.
FIELDS = (
    *("record_version", "run_id", "recipe", "status", "step"),
    *("val_loss", "val_loss_stderr", "train_loss", "train_loss_steps", "num_params", "num_tokens", "train_flops"),
    *("curve", "evaluations", "loss_floor", "loss_floor_stderr"),
    *("seconds", "seconds_compile", "tokens_per_s", "utilization", "peak_memory_bytes"),
    *("launch", "device", "num_gpus", "machine", "versions", "git_commit", "date", "corpus"),
)
#: What only records of later versions have.
LATER_FIELDS = ("processes_per_gpu",)


class DamagedRecord(InputError):
    """A record that is cut short, was edited, belongs to another run, or is no record at all."""


def record_path(folder: str | os.PathLike[str], run_id: str) -> Path:
    """Where the record of a run is: `RUN_ID.json` in the folder.

    Examples
    --------
    >>> record_path("runs", "0123456789abcdef").name
    '0123456789abcdef.json'
    """
    return Path(folder) / f"{run_id}.json"


def write_record(folder: str | os.PathLike[str], record: Mapping[str, Any]) -> Path:
    """The path of a record, written whole with its checksum; one that is there already is replaced.

    Raises
    ------
    InputError
        if the record misses a field, holds what JSON cannot (NaN included) or is not of its recipe, or the file cannot
        be written.

    Examples
    --------
    >>> write_record("runs", {"record_version": 1})
    Traceback (most recent call last):
    ...
    companion.errors.InputError: record: field 'run_id' is missing
    """
    whole = {name: value for name, value in record.items() if name != "checksum"}
    if fault := _fault(whole):
        raise InputError(f"record: {fault}")
    try:
        whole["checksum"] = checksum_of(whole)
        text = json.dumps(whole, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"record {whole['run_id']}: cannot be written as JSON: {error}") from error
    path = record_path(folder, whole["run_id"])
    write_whole(path, text + "\n")
    return path


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record of a file, its checksum and identity checked.

    Raises
    ------
    InputError
        if the file is missing or cannot be read.
    DamagedRecord
        if what it holds is not the record that was written under this name.

    Examples
    --------
    >>> read_record("runs/0123456789abcdef.json")
    Traceback (most recent call last):
    ...
    companion.errors.InputError: runs/0123456789abcdef.json: no such file
    """
    again = "delete the file, and the run is done again"
    try:
        record = read_json(path, MAX_RECORD_BYTES)
    except NotJson as error:
        raise DamagedRecord(f"{error}; {again}") from None
    try:
        checked = checked_record(record, str(Path(path)))
    except DamagedRecord as error:
        raise DamagedRecord(f"{error}; {again}") from None
    if Path(path).stem != checked["run_id"]:
        raise DamagedRecord(f"{Path(path)}: is the record of run {checked['run_id']}; rename it to that, or delete it")
    return checked


def checked_record(record: object, source: str) -> dict[str, Any]:
    """The same record, if it is whole, of its recipe and as it was written; `source` begins the message if not.

    Raises
    ------
    DamagedRecord
        if it is not.
    """
    if not isinstance(record, dict):
        raise DamagedRecord(f"{source}: is not an object")
    if fault := _fault(record):
        raise DamagedRecord(f"{source}: {fault}")
    try:
        right = record.get("checksum") == checksum_of(record)
    except (ValueError, RecursionError):  # NaN, which Python's reader takes
        right = False
    if not right:
        raise DamagedRecord(f"{source}: the checksum does not match: the file was edited or damaged")
    return record


def set_aside(path: Path) -> Path:
    """The new name of a record that cannot be read, `RUN_ID.json.damaged`: its run is trained again.

    Raises
    ------
    InputError
        if the file cannot be renamed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = record_path(folder, "0123456789abcdef")
    ...     written = path.write_text("{")
    ...     set_aside(path).name
    '0123456789abcdef.json.damaged'
    """
    kept = path.with_name(path.name + ".damaged")
    try:
        path.replace(kept)
    except OSError as error:
        raise InputError(f"{path}: cannot be renamed: {error.strerror or error}") from error
    return kept


def checksum_of(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its checksum, hexadecimal.

    Examples
    --------
    >>> checksum_of({"a": 1}) == checksum_of({"checksum": "any", "a": 1})
    True
    """
    return hashlib.sha256(canonical_json({k: v for k, v in record.items() if k != "checksum"})).hexdigest()


def _fault(record: Mapping[str, Any]) -> str:
    """What is wrong with the fields of a record; empty if nothing is."""
    if missing := [name for name in FIELDS if name not in record]:
        return f"field {missing[0]!r} is missing"
    version = record["record_version"]
    if version != RECORD_VERSION:
        return f"record_version {str(version)[:80]!r} is not {RECORD_VERSION}, the one that this package reads"
    if record["status"] not in STATUSES:
        return f"status {str(record['status'])[:80]!r} is not one of {', '.join(STATUSES)}"
    try:
        run_id = Recipe.from_dict(record["recipe"]).run_id
    except InputError as error:
        return f"recipe: {error}"
    if record["run_id"] != run_id:
        return f"run_id {str(record['run_id'])[:80]!r} is not that of its recipe, {run_id}"
    curve = record["curve"]
    if not isinstance(curve, Mapping) or set(curve) != set(CURVE_FIELDS):
        return f"curve: is not an object with {', '.join(CURVE_FIELDS)}"
    if not all(isinstance(values, list) for values in curve.values()) or len({len(v) for v in curve.values()}) != 1:
        return "curve: its lists differ in length"
    return ""
