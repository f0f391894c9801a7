"""Where the project's own tables are, and files that a command writes.

A target is looked at before the work, and written whole or not at all after it.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from companion.errors import InputError

DATA_VARIABLE = "COMPANION_DATA"


def data_dir() -> Path:
    """Folder of the project's tables: `$COMPANION_DATA` if set, else those of the package, else those of a checkout.

    In a checkout the tables of the package are a link to `data/`; an installed package has copies.

    Raises
    ------
    InputError
        if that folder does not hold the tables.
    """
    here = Path(__file__).resolve()
    override = os.environ.get(DATA_VARIABLE)
    # `_data` is missing in a checkout on a system without links
    folders = [Path(os.path.expanduser(override))] if override else [here.parent / "_data", here.parents[2] / "data"]
    for folder in folders:
        if (folder / "runs.csv").is_file():
            return folder.resolve()
    raise InputError(f"{folders[0]}: no runs.csv there; set {DATA_VARIABLE} to the data/ folder of a checkout")


def check_target(path: Path) -> None:
    """Raise an InputError if a file cannot be written at this place.

    A symbolic link is followed: the file that it names is the target, and the link stays.

    Raises
    ------
    InputError
        if the folder is missing, is not a folder or cannot be written to, or the target is a folder, a device or a file
        that must not be changed.
    """
    with _one_line(path):
        target = _target(path)
        try:
            status = os.stat(target)
        except FileNotFoundError:
            status = None
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path}: cannot be written: it is a folder")
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: cannot be written: it is not a regular file")
        if status is not None and not os.access(target, os.W_OK):
            raise InputError(f"{path}: cannot be written: the file is read-only")
        part = _part(target)
        part.touch()
        part.unlink()


def ensure_folder(folder: Path) -> None:
    """Make a folder, and those it is in, unless it is there.

    Raises
    ------
    InputError
        if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{str(folder)!r}: is not a folder name: {error}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a text, as UTF-8, or bytes: the target holds all of it, or what it held before.

    Raises
    ------
    InputError
        as `check_target`, or if the disk is full.
    """
    check_target(path)
    with _one_line(path):
        target = _target(path)
        part = _part(target)
        try:
            with part.open("wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                part.chmod(stat.S_IMODE(target.stat().st_mode))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """Where a link leads to; the path itself where it is none."""
    return Path(os.path.realpath(path))


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name[:200]}.{os.getpid()}.part")


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: is not a file name: {error}") from error
