"""The streams of the command: text in any encoding, and one line where they are closed or full.

Results go to stdout; notes and errors go to stderr, one line each.
"""

import errno
import os
import shlex
import sys
from typing import TextIO

_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF}


def prepare_streams() -> None:
    """Let any text pass through stdout and stderr: what an encoding lacks is written as `\\u2265`.

    A closed stderr is replaced by the null device; Python would send what is meant for it to stdout.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def writes_utf8() -> bool:
    """Whether stdout takes every character as it is."""
    return str(getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def say(line: str) -> None:
    """Print one line on stderr; drop it if stderr itself cannot be written."""
    try:
        print(" ".join(line.split()), file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def flush(status: int) -> int:
    """Write what stdout still holds; return the exit status, which is 1 where this fails and all was well before."""
    try:
        sys.stdout.flush()
    except OSError as error:
        failed = lose(error)
        return status or failed
    return status


def is_write_error(error: OSError) -> bool:
    """Whether an error comes from writing to a file or stream that is open already: a full disk, a reader who left."""
    return error.filename is None and error.errno in _WRITE_ERRORS


def lose(error: OSError) -> int:
    """The exit status after a failed write, with one line unless a reader left; what is not yet written is dropped."""
    if not isinstance(error, BrokenPipeError):
        say(f"companion: cannot write the output: {error.strerror}")
    _discard(sys.stdout)
    return 1


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds to the null device, so that the interpreter can end without a complaint."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def say_next(*words: str) -> None:
    """Print a command of this package to type next; names with spaces are quoted for a shell."""
    print(f"next: companion {shlex.join(words)}")
