"""Signs as a page prints them: a true minus before a number, and a change in percent with its sign."""

import re
from typing import Any

from companion.plotting import Html
from companion.plotting import show_table as plain_table

#: A hyphen that stands for a minus: before a number, behind nothing that it could join to it.
_HYPHEN = re.compile(r"(?<![\w)\]}\-–])-(?=\.?\d)")
_TEXT = re.compile(r">([^<]*)<")


def true_minus(text: str) -> str:
    """The text with a minus sign (U+2212) where a hyphen stands before a number: `[−0.054, −0.004]`.

    Examples
    --------
    >>> true_minus("-0.029 [-0.054, 0.1], 10-fold, 2019-20")
    '−0.029 [−0.054, 0.1], 10-fold, 2019-20'
    """
    return _HYPHEN.sub("−", text)


def signed_percent(share: float, decimals: int = 0) -> str:
    """A change as percent with its sign: +93 %, −30 %."""
    return true_minus(f"{100 * share:+.{decimals}f} %")


def show_table(*args: Any, **options: Any) -> Html:
    """`companion.plotting.show_table` whose cells have true minus signs."""
    return Html(_TEXT.sub(lambda found: f">{true_minus(found[1])}<", plain_table(*args, **options).markup))
