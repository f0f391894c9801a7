"""Checks of shapes: whole numbers, flags, and arrays of both."""

import numpy as np

from companion.errors import InputError
from companion.numeric import Numeric

#: An integer, or an array of integers that broadcasts with the other shapes.
Shape = Numeric


def positive_whole(value: Shape, field: str, *, zero: bool = False) -> Shape:
    """The value as int (or int64 array); with `zero`, 0 is allowed too.

    Raises
    ------
    InputError
        if it is not such a number; the message names the field.
    """
    array = np.asarray(value)
    numeric = np.issubdtype(array.dtype, np.number) and not np.issubdtype(array.dtype, np.complexfloating)
    if not numeric or array.dtype == bool:
        raise InputError(f"{field}: {value!r} is not a number")
    wrong = ~(np.isfinite(array) & (array == np.floor(array)) & (array >= 0 if zero else array > 0))
    if np.any(wrong):
        kind = "a whole number of at least 0" if zero else "a positive whole number"
        raise InputError(f"{field}: {array[wrong].flat[0] if array.ndim else array} is not {kind}")
    return array.astype(np.int64) if array.ndim else int(array)


def flag(value: Shape, field: str) -> Shape:
    """The value as bool (or an array of 0 and 1).

    Raises
    ------
    InputError
        if it is neither true nor false; the message names the field.
    """
    array = np.asarray(value)
    if array.dtype == object or not np.isin(array, (0, 1)).all():
        raise InputError(f"{field}: {value!r} is neither true nor false")
    return array.astype(np.int64) if array.ndim else bool(array)


def check_divides(divisor: Shape, number: Shape, words: str) -> None:
    """An InputError unless every number is a multiple of its divisor; `words` has `{number}` and `{divisor}`."""
    remainder = np.asarray(number % divisor)
    if np.any(remainder):
        found = [
            np.broadcast_to(np.asarray(v), remainder.shape).flat[np.argmax(remainder != 0)] for v in (number, divisor)
        ]
        raise InputError(words.format(number=found[0], divisor=found[1]))
