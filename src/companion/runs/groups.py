"""Groups of runs: values that lie together on a line, and the experiments of a table."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def split_at_gaps(values: Any, gap: float) -> list[NDArray[np.intp]]:
    """Indices of the values by cluster, ascending: a step above `gap` starts the next one; none for no values.

    Examples
    --------
    >>> [cluster.tolist() for cluster in split_at_gaps([0.0, 2.0, 0.1, 2.1], 0.5)]
    [[0, 2], [1, 3]]
    """
    values = np.asarray(values, dtype=float)
    order = np.argsort(values, kind="stable")
    return list(np.split(order, np.flatnonzero(np.diff(values[order]) > gap) + 1)) if order.size else []


def by_experiment(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of every value of the column `experiment`, by name; empty without that column.

    Examples
    --------
    >>> runs = pd.DataFrame({"experiment": ["isoflop", None, "isoflop"], "val_loss": [3.0, 2.9, 2.8]})
    >>> {name: len(group) for name, group in by_experiment(runs).items()}
    {'isoflop': 2}
    """
    if "experiment" not in runs:
        return {}
    return {str(name): group for name, group in runs.groupby("experiment")}
