"""What a table of timings says about itself: another unit than seconds, one timing listed twice."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: A column whose every time is at least this many times the roofline is taken to hold a smaller unit than seconds.
SUSPICIOUSLY_SLOW = 200.0
#: A column whose usual time is below the roofline by this factor cannot be in seconds on one device.
SUSPICIOUSLY_FAST = 0.02
#: Factors of units that people write instead of seconds.
_UNITS = {1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}


def unit_note(column: str, seconds: Array, least: Array, device: str) -> str | None:
    """A sentence if times look like another unit than seconds, with the factor; None if they do not.

    Parameters
    ----------
    column
        its name in the table.
    seconds, least
        measured times and roofline times on `device`, shape (n,); NaN where there is none.

    Notes
    -----
    The fastest timing over its roofline decides: overheads slow single passes down by a hundred times, but rarely all.
    """
    ratio = seconds / least
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size:
        return None
    fastest, usual = float(ratio.min()), float(np.median(ratio))
    if fastest >= SUSPICIOUSLY_SLOW:
        # the largest unit in which the fastest timing is no slower than a slow device would be
        factor = next((unit for unit in _UNITS if fastest / unit < SUSPICIOUSLY_SLOW), max(_UNITS))
        return (
            f"column {column!r}: every time is at least {fastest:,.0f} times the least that {device} would take, the "
            f"usual one {usual:,.0f} times; in {_UNITS[factor]}? Divide by {factor:g}: the column is in seconds"
        )
    if usual <= SUSPICIOUSLY_FAST:
        return (
            f"column {column!r}: the usual time is {usual:.2g} times the least that {device} would take (1/"
            f"{1 / usual:,.0f}); is the column in seconds, and are shapes, batch and prompt those that were timed?"
        )
    return None


def repeats_note(table: pd.DataFrame, columns: list[str]) -> str | None:
    """A sentence if rows agree in all of `columns`, times included; None if none do. The index is the row's number."""
    again = table.duplicated(columns)
    if not again.any():
        return None
    cells = table[columns].fillna(-1.0)
    row = again.index[again][0]
    first = table.index[(cells == cells.loc[row]).all(axis=1)][0]
    return (
        f"{int(again.sum())} of {len(table)} rows repeat another, times included (row {row} is row {first} again): "
        "each counts as often as it is listed, and intervals come out too narrow"
    )


def gaps_note(columns: dict[str, pd.Series]) -> str | None:
    """A sentence that names the columns of times in which no row has a time; None if there are none."""
    empty = [repr(name) for name, values in columns.items() if values.isna().all()]
    return f"column {', '.join(empty)} is empty: no row has a time there" if empty else None
