"""IsoFLOP optima over the context length: N\\*(T) and D\\*(T) at a fixed budget, and the power laws through them.

The procedure of arXiv 2510.02228 (section on context length): the IsoFLOP parabolas of `companion.fitting.isoflop`,
once per context length. Here every budget gets a power law over T as well, and one bootstrap of the runs carries its
uncertainty into everything that is computed from the optima.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError, NotApplicable
from companion.fitting.bootstrap import (
    MANY_LOST,
    interval_with_lost,
    lost_share,
    resample_counts,
)
from companion.fitting.context.optima import ContextOptimum, context_optima, spread_notes
from companion.fitting.inputs import check_weights
from companion.fitting.isoflop.profiles import X_COLUMNS, law_undefined, unlabeled
from companion.fitting.isoflop.select import isoflop_runs
from companion.fitting.power_law import PowerLawFit, fit_power_law
from companion.fitting.results import UNKNOWN, Result, check_name
from companion.formatting import percent
from companion.runs.groups import split_at_gaps
from companion.runs.where import table_name

Array = NDArray[np.float64]

#: Labels of budgets at several contexts that lie this close (log10) are one budget: labels read off gaps in
#: `train_flops` differ in their second digit.
SAME_BUDGET = 0.05


@dataclass(frozen=True, kw_only=True)
class ContextTrend(Result):
    """x\\*(T) = prefactor · T^exponent at one budget, T in tokens.

    The prefactor is x\\* at T = 1, far from any run: it belongs to the formula. Resamples have shape (R,).
    """

    isoflop_budget: float
    quantity: str
    context_lengths: tuple[int, ...]
    power_law: PowerLawFit
    exponent_resamples: Array
    prefactor_resamples: Array

    @property
    def exponent(self) -> float:
        """d ln x\\* / d ln T."""
        return self.power_law.law.exponent

    @property
    def prefactor(self) -> float:
        """x\\* at T = 1."""
        return self.power_law.law.prefactor

    @property
    def num_contexts(self) -> int:
        """Optima that the law goes through."""
        return len(self.context_lengths)

    @property
    def lost_resamples(self) -> float:
        """Share of resamples that lack one of the optima, between 0 and 1; 0 without a bootstrap."""
        return lost_share(self.exponent_resamples)

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Interval of `exponent` or `prefactor` over the resamples; (NaN, NaN) where `undefined` gives a reason.

        It knows how well each optimum is known, not that a power law may be the wrong curve; the Student interval of
        `power_law` judges by the distance of the optima from the line, with one degree of freedom for three contexts.
        """
        return UNKNOWN if self.undefined(name, level) else interval_with_lost(self._samples(name), level)

    def undefined(self, name: str, level: float = 0.95) -> str | None:
        """Why there is no interval, in words; None where there is one."""
        return law_undefined(name, self._samples(name), level)

    def _samples(self, name: str) -> Array:
        samples = {"exponent": self.exponent_resamples, "prefactor": self.prefactor_resamples}
        check_name(name, samples, "a trend")
        return samples[name]


@dataclass(frozen=True, kw_only=True)
class ContextFit:
    """Optima and trends of one architecture, and the resampled runs behind their intervals.

    `runs` are all IsoFLOP runs of the architecture, at every budget and context, `base_weights` (n,) how often each
    counts, and `counts` (R, n) how often each was drawn: drawn within every pair of budget and context, so resamples
    of different profiles are independent. `optima` holds the budgets that have at least two contexts.
    """

    architecture: str
    runs: pd.DataFrame
    base_weights: Array
    counts: NDArray[np.int64]
    optima: tuple[ContextOptimum, ...]
    trends: tuple[ContextTrend, ...]
    seed: int
    warnings: tuple[str, ...]

    @property
    def context_lengths(self) -> list[int]:
        """Context lengths of the optima, ascending."""
        return sorted({optimum.context_length for optimum in self.optima})

    @property
    def budgets(self) -> list[float]:
        """Budgets of the optima, ascending."""
        return sorted({optimum.isoflop_budget for optimum in self.optima})

    def optimum(self, isoflop_budget: float, context_length: int, quantity: str) -> ContextOptimum | None:
        """One optimum, or None where there is no such profile."""
        key = (isoflop_budget, context_length, quantity)
        found = (o for o in self.optima if (o.isoflop_budget, o.context_length, o.quantity) == key)
        return next(found, None)

    def change(self, quantity: str, first: int, last: int, level: float = 0.95) -> tuple[float, float, float]:
        """x\\*(last) / x\\*(first): geometric mean over the budgets that have both, and its percentile interval.

        Raises
        ------
        InputError
            if no budget has an optimum at both contexts.
        """
        pairs = [[self.optimum(budget, length, quantity) for length in (first, last)] for budget in self.budgets]
        both = [(a, b) for a, b in pairs if a and b and np.isfinite(a.x_opt / b.x_opt)]
        if not both:
            raise InputError(f"no budget of {self.architecture} has an optimum at T = {first} and T = {last}")
        logs = np.mean([np.log(b.x_opt / a.x_opt) for a, b in both])
        samples = np.mean([np.log(b.x_opt_resamples / a.x_opt_resamples) for a, b in both], axis=0)
        low, high = interval_with_lost(np.exp(samples), level)
        return float(np.exp(logs)), low, high

    def trends_table(self, level: float = 0.95) -> pd.DataFrame:
        """One row per trend.

        Returns
        -------
        DataFrame
            with `isoflop_budget`, `quantity`, `exponent`, `prefactor`, `exponent_interval`, `prefactor_interval`
            (pairs), `num_contexts`, `context_lengths` (list), `exponent_interval_undefined` (why there is no interval;
            None if there is one) and `exponent_standard_error` (of the line through the optima; NaN for two).
        """
        return pd.DataFrame(
            [
                {
                    "isoflop_budget": trend.isoflop_budget,
                    "quantity": trend.quantity,
                    "exponent": trend.exponent,
                    "prefactor": trend.prefactor,
                    "exponent_interval": trend.interval("exponent", level),
                    "prefactor_interval": trend.interval("prefactor", level),
                    "num_contexts": trend.num_contexts,
                    "context_lengths": list(trend.context_lengths),
                    "exponent_interval_undefined": trend.undefined("exponent", level),
                    "exponent_standard_error": trend.power_law.exponent_standard_error,
                }
                for trend in self.trends
            ]
        )

    def optima_table(self, level: float = 0.95) -> pd.DataFrame:
        """One row per optimum.

        Returns
        -------
        DataFrame
            with `isoflop_budget`, `context_length`, `quantity`, `x_opt`, `x_opt_interval`, `x_opt_interval_undefined`
            (why there is none; None if there is one), `loss_opt`, `loss_opt_interval` (nats per token),
            `mean_train_flops` and `num_runs`.
        """
        return pd.DataFrame(
            [
                {
                    "isoflop_budget": optimum.isoflop_budget,
                    "context_length": optimum.context_length,
                    "quantity": optimum.quantity,
                    "x_opt": optimum.x_opt,
                    "x_opt_interval": optimum.interval("x_opt", level),
                    "x_opt_interval_undefined": optimum.undefined(level),
                    "loss_opt": optimum.loss_opt,
                    "loss_opt_interval": optimum.interval("loss_opt", level),
                    "mean_train_flops": optimum.mean_train_flops,
                    "num_runs": int(optimum.profile.x.size),
                }
                for optimum in self.optima
            ]
        )


def fit_context_optima(
    runs: pd.DataFrame,
    architecture: str | None = None,
    *,
    weights: str | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> ContextFit:
    """IsoFLOP optima at every context length, and a power law over T at every budget.

    Parameters
    ----------
    runs
        a run table with the column `context_length`; runs of the experiment `isoflop`, or all if none is called so.
        Budgets and contexts are read from the table; budgets at one context only are left out, with a warning.
    architecture
        whose runs to take; may be left out if the table has one.
    weights
        a column that says how many times a run counts.
    num_resamples, seed
        bootstrap over the runs of every profile; 0 resamples leaves it out.

    Raises
    ------
    InputError
        without contexts, for a mixture of architectures, or if no budget has an optimum at two contexts.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> found = fit_context_optima(load_paper_runs(), "xlstm", num_resamples=0)
    >>> found.context_lengths
    [2048, 8192, 16384]
    """
    label = table_name(runs)
    name = _only_architecture(runs, architecture, label)
    if "context_length" not in runs or runs["context_length"].isna().all():
        reason = "column 'context_length' is empty" if "context_length" in runs else "no column 'context_length'"
        raise NotApplicable(f"{label}: {reason}: there are no contexts to compare")
    chosen = isoflop_runs(runs, name)
    unknown = int(chosen["context_length"].isna().sum())
    chosen = chosen[chosen["context_length"].notna()]
    chosen = chosen.assign(isoflop_budget=_shared_budgets(chosen["isoflop_budget"].to_numpy(dtype=float)))
    if weights is not None:
        try:
            check_weights(chosen, weights)
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
        chosen = chosen[chosen[weights].to_numpy(dtype=float) > 0]
    base = chosen[weights].to_numpy(dtype=float) if weights else np.ones(len(chosen))
    strata = chosen.groupby(["isoflop_budget", "context_length"]).ngroup().to_numpy()
    counts = resample_counts(strata, num_resamples, seed) if num_resamples else np.zeros((0, len(chosen)), np.int64)
    notes, kept = list(unlabeled(runs[runs["architecture"] == name])), []
    if unknown:
        notes.append(f"{unknown} of {unknown + len(chosen)} IsoFLOP runs are left out: they have no context_length")
    for budget, lengths in chosen.groupby("isoflop_budget")["context_length"].unique().items():
        if len(lengths) < 2:
            notes.append(f"budget {budget:.3g}: runs at one context length only, T = {lengths[0]:.0f}: left out")
        else:
            kept.append(float(budget))  # type: ignore[arg-type]
    optima = context_optima(chosen, kept, base, counts, seed)
    notes += [
        f"T = {each.context_length}, {each.quantity}, {note}" for each in optima for note in each.profile.warnings
    ]
    notes += spread_notes(optima) if num_resamples else []
    trends = tuple(_trends(optima))
    if not trends:
        there = ", ".join(f"{length:.0f}" for length in sorted(chosen["context_length"].unique()))
        raise NotApplicable(
            f"{label}: no budget of {name} has an optimum at two context lengths; there are T = {there}"
        )
    return ContextFit(
        architecture=name,
        runs=chosen,
        base_weights=base,
        counts=counts,
        optima=tuple(optima),
        trends=trends,
        seed=seed,
        warnings=tuple(notes + _trend_notes(trends)),
    )


def comparable_architectures(runs: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of the architectures that have an optimum at two contexts of one budget, in the order given."""

    def fits(name: str) -> bool:
        try:
            return bool(fit_context_optima(runs, name, num_resamples=0).trends)
        except InputError:
            return False

    return [name for name in names if fits(name)]


def _trends(optima: list[ContextOptimum]) -> Iterator[ContextTrend]:
    budgets = sorted({each.isoflop_budget for each in optima})
    for budget, quantity in ((b, q) for b in budgets for q in X_COLUMNS):
        group = [o for o in optima if (o.isoflop_budget, o.quantity) == (budget, quantity) and np.isfinite(o.x_opt)]
        if len(group) < 2:
            continue
        lengths = np.array([each.context_length for each in group], dtype=float)
        u = np.log(lengths) - np.log(lengths).mean()
        with np.errstate(divide="ignore"):
            samples = np.log(np.stack([each.x_opt_resamples for each in group], axis=1))
        samples[~np.isfinite(samples)] = np.nan
        slopes = samples @ u / (u @ u)
        with np.errstate(over="ignore"):
            prefactors = np.exp(samples.mean(axis=1) - slopes * np.log(lengths).mean())
        yield ContextTrend(
            isoflop_budget=budget,
            quantity=quantity,
            context_lengths=tuple(each.context_length for each in group),
            power_law=fit_power_law(lengths, [each.x_opt for each in group]),
            exponent_resamples=slopes,
            prefactor_resamples=prefactors,
        )


def _trend_notes(trends: tuple[ContextTrend, ...]) -> list[str]:
    notes = []
    for trend in trends:
        label = f"{trend.quantity}, budget {trend.isoflop_budget:.3g}"
        if trend.num_contexts == 2:
            notes.append(f"{label}: two contexts leave no degree of freedom, the power law goes through both")
        if trend.lost_resamples > MANY_LOST:
            notes.append(f"{label}: {percent(trend.lost_resamples)} of the resamples lack an optimum")
    return notes


def _only_architecture(runs: pd.DataFrame, architecture: str | None, label: str) -> str:
    if architecture is not None:
        return architecture
    names: list[Any] = sorted(runs["architecture"].dropna().unique())
    if len(names) != 1:
        raise InputError(f"{label}: runs of {len(names)} architectures ({', '.join(map(str, names))}): choose one")
    return str(names[0])


def _shared_budgets(budgets: Array) -> Array:
    """One label per budget where contexts name it slightly differently."""
    labels = np.unique(budgets)
    result = budgets.copy()
    for close in (labels[part] for part in split_at_gaps(np.log10(labels), SAME_BUDGET)):
        if len(close) > 1:
            result[np.isin(budgets, close)] = float(f"{10 ** np.log10(close).mean():.1e}")
    return result
