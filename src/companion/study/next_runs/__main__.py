"""Two records: the paper's runs replayed under several strategies, and simulated studies under right and wrong laws.

python -m companion.study.next_runs --out data
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.paths import check_target, write_whole
from companion.runs import load_paper_runs, subset
from companion.study.next_runs.replay import oracle_of, replay_all
from companion.study.next_runs.simulate import Study, paper_truths, simulate, summarized

REPLAY_FILE, SIMULATED_FILE = "design_replay.csv", "design_simulated.csv"
#: Context length of the paper with runs far from the optimum, too.
CONTEXT = 8192
ARCHITECTURES = ("xlstm", "transformer")
LAWS: dict[str, dict[str, float]] = {"gamma free": {}, "gamma = 1": {"gamma": 1.0}}
#: Rounds of the replay whose interval is bootstrapped, too.
BOOTSTRAPPED = (0, 2, 4, 6)
#: Digits of the records.
_DIGITS = 5


def replayed(random_seeds: int, num_jobs: int, progress: bool) -> pd.DataFrame:
    """Rows of `replay_all` for both architectures and laws, with the columns architecture and law."""
    tables = []
    for architecture in ARCHITECTURES:
        runs = subset(load_paper_runs(), architecture, CONTEXT)
        for law, fixed in LAWS.items():
            oracle = oracle_of(runs, fixed)
            found = replay_all(
                oracle, random_seeds=random_seeds, bootstrap_at=BOOTSTRAPPED, num_jobs=num_jobs, progress=progress
            )
            found.insert(0, "law", law)
            found.insert(0, "architecture", architecture)
            tables.append(found)
    return pd.concat(tables, ignore_index=True)


def simulated(tables: int, seed: int, num_jobs: int, progress: bool) -> pd.DataFrame:
    """`summarized` rows for the four truths and both laws, with the columns truth and law."""
    truths, found = paper_truths(), []
    for name, truth in truths.items():
        for law, fixed in LAWS.items():
            if name == "product" and not fixed:  # a limit of the surface with gamma free, which no table identifies
                continue
            study = Study(truth=truth, profile_law=truths["gamma = 1"], fixed=fixed)  # type: ignore[arg-type]
            table = summarized(simulate(study, tables, seed=seed, num_jobs=num_jobs, progress=progress))
            table.insert(0, "law", law)
            table.insert(0, "truth", name)
            found.append(table)
    return pd.concat(found, ignore_index=True)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers to five significant digits: a record is compared by eye and by diff."""
    numbers = table.select_dtypes(float).columns
    return table.assign(**{str(name): table[name].map(_short) for name in numbers})


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else value


def main(arguments: list[str] | None = None) -> int:
    """Replay, simulate, write both tables. Exit status 2 for wrong input."""
    parser = argparse.ArgumentParser(
        prog="python -m companion.study.next_runs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of both tables")
    parser.add_argument(
        "--tables", type=int, default=60, metavar="N", help="simulated per truth (default: %(default)s)"
    )
    parser.add_argument(
        "--random-seeds", type=int, default=8, metavar="N", help="random orders of the replay (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if min(options.tables, options.random_seeds, options.jobs) < 1 or options.seed < 0:
            raise InputError("--tables, --random-seeds and --jobs must be at least 1, --seed at least 0")
        for name in (REPLAY_FILE, SIMULATED_FILE):
            check_target(options.out / name)
        progress = sys.stderr.isatty() and not os.environ.get("CI")
        first = replayed(options.random_seeds, options.jobs, progress)
        second = simulated(options.tables, options.seed, options.jobs, progress)
        for name, table in ((REPLAY_FILE, first), (SIMULATED_FILE, second)):
            write_whole(options.out / name, rounded(table).to_csv(index=False))
            print(options.out / name)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
