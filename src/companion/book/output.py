"""The folder that a build writes into: what may be one, the lock, the staging folder, what is replaced."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from companion.book.archive import made_zip
from companion.book.pdf import made_pdf
from companion.errors import InputError

MARKER = ".companion-book"  # in html/: this folder is ours to replace
HTML, LOG, SUMMARY = "html", "sphinx.log", "summary.json"
ZIP, PDF = "xlstm-scaling-companion.zip", "xlstm-scaling-companion.pdf"
LOG_HEAD = "Output of Sphinx, kept by `companion book`.\n"
_LOCK, _STAGE = ".companion-book.lock", ".companion-book-stage-"
_SOURCES = ("book", "notebooks", "data", "src", "tests", ".git")  # of a checkout: nothing is built inside


def check_output(out: Path, root: Path) -> Path:
    """The absolute path of a build folder that may be written: nothing in it that a build replaces is someone else's.

    Raises
    ------
    InputError
        a file, below a file, a link, not writable, a folder that holds other things by its nature (the checkout, the
        home folder, the current one), or with something that has the name of a build's output (`html/`, `sphinx.log`,
        `summary.json`, the zip file, the PDF) and that no build made.
    """
    given, folder = out, Path(os.path.realpath(os.path.expanduser(out)))
    ancestor = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    if not ancestor.is_dir():
        raise InputError(f"output {given}: {ancestor} is a file, not a folder")
    taken = {
        Path.cwd().resolve(): "the current folder",
        Path(os.path.realpath(os.path.expanduser("~"))): "your home folder",
    }
    taken[root.resolve()] = "the checkout"
    for place, name in taken.items():
        if place == folder or place.is_relative_to(folder):
            what = name if place == folder else f"a folder above {name}"
            raise InputError(f"output {given}: {what}; give the build a folder of its own")
    if any(folder.is_relative_to(root.resolve() / name) for name in _SOURCES):
        raise InputError(f"output {given}: inside the sources of the book; give the build a folder of its own")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise InputError(f"output {given}: no permission to write into {ancestor}")
    for name, ours in _OURS.items():
        path = folder / name
        if os.path.lexists(path) and (path.is_symlink() or not ours(path)):
            raise InputError(f"{path}: not made by `companion book`, so not replaced; give another --output")
    return folder


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A new folder inside `out` to build in, removed at the end; until then no other build writes into `out`.

    Raises
    ------
    InputError
        another build is writing there, or the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = _lock(out)
    except OSError as error:
        raise InputError(f"output {out}: {error.strerror}") from error
    try:
        for left in out.glob(f"{_STAGE}*"):  # of a build that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=out, prefix=_STAGE) as stage:
            yield Path(stage)
    finally:
        (out / _LOCK).unlink()
        os.close(lock)


def publish(stage: Path, out: Path) -> Path:
    """Put the html of a stage into its place, for the earlier one; return its `index.html`."""
    (stage / MARKER).write_text("Made by `companion book`, which replaces this folder at its next build.\n")
    with tempfile.TemporaryDirectory(dir=out, prefix=_STAGE) as aside:
        earlier = Path(aside) / HTML
        if (out / HTML).is_dir():
            os.replace(out / HTML, earlier)
        try:
            os.replace(stage, out / HTML)
        except BaseException:
            if earlier.is_dir():
                os.replace(earlier, out / HTML)
            raise
    return out / HTML / "index.html"


def _lock(out: Path) -> int:
    """An open file that holds the lock on a folder; the system lets go of it when this process ends in any way."""
    path = out / _LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 20).decode().strip()
            os.close(descriptor)
            raise InputError(
                f"output {out}: another build (process {owner or 'unknown'}) is writing there; give another --output"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        os.close(descriptor)  # the build before removed the file between our two calls


def _made_html(path: Path) -> bool:
    """An html folder of ours, of a build from before the marker too, or an empty one."""
    return path.is_dir() and (
        (path / MARKER).is_file() or (path / "_static" / "companion.css").is_file() or not any(path.iterdir())
    )


def _made_log(path: Path) -> bool:
    # without the head: a log of an earlier version, which begins with the tool's name
    heads = (LOG_HEAD, "Running Jupyter-Book")
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(heads)


def _made_summary(path: Path) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["made_by"] == "companion book"
    except (OSError, ValueError, KeyError, TypeError):
        return False


#: What a build may write, and how to know that it is a build's.
_OURS = {HTML: _made_html, LOG: _made_log, SUMMARY: _made_summary, ZIP: made_zip, PDF: made_pdf}
