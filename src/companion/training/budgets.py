"""IsoFLOP budgets set by another count of FLOPs: which count it was, and whether N\\* moves as chapter 3 predicts.

A study that fixes its budgets by one convention of counting cuts the valleys of the loss along lines of equal count. By
another convention its runs are not at equal compute. Chapter 3 predicts what the cut does from the paper's own runs:
count them again, let every run keep its budget, and refit the law of the optimum. Here the prediction meets runs whose
budgets really were set by the other count (group `isoflop_budget_by_chinchilla_count` of `data/training_logs.csv`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.accounting import CHINCHILLA, PAPER, SIX_ND, Convention, get_convention
from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost
from companion.fitting.isoflop.joint import JointIsoflopFit, fit_isoflop_joint
from companion.fitting.isoflop.profiles import fit_isoflop
from companion.formatting import plural
from companion.runs.recount import recount
from companion.runs.select import assign_budgets
from companion.runs.where import table_name

Array = NDArray[np.float64]

#: The group of the logs whose budgets follow another count.
CHINCHILLA_GROUP = "isoflop_budget_by_chinchilla_count"
#: Appendix F of arXiv 2203.15556 with one product over the vocabulary, not two: the embedding is a look-up.
CHINCHILLA_LOOK_UP = replace(
    CHINCHILLA,
    name="chinchilla look-up",
    description="as chinchilla, with a free embedding look-up: attention not halved, softmax 3 per score",
    source="arXiv 2203.15556, appendix F, without its embedding product; found by holding runs to constant counts",
    count_embedding=False,
)
#: Counts that a study's budgets may follow.
CANDIDATES: tuple[Convention, ...] = (PAPER, CHINCHILLA, CHINCHILLA_LOOK_UP, SIX_ND)
#: Pairs of a profile that are drawn to compare optima.
NUM_DRAWS = 4000


def counted_profiles(logs: pd.DataFrame, convention: str | Convention, group: str | None = None) -> pd.DataFrame:
    """Finished runs with `train_flops` counted by a convention and a budget of their own read off that count.

    Parameters
    ----------
    logs
        training logs of one architecture and context length, with shapes (`companion.training.load_training_logs`).
    convention
        of the count.
    group
        keep this group of the logs only.

    Returns
    -------
    DataFrame
        the runs, with a fresh index: `train_flops` by the convention, `given_train_flops` as it was, `isoflop_budget`
        (two digits, FLOP of the convention; see `companion.runs.select.assign_budgets`), and `profile`: a number for
        each pair of budget and batch size, by budget, then batch. Runs at two batch sizes are two profiles: the batch
        moves the loss (`companion.training.batch`).

    Raises
    ------
    InputError
        if nothing is left, or the counts form no separate budgets.
    """
    label = table_name(logs, logs.attrs.get("source", "training logs"))
    chosen = logs[(logs["status"] == "finished") & logs["val_loss"].notna()] if "status" in logs else logs
    if group is not None:
        if "group" not in logs or not (chosen["group"] == group).any():
            raise InputError(f"{label}: no finished run of group {group!r}")
        chosen = chosen[chosen["group"] == group]
    chosen = chosen.reset_index(drop=True)
    counted = chosen.assign(given_train_flops=chosen["train_flops"], train_flops=recount(chosen, convention, label))
    counted = assign_budgets(counted.drop(columns="isoflop_budget", errors="ignore"), source=label)
    by = ["isoflop_budget", *(["batch_size_seqs"] if "batch_size_seqs" in counted else [])]
    return counted.assign(profile=counted.groupby(by).ngroup())


def count_constancy(
    profiles: pd.DataFrame, conventions: Sequence[str | Convention] = CANDIDATES, level: float = 0.95
) -> pd.DataFrame:
    """How constant other counts are within profiles: the count that set the budgets has no trend over the size.

    Numbers of steps are rounded, so no count is exactly constant; but rounding has no trend over the size, and a wrong
    convention usually has. A count that ignores part of the work may show no trend by luck: look at the spread too.

    Parameters
    ----------
    profiles
        of `counted_profiles`.
    conventions
        counts to try.

    Returns
    -------
    DataFrame
        one row per convention and profile: `convention`, `isoflop_budget`, `batch_size_seqs` (where known), `num_runs`,
        `mean_count` (FLOP), `spread` (largest over smallest), `trend` (slope of ln count on ln N) and `low`, `high`
        (Student's interval of the trend).

    Raises
    ------
    InputError
        if a profile has fewer than three runs.
    """
    rows = []
    for convention in conventions:
        counts = recount(profiles, convention)
        for number, runs in profiles.groupby("profile"):
            if len(runs) < 3:
                raise InputError(f"profile {number}: {plural(len(runs), 'run')}; a trend of the count needs at least 3")
            values = counts[runs.index].to_numpy(float)
            line = stats.linregress(np.log(runs["num_params"].to_numpy(float)), np.log(values))
            half = float(stats.t.ppf((1 + level) / 2, len(runs) - 2) * line.stderr)
            batch = {"batch_size_seqs": runs["batch_size_seqs"].iloc[0]} if "batch_size_seqs" in runs else {}
            rows.append(
                {
                    "convention": get_convention(convention).name,
                    "isoflop_budget": runs["isoflop_budget"].iloc[0],
                    **batch,
                    "num_runs": len(runs),
                    "mean_count": values.mean(),
                    "spread": values.max() / values.min(),
                    "trend": float(line.slope),
                    "low": float(line.slope) - half,
                    "high": float(line.slope) + half,
                }
            )
    return pd.DataFrame(rows)


def compare_optima(
    profiles: pd.DataFrame,
    runs: pd.DataFrame,
    convention: str | Convention,
    budgets: Sequence[float] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """N\\* of profiles cut by a convention, measured and predicted from runs whose budgets follow another count.

    Parameters
    ----------
    profiles
        of `counted_profiles` with the same convention.
    runs
        IsoFLOP runs with budgets of their own count, one architecture and context length
        (`companion.fitting.isoflop.isoflop_runs`).
    convention
        of the profiles.
    budgets
        budgets of `runs` that make the law; all if not given.
    level, seed
        of the intervals.

    Returns
    -------
    DataFrame
        one row per profile: `isoflop_budget`, `batch_size_seqs` (where known), `num_runs`, `mean_count` (by the
        convention), `mean_given` (by the table's own count), `outside` (whether the count is outside those of the law's
        budgets), and N\\*:

        * `measured`, with `low` and `high`;
        * `predicted` by the joint law of `runs` counted again, with `predicted_low` and `predicted_high`; `two_step`,
          the same by the published procedure;
        * `unaware`: the law of `runs` as they are, read at `mean_count`, which is what to expect if both counts were
          taken for one; `given`: that law at `mean_given`;
        * `ratio`: measured over predicted, with `ratio_low` and `ratio_high`; `moved` (with `moved_low`, `moved_high`)
          and `moved_predicted`: measured and predicted over `unaware`.

    Raises
    ------
    InputError
        as `fit_isoflop` and `fit_isoflop_joint`.
    """
    counted = runs.assign(train_flops=recount(runs, convention))
    law = fit_isoflop_joint(counted, budgets=budgets)
    own = fit_isoflop_joint(runs, budgets=budgets)
    steps = fit_isoflop(counted, budgets=budgets, num_resamples=0)
    means = [profile.mean_train_flops for profile in steps.optima]
    rng = np.random.default_rng(seed)
    rows = []
    for _, part in profiles.groupby("profile"):
        found = fit_isoflop(part, num_resamples=NUM_DRAWS, seed=seed)
        profile, draws = found.optima[0], found.x_opt_resamples[:, 0]
        count, given = profile.mean_train_flops, float(part["given_train_flops"].mean())
        predicted_draws, unaware = _law_draws(law, count, rng), float(own.law.predict(count))
        unaware_draws = _law_draws(own, count, rng)
        predicted = float(law.law.predict(count))
        ratio, moved = draws / predicted_draws, draws / unaware_draws
        batch = {"batch_size_seqs": part["batch_size_seqs"].iloc[0]} if "batch_size_seqs" in part else {}
        rows.append(
            {"isoflop_budget": profile.isoflop_budget, **batch, "num_runs": len(part)}
            | {"mean_count": count, "mean_given": given}
            | _with_interval("measured", "", profile.x_opt, draws, level)
            | _with_interval("predicted", "predicted_", predicted, predicted_draws, level)
            | {"two_step": float(steps.power_law.law.predict(count)), "unaware": unaware}
            | {"given": float(own.law.predict(given))}
            | _with_interval("ratio", "ratio_", profile.x_opt / predicted, ratio, level)
            | _with_interval("moved", "moved_", profile.x_opt / unaware, moved, level)
            | {"moved_predicted": predicted / unaware, "outside": not min(means) <= count <= max(means)}
        )
    return pd.DataFrame(rows)


def _with_interval(name: str, prefix: str, value: float, draws: Array, level: float) -> dict[str, float]:
    low, high = interval_with_lost(draws, level)
    return {name: value, f"{prefix}low": low, f"{prefix}high": high}


def _law_draws(fit: JointIsoflopFit, train_flops: float, rng: np.random.Generator) -> Array:
    """Values of x* at one compute, drawn from what the joint fit leaves open, shape (NUM_DRAWS,)."""
    level = 0.6827
    low, high = fit.predict_interval(train_flops, level)
    half = stats.t.ppf((1 + level) / 2, fit.interval_degrees_of_freedom)
    error = np.log10(float(high) / float(low)) / (2 * half)
    drawn = rng.standard_t(fit.interval_degrees_of_freedom, NUM_DRAWS) * error
    return np.asarray(fit.law.predict(train_flops) * 10**drawn, dtype=np.float64)
