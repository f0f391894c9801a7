"""What the batch size did to the loss: runs of one shape and one number of tokens, trained at two batch sizes.

A pair differs in the batch and, with it, in the number of optimizer steps. Whatever else a study ties to the batch or
to the steps differs too: the learning rate, and the share of a run that a warm-up and a cool-down of fixed length take.
`pair_batches` carries both along, so that a comparison can leave out the pairs that differ in more than the batch.
`companion.training.batch_effects` says what the differences mean for an optimum and for a critical batch size.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import least_squares

from companion.errors import InputError
from companion.fitting.bootstrap import check_resamples, interval_with_lost, percentile_interval, resample_counts
from companion.fitting.results import Result, check_name
from companion.formatting import plural
from companion.numeric import Values
from companion.runs.where import table_name

Array = NDArray[np.float64]

#: What both runs of a pair share, where the table has the column.
PAIR_KEYS = (
    "architecture", "context_length", "num_params", "d_model", "n_layers", "n_heads", "d_qk", "d_hv", "d_ff",
)  # fmt: skip
#: Columns that a table of runs at several batch sizes needs.
NEEDED = ("architecture", "num_params", "num_tokens", "batch_size_seqs", "train_steps", "val_loss")
#: Share by which the tokens of two runs of a pair may differ: steps are rounded, to 200 in the authors' studies.
TOKEN_TOLERANCE = 0.03
#: Columns that a pair shows for both runs, `first` or `second` before the name, where the table has them. The schedule
#: share is that of warm-up and cool-down in the steps; NaN where the table does not say (runs without a log).
SHOWN_FOR_BOTH = (
    "val_loss", "num_tokens", "train_steps", "learning_rate", "schedule_share", "source", "group", "experiment",
)  # fmt: skip
#: Where the search for the exponent of a trend starts.
TYPICAL_EXPONENT = 1.0


def batch_table(runs: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    """Runs of a run table and finished runs of logs that it lacks, in one table for `pair_batches`.

    Parameters
    ----------
    runs
        a run table with batch_size_seqs and train_steps.
    logs
        of `companion.training.load_training_logs`; a run with `in_runs_csv` = 1 is taken from `runs`.

    Returns
    -------
    DataFrame
        all columns of both, with a fresh index; a cell is empty where its table lacks the column.
    """
    new = logs[logs["status"] == "finished"]
    if "in_runs_csv" in new:
        new = new[new["in_runs_csv"] != 1]
    table = pd.concat([runs, new], ignore_index=True)
    table.attrs["source"] = f"{table_name(runs)} and {table_name(logs, logs.attrs.get('source', 'training logs'))}"
    return table


def pair_batches(
    logs: pd.DataFrame, first_batch: float, second_batch: float, *, token_tolerance: float = TOKEN_TOLERANCE
) -> pd.DataFrame:
    """Runs of equal shape, context and tokens at two batch sizes, side by side.

    Each run is in one pair at most: the nearest numbers of tokens are paired first; among equally near ones those with
    the lowest losses, because a table of runs usually keeps the better of two trainings.

    Parameters
    ----------
    logs
        training logs, a run table with batch sizes, or both as one (`batch_table`). Where it has a `status`, only
        finished runs count.
    first_batch, second_batch
        batch sizes, sequences.
    token_tolerance
        share by which the numbers of tokens may differ, 0 or more.

    Returns
    -------
    DataFrame
        one row per pair, by the second run's steps: the columns of `PAIR_KEYS` that the table has, `difference` (loss
        of the second less that of the first run, nats per token), `token_ratio` (second over first); `first_...` and
        `second_...` of `SHOWN_FOR_BOTH`; `first_batch` and `second_batch`, in tokens where the context is known;
        `same_learning_rate`; `loss_uncertainty` (the larger of both, NaN where unknown) and `imposed` (whether either
        loss was reconstructed from published fits, columns of `data/runs.csv`).

    Raises
    ------
    InputError
        if a column is missing, both batches are the same, the tolerance is negative, or nothing pairs.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> from companion.training import load_training_logs
    >>> pairs = pair_batches(batch_table(load_paper_runs(), load_training_logs()), 128, 256)
    >>> len(pairs), int(pairs["same_learning_rate"].sum())
    (28, 22)
    """
    label = table_name(logs, logs.attrs.get("source", "training logs"))
    if missing := [name for name in NEEDED if name not in logs]:
        raise InputError(f"{label}: no column {missing[0]!r}, which pairs of batch sizes need")
    if first_batch == second_batch:
        raise InputError(f"{label}: both batch sizes are {first_batch:g}: choose two")
    if not token_tolerance >= 0:
        raise InputError(f"{label}: token_tolerance {token_tolerance:g} is negative")
    usable = _usable(logs)
    keys = [name for name in PAIR_KEYS if name in usable]
    sides = []
    for name, batch in (("first", first_batch), ("second", second_batch)):
        side = usable[usable["batch_size_seqs"] == batch]
        shown = {column: f"{name}_{column.removeprefix('val_')}" for column in SHOWN_FOR_BOTH if column in side}
        marks = {"loss_uncertainty": f"{name}_uncertainty", "imposed_published_fit": f"{name}_imposed"}
        chosen = side[[*keys, *shown, *(mark for mark in marks if mark in side)]].rename(columns=shown | marks)
        sides.append(chosen.assign(**{f"{name}_row": np.arange(len(side))}))
    pairs = sides[0].merge(sides[1], on=keys)
    pairs["token_ratio"] = pairs["second_num_tokens"] / pairs["first_num_tokens"]
    pairs = _nearest(pairs[np.abs(np.log(pairs["token_ratio"])) <= np.log1p(token_tolerance) + 1e-12])
    if pairs.empty:
        there = ", ".join(f"{batch:g}" for batch in sorted(usable["batch_size_seqs"].unique()))
        raise InputError(
            f"{label}: no run at batch {first_batch:g} has a partner at batch {second_batch:g} with its shape and its "
            f"tokens within a share of {token_tolerance:g}; the table has batches {there or 'of no size'}"
        )
    return _finished_pairs(pairs, first_batch, second_batch)


def _usable(logs: pd.DataFrame) -> pd.DataFrame:
    known = logs[list(NEEDED)].notna().all(axis=1)
    if "status" in logs:
        known &= logs["status"].isna() | (logs["status"] == "finished")
    usable = logs[known]
    if {"warmup_steps", "cooldown_steps"} <= set(usable.columns):
        fixed = usable["warmup_steps"] + usable["cooldown_steps"]
        usable = usable.assign(schedule_share=fixed / usable["train_steps"])
    return usable


def _nearest(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs in which no run appears twice, the nearest tokens first."""
    pairs = pairs.assign(
        distance=np.abs(np.log(pairs["token_ratio"])).round(9), both_losses=pairs["first_loss"] + pairs["second_loss"]
    ).sort_values(["distance", "both_losses"], kind="stable")
    used: set[tuple[str, object]] = set()
    kept = []
    for row in pairs[["first_row", "second_row"]].itertuples():
        runs = {("first", row.first_row), ("second", row.second_row)}
        if not runs & used:
            used |= runs
            kept.append(row.Index)
    return pairs.loc[kept].drop(columns=["distance", "both_losses", "first_row", "second_row"])


def _finished_pairs(pairs: pd.DataFrame, first_batch: float, second_batch: float) -> pd.DataFrame:
    context = pairs.get("context_length", 1)
    result = pairs.assign(
        difference=pairs["second_loss"] - pairs["first_loss"],
        first_batch=first_batch * context,
        second_batch=second_batch * context,
        same_learning_rate=False,
        loss_uncertainty=np.nan,
        imposed=False,
    ).rename(columns={"first_train_steps": "first_steps", "second_train_steps": "second_steps"})
    if "first_learning_rate" in result:
        result["same_learning_rate"] = result["first_learning_rate"] == result["second_learning_rate"]
    if "first_uncertainty" in result:
        result["loss_uncertainty"] = result[["first_uncertainty", "second_uncertainty"]].max(axis=1)
    if "first_imposed" in result:
        result["imposed"] = (result[["first_imposed", "second_imposed"]] == 1).any(axis=1)
    marks = [
        name for name in result if str(name).endswith(("t_uncertainty", "d_uncertainty", "t_imposed", "d_imposed"))
    ]
    return result.drop(columns=marks).sort_values("second_steps", kind="stable").reset_index(drop=True)


# ---- how large, and where --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """Mean of paired differences, nats per token.

    `t_interval` is Student's over the pairs, `bootstrap_interval` that of resampled pairs; `standard_deviation` is the
    scatter of the differences, `smallest` and `largest` their range. The pairs of one study are no random sample: the
    intervals say how well the mean over such sizes is known, not what another size would show.
    """

    mean: float
    t_interval: tuple[float, float]
    bootstrap_interval: tuple[float, float]
    standard_deviation: float
    smallest: float
    largest: float
    num_pairs: int


def mean_difference(
    pairs: pd.DataFrame, level: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> MeanDifference:
    """Mean loss difference of the pairs of `pair_batches`, with two intervals.

    Raises
    ------
    InputError
        with fewer than two pairs.
    """
    values = pairs["difference"].to_numpy(float)
    if values.size < 2:
        raise InputError(f"mean difference: {plural(values.size, 'pair')}; at least 2 are needed")
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))
    half = float(stats.t.ppf((1 + level) / 2, values.size - 1)) * error
    means = resample_counts(np.zeros(values.size), num_resamples, seed) @ values / values.size
    return MeanDifference(
        mean=mean,
        t_interval=(mean - half, mean + half),
        bootstrap_interval=percentile_interval(means, level),
        standard_deviation=float(values.std(ddof=1)),
        smallest=float(values.min()),
        largest=float(values.max()),
        num_pairs=int(values.size),
    )


def differences_by_steps(pairs: pd.DataFrame, num_classes: int = 3, level: float = 0.95) -> pd.DataFrame:
    """Mean differences of classes of about equally many pairs, from few to many steps.

    Returns
    -------
    DataFrame
        `fewest_steps` and `most_steps` (of the second runs), `num_pairs`, `mean`, `low`, `high` (Student's interval),
        and `num_same_learning_rate`.

    Raises
    ------
    InputError
        if a class would have fewer than two pairs.
    """
    if not 1 <= num_classes <= len(pairs) // 2:
        raise InputError(
            f"classes of steps: {num_classes} of {plural(len(pairs), 'pair')}; each needs at least 2 pairs"
        )
    rows = []
    ordered = pairs.sort_values("second_steps", kind="stable")
    for at in np.array_split(np.arange(len(ordered)), num_classes):
        part = ordered.iloc[at]
        found = mean_difference(part, level, num_resamples=1)
        rows.append(
            {
                "fewest_steps": part["second_steps"].min(),
                "most_steps": part["second_steps"].max(),
                "num_pairs": found.num_pairs,
                "mean": found.mean,
                "low": found.t_interval[0],
                "high": found.t_interval[1],
                "num_same_learning_rate": int(part["same_learning_rate"].sum()),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class StepTrend(Result):
    """difference = at_reference · (steps / reference_steps)^-exponent, with steps those of the second runs.

    `residual_deviation` is in nats per token; the resamples, shape (R,), are refits of resampled pairs, NaN where a
    refit did not converge.
    """

    at_reference: float
    exponent: float
    reference_steps: float
    residual_deviation: float
    at_reference_resamples: Array
    exponent_resamples: Array

    def predict(self, steps: ArrayLike) -> Values:
        """Difference at these numbers of steps, any shape, nats per token."""
        return self.at_reference * (np.asarray(steps, dtype=float) / self.reference_steps) ** -self.exponent

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of `at_reference` or `exponent`."""
        samples = {"at_reference": self.at_reference_resamples, "exponent": self.exponent_resamples}
        check_name(name, samples, "a trend over steps")
        return interval_with_lost(samples[name], level)


def fit_step_trend(pairs: pd.DataFrame, num_resamples: int = 400, seed: int = 0) -> StepTrend:
    """A power law of the differences over the steps of the second runs, by least squares.

    Differences are not logged: one that is near zero, or negative, says as much as any other.

    Raises
    ------
    InputError
        with fewer than four pairs, fewer than three numbers of steps, or if the search does not converge.
    """
    check_resamples(num_resamples)
    steps, values = pairs["second_steps"].to_numpy(float), pairs["difference"].to_numpy(float)
    if values.size < 4 or np.unique(steps).size < 3:
        raise InputError(
            f"trend over steps: {plural(values.size, 'pair')} at {np.unique(steps).size} numbers of steps; at least 4 "
            "pairs at 3 are needed"
        )
    reference = float(np.exp(np.log(steps).mean()))
    x = np.log(steps / reference)

    def solve(counts: Array, start: tuple[float, float]) -> tuple[float, float]:
        rows = np.repeat(np.arange(values.size), counts.astype(int))
        found = least_squares(lambda p: p[0] * np.exp(-p[1] * x[rows]) - values[rows], start, method="lm")
        return (float(found.x[0]), float(found.x[1])) if found.success else (np.nan, np.nan)

    best = solve(np.ones(values.size), (float(np.median(values)), TYPICAL_EXPONENT))
    if not np.isfinite(best).all():
        raise InputError("trend over steps: the search did not converge; are the differences constant or scattered?")
    draws = resample_counts(np.zeros(values.size), num_resamples, seed)
    samples = np.array([solve(counts, best) for counts in draws])
    residuals = values - best[0] * np.exp(-best[1] * x)
    return StepTrend(
        at_reference=best[0],
        exponent=best[1],
        reference_steps=reference,
        residual_deviation=float(np.sqrt(residuals @ residuals / (values.size - 2))),
        at_reference_resamples=samples[:, 0],
        exponent_resamples=samples[:, 1],
    )


# ---- which batches a study used ------------------------------------------------------------------------


def batches_by_design(runs: pd.DataFrame) -> pd.DataFrame:
    """Batch sizes of a study, and what goes with them: one row per design, budget and batch.

    Returns
    -------
    DataFrame
        the columns among architecture, experiment, context_length and isoflop_budget that the table has,
        `batch_size_seqs`, `batch_tokens` (NaN without a context length), `num_runs`, `fewest_steps`, `most_steps`,
        `learning_rate_low`, `learning_rate_high` (where the table has learning rates).

    Raises
    ------
    InputError
        if the table has no batch_size_seqs or train_steps.
    """
    for name in ("batch_size_seqs", "train_steps"):
        if name not in runs:
            raise InputError(f"{table_name(runs)}: no column {name!r}, which the batches of a study need")
    by = [name for name in ("architecture", "experiment", "context_length", "isoflop_budget") if name in runs]
    wanted = {
        "num_runs": ("val_loss", "size"),
        "fewest_steps": ("train_steps", "min"),
        "most_steps": ("train_steps", "max"),
    }
    if "learning_rate" in runs:
        wanted |= {"learning_rate_low": ("learning_rate", "min"), "learning_rate_high": ("learning_rate", "max")}
    table = runs.groupby([*by, "batch_size_seqs"], dropna=False).agg(**wanted).reset_index()
    tokens = table["batch_size_seqs"] * (table["context_length"] if "context_length" in by else np.nan)
    table.insert(len(by) + 1, "batch_tokens", tokens)
    return table
