"""What a parametric fit accepts: columns of a run table and options."""

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.isoflop.profiles import check_weights

#: Gamma, Huber delta: beyond these the box of the solver ends, or the objective drowns in rounding.
GAMMAS, SMALLEST_DELTA = (0.01, 20.0), 1e-12


def check_options(gamma: float | None, huber_delta: float, num_starts: int, max_iterations: int) -> None:
    """Raise an InputError that names the option whose value no fit can use."""
    if gamma is not None and not GAMMAS[0] <= gamma <= GAMMAS[1]:
        raise InputError(f"gamma {gamma:g} is not between {GAMMAS[0]:g} and {GAMMAS[1]:g}")
    if not huber_delta >= SMALLEST_DELTA:
        raise InputError(f"huber_delta {huber_delta:g} is not at least {SMALLEST_DELTA:g}")
    for name, value in (("num_starts", num_starts), ("max_iterations", max_iterations)):
        if value < 1:
            raise InputError(f"{name} {value}: at least 1 is needed")


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
