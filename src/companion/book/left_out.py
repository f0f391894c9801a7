"""The page that stands in for a chapter which could not be built from a reader's own table."""

import re
from typing import Any

_LABEL = re.compile(r"^(?:\(([^()\s]+)\)=|:(?:label|name): *(\S+))\s*$", re.MULTILINE)
_EQUATION = re.compile(r"^\$\$(.*?)\$\$ *\(([^()\s]+)\)\s*$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r"^#\s+(.+?)\s*$", re.MULTILINE)
_FOLDERS = re.compile(r"(?<!\S)/(?:[^\s/:]+/)+(?=[^\s/:]+)")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def stand_in(notebook: Any, reason: str, *, failed: bool = False, others: str = "") -> Any:
    """A notebook of text alone: the title of a chapter, and why the chapter is missing.

    Parameters
    ----------
    notebook
        the chapter as an nbformat node; it is not changed.
    reason
        one line of plain text; nothing in it is read as Markdown.
    failed
        the fault is the chapter's, not the table's.
    others
        the text of all other pages. Labels and numbered equations of the chapter that it names come along, so that
        references lead here.
    """
    import nbformat

    text = "\n\n".join(cell.source for cell in notebook.cells)
    title = match.group(1) if (match := _TITLE.search(text)) else "Untitled"
    names = dict.fromkeys(first or second for first, second in _LABEL.findall(text))
    labels = "".join(f"({name})=\n" for name in names if _named(name, others))
    head = "This chapter failed" if failed else "Not in this build of the book"
    kind = "error" if failed else "note"
    plain = _PUNCTUATION.sub(r"\\\1", " ".join(without_folders(reason).split()))
    cells = [f"{labels}# {title}\n\n:::{{admonition}} {head}\n:class: {kind}\n{plain}\n:::\n"]
    cells += [f"$${body}$$ ({name})\n" for body, name in _EQUATION.findall(text) if _named(name, others)]
    made = type(notebook)(nbformat=4, nbformat_minor=5, metadata=dict(notebook.metadata), cells=[])
    made.cells = [nbformat.v4.new_markdown_cell(cell) for cell in cells]
    return made


def without_folders(reason: str) -> str:
    """A reason with the names of files instead of their paths: a page may be shown to others."""
    return _FOLDERS.sub("", reason)


def _named(label: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(label)}(?![\w-])", text) is not None
