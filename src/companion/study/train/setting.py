"""What a run needs before it starts: a corpus that fits, a device, a launch, the lock of its folder. Needs torch."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import filelock
import torch

from companion.errors import InputError
from companion.study import corpus as corpora
from companion.study.corpus.base import Corpus
from companion.study.train.group import Group
from companion.study.train.needed import predicted_memory_bytes
from companion.study.train.recipe import Recipe
from companion.study.train.records import record_path
from companion.study.train.step import LAUNCHES

#: Unused rows of an embedding that only round its number up are no mistake.
PADDING = 128
#: Seconds to wait for a lock: who only asks whether a run is trained holds it for a moment.
_PATIENCE = 0.5


class RunInProgress(InputError):
    """Another process trains this run."""


def open_for(recipe: Recipe) -> Corpus:
    """The corpus of a recipe by its name.

    Raises
    ------
    InputError
        as `companion.study.corpus.open_corpus`.
    """
    return corpora.open_corpus(recipe.corpus)


def check_corpus(recipe: Recipe, corpus: Corpus) -> None:
    """Raise an InputError unless a corpus has the vocabulary and the sequences that a recipe asks for.

    An embedding may have up to 127 rows more than the corpus has tokens.
    """
    rows = int(recipe.architecture.vocab_size)
    if not corpus.vocab_size <= rows < corpus.vocab_size + PADDING:
        raise InputError(
            f"vocab_size: the architecture has {rows} rows, corpus {corpus.name!r} has {corpus.vocab_size} tokens; "
            "give the architecture the vocabulary of the corpus"
        )
    there = corpus.num_sequences(recipe.context_length)
    asked = recipe.train_steps * recipe.batch_size_seqs
    if there is not None and asked > there:
        T = recipe.context_length
        has = f"corpus {corpus.name!r} has {there * T:,} in sequences of {T}"
        raise InputError(f"train_steps: the run reads {asked * T:,} tokens, {has}; make fewer steps")


def usable_device(device: torch.device | str | None, group: Group) -> torch.device:
    """The device of this process; without a name its GPU, or the CPU where there is none.

    Raises
    ------
    InputError
        if torch does not know the name, or has no such device.
    """
    index = group.rank % max(1, torch.cuda.device_count())
    if device is None:
        return torch.device("cuda", index) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device: {str(device)[:80]!r} is not one that torch knows") from error
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"device: {found.type} is neither cpu nor cuda")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device: torch sees no CUDA GPU")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device: {found} is not one of the {torch.cuda.device_count()} GPUs")
    if found.type == "cuda" and found.index is not None and group.size > 1:
        raise InputError(f"device: {found} cannot serve {group.size} processes; say cuda, and each takes its own GPU")
    return torch.device("cuda", index) if found.type == "cuda" and found.index is None else found


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Within, a GPU is the current one; on a CPU nothing changes."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def usable_launch(launch: str | None, device: torch.device, group: Group) -> str:
    """How steps are launched: as asked for, or in the fastest way that the device and the processes allow.

    Raises
    ------
    InputError
        for a launch that is not known or not possible there.
    """
    on_gpu = device.type == "cuda"
    if launch is None:
        return "eager" if not on_gpu else "graph" if group.size == 1 else "compiled"
    if launch not in LAUNCHES:
        raise InputError(f"launch: {launch!r} is not one of {', '.join(LAUNCHES)}")
    if launch == "graph" and not on_gpu:
        raise InputError("launch: a graph needs a CUDA GPU; take eager or compiled")
    if launch == "graph" and group.size > 1:
        raise InputError("launch: several processes cannot train in a graph; take compiled or eager")
    return launch


@contextmanager
def locked(folder: Path, run_id: str, group: Group) -> Iterator[None]:
    """Within, process 0 holds the lock of a run; the system releases it if the process dies.

    Raises
    ------
    RunInProgress
        if another process holds it.
    InputError
        if the folder cannot be made or written.
    """
    lock = filelock.FileLock(folder / f"{run_id}.lock", timeout=_PATIENCE)

    def acquire() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise RunInProgress(f"run {run_id}: another process trains it in {folder}") from error
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
        except ValueError as error:  # a NUL in the name
            raise InputError(f"{str(folder)!r}: is not a folder name: {error}") from error

    group.once(acquire)
    try:
        yield
    finally:
        if group.rank == 0 and record_path(folder, run_id).exists():
            with suppress(OSError):  # elsewhere than on Unix an open file stays
                os.unlink(lock.lock_file)  # nobody waits for it: who opened it before finds the record
        lock.release()


def is_locked(folder: Path, run_id: str) -> bool:
    """Whether a process trains this run now."""
    path = folder / f"{run_id}.lock"
    if not path.exists():
        return False
    lock = filelock.FileLock(path, timeout=0)
    try:
        with lock:
            return False
    except filelock.Timeout:
        return True
    except OSError:  # something else has the name: whoever trains the run says so
        return False


def memory_error(error: RuntimeError, recipe: Recipe, micro_batch: int | None, group: Group) -> InputError | None:
    """What to raise for an error of torch if it says that memory is missing; None if it says something else."""
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in text:
        return None
    asked = re.search(r"ried to allocate ([\d.]+ \w+)", text)
    sequences = micro_batch or recipe.batch_size_seqs // group.size
    predicted = predicted_memory_bytes(recipe, sequences, group.size) / 2**30
    smaller = f"; set micro_batch to {sequences // 2} or less" if sequences % 2 == 0 else ""
    return InputError(
        f"run {recipe.run_id}: the memory of the device is too small: {asked[1] if asked else 'a piece'} more was "
        f"asked for, about {predicted:.1f} GiB are needed for passes of {sequences} sequences{smaller}"
    )
