"""IsoFLOP results side by side: two architectures, several conventions of counting."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.accounting import Convention, get_convention
from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.isoflop.profiles import X_COLUMNS, IsoflopFit, fit_isoflop, isoflop_groups
from companion.runs.recount import recount

#: Profiles of two architectures belong together when their mean train_flops differ by no more than this, in decades.
PAIRING_TOLERANCE = 0.05


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
