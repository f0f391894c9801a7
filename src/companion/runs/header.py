"""Column names of a run table, and what a misspelled one may stand for."""

import difflib
import re
from collections.abc import Sequence

from companion.errors import InputError
from companion.formatting import cut, quoted
from companion.runs.cells import is_number
from companion.runs.schema import COLUMNS, REQUIRED_COLUMNS, ROUNDED_COLUMNS

_SYMBOLS = {"n": "num_params", "d": "num_tokens", "c": "train_flops", "arch": "architecture", "model": "architecture"}
_SIZE = re.compile(r"(?<![a-z0-9.])\d+(\.\d+)?[kmbt](?![a-z])", re.ASCII | re.IGNORECASE)


def check_header(
    names: Sequence[str], source: str, row: int = 1, strict: bool = False, cells: Sequence[Sequence[str]] = ()
) -> list[str]:
    """What a reader should know about the column names of a table: notes of one line, most often none.

    A required column that is missing, a name given twice, no name, or a name that looks like a misspelled known one is
    an error. Any other unknown column is kept and noted; with `strict` it is an error too.

    Parameters
    ----------
    cells
        first rows of the table: a column is offered as a misspelled one only if its values fit.

    Raises
    ------
    InputError
        one line with `source`, `row` (of the header) and the column.
    """
    where = f"{source}: row {row}, column"
    for place, name in enumerate(names, start=1):
        if not name:
            raise InputError(f"{where} {place}: has no name (a row index written along? drop it with index=False)")
        if name in names[: place - 1]:
            raise InputError(f"{where} {quoted(name)}: appears twice (columns {names.index(name) + 1} and {place})")
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    values = {name: [line[place].strip() for line in cells if place < len(line)] for place, name in enumerate(names)}
    for name in missing:
        fitting = [other for other in unknown if _fits(name, values[other])]
        symbol = [other for other in fitting if _SYMBOLS.get(_plain(other)) == name]
        guess = symbol[0] if symbol else _near(name, fitting, 0.6)
        if guess is not None:
            raise InputError(f"{where} {quoted(name)} is missing; did you mean {quoted(guess)}?")
    if len(missing) == len(REQUIRED_COLUMNS):
        needed = ", ".join(REQUIRED_COLUMNS)
        raise InputError(f"{where} {quoted(missing[0])} is missing, and so are all others of a run table ({needed})")
    if missing:
        add = "; add it, with one name of your own if all runs are alike" if missing[0] == "architecture" else ""
        there = cut(", ".join(map(quoted, names)), 400)
        raise InputError(f"{where} {quoted(missing[0])} is missing{add}; the table has {there}")
    absent = [name for name in COLUMNS if name not in names]
    for name in unknown:
        guess = _near(name, [known for known in absent if _fits(known, values[name])], 0.85)
        if guess is not None:
            raise InputError(f"{where} {quoted(name)} is not known; did you mean {quoted(guess)}?")
    if unknown and strict:
        raise InputError(f"{where} {quoted(unknown[0])} is not known; known columns: {', '.join(COLUMNS)}")
    if not unknown:
        return []
    listed = ", ".join(map(quoted, unknown[:10])) + (" and more" if len(unknown) > 10 else "")
    return [f"kept without a check: column {listed}"]


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def _near(name: str, candidates: Sequence[str], cutoff: float) -> str | None:
    """The one of `candidates` that `name` is likely meant to be, or None. Both sides are compared in lower case."""
    plain = {_plain(candidate): candidate for candidate in candidates}
    match = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=cutoff)
    return plain[match[0]] if match else None


def _fits(name: str, values: Sequence[str]) -> bool:
    """Whether values may be those of a known column: empty cells fit everywhere."""
    spec, filled = COLUMNS[name], [value for value in values if value]
    if spec.kind == "flag":
        return all(value.lower() in ("0", "1", "true", "false", "yes", "no") for value in filled)
    numbers = all(map(is_number, filled))
    if spec.kind == "text":
        if name != "architecture":
            return not (filled and numbers)
        names_of_runs = len(filled) > 3 and len(set(filled)) == len(filled)
        return not (filled and numbers) and not names_of_runs and not any(map(_SIZE.search, filled))
    if not numbers:
        return False
    floats = list(map(float, filled))
    if any(value < 0 or (value == 0 and not spec.zero) for value in floats):
        return False
    if spec.kind == "integer" and name not in ROUNDED_COLUMNS and not all(map(float.is_integer, floats)):
        return False
    return spec.upper is None or all(value < spec.upper for value in floats)
