"""Designs to compare with: random runs, IsoFLOP profiles, a grid of tokens per parameter, the largest affordable runs.

Each spends the same budget on candidates or on runs of its own, at most `max_runs` of them.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.laws.base import Law
from companion.laws.optimum import optimum
from companion.study.next_runs.candidates import Pricing
from companion.study.next_runs.choose import MAX_RUNS

#: Factor from one budget of IsoFLOP profiles to the next, and from the optimum to the ends of a profile.
_BUDGET_STEP, _HALF_WIDTH = 10**0.5, 3.0
#: Most bisections of a scale over thirty decades, and the unspent share of a budget at which they end.
_STEPS, _CLOSE = 46, 1e-4
#: Ratios of the grid of tokens per parameter, about those of arXiv 2510.02228.
_RATIOS = (22.0, 110.0, 550.0)


def random_design(candidates: pd.DataFrame, budget: float, seed: int, max_runs: int = MAX_RUNS) -> pd.DataFrame:
    """Candidates in random order, each taken if the rest of the budget allows.

    Examples
    --------
    >>> from companion.study.next_runs.candidates import candidate_runs
    >>> grid = candidate_runs(Pricing(), [1e8, 1e9], ratios=[10.0, 20.0, 40.0])
    >>> bool(random_design(grid, 1e20, seed=0)["cost"].sum() <= 1e20)
    True
    """
    order = np.random.default_rng(seed).permutation(len(candidates))
    return _taken(candidates.iloc[order], budget, max_runs)


def cheapest_first(candidates: pd.DataFrame, budget: float, max_runs: int = MAX_RUNS) -> pd.DataFrame:
    """The cheapest candidates, one after the other."""
    return _taken(candidates.sort_values("cost", kind="stable"), budget, max_runs)


def largest_affordable(candidates: pd.DataFrame, budget: float, max_runs: int = MAX_RUNS) -> pd.DataFrame:
    """The most expensive candidate within the budget, then the most expensive within the rest, and so on.

    Examples
    --------
    >>> from companion.study.next_runs.candidates import candidate_runs
    >>> grid = candidate_runs(Pricing(), [1e8, 1e9], ratios=[10.0, 20.0, 40.0])
    >>> largest_affordable(grid, 1.5e20)["tokens_per_param"].tolist()
    [20.0, 40.0, 20.0, 10.0]
    """
    return _taken(candidates.sort_values("cost", ascending=False, kind="stable"), budget, max_runs)


def isoflop_grid(
    law: Law,
    pricing: Pricing,
    budget: float,
    num_budgets: int = 3,
    num_sizes: int = 5,
    sizes: tuple[float, float] = (0.0, np.inf),
) -> pd.DataFrame:
    """Profiles of equal compute, their sizes from a third to three times the optimum of a law.

    Parameters
    ----------
    sizes
        smallest and largest N; a profile about an optimum beyond them ends there.

    Raises
    ------
    InputError
        if the law has no optimum, or no run is left.

    Examples
    --------
    >>> from companion.laws import LossSurface
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> profiles = isoflop_grid(law, Pricing(), 1e21)
    >>> len(profiles), f"{profiles['train_flops'].sum():.3g}"
    (15, '1e+21')
    """
    levels = _BUDGET_STEP ** np.arange(num_budgets)
    spread = np.geomspace(1 / _HALF_WIDTH, _HALF_WIDTH, num_sizes) if num_sizes > 1 else np.ones(1)

    def grid(lowest: float) -> pd.DataFrame:
        best = [float(np.clip(optimum(law, pricing.cost, one).num_params[0], *sizes)) for one in lowest * levels]
        size = np.clip(np.outer(best, spread).ravel(), *sizes)
        table = pd.DataFrame({"size": size, "flops": np.repeat(lowest * levels, num_sizes)}).drop_duplicates()
        size, flops = table["size"].to_numpy(), table["flops"].to_numpy()
        return pricing.priced(size, flops / pricing.flops(size, np.ones_like(size)))

    return _scaled_to(grid, budget)


def ratio_grid(
    pricing: Pricing, sizes: tuple[float, float], budget: float, num_sizes: int = 5, ratios: tuple[float, ...] = _RATIOS
) -> pd.DataFrame:
    """Sizes at fixed ratios of tokens to parameters: from the smallest up, as large as the budget allows.

    Parameters
    ----------
    sizes
        the smallest and the largest size.

    Examples
    --------
    >>> grid = ratio_grid(Pricing(), (1e8, 1e11), 1e21)
    >>> len(grid), f"{grid['train_flops'].sum():.3g}"
    (15, '1e+21')
    """

    def grid(largest: float) -> pd.DataFrame:
        size = np.geomspace(sizes[0], max(largest, sizes[0]), num_sizes)
        size, ratio = (axis.ravel() for axis in np.meshgrid(size, ratios))
        return pricing.priced(size, size * ratio)

    if (table := grid(sizes[1]))["cost"].sum() <= budget:
        return table
    if (table := grid(sizes[0]))["cost"].sum() > budget:
        return _taken(table.sort_values("cost", kind="stable").drop_duplicates(), budget, len(table))
    return _scaled_to(grid, budget, (sizes[0], sizes[1]))


def _scaled_to(
    grid: Callable[[float], pd.DataFrame], budget: float, ends: tuple[float, float] | None = None
) -> pd.DataFrame:
    """The grid whose runs cost the budget in all: bisection in the logarithm of its scale."""
    low, high = np.log(ends if ends is not None else (1e6, 1e35))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        try:
            cost = grid(float(np.exp(middle)))["cost"].sum()
        except InputError:  # a budget at which the law has no optimum among the shapes
            cost = 0.0 if middle < np.log(1e18) else np.inf
        low, high = (middle, high) if cost <= budget else (low, middle)
        if budget * (1 - _CLOSE) <= cost <= budget:
            break
    table = grid(float(np.exp(low)))
    if table.empty:
        raise InputError(f"no grid of runs fits into a budget of {budget:.3g}")
    return table.reset_index(drop=True)


def _taken(candidates: pd.DataFrame, budget: float, max_runs: int) -> pd.DataFrame:
    """In the order given, each one that the rest of the budget allows."""
    left, taken = budget * (1 + 1e-9), []
    for place, cost in enumerate(candidates["cost"].to_numpy(float)):
        if cost <= left:
            taken.append(place)
            left -= cost
        if len(taken) == max_runs:
            break
    return candidates.iloc[taken].reset_index(drop=True)
