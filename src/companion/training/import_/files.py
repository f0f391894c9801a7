"""The files of a log: which there are, what kind each is, its bytes and their checksum."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from companion.errors import InputError
from companion.tables import open_table, path_name, unpacked, unreadable

#: Largest file that is read, and largest it may unpack to, bytes.
MAX_LOG_BYTES = 2**30
#: Kinds by the ending of a name.
KINDS = {
    ".pkl": "authors", ".pickle": "authors", ".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl",
    ".ndjson": "jsonl", ".tfevents": "events",
}  # fmt: skip
_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class LogFile:
    """A file to read: its path, its kind (a value of `KINDS`), and the key of a run that has no name of its own."""

    path: Path
    kind: str
    key: str


def find_files(paths: Sequence[Path], kind: str | None = None) -> list[LogFile]:
    """The files of logs among paths, those in folders too.

    Of a folder: the released pickles in it or in its `data`; else all event files under it, each folder of them one
    run; else the CSV and JSON files in it.

    Raises
    ------
    InputError
        one line: nothing there, or an ending that is not known.
    """
    found = []
    for path in paths:
        if not os.path.lexists(path):
            raise InputError(f"{path}: no such file")
        if not path.is_dir():
            found.append(LogFile(path, kind or _kind(path), _key(path)))
            continue
        pickles = sorted(path.glob("*_wandb_data.pkl")) or sorted((path / "data").glob("*_wandb_data.pkl"))
        events = [] if pickles else sorted(each for each in path.rglob("*.tfevents.*") if each.is_file())
        tables = sorted(p for p in path.iterdir() if p.is_file() and _ending(p) in KINDS and p.suffix != ".pkl")
        if pickles:
            found += [LogFile(each, "authors", _key(each)) for each in pickles]
        elif events:
            found += [LogFile(each, "events", _relative(each.parent, path)) for each in events]
        elif tables:
            found += [LogFile(each, _kind(each), _key(each)) for each in tables]
        else:
            raise InputError(f"{path}: is a folder without logs: no *_wandb_data.pkl, *.tfevents.*, CSV or JSON files")
    return found


def read_file(path: Path) -> tuple[bytes, str]:
    """The bytes of a file, unpacked where gzip compressed them, and the SHA-256 of the file as it is.

    Raises
    ------
    InputError
        one line: it cannot be read, is too large or cut off, or is a pointer that stands for a large file.
    """
    source = path_name(path)
    try:
        with open_table(path, MAX_LOG_BYTES) as file:
            data = file.read()
    except OSError as error:
        raise unreadable(source, error) from None
    digest = hashlib.sha256(data).hexdigest()
    if data.startswith(_POINTER):
        raise InputError(f"{source}: is a pointer of Git LFS, not the file: run 'git lfs pull' in the clone")
    if not data:
        raise InputError(f"{source}: the file is empty")
    return unpacked(data, source, MAX_LOG_BYTES), digest


def check_digests(given: Sequence[str], digests: dict[str, str]) -> None:
    """Compare checksums that a reader has, `HEX` or `NAME=HEX`, with those of the files, path -> SHA-256.

    Raises
    ------
    InputError
        one line: it is not a checksum, or no file has it.
    """
    for text in given:
        name, _, wanted = text.rpartition("=")
        wanted = wanted.strip().lower()
        if not re.fullmatch(r"[0-9a-f]{64}", wanted):
            raise InputError(f"--sha256 {text}: 64 hexadecimal digits are needed, or NAME=DIGITS")
        those = {path: digest for path, digest in digests.items() if not name or name in (path, Path(path).name)}
        if not those:
            raise InputError(f"--sha256 {text}: no file of that name was read")
        if wanted not in those.values():
            path, digest = next(iter(those.items()))
            others = "" if len(those) == 1 else f", nor of {len(those) - 1} others"
            raise InputError(f"{path}: --sha256 {wanted[:16]}... is not the checksum of the file ({digest}){others}")


def _ending(path: Path) -> str:
    if ".tfevents" in path.name:
        return ".tfevents"
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _kind(path: Path) -> str:
    ending = _ending(path)
    if ending not in KINDS:
        raise InputError(f"{path}: format {ending or 'without an ending'} is not known; give --format")
    return KINDS[ending]


def _key(path: Path) -> str:
    """A key for a run without one. The name of an event file names the machine: then that of its folder."""
    if _ending(path) == ".tfevents":
        return path.resolve().parent.name or "run"
    return Path(path.name.removesuffix(".gz")).stem


def _relative(folder: Path, root: Path) -> str:
    return root.resolve().name or "run" if folder == root else folder.relative_to(root).as_posix()
