"""A folder of text files as a corpus of bytes. Needs torch."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from companion.errors import InputError
from companion.study.corpus.windows import Windows

#: Bytes of text have no zero: files with one are left out. So token 0 is free to end a file.
VOCAB_SIZE = 256
#: All files together: they are held in memory, twice for a moment.
MOST_BYTES = 1 << 30
#: One file in twenty is held out.
SHARE = 20
#: Names in a warning.
SHOWN = 3


@dataclass(frozen=True)
class TextFile:
    """One file of a folder: its path below the folder, its bytes and their SHA-256."""

    path: str
    content: bytes
    digest: str


class TextCorpus(Windows):
    """The files below a folder, read byte by byte: V = 256, and token 0 after the last byte of every file.

    Hidden files and folders are left out; so are files with a zero byte (they are no text), empty files, and files
    whose content another file has: a warning names them. Of n files max(1, n // 20) are held out: those whose
    content has the smallest SHA-256, so that the choice depends neither on names nor on the other files' order.

    Parameters
    ----------
    folder
        looked through with all its folders; files are put together in the order of their paths.
    repeat
        begin anew where the windows end.

    Raises
    ------
    InputError
        if the folder is missing, holds fewer than two such files or more than 1 GiB, or a file cannot be read or
        changes while it is read.
    """

    def __init__(self, folder: Path | str, repeat: bool = False) -> None:
        self.folder = Path(folder)
        files = read_folder(self.folder)
        chosen = {file.digest for file in sorted(files, key=lambda file: file.digest)[: max(1, len(files) // SHARE)]}
        parts = {held: [file for file in files if (file.digest in chosen) == held] for held in (False, True)}
        self.files = {"training": parts[False], "held_out": parts[True]}
        name = f"text:{folder}" + (",repeat=true" if repeat else "")
        super().__init__(name, VOCAB_SIZE, [_joined(parts[False])], [_joined(parts[True])], repeat)
        self.checksum = hashlib.sha256("".join(f"{x.path}\0{x.digest}\n" for x in files).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Name, numbers of files and tokens, and a SHA-256 over paths and contents."""
        return {
            "name": self.name,
            "vocab_size": self.vocab_size,
            "training_files": len(self.files["training"]),
            "held_out_files": len(self.files["held_out"]),
            "training_tokens": len(self._training[0]),
            "held_out_tokens": len(self._held_out[0]),
            "sha256": self.checksum,
        }


def _joined(files: list[TextFile]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(file.content + b"\0" for file in files), dtype=np.uint8)


def read_folder(folder: Path) -> list[TextFile]:
    """The text files below a folder, in the order of their paths; at least two.

    Raises
    ------
    InputError
        as `TextCorpus`.
    """
    if not folder.is_dir():
        raise InputError(f"text:{folder}: " + ("is not a folder" if folder.exists() else "there is no such folder"))
    paths = list(_paths(folder))
    files: dict[str, TextFile] = {}
    left_out: dict[str, list[str]] = {"with a zero byte": [], "empty": [], "a copy of another file": []}
    total = 0
    for path in tqdm(paths, desc="files", unit="file", delay=2):
        content, shown = _read(path), path.relative_to(folder).as_posix()
        digest = hashlib.sha256(content).hexdigest()
        reason = "with a zero byte" if b"\0" in content else "a copy of another file" if digest in files else None
        reason = "empty" if not content else reason
        if reason is not None:
            left_out[reason].append(shown)
            continue
        total += len(content)
        if total > MOST_BYTES:
            raise InputError(f"text:{folder}: more than {MOST_BYTES >> 30} GiB of text: use a folder with less")
        files[digest] = TextFile(shown, content, digest)
    for reason, names in left_out.items():
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            warnings.warn(f"text:{folder}: left out ({reason}): {', '.join(names[:SHOWN])}{more}", stacklevel=3)
    if len(files) < 2:
        raise InputError(
            f"text:{folder}: files with text of their own: {len(files)} of {len(paths)}: put two or more there "
            "(one of them is held out)"
        )
    return list(files.values())


def _paths(folder: Path) -> Iterator[Path]:
    """Regular files that are not hidden, by their relative paths. A link to a file counts, one to a folder does not."""

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error

    found = []
    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return iter(sorted((p for p in found if p.is_file()), key=lambda path: path.relative_to(folder).as_posix()))


def _read(path: Path) -> bytes:
    """All bytes of a file that nobody writes to meanwhile."""
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            if before.st_size > MOST_BYTES:
                raise InputError(f"{path}: larger than {MOST_BYTES >> 30} GiB: use smaller files")
            content = file.read()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(content) != after.st_size:
        raise InputError(f"{path}: changed while it was read: wait until nobody writes to it")
    return content
