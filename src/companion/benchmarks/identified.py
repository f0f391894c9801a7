"""What a fit of the parametric law says of tables that do not determine it, and whether the intervals it gives hold.

Tables are simulated from a known law on designs of two kinds: those that leave a direction of the parameters free (one
ratio of tokens to parameters, one budget, two sizes, ...) and those that determine all of them. For each table the fit
is asked whether the law is identified, and if it gives intervals, whether they hold the truth.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from companion.benchmarks.records import deliver, new_record
from companion.errors import InputError
from companion.fitting.fit import fit
from companion.laws import LossSurface

NAME = "parametric identification"
#: The law of arXiv 2203.15556, approach 3.
LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
PARAMETERS = ("E", "A", "B", "alpha", "beta")
Array = NDArray[np.float64]
Places = tuple[Array, Array]


def _isoflop(rng: np.random.Generator, budgets: int, sizes: int) -> Places:
    flops = np.repeat(np.geomspace(1e19, 1e21, budgets), sizes)
    optimum, _ = LAW.optimum(flops)
    size = optimum * np.tile(np.geomspace(0.3, 3, sizes), budgets)
    return size, flops / 6 / size


def _ratio(rng: np.random.Generator, jitter: float) -> Places:
    size = np.geomspace(1e8, 1e10, 20)
    return size, 20 * size * np.exp(jitter * rng.standard_normal(20))


def _grid(rng: np.random.Generator, sizes: int, tokens: int, span: float = 100.0) -> Places:
    size, number = np.meshgrid(np.geomspace(1e8, 1e10, sizes), np.geomspace(1e9, 1e9 * span, tokens))
    return size.ravel(), number.ravel()


def _power(rng: np.random.Generator) -> Places:
    size = np.geomspace(1e8, 1e10, 20)
    return size, 1e5 * size**0.6


def _scattered(rng: np.random.Generator, number: int) -> Places:
    return 10 ** rng.uniform(8, 10, number), 10 ** rng.uniform(9, 11.5, number)


#: Where the runs of each design lie: N and D, each of shape (n,).
DESIGNS: dict[str, Callable[[np.random.Generator], Places]] = {
    "one ratio": lambda rng: _ratio(rng, 0.0),
    "one ratio, 2 % jitter": lambda rng: _ratio(rng, 0.02),
    "one ratio, 10 % jitter": lambda rng: _ratio(rng, 0.1),
    "D as a power of N": _power,
    "one budget": lambda rng: _isoflop(rng, 1, 20),
    "two sizes": lambda rng: _grid(rng, 2, 10),
    "two numbers of tokens": lambda rng: _grid(rng, 10, 2),
    "D within a factor 1.3": lambda rng: _grid(rng, 6, 4, 1.3),
    "10 scattered runs": lambda rng: _scattered(rng, 10),
    "5 budgets of 7 sizes": lambda rng: _isoflop(rng, 5, 7),
    "grid of 6 by 6": lambda rng: _grid(rng, 6, 6),
    "50 scattered runs": lambda rng: _scattered(rng, 50),
}


def measure(
    design: str, gamma: float | None, noise: float, tables: int, resamples: int, seed: int, level: float = 0.95
) -> dict[str, Any]:
    """Counts over simulated tables of one design.

    Parameters
    ----------
    design
        a key of `DESIGNS`.
    gamma
        1 or None (free), as in `companion.fitting.fit`.
    noise
        standard deviation of the log loss.

    Returns
    -------
    dict[str, Any]
        with the arguments, and numbers of tables: `identified`, `given` (with an interval of alpha), and for each
        of E, A, B, alpha and beta `given_...` and `held_...`.
    """
    counts = dict.fromkeys(("identified", "given"), 0)
    counts |= {f"{what}_{name}": 0 for name in PARAMETERS for what in ("given", "held")}
    place = list(DESIGNS).index(design)
    for number in range(tables):
        rng = np.random.default_rng((seed, place, gamma is None, round(1e6 * noise), number))
        size, tokens = DESIGNS[design](rng)
        loss = LAW.predict(size, tokens) * np.exp(noise * rng.standard_normal(size.size))
        fitted = fit(
            LossSurface, pd.DataFrame({"num_params": size, "num_tokens": tokens, "val_loss": loss}), gamma=gamma
        )
        counts["identified"] += fitted.identified
        resampled = fitted.bootstrap(resamples, seed=number)
        for name in PARAMETERS:
            low, high = resampled.interval(name, level)
            counts[f"given_{name}"] += bool(np.isfinite(low))
            counts[f"held_{name}"] += bool(low <= getattr(LAW, name) <= high)
        counts["given"] += bool(np.isfinite(resampled.interval("alpha", level)[0]))
    return {"design": design, "gamma_free": gamma is None, "noise": noise, "tables": tables, **counts}


def measure_all(
    noises: tuple[float, ...], tables: int, resamples: int, seed: int, progress: bool
) -> Iterator[dict[str, Any]]:
    """`measure` for every design, gamma fixed and free, and every noise."""
    cases = [(design, gamma, noise) for design in DESIGNS for gamma in (1.0, None) for noise in noises]
    for design, gamma, noise in tqdm(cases, unit="design", disable=not progress, file=sys.stderr):
        yield measure(design, gamma, noise, tables, resamples, seed)


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print a table, append the record. Exit status 2 for wrong input."""
    parser = argparse.ArgumentParser(
        prog="python -m companion.benchmarks.identified",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tables", type=int, default=40, metavar="N", help="of each design (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=100, metavar="R", help="in each table (default: %(default)s)")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.002, 0.006], help="of the log loss")
    parser.add_argument("--seed", type=int, default=1, help="of tables and resamples (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="append the record here (`-` for stdout)")
    options = parser.parse_args(arguments)
    try:
        if min(options.tables, options.resamples) < 1:
            raise InputError("--tables and --resamples: at least 1 is needed")
        given = {name: getattr(options, name) for name in ("tables", "resamples", "seed")}
        command = "python -m companion.benchmarks.identified " + " ".join(f"--{k} {v}" for k, v in given.items())
        command += f" --noise {' '.join(map(str, options.noise))}"
        progress = sys.stderr.isatty() and not os.environ.get("CI")
        results = list(measure_all(tuple(options.noise), options.tables, options.resamples, options.seed, progress))
        record = new_record(NAME, command, given | {"noise": options.noise, "level": 0.95}, results, ("numpy", "scipy"))
        deliver(record, options.out, "identified.jsonl", pd.DataFrame(results).to_string(index=False))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
