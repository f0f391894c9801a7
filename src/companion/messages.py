"""Words that messages share: values, counted nouns, lists of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_ROWS_NAMED = 10
"""Most rows that one message names."""


def plural(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs, 1,000,000 runs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def name_rows(rows: Sequence[Any]) -> str:
    """The first rows by name, and how many more there are: row 3; rows 3, 5; rows 2, 3, 4 and 20 more."""
    named = ", ".join(str(row) for row in rows[:MAX_ROWS_NAMED])
    more = f" and {len(rows) - MAX_ROWS_NAMED:,} more" if len(rows) > MAX_ROWS_NAMED else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {named}{more}"


def cut(text: str, length: int = 60) -> str:
    """Text on one line, at most that long; signs that do not print are escaped, as in a string literal."""
    text = " ".join(text.split())
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    return text if len(text) <= length else text[: length - 3] + "..."


def show(value: object) -> str:
    """`value` as an error message prints it: on one line, text in quotes and cut after 60 characters."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.15g}"
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")
