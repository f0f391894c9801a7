"""Chapter 12: what its sentences say about curves, spikes, failures and selection."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from companion.chapters.applicability import need
from companion.chapters.ch12.study import Study
from companion.chapters.labels import label_of
from companion.formatting import (
    level_text,
    listed,
    number_word,
    percent,
    plural,
    share_in_words,
    signed,
    signed_percent,
    span_text,
)

#: A selection bias that many standard errors from zero is called a move.
CLEAR = 3.0
#: Curves whose spread (standard deviation over mean) is below this are said to collapse.
COLLAPSED = 0.01
#: Rank correlation from which on two settings are said to go together.
TOGETHER = 0.5
#: A gradient norm this many times its recent median is a warning.
WARNING = 2.0
#: A run that comes back to less than this share of its jump is said to recover.
RECOVERED = 0.25
#: Quantities that are the shape of a law, not its level.
SHAPE = ("alpha", "beta", "exponent", "log N*")
#: Quantities of a simulated selection as the page calls them.
QUANTITIES = {
    "loss": "mean loss",
    "E": "E",
    "alpha": "α",
    "beta": "β",
    "exponent": "exponent a of N*",
    "log N*": "N* of the largest budget (log)",
    "least loss": "least loss of the largest budget",
}

#: The same inside a sentence.
IN_WORDS = QUANTITIES | {
    "loss": "the mean loss",
    "exponent": "the exponent",
    "log N*": "N* of the largest budget",
    "least loss": "the least loss of the largest budget",
}


def nearest(table: pd.DataFrame, fraction: float) -> float:
    """The fraction of a table that is nearest to one asked for."""
    known = table["fraction"].dropna().unique()
    return float(known[np.argmin(np.abs(known - fraction))])


def both_losses_facts(curves: pd.DataFrame, logs: pd.DataFrame) -> dict[str, str]:
    """How far training and validation losses differ along the runs; nothing where no point has both."""
    if not {"train_loss", "val_loss"} <= set(curves):
        return {}
    points = curves[curves["run"].isin(logs["run"])].dropna(subset=["train_loss", "val_loss"])
    if points.empty:
        return {}
    gap = (points["train_loss"] - points["val_loss"]).abs().median()
    return {"c12_both_points": plural(len(points), "point"), "c12_both_gap": f"{gap:.4f} nats per token"}


def early_facts(errors: pd.DataFrame, fraction: float) -> dict[str, str]:
    """How well losses at a fraction of the run predict the final ones, beside a law that sees no curve.

    Raises
    ------
    NotApplicable
        if no run has a value at the fraction, or the law has no error.
    """
    at = nearest(errors, fraction)
    rms, median = (
        errors.set_index(["predictor", "fraction"])[name].to_dict() for name in ("rms_error", "median_error")
    )
    need(("line", at) in rms, f"too few runs have a loss at {percent(at)} of their steps")
    laws = errors[errors["predictor"] == "law"]
    need(len(laws), "no law could be fitted to the other budgets")
    law, law_median = (float(laws[name].iloc[0]) for name in ("rms_error", "median_error"))
    most = "line, steps and shape"
    return {
        "c12_early_at": percent(at),
        "c12_early_raw": f"{rms['last value', at]:.3f}",
        "c12_early_line": f"{rms['line', at]:.3f}",
        "c12_early_line_median": f"{median['line', at]:.3f}",
        "c12_early_most_median": f"{median[most, at]:.3f}",
        "c12_early_law": f"{law:.3f}",
        "c12_early_law_median": f"{law_median:.3f}",
        "c12_early_verdict": _from_which(errors, "line", "rms_error", law),
        "c12_early_most_verdict": _from_which(errors, most, "median_error", law_median),
    }


def _from_which(errors: pd.DataFrame, predictor: str, column: str, least: float) -> str:
    """From which share of the run on, and at all later ones, a predictor is better than the law without a curve."""
    rows = errors[errors["predictor"] == predictor].sort_values("fraction")
    worse = np.flatnonzero(~(rows[column] < least).to_numpy())
    first = int(worse.max()) + 1 if len(worse) else 0
    if first == len(rows):
        return "is not even better than the law at the end of the run"
    return f"is better than the law from {percent(float(rows['fraction'].iloc[first]))} of the run on"


def ranking_facts(ranking: pd.DataFrame, fraction: float) -> dict[str, str]:
    """Whether the best size at a fraction of the run is the best size at its end."""
    at = nearest(ranking, fraction)
    here = ranking[np.isclose(ranking["fraction"], at)]
    kept = int(here["same_best"].sum())
    earlier = ranking[ranking["fraction"] < at - 1e-9].groupby("fraction")["same_best"].sum()
    most = int(earlier.max()) if len(earlier) else None
    words = {None: "", 0: ", and at no earlier share in any"}
    return {
        "c12_kept": f"{share_in_words(kept, len(here))} profile{'' if len(here) == 1 else 's'}",
        "c12_kept_earlier": words.get(most, f", and at an earlier share in at most {number_word(most or 0)}"),
        "c12_early_optimum": span_text(here["optimum_ratio"], lambda ratio: f"{ratio:.2f}"),
        "c12_regret_worst": f"{here['regret'].max():.3f}",
        "c12_rank": f"{median:.2f}" if np.isfinite(median := here["rank_correlation"].median()) else "undefined",
    }


def safe_facts(ranking: pd.DataFrame, cost: float) -> dict[str, str]:
    """From which share of the run on an early choice costs less than `cost` in every profile, nats per token."""
    regret = ranking.groupby("fraction")["regret"].max().sort_index()
    dear = np.flatnonzero((regret >= cost).to_numpy())
    first = int(dear.max()) + 1 if len(dear) else 0
    return {
        "c12_safe": (
            "At none of these shares is the early choice safe"
            if first == len(regret)
            else f"The early choice is safe from {percent(float(regret.index[first]))} of the run on"
        )
    }


def collapse_facts(scores: pd.DataFrame) -> dict[str, str]:
    """How far normalized curves are from one curve, what the steps explain, and what goes with the size.

    Parameters
    ----------
    scores
        from `companion.chapters.ch12.tables_curves.collapse_scores`.
    """
    together = int((scores["score"] < COLLAPSED).sum())
    verdict = f"{share_in_words(together, len(scores))} families collapse"
    if len(scores) == 1:
        verdict = f"these curves {'collapse' if together else 'do not collapse'}"
    facts = {
        "c12_collapse_spread": span_text(scores["score"]),
        "c12_collapse_limit": level_text(COLLAPSED),
        "c12_collapse_verdict": verdict,
        "c12_collapse_steps": span_text(scores["explained"]),
    }
    if scores["near"].notna().any():
        facts["c12_collapse_near"] = span_text(scores["near"])
    size = scores["rate_and_size"]
    if (size.abs() > TOGETHER).any():
        facts["c12_collapse_rate"] = span_text(size, _correlation)
        facts["c12_collapse_rest"] = span_text(scores["deviation_and_rate"], _correlation)
    return facts


def _correlation(value: float) -> str:
    return signed(value, 2)


def spike_facts(found: pd.DataFrame, curves: pd.DataFrame, logs: pd.DataFrame, own: pd.DataFrame) -> dict[str, str]:
    """How many spikes, how early, what the gradient norm did, and whether architectures differ at a shared rate.

    Parameters
    ----------
    found
        from `companion.training.curve_faults.spikes`.
    curves
        of these runs.
    logs
        of all runs that were searched.
    own
        those of the study's own design.
    """
    by = _spiked(found, own).groupby("architecture")["spiked"].agg(["sum", "size"])
    facts = {
        "c12_num_spikes": plural(len(found), "spike") if len(found) else "no spike",
        "c12_curve_points": f"{curves.groupby('run').size().median():.0f}",
        "c12_spiked": listed(
            f"{int(row['sum'])} of {int(row['size'])} ({label_of(str(name))})" for name, row in by.iterrows()
        ),
    }
    return facts | _warm_up(found, logs) | _gradient(found) | _same_rate(_spiked(found, own))


def _spiked(found: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    return logs.assign(spiked=logs["run"].isin(found["run"]))


def _warm_up(found: pd.DataFrame, logs: pd.DataFrame) -> dict[str, str]:
    """How many spikes came while the learning rate still rose, where the logs say how long that was."""
    if found.empty or "warmup_steps" not in logs or logs["warmup_steps"].isna().any():
        return {}
    ends = logs.set_index("run")["warmup_steps"].reindex(found["run"]).to_numpy(float)
    early = int((found["step"].to_numpy() <= ends).sum())
    return {"c12_spikes_warm_up": share_in_words(early, len(found))}


def _gradient(found: pd.DataFrame) -> dict[str, str]:
    """The gradient norm at a spike and one logged point before it."""
    if found.empty or "grad_norm_ratio" not in found or found["grad_norm_ratio"].isna().all():
        return {}
    ahead = float(found["grad_norm_ratio_before"].median())
    warned = int((found["grad_norm_ratio_before"] > WARNING).sum())
    return {
        "c12_spike_gradient": f"{found['grad_norm_ratio'].median():.1f}",
        "c12_spike_ahead": f"{ahead:.1f}",
        "c12_spike_warned": share_in_words(warned, len(found)),
    }


def _same_rate(runs: pd.DataFrame) -> dict[str, str]:
    """Fisher's exact test of spiked runs at the context and learning rate that most runs of two architectures share."""
    names = sorted(runs["architecture"].unique())
    alike = ["context_length", "learning_rate"]
    shared = runs.pivot_table(index=alike, columns="architecture", values="spiked", aggfunc="size").dropna()
    if len(names) != 2 or shared.empty:
        return {}
    context, rate = shared.index[int(np.argmax(shared.min(axis=1)))]
    there = runs[(runs["context_length"] == context) & (runs["learning_rate"] == rate)]
    table = [
        [int(part["spiked"].sum()), int((~part["spiked"]).sum())]
        for part in (there[there["architecture"] == name] for name in names)
    ]
    p = float(stats.fisher_exact(table).pvalue)
    words = listed(f"{row[0]} of {sum(row)} ({label_of(name)})" for name, row in zip(names, table, strict=True))
    return {
        "c12_same_rate": f"At T = {context} and a learning rate of {rate:g}, {words} spiked",
        "c12_same_rate_p": f"{p:.2g}",
        "c12_same_rate_verdict": "these runs show no clear difference"
        if p > 0.05
        else "chance alone is an unlikely reason",
    }


def twin_facts(
    study: Study, step: int | None, difference: pd.DataFrame, noise: float, common: float | None
) -> dict[str, str]:
    """Where two trainings of one configuration part, by how much, and whether they saw the same batches.

    Parameters
    ----------
    step, difference
        from `companion.training.curve_faults.parting`.
    noise, common
        correlation of the losses of both, and of the other runs of their design (None where unknown).
    """
    assert study.twins is not None
    gap = float(study.losses[study.twins[0]] - study.losses[study.twins[1]])
    facts = {
        "c12_twin_gap": f"{gap:.3f}",
        "c12_twin_kept": (
            "The paper's table has the better one"
            if study.of_paper
            else "A table with one loss per configuration has room for one of them"
        ),
        "c12_twin_noise": f"{noise:.2f}",
        "c12_twin_batches": (
            "So both most likely saw the same batches in the same order"
            if noise > 0.9
            else "So they did not see the same batches"
        ),
    }
    if common is not None:
        facts["c12_twin_common"] = f"{common:.2f}"
    if step is None:
        return facts
    after, before = (
        difference.loc[mask, "difference"] for mask in (difference["step"] >= step, difference["step"] < step)
    )
    peak, end = float(after.abs().max()), abs(float(after.iloc[-1]))
    recovers = end < RECOVERED * peak
    facts |= {
        "c12_twin_step": f"step {step:,}",
        "c12_twin_peak": f"{peak:.2f}",
        "c12_twin_course": "It recovers, but never catches up" if recovers else "It does not recover",
    }
    if len(before):
        facts["c12_twin_before"] = f"{before.abs().max():.3f}"
    return facts


def failure_facts(failed: pd.DataFrame, curves: pd.DataFrame) -> dict[str, str]:
    """How many runs failed, how soon it showed, and how their learning rates compare with those of their siblings."""
    number = number_word(len(failed))
    diverged = int((failed["status"] == "diverged").sum())
    full = int((failed["last_step"] >= failed["train_steps"]).sum())
    facts = {
        "c12_failed": f"{number} {'run that' if len(failed) == 1 else 'runs that'}",
        "c12_diverged": f"{number_word(diverged, 'none')} of them diverged",
    }
    if full:
        facts["c12_failed_full"] = f"{number_word(full)} of them"
    first = failed["loss_step"].min()
    if np.isfinite(first):
        logged = curves.loc[curves["run"].isin(failed["run"]), "step"].min()
        known = failed["loss_step"].notna()
        at_first = int((failed["loss_step"] == first).sum())
        alike = int((failed.loc[known, "loss_step"] == failed.loc[known, "grad_norm_step"]).sum())
        facts |= {
            "c12_failed_left": share_in_words(int(known.sum()), len(failed)),
            "c12_failed_first": share_in_words(at_first, len(failed)),
            "c12_failed_step": f"{int(first):,}",
            "c12_failed_where": ", the first point of their curves" if first == logged else "",
            "c12_failed_alike": number_word(alike, "none"),
        }
        if first == logged:
            facts["c12_failed_wrong"] = "at its first logged point"
    lower = int((failed["learning_rate"] < failed["sibling_learning_rate"]).sum())
    return facts | ({"c12_failed_rate": f"{number_word(lower)} of the {number}"} if lower else {})


def selection_facts(
    found: dict[str, pd.DataFrame], noise: float, num_repeated: int, runs: pd.DataFrame
) -> dict[str, str]:
    """Which quantities a selection moves, by scenario, and the scatter that the simulation assumes.

    Parameters
    ----------
    found
        by scenario, from `companion.training.selection.selection_bias`: best of two everywhere, in the larger half of
        every budget, and of the runs that went wrong.
    noise
        standard deviation between trainings of one configuration, nats per token.
    num_repeated
        configurations that it comes from.
    runs
        the design.
    """
    everywhere, larger, faults = found.values()
    shape = moved_words(larger, SHAPE)
    return {
        "c12_noise": f"{noise:.4f}",
        "c12_noise_from": f"{number_word(num_repeated)} repeated configuration{'' if num_repeated == 1 else 's'}",
        "c12_design": f"{len(runs)} runs",
        "c12_all_level": signed(cell(everywhere, "loss", "selection_bias"), 4),
        "c12_all_moved": moved_words(everywhere) or "nothing",
        "c12_larger_moved": f"Now the shape moves, too: {shape}" if shape else "The shape does not move clearly",
        "c12_larger_size": signed_percent(float(np.expm1(cell(larger, "log N*", "selection_bias"))), 2),
        "c12_larger_spread": percent(float(cell(larger, "log N*", "spread"))),
        "c12_larger_most": f"{float((larger['selection_bias'].abs() / larger['spread'])[list(SHAPE)].max()):.1f}",
        "c12_larger_exponent": signed(cell(larger, "exponent", "selection_bias"), 4),
        "c12_exponent_spread": f"{cell(larger, 'exponent', 'spread'):.4f}",
        "c12_fault_before": signed(cell(faults, "loss", "first_bias"), 4),
        "c12_fault_after": signed(cell(faults, "loss", "kept_bias"), 4),
    }


def choice_facts(choice: pd.DataFrame) -> dict[str, str]:
    """What the worse of two trainings would change in the fits.

    Parameters
    ----------
    choice
        from `companion.chapters.ch12.study.twin_choice`.
    """
    better, worse = ({name: cell(choice, row, name) for name in map(str, choice)} for row in ("better", "worse"))
    law = max(abs(worse[name] - better[name]) for name in ("alpha", "beta"))
    return {
        "c12_choice_size": signed_percent(worse["optimum"] / better["optimum"] - 1, 1),
        "c12_choice_least": signed(worse["least loss"] - better["least loss"], 4),
        "c12_choice_exponent": signed(worse["exponent"] - better["exponent"], 4),
        "c12_choice_law": "less than 0.0001" if law < 1e-4 else f"at most {law:.4f}",
    }


def moved_words(table: pd.DataFrame, names: Iterable[str] = tuple(QUANTITIES)) -> str:
    """Quantities whose selection bias is beyond `CLEAR` standard errors: a list for a sentence, or the empty text."""
    clear = table["selection_bias"].abs() > CLEAR * table["standard_error"]
    return listed(IN_WORDS[name] for name in names if clear[name])


def cell(table: pd.DataFrame, row: str, column: str) -> float:
    """One number of a table."""
    return float(table[column].to_numpy(float)[list(table.index).index(row)])
