"""Text cells of a run table as typed values, with one line that names row, column and value for the first bad cell."""

import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.formatting import cut, quoted
from companion.runs.schema import COLUMNS, ROUNDED_COLUMNS, ColumnSpec, fraction_fault

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}([,' ]\d{3}){2,}(\.\d+)?|[+-]?\d{1,3}(,\d{3})+\.\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?", re.ASCII)
_SUFFIX = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)\s*[kKmMbBgGtT]", re.ASCII)
_NO_VALUE = {"nan", "null", "none", "na", "n/a", "#n/a", "<na>"}
_INFINITE = {"inf", "infinity", "#div/0!"}
_FLAGS = {"false": "0", "no": "0", "true": "1", "yes": "1"}
_INT64_MAX = 2**63 - 1


def is_number(text: str) -> bool:
    """Whether a cell, stripped of white space, holds a finite number."""
    return _bad_cell(text, None) is None and bool(text)


def _bad_cell(text: str, spec: ColumnSpec | None) -> str | None:
    """What is wrong with a cell that should hold a number, or None."""
    if not text:
        return "the cell is empty" if spec is not None and spec.required else None
    plain = text.lower().lstrip("+-")
    if plain in _NO_VALUE:
        return f"{quoted(text)} is not a value" + ("" if spec is None or spec.required else "; leave the cell empty")
    if plain in _INFINITE or (_NUMBER.fullmatch(text) and np.isinf(float(text))):
        return f"{quoted(text)} is infinite"
    if _NUMBER.fullmatch(text):
        return None
    reason = ""
    if _THOUSANDS.fullmatch(text):
        reason = ": remove the separators of thousands"
    elif _DECIMAL_COMMA.fullmatch(text):
        reason = f": write the decimal point, {text.replace(',', '.')}"
    elif _SUFFIX.fullmatch(text):
        reason = ": write the number out, without a letter for its unit"
    return f"{quoted(text)} is not a number{reason}"


def _floats(cells: Sequence[str]) -> NDArray[np.float64]:
    """All cells as numbers, empty ones as NaN. Raises a ValueError if one is something else."""
    joined = "".join(cells)
    if "_" in joined or not joined.isascii():
        raise ValueError("Python reads 1_000 and other scripts' digits; a table should not hold them")
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return np.fromiter((float(cell.strip() or "nan") for cell in cells), np.float64, len(cells))


def _numbers(texts: Sequence[str], rows: Sequence[int], spec: ColumnSpec, source: str) -> NDArray[np.float64]:
    try:
        values = _floats(texts)
        suspicious = np.flatnonzero(~np.isfinite(values)).tolist()
    except ValueError:
        values, suspicious = np.empty(0), list(range(len(texts)))
    for i in suspicious:
        if problem := _bad_cell(texts[i].strip(), spec):
            raise InputError(f"{source}: row {rows[i]}, column {spec.name!r}: {problem}")
    return values


def _texts(cells: Sequence[str], lower: bool = False) -> list[str | None]:
    """Cells without white space around them, empty ones as None; equal cells share one string."""
    known = {cell: (cell.strip().lower() if lower else cell.strip()) or None for cell in set(cells)}
    return [known[cell] for cell in cells]


def convert(name: str, cells: Sequence[str], rows: Sequence[int], source: str) -> pd.Series:
    """Turn the text cells of one column into values.

    Parameters
    ----------
    name, cells
        a key of `COLUMNS` and its cells (n,); an empty cell means "not known" and is allowed in optional columns.
    rows
        row numbers (n,) for messages.

    Returns
    -------
    Series
        shape (n,): int64 for integers, float64 for numbers, for integers with empty cells (NaN) and for columns of
        `ROUNDED_COLUMNS` that hold fractions (`check_runs` rounds them), str for text.

    Raises
    ------
    InputError
        for the first cell that is empty though required, not a number, NaN, infinite, not whole or beyond 2^63.
    """
    spec = COLUMNS[name]
    if spec.kind == "text":
        texts = _texts(cells, lower=name == "architecture")
        if spec.required and any(text is None or text.lower() in _NO_VALUE for text in set(texts)):
            at, bad = next((i, t) for i, t in enumerate(texts) if t is None or t.lower() in _NO_VALUE)
            problem = "the cell is empty" if bad is None else f"{quoted(cells[at].strip())} is not a value"
            raise InputError(f"{source}: row {rows[at]}, column {name!r}: {problem}")
        return pd.Series(texts, name=name)
    if spec.kind == "flag":
        cells = [_FLAGS.get(cell.strip().lower(), cell) for cell in cells]
    values = _numbers(cells, rows, spec, source)
    return pd.Series(values if spec.kind == "number" else _whole(spec, values, cells, rows, source), name=name)


def _whole(
    spec: ColumnSpec, values: NDArray[np.float64], cells: Sequence[str], rows: Sequence[int], source: str
) -> NDArray[np.int64] | NDArray[np.float64]:
    """Values as whole numbers, exact beyond 2^53."""
    known = ~np.isnan(values)
    exact: dict[int, int] = {}
    for i in np.flatnonzero(known & (np.abs(values) >= 2.0**53)).tolist():  # float64 misses whole numbers from here on
        text = cells[i].strip()
        exact[i] = int(Decimal(text).to_integral_value())
        if abs(exact[i]) > _INT64_MAX:
            problem = f"{cut(text)} is beyond 2^63, too large for a count"
            raise InputError(f"{source}: row {rows[i]}, column {spec.name!r}: {problem}")
    fractions = np.flatnonzero(known & (np.abs(values - np.rint(values)) > 1e-6)).tolist()
    for i in fractions:
        if problem := fraction_fault(spec.name, float(values[i])):
            raise InputError(f"{source}: row {rows[i]}, column {spec.name!r}: {cut(cells[i].strip())} {problem}")
    if fractions and spec.name in ROUNDED_COLUMNS:
        return values
    if not known.all():
        return np.rint(values)
    values[list(exact)] = 0.0
    integers = np.rint(values).astype(np.int64)
    for i, value in exact.items():
        integers[i] = value
    return integers


def convert_unknown(name: str, cells: Sequence[str]) -> pd.Series:
    """A column the package does not know: float64 if every filled cell is a finite number, else the text as it is."""
    texts = _texts(cells)
    if any(text is not None for text in set(texts)):
        try:
            values = _floats(cells)
        except ValueError:
            return pd.Series(texts, name=name)
        if all(_bad_cell(cells[i].strip(), None) is None for i in np.flatnonzero(~np.isfinite(values)).tolist()):
            return pd.Series(values, name=name)
    return pd.Series(texts, name=name)
