"""Small JSON files that a reader may have changed: read whole, or an error of one line. No torch, no pandera."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from companion.errors import InputError


def read_json(path: str | os.PathLike[str], limit: int) -> Any:
    """What a JSON file in UTF-8 holds.

    Parameters
    ----------
    limit
        largest file that is read, bytes.

    Raises
    ------
    InputError
        one line that begins with the path: it is missing, no regular file, too large, not readable.
    NotJson
        the same for what the file holds.
    """
    source = check_regular(path, limit)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NotJson(f"{source}: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"{source}: is not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise NotJson(f"{source}: is not JSON that can be read: nested too deeply") from None
    except ValueError:
        raise NotJson(f"{source}: is not JSON that can be read: a number has too many digits") from None


def check_regular(path: str | os.PathLike[str], limit: int) -> str:
    """The name of a file as messages show it, if it is a regular file of at most `limit` bytes.

    Raises
    ------
    InputError
        if it is not.
    """
    source = os.fspath(path)
    source = source if source.isprintable() and source else repr(source)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise InputError(f"{source}: no such file") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{source}: is not a file name: {error}") from error  # a NUL in it
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{source}: is {'a folder' if stat.S_ISDIR(status.st_mode) else 'no regular file'}")
    if status.st_size > limit:
        raise InputError(f"{source}: the file is too large: {status.st_size:,} bytes, the limit is {limit:,}")
    return source


class NotJson(InputError):
    """A file that is not JSON in UTF-8."""
