"""IsoFLOP analysis: a parabola per compute budget, its optimum, and a power law through the optima.

The procedure of arXiv 2203.15556 (approach 2) as arXiv 2510.02228 applies it: parabolas of loss in log10 x by least
squares, then log x_opt on the log of each budget's *mean* train_flops, every optimum with the same weight.
`companion.fitting.isoflop_joint` fits the same model in one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.fitting.bootstrap import percentile_interval, resample_counts
from companion.fitting.parabola import ParabolaFit, fit_parabola, optima_of_resamples
from companion.fitting.power_law import PowerLawFit, fit_power_law
from companion.runs import assign_budgets

#: Columns over which a profile can be drawn.
X_COLUMNS = ("num_params", "num_tokens")
#: Below this many different sizes a parabola has next to nothing to say about its own error.
MIN_SIZES = 4


@dataclass(frozen=True, kw_only=True)
class IsoflopProfile:
    """Runs of one compute budget and the parabola through them.

    `x`, `loss`, `weights`, `train_flops` have shape (n,); `mean_train_flops` is their weighted mean. `fit` is `None`
    where there are fewer than three sizes.
    """

    isoflop_budget: float
    x: NDArray[np.float64]
    loss: NDArray[np.float64]
    train_flops: NDArray[np.float64]
    weights: NDArray[np.float64]
    fit: ParabolaFit | None
    warnings: tuple[str, ...]

    @property
    def mean_train_flops(self) -> float:
        """Weighted mean of the FLOPs the runs of this budget really used."""
        return float(np.average(self.train_flops, weights=self.weights))

    @property
    def has_optimum(self) -> bool:
        """Whether there is a parabola and it opens upward."""
        return self.fit is not None and self.fit.law.has_minimum


@dataclass(frozen=True, kw_only=True)
class IsoflopFit:
    """Profiles, the power law through their optima, and bootstrap resamples of both.

    `x_opt_resamples` has shape (R, number of profiles with an optimum); `exponent_resamples` and `prefactor_resamples`
    have shape (R,), NaN where a resample lost one of its optima.
    """

    x_column: str
    profiles: tuple[IsoflopProfile, ...]
    power_law: PowerLawFit
    x_opt_resamples: NDArray[np.float64]
    exponent_resamples: NDArray[np.float64]
    prefactor_resamples: NDArray[np.float64]
    warnings: tuple[str, ...]

    @property
    def optima(self) -> tuple[IsoflopProfile, ...]:
        """The profiles that have an optimum: the points of the power law."""
        return tuple(profile for profile in self.profiles if profile.has_optimum)

    def bootstrap_interval(self, parameter: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of `exponent` or `prefactor` over the resamples."""
        samples = {"exponent": self.exponent_resamples, "prefactor": self.prefactor_resamples}
        if parameter not in samples:
            raise InputError(f"no resamples of {parameter!r}; there are exponent and prefactor")
        return percentile_interval(samples[parameter], level)

    @property
    def lost_resamples(self) -> float:
        """Share of resamples without an optimum at every budget, between 0 and 1; 0 without a bootstrap."""
        return float(np.mean(~np.isfinite(self.exponent_resamples))) if self.exponent_resamples.size else 0.0


def fit_profile(budget: float, x: Any, loss: Any, train_flops: Any, weights: Any = None) -> IsoflopProfile:
    """Parabola of loss in log10 x over the runs of one budget, with warnings about what limits it.

    Parameters
    ----------
    budget
        nominal FLOPs, a label.
    x, loss, train_flops, weights
        shape (n,); `weights` says how many runs a row stands for.
    """
    x, loss = np.asarray(x, dtype=float), np.asarray(loss, dtype=float)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    sizes, label = np.unique(x[w > 0]), f"budget {budget:.3g}"
    notes: list[str] = []
    fit = None
    if sizes.size < MIN_SIZES:
        notes.append(f"{label}: {sizes.size} different sizes, fewer than {MIN_SIZES}")
    if sizes.size >= 3:
        fit = fit_parabola(x, loss, w)
        if not fit.law.has_minimum:
            notes.append(f"{label}: the curvature is not positive, there is no optimum")
        elif not sizes[0] <= fit.law.x_opt <= sizes[-1]:
            notes.append(
                f"{label}: the optimum {fit.law.x_opt:.4g} lies outside the sampled {sizes[0]:.4g} to {sizes[-1]:.4g}"
            )
        elif (sizes < fit.law.x_opt).sum() < 2 or (sizes > fit.law.x_opt).sum() < 2:
            notes.append(f"{label}: fewer than two sizes on one side of the optimum {fit.law.x_opt:.4g}")
    return IsoflopProfile(
        isoflop_budget=budget,
        x=x,
        loss=loss,
        train_flops=np.asarray(train_flops, dtype=float),
        weights=w,
        fit=fit,
        warnings=tuple(notes),
    )


def fit_isoflop(
    runs: pd.DataFrame,
    x: str = "num_params",
    *,
    weights: str | None = None,
    budgets: Sequence[float] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> IsoflopFit:
    """IsoFLOP optima and the power law through them, as published.

    Parameters
    ----------
    runs
        a run table of one architecture and one context length. Rows without a budget are left out; without the column
        `isoflop_budget`, budgets are read off gaps in `train_flops`.
    x
        `num_params` for N\\*(C), `num_tokens` for D\\*(C).
    weights
        a column that says how many times a run counts, e.g. `multiplicity_in_published_fits`.
    budgets
        the budgets to use; all if not given.
    num_resamples, seed
        bootstrap over runs inside every budget; 0 resamples leaves it out.

    Raises
    ------
    InputError
        if a column or budget is missing, several architectures or contexts are mixed, or fewer than two budgets have
        an optimum.
    """
    groups = isoflop_groups(runs, x, weights, budgets)
    profiles = tuple(
        fit_profile(budget, g[x], g["val_loss"], g["train_flops"], g[weights] if weights else None)
        for budget, g in groups.items()
    )
    usable = [profile for profile in profiles if profile.has_optimum]
    notes = [note for profile in profiles for note in profile.warnings]
    if len(usable) < 2:
        raise InputError("; ".join([f"{len(usable)} budgets have an optimum; a power law needs at least 2", *notes]))
    if len(usable) == 2:
        notes.append("two optima leave no degree of freedom: the power law has no standard error")
    flops = np.array([profile.mean_train_flops for profile in usable])
    law = fit_power_law(flops, [p.fit.law.x_opt for p in usable if p.fit])
    x_opt, exponents, prefactors = _bootstrap(usable, num_resamples, seed)
    return IsoflopFit(
        x_column=x,
        profiles=profiles,
        power_law=law,
        x_opt_resamples=x_opt,
        exponent_resamples=exponents,
        prefactor_resamples=prefactors,
        warnings=tuple(notes),
    )


def isoflop_groups(
    runs: pd.DataFrame, x: str, weights: str | None = None, budgets: Sequence[float] | None = None
) -> dict[float, pd.DataFrame]:
    """Runs of every budget, in the order of the budgets (see `fit_isoflop` for arguments and errors)."""
    if x not in X_COLUMNS:
        raise InputError(f"x {x!r} is not one of {', '.join(X_COLUMNS)}")
    for column in ("architecture", "context_length"):
        if column in runs and len(values := sorted(runs[column].dropna().unique())) > 1:
            raise InputError(f"runs of several {column} values are mixed ({', '.join(map(str, values))}): choose one")
    if "isoflop_budget" not in runs or runs["isoflop_budget"].isna().all():
        runs = assign_budgets(runs)
    runs = runs[runs["isoflop_budget"].notna()]
    if weights is not None:
        check_weights(runs, weights)
    groups = {float(budget): group for budget, group in runs.groupby("isoflop_budget")}  # type: ignore[arg-type]
    if budgets is None:
        return groups
    chosen = {}
    for wanted in budgets:
        match = [budget for budget in groups if np.isclose(budget, wanted, rtol=1e-6)]
        if not match:
            raise InputError(f"no runs of budget {wanted:g}; there are {', '.join(f'{b:g}' for b in groups)}")
        chosen[match[0]] = groups[match[0]]
    return dict(sorted(chosen.items()))


def check_weights(runs: pd.DataFrame, column: str) -> None:
    """Raise an InputError unless the column exists and holds finite weights of at least 0, one of them positive."""
    if column not in runs:
        raise InputError(f"weights: there is no column {column!r}; there are {', '.join(map(str, runs.columns))}")
    values = pd.to_numeric(runs[column], errors="coerce").to_numpy(dtype=float)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        raise InputError(
            f"weights: column {column!r} holds {runs[column].iloc[int(np.argmax(wrong))]!r}, not a weight of at least 0"
        )
    if not (values > 0).any():
        raise InputError(f"weights: column {column!r} holds no weight above 0")


def _bootstrap(
    profiles: Sequence[IsoflopProfile], num_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Optima, exponents and prefactors of resampled runs, every budget resampled on its own."""
    if num_resamples == 0:
        return np.empty((0, len(profiles))), np.empty(0), np.empty(0)
    strata = np.repeat(np.arange(len(profiles)), [profile.x.size for profile in profiles])
    counts = resample_counts(strata, num_resamples, seed)
    log_x_opt = np.empty((num_resamples, len(profiles)))
    log_flops = np.empty_like(log_x_opt)
    for index, profile in enumerate(profiles):
        weights = counts[:, strata == index] * profile.weights
        x_opt, _ = optima_of_resamples(profile.x, profile.loss, weights)
        total = weights.sum(axis=1)
        mean_flops = np.divide(
            weights @ profile.train_flops, total, out=np.full(num_resamples, np.nan), where=total > 0
        )
        with np.errstate(divide="ignore"):
            log_x_opt[:, index], log_flops[:, index] = np.log(x_opt), np.log(mean_flops)
    log_x_opt[~np.isfinite(log_x_opt)] = np.nan
    u = log_flops - log_flops.mean(axis=1, keepdims=True)
    exponents = (u * log_x_opt).sum(axis=1) / (u**2).sum(axis=1)
    log_prefactors = log_x_opt.mean(axis=1) - exponents * log_flops.mean(axis=1)
    with np.errstate(over="ignore"):
        return np.exp(log_x_opt), exponents, np.exp(log_prefactors)
