"""An append-only file of entries in which every entry holds the hash of the one before: edits show.

One JSON object per line: `number`, `kind`, `body`, `previous`, `hash`; the hash is SHA-256 of the other four. A second
file, the head, holds the number of entries and the last hash, so that entries missing at the end show too.

The hashes find accidents and edits by hand. Whoever writes the whole file anew, hashes included, is not found this way:
`companion.study.laboratory.grading` runs every ask again for that.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from companion.errors import InputError
from companion.paths import write_whole
from companion.study.laboratory.chance import canonical
from companion.tables import json_fault, open_table, unreadable

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

#: What stands for the hash before the first entry.
NO_HASH = "0" * 64
#: Largest file of a laboratory that is read, bytes.
MAX_BYTES = 64 * 2**20
#: Seconds after which waiting for a lock is worth a word.
_PATIENCE = 2.0
_FIELDS = {"number", "kind", "body", "previous", "hash"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a chain: what happened (`kind`), its `body` of plain values, and its place."""

    number: int
    kind: str
    body: Mapping[str, Any]
    previous: str

    @property
    def hash(self) -> str:
        """SHA-256 of number, kind, body and the hash before, 64 hex digits."""
        return hashlib.sha256(canonical([self.number, self.kind, self.body, self.previous]).encode("ascii")).hexdigest()

    def line(self) -> str:
        """The entry as a line of the file, with its line feed."""
        return (
            canonical(
                {
                    "number": self.number,
                    "kind": self.kind,
                    "body": self.body,
                    "previous": self.previous,
                    "hash": self.hash,
                }
            )
            + "\n"
        )


def next_entry(entries: Sequence[Entry], kind: str, body: Mapping[str, Any]) -> Entry:
    """The entry that follows others.

    Examples
    --------
    >>> first = next_entry([], "open", {})
    >>> next_entry([first], "ask", {"seed": 0}).previous == first.hash
    True
    """
    return Entry(number=len(entries), kind=kind, body=dict(body), previous=entries[-1].hash if entries else NO_HASH)


@dataclass(frozen=True)
class Chain:
    """The entries of a file and what is beside it.

    Attributes
    ----------
    path
        of the entries; the head is beside it, with the suffix `.head`.
    """

    path: Path

    @property
    def head_path(self) -> Path:
        """The file with the number of entries and the last hash."""
        return self.path.with_suffix(".head")

    def read(self) -> tuple[list[Entry], list[str]]:
        """All entries, checked, and notes on what was left out: a last line that a crash cut off.

        Raises
        ------
        InputError
            that names the file and the line that was changed, added or removed. Nothing is written.
        """
        entries, rest = parse(read_bytes(self.path), str(self.path))
        self._check_head(entries)
        notes = []
        if rest:
            notes.append(f"{self.path}: line {len(entries) + 1} was cut off while it was written and is left out")
        return entries, notes

    def _check_head(self, entries: Sequence[Entry]) -> None:
        """Raise unless the file holds what the head knows of; one more entry is a crash before the head was written."""
        text = read_bytes(self.head_path).decode("ascii", errors="replace").split()
        if len(text) != 2 or not text[0].isdecimal() or len(text[0]) > 12:
            raise InputError(f"{self.head_path}: is not a number of entries and a hash; restore it from a copy")
        number, last = int(text[0]), text[1]
        if number > len(entries):
            raise InputError(
                f"{self.path}: line {len(entries) + 1} is missing: {number} entries were written, {len(entries)} are "
                "there; restore the file from a copy"
            )
        if number and entries[number - 1].hash != last:
            raise InputError(f"{self.path}: line {number} is not the entry that was written; restore it from a copy")

    def append(self, new: Sequence[Entry], entries: Sequence[Entry]) -> None:
        """Add entries behind those that `read` returned; call it inside `locked`.

        Raises
        ------
        InputError
            if the file cannot be written; it then holds what it held before.
        """
        try:
            with open(self.path, "r+b") as file:
                kept = sum(len(entry.line()) for entry in entries)
                file.seek(0, os.SEEK_END)
                size = file.tell()
                if size > kept:
                    file.truncate(kept)  # the rest of a line that a crash cut off
                file.seek(kept)
                try:
                    file.write("".join(entry.line() for entry in new).encode("ascii"))
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(kept)
                    raise
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        self._write_head([*entries, *new])

    def create(self, first: Entry) -> None:
        """Begin the file with one entry.

        Raises
        ------
        InputError
            if it cannot be written.
        """
        write_whole(self.path, first.line())
        self._write_head([first])

    def _write_head(self, entries: Sequence[Entry]) -> None:
        write_whole(self.head_path, f"{len(entries)} {entries[-1].hash}\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out: who reads, decides and appends inside it does so alone.

        Who waits for more than two seconds is warned that it does: another process may be training.

        Raises
        ------
        InputError
            if the system has no file locks (Windows without WSL), or the folder cannot be written to.
        """
        if fcntl is None:
            raise InputError(f"{self.path}: a laboratory needs file locks, which this system lacks; use WSL")
        lock = self.path.with_suffix(".lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"{lock}: cannot be written: {error.strerror}") from error
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        """Take the lock as soon as it is free."""
        begin = time.monotonic()
        while time.monotonic() - begin < _PATIENCE:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
        warnings.warn(f"{self.path.parent}: another process is at work in this laboratory; waiting", stacklevel=5)
        return fcntl.flock(descriptor, fcntl.LOCK_EX)


def parse(data: bytes, source: str) -> tuple[list[Entry], bytes]:
    """The entries in the bytes of a file, and what follows the last line feed: a line that was never finished.

    Raises
    ------
    InputError
        that begins with `source` and names the first line that is not what was written.

    Examples
    --------
    >>> first = next_entry([], "open", {})
    >>> entries, rest = parse(first.line().encode() + b'{"number":1,"ki', "ledger.jsonl")
    >>> entries == [first], rest
    (True, b'{"number":1,"ki')
    """
    *lines, rest = data.split(b"\n")
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        place = f"{source}: line {number}"
        entry = _entry(line, place)
        expected = entries[-1].hash if entries else NO_HASH
        if entry.number != len(entries) or entry.previous != expected:
            raise InputError(f"{place} does not follow the line before it; restore the file from a copy")
        if entry.line().encode("ascii") != line + b"\n":
            raise InputError(f"{place} was changed after it was written; restore the file from a copy")
        entries.append(entry)
    if not entries:
        raise InputError(f"{source}: has no whole line; restore the file from a copy")
    return entries, rest


def _entry(line: bytes, place: str) -> Entry:
    """The entry of a line, its types checked."""
    try:
        read = json.loads(line.decode("ascii"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise InputError(f"{place} holds characters that are not ASCII; restore the file from a copy") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON: {json_fault(error)}; restore the file from a copy") from None
    types = {"number": int, "kind": str, "body": dict, "previous": str, "hash": str}
    if (
        not isinstance(read, dict)
        or set(read) != _FIELDS
        or any(type(read[name]) is not kind for name, kind in types.items())
    ):
        raise InputError(f"{place} is not an entry of a ledger; restore the file from a copy")
    entry = Entry(number=read["number"], kind=read["kind"], body=read["body"], previous=read["previous"])
    try:
        entry.line()
    except (ValueError, RecursionError):  # 1e999 reads as infinity, which no line that was written holds
        raise InputError(f"{place} was changed after it was written; restore the file from a copy") from None
    return entry


def _refuse(name: str) -> None:
    raise json.JSONDecodeError(f"{name} is no number of JSON", "", 0)


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file of a laboratory.

    Raises
    ------
    InputError
        if it is missing, a folder, too large or cannot be read.
    """
    try:
        with open_table(path, MAX_BYTES) as file:
            return file.read()
    except OSError as error:
        raise unreadable(str(path), error) from None


def read_json(path: Path) -> Any:
    """The value in a JSON file (UTF-8).

    Raises
    ------
    InputError
        if it cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_bytes(path).decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not JSON: {json_fault(error)}") from None
