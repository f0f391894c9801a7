"""Numbers, values and lists as text, the same way in tables, captions, prose, messages and on the command line."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
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


def percent(share: float, digits: int = 2, *, decimals: int | None = None) -> str:
    """A share between 0 and 1 as percent: 12 %. With `decimals` that many of them, at any size of the share.

    The space is an ordinary one, as in terminals and files; pages make it one that does not break (`together`).

    >>> percent(0.1234), percent(0.00398), percent(0.00398, decimals=2), percent(-0.5), percent(-0.0001, decimals=1)
    ('12 %', '0.40 %', '0.40 %', '−50 %', '0.0 %')
    """
    if not math.isfinite(share):
        return "undefined"
    number = significant(100 * share, digits) if decimals is None else f"{100 * share:.{decimals}f}"
    return f"{_unsigned_zero(true_minus(number))} %"


def level_text(level: float) -> str:
    """A level or a given share as percent, with all its digits: 95 %, 99.9 %."""
    return f"{100 * level:g} %"


def signed(value: float, decimals: int = 4) -> str:
    """A change with its sign: +0.0003, −0.0018; without one where it rounds to zero."""
    return _unsigned_zero(true_minus(f"{value:+.{decimals}f}")) if math.isfinite(value) else "undefined"


def signed_percent(share: float, decimals: int = 0) -> str:
    """A change as percent with its sign: +93 %, −30 %; without one where it rounds to zero: 0 %."""
    return f"{signed(100 * share, decimals)} %" if math.isfinite(share) else "undefined"


def span_text(values: Iterable[float], style: Callable[[float], str] = percent) -> str:
    """Least and largest of some values, the unit % once: 12 to 15 %; one value if both print alike.

    >>> span_text([0.12, 0.15, math.nan]), span_text([-0.1, 0.2], signed_percent), span_text([0.12, 0.1201])
    ('12 to 15 %', '−10 to +20 %', '12 %')
    """
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    low, high = style(min(known)), style(max(known))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _unsigned_zero(number: str) -> str:
    return number.lstrip("+−") if not number.strip("+−0.") else number


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


#: Short units that stay with their number.
_UNITS = r"%|[kMGT]i?B(?:/s)?|[TPE]?FLOP(?:/s)?|bytes?|[mµn]?s|GHz|W"
#: Spaces at which a line must not break: between a number and its unit, around the sign of an equation.
_JOINED = re.compile(
    rf"(?<=\d)\s(?=(?:{_UNITS})(?![\w]))|(?<=[\w)\ufffc])\s(?=[=<>≤≥≈]\s[\d−])|(?<=[=<>≤≥≈])\s(?=[\d−])"
)


def together(text: str) -> str:
    """The text with spaces that do not break between a number and its unit and in `symbol = number`.

    >>> together("A 95 % interval at T = 8192 and 80 GB, where x = y.")
    'A 95\\xa0% interval at T\\xa0=\\xa08192 and 80\\xa0GB, where x = y.'
    """
    return _JOINED.sub("\N{NO-BREAK SPACE}", text)


_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)|(?<=s)'(?!\w)")
_QUOTED = re.compile(r"(?<![\w=])\"([^\"]+)\"(?!\w)")
_FORMULA = re.compile(r"(\\\(.*?\\\))", re.DOTALL)


def typographic(text: str) -> str:
    """The text with the apostrophes and quotation marks of a book; its length stays.

    >>> typographic("the runs' sizes, Student's t, FLOPs \"first\"")
    'the runs’ sizes, Student’s t, FLOPs “first”'
    """
    return _QUOTED.sub("“\\1”", _APOSTROPHE.sub("’", text))


def page_text(text: str) -> str:
    r"""A caption, heading, cell or sentence as a page shows it: `together` and `typographic`, formulas as they are.

    >>> page_text(r"the law's \(f'\)")
    "the law’s \\(f'\\)"
    """
    return "".join(
        piece if number % 2 else typographic(together(piece)) for number, piece in enumerate(_FORMULA.split(text))
    )
