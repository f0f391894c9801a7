"""How well the loss at a fraction of a run predicts its final loss, on runs that the prediction has not seen.

A raw early loss says little about the last one: a schedule that lowers the learning rate holds back much of what a run
gains until it ends (arXiv 2203.15556 matches the cosine to every run's length for that reason), and where warm-up and
cool-down count steps, short runs are elsewhere in their schedule at the same fraction than long ones. Losses along the
way do help to fit laws (arXiv 2410.11840); here they have to predict on their own.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.fitting import fit
from companion.fitting.isoflop.parabola import fit_parabola, num_sizes
from companion.formatting import plural
from companion.laws import LossSurface
from companion.training.curves import FAMILY, WINDOW, finished_runs, need, on_common_axis

#: Where predictions are made by default, fractions of the run.
PREDICT_AT = (0.1, 0.2, 0.25, 1 / 3, 0.5, 2 / 3, 0.8, 0.9, 1.0)
#: What runs of one IsoFLOP profile share.
PROFILE = (*FAMILY, "isoflop_budget")
#: Fewer runs than this teach no line.
MIN_TRAINING_RUNS = 5
#: Starts of the fits of a law: on these tables 4 to 32 end in the same place.
NUM_STARTS = 8

Array = NDArray[np.float64]


def predict_final_loss(
    curves: pd.DataFrame,
    logs: pd.DataFrame,
    *,
    fractions: ArrayLike = PREDICT_AT,
    window: float = WINDOW,
    group: str = "isoflop_budget",
    family: Sequence[str] = FAMILY,
) -> pd.DataFrame:
    """The final validation loss of every run, predicted from its training loss at fractions of the run.

    Runs of one group at a time are left out; what a predictor learns, it learns from the other groups of the family.

    * `last value`: the loss at the fraction, as if nothing were to come.
    * `shift`: that, less the mean drop from there to the end.
    * `line`: a + b · loss.
    * `line and steps`: a + b · loss + c / steps: a warm-up of fixed steps is a share of the run that goes as 1 / steps.
    * `line, steps and shape`: that and d · log N.
    * `group mean` (no curve): the mean final loss of the other runs of the run's own group.
    * `law` (no curve): L(N, D) fitted to the final losses of the other groups, gamma = 1.

    Parameters
    ----------
    curves
        of `load_training_curves`.
    logs
        of `load_training_logs`, with the column `group` (see `with_budgets`); finished runs are used.
    fractions, window
        as in `on_common_axis`.
    group
        the column whose values are left out in turn.
    family
        columns that runs must share to learn from each other.

    Returns
    -------
    DataFrame
        a row a run, fraction and predictor: `run`, the columns of `family` and `group`, `fraction` (NaN without a
        curve), `predictor`, `final_loss`, `predicted`, `error` = predicted − final (nats per token), `largest`: whether
        the group left out is the largest of its family, so that small runs predict large ones. `predicted` is NaN where
        too few runs have a value at the fraction.

    Raises
    ------
    InputError
        for a missing column, a run without a curve, a family with a single group, or fewer than 5 runs to learn from.
    """
    runs = finished_runs(logs)
    need(runs, (*family, group, "num_params", "num_tokens", "train_steps"), "training logs")
    runs = runs[runs[group].notna()].reset_index(drop=True)
    early = on_common_axis(curves, runs, fractions=fractions, window=window)
    parts = []
    for key, members in runs.groupby(list(family), sort=False):
        for label, out in _left_out(members, group, key):
            found = _predictions(members, early.iloc[members.index], out)
            parts.append(found.assign(largest=label == members[group].max()))
    table = pd.concat(parts, ignore_index=True)
    return table.merge(runs[["run", *family, group]], on="run").assign(error=table["predicted"] - table["final_loss"])


def rms_errors(predictions: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Root mean square errors of predicted final losses by predictor and fraction.

    Parameters
    ----------
    predictions
        of `predict_final_loss`.
    by
        further columns to split by, such as `architecture` or `largest`.

    Returns
    -------
    DataFrame
        with `by`, `predictor`, `fraction`, `num_runs`, `rms_error` and `bias` (the mean error), nats per token, and
        `median_error` and `worst` of the absolute errors: a few runs that have just spiked can rule the mean square.
    """
    keys = [*by, "predictor", "fraction"]
    known = predictions[predictions["error"].notna()]
    table = known.assign(square=known["error"] ** 2, size=known["error"].abs()).groupby(keys, dropna=False, sort=False)
    found = table.agg(
        num_runs=("run", "size"),
        rms_error=("square", "mean"),
        bias=("error", "mean"),
        median_error=("size", "median"),
        worst=("size", "max"),
    )
    return found.assign(rms_error=np.sqrt(found["rms_error"])).reset_index()


def early_ranking(
    curves: pd.DataFrame,
    logs: pd.DataFrame,
    *,
    fractions: ArrayLike = PREDICT_AT,
    window: float = WINDOW,
    profile: Sequence[str] = PROFILE,
    min_runs: int = 5,
) -> pd.DataFrame:
    """Whether stopping at a fraction of the run would choose the same best size within an IsoFLOP profile.

    At a fraction f of the run all models of a profile have spent f of the budget: the best size there is near the best
    one of the budget f · C, which is smaller, unless the schedule says otherwise.

    Parameters
    ----------
    curves, logs, fractions, window
        as in `predict_final_loss`.
    profile
        columns that the runs of a profile share.
    min_runs
        smaller profiles are left out.

    Returns
    -------
    DataFrame
        a row a profile and fraction: the columns of `profile`, `fraction`, `num_runs`, `rank_correlation` (Spearman, of
        the early with the final loss), `same_best`, `regret` (final loss of the run that is best early, less the least
        final loss, nats per token), `early_optimum` and `final_optimum` (N at the bottom of parabolas through losses
        over log N; NaN without one) and their ratio `optimum_ratio`.

    Raises
    ------
    InputError
        for a missing column, a run without a curve, or no profile of enough runs.
    """
    runs = finished_runs(logs)
    need(runs, (*profile, "num_params", "train_steps"), "training logs")
    sizes = runs.groupby(list(profile))["run"].transform("size")
    runs = runs[sizes >= min_runs].reset_index(drop=True)
    if runs.empty:
        raise InputError(f"training logs: no profile has {plural(min_runs, 'finished run')}")
    early = on_common_axis(curves, runs, fractions=fractions, window=window)
    rows = []
    for key, members in runs.groupby(list(profile), sort=False):
        final = members["val_loss"].to_numpy(float)
        end = _bottom(members["num_params"].to_numpy(float), final)
        for fraction, loss in early.iloc[members.index].items():
            values = loss.to_numpy(float)
            known = np.isfinite(values)
            if known.sum() < min_runs:
                continue
            best = int(np.nanargmin(values))
            start = _bottom(members["num_params"].to_numpy(float)[known], values[known])
            ranks = rank_correlation(pd.Series(values[known]), pd.Series(final[known]))
            rows.append(
                dict(zip(profile, key, strict=True))
                | {
                    "fraction": fraction,
                    "num_runs": int(known.sum()),
                    "rank_correlation": ranks,
                    "same_best": best == int(np.argmin(final)),
                    "regret": final[best] - final.min(),
                    "early_optimum": start,
                    "final_optimum": end,
                    "optimum_ratio": start / end,
                }
            )
    return pd.DataFrame(rows)


def _left_out(members: pd.DataFrame, group: str, key: object) -> Iterator[tuple[object, NDArray[np.bool_]]]:
    """Every group of a family with the mask of its runs."""
    labels = members[group].to_numpy()
    found = np.unique(labels)
    name = ", ".join(map(str, key if isinstance(key, tuple) else (key,)))
    if len(found) < 2:
        raise InputError(f"column {group!r}: the runs of {name} form a single group; none can be left out")
    for label in found:
        out = labels == label
        if (left := int((~out).sum())) < MIN_TRAINING_RUNS:
            raise InputError(
                f"column {group!r}: without {label} only {plural(left, 'run')} of {name} are left to learn from; at "
                f"least {MIN_TRAINING_RUNS} are needed"
            )
        yield label, out


def _predictions(members: pd.DataFrame, early: pd.DataFrame, out: NDArray[np.bool_]) -> pd.DataFrame:
    """All predictors for the runs left out of one family."""
    final = members["val_loss"].to_numpy(float)
    held = members[out]
    number = len(held)
    mean = (final[out].sum() - final[out]) / (number - 1) if number > 1 else np.full(1, np.nan)
    law = fit(LossSurface, members[~out], gamma=1, num_starts=NUM_STARTS)
    found = {
        ("group mean", float("nan")): mean,
        ("law", float("nan")): law.predict(held["num_params"], held["num_tokens"]),
    }
    inverse = 1e3 / members["train_steps"].to_numpy(float)
    size = np.log(members["num_params"].to_numpy(float))
    lines = {"line": [], "line and steps": [inverse], "line, steps and shape": [inverse, size]}
    for fraction, loss in zip(early.columns.to_numpy(float).tolist(), early.to_numpy(float).T, strict=True):
        learn = ~out & np.isfinite(loss)
        enough = learn.sum() >= MIN_TRAINING_RUNS
        found["last value", fraction] = loss[out]
        found["shift", fraction] = loss[out] - ((loss - final)[learn].mean() if enough else np.nan)
        for name, more in lines.items():
            table = np.column_stack([np.ones(len(loss)), loss, *more])
            predicted = np.full(number, np.nan)
            if enough:
                predicted = table[out] @ np.linalg.lstsq(table[learn], final[learn], rcond=None)[0]
            found[name, fraction] = predicted
    return pd.DataFrame(
        {
            "run": np.tile(held["run"].to_numpy(), len(found)),
            "fraction": np.repeat([fraction for _, fraction in found], number),
            "predictor": np.repeat([name for name, _ in found], number),
            "final_loss": np.tile(final[out], len(found)),
            "predicted": np.concatenate(list(found.values())),
        }
    )


def _bottom(sizes: Array, loss: Array) -> float:
    """N at the bottom of a parabola over log N; NaN where there is none."""
    if num_sizes(sizes) < 3:
        return float("nan")
    law = fit_parabola(sizes, loss).law
    return law.x_opt if law.has_minimum else float("nan")


def rank_correlation(first: pd.Series, second: pd.Series) -> float:
    """Spearman's rank correlation of two series with one index; NaN where either does not vary."""
    known = first.notna() & second.notna()
    if min(first[known].nunique(), second[known].nunique()) < 2:
        return float("nan")
    return float(first.corr(second, method="spearman"))
