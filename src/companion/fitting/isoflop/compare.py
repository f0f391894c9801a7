"""IsoFLOP results side by side: choices of procedure, conventions of counting, architectures."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from companion.accounting import Convention, get_convention
from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost, standard_spread
from companion.fitting.isoflop.checks import law_scatter
from companion.fitting.isoflop.joint import JointIsoflopFit, fit_isoflop_joint
from companion.fitting.isoflop.profiles import X_COLUMNS, IsoflopFit, fit_isoflop, isoflop_groups
from companion.fitting.isoflop.select import near_optimum
from companion.fitting.power_law import PowerLawFit
from companion.runs.recount import recount

#: Profiles of two architectures belong together when their mean train_flops differ by no more than this, in decades.
PAIRING_TOLERANCE = 0.05


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


def optimum_ratio(first: IsoflopFit, second: IsoflopFit, level: float = 0.95) -> pd.DataFrame:
    """Optimum of the first over that of the second fit, budget by budget, with bootstrap intervals.

    The first optimum is moved to the second's mean train_flops along the first's own power law.

    Parameters
    ----------
    first, second
        fits over the same x, with bootstraps; resamples of one are paired with other resamples of the other, so that
        equal seeds do no harm.

    Returns
    -------
    DataFrame
        `isoflop_budget` and `mean_train_flops` of the second, `first`, `second`, `ratio`, `low`, `high`.

    Raises
    ------
    InputError
        if the fits are over different x, or no budget of one is close to one of the other.
    """
    if first.x_column != second.x_column:
        raise InputError(f"ratio of optima: one is over {first.x_column}, the other over {second.x_column}")
    rows = []
    for j, other in enumerate(second.optima):
        distances = [abs(np.log10(p.mean_train_flops / other.mean_train_flops)) for p in first.optima]
        i = int(np.argmin(distances))
        profile = first.optima[i]
        if distances[i] > PAIRING_TOLERANCE or profile.fit is None or other.fit is None:
            continue
        shift = (other.mean_train_flops / profile.mean_train_flops) ** first.power_law.law.exponent
        samples = shift * first.x_opt_resamples[:, i] / np.roll(second.x_opt_resamples[:, j], 1)
        low, high = interval_with_lost(samples, level)
        rows.append(
            {
                "isoflop_budget": other.isoflop_budget,
                "mean_train_flops": other.mean_train_flops,
                "first": profile.fit.law.x_opt,
                "second": other.fit.law.x_opt,
                "ratio": shift * profile.fit.law.x_opt / other.fit.law.x_opt,
                "low": low,
                "high": high,
            }
        )
    if not rows:
        raise InputError(f"ratio of optima: no two budgets are within {PAIRING_TOLERANCE:g} decades of each other")
    return pd.DataFrame(rows)


def exponents_by_convention(
    runs: pd.DataFrame, conventions: Sequence[str | Convention], budgets: Sequence[float] | None = None
) -> pd.DataFrame:
    """Power laws after counting train_flops again; every run keeps its budget.

    Runs that shared a budget under the convention of the experiment do not share one under another: `spread` is the
    largest over the smallest recounted train_flops within a profile. The two-step procedure ignores that; the joint
    fit takes every run at its own C.

    Parameters
    ----------
    runs
        IsoFLOP runs of one architecture and context, with shapes.
    conventions
        `Convention` objects or names.
    budgets
        budgets to use; all if not given.

    Returns
    -------
    DataFrame
        one row per convention: `convention`, `flops_ratio` (mean of recounted over given train_flops), `spread`, then
        for a (of N\\*) and b (of D\\*): `a`, `a_joint`, `a_low`, `a_high` (joint, 95 %), and the same with b.

    Raises
    ------
    InputError
        as `companion.runs.recount.recount` and `fit_isoflop_joint`.
    """
    chosen = pd.concat(isoflop_groups(runs, "num_params", None, budgets).values())
    rows = []
    for convention in conventions:
        flops = recount(chosen, convention)
        counted = chosen.assign(train_flops=flops)
        spread = flops.groupby(chosen["isoflop_budget"]).agg(lambda values: values.max() / values.min())
        row = {
            "convention": get_convention(convention).name,
            "flops_ratio": float((flops / chosen["train_flops"]).mean()),
            "spread": float(spread.max()),
        }
        for letter, x in zip("ab", X_COLUMNS, strict=True):
            joint = fit_isoflop_joint(counted, x)
            low, high = joint.interval()
            row[letter] = fit_isoflop(counted, x, num_resamples=0).power_law.law.exponent
            row |= {f"{letter}_joint": joint.law.exponent, f"{letter}_low": low, f"{letter}_high": high}
        rows.append(row)
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
