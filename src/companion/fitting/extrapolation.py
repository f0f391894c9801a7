"""Fit below a compute cut-off, predict above it: how fast a law goes wrong with distance.

A law that interpolates well can extrapolate badly; the only test is to withhold the expensive runs. Two questions are
asked of every cut-off: which loss do the withheld runs reach (parametric law), and which size is optimal at the
withheld budgets (parametric law against the power law through IsoFLOP parabolas).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.fit import HUBER_DELTA, Fit, fit
from companion.fitting.isoflop.profiles import fit_isoflop, fit_profile, isoflop_groups
from companion.laws import LossSurface, PowerLaw

#: Runs below the lowest default cut-off.
MIN_FITTED = 15


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """A fit below a cut-off and what it says of the runs above.

    `errors` has one row per withheld run: num_params, num_tokens, train_flops, val_loss, `predicted_loss` (nats per
    token), `log_error` (log predicted minus log observed) and `decades` (log10 of train_flops over the cut-off).
    """

    cutoff: float
    fit: Fit
    errors: pd.DataFrame

    def summary(self) -> dict[str, float | int | str]:
        """Root mean square and mean of the log errors, the furthest run, and how the fit ended."""
        log_error = self.errors["log_error"].to_numpy()
        return {
            "cutoff": self.cutoff,
            "num_fitted": self.fit.num_rows,
            "num_predicted": len(self.errors),
            "rms_log_error": float(np.sqrt(np.mean(log_error**2))),
            "mean_log_error": float(log_error.mean()),
            "largest_decades": float(self.errors["decades"].max()),
            "status": self.fit.status,
        }


def default_cutoffs(runs: pd.DataFrame, number: int = 6) -> list[float]:
    """Cut-offs with at least 15 runs below and one above, evenly spread in log compute, FLOP; no two fit the same runs.

    Raises
    ------
    InputError
        for fewer than 16 runs, or where the 15th already has the most compute.
    """
    flops = np.sort(runs["train_flops"].to_numpy(dtype=float))
    if flops.size <= MIN_FITTED:
        raise InputError(
            f"extrapolation: {_plural(flops.size, 'run')}; at least {MIN_FITTED + 1} are needed for a cut-off"
        )
    # just above the 15th run, so that it is fitted, and just below the last, so that it is withheld
    low, high = np.log10(flops[MIN_FITTED - 1]) + 1e-6, np.log10(flops[-1]) - 1e-6
    # rounded up to three digits, so that the 15th run stays below
    spread = sorted({float(f"{1.005 * 10**value:.3g}") for value in np.linspace(low, high, number + 1)[:-1]})
    # where budgets lie close together, rounding up reaches the last run: a cut-off midway does not
    inside = [cutoff for cutoff in spread if cutoff < flops[-1]]
    if not inside:
        below = flops[flops < flops[-1]]
        if below.size < MIN_FITTED:
            raise InputError(
                f"extrapolation: {_plural(below.size, 'run')} below the most compute, {flops[-1]:g} FLOP; at least "
                f"{MIN_FITTED} are needed"
            )
        inside = [float(np.sqrt(below[-1] * flops[-1]))]
    return different_cutoffs(runs, inside)[0]


def different_cutoffs(runs: pd.DataFrame, cutoffs: Sequence[float]) -> tuple[list[float], list[float]]:
    """Cut-offs of which no two select the same runs, ascending, and those that would repeat a lower one."""
    flops = runs["train_flops"].to_numpy(dtype=float)
    kept: dict[int, float] = {}
    repeated = []
    for cutoff in sorted(cutoffs):
        number = int((flops <= cutoff).sum())
        if number in kept:
            repeated.append(cutoff)
        else:
            kept[number] = cutoff
    return list(kept.values()), repeated


def extrapolate(
    runs: pd.DataFrame,
    cutoffs: Sequence[float],
    *,
    gamma: float | None = None,
    huber_delta: float = HUBER_DELTA,
    weights: str | None = None,
    progress: bool = False,
) -> list[Extrapolation]:
    """Fit the runs up to each cut-off and predict the rest.

    Look at `fit.identified` before the errors: below a cut-off often only one ratio or budget is left.

    Parameters
    ----------
    runs
        run table of one architecture and context.
    cutoffs
        FLOP.
    gamma, huber_delta, weights
        as in `companion.fitting.fit`.
    progress
        show a progress bar on stderr once two seconds have passed.

    Raises
    ------
    InputError
        if a cut-off leaves too few runs to fit, or none to predict.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> (step,) = extrapolate(runs, [1.5e20], gamma=1)
    >>> step.summary()["num_predicted"]
    27
    """
    from tqdm import tqdm

    results = []
    for cutoff in tqdm(cutoffs, desc="cut-offs", delay=2, disable=not progress, file=sys.stderr):
        below = runs["train_flops"] <= cutoff
        if below.all():
            raise InputError(f"extrapolation: no run lies above the cut-off {cutoff:g}")
        try:
            fitted = fit(LossSurface, runs[below], gamma=gamma, huber_delta=huber_delta, weights=weights)
        except InputError as error:
            raise InputError(f"extrapolation: below the cut-off {cutoff:g}: {error}") from error
        above = runs.loc[~below, ["num_params", "num_tokens", "train_flops", "val_loss"]].astype(float)
        predicted = fitted.law.predict(above["num_params"].to_numpy(), above["num_tokens"].to_numpy())
        errors = above.assign(
            predicted_loss=predicted,
            log_error=np.log(predicted / above["val_loss"]),
            decades=np.log10(above["train_flops"] / cutoff),
        )
        results.append(Extrapolation(cutoff=float(cutoff), fit=fitted, errors=errors.reset_index(drop=True)))
    return results


def optimum_on_profile(law: LossSurface, profile: pd.DataFrame) -> float:
    """N\\* of a law along the runs of one budget, along which D falls with N.

    One straight line of log D over log N is fitted to the runs of the budget, so exact FLOP counts are respected; the
    minimum is searched over the range of sizes. NaN where it lies at an end of the range, or there is one size only.
    """
    order = np.argsort(profile["num_params"].to_numpy())
    log_n = np.log(profile["num_params"].to_numpy(dtype=float)[order])
    log_d = np.log(profile["num_tokens"].to_numpy(dtype=float)[order])
    if not log_n[-1] > log_n[0]:
        return float("nan")
    # a straight line is enough for D(N) at fixed C, and does not follow the scatter of single runs
    slope, intercept = np.polyfit(log_n, log_d, 1)
    grid = np.linspace(log_n[0], log_n[-1], 4001)
    loss = law.predict(np.exp(grid), np.exp(slope * grid + intercept))
    best = int(np.argmin(loss))
    return float(np.exp(grid[best])) if 0 < best < grid.size - 1 else float("nan")


def compare_optima(runs: pd.DataFrame, *, gamma: float | None = None, weights: str | None = None) -> pd.DataFrame:
    """Predicted against measured N\\* at every budget that has at least two budgets below it.

    Returns
    -------
    DataFrame
        one row per withheld budget and pair of methods: `isoflop_budget`, `highest_fitted_budget`, `decades` between
        them, `measured` (parabola of the withheld budget), `parabola` (power law through the lower optima) and
        `parametric` (law fitted to the runs of the lower budgets), all sizes in parameters, and `status` of that law.
        `parabola` is NaN where fewer than two lower budgets have an optimum, `parametric` where the law cannot be
        fitted, is not identified, or has no optimum among the sizes. Pairs without `measured`, or without both
        predictions, are left out.

    Raises
    ------
    InputError
        for fewer than three budgets, runs that have none, or where nothing can be compared.
    """
    groups = isoflop_groups(runs, "num_params", weights)
    budgets = list(groups)
    if len(budgets) < 3:
        raise InputError(f"extrapolation of optima: {_plural(len(budgets), 'budget')}; at least 3 are needed")
    measured = {
        budget: fit_profile(
            budget, group["num_params"], group["val_loss"], group["train_flops"], group[weights] if weights else None
        )
        for budget, group in groups.items()
    }
    rows = []
    for last in range(1, len(budgets) - 1):
        below = pd.concat(groups[budget] for budget in budgets[: last + 1])
        power_law, fit = _law_through_optima(below, weights), _surface(below, gamma, weights)
        for budget in budgets[last + 1 :]:
            parabola = measured[budget].fit
            rows.append(
                {
                    "isoflop_budget": budget,
                    "highest_fitted_budget": budgets[last],
                    "decades": float(np.log10(budget / budgets[last])),
                    "measured": parabola.law.x_opt if parabola else np.nan,
                    "parabola": float(power_law.predict(measured[budget].mean_train_flops)) if power_law else np.nan,
                    "parametric": optimum_on_profile(fit.law, groups[budget]) if fit and fit.identified else np.nan,
                    "status": fit.status if fit else "too few runs",
                }
            )
    table = pd.DataFrame(rows)
    compared = table["measured"].notna() & table[["parabola", "parametric"]].notna().any(axis=1)
    if not compared.any():
        raise InputError("extrapolation of optima: no withheld budget has a measured and a predicted optimum")
    return table[compared].reset_index(drop=True)


def _law_through_optima(runs: pd.DataFrame, weights: str | None) -> PowerLaw | None:
    """The power law through the parabola optima; None where fewer than two budgets have one."""
    try:
        power_law = fit_isoflop(runs, weights=weights, num_resamples=0).power_law
    except InputError:
        return None
    return power_law.law if power_law else None


def _surface(runs: pd.DataFrame, gamma: float | None, weights: str | None) -> Fit | None:
    """The parametric law; None for no more runs than parameters."""
    try:
        return fit(LossSurface, runs, gamma=gamma, weights=weights)
    except InputError:
        return None


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
