"""Run tables simulated from a known law."""

import numpy as np
import pandas as pd

from companion.laws import LossSurface

#: arXiv 2203.15556, equation 10.
CHINCHILLA = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def simulated(law: LossSurface, noise: float, seed: int, num_sizes: int = 14, num_ratios: int = 9) -> pd.DataFrame:
    """A grid of sizes (50M to 12B) and ratios (3 to 1000 tokens per parameter), log-normal scatter of the loss."""
    sizes, ratios = np.logspace(7.7, 10.1, num_sizes), np.logspace(0.5, 3, num_ratios)
    num_params, ratio = (axis.ravel() for axis in np.meshgrid(sizes, ratios))
    num_tokens = num_params * ratio
    scatter = np.exp(np.random.default_rng(seed).normal(0, noise, num_params.size))
    loss = law.predict(num_params, num_tokens) * scatter
    return pd.DataFrame(
        {
            "num_params": num_params,
            "num_tokens": num_tokens,
            "val_loss": loss,
            "train_flops": 6 * num_params * num_tokens,
        }
    )


#: The law of `two_designs`.
TWO_DESIGNS = LossSurface(E=1.7, A=400.0, B=500.0, alpha=0.34, beta=0.3)


def two_designs() -> pd.DataFrame:
    """IsoFLOP runs at three budgets and runs at three ratios of `TWO_DESIGNS`, with a scatter of 0.2 %."""
    sizes, budgets = np.geomspace(1e8, 3e9, 8), (6e18, 3e19, 1e20)
    iso = [(n, flops / (6 * n)) for flops in budgets for n in sizes]
    long = [(n, ratio * n) for n in sizes[::2] for ratio in (20, 100, 500)]
    runs = pd.DataFrame(iso + long, columns=["num_params", "num_tokens"])
    runs["experiment"] = ["isoflop"] * len(iso) + ["tokenparam"] * len(long)
    runs["train_flops"] = 6 * runs["num_params"] * runs["num_tokens"]
    runs["isoflop_budget"] = [flops for flops in budgets for _ in sizes] + [np.nan] * len(long)
    noise = np.random.default_rng(0).normal(0, 0.002, len(runs))
    return runs.assign(val_loss=TWO_DESIGNS.predict(runs["num_params"], runs["num_tokens"]) * np.exp(noise))
