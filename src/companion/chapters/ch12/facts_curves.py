"""Chapter 12: what its sentences say about curves, spikes, failures and selection."""

import numpy as np
import pandas as pd
from scipy import stats

from companion.chapters.ch12.study import Study
from companion.chapters.labels import label_of
from companion.formatting import (
    listed,
    number_word,
    percent,
    plural,
    share_in_words,
    signed,
    signed_percent,
    significant,
    span_text,
)

#: A selection bias that many standard errors from zero is called a move.
CLEAR = 3.0
#: Steps up to which a spike counts as early: warm-up and a little more in the authors' schedules.
EARLY_STEP = 850
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


def nearest(table: pd.DataFrame, fraction: float) -> float:
    """The fraction of a table that is nearest to one asked for."""
    known = table["fraction"].dropna().unique()
    return float(known[np.argmin(np.abs(known - fraction))])


def early_facts(errors: pd.DataFrame, fraction: float) -> dict[str, str]:
    """How well losses at a fraction of the run predict the final ones, beside a law that sees no curve."""
    rms, median = (errors.set_index(["predictor", "fraction"])[name] for name in ("rms_error", "median_error"))
    at = nearest(errors, fraction)
    law = float(errors.loc[errors["predictor"] == "law", "rms_error"].iloc[0])
    line = errors[errors["predictor"] == "line"].sort_values("fraction")
    better = line.loc[line["rms_error"] < law, "fraction"]
    return {
        "c12_early_at": percent(at),
        "c12_early_runs": f"{int(errors['num_runs'].max())}",
        "c12_early_raw": f"{rms['last value', at]:.3f}",
        "c12_early_line": f"{rms['line', at]:.3f}",
        "c12_early_line_median": f"{median['line', at]:.3f}",
        "c12_early_most": f"{rms['line, steps and shape', at]:.3f}",
        "c12_early_most_median": f"{median['line, steps and shape', at]:.3f}",
        "c12_early_law": f"{law:.3f}",
        "c12_early_law_median": f"{errors.loc[errors['predictor'] == 'law', 'median_error'].iloc[0]:.3f}",
        "c12_early_verdict": (
            "At no fraction is the line better than the law, which sees no curve at all"
            if better.empty
            else f"From {percent(float(better.min()))} of the run on, the line is better than the law"
        ),
    }


def ranking_facts(ranking: pd.DataFrame, fraction: float) -> dict[str, str]:
    """Whether the best size at a fraction of the run is the best size at its end."""
    at = nearest(ranking, fraction)
    early = ranking[ranking["fraction"] <= at + 1e-9]
    here = ranking[np.isclose(ranking["fraction"], at)]
    kept = int(here["same_best"].sum())
    most = early.groupby("fraction")["same_best"].sum().max()
    return {
        "c12_kept": share_in_words(kept, len(here)) + " profiles",
        "c12_kept_earlier": (
            "none keeps it at an earlier share either"
            if most == 0
            else f"at most {number_word(int(most))} keep it at an earlier share"
        ),
        "c12_early_optimum": span_text(here["optimum_ratio"], lambda ratio: f"{ratio:.2f}"),
        "c12_early_optimum_median": f"{here['optimum_ratio'].median():.2f}",
        "c12_regret": f"{here['regret'].median():.3f}",
        "c12_regret_worst": f"{here['regret'].max():.3f}",
        "c12_rank": f"{here['rank_correlation'].median():.2f}",
    }


def collapse_facts(scores: pd.DataFrame) -> dict[str, str]:
    """How far normalized curves are from one curve, what the steps explain, and what goes with the size.

    Parameters
    ----------
    scores
        from `companion.chapters.ch12.tables_curves.collapse_scores`.
    """
    return {
        "c12_collapse_spread": span_text(scores["score"]),
        "c12_collapse_steps": span_text(scores["explained"]),
        "c12_collapse_rate": span_text(scores["rate_and_size"], lambda value: signed(value, 2)),
    }


def spike_facts(found: pd.DataFrame, logs: pd.DataFrame) -> dict[str, str]:
    """How many spikes, how early, and whether the architectures differ at a learning rate that both used."""
    runs = logs.merge(found.groupby("run").size().rename("spikes"), left_on="run", right_index=True, how="left")
    runs = runs.assign(spiked=runs["spikes"].fillna(0) > 0)
    early = int((found["step"] <= EARLY_STEP).sum())
    by = runs.groupby("architecture")["spiked"].agg(["sum", "size"])
    spiked = [f"{int(row['sum'])} of {int(row['size'])} ({label_of(str(name))})" for name, row in by.iterrows()]
    ahead = found["grad_norm_ratio_before"].median() if len(found) and "grad_norm_ratio_before" in found else np.nan
    return {
        "c12_num_spikes": plural(len(found), "spike"),
        "c12_early_spikes": f"{early} of the {len(found)}",
        "c12_early_step": f"{EARLY_STEP:,}",
        "c12_spiked": listed(spiked),
        "c12_spike_ahead": significant(float(ahead), 2),
    } | _same_rate(runs)


def _same_rate(runs: pd.DataFrame) -> dict[str, str]:
    """Fisher's exact test of spiked runs at the context and learning rate that most runs of two architectures share."""
    names = sorted(runs["architecture"].unique())
    alike = ["context_length", "learning_rate"]
    shared = runs.pivot_table(index=alike, columns="architecture", values="spiked", aggfunc="size").dropna()
    if len(names) != 2 or shared.empty:
        return {"c12_same_rate": "No context and learning rate were used by two architectures"}
    context, rate = shared.index[int(np.argmax(shared.min(axis=1)))]
    there = runs[(runs["context_length"] == context) & (runs["learning_rate"] == rate)]
    table = [
        [int(part["spiked"].sum()), int((~part["spiked"]).sum())]
        for part in (there[there["architecture"] == name] for name in names)
    ]
    p = float(stats.fisher_exact(table).pvalue)
    words = listed(f"{row[0]} of {sum(row)} ({label_of(name)})" for name, row in zip(names, table, strict=True))
    verdict = (
        "no difference beyond the learning rate is shown" if p > 0.05 else "the difference is unlikely to be chance"
    )
    return {
        "c12_same_rate": f"At T = {context} and a learning rate of {rate:g}, which both used, {words} spiked: p = "
        f"{p:.2g} by Fisher's exact test, so {verdict}"
    }


def twin_facts(study: Study, step: int | None, difference: pd.DataFrame, noise: float) -> dict[str, str]:
    """Where two trainings of one configuration part, by how much, and whether they saw the same batches."""
    assert study.twins is not None
    gap = float(study.losses[study.twins[0]] - study.losses[study.twins[1]])
    values = difference["difference"]
    before = difference[difference["step"] < step] if step is not None else difference
    return {
        "c12_twin_gap": f"{gap:.3f}",
        "c12_twin_step": "no step" if step is None else f"step {step:,}",
        "c12_twin_peak": f"{values.abs().max():.2f}",
        "c12_twin_before": f"{before['difference'].abs().max():.3f}" if len(before) else "undefined",
        "c12_twin_kept": (
            "The paper's table has the better one"
            if study.of_paper
            else "A table with one loss per configuration has room for one of them"
        ),
        "c12_twin_noise": f"{noise:.2f}",
        "c12_twin_batches": (
            "both saw the same batches in the same order" if noise > 0.9 else "they did not see the same batches"
        ),
    }


def failure_facts(failed: pd.DataFrame, curves: pd.DataFrame) -> dict[str, str]:
    """How many runs failed, how soon it showed, and how their learning rates compare with those of their siblings."""
    first = failed["loss_step"].min()
    logged = curves.loc[curves["run"].isin(failed["run"]), "step"].min()
    alike = int((failed["loss_step"] == failed["grad_norm_step"]).sum())
    at_first = int((failed["loss_step"] == first).sum())
    lower = int((failed["learning_rate"] < failed["sibling_learning_rate"]).sum())
    return {
        "c12_failed": number_word(len(failed)),
        "c12_diverged": number_word(int((failed["status"] == "diverged").sum())),
        "c12_failed_first": f"{number_word(at_first)} of the {number_word(len(failed))}",
        "c12_failed_step": f"{int(first):,}" if np.isfinite(first) else "undefined",
        "c12_failed_where": ", the first point of their curves" if first == logged else "",
        "c12_failed_alike": number_word(alike, "none"),
        "c12_failed_full": number_word(int((failed["last_step"] >= failed["train_steps"]).sum()), "none"),
        "c12_failed_rate": f"{number_word(lower, 'none')} of the {number_word(len(failed))}",
    }


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
    return {
        "c12_noise": f"{noise:.4f}",
        "c12_noise_from": plural(num_repeated, "repeated configuration"),
        "c12_design": f"{len(runs)} runs",
        "c12_all_level": signed(cell(everywhere, "loss", "selection_bias"), 4),
        "c12_all_moved": moved_words(everywhere),
        "c12_larger_moved": moved_words(larger),
        "c12_larger_size": signed_percent(float(np.expm1(cell(larger, "log N*", "selection_bias"))), 1),
        "c12_larger_spread": percent(float(cell(larger, "log N*", "spread"))),
        "c12_larger_most": f"{float((larger['selection_bias'].abs() / larger['spread'])[list(SHAPE)].max()):.1f}",
        "c12_larger_exponent": signed(cell(larger, "exponent", "selection_bias"), 4),
        "c12_exponent_spread": f"{cell(larger, 'exponent', 'spread'):.4f}",
        "c12_fault_before": signed(cell(faults, "loss", "first_bias"), 4),
        "c12_fault_after": signed(cell(faults, "loss", "kept_bias"), 4),
        "c12_fault_exponent": f"{cell(faults, 'exponent', 'spread'):.3f}",
    }


def moved_words(table: pd.DataFrame) -> str:
    """Quantities whose selection bias is beyond `CLEAR` standard errors: a list for a sentence."""
    clear = table["selection_bias"].abs() > CLEAR * table["standard_error"]
    return listed(QUANTITIES[name] for name in QUANTITIES if clear[name]) or "nothing"


def cell(table: pd.DataFrame, row: str, column: str) -> float:
    """One number of a table."""
    return float(table[column].to_numpy(float)[list(table.index).index(row)])
