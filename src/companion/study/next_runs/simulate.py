"""Simulated studies: a truth, a small table, a budget for further runs, and what each design makes of it.

Every study draws a start table from the truth, fits the assumed law, chooses runs by it, draws their losses, refits
and compares the target quantity with that of the truth. Under a wrong law (a truth that is no member of the assumed
one) the same comparison shows how far bias and coverage suffer.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from tqdm import tqdm

from companion.errors import InputError
from companion.fitting.fit import HUBER_DELTA, Fit, fit
from companion.laws import LossSurface, ProductLaw
from companion.laws.base import Law
from companion.numeric import Values
from companion.runs import load_paper_runs, subset
from companion.study.next_runs.candidates import Pricing, candidate_runs
from companion.study.next_runs.choose import choose
from companion.study.next_runs.designs import isoflop_grid, largest_affordable, random_design, ratio_grid
from companion.study.next_runs.identify import next_task
from companion.study.next_runs.information import linearize
from companion.study.next_runs.quantities import LossOf, Quantity, Truth

#: Starts of a fit here: tables of a known law have one basin.
NUM_STARTS = 6
#: Share of the loss that the further term of a truth makes in the middle of the runs, and its power of N D.
CROSS_SHARE, CROSS_POWER = 0.02, 0.1


@dataclass(frozen=True, kw_only=True)
class CrossTerm:
    """A law with a further term K (N D)^-power: what is learned from tokens depends on the size."""

    law: LossSurface
    K: float
    power: float

    def predict(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """Mean loss in nats per token."""
        product = np.asarray(num_params, dtype=float) * np.asarray(num_tokens, dtype=float)
        return self.law.predict(num_params, num_tokens) + self.K * product**-self.power


def paper_truths(architecture: str = "xlstm") -> dict[str, Truth]:
    """Four truths through the same runs of the paper (T = 8192), by name: the assumed law, and three that it is not.

    `gamma free` and `product` are the fits of these laws; `further term` is the fit with gamma = 1 plus a cross term
    that makes `CROSS_SHARE` of the loss in the middle of the runs. All but the product are close to the runs.

    Examples
    --------
    >>> list(paper_truths())
    ['gamma = 1', 'gamma free', 'further term', 'product']
    """
    runs = subset(load_paper_runs(), architecture, 8192)
    assumed = fit(LossSurface, runs, gamma=1).law
    middle = float(np.exp(np.log(runs["num_params"].astype(float) * runs["num_tokens"]).mean()))
    level = float(runs["val_loss"].mean())
    return {
        "gamma = 1": assumed,
        "gamma free": fit(LossSurface, runs).law,
        "further term": CrossTerm(law=assumed, K=CROSS_SHARE * level * middle**CROSS_POWER, power=CROSS_POWER),
        "product": fit(ProductLaw, runs).law,
    }


STRATEGIES = ("V-optimal", "D-optimal", "IsoFLOP grid", "token/param grid", "largest affordable", "random")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all tables of a simulation share.

    Attributes
    ----------
    truth, noise
        where losses come from, and the standard deviation of log L about it.
    fixed
        what the fits hold, e.g. {"gamma": 1}.
    quantity
        the target quantity; the truth must have it.
    start_budget
        FLOP of the start table: IsoFLOP profiles about the optimum of `profile_law`.
    multiples
        budgets for further runs, as multiples of it.
    max_runs
        of every design.
    """

    truth: Truth
    profile_law: LossSurface
    noise: float = 0.003
    law: type[Law] = LossSurface
    fixed: Mapping[str, Any] = field(default_factory=lambda: {"gamma": 1.0})
    quantity: Quantity = field(default_factory=lambda: LossOf(2e10, 4e11))
    start_budget: float = 3e20
    multiples: tuple[float, ...] = (1.0, 10.0)
    max_runs: int = 12
    huber_delta: float = HUBER_DELTA
    pricing: Pricing = field(default_factory=Pricing)
    sizes: tuple[float, float] = (5e7, 1e10)

    def start(self) -> pd.DataFrame:
        """Places of the start table."""
        return isoflop_grid(self.profile_law, self.pricing, self.start_budget)

    def candidates(self, budget: float) -> pd.DataFrame:
        """Runs that may follow."""
        return candidate_runs(
            self.pricing, np.geomspace(*self.sizes, 14), ratios=np.geomspace(3, 1000, 10), most=budget
        )

    def drawn(self, places: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        """The places with losses."""
        mean = self.truth.predict(places["num_params"].to_numpy(), places["num_tokens"].to_numpy())
        return places.assign(val_loss=mean * np.exp(self.noise * rng.standard_normal(len(places))))

    def fitted(self, runs: pd.DataFrame) -> Fit:
        """The assumed law of a table."""
        return fit(self.law, runs, huber_delta=self.huber_delta, num_starts=NUM_STARTS, **self.fixed)


def designed(study: Study, strategy: str, found: Fit, start: pd.DataFrame, budget: float, seed: int) -> pd.DataFrame:
    """The runs of a strategy: by a criterion and the fitted law, or a design that needs at most the law's optimum.

    Raises
    ------
    InputError
        for an unknown strategy.
    """
    candidates = study.candidates(budget)
    quantity = study.quantity if strategy == "V-optimal" else None
    linear, task = next_task(found, start, candidates, budget, quantity, study.max_runs)
    if strategy in ("V-optimal", "D-optimal"):
        return candidates.iloc[choose(task)].reset_index(drop=True)
    others: dict[str, Callable[[], pd.DataFrame]] = {
        "IsoFLOP grid": partial(
            isoflop_grid, linear.law, study.pricing, budget, num_sizes=study.max_runs // 3, sizes=study.sizes
        ),
        "token/param grid": partial(ratio_grid, study.pricing, study.sizes, budget, num_sizes=study.max_runs // 3),
        "largest affordable": partial(largest_affordable, candidates, budget, study.max_runs),
        "random": partial(random_design, candidates, budget, seed, study.max_runs),
    }
    if strategy not in others:
        raise InputError(f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    return others[strategy]()


def simulate_table(
    study: Study, number: int, seed: int, strategies: Sequence[str] = STRATEGIES
) -> list[dict[str, Any]]:
    """One simulated table under all strategies and budgets: a row each, besides one for the start.

    Rows hold strategy, multiple, num_runs, spent_flops, identified, value, error, standard_error and covered (of the
    95 % interval); NaN where the law is not identified.
    """
    rng = np.random.default_rng((seed, number))
    start = study.drawn(study.start(), rng)
    found = study.fitted(start)
    rows = [_row(study, "start", 0.0, start, found)]
    for multiple in study.multiples:
        for place, strategy in enumerate(strategies):
            chosen = designed(study, strategy, found, start, multiple * study.start_budget, number)
            own = np.random.default_rng((seed, number, place, round(multiple * 1000)))
            runs = pd.concat([start, study.drawn(chosen, own)], ignore_index=True)
            rows.append(_row(study, strategy, multiple, runs, study.fitted(runs)))
    return rows


def _row(study: Study, strategy: str, multiple: float, runs: pd.DataFrame, found: Fit) -> dict[str, Any]:
    row: dict[str, Any] = {"strategy": strategy, "multiple": multiple, "num_runs": len(runs)}
    row |= {"spent_flops": float(runs["train_flops"].sum()), "identified": found.identified}
    row |= dict.fromkeys(("value", "error", "standard_error"), np.nan) | {"covered": np.nan}
    if found.identified:
        linear, quantity = linearize(found), study.quantity
        error = linear.standard_error(linear.information(runs["num_params"], runs["num_tokens"]), quantity)
        miss = quantity.error_of(found.law, quantity.value(study.truth))
        row |= {"value": quantity.value(found.law), "error": miss, "standard_error": error}
        row["covered"] = float(abs(miss) <= linear.noise.quantile(0.95) * error)
    return row


def simulate(
    study: Study,
    tables: int,
    *,
    seed: int = 0,
    num_jobs: int = 1,
    progress: bool = False,
    strategies: Sequence[str] = STRATEGIES,
) -> pd.DataFrame:
    """Rows of `simulate_table` for many tables, with the column `table`; the same seed gives the same rows.

    Examples
    --------
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> study = Study(truth=law, profile_law=law, multiples=(1.0,))
    >>> len(simulate(study, 2, strategies=("random",)))
    4
    """
    work = (delayed(simulate_table)(study, number, seed, strategies) for number in range(tables))
    found: Iterator[list[dict[str, Any]]] = Parallel(n_jobs=num_jobs, return_as="generator")(work)
    bar = tqdm(found, total=tables, desc="tables", delay=2, disable=not progress, file=sys.stderr)
    return pd.DataFrame([{"table": number, **row} for number, rows in enumerate(bar) for row in rows])


def summarized(simulated: pd.DataFrame, level_quantile: float = 1.96) -> pd.DataFrame:
    """By strategy and multiple: tables, identified share, bias, rmse, median half width (95 %), coverage.

    Bias, rmse and half width are those of ln(value) for positive quantities.

    Examples
    --------
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> study = Study(truth=law, profile_law=law, multiples=(1.0,))
    >>> summarized(simulate(study, 2, strategies=("random",)))["strategy"].tolist()
    ['start', 'random']
    """
    groups = simulated.groupby(["multiple", "strategy"], sort=False)
    table = groups.agg(
        tables=("table", "size"),
        num_runs=("num_runs", "mean"),
        spent_flops=("spent_flops", "mean"),
        identified=("identified", "mean"),
        bias=("error", "mean"),
        rmse=("error", lambda errors: float(np.sqrt(np.mean(np.square(errors.dropna()))))),
        half_width=("standard_error", lambda errors: level_quantile * float(errors.median())),
        coverage=("covered", "mean"),
    )
    return table.reset_index()
