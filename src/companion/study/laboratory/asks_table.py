"""A table of asks (CSV): one run per row."""

from pathlib import Path

import pandera.pandas as pa

from companion.errors import InputError
from companion.study.laboratory.asks import REQUIRED, Ask, ask_from
from companion.tables import read_table

#: Most runs that one table may ask for.
MAX_ASKS = 10_000
_TEXT = ("architecture", "schedule")
_SCHEMA = pa.DataFrameSchema(
    {
        name: pa.Column(None if name in _TEXT else "float64", required=name in REQUIRED, nullable=name not in REQUIRED)
        for name in Ask.__dataclass_fields__
    }
)


def read_asks(path: Path) -> list[Ask]:
    """The asks of a file with the columns of `Ask`, in its order; empty cells take the defaults.

    Raises
    ------
    InputError
        one line that names the file, and the row (the header is row 1) and column at fault.
    """
    table = read_table(path, _SCHEMA)
    if len(table) > MAX_ASKS:
        raise InputError(f"{path}: {len(table)} rows; at most {MAX_ASKS} runs can be asked for at once")
    if unknown := [name for name in table if name not in Ask.__dataclass_fields__]:
        raise InputError(f"{path}: column {unknown[0]!r} is not known; there are {', '.join(Ask.__dataclass_fields__)}")
    rows = table.to_dict("records")
    return [
        ask_from({str(k): v for k, v in row.items()}, f"{path}: row {at}")
        for at, row in zip(table.index, rows, strict=True)
    ]
