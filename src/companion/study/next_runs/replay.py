"""A study replayed: the paper's runs answer as if they were trained when a strategy asks for them.

All runs but the cheapest are hidden. In every round a strategy may spend until its total reaches the next level of
compute: it fits the runs it has seen, chooses among the hidden ones, sees their losses, and refits. So strategies are
compared at equal compute. The reference is the fit of all runs; for the loss of a run that is held out, the loss that
was measured is in the table, too.

The hidden runs are those that the authors chose, so no strategy can ask for a run that nobody trained.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from companion.errors import InputError
from companion.fitting.fit import Fit, fit
from companion.laws import LossSurface
from companion.laws.base import Law
from companion.study.next_runs.choose import choose
from companion.study.next_runs.identify import next_task
from companion.study.next_runs.information import LinearLaw, linearize
from companion.study.next_runs.quantities import LossOf, Quantity, SizeExponent

#: Starts of a fit and resamples of a bootstrap.
NUM_STARTS, RESAMPLES = 8, 100
#: Runs of the start table, its fewest sizes and numbers of tokens apart from what identification asks for.
FEWEST_RUNS, MORE_RUNS = 20, 5
#: Share by which sums of float64 costs may miss a level: else the last run of a study could never be bought.
_ROUNDING = 1e-9
STRATEGIES = ("V-optimal", "D-optimal", "random", "cheapest first", "by budget", "largest affordable")


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Runs that are known and asked for one after the other.

    Attributes
    ----------
    runs
        num_params, num_tokens, train_flops, val_loss, and isoflop_budget for the order by budget; index 0 to n - 1.
    fixed
        what the fits hold.
    quantities
        target quantities by name; V-optimal design follows one of them.
    held_out
        rows that no strategy may ask for, and that no fit sees but that of all runs.
    growth
        factor of the spent compute from one round to the next.
    """

    runs: pd.DataFrame
    fixed: Mapping[str, Any]
    quantities: Mapping[str, Quantity]
    law: type[Law] = LossSurface
    held_out: tuple[int, ...] = ()
    growth: float = 2.0

    def fitted(self, rows: Sequence[int]) -> Fit:
        """The law of some rows."""
        return fit(self.law, self.runs.iloc[list(rows)], num_starts=NUM_STARTS, **self.fixed)

    def start(self) -> list[int]:
        """The cheapest rows whose fit is identified: 20 of them, or more by fives.

        Raises
        ------
        InputError
            if not even all rows determine the law.
        """
        order = [row for row in self._by_cost() if row not in self.held_out]
        for number in range(FEWEST_RUNS, len(order) + MORE_RUNS, MORE_RUNS):
            if self.fitted(order[:number]).identified:
                return order[:number]
        raise InputError("replay: not even all runs determine the law")

    def levels(self, start: Sequence[int]) -> list[float]:
        """Compute that may have been spent at the end of each round, FLOP: from the start to all runs."""
        flops = self.runs["train_flops"].to_numpy(float)
        first, last = flops[list(start)].sum(), flops.sum() - flops[list(self.held_out)].sum()
        number = int(np.ceil(np.log(last / first) / np.log(self.growth)))
        return [min(first * self.growth**power, last) for power in range(1, number + 1)]

    def _by_cost(self) -> list[int]:
        return [int(row) for row in np.argsort(self.runs["train_flops"].to_numpy(float), kind="stable")]


def oracle_of(
    runs: pd.DataFrame,
    fixed: Mapping[str, float],
    growth: float = 2.0,
    quantities: Mapping[str, Quantity] | None = None,
) -> Oracle:
    """The runs of one architecture and context as an oracle; the most expensive run is held out as a target.

    Without `quantities`: the loss of that run, and the exponent of the compute-optimal size.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> oracle = oracle_of(subset(load_paper_runs(), "xlstm", 8192), {"gamma": 1})
    >>> len(oracle.runs), len(oracle.start()), list(oracle.quantities)
    (180, 20, ['loss of the largest run', 'size exponent'])
    """
    table = runs.reset_index(drop=True)
    for name in ("num_params", "num_tokens", "train_flops"):
        table[name] = table[name].astype(float)
    target = int(table["train_flops"].to_numpy().argmax())
    place = table.loc[target, ["num_params", "num_tokens"]].astype(float)
    usual = {"loss of the largest run": LossOf(*place), "size exponent": SizeExponent()}
    return Oracle(
        runs=table,
        fixed=dict(fixed),
        quantities=usual if quantities is None else quantities,
        held_out=(target,),
        growth=growth,
    )


def replay(
    oracle: Oracle,
    strategy: str,
    *,
    follow: str | None = None,
    seed: int = 0,
    bootstrap_at: Sequence[int] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """What a strategy knows after each round: a row per round and quantity.

    Parameters
    ----------
    strategy
        one of `STRATEGIES`.
    follow
        the quantity that V-optimal design is for.
    seed
        of random order, and of the bootstrap.
    bootstrap_at
        rounds whose interval is also that of a bootstrap.

    Returns
    -------
    DataFrame
        strategy, follow, seed, round, num_runs, spent_flops, share_of_compute, status, quantity, value, reference (of
        the fit of all runs), observed (loss that was measured, NaN for what nobody measures), error (against the
        reference; of logarithms for positive quantities), error_observed, standard_error, low and high (95 %, delta
        method), bootstrap_low, bootstrap_high.

    Raises
    ------
    InputError
        for an unknown strategy or quantity.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> oracle = oracle_of(subset(load_paper_runs(), "xlstm", 8192), {"gamma": 1}, growth=100)
    >>> known = replay(oracle, "cheapest first")
    >>> known["num_runs"].unique().tolist()
    [20, 141, 179]
    """
    if strategy not in STRATEGIES:
        raise InputError(f"replay: strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    if strategy == "V-optimal" and follow not in oracle.quantities:
        raise InputError(f"replay: follow {follow!r} is not one of {', '.join(oracle.quantities)}")
    seen = oracle.start()
    everything = oracle.fitted(range(len(oracle.runs)))
    found = oracle.fitted(seen)
    levels = [float(oracle.runs["train_flops"].iloc[seen].sum()), *oracle.levels(seen)]
    rows = []
    for number, level in enumerate(tqdm(levels, desc=strategy, delay=2, disable=not progress, file=sys.stderr)):
        if number:
            seen = [*seen, *_asked_for(oracle, strategy, follow, seed + number, found, seen, level)]
            found = oracle.fitted(seen)
        head = {"strategy": strategy, "follow": follow or "", "seed": seed, "round": number}
        rows += _known(oracle, head, found, everything, seen, number in bootstrap_at, levels[-1])
    return pd.DataFrame(rows)


def _asked_for(
    oracle: Oracle, strategy: str, follow: str | None, seed: int, found: Fit, seen: Sequence[int], level: float
) -> list[int]:
    """Rows to see next: what the compute up to a level buys of the hidden ones."""
    flops = oracle.runs["train_flops"].to_numpy(float)
    hidden = np.setdiff1d(np.arange(len(flops)), [*seen, *oracle.held_out])
    left = (level - flops[list(seen)].sum()) * (1 + _ROUNDING)
    if not (flops[hidden] <= left).any():
        return []
    if strategy in ("V-optimal", "D-optimal"):
        quantity = oracle.quantities[str(follow)] if strategy == "V-optimal" else None
        pool = oracle.runs.iloc[hidden].rename(columns={"train_flops": "cost"})
        _, task = next_task(found, oracle.runs.iloc[list(seen)], pool, left, quantity, max_runs=len(hidden))
        return [int(hidden[at]) for at in choose(task, "greedy")]
    budgets = oracle.runs["isoflop_budget"].fillna(np.inf).to_numpy(float) if "isoflop_budget" in oracle.runs else flops
    order = {
        "random": lambda: np.random.default_rng(seed).permutation(len(hidden)),
        "cheapest first": lambda: np.argsort(flops[hidden], kind="stable"),
        "by budget": lambda: np.lexsort((flops[hidden], budgets[hidden])),
        "largest affordable": lambda: np.argsort(-flops[hidden], kind="stable"),
    }[strategy]()
    taken = []
    for row in hidden[order]:
        if flops[row] <= left:
            taken.append(int(row))
            left -= flops[row]
    return taken


def _known(
    oracle: Oracle, head: dict[str, Any], found: Fit, everything: Fit, seen: Sequence[int], resample: bool, total: float
) -> list[dict[str, Any]]:
    """Rows of one round, one per quantity."""
    spent = float(oracle.runs["train_flops"].iloc[list(seen)].sum())
    head = head | {
        "num_runs": len(seen),
        "spent_flops": spent,
        "share_of_compute": spent / total,
        "status": found.status,
    }
    bootstrap = found.bootstrap(RESAMPLES, seed=head["seed"]) if resample and found.identified else None
    rows = []
    for name, quantity in oracle.quantities.items():
        reference = quantity.value(everything.law)
        row: dict[str, Any] = {"quantity": name, "value": np.nan, "reference": reference, "observed": np.nan}
        if isinstance(quantity, LossOf):
            row["observed"] = float(oracle.runs["val_loss"].iloc[oracle.held_out[0]])
        row |= dict.fromkeys(_MEASURED, np.nan)
        if found.identified:
            row |= _measured(linearize(found), quantity, oracle.runs.iloc[list(seen)], reference, row["observed"])
        if bootstrap is not None:
            ends = bootstrap.interval_of(quantity.value)
            row |= dict(zip(("bootstrap_low", "bootstrap_high"), ends, strict=True))
        rows.append(head | row)
    return rows


_MEASURED = ("error", "error_observed", "standard_error", "low", "high", "bootstrap_low", "bootstrap_high")


def _measured(
    linear: LinearLaw, quantity: Quantity, runs: pd.DataFrame, reference: float, observed: float
) -> dict[str, Any]:
    value = quantity.value(linear.law)
    error = linear.standard_error(linear.information(runs["num_params"], runs["num_tokens"]), quantity)
    low, high = quantity.interval(value, linear.noise.quantile(0.95) * error)
    missed = quantity.error_of(linear.law, observed) if np.isfinite(observed) else np.nan
    against = {"error": quantity.error_of(linear.law, reference), "error_observed": missed}
    return {"value": value, **against, "standard_error": error, "low": low, "high": high}


def replay_all(
    oracle: Oracle,
    *,
    random_seeds: int = 8,
    bootstrap_at: Sequence[int] = (),
    num_jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """`replay` of every strategy: V-optimal for each quantity, random order for several seeds.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> oracle = oracle_of(subset(load_paper_runs(), "xlstm", 8192), {"gamma": 1}, growth=1e4)
    >>> replay_all(oracle, random_seeds=1)["strategy"].nunique()
    6
    """
    cases: list[dict[str, Any]] = [{"strategy": "V-optimal", "follow": name} for name in oracle.quantities]
    cases += [{"strategy": name} for name in STRATEGIES if name not in ("V-optimal", "random")]
    cases += [{"strategy": "random", "seed": 1000 * seed} for seed in range(random_seeds)]
    work = (delayed(_case)(oracle, case, bootstrap_at) for case in cases)
    found: Iterator[pd.DataFrame] = Parallel(n_jobs=num_jobs, return_as="generator")(work)
    return pd.concat(
        list(tqdm(found, total=len(cases), desc="strategies", delay=2, disable=not progress, file=sys.stderr))
    )


def _case(oracle: Oracle, case: dict[str, Any], bootstrap_at: Sequence[int]) -> pd.DataFrame:
    resampled = bootstrap_at if case.get("seed", 0) == 0 else ()
    return replay(oracle, bootstrap_at=resampled, **case)
