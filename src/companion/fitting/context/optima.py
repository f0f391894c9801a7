"""IsoFLOP optima of every budget and context, with resamples that go with resampled runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.fitting.bootstrap import MANY_LOST, in_order_of, interval_with_lost, lost_share, undefined_reason
from companion.fitting.isoflop.draws import draw_optima, parabola_spread
from companion.fitting.isoflop.parabola import optima_of_resamples
from companion.fitting.isoflop.profiles import X_COLUMNS, IsoflopProfile, fit_profile
from companion.fitting.results import Result, check_name
from companion.formatting import percent

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ContextOptimum(Result):
    """The optimum of one IsoFLOP profile at one context length.

    `quantity` is `num_params` or `num_tokens`. Resamples have shape (R,), NaN where a resample has no optimum;
    `spread_fault` says why none has one although the profile does, and is empty otherwise.
    """

    isoflop_budget: float
    context_length: int
    quantity: str
    profile: IsoflopProfile
    x_opt_resamples: Array
    loss_opt_resamples: Array
    spread_fault: str = ""

    @property
    def x_opt(self) -> float:
        """N\\* or D\\*; NaN where the profile has no minimum."""
        return self.profile.x_opt

    @property
    def loss_opt(self) -> float:
        """Loss at the bottom of the parabola, nats per token."""
        return self.profile.loss_opt

    @property
    def mean_train_flops(self) -> float:
        """Mean C of the runs of the profile, FLOP."""
        return self.profile.mean_train_flops

    def interval(self, name: str = "x_opt", level: float = 0.95) -> tuple[float, float]:
        """Interval of `x_opt` or `loss_opt` over the resamples; (NaN, NaN) where `undefined` gives a reason."""
        samples = {"x_opt": self.x_opt_resamples, "loss_opt": self.loss_opt_resamples}
        check_name(name, samples, "an optimum")
        return interval_with_lost(samples[name], level)

    def undefined(self, level: float = 0.95) -> str | None:
        """Why there is no interval, in words; None where there is one."""
        if not self.profile.has_optimum:
            return self.profile.fault
        known = self.spread_fault if self.x_opt_resamples.size else ""
        return known or undefined_reason(self.x_opt_resamples, level)


def context_optima(
    runs: pd.DataFrame, budgets: Sequence[float], base: Array, counts: NDArray[np.int64], seed: int
) -> list[ContextOptimum]:
    """Optima of all profiles of the budgets: by budget, context and quantity.

    Parameters
    ----------
    runs
        IsoFLOP runs of one architecture, n of them.
    budgets
        those whose profiles are taken.
    base
        how often each run counts, shape (n,).
    counts
        how often each run was drawn, shape (R, n).
    seed
        of the drawn optima.
    """
    keys, rows_of = [], []
    for budget in budgets:
        at_budget = (runs["isoflop_budget"] == budget).to_numpy()
        for length in sorted(runs.loc[at_budget, "context_length"].unique()):
            keys.append((budget, int(length)))
            rows_of.append(np.flatnonzero(at_budget & (runs["context_length"] == length).to_numpy()))
    by_quantity = {name: _optima_of(name, keys, rows_of, runs, base, counts, seed) for name in X_COLUMNS}
    return [by_quantity[name][index] for index in range(len(keys)) for name in X_COLUMNS]


def _optima_of(
    quantity: str,
    keys: Sequence[tuple[float, int]],
    rows_of: Sequence[NDArray[np.intp]],
    runs: pd.DataFrame,
    base: Array,
    counts: NDArray[np.int64],
    seed: int,
) -> list[ContextOptimum]:
    profiles = []
    for (budget, _), rows in zip(keys, rows_of, strict=True):
        group = runs.iloc[rows]
        profiles.append(fit_profile(budget, group[quantity], group["val_loss"], group["train_flops"], base[rows]))
    drawn = _drawn(profiles, len(counts), seed)
    result = []
    for index, ((budget, length), profile) in enumerate(zip(keys, profiles, strict=True)):
        x_opt, loss_opt, fault = drawn.get(index, (np.full(len(counts), np.nan), np.full(len(counts), np.nan), ""))
        if len(counts) and index in drawn:
            # values from what the runs leave open, ranks from the resampled runs: so resample r of an optimum goes
            # with resample r of a law that was fitted to the same resampled runs
            rows = rows_of[index]
            guide = optima_of_resamples(profile.x, profile.loss, counts[:, rows] * base[rows])
            x_opt, loss_opt = in_order_of(x_opt, guide[0]), in_order_of(loss_opt, guide[1])
        result.append(
            ContextOptimum(
                isoflop_budget=budget,
                context_length=length,
                quantity=quantity,
                profile=profile,
                x_opt_resamples=x_opt,
                loss_opt_resamples=loss_opt,
                spread_fault=fault,
            )
        )
    return result


def _drawn(profiles: Sequence[IsoflopProfile], num_resamples: int, seed: int) -> dict[int, tuple[Array, Array, str]]:
    """Drawn optima, losses there and why there are none, for every profile that has an optimum."""
    usable = [index for index, profile in enumerate(profiles) if profile.has_optimum]
    if not usable or not num_resamples:
        return {}
    spreads = [parabola_spread(profiles[i].x, profiles[i].loss, profiles[i].weights) for i in usable]
    log_x_opt, loss_opt = draw_optima(spreads, num_resamples, seed)
    return {
        index: (10 ** log_x_opt[:, column], loss_opt[:, column], spreads[column].fault)
        for column, index in enumerate(usable)
    }


def spread_notes(optima: Sequence[ContextOptimum]) -> Iterator[str]:
    """What is to be said of the resamples of every optimum: none at all, or many lost."""
    for each in optima:
        label = f"T = {each.context_length}, {each.quantity}, budget {each.isoflop_budget:.3g}"
        if each.spread_fault:
            yield f"{label}: no interval, {each.spread_fault}"
        elif each.profile.has_optimum and (lost := lost_share(each.x_opt_resamples)) > MANY_LOST:
            yield f"{label}: {percent(lost, 3)} of the resamples lost the optimum; intervals count them as outside"
