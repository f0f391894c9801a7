"""IsoFLOP analysis: a parabola per compute budget, its optimum, and a power law through the optima.

The procedure of arXiv 2203.15556 (approach 2) as arXiv 2510.02228 applies it: parabolas of loss in log10 x by least
squares, then log x_opt on the log of each budget's *mean* train_flops, every optimum with the same weight.
`companion.fitting.isoflop.joint` fits the same model in one step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.fitting.bootstrap import MANY_LOST, interval_with_lost, lost_share, undefined_reason
from companion.fitting.inputs import check_weights
from companion.fitting.isoflop.draws import FAR_DECADES, ROUNDING, draw_optima, far_outside, parabola_spread
from companion.fitting.isoflop.parabola import ParabolaFit, fit_parabola, num_sizes
from companion.fitting.power_law import PowerLawFit, fit_power_law, undefined_power_law
from companion.fitting.results import UNKNOWN, Result, check_name
from companion.formatting import percent
from companion.runs.select import assign_budgets

#: Columns over which a profile can be drawn.
X_COLUMNS = ("num_params", "num_tokens")
#: Below this many different sizes a parabola has next to nothing to say about its own error.
MIN_SIZES = 4
#: Budgets whose mean compute differs by less than this, in decades, are one point of a power law.
SAME_COMPUTE = 1e-6
#: Reasons that an error message lists before it says how many more there are.
SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class IsoflopProfile:
    """Runs of one compute budget and the parabola through them.

    `x`, `loss`, `weights`, `train_flops` have shape (n,); `mean_train_flops` is their weighted mean. `fit` is `None`
    where there are fewer than three sizes. `fault` says why the parabola has no optimum that can be used; it is empty
    if there is one.
    """

    isoflop_budget: float
    x: NDArray[np.float64]
    loss: NDArray[np.float64]
    train_flops: NDArray[np.float64]
    weights: NDArray[np.float64]
    fit: ParabolaFit | None
    fault: str
    warnings: tuple[str, ...]

    @property
    def mean_train_flops(self) -> float:
        """Weighted mean of the FLOPs the runs of this budget really used."""
        return float(np.average(self.train_flops, weights=self.weights))

    @property
    def has_optimum(self) -> bool:
        """Whether there is a parabola that opens upward, with its bottom not absurdly far from the runs."""
        return self.fit is not None and not self.fault

    @property
    def x_opt(self) -> float:
        """x at the bottom of the parabola; NaN without an optimum."""
        return self.fit.law.x_opt if self.fit and self.has_optimum else float("nan")

    @property
    def loss_opt(self) -> float:
        """Loss at the bottom of the parabola, nats per token; NaN without an optimum."""
        return self.fit.law.loss_opt if self.fit and self.has_optimum else float("nan")


@dataclass(frozen=True, kw_only=True)
class IsoflopFit(Result):
    """Profiles, the power law through their optima, and drawn resamples of both.

    `power_law` holds NaN where fewer than two optima, or only optima at one compute, define none: `law_fault` says so,
    and is empty otherwise. Resamples are drawn as in `companion.fitting.isoflop.draws`: `x_opt_resamples` has shape
    (R, number of profiles with an optimum), NaN where a resample has no optimum; `exponent_resamples` and
    `prefactor_resamples` have shape (R,), NaN where a resample lost one of its optima. `spread_faults` says, for every
    profile with an optimum, why none can be drawn; empty where they can.
    """

    x_column: str
    profiles: tuple[IsoflopProfile, ...]
    power_law: PowerLawFit
    law_fault: str
    x_opt_resamples: NDArray[np.float64]
    exponent_resamples: NDArray[np.float64]
    prefactor_resamples: NDArray[np.float64]
    spread_faults: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def optima(self) -> tuple[IsoflopProfile, ...]:
        """The profiles that have an optimum: the points of the power law."""
        return tuple(profile for profile in self.profiles if profile.has_optimum)

    @property
    def law_defined(self) -> bool:
        """Whether there is a power law."""
        return not self.law_fault

    def interval(self, name: str, level: float = 0.95, profile: IsoflopProfile | None = None) -> tuple[float, float]:
        """Interval over the resamples of `exponent`, `prefactor`, or `x_opt` of one of `profiles`.

        (NaN, NaN) where `undefined` gives a reason. `power_law.interval` is the published one, which forgets how
        certain each optimum is.
        """
        return (
            UNKNOWN if self.undefined(name, level, profile) else interval_with_lost(self._samples(name, profile), level)
        )

    def undefined(self, name: str, level: float = 0.95, profile: IsoflopProfile | None = None) -> str | None:
        """Why `interval` gives none, in words; None where it gives one."""
        samples = self._samples(name, profile)
        if profile is None:
            known = self.law_fault or next(filter(None, self.spread_faults), "")
            return ("no resamples" if not samples.size else known) or law_undefined(name, samples, level)
        if not profile.has_optimum:
            return profile.fault
        fault = self.spread_faults[self.optima.index(profile)]
        return ("no resamples" if not samples.size else fault) or undefined_reason(samples, level)

    def _samples(self, name: str, profile: IsoflopProfile | None) -> NDArray[np.float64]:
        if profile is not None:
            check_name(name, ("x_opt",), "an IsoFLOP profile")
            return self.x_opt_resamples[:, self.optima.index(profile)] if profile.has_optimum else np.empty(0)
        samples = {"exponent": self.exponent_resamples, "prefactor": self.prefactor_resamples}
        check_name(name, samples, "an IsoFLOP fit")
        return samples[name]

    @property
    def lost_resamples(self) -> float:
        """Share of resamples without an optimum at every budget, between 0 and 1; 0 without a bootstrap."""
        return lost_share(self.exponent_resamples)


#: An interval of an exponent wider than this, or of a prefactor that spans more decades, excludes nothing.
WIDEST_EXPONENT, WIDEST_PREFACTOR = 4.0, 40.0


def says_nothing(parameter: str, bounds: tuple[float, float]) -> bool:
    """Whether an interval of a power law's `exponent` or `prefactor` is too wide to exclude any finding."""
    if parameter == "exponent":
        return bounds[1] - bounds[0] > WIDEST_EXPONENT
    return not bounds[0] > 0 or np.log10(bounds[1]) - np.log10(bounds[0]) > WIDEST_PREFACTOR


def law_undefined(parameter: str, samples: NDArray[np.float64], level: float) -> str | None:
    """Why resamples of a law's `exponent` or `prefactor` give no interval, in words; None where they give one."""
    if reason := undefined_reason(samples, level):
        return reason
    if says_nothing(parameter, interval_with_lost(samples, level)):
        return f"the interval of the {parameter} is too wide to exclude anything"
    return None


def fit_profile(
    budget: float, x: ArrayLike, loss: ArrayLike, train_flops: ArrayLike, weights: ArrayLike | None = None
) -> IsoflopProfile:
    """Parabola of loss in log10 x over the runs of one budget, with warnings about what limits it.

    Parameters
    ----------
    budget
        nominal FLOPs, a label.
    x, loss, train_flops, weights
        shape (n,); `weights` says how many runs a row stands for.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> at = runs[runs["isoflop_budget"] == 6e18]
    >>> profile = fit_profile(6e18, at["num_params"], at["val_loss"], at["train_flops"])
    >>> print(f"{profile.x_opt:.3g} parameters are best")
    2.28e+08 parameters are best
    """
    x, loss = np.asarray(x, dtype=float), np.asarray(loss, dtype=float)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    sizes, label = np.unique(x[w > 0]), f"budget {budget:.3g}"
    different, notes, fit = num_sizes(sizes), list[str](), None
    if different < MIN_SIZES:
        notes.append(f"{label}: {different} different size{'s' * (different != 1)}, fewer than {MIN_SIZES}")
    fault = f"{different} different size{'s' * (different != 1)}: a parabola needs at least 3"
    if different >= 3:
        fit = fit_parabola(x, loss, w)
        fault = _optimum_fault(fit, sizes, loss[w > 0])
        x_opt = fit.law.x_opt
        if fault:
            notes.append(f"{label}: {fault}")
        elif not sizes[0] <= x_opt <= sizes[-1]:
            notes.append(f"{label}: the optimum {x_opt:.4g} lies outside the sampled {sizes[0]:.4g} to {sizes[-1]:.4g}")
        elif (sizes < x_opt).sum() < 2 or (sizes > x_opt).sum() < 2:
            notes.append(f"{label}: fewer than two sizes on one side of the optimum {x_opt:.4g}")
    return IsoflopProfile(
        isoflop_budget=budget,
        x=x,
        loss=loss,
        train_flops=np.asarray(train_flops, dtype=float),
        weights=w,
        fit=fit,
        fault=fault,
        warnings=tuple(notes),
    )


def _optimum_fault(fit: ParabolaFit, sizes: NDArray[np.float64], loss: NDArray[np.float64]) -> str:
    """Why a parabola has no optimum to speak of; empty if it has one. `sizes` ascend."""
    low, high = np.log10(sizes[0]), np.log10(sizes[-1])
    if np.ptp(loss) <= ROUNDING * np.abs(loss).max():
        return "the loss is the same at every size within rounding, there is no optimum"
    if not fit.law.has_minimum or fit.law.quadratic * (high - low) ** 2 <= ROUNDING * np.ptp(loss):
        return "the curvature is not positive, there is no optimum"
    if far_outside(-fit.law.linear / (2 * fit.law.quadratic), low, high):
        reach = max(FAR_DECADES, high - low)
        decades = "a decade" if reach == 1 else f"{reach:.2g} decades"
        return (
            f"the optimum lies more than {decades} outside the sampled {sizes[0]:.4g} to {sizes[-1]:.4g}: it is no "
            "finding, and is left out"
        )
    return ""


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
        resamples of the optima, drawn from what the runs of each budget leave open (see
        `companion.fitting.isoflop.draws`); 0 leaves them out.

    Returns
    -------
    IsoflopFit
        one optimum leaves the power law undefined: its numbers are NaN, and `law_fault` says why.

    Raises
    ------
    InputError
        if a column or budget is missing, several architectures or contexts are mixed, or no budget has an optimum.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> found = fit_isoflop(runs)
    >>> print(f"N* grows as C^{found.power_law.law.exponent:.3f}")
    N* grows as C^0.523
    """
    groups = isoflop_groups(runs, x, weights, budgets)
    profiles = tuple(
        fit_profile(budget, g[x], g["val_loss"], g["train_flops"], g[weights] if weights else None)
        for budget, g in groups.items()
    )
    usable = [profile for profile in profiles if profile.has_optimum]
    notes = [*unlabeled(runs), *(note for profile in profiles for note in profile.warnings)]
    if not usable:
        more = [f"and {len(notes) - SHOWN} more"] if len(notes) > SHOWN else []
        raise InputError("; ".join([f"no budget of {len(profiles)} has an optimum", *notes[:SHOWN], *more]))
    fault = _law_fault(usable)
    if fault:
        notes.append(f"the power law is undefined: {fault}")
    elif len(usable) == 2:
        notes.append("two optima leave no degree of freedom: the power law has no standard error")
    flops = np.array([profile.mean_train_flops for profile in usable])
    spreads = [parabola_spread(profile.x, profile.loss, profile.weights) for profile in usable]
    log_x_opt, exponents, prefactors = np.empty((0, len(usable))), np.empty(0), np.empty(0)
    if num_resamples:
        log_x_opt, _ = draw_optima(spreads, num_resamples, seed)
        exponents, prefactors = _laws(np.log10(flops), log_x_opt, bool(fault))
        notes += _lost_notes(usable, [spread.fault for spread in spreads], log_x_opt)
    return IsoflopFit(
        x_column=x,
        profiles=profiles,
        power_law=undefined_power_law() if fault else fit_power_law(flops, [profile.x_opt for profile in usable]),
        law_fault=fault,
        x_opt_resamples=10**log_x_opt,
        exponent_resamples=exponents,
        prefactor_resamples=prefactors,
        spread_faults=tuple(spread.fault for spread in spreads),
        warnings=tuple(notes),
    )


def _law_fault(usable: Sequence[IsoflopProfile]) -> str:
    if len(usable) == 1:
        return f"only budget {usable[0].isoflop_budget:.3g} has an optimum, and a law needs two"
    if np.ptp(np.log10([profile.mean_train_flops for profile in usable])) <= SAME_COMPUTE:
        return "all budgets with an optimum have the same mean train_flops"
    return ""


def _laws(
    log_flops: NDArray[np.float64], log_x_opt: NDArray[np.float64], undefined: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exponents and prefactors of the lines through every row of optima (R, B)."""
    if undefined:
        return np.full(len(log_x_opt), np.nan), np.full(len(log_x_opt), np.nan)
    u = log_flops - log_flops.mean()
    exponents = log_x_opt @ u / (u @ u)
    with np.errstate(over="ignore"):
        return exponents, 10 ** (log_x_opt.mean(axis=1) - exponents * log_flops.mean())


def _lost_notes(
    usable: Sequence[IsoflopProfile], faults: Sequence[str], log_x_opt: NDArray[np.float64]
) -> Iterator[str]:
    for profile, fault, samples in zip(usable, faults, log_x_opt.T, strict=True):
        if fault:
            yield f"budget {profile.isoflop_budget:.3g}: no interval, {fault}"
        elif (lost := lost_share(samples)) > MANY_LOST:
            yield (
                f"budget {profile.isoflop_budget:.3g}: {percent(lost, 3)} of the resamples lost the optimum (no "
                "minimum, or one far outside the sampled sizes); the interval counts them as outside"
            )


def unlabeled(runs: pd.DataFrame) -> Iterator[str]:
    """A note on IsoFLOP runs without a budget, where other runs have one."""
    if "isoflop_budget" not in runs or runs["isoflop_budget"].isna().all():
        return
    missing = runs["isoflop_budget"].isna()
    if "experiment" in runs and (runs["experiment"] == "isoflop").any():
        missing &= runs["experiment"] == "isoflop"
    if missing.any():
        yield f"{missing.sum()} of {len(runs)} runs are left out: they have no isoflop_budget"


def isoflop_groups(
    runs: pd.DataFrame, x: str, weights: str | None = None, budgets: Sequence[float] | None = None
) -> dict[float, pd.DataFrame]:
    """Runs of every budget, in the order of the budgets (see `fit_isoflop` for arguments and errors).

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> {budget: len(group) for budget, group in isoflop_groups(runs, "num_params").items()}
    {6e+18: 16, 1e+19: 23, 3e+19: 35, 1e+20: 44, 6e+20: 27}
    """
    if x not in X_COLUMNS:
        raise InputError(f"x {x!r} is not one of {', '.join(X_COLUMNS)}")
    for column in ("architecture", "context_length"):
        if column in runs and len(values := sorted(runs[column].dropna().unique())) > 1:
            raise InputError(f"runs of several {column} values are mixed ({', '.join(map(str, values))}): choose one")
    if "isoflop_budget" not in runs or runs["isoflop_budget"].isna().all():
        runs = assign_budgets(runs)
    runs = runs[runs["isoflop_budget"].notna()]
    groups = {float(budget): group for budget, group in runs.groupby("isoflop_budget")}  # type: ignore[arg-type]
    if weights is not None:
        check_weights(runs, weights)
        # a run of weight 0 is not a run: a budget of such runs does not exist
        groups = {b: group for b, group in groups.items() if group[weights].to_numpy(dtype=float).any()}
    if budgets is None:
        return groups
    chosen = {}
    for chosen_budget in budgets:
        match = [budget for budget in groups if np.isclose(budget, chosen_budget, rtol=1e-6)]
        if not match:
            raise InputError(f"no runs of budget {chosen_budget:g}; there are {', '.join(f'{b:g}' for b in groups)}")
        chosen[match[0]] = groups[match[0]]
    return dict(sorted(chosen.items()))
