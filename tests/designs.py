"""Generated IsoFLOP tables: designs that people really have, degenerate ones included."""

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from companion.laws import LossSurface

#: arXiv 2203.15556, equation 10.
SURFACE = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


@st.composite
def designs(draw: st.DrawFn, contexts: bool = False) -> pd.DataFrame:
    """A run table of the five required columns, and sometimes budgets, repeated runs (`seed`), weights (`times`).

    Budgets 1 to 5 and sizes 1 to 8 of each, ranges of sizes from 0.01 % to six decades around or beside the optimum,
    scatter 0 or more, C nominal, exact or nearly nominal, losses of a surface, exact parabolas, flat, falling or
    upside-down. With `contexts`, the table holds up to three context lengths.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = draw(st.sampled_from([0.0, 1e-12, 1e-6, 0.002, 0.002, 0.02, 0.5]))
    shape = draw(st.sampled_from(["surface"] * 4 + ["parabola"] * 2 + ["flat", "falling", "hill"]))
    half_width = draw(st.sampled_from([5e-5, 0.01, 0.3, 0.5, 0.5, 0.7, 1.0, 3.0]))
    aside = draw(st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.4, -2.0]))
    miss = draw(st.sampled_from([0.0, 0.0, 1e-9, 1e-4, 0.05, "by size"]))
    step = draw(st.sampled_from([0.001, 0.3, 0.5, 1.0]))
    repeats = draw(st.integers(1, 3))
    usual = draw(st.sampled_from([2, 3, 4, 5, 6, 8]))
    lengths = draw(st.lists(st.sampled_from([512, 2048, 8192]), min_size=1, max_size=3, unique=True))
    tables = []
    for length in lengths if contexts else lengths[:1]:
        for index in range(draw(st.sampled_from([1, 2, 3, 4, 5]))):
            budget = 1e19 * 10 ** (step * index)
            sizes = draw(st.sampled_from([usual, usual, usual, usual, 1, 3]))
            z = aside + (np.linspace(-half_width, half_width, sizes) if sizes > 1 else np.zeros(1))
            z = np.repeat(z, repeats)
            table = _budget(budget, z, shape, noise, miss, rng)
            tables.append(table.assign(context_length=length, seed=np.tile(np.arange(repeats), sizes)))
    runs = pd.concat(tables, ignore_index=True).assign(architecture="mamba")
    if draw(st.booleans()):
        runs = runs.drop(columns="isoflop_budget")
    elif draw(st.booleans()):  # someone forgot some labels
        runs.loc[rng.random(len(runs)) < 0.2, "isoflop_budget"] = np.nan
    if not contexts and draw(st.booleans()):
        runs = runs.drop(columns="context_length")
    return runs.assign(times=rng.integers(0, 4, len(runs)))


def _budget(
    budget: float, z: np.ndarray, shape: str, noise: float, miss: float | str, rng: np.random.Generator
) -> pd.DataFrame:
    best = float(SURFACE.optimum(budget)[0])
    spent = budget * 10 ** (0.02 * z if miss == "by size" else np.clip(rng.normal(size=z.size), -2, 2) * float(miss))
    size = np.maximum(np.round(best * 10**z), 1)
    tokens = np.maximum(np.round(spent / 6 / size), 1)
    loss = {
        "surface": SURFACE.predict(size, tokens),
        "parabola": 2.5 + 0.3 * z**2,
        "flat": np.full(z.size, 2.5),
        "falling": 2.5 - 0.05 * z,
        "hill": 2.5 - 0.05 * z**2,
    }[shape]
    loss = np.maximum(loss + rng.normal(size=z.size) * noise, 0.1)
    columns = {"isoflop_budget": budget, "num_params": size.astype(np.int64), "num_tokens": tokens.astype(np.int64)}
    return pd.DataFrame({**columns, "train_flops": spent, "val_loss": loss})


def write(runs: pd.DataFrame, folder: Path) -> Path:
    """The table as a file, without rows that repeat another in every column."""
    path = folder / "generated.csv"
    runs.drop_duplicates(subset=[column for column in runs if column != "times"]).to_csv(path, index=False)
    return path
