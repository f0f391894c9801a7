"""The built pages as one PDF: chromium prints every page, pypdf puts them together with links and an outline."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from companion.errors import InputError

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PRODUCER = "companion book"
_OPTIONS = (
    "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-pdf-header-footer",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
_TYPESET_MS = 30_000  # of virtual time: MathJax and the explorer finish within it, and no clock waits for it
_TIMEOUT = 300


def find_chromium() -> str:
    """Path of a chromium or chrome.

    Raises
    ------
    InputError
        there is none on PATH.
    """
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        raise InputError(f"--pdf: no chromium on PATH (looked for {', '.join(CHROMIUM)}); install one, or print a page")
    return found


def check_pdf() -> None:
    """Raise an InputError unless a PDF can be made here: better before the build than after it."""
    find_chromium()
    try:
        import pypdf  # noqa: F401
    except ImportError as error:
        raise InputError("--pdf needs pypdf: pip install pypdf, or the extra 'book'") from error


def write_pdf(html: Path, target: Path, *, jobs: int | None = None) -> Path:
    """Print the pages of a built book into one PDF, in the order of its contents; return its path.

    Links between pages lead to the page's first sheet. The outline has one entry a page.

    Parameters
    ----------
    html
        folder of the built pages.
    target
        the PDF, replaced in one step.
    jobs
        pages printed at a time; all cores by default.

    Raises
    ------
    InputError
        no chromium, no pypdf, or a page that cannot be printed.

    Examples
    --------
    >>> write_pdf(Path("_build/html"), Path("book.pdf"))  # doctest: +SKIP
    PosixPath('book.pdf')
    """
    check_pdf()
    chromium, names = find_chromium(), page_names(html)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="companion-pdf-") as folder:
        sheets = [Path(folder) / f"{number}.pdf" for number in range(len(names))]
        with ThreadPoolExecutor(max_workers=max(1, min(jobs or cores, len(names)))) as pool:
            list(pool.map(lambda name, sheet: _print(chromium, html / name, sheet), names, sheets))
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            _merge(html, names, sheets, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return target


def page_names(html: Path) -> list[str]:
    """The pages of a book below its folder, in the order of its table of contents, the front page first."""
    from bs4 import BeautifulSoup

    index = (html / "index.html").read_text(encoding="utf-8")
    leads_to = re.search(r'http-equiv="refresh"[^>]*url=([^"]+)"', index, re.IGNORECASE)
    front = leads_to[1] if leads_to else "index.html"
    contents = BeautifulSoup((html / front).read_text(encoding="utf-8"), "html.parser").select(".bd-links a[href]")
    linked = [unquote(urlsplit(str(link["href"])).path) for link in contents]
    return list(dict.fromkeys([front, *(name for name in linked if name and (html / name).is_file())]))


def made_pdf(path: Path) -> bool:
    """Whether a file is a PDF of ours."""
    content = path.read_bytes()
    return content.startswith(b"%PDF") and PRODUCER.encode() in content


def _print(chromium: str, page: Path, sheet: Path) -> None:
    """Print one page, from its file."""
    profile = f"--user-data-dir={sheet.with_suffix('.profile')}"
    # chromium refuses root its sandbox
    rights = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [chromium, *_OPTIONS, *rights, profile, f"--virtual-time-budget={_TYPESET_MS}"]
    command += [f"--print-to-pdf={sheet}", page.resolve().as_uri()]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"--pdf: {page.name}: chromium did not finish within {_TIMEOUT} s") from error
    if run.returncode != 0 or not sheet.is_file():
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"--pdf: {page.name}: chromium failed ({last})")


def _merge(html: Path, names: Sequence[str], sheets: Sequence[Path], target: Path) -> None:
    """Put the printed pages together: outline, links between pages, title."""
    from pypdf import PdfReader, PdfWriter

    writer, first = PdfWriter(), {}
    for name, sheet in zip(names, sheets, strict=True):
        first[(html / name).resolve()] = len(writer.pages)
        reader = PdfReader(sheet)
        for printed in reader.pages:
            writer.add_page(printed)
        title = str((reader.metadata.title if reader.metadata else None) or name).split(" — ")[0]
        writer.add_outline_item(title=title, page_number=first[(html / name).resolve()])
    for printed in writer.pages:
        _link(writer, printed, first)
    writer.add_metadata({"/Title": _title(sheets[0]), "/Producer": PRODUCER, "/Creator": PRODUCER})
    writer.compress_identical_objects()
    with target.open("wb") as file:
        writer.write(file)


def _link(writer: Any, printed: Any, first: dict[Path, int]) -> None:
    """Turn links to files of this machine into links to sheets; those to files that were not printed go."""
    from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NullObject

    kept = ArrayObject()
    for annotation in printed.get("/Annots", []):
        entry = annotation.get_object()
        action = entry.get("/A", DictionaryObject()).get_object()
        address = urlsplit(str(action.get("/URI", "")))
        if address.scheme == "file":
            number = first.get(Path(unquote(address.path)).resolve())
            if number is None:
                continue
            del entry["/A"]
            top = [NameObject("/XYZ"), NullObject(), NullObject(), NullObject()]
            entry[NameObject("/Dest")] = ArrayObject([writer.pages[number].indirect_reference, *top])
        kept.append(annotation)
    if "/Annots" in printed:
        printed[NameObject("/Annots")] = kept


def _title(sheet: Path) -> str:
    """The title of the book: what follows the page's own in the front page's title."""
    from pypdf import PdfReader

    found = PdfReader(sheet).metadata
    return str((found.title if found else None) or "").split(" — ")[-1]
