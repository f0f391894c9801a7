"""Exponents of one table under several choices of procedure, and errors of the exponent by each of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from companion.chapters.applicability import Selection, main_budgets, need, optional
from companion.chapters.labels import label_of
from companion.errors import InputError
from companion.fitting.bootstrap import standard_spread
from companion.fitting.isoflop.goodness_of_fit import law_scatter
from companion.fitting.isoflop.joint import JointIsoflopFit, fit_isoflop_joint
from companion.fitting.isoflop.profiles import IsoflopFit, fit_isoflop, isoflop_groups
from companion.fitting.isoflop.select import contexts_of, isoflop_runs, near_optimum
from companion.fitting.power_law import PowerLawFit


def exponent_choices(
    runs: pd.DataFrame,
    x: str = "num_params",
    *,
    weights: str | None = None,
    budgets: Sequence[float] | None = None,
    window: float = 0.4,
    num_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Exponent of the power law under choices that a careful author could make.

    Parameters
    ----------
    runs
        IsoFLOP runs of one architecture and context.
    x
        `num_params` or `num_tokens`.
    weights
        column with the number of times a run is counted in the published procedure, if any.
    budgets
        budgets of the main power law; all if not given.
    window
        decades around each optimum that the last choice keeps.

    Returns
    -------
    DataFrame
        one row per choice: `choice`, `exponent`, `standard_error`, `low`, `high` (95 %), `degrees_of_freedom` (NaN for
        a bootstrap). A choice that makes no difference to these runs, or that cannot be fitted, is left out.
    """
    groups = isoflop_groups(runs, x, weights, budgets)
    main, every = list(groups), list(isoflop_groups(runs, x, weights))
    published = partial(fit_isoflop, runs, x, weights=weights, num_resamples=0)
    choices: dict[str, Callable[[], IsoflopFit | JointIsoflopFit]] = {
        "published": lambda: published(budgets=main),
        "published, lowest 3 budgets": lambda: published(budgets=main[:3]),
        "published, all budgets": lambda: published(budgets=every),
        "each run once": lambda: fit_isoflop(runs, x, budgets=main, num_resamples=num_resamples, seed=seed),
        "joint": lambda: fit_isoflop_joint(runs, x, budgets=main),
        "joint, runs repeated": lambda: fit_isoflop_joint(_repeated(groups, weights), x),
        "joint, all budgets": lambda: fit_isoflop_joint(runs, x, budgets=every),
        f"joint, within {window:g} decades": lambda: fit_isoflop_joint(
            near_optimum(pd.concat(groups.values()), window, x), x
        ),
    }
    if len(main) <= 3:
        del choices["published, lowest 3 budgets"]
    if len(every) == len(main):
        del choices["published, all budgets"], choices["joint, all budgets"]
    if weights is None or all((group[weights] == 1).all() for group in groups.values()):
        del choices["joint, runs repeated"]
    rows = []
    for choice, fit in choices.items():
        try:
            fitted = fit()
        except InputError:
            continue
        if isinstance(fitted, JointIsoflopFit) or fitted.law_defined:
            rows += _rows(choice, fitted)
    return pd.DataFrame(rows)


def _repeated(groups: dict[float, pd.DataFrame], weights: str | None) -> pd.DataFrame:
    """The runs as a table that lists each as often as it counts, as if its repetitions were runs of their own."""
    runs = pd.concat(groups.values())
    return runs.loc[runs.index.repeat(runs[weights].to_numpy(dtype=int))] if weights else runs


def _rows(choice: str, fit: IsoflopFit | JointIsoflopFit) -> list[dict[str, Any]]:
    if isinstance(fit, JointIsoflopFit):
        return [
            _row(choice, fit.law.exponent, fit.exponent_standard_error, fit.interval(), fit.interval_degrees_of_freedom)
        ]
    law: PowerLawFit = fit.power_law
    exponent, dof = law.law.exponent, law.degrees_of_freedom
    rows = [_row(choice, exponent, law.exponent_standard_error, law.interval("exponent"), dof)]
    if fit.exponent_resamples.size:
        error = standard_spread(fit.exponent_resamples)
        rows.append(_row(f"{choice}, bootstrap", exponent, error, fit.interval("exponent"), np.nan))
    return rows


def _row(choice: str, exponent: float, error: float, bounds: tuple[float, float], dof: float) -> dict[str, Any]:
    return {
        "choice": choice,
        "exponent": exponent,
        "standard_error": error,
        "low": bounds[0],
        "high": bounds[1],
        "degrees_of_freedom": float(dof),
    }


def exponent_differences(first: pd.DataFrame, second: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """First minus second exponent, choice by choice, for independent data.

    Parameters
    ----------
    first, second
        tables of `exponent_choices`; choices that both have are compared.

    Returns
    -------
    DataFrame
        `choice`, `first`, `second`, `difference`, `standard_error`, `low`, `high`, `p_value` (two-sided, of no
        difference). Student's t with the degrees of freedom of Welch (1947); a bootstrap counts as many.
    """
    rows = []
    pairs = first.merge(second, on="choice", suffixes=("_1", "_2"))
    for row in pairs.to_dict("records"):
        variances = np.array([row["standard_error_1"], row["standard_error_2"]]) ** 2
        dofs = np.array([row["degrees_of_freedom_1"], row["degrees_of_freedom_2"]])
        dofs = np.where(np.isfinite(dofs), dofs, np.inf)
        error, share = float(np.sqrt(variances.sum())), float(np.sum(variances**2 / dofs))
        dof = variances.sum() ** 2 / share if share > 0 else np.inf
        difference = row["exponent_1"] - row["exponent_2"]
        half = float(stats.t.ppf((1 + level) / 2, dof)) * error
        rows.append(
            {
                "choice": row["choice"],
                "first": row["exponent_1"],
                "second": row["exponent_2"],
                "difference": difference,
                "standard_error": error,
                "low": difference - half,
                "high": difference + half,
                "p_value": float(2 * stats.t.sf(abs(difference) / error, dof)) if error > 0 else np.nan,
            }
        )
    return pd.DataFrame(rows)


def exponent_errors(runs: pd.DataFrame, budgets: Sequence[float], weights: str | None = None) -> dict[str, float]:
    """Standard errors of the exponent of N\\*(C), and half intervals, by the published procedure and by others.

    Parameters
    ----------
    runs
        IsoFLOP runs of one architecture and context.
    budgets
        those that make the law.
    weights
        column that says how often the published procedure counts a run; everything else counts each run once.

    Returns
    -------
    dict
        `optima` (their number); standard errors `published`, `bootstrap`, `joint`; the joint fit's `exponent`; half
        95 % intervals `half_published` and `half_joint`; `nearer`, the chance that optima on a true power law lie
        nearer to one than these (NaN for two optima).
    """
    law = fit_isoflop(runs, weights=weights, budgets=budgets, num_resamples=0).power_law
    once, joint = fit_isoflop(runs, budgets=budgets), fit_isoflop_joint(runs, budgets=budgets)
    return {
        "optima": len(once.optima),
        "published": law.exponent_standard_error,
        "bootstrap": standard_spread(once.exponent_resamples),
        "joint": joint.exponent_standard_error,
        "exponent": joint.law.exponent,
        "half_published": law.interval("exponent")[1] - law.law.exponent,
        "half_joint": joint.interval()[1] - joint.law.exponent,
        "nearer": law_scatter(once).closer if len(once.optima) > 2 else float("nan"),
    }


def errors_by_context(selection: Selection, budget_range: Sequence[float] | None, weights: str | None) -> pd.DataFrame:
    """`exponent_errors` of every architecture at every context length that all of them have.

    Returns
    -------
    DataFrame
        one row per context and architecture: `T` (tokens; a dash where the table names no context), `architecture` (as
        printed) and what `exponent_errors` returns. A context with too few budgets or optima has no row.

    Raises
    ------
    NotApplicable
        if no context has a power law.
    """
    runs, rows = selection.runs, []
    for length in contexts_of(runs, selection.architectures):
        for name in selection.architectures:
            table = isoflop_runs(runs, name, length)
            budgets = optional(main_budgets, table, budget_range, selection.of_paper)
            errors = budgets and optional(exponent_errors, table, budgets, weights)
            if errors:
                rows.append({"T": length or "–", "architecture": label_of(name)} | errors)
    need(rows, "no context length has optima from which a power law and its errors follow")
    return pd.DataFrame(rows)


def both_fits(table: pd.DataFrame, budgets: Sequence[float]) -> tuple[IsoflopFit | None, JointIsoflopFit | None]:
    """The two-step and the joint fit of N\\* to the runs of some budgets (FLOP); None where one is refused."""
    two_steps = optional(fit_isoflop, table, budgets=budgets, num_resamples=0)
    return two_steps, optional(fit_isoflop_joint, table, budgets=budgets)


def levers(fit: IsoflopFit) -> dict[float, float]:
    """What each optimum weighs in the exponent: the least-squares slope over log C is the sum of lever times log x_opt.

    Returns
    -------
    dict
        lever by budget (FLOP), in 1/decades.
    """
    log_flops = np.log10([profile.mean_train_flops for profile in fit.optima])
    u = log_flops - log_flops.mean()
    weights = u / np.sum(u**2)
    return {p.isoflop_budget: float(weight) for p, weight in zip(fit.optima, weights, strict=True)}
