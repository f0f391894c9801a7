"""Tables of chapter 12 on curves, spikes, failures and selection."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch12.facts_curves import QUANTITIES, cell, nearest
from companion.chapters.labels import label_of
from companion.formatting import count, percent, power_of_ten, signed
from companion.plotting import Html, show_table
from companion.training.collapse import collapse_score, stands_out
from companion.training.curves import FAMILY
from companion.training.early_loss import rank_correlation

#: Predictors of the final loss as the page calls them, in the order of the figure.
PREDICTORS = {
    "last value": "early loss as it is",
    "shift": "less the mean drop",
    "line": "line",
    "line, steps and shape": "line, steps and size",
    "law": "law, no curve",
    "group mean": "mean of the budget, no curve",
}
#: Fewer runs than this of a family give no score of collapse with the steps taken out.
LEAST_RUNS = 6
#: Runs of a budget, those of the lowest losses, that count as nearly compute-optimal.
NEAR_OPTIMAL = 5


def family_titles(logs: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """Titles of the families of some logs, by architecture and context length."""
    keys = logs[list(FAMILY)].drop_duplicates().itertuples(index=False, name=None)
    return {tuple(key): f"{label_of(str(key[0]))}, T = {key[1]}" for key in keys}


def errors_table(errors: pd.DataFrame, fraction: float) -> Html:
    """Errors of every predictor at one fraction, those without a curve below."""
    at = nearest(errors, fraction)
    shown = errors[(errors["fraction"] == at) | errors["fraction"].isna()]
    shown = shown.assign(predictor=[PREDICTORS.get(name, name) for name in shown["predictor"]])
    return show_table(
        shown[["predictor", "num_runs", "rms_error", "median_error", "bias", "worst"]],
        name="hidden-errors",
        caption=f"Errors of predicted final losses at {percent(at)} of the run, budgets left out one at a time, in "
        "nats per token.",
        formats={name: "{:.3f}" for name in ("rms_error", "median_error", "worst")} | {"bias": lambda v: signed(v, 3)},
        labels={"num_runs": "runs", "rms_error": "rms", "median_error": "median", "bias": "mean"},
    )


def ranking_table(ranking: pd.DataFrame, fraction: float) -> Html:
    """What choosing a size at a fraction of the run does, profile by profile."""
    at = nearest(ranking, fraction)
    here = ranking[np.isclose(ranking["fraction"], at)].sort_values([*FAMILY, "isoflop_budget"])
    shown = here.assign(
        family=_families(here),
        same=["yes" if same else "no" for same in here["same_best"]],
    )
    return show_table(
        shown[["family", "isoflop_budget", "num_runs", "rank_correlation", "same", "optimum_ratio", "regret"]],
        name="hidden-ranking",
        caption=f"Every profile at {percent(at)} of its runs: rank correlation of the early with the final loss, "
        "whether the best size is the same, N* of the early losses over that of the final ones, and what the early "
        "choice costs.",
        formats={
            "isoflop_budget": power_of_ten,
            "rank_correlation": "{:.2f}",
            "optimum_ratio": "{:.2f}",
            "regret": "{:.3f}",
        },
        labels={
            "family": "runs of",
            "isoflop_budget": "budget (FLOP)",
            "num_runs": "runs",
            "rank_correlation": "rank correlation",
            "same": "same best size",
            "optimum_ratio": "N* ratio",
            "regret": "cost (nats/token)",
        },
    )


def collapse_scores(normalized: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    """How well the normalized curves of every family collapse.

    Returns
    -------
    DataFrame
        a row a family: `family` (its title), `num_runs`, `score` (`companion.training.collapse.collapse_score`), `near`
        (that of the `NEAR_OPTIMAL` runs of the lowest losses of each budget; NaN for too few), `explained` (share of
        the variance of the deviations that the steps explain), `rate_and_size` (rank correlation of the learning rate
        with N; NaN where all rates are equal), `deviation_and_rate` (of what the steps leave with the learning rate).

    Raises
    ------
    NotApplicable
        if no family has enough runs.
    """
    rows = []
    for family, title in family_titles(logs).items():
        members = logs[(logs[list(FAMILY)] == list(family)).all(axis=1)].set_index("run")
        if len(members) < LEAST_RUNS:
            continue
        curves = normalized.loc[members.index]
        table, explained = stands_out(curves, train_steps=members["train_steps"])
        rates = members["learning_rate"] if "learning_rate" in members else pd.Series(np.nan, index=members.index)
        best = members[members.groupby("isoflop_budget")["val_loss"].rank(method="first") <= NEAR_OPTIMAL]
        rows.append(
            {
                "family": title,
                "num_runs": len(members),
                "score": collapse_score(curves),
                "near": collapse_score(curves.loc[best.index]) if len(best) >= LEAST_RUNS else np.nan,
                "explained": explained,
                "rate_and_size": rank_correlation(rates, members["num_params"]),
                "deviation_and_rate": rank_correlation(table["deviation"].reindex(rates.index), rates),
            }
        )
    need(rows, f"no architecture and context length has {LEAST_RUNS} runs to compare")
    return pd.DataFrame(rows)


def collapse_table(scores: pd.DataFrame) -> Html:
    """The table of `collapse_scores`."""
    correlation: dict[str, Any] = {name: (lambda v: signed(v, 2)) for name in ("rate_and_size", "deviation_and_rate")}
    return show_table(
        scores,
        name="hidden-collapse",
        caption=f"Spread of normalized curves over the second half of the runs: of all, and of the {NEAR_OPTIMAL} best "
        "of every budget; the share of its variance that the number of steps explains; rank correlations of the "
        "learning rate with N and with what the steps leave.",
        formats={"score": percent, "near": percent, "explained": percent} | correlation,
        labels={
            "family": "runs of",
            "num_runs": "runs",
            "score": "spread",
            "near": "of the best",
            "explained": "by the steps",
            "rate_and_size": "rate and N",
            "deviation_and_rate": "rate and rest",
        },
    )


def spikes_table(counts: pd.DataFrame) -> Html:
    """Runs with a spike by architecture and learning rate (`companion.training.curve_faults.spike_counts`)."""
    return show_table(
        counts.assign(architecture=counts["architecture"].map(label_of)),
        name="hidden-spikes",
        caption="Spikes by architecture and peak learning rate. The last column says after which share of the run they "
        "came.",
        formats={
            "learning_rate": "{:g}",
            "spikes_per_1000_steps": "{:.3f}",
            "median_fraction": percent,
        },
        labels={
            "learning_rate": "learning rate",
            "num_runs": "runs",
            "num_spiked": "with a spike",
            "num_spikes": "spikes",
            "spikes_per_1000_steps": "per 1,000 steps",
            "median_fraction": "share of the run (median)",
        },
    )


def failures_table(failed: pd.DataFrame) -> Html:
    """Runs that did not finish (`companion.training.curve_faults.failures`)."""
    labels = {
        "family": "run of",
        "num_params": "N",
        "end": "end",
        "learning_rate": "learning rate",
        "sibling_learning_rate": "that of siblings",
        "num_siblings": "siblings",
        "loss_step": "loss leaves at",
        "grad_norm_step": "gradient leaves at",
    }
    steps = {name: [_step(value) for value in failed[name]] for name in ("loss_step", "grad_norm_step")}
    ends = [
        f"{status} (step {_step(last)})" for status, last in zip(failed["status"], failed["last_step"], strict=True)
    ]
    return show_table(
        failed.assign(family=_families(failed), end=ends, **steps)[list(labels)],
        name="hidden-failures",
        caption="Runs that failed: how they ended, with their last step, and the step at which they left the "
        "band of finished runs of about their size (siblings) for good, by the loss and by the gradient norm.",
        formats={"num_params": count, "learning_rate": "{:g}", "sibling_learning_rate": "{:g}"},
        labels=labels,
    )


def _families(table: pd.DataFrame) -> list[str]:
    return [f"{label_of(str(row['architecture']))}, T = {row['context_length']}" for row in table.to_dict("records")]


def _step(value: float) -> str:
    return "never" if np.isnan(value) else f"{int(value):,}"


def selection_table(found: Mapping[str, pd.DataFrame]) -> Html:
    """What each scenario of selection moves, with its standard error, beside the spread of one study."""
    first = next(iter(found.values()))
    rows = []
    for name, words in QUANTITIES.items():
        row: dict[str, Any] = {"quantity": words}
        for scenario, table in found.items():
            bias, error = (cell(table, name, column) for column in ("selection_bias", "standard_error"))
            row[scenario] = f"{signed(bias, 4)} ± {error:.4f}"
        rows.append(row | {"spread": cell(first, name, "spread")})
    return show_table(
        pd.DataFrame(rows),
        name="hidden-selection",
        caption="What selection moves, with the standard error of the simulation, by which runs are "
        "trained twice. Spread: standard deviation of a study that trains every run once. Losses and E in nats per "
        "token, N* in its natural logarithm.",
        formats={"spread": "{:.4f}"},
    )


def safe_table(regret: pd.Series, ratio: pd.Series) -> Html:
    """Solution of an exercise: the largest cost of an early choice and the median ratio of N\\*, by fraction."""
    return show_table(
        pd.DataFrame({"fraction": regret.index, "regret": regret.array, "ratio": ratio.array}),
        caption="Choosing a size early: the largest cost over all profiles, and the median of early over final N*.",
        formats={"fraction": percent, "regret": "{:.4f}", "ratio": "{:.2f}"},
        labels={"fraction": "share of the run", "regret": "largest cost (nats/token)", "ratio": "N* ratio"},
    )
