"""How fast parametric fits and their intervals are, what the plain multi-start reaches beside them, and coverage.

    OMP_NUM_THREADS=1 python -m companion.benchmarks.fits [--out data/benchmarks/fits.jsonl]

Five parts: `full fit` (107 Transformer IsoFLOP runs at T = 8192, gamma free), `plain multi-start` (L-BFGS-B with finite
differences on a stated part of the 8,000 starts), `bootstrap` (1,000 refits on one and two processes), `growth` (fit
time over rows and free parameters) and `coverage` (how often 95 % intervals hold the truth in simulated tables).
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from companion.benchmarks.records import deliver, new_record
from companion.errors import InputError
from companion.fitting.fit import Fit, fit
from companion.fitting.likelihood import profile, profiled
from companion.fitting.multistart import reference_multistart
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

NAME = "fits"
PARTS = ("full fit", "plain multi-start", "bootstrap", "growth", "coverage")
#: The law of arXiv 2203.15556 (approach 3), the truth of the simulated tables.
CHINCHILLA = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
LEVEL = 0.95


def isoflop_table() -> pd.DataFrame:
    """The Transformer's IsoFLOP runs at T = 8192: 107 rows."""
    return subset(load_paper_runs(), architecture="transformer", context_length=8192, experiment="isoflop")


def simulated(law: LossSurface, num_params: Any, num_tokens: Any, noise: float, seed: int) -> pd.DataFrame:
    """Runs of a known law at given places, shape (n,), with normal scatter of the log loss."""
    scatter = np.random.default_rng(seed).normal(0.0, noise, np.size(num_params))
    loss = law.predict(np.asarray(num_params, dtype=float), np.asarray(num_tokens, dtype=float)) * np.exp(scatter)
    return pd.DataFrame({"num_params": num_params, "num_tokens": num_tokens, "val_loss": loss})


def measure_fit(runs: pd.DataFrame, repeats: int) -> list[dict[str, Any]]:
    """Times of the fit with gamma free and fixed, after one that is not counted."""
    results = []
    for gamma in (None, 1.0):
        fitted = fit(LossSurface, runs, gamma=gamma)
        seconds = [fit(LossSurface, runs, gamma=gamma).seconds for _ in range(repeats)]
        results.append(
            {
                "part": "full fit",
                "rows": len(runs),
                "free_parameters": fitted.num_free,
                **_spread(seconds),
                "objective": fitted.objective,
                "status": fitted.status,
                "share_of_starts_at_optimum": round(fitted.share_of_starts_at_optimum, 4),
            }
        )
    return results


def measure_multistart(fit: Fit, num_starts: int, settings: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """The plain multi-start on part of its grid, and its time for all of it by extrapolation."""
    results = []
    for setting in settings:
        search = reference_multistart(fit, num_starts, seed=seed, setting=setting, progress=sys.stderr.isatty())
        results.append(
            {
                "part": "plain multi-start",
                "setting": setting,
                "rows": fit.num_rows,
                "starts": num_starts,
                "grid_starts": search.grid_size,
                "seconds_per_start": round(search.seconds_per_start, 6),
                "seconds_extrapolated": round(search.seconds_per_start * search.grid_size, 1),
                "evaluations_per_start": round(float(search.evaluations.mean()), 1),
                "share_within_1e-9": search.share_within(fit.objective, 1e-9),
                "share_within_1e-6": search.share_within(fit.objective, 1e-6),
                "share_within_1e-2": search.share_within(fit.objective, 1e-2),
                "lowest_excess": float(search.objective.min() / fit.objective - 1),
            }
        )
    return results


def measure_bootstrap(fit: Fit, num_resamples: int, processes: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Refits of resampled runs on several numbers of processes; all must give the same bits.

    Raises
    ------
    ArithmeticError
        if they do not.
    """
    results, first = [], None
    for number in processes:
        fit.bootstrap(250, seed=seed, num_jobs=number)  # processes start before the clock
        begin = time.perf_counter()
        theta = fit.bootstrap(num_resamples, seed=seed, num_jobs=number).theta
        seconds = time.perf_counter() - begin
        first = theta if first is None else first
        if not np.array_equal(theta, first, equal_nan=True):
            raise ArithmeticError(f"bootstrap on {number} processes differs from that on {processes[0]}")
        results.append(
            {
                "part": "bootstrap",
                "rows": fit.num_rows,
                "resamples": num_resamples,
                "processes": number,
                "seconds": round(seconds, 4),
                "lost": float(np.isnan(theta).any(axis=1).mean()),
            }
        )
    return results


def measure_growth(law: LossSurface, rows: Sequence[int], noise: float, seed: int) -> list[dict[str, Any]]:
    """Time of one fit over the number of rows, with 5 and 6 free parameters."""
    results = []
    for number in tqdm(rows, desc="rows", disable=not sys.stderr.isatty()):
        rng = np.random.default_rng(seed)
        sizes, ratios = 10 ** rng.uniform(7.9, 9.9, number), 10 ** rng.uniform(0.2, 3.2, number)
        table = simulated(law, sizes, sizes * ratios, noise, seed + 1)
        for gamma in (1.0, None):
            fitted = fit(LossSurface, table, gamma=gamma)
            results.append(
                {
                    "part": "growth",
                    "rows": number,
                    "free_parameters": fitted.num_free,
                    "seconds": round(fitted.seconds, 4),
                    "status": fitted.status,
                }
            )
    return results


def measure_coverage(
    places: pd.DataFrame, num_tables: int, num_resamples: int, noise: float, seed: int
) -> list[dict[str, Any]]:
    """How often 95 % intervals hold the parameters of the Chinchilla law, in tables simulated at the given runs.

    Gamma fixed at its true value 1, as in the fits by which that law was found. The exponent a = beta/(alpha + beta) of
    the optimal size counts as a parameter. `standard_error` is that of the coverage itself.
    """
    truth = {name: float(getattr(CHINCHILLA, name)) for name in LossSurface.PARAMETERS if name != "gamma"}
    truth["size_exponent"] = truth["beta"] / (truth["alpha"] + truth["beta"])
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for index in tqdm(range(num_tables), desc="tables", disable=not sys.stderr.isatty()):
        table = simulated(CHINCHILLA, places["num_params"], places["num_tokens"], noise, seed + index)
        fitted = fit(LossSurface, table, gamma=1.0)
        bootstrap = fitted.bootstrap(num_resamples, seed=index)
        for name in truth:
            found.setdefault(("bootstrap", name), []).append(
                bootstrap.interval_of(lambda law: law.beta / (law.alpha + law.beta), LEVEL)
                if name == "size_exponent"
                else bootstrap.interval(name, LEVEL)
            )
        for name in profiled(LossSurface)[:3]:
            found.setdefault(("profile", name), []).append(profile(fitted, name).interval(name, LEVEL))
    results = []
    for (interval, name), bounds in found.items():
        low, high = np.array(bounds).T
        share = float(np.mean((low <= truth[name]) & (truth[name] <= high)))
        width = float(np.median(high - low) / truth[name])
        results.append(
            {
                "part": "coverage",
                "interval": interval,
                "parameter": name,
                "tables": num_tables,
                "rows": len(places),
                "coverage": round(share, 4),
                "standard_error": round(float(np.sqrt(share * (1 - share) / num_tables)), 4),
                "median_relative_width": round(width, 4) if np.isfinite(width) else None,
            }
        )
    return results


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All parts asked for, in order.

    Raises
    ------
    InputError
        if a number is not positive.
    """
    for name in ("repeats", "starts", "resamples", "tables", "coverage_resamples"):
        if getattr(options, name) < 1:
            raise InputError(f"{name.replace('_', '-')} {getattr(options, name)} is not positive")
    runs, results = isoflop_table(), []
    fitted = fit(LossSurface, runs)
    if "full fit" in options.parts:
        results += measure_fit(runs, options.repeats)
    if "plain multi-start" in options.parts:
        results += measure_multistart(fitted, options.starts, ("published", "scipy default"), options.seed)
    if "bootstrap" in options.parts:
        results += measure_bootstrap(fitted, options.resamples, (1, 2), options.seed)
    if "growth" in options.parts:
        results += measure_growth(fitted.law, options.rows, options.noise, options.seed)
    if "coverage" in options.parts:
        results += measure_coverage(runs, options.tables, options.coverage_resamples, options.noise, options.seed)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, append the record. Exit status 2 for wrong input, 1 for wrong results."""
    parser = argparse.ArgumentParser(prog="python -m companion.benchmarks.fits", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--repeats", type=int, default=7, help="timings of the full fit; the median counts")
    parser.add_argument("--starts", type=int, default=80, help="starts of the plain multi-start")
    parser.add_argument("--resamples", type=int, default=1000, help="of the timed bootstrap")
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--tables", type=int, default=200, help="simulated tables of the coverage")
    parser.add_argument("--coverage-resamples", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.005, help="scatter of the log loss in simulated tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", metavar="FILE", help="append the record here (default: data/benchmarks/fits.jsonl; -)")
    options = parser.parse_args(arguments)
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None  # who else computes on this machine
    try:
        results = measure(options)
        parameters = {name: value for name, value in vars(options).items() if name != "out"}
        parameters["load_average"] = load
        parameters["omp_num_threads"] = os.environ.get("OMP_NUM_THREADS")
        record = new_record(NAME, _command(options), parameters, results, ("numpy", "scipy", "pandas", "joblib"))
        deliver(
            record,
            options.out,
            "fits.jsonl",
            "\n".join(", ".join(f"{key} {value}" for key, value in row.items()) for row in results),
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ArithmeticError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _command(options: argparse.Namespace) -> str:
    words = []
    for name, value in vars(options).items():
        if name == "out" or (name == "parts" and value == list(PARTS)):
            continue
        values = value if isinstance(value, list) else [value]
        words.append(f"--{name.replace('_', '-')} " + " ".join(f"'{v}'" if " " in str(v) else str(v) for v in values))
    return "OMP_NUM_THREADS=1 python -m companion.benchmarks.fits " + " ".join(words)


def _spread(seconds: list[float]) -> dict[str, float]:
    named = {"seconds_median": median(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds)}
    return {name: round(value, 5) for name, value in named.items()}


if __name__ == "__main__":
    sys.exit(main())
