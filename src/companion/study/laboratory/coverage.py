"""How the strategies fare: each plays many simulated laboratories, and its intervals meet the truth."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from companion.errors import InputError
from companion.paths import check_target, write_whole
from companion.study.laboratory.chance import derived_key
from companion.study.laboratory.game import practice_laboratory
from companion.study.laboratory.rules import LAWS, Rules
from companion.study.laboratory.strategies import STRATEGIES

#: Columns of the table, in their order.
COLUMNS = (
    "strategy", "law", "world", "total", "interval_points", "accuracy_points", "choice_points", "interval_score",
    "log_error", "log_width", "covered", "regret_nats", "compute_share", "num_runs", "num_diverged", "spent_share",
    "fault",
)  # fmt: skip

#: Kinds of worlds that are played where none are named: one law that the strategies know, and one that they do not.
USUAL_LAWS = ("chinchilla", "misfit")


def play(strategy: str, law: str, world: int, seed: int = 0) -> dict[str, Any]:
    """How a strategy fares in one world: a row of `COLUMNS`; `fault` says why there is no prediction, if there is none.

    Worlds with the same number are the same for all strategies. A laboratory without a prediction scores 0.

    Examples
    --------
    >>> row = play("ladder", "chinchilla", 0)
    >>> row["num_runs"], row["fault"]
    (5, '')
    """
    lab = practice_laboratory(derived_key(f"{seed}", "coverage", law, str(world)), Rules(law=law))
    row: dict[str, Any] = {"strategy": strategy, "law": law, "world": world, "fault": ""}
    try:
        prediction = STRATEGIES[strategy](lab)
        lab.reveal()
        row |= lab.score().as_dict() | {"log_width": math.log(prediction.high / prediction.low)}
    except InputError as error:
        row |= {"total": 0.0, "covered": False, "fault": str(error)}
    state = lab.state()
    row |= {
        "num_runs": len(state.answers),
        "num_diverged": sum(answer.outcome.diverged for answer in state.answers),
        "spent_share": state.spent / lab.rules.budget,
    }
    return {name: row.get(name) for name in COLUMNS}


def play_all(
    num_worlds: int = 200,
    strategies: Sequence[str] = tuple(STRATEGIES),
    laws: Sequence[str] = USUAL_LAWS,
    *,
    seed: int = 0,
    num_jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """A row of `play` for every strategy, law and world.

    Raises
    ------
    InputError
        for an unknown strategy or law, or fewer than one world.

    Examples
    --------
    >>> len(play_all(2, ["ladder"], ["chinchilla"]))
    2
    """
    for kind, given, known in (("strategy", strategies, STRATEGIES), ("law", laws, LAWS)):
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"{kind} {unknown[0]!r} is not one of {', '.join(known)}")
    if num_worlds < 1:
        raise InputError(f"{num_worlds} worlds: at least 1 is needed")
    from tqdm import tqdm

    games = [(name, law, world) for law in laws for name in strategies for world in range(num_worlds)]
    rows = Parallel(n_jobs=num_jobs, return_as="generator")(delayed(play)(*game, seed) for game in games)
    shown = tqdm(rows, total=len(games), desc="laboratories", delay=2, disable=not progress, file=sys.stderr)
    return pd.DataFrame(list(shown), columns=list(COLUMNS))


def coverage_summary(table: pd.DataFrame) -> pd.DataFrame:
    """By law and strategy: mean points, the share of intervals that held the truth with its standard error, and more.

    Parameters
    ----------
    table
        of `play_all`, or `data/laboratory_coverage.csv`.

    Examples
    --------
    >>> list(coverage_summary(play_all(2, ["ladder"], ["chinchilla"]))["num_worlds"])
    [2]
    """
    groups = table.assign(covered=table["covered"].astype(float)).groupby(["law", "strategy"], sort=False)
    found = groups.agg(
        num_worlds=("world", "size"),
        total=("total", "mean"),
        interval_points=("interval_points", "mean"),
        accuracy_points=("accuracy_points", "mean"),
        choice_points=("choice_points", "mean"),
        coverage=("covered", "mean"),
        median_log_width=("log_width", "median"),
        median_log_error=("log_error", "median"),
        regret_nats=("regret_nats", "mean"),
        num_faults=("fault", lambda faults: int((faults.notna() & (faults != "")).sum())),
    ).reset_index()
    error = (found["coverage"] * (1 - found["coverage"]) / found["num_worlds"]) ** 0.5
    found.insert(list(found.columns).index("coverage") + 1, "coverage_standard_error", error)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Play, write the table, print the summary; the exit status is 0, or 2 for bad input.

    Examples
    --------
    >>> main(["--worlds", "1", "--strategies", "ladder", "--laws", "chinchilla"])  # doctest: +ELLIPSIS
           law strategy  num_worlds ...
    0
    """
    parser = argparse.ArgumentParser(prog="python -m companion.study.laboratory", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write one row per laboratory (CSV)")
    parser.add_argument("--worlds", type=int, default=200, metavar="W", help="per strategy and law (default: 200)")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), metavar="NAME,...", help="default: all")
    parser.add_argument("--laws", default=",".join(USUAL_LAWS), metavar="NAME,...", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the worlds (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    arguments = parser.parse_args(argv)
    try:
        if arguments.out is not None:
            check_target(arguments.out)
        table = play_all(
            arguments.worlds,
            arguments.strategies.split(","),
            arguments.laws.split(","),
            seed=arguments.seed,
            num_jobs=max(1, arguments.jobs),
            progress=True,
        )
        if arguments.out is not None:
            write_whole(arguments.out, table.to_csv(index=False, float_format="%.6g"))
    except InputError as error:
        print(f"companion: {error}", file=sys.stderr)
        return 2
    print(coverage_summary(table).to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    return 0
