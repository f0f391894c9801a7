"""Checkpoints of a run, `RUN_ID.pt`: everything that the next step depends on. Needs torch.

A file begins with a line that names the format and the SHA-256 of the rest, which is what `torch.save` writes: damage
is seen before anything is read from it, and only tensors and plain values are read (`weights_only`).
"""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from companion.errors import InputError
from companion.paths import write_whole

_MAGIC = b"companion checkpoint 1 "


class DamagedCheckpoint(InputError):
    """A checkpoint that is cut short, was changed, or belongs to another run."""


def checkpoint_path(folder: str | os.PathLike[str], run_id: str) -> Path:
    """Where the checkpoint of a run is."""
    return Path(folder) / f"{run_id}.pt"


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values: the file holds all of it, or what it held before.

    Raises
    ------
    InputError
        if it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_whole(path, _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_checkpoint(path: Path, run_id: str) -> dict[str, Any] | None:
    """The state of a file, on the CPU; None if there is no such file.

    Raises
    ------
    InputError
        if it cannot be read.
    DamagedCheckpoint
        if it does not hold what was written for this run.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    length = len(_MAGIC) + 65
    head, rest = content[:length], memoryview(content)[length:]
    if not head.startswith(_MAGIC):
        raise DamagedCheckpoint(f"{path}: is no checkpoint of this package")
    if head[len(_MAGIC) :] != hashlib.sha256(rest).hexdigest().encode() + b"\n":
        raise DamagedCheckpoint(f"{path}: is cut short or was changed: its checksum does not match")
    try:
        state = torch.load(io.BytesIO(rest), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise DamagedCheckpoint(f"{path}: torch cannot read it: {str(error).splitlines()[0][:200]}") from error
    if not isinstance(state, dict) or state.get("run_id") != run_id:
        raise DamagedCheckpoint(f"{path}: is not the checkpoint of run {run_id}")
    return state
