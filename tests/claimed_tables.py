"""Run tables whose truth is chosen: losses and sizes of two architectures by budget, and slopes by ratio."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

BUDGETS = (1e15, 4e15, 1.6e16)
CONTEXTS = (256, 1024, 4096)
RATIOS = (20.0, 100.0, 500.0)


def claimed_table(
    *,
    gap: float = 0.05,
    ratio: float = 1.5,
    shrinks: float = -0.2,
    grows: float = 0.0,
    slope_change: float = 0.0,
    noise: float = 0.001,
    budgets: Sequence[float] = BUDGETS,
    contexts: Sequence[int] = CONTEXTS,
    num_sizes: int = 7,
    seed: int = 0,
) -> pd.DataFrame:
    """IsoFLOP profiles of `xlstm` and `transformer` at every context, and lines of over-training at T = 1024.

    Parameters
    ----------
    gap
        loss of the best transformer less that of the best xlstm, nats per token.
    ratio
        N* of xlstm over N* of transformer at T = 1024.
    shrinks, grows
        exponents of N* over T of transformer and of xlstm.
    slope_change
        change of the over-training exponents over all ratios, as a share of their mean.
    noise
        standard deviation of a loss.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for name, factor, trend, above in (("xlstm", ratio, grows, 0.0), ("transformer", 1.0, shrinks, gap)):
        for flops in budgets:
            for length in contexts:
                best = 1e6 * (flops / 1e15) ** 0.5 * factor * (length / 1024) ** trend
                for size in best * np.geomspace(0.25, 4, num_sizes) * rng.uniform(0.95, 1.05):
                    loss = 5 + above - 0.1 * np.log(flops / 1e15) + 0.08 * np.log(size / best) ** 2
                    rows.append((name, length, "isoflop", flops, size, flops / 6 / size, loss))
        for number, tokens in enumerate(RATIOS):
            eta = 0.02 * (1 + slope_change * (number / (len(RATIOS) - 1) - 0.5))
            for size in np.geomspace(3e5, 5e6, 5):
                flops = 6 * size**2 * tokens
                loss = (6 + above + 0.1 * number) * (flops / 1e15) ** -eta
                rows.append((name, 1024, "tokenparam", np.nan, size, tokens * size, loss))
    columns = ["architecture", "context_length", "experiment", "isoflop_budget", "num_params", "num_tokens", "val_loss"]
    runs = pd.DataFrame(rows, columns=columns)
    runs["train_flops"] = 6 * runs["num_params"] * runs["num_tokens"]
    return runs.assign(val_loss=runs["val_loss"] + rng.normal(0, noise, len(runs)))
