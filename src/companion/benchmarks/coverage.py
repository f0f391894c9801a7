"""How often IsoFLOP intervals hold the truth: simulated tables of many designs, fitted as the command fits them.

    python -m companion.benchmarks.coverage [--tables 200] [--resamples 400] [--out data/benchmarks/coverage.jsonl]

Runs are cut from the surface of arXiv 2203.15556 (equation 10) around the true optimum of every budget, with normal
scatter of the loss. An interval is judged twice: against the truth of the surface, from which the parabola itself is
biased on a wide grid (see `companion.fitting.isoflop.bias`), and against what the same procedure finds without scatter.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.benchmarks.records import deliver, new_record
from companion.errors import InputError
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.isoflop.profiles import fit_isoflop
from companion.laws import LossSurface

NAME = "coverage"
#: arXiv 2203.15556, equation 10.
SURFACE = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
#: Budgets and sizes of each.
DESIGNS = ((3, 4), (4, 4), (4, 5), (2, 5), (4, 7), (5, 6), (4, 15))
NOISES = (0.002, 0.01)
#: Scatter of the noisiest budget over that of the least noisy.
UNEQUAL = 4.0
#: Decades from the optimum to both ends of a grid.
HALF_WIDTHS = (0.3, 0.5)
#: Half decades from a budget to the next, from this one on, FLOP.
LOWEST, STEP = 1e19, 0.5
#: By how much runs miss their budget where C is exact: a normal deviation, share of C.
MISS = 0.02
QUANTITIES = ("x_opt", "exponent", "prefactor", "joint_exponent")


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a simulated table looks like.

    `noise` is the standard deviation of the loss, nats per token, in the least noisy budget; `unequal` whether it grows
    to `UNEQUAL` times that from the first budget to the last. `flops` is `nominal` (all runs at their budget) or
    `exact` (runs miss it by `MISS`). `half_width` is in decades of N.
    """

    budgets: int
    sizes: int
    noise: float
    unequal: bool
    flops: str
    half_width: float

    def table(self, rng: np.random.Generator | None) -> pd.DataFrame:
        """One run table; without a generator the same runs have no scatter and meet their budgets."""
        nominal = LOWEST * 10 ** (STEP * np.arange(self.budgets))
        scatter = self.noise * (np.geomspace(1, UNEQUAL, self.budgets) if self.unequal else np.ones(self.budgets))
        size = np.asarray(SURFACE.optimum(nominal)[0])[:, None] * 10 ** np.linspace(
            -self.half_width, self.half_width, self.sizes
        )
        spent = np.broadcast_to(nominal[:, None], size.shape)
        loss_noise: Any = 0.0
        if rng is not None:
            loss_noise = rng.normal(size=size.shape) * scatter[:, None]
            if self.flops == "exact":
                spent = spent * np.exp(rng.normal(size=size.shape) * MISS)
        tokens = spent / (6 * size)
        columns = {
            "isoflop_budget": np.repeat(nominal, self.sizes),
            "train_flops": spent.ravel(),
            "num_params": size.ravel(),
            "num_tokens": tokens.ravel(),
            "val_loss": (SURFACE.predict(size, tokens) + loss_noise).ravel(),
        }
        return pd.DataFrame(columns)


def all_designs() -> list[Design]:
    """Every combination of the designs, scatters, counts and widths above."""
    return [
        Design(budgets=shape[0], sizes=shape[1], noise=noise, unequal=unequal, flops=flops, half_width=half_width)
        for shape, noise, unequal, flops, half_width in product(
            DESIGNS, NOISES, (False, True), ("nominal", "exact"), HALF_WIDTHS
        )
    ]


def measure(design: Design, tables: int, resamples: int, seed: int, level: float = 0.95) -> list[dict[str, Any]]:
    """Intervals of many tables of one design, counted.

    Returns
    -------
    list of dict
        the design, and for every quantity of `QUANTITIES`: `intervals` (how many were asked for: one per table, for
        `x_opt` one per table and budget), `given` (how many were not withheld), `held_truth` and `held_noise_free` (how
        many of these hold the value of the surface, and of the same fit without scatter), `median_width` (decades; for
        exponents their unit), `held_noise_free_by_budget` and `given_by_budget` (`x_opt` only).
    """
    if tables < 1 or resamples < 1:
        raise InputError(f"coverage: {tables} tables with {resamples} resamples; at least one of each is needed")
    free, truth = _values(design.table(None), resamples=0, level=level)[0], _truth(design)
    found: dict[str, list[NDArray[np.float64]]] = {quantity: [] for quantity in QUANTITIES}
    for index in range(tables):
        try:
            _, bounds = _values(
                design.table(np.random.default_rng([seed, index, *_entropy(design)])), resamples, level, index
            )
        except InputError:  # the scatter left no budget an optimum: nothing is given
            bounds = {quantity: np.full((truth[quantity].size, 2), np.nan) for quantity in QUANTITIES}
        for quantity in QUANTITIES:
            found[quantity].append(bounds[quantity])
    return [
        asdict(design) | {"quantity": quantity} | _count(quantity, np.array(rows), truth[quantity], free[quantity])
        for quantity, rows in found.items()
    ]


def _entropy(design: Design) -> tuple[int, ...]:
    """Whole numbers that make the tables of one design others than those of the next."""
    nominal, per_mille = design.flops == "nominal", round(1000 * design.noise)
    return (design.budgets, design.sizes, per_mille, int(design.unequal), int(nominal), round(10 * design.half_width))


def _truth(design: Design) -> dict[str, NDArray[np.float64]]:
    nominal = LOWEST * 10 ** (STEP * np.arange(design.budgets))
    optima = np.asarray(SURFACE.optimum(nominal)[0])
    exponent = SURFACE.beta / (SURFACE.alpha + SURFACE.beta)
    prefactor = optima[0] / nominal[0] ** exponent
    values: dict[str, Any] = {"exponent": exponent, "prefactor": prefactor, "joint_exponent": exponent, "x_opt": optima}
    return {quantity: np.atleast_1d(values[quantity]) for quantity in QUANTITIES}


def _values(
    runs: pd.DataFrame, resamples: int, level: float, seed: int = 0
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Estimates (k,) and intervals (k, 2) of every quantity; NaN where there is none."""
    fit = fit_isoflop(runs, num_resamples=resamples, seed=seed)
    law = fit.power_law.law
    try:
        joint = fit_isoflop_joint(runs)
        slope, slope_bounds = joint.law.exponent, joint.interval("exponent", level)
    except InputError:
        slope, slope_bounds = np.nan, (np.nan, np.nan)
    estimates: dict[str, Any] = {
        "x_opt": [profile.x_opt for profile in fit.profiles],
        "exponent": law.exponent,
        "prefactor": law.prefactor,
        "joint_exponent": slope,
    }
    bounds: dict[str, Any] = {
        "x_opt": [fit.interval("x_opt", level, profile) for profile in fit.profiles],
        "exponent": fit.interval("exponent", level),
        "prefactor": fit.interval("prefactor", level),
        "joint_exponent": slope_bounds,
    }
    return (
        {name: np.atleast_1d(np.array(value, dtype=float)) for name, value in estimates.items()},
        {name: np.atleast_2d(np.array(value, dtype=float)) for name, value in bounds.items()},
    )


def _count(
    quantity: str, bounds: NDArray[np.float64], truth: NDArray[np.float64], free: NDArray[np.float64]
) -> dict[str, Any]:
    """Counts over intervals (tables, k, 2) of k values."""
    low, high = bounds[..., 0], bounds[..., 1]
    given = np.isfinite(low)
    held = {"held_truth": (low <= truth) & (truth <= high), "held_noise_free": (low <= free) & (free <= high)}
    widths = (high - low if "exponent" in quantity else np.log10(high / low))[given]
    result: dict[str, Any] = {"intervals": int(given.size), "given": int(given.sum())}
    result |= {name: int(values.sum()) for name, values in held.items()}
    result["median_width"] = round(float(np.median(widths)), 5) if widths.size else None
    if quantity == "x_opt":
        result["given_by_budget"] = given.sum(axis=0).tolist()
        result["held_noise_free_by_budget"] = held["held_noise_free"].sum(axis=0).tolist()
    return result


def measure_all(
    designs: Sequence[Design], tables: int, resamples: int, seed: int, progress: bool = False
) -> Iterator[dict[str, Any]]:
    """`measure` for every design, with a bar on stderr if asked for."""
    from tqdm import tqdm

    for design in tqdm(designs, desc="designs", unit="design", disable=not progress, file=sys.stderr):
        yield from measure(design, tables, resamples, seed)


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print a table, append the record. Exit status 2 for wrong input."""
    parser = argparse.ArgumentParser(
        prog="python -m companion.benchmarks.coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tables", type=int, default=200, metavar="N", help="of each design (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=400, metavar="R", help="in each table (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of tables and resamples (default: %(default)s)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="append the record here (default: coverage.jsonl in data/benchmarks of the checkout; `-` for stdout)",
    )
    options = parser.parse_args(arguments)
    try:
        parameters = {name: getattr(options, name) for name in ("tables", "resamples", "seed")}
        command = "python -m companion.benchmarks.coverage " + " ".join(f"--{k} {v}" for k, v in parameters.items())
        progress = sys.stderr.isatty() and not os.environ.get("CI")
        results = list(measure_all(all_designs(), options.tables, options.resamples, options.seed, progress))
        record = new_record(NAME, command, parameters | {"level": 0.95}, results, ("numpy", "scipy", "pandas"))
        deliver(record, options.out, "coverage.jsonl", summary(results).to_string(index=False))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def summary(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Counts by design, scatter and quantity, over nominal and exact C: shares of the intervals that are given.

    Returns
    -------
    DataFrame
        `design`, `noise`, `unequal`, `half_width`, `quantity`, `given` (share), `truth` and `noise_free` (share of the
        given that hold them).
    """
    frame = pd.DataFrame(results)
    keys = ["budgets", "sizes", "noise", "unequal", "half_width", "quantity"]
    counts = ["intervals", "given", "held_truth", "held_noise_free"]
    total = frame.groupby(keys, sort=False)[counts].sum().reset_index()
    given = total["given"].where(total["given"] > 0)
    return pd.DataFrame(
        {
            "design": total["budgets"].astype(str) + "x" + total["sizes"].astype(str),
            **{key: total[key] for key in keys[2:]},
            "given": (total["given"] / total["intervals"]).round(3),
            "truth": (total["held_truth"] / given).round(3),
            "noise_free": (total["held_noise_free"] / given).round(3),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
