"""Optima of IsoFLOP profiles with draws of what their runs leave open: what `companion.study.claims` compares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.isoflop.draws import draw_optima, parabola_spread
from companion.fitting.isoflop.profiles import fit_profile, isoflop_groups
from companion.fitting.isoflop.select import isoflop_runs
from companion.numeric import Array

#: Budgets of two profiles are one budget if their mean compute differs by no more than this, in decades (5 %).
SAME_BUDGET = 0.02


@dataclass(frozen=True, kw_only=True)
class DrawnOptimum:
    """The bottom of one profile: N* and its loss, with draws of log N* and of the loss, both of shape (R,)."""

    budget: float
    train_flops: float
    num_params: float
    loss: float
    log_size: Array
    losses: Array
    num_runs: int


@dataclass(frozen=True)
class Optima:
    """The optima of one architecture at one context, and why there are none if there are none."""

    found: list[DrawnOptimum]
    fault: str


Pair = tuple[DrawnOptimum, DrawnOptimum]


def contexts_of(runs: pd.DataFrame, name: str) -> list[int]:
    """Context lengths of an architecture, ascending."""
    if "context_length" not in runs:
        return []
    return sorted(map(int, runs.loc[runs["architecture"] == name, "context_length"].dropna().unique()))


def optima_of(runs: pd.DataFrame, name: str, context_length: int | None, num_resamples: int, seed: int) -> Optima:
    """Optima of the profiles that have one, by budget."""
    try:
        groups = isoflop_groups(isoflop_runs(runs, name, context_length), "num_params")
    except InputError as error:
        return Optima([], str(error))
    profiles = [fit_profile(at, g["num_params"], g["val_loss"], g["train_flops"]) for at, g in groups.items()]
    usable = [profile for profile in profiles if profile.has_optimum]
    if not usable:
        return Optima([], f"no budget of {name} has a profile with a minimum")
    log_sizes, losses = draw_optima([parabola_spread(each.x, each.loss) for each in usable], num_resamples, seed)
    found = [
        DrawnOptimum(
            budget=each.isoflop_budget,
            train_flops=each.mean_train_flops,
            num_params=each.x_opt,
            loss=each.loss_opt,
            log_size=np.log(10) * log_sizes[:, at],
            losses=losses[:, at],
            num_runs=each.x.size,
        )
        for at, each in enumerate(usable)
    ]
    return Optima(found, "")


def same_budget(one: DrawnOptimum, other: DrawnOptimum) -> bool:
    """Whether two optima are at equal compute."""
    return abs(math.log10(one.train_flops / other.train_flops)) <= SAME_BUDGET


def pairs_of(first: Sequence[DrawnOptimum], second: Sequence[DrawnOptimum]) -> list[Pair]:
    """Optima of both architectures at equal compute."""
    return [(one, other) for one in first for other in second if same_budget(one, other)]


def trends_of(optima: dict[int, list[DrawnOptimum]]) -> list[tuple[float, Array, int]]:
    """By budget with optima at two contexts: d ln N* / d ln T, its draws, and the runs behind it."""
    left = [(length, each) for length, found in optima.items() for each in found]
    trends = []
    while left:
        group = [(length, each) for length, each in left if same_budget(each, left[0][1])]
        left = [other for other in left if not same_budget(other[1], group[0][1])]
        if len({length for length, _ in group}) > 1:
            log_t = np.log([float(length) for length, _ in group])
            u = (log_t - log_t.mean()) / ((log_t - log_t.mean()) ** 2).sum()
            slope = float(u @ np.log([each.num_params for _, each in group]))
            samples = np.stack([each.log_size for _, each in group], axis=1) @ u
            trends.append((slope, samples, sum(each.num_runs for _, each in group)))
    return trends
