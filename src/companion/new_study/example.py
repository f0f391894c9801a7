"""Rows that a new study starts with, so that everything runs before the first real run is in the table.

They follow a stated law with a stated scatter, and say so in the column `source`.
"""

import numpy as np
import pandas as pd

from companion.laws import LossSurface

#: What `source` holds in these rows.
SOURCE = "example: computed from a law, not trained"
#: The law behind the rows, L = E + A/N^alpha + B/D^beta, and the standard deviation of the log of a loss about it.
LAW = LossSurface(E=1.8, A=400.0, B=1200.0, alpha=0.34, beta=0.33)
SCATTER = 0.002
BUDGETS = (1e18, 4e18, 1.6e19, 6.4e19)
#: Sizes of a budget, as multiples of its best one.
SIZES = (0.25, 0.4, 0.63, 1.0, 1.6, 2.5, 4.0)
CONTEXT_LENGTH = 4096


def example_runs(seed: int = 0) -> pd.DataFrame:
    """A run table of an IsoFLOP design: for each budget the best size of the law and three on either side.

    Returns
    -------
    pandas.DataFrame
        one row a run, with the columns that `companion data check` requires, and those of an IsoFLOP design;
        `train_flops` is 6·N·D.

    Examples
    --------
    >>> runs = example_runs()
    >>> len(runs), runs["source"].nunique()
    (28, 1)
    """
    scatter = np.random.default_rng(seed).normal(0.0, SCATTER, len(BUDGETS) * len(SIZES))
    rows: list[dict[str, object]] = []
    for budget in BUDGETS:
        best = float(LAW.optimum(budget, 6.0)[0])
        for share in SIZES:
            num_params = round(best * share)
            num_tokens = round(budget / (6 * num_params))
            loss = float(LAW.predict(num_params, num_tokens)) * float(np.exp(scatter[len(rows)]))
            rows.append(
                {
                    "architecture": "mymodel",
                    "experiment": "isoflop",
                    "context_length": CONTEXT_LENGTH,
                    "isoflop_budget": budget,
                    "num_params": num_params,
                    "num_tokens": num_tokens,
                    "train_flops": 6.0 * num_params * num_tokens,
                    "val_loss": round(loss, 5),
                    "source": SOURCE,
                }
            )
    return pd.DataFrame(rows)
