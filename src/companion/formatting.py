"""Numbers, values and lists as text, the same way in tables, captions, prose, messages and on the command line."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float, digits: int = 3) -> str:
    """Parameters or tokens with the field's letters: 1.07B, 83.6M; below a thousand the plain number."""
    if not math.isfinite(value):
        return "undefined"
    for size, letter in _PREFIXES:
        # rounding first: 999.6M at three digits is 1.00B
        if float(f"{abs(value):.{digits - 1}e}") >= size:
            return f"{significant(value / size, digits)}{letter}"
    return significant(value, digits)


def power_of_ten(value: float, digits: int = 2) -> str:
    """FLOPs and other large numbers: 6.0×10¹⁸; whole mantissas without decimals: 6×10¹⁸."""
    if not math.isfinite(value):
        return "undefined"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if float(mantissa) == int(float(mantissa)):
        mantissa = str(int(float(mantissa)))
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def significant(value: float, digits: int = 3) -> str:
    """Fixed notation with that many significant digits, trailing zeros kept: 0.547, 12.0, 1230."""
    if not math.isfinite(value):
        return "undefined"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{round(value, digits - 1 - magnitude):.{max(digits - 1 - magnitude, 0)}f}"


def percent(share: float, digits: int = 2) -> str:
    """A share between 0 and 1 as percent: 12 %."""
    return f"{significant(100 * share, digits)} %"


def interval(bounds: tuple[float, float], decimals: int = 3) -> str:
    """A confidence interval: [0.538, 0.556]."""
    if not all(math.isfinite(bound) for bound in bounds):
        return "undefined"
    return f"[{bounds[0]:.{decimals}f}, {bounds[1]:.{decimals}f}]"


_NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def number_word(number: int, zero: str = "no") -> str:
    """A count as prose writes it: `three`; above twelve in digits; for 0 the given word: `no runs`, `none of them`."""
    if number == 0:
        return zero
    return _NUMBER_WORDS[number - 1] if number <= len(_NUMBER_WORDS) else f"{number:,}"


def share_in_words(number: int, total: int) -> str:
    """How many of how many in a sentence: `all six`, `four of the six`, `none of the six`; above twelve in digits.

    >>> share_in_words(4, 6), share_in_words(5, 18), share_in_words(275, 275), share_in_words(0, 1)
    ('four of the six', '5 of the 18', 'all 275', '0 of 1')
    """
    every = number_word(total)
    if total <= 1:
        return f"{number} of {total}"
    if number == total:
        return "both" if total == 2 else f"all {every}"
    if number == 0 and total == 2:
        return "neither of the two"
    some = f"{number:,}" if number and total > len(_NUMBER_WORDS) else number_word(number, "none")
    return f"{some} of the {every}"


def listed(texts: Iterable[object]) -> str:
    """Texts as a list in a sentence: `a`, `a and b`, `a, b and c`; of none the empty text."""
    *first, last = [str(text) for text in texts] or [""]
    return f"{', '.join(first)} and {last}" if first else last


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


def quoted(value: object) -> str:
    """`value` as an error message prints it: on one line, text in quotes and cut after 60 characters."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.15g}"
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


#: A hyphen that stands for a minus: before a number, behind nothing that it could join to it.
_HYPHEN = re.compile(r"(?<![\w)\]}\-–])-(?=\.?\d)")


def true_minus(text: str) -> str:
    """The text with a minus sign (U+2212) where a hyphen stands before a number: `[−0.054, −0.004]`.

    >>> true_minus("-0.029 [-0.054, 0.1], 10-fold, 2019-20")
    '−0.029 [−0.054, 0.1], 10-fold, 2019-20'
    """
    return _HYPHEN.sub("−", text)


def signed_percent(share: float, decimals: int = 0) -> str:
    """A change as percent with its sign: +93 %, −30 %."""
    return true_minus(f"{100 * share:+.{decimals}f} %")
