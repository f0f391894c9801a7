"""What a fit of a law accepts: columns of a run table and options."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.formatting import quoted
from companion.laws.base import Law

#: Below this Huber delta the objective drowns in rounding.
SMALLEST_DELTA = 1e-12
#: A weight says how many times a run counts; a number outside these bounds is another quantity.
WEIGHTS = (1e-9, 1e9)


def checked_options(
    law: type[Law], fixed: Mapping[str, float | None], huber_delta: float, num_starts: int, max_iterations: int
) -> dict[str, float]:
    """The parameters to hold at a value, those given as None left out.

    Raises
    ------
    InputError
        that names the option whose value no fit can use.
    """
    held = {name: value for name, value in fixed.items() if value is not None}
    for name in fixed:
        if name not in law.FIXABLE:
            known = f"; it can fix {', '.join(law.FIXABLE)}" if law.FIXABLE else ""
            raise InputError(f"fit: {law.__name__} takes no option {name!r}{known}")
    for name, value in held.items():
        low, high = law.FIXABLE[name]
        if not low <= value <= high:
            raise InputError(f"{name} {value:g} is not between {low:g} and {high:g}")
    if not huber_delta >= SMALLEST_DELTA:
        raise InputError(f"huber_delta {huber_delta:g} is not at least {SMALLEST_DELTA:g}")
    for name, number in (("num_starts", num_starts), ("max_iterations", max_iterations)):
        if number < 1:
            raise InputError(f"{name} {number}: at least 1 is needed")
    return held


def checked_columns(runs: pd.DataFrame, weights: str | None, num_free: int) -> pd.DataFrame:
    """The columns a fit needs as float64, weights included, or an error that names column and row."""
    data = {}
    for name in ("num_params", "num_tokens", "val_loss"):
        if name not in runs:
            raise InputError(f"fit: there is no column {name!r}; there are {', '.join(map(str, runs.columns))}")
        values = pd.to_numeric(runs[name], errors="coerce").to_numpy(dtype=float)
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            at = int(np.argmax(wrong))
            value = runs[name].iloc[at]
            shown = repr(value.item() if isinstance(value, np.generic) else value)
            raise InputError(f"fit: column {name!r}, row {runs.index[at]}: {shown} is not a positive number")
        data[name] = values
    data["weight"] = np.ones(len(runs))
    if weights is not None:
        if len(runs):
            check_weights(runs, weights)
        data["weight"] = runs[weights].to_numpy(dtype=float)
    used = data["weight"] > 0
    if used.sum() <= num_free:
        raise InputError(f"fit: {used.sum()} runs for {num_free} free parameters; at least {num_free + 1} are needed")
    return pd.DataFrame(data)


def check_weights(runs: pd.DataFrame, column: str) -> None:
    """Raise an InputError unless the column exists and holds weights: 0 or within `WEIGHTS`, one of them positive."""
    if column not in runs:
        raise InputError(f"weights: there is no column {column!r}; there are {', '.join(map(str, runs.columns))}")
    values = pd.to_numeric(runs[column], errors="coerce").to_numpy(dtype=float)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        found = quoted(runs[column].iloc[int(np.argmax(wrong))])
        raise InputError(f"weights: column {column!r} holds {found}, not a weight of at least 0")
    if not (values > 0).any():
        raise InputError(f"weights: column {column!r} holds no weight above 0")
    positive = values[values > 0]
    for value in (positive.min(), positive.max()):
        if not WEIGHTS[0] <= value <= WEIGHTS[1]:
            raise InputError(f"weights: column {column!r} holds {value:.3g}, which is not how many times a run counts")
