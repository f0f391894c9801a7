"""Notebooks as files: sources in MyST, the paired .ipynb, cells, and text that is the same in every run."""

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from companion.errors import InputError

#: Checkout that this package runs from; an installed wheel has none.
ROOT = Path(__file__).resolve().parents[3]

_CODE_CELL = re.compile(r"^```\{code-cell\}", re.MULTILINE)

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}


def sync(notebooks: Path | None = None, *, check: bool = False) -> list[Path]:
    """Write the .ipynb beside every MyST notebook, without outputs; return those that were out of step.

    Parameters
    ----------
    notebooks
        folder of the notebooks, by default the checkout's `notebooks/`.
    check
        only say which are out of step, write nothing. An .ipynb without its .md counts too.

    Raises
    ------
    InputError
        the folder does not exist, or a source cannot be read as a notebook.

    Examples
    --------
    >>> sync(Path("notebooks"), check=True)
    []
    """
    folder = ROOT / "notebooks" if notebooks is None else notebooks
    changed = []
    for source in sources(folder):
        pair, text = source.with_suffix(".ipynb"), dump(read(source))
        if not pair.is_file() or pair.read_text(encoding="utf-8") != text:
            changed.append(pair)
            if not check:
                write(pair, text)
    orphans = [path for path in sorted(folder.glob("*.ipynb")) if not path.with_suffix(".md").is_file()]
    return changed + (orphans if check else [])


def sources(folder: Path) -> list[Path]:
    """All MyST notebooks of a folder, in the order of the book.

    Raises
    ------
    InputError
        the folder does not exist.

    Examples
    --------
    >>> [path.name for path in sources(Path("notebooks"))][0]
    '00_paper_in_ten_minutes.md'
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of notebooks")
    return sorted(path for path in folder.glob("*.md") if path.name.lower() != "readme.md")


def pages_with_code(folder: Path) -> list[Path]:
    """The MyST notebooks among the pages of a book: they are executed in their place, as chapters are in theirs."""
    return [page for page in sorted(folder.glob("*.md")) if _CODE_CELL.search(page.read_text(encoding="utf-8"))]


def read(source: Path) -> Any:
    """One notebook (.md or .ipynb) as an nbformat node: no outputs, cell ids made from the cells' text.

    Raises
    ------
    InputError
        there is no such file, or it is not a notebook.

    Examples
    --------
    >>> notebook = read(Path("notebooks/90_ledger.md"))
    >>> [cell.metadata.tags[0] for cell in notebook.cells if "tags" in cell.metadata][0]
    'parameters'
    """
    import jupytext

    try:
        notebook = jupytext.read(source, fmt="md:myst" if source.suffix == ".md" else None)
    except Exception as error:  # jupytext, nbformat and yaml each raise their own
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source}: not a notebook: {first}") from error
    metadata = {"kernelspec": dict(KERNELSPEC), "language_info": dict(LANGUAGE)}
    if formats := notebook.metadata.get("jupytext", {}).get("formats"):
        metadata["jupytext"] = {"formats": formats}
    notebook.metadata = type(notebook)(metadata)
    return name_cells(notebook)


def name_cells(notebook: Any) -> Any:
    """Give every cell an id made from its text, numbered where texts repeat."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def dump(notebook: Any) -> str:
    """The text of an .ipynb file."""
    import nbformat

    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return str(nbformat.writes(notebook, version=nbformat.NO_CONVERT)).rstrip("\n") + "\n"


def write(path: Path, text: str) -> None:
    """Replace a file in one step, unless it holds this text already."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8") == text:
            return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
