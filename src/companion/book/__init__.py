"""Execute the notebooks, build the html of the book, say what was left out; pack or print the pages."""

from companion.book.archive import write_zip
from companion.book.building import (
    BUILT,
    FAILED,
    LEFT_OUT,
    Build,
    Chapter,
    build,
)
from companion.book.costs import Costs
from companion.book.execution import NotebookError, execute
from companion.book.notebooks import (
    ROOT,
    read,
    sources,
    sync,
)
from companion.book.parameters import parameters_of
from companion.book.pdf import write_pdf

__all__ = [
    "BUILT",
    "FAILED",
    "LEFT_OUT",
    "ROOT",
    "Build",
    "Chapter",
    "Costs",
    "NotebookError",
    "build",
    "execute",
    "parameters_of",
    "read",
    "sources",
    "sync",
    "write_pdf",
    "write_zip",
]
