"""Two architectures at equal loss, their compute counted by several conventions."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion.fitting.pareto import Reading, compare_fronts, fit_front


def compute_factors(
    runs: pd.DataFrame,
    train_flops: pd.DataFrame | Mapping[str, pd.Series],
    first: str,
    second: str,
    reading: Reading = "hull",
) -> pd.DataFrame:
    """How much more compute the second architecture needs for the same loss, under each way to count compute.

    The fronts of loss over compute are drawn anew under every count (see `companion.fitting.pareto`), within each
    context length if the table has that column.

    Parameters
    ----------
    runs
        a run table.
    train_flops
        FLOP of every run, with the index of `runs`: a column per count, named as it. Counts with a missing value are
        left out.
    first, second
        values of the column `architecture`.
    reading
        how losses between the runs of a front are read off.

    Returns
    -------
    DataFrame
        with `context_length` (where known), `convention`, `flops_factor` (compute of the second over that of the first
        at equal loss: median over the losses that both reach), its `smallest` and `largest` value over these losses,
        and `share_lower` (share of the common range of compute, in logarithms, on which the first has the lower loss).
        Where the fronts share no range there is no row.
    """
    by = ["context_length"] if "context_length" in runs and runs["context_length"].notna().all() else []
    groups = [({by[0]: value}, rows) for value, rows in runs.groupby(by[0])] if by else [({}, runs)]
    table = []
    for where, rows in groups:
        for name, flops in train_flops.items():
            counted = flops[rows.index]
            a, b = (rows["architecture"] == architecture for architecture in (first, second))
            if not (a.any() and b.any() and np.isfinite(counted).all()):
                continue
            one, two = (fit_front(counted[chosen], rows.loc[chosen, "val_loss"]) for chosen in (a, b))
            if not (_overlap(one.train_flops, two.train_flops) and _overlap(one.loss, two.loss)):
                continue
            found = compare_fronts(one, two, reading)
            table.append(
                {
                    **where,
                    "convention": name,
                    "flops_factor": found.flops_factor(),
                    "smallest": found.flops_factor(0.0),
                    "largest": found.flops_factor(1.0),
                    "share_lower": found.share_lower,
                }
            )
    return pd.DataFrame(table, columns=[*by, "convention", "flops_factor", "smallest", "largest", "share_lower"])


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(max(a.min(), b.min()) < min(a.max(), b.max()))
