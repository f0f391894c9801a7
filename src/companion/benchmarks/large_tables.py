"""Time and memory of commands on run tables of many rows.

    OMP_NUM_THREADS=1 python -m companion.benchmarks.large_tables [--rows 10000 100000 1000000] [--out FILE]

Every command runs in a process of its own on a table simulated from the law of arXiv 2203.15556 at ten compute budgets.
Peak memory is the largest resident size of that process, as the system counts it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.benchmarks.fits import CHINCHILLA
from companion.benchmarks.records import deliver, new_record
from companion.errors import InputError

NAME = "large tables"
#: Words of the commands by name; the table follows the first words.
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "data check": (["data", "check"], ["--json"]),
    "fit --bootstrap 5": (["fit"], ["--bootstrap", "5", "--gamma", "1", "--json"]),
    "isoflop --bootstrap 100": (["isoflop"], ["--bootstrap", "100", "--json"]),
}
BUDGETS = np.logspace(18.5, 21.5, 10)


def simulated_table(rows: int, noise: float, seed: int) -> pd.DataFrame:
    """Runs of one architecture at ten budgets, a factor of four in size on either side of the optimum."""
    rng = np.random.default_rng(seed)
    budget = BUDGETS[np.arange(rows) % len(BUDGETS)]
    size = np.round(CHINCHILLA.optimum(budget)[0] * 4 ** rng.uniform(-1, 1, rows))
    tokens = np.round(budget / 6 / size)
    loss = CHINCHILLA.predict(size, tokens) * np.exp(rng.normal(0, noise, rows))
    columns = {"architecture": "simulated", "num_params": size, "num_tokens": tokens, "isoflop_budget": budget}
    return pd.DataFrame(columns).assign(train_flops=6 * size * tokens, val_loss=loss)


def measure(words: Sequence[str]) -> dict[str, Any]:
    """Seconds, peak resident bytes and exit status of one command, in a process of its own."""
    begin = time.perf_counter()
    with open(os.devnull, "w") as nowhere:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "companion.cli.dispatch", *words],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 2),
            ],
        )
        _, status, usage = os.wait4(child, 0)
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": round(time.perf_counter() - begin, 2),
        "peak_memory_bytes": usage.ru_maxrss * scale,
        "exit_status": os.waitstatus_to_exitcode(status),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, append the record. Exit status 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m companion.benchmarks.large_tables", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--commands", nargs="+", choices=tuple(COMMANDS), default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--noise", type=float, default=0.01, help="scatter of the log loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", metavar="FILE", help="default: data/benchmarks/large_tables.jsonl; - prints the record"
    )
    options = parser.parse_args(arguments)
    try:
        if min(options.rows) < 100:
            raise InputError(f"rows {min(options.rows)}: at least 100 are needed")
        results = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "runs.csv"
            for rows in options.rows:
                simulated_table(rows, options.noise, options.seed).to_csv(path, index=False)
                for name in options.commands:
                    before, after = COMMANDS[name]
                    results.append({"command": name, "rows": rows, **measure([*before, str(path), *after])})
                    print(", ".join(f"{key} {value}" for key, value in results[-1].items()), file=sys.stderr)
        parameters = {"rows": options.rows, "noise": options.noise, "seed": options.seed}
        parameters["omp_num_threads"] = os.environ.get("OMP_NUM_THREADS")
        command = (
            f"python -m companion.benchmarks.large_tables --rows {' '.join(map(str, options.rows))} "
            f"--noise {options.noise:g} --seed {options.seed}"
        )
        record = new_record(NAME, command, parameters, results, ("numpy", "scipy", "pandas"))
        deliver(record, options.out, "large_tables.jsonl")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
