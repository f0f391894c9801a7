"""The built pages as one zip file, the same bytes for the same pages."""

import os
import zipfile
from pathlib import Path

#: Folder inside the archive, and what the archive says of itself.
FOLDER, COMMENT = "xlstm-scaling-companion", b"Made by `companion book`."
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip file can hold
_FILE = 0o100644 << 16


def write_zip(html: Path, target: Path) -> Path:
    """Pack a folder of html into `target`, replaced in one step; return its path.

    Names are sorted, dates and permissions fixed: two builds of one commit differ only where their pages do.

    Parameters
    ----------
    html
        folder of the built pages; files whose names begin with a dot are left out.
    target
        the zip file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (html := Path(folder) / "html").mkdir()
    ...     _ = (html / "index.html").write_text("a page")
    ...     write_zip(html, Path(folder) / "book.zip").name
    'book.zip'
    """
    paths = sorted(path for path in html.rglob("*") if path.is_file() and not path.name.startswith("."))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "w", compresslevel=9) as archive:
            archive.comment = COMMENT
            for path in paths:
                entry = zipfile.ZipInfo(f"{FOLDER}/{path.relative_to(html).as_posix()}", _EPOCH)
                entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, _FILE, 3
                archive.writestr(entry, path.read_bytes())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def made_zip(path: Path) -> bool:
    """Whether a file is a zip file of ours."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return archive.comment == COMMENT
