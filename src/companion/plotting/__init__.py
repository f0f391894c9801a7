"""Figures and tables of the book: one style, one function per figure (needs the extra `book`)."""

from companion.plotting.embed import Html, show, show_table
from companion.plotting.style import ARCHITECTURE_COLORS, ARCHITECTURE_LABELS, LABELS, subplots

__all__ = ["ARCHITECTURE_COLORS", "ARCHITECTURE_LABELS", "LABELS", "Html", "show", "show_table", "subplots"]
