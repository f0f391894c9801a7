"""Choose the runs that shrink an interval most for a budget: greedy choice and exchange.

Criteria: `V`, the log variance of one quantity (c-optimality, which Elfving 1952 and Kiefer and Wolfowitz 1959 study),
and `D`, minus the log determinant of the information (Kiefer and Wolfowitz 1959). Exchange goes back to Fedorov 1972:
take one run out, put in what is best for the cost that it frees, as long as that gains. It ends in a local optimum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.laws.base import Array
from companion.study.next_runs.information import LinearLaw, condition_number, variance_of
from companion.study.next_runs.quantities import Quantity

Criterion = Literal["V", "D"]
Method = Literal["greedy", "exchange"]
CRITERIA: tuple[Criterion, ...] = ("V", "D")
METHODS: tuple[Method, ...] = ("exchange", "greedy")
#: Runs of a design unless a reader asks for another number: a sweep that a group would still look after.
MAX_RUNS = 24
#: Gains below this (in log variance) are rounding.
_LEAST_GAIN = 1e-9
#: Random designs that an exchange begins from, besides greedy ones.
_RANDOM_STARTS = 4
#: Passes of the exchange over all chosen runs; a few suffice.
_PASSES = 20


@dataclass(frozen=True, kw_only=True)
class Task:
    """A choice among m candidates, f free parameters.

    `rows` (m, f) and `costs` (m,) are those of the candidates, `start` (f, f) the information that there is, `slope`
    (f,) that of the wanted quantity (None: criterion D). A candidate may be chosen `copies` times: with other seeds.
    """

    rows: Array
    costs: Array
    start: Array
    budget: float
    slope: Array | None = None
    max_runs: int = MAX_RUNS
    copies: int = 1

    def __post_init__(self) -> None:
        if not (np.isfinite(self.costs) & (self.costs > 0)).all():
            raise InputError("design: every candidate needs a positive, finite cost")
        if self.max_runs < 1 or self.copies < 1:
            raise InputError("design: at least 1 run, and 1 copy of each, must be allowed")
        if math.isinf(condition_number(self.start)):
            raise InputError(
                "design: the runs at hand leave directions of the parameters open; choose runs that determine them "
                "first (companion.study.next_runs.identifying_design)"
            )

    def information(self, chosen: Sequence[int]) -> Array:
        """Of the start and the chosen runs, (f, f)."""
        rows = self.rows[list(chosen)]
        return np.asarray(self.start + rows.T @ rows)

    def criterion(self, chosen: Sequence[int]) -> float:
        """What is minimized, for candidates by number, repeats allowed."""
        matrix = self.information(chosen)
        if self.slope is None:
            return -float(np.linalg.slogdet(matrix)[1])
        variance = variance_of(matrix, self.slope)
        return math.log(variance) if variance > 0 else -math.inf

    def gains(self, chosen: Sequence[int]) -> Array:
        """By how much each candidate would lower the criterion, (m,): rank-one updates of the inverse."""
        solved = np.linalg.solve(self.information(chosen), self.rows.T)
        leverage = np.einsum("mf,fm->m", self.rows, solved)
        if self.slope is None:
            return np.log1p(leverage)
        before = variance_of(self.information(chosen), self.slope)
        if not before > 0:
            return np.zeros(len(self.rows))
        saved = (self.slope @ solved) ** 2 / (1 + leverage) / before
        return np.asarray(-np.log1p(-np.minimum(saved, 1 - 1e-15)))

    def open(self, chosen: Sequence[int]) -> NDArray[np.bool_]:
        """Which candidates can still be added, (m,)."""
        if len(chosen) >= self.max_runs:
            return np.zeros(len(self.rows), dtype=bool)
        used = np.bincount(np.asarray(chosen, dtype=int), minlength=len(self.rows))
        left = self.budget - self.costs[list(chosen)].sum()
        return (self.costs <= left + 1e-9 * self.budget) & (used < self.copies)


def make_task(
    linear: LinearLaw,
    start: Array,
    candidates: pd.DataFrame,
    budget: float,
    quantity: Quantity | None,
    max_runs: int = MAX_RUNS,
    copies: int = 1,
) -> Task:
    """The task for candidates with the columns of `Pricing.priced`; no quantity means criterion D."""
    return Task(
        rows=linear.sensitivities(candidates["num_params"], candidates["num_tokens"]),
        costs=candidates["cost"].to_numpy(float),
        start=start,
        budget=budget,
        slope=None if quantity is None else linear.slope(quantity),
        max_runs=max_runs,
        copies=copies,
    )


def choose(task: Task, method: Method = "exchange") -> list[int]:
    """Candidates to train by number, in the order in which they gain most.

    Greedy choice runs twice, by gain per cost and by gain alone. Exchange improves both, and further starts: greedy by
    criterion D, and random ones. The best result counts; the same task gives the same runs.

    Raises
    ------
    InputError
        if no candidate is affordable.

    Examples
    --------
    A straight line over x from -1 to 1 is known best from runs at both ends:

    >>> x = np.linspace(-1, 1, 21)
    >>> rows = np.column_stack([np.ones(21), x])
    >>> task = Task(rows=rows, costs=np.ones(21), start=1e-6 * np.eye(2), budget=4.0, copies=4)
    >>> sorted(x[choose(task)].tolist())
    [-1.0, -1.0, 1.0, 1.0]
    """
    if not task.open([]).any():
        raise InputError(f"budget {task.budget:.3g} is below the cheapest candidate, {task.costs.min():.3g}")
    found = [filled(task, [], per_cost) for per_cost in (True, False)]
    if method == "exchange":
        found = [exchanged(task, one) for one in [*found, *_further_starts(task)]]
    return ordered(task, min(found, key=task.criterion))


def _further_starts(task: Task) -> list[list[int]]:
    """Designs to begin an exchange from: by criterion D, as some runs say something only together, and random ones."""
    broad = replace(task, slope=None)
    starts = [filled(broad, [], per_cost) for per_cost in (True, False)] if task.slope is not None else []
    for seed in range(_RANDOM_STARTS):
        order = np.random.default_rng(seed).permutation(len(task.costs))
        chosen: list[int] = []
        for candidate in order:
            if task.open(chosen)[candidate]:
                chosen.append(int(candidate))
        starts.append(chosen)
    return starts


def filled(task: Task, chosen: Sequence[int], per_cost: bool) -> list[int]:
    """The chosen runs and what the rest of the budget buys, each time the largest gain, or the largest per cost."""
    result = list(chosen)
    while (open_now := task.open(result)).any():
        gains = task.gains(result)
        score = np.where(open_now, gains / task.costs if per_cost else gains, -np.inf)
        best = int(np.argmax(score))
        if gains[best] < _LEAST_GAIN:
            break
        result.append(best)
    return result


def exchanged(task: Task, chosen: Sequence[int]) -> list[int]:
    """The design after swaps that each lower the criterion: never worse than the one given, never beyond the budget.

    A swap takes one run out and puts in the best affordable one, or refills the freed budget.
    """
    best, value = list(chosen), task.criterion(chosen)
    for _ in range(_PASSES):
        before = value
        for place in range(len(best)):
            if place >= len(best):
                break
            rest = best[:place] + best[place + 1 :]
            for trial in _replacements(task, rest):
                if (lower := task.criterion(trial)) < value - _LEAST_GAIN:
                    best, value = trial, lower
        if not value < before - _LEAST_GAIN:
            break
    return best


def _replacements(task: Task, rest: list[int]) -> list[list[int]]:
    """What could follow when a run has been taken out."""
    open_now = task.open(rest)
    if not open_now.any():
        return []
    single = [*rest, int(np.argmax(np.where(open_now, task.gains(rest), -np.inf)))]
    return [filled(task, single, per_cost=True), filled(task, rest, per_cost=True)]


def ordered(task: Task, chosen: Sequence[int]) -> list[int]:
    """The same runs, each time the one first that gains most of those left."""
    left = list(chosen)
    result: list[int] = []
    while left:
        gains = task.gains(result)
        at = max(range(len(left)), key=lambda place: gains[left[place]])
        result.append(left.pop(at))
    return result


def standard_errors(linear: LinearLaw, start: Array, runs: pd.DataFrame, quantity: Quantity) -> Array:
    """Standard error of a quantity before any of the runs and after each, shape (k + 1,).

    Examples
    --------
    >>> from companion.laws import LossSurface
    >>> from companion.study.next_runs import SizeExponent, linear_law, ratio_grid, Pricing
    >>> linear = linear_law(LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28), 0.005, ["gamma"])
    >>> runs = ratio_grid(Pricing(), (1e8, 1e11), 1e21)
    >>> start = linear.information(runs["num_params"], runs["num_tokens"])
    >>> errors = standard_errors(linear, start, runs, SizeExponent())
    >>> float((errors[-1] / errors[0]).round(4))  # every run twice
    0.7071
    """
    rows, slope = linear.sensitivities(runs["num_params"], runs["num_tokens"]), linear.slope(quantity)
    matrix, found = start.copy(), [variance_of(start, slope)]
    for row in rows:
        matrix = matrix + np.outer(row, row)
        found.append(variance_of(matrix, slope))
    return np.sqrt(found)
