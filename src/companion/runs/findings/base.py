"""A finding: one thing to know about a run table, as data."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from numpy.typing import NDArray

#: Most rows that a finding lists as data.
MAX_ROWS_LISTED = 20
#: Factor between the compute of a run and its budget from which the run belongs elsewhere.
LABEL_FACTOR = 1.25


@dataclass(frozen=True)
class Finding:
    """One thing to know: its `kind`, the `column`, one line in words, how many rows, and the first of them."""

    kind: str
    column: str
    message: str
    num_rows: int
    rows: tuple[Any, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return asdict(self) | {"rows": list(self.rows)}


def finding(kind: str, column: str, message: str, runs: pd.DataFrame, at: NDArray[Any]) -> Finding:
    """A finding on the rows at positions `at`, or where the mask `at` is true."""
    rows = runs.index[at].tolist()
    return Finding(kind, column, message, len(rows), tuple(rows[:MAX_ROWS_LISTED]))
