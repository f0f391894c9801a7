"""Values and short texts for the prose of the chapter on context length, by the names that it glues."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch07.tables import other_contexts
from companion.chapters.ch07.verdicts import cured, mostly_explained, spoiled
from companion.chapters.ch07.words import (
    change_text,
    context_lengths,
    context_range,
    range_text,
    start_text,
    value_text,
)
from companion.chapters.names import label
from companion.fitting.context.prediction import (
    FAMILY,
    NOTHING_MOVES,
    OUTSIDE,
    OWN_SHAPES,
    SAME_RUNS,
    Explanation,
    explain,
)
from companion.fitting.context.scaling import ContextFit, fit_context_optima
from companion.formatting import count, interval, power_of_ten
from companion.ledger import LedgerRow

Facts = dict[str, str]
SIZE_WORDS, TOKEN_WORDS = ("larger", "smaller"), ("more", "fewer")


def optima_facts(fits: Mapping[str, ContextFit]) -> Facts:
    """Runs, contexts and budgets behind the optima, how they move, and what the fits warn of."""
    first, last = context_range(fits.values())
    used = [o.profile.x.size for fit in fits.values() for o in fit.optima if o.quantity == "num_params"]
    budgets = sorted({budget for fit in fits.values() for budget in fit.budgets})
    moves, sizes, clear = [], [], []
    for name, fit in sorted(fits.items(), key=lambda item: label(item[0])):
        intervals = [trend.interval("exponent") for trend in fit.trends]
        clear.append(
            f"{sum(low > 0 or high < 0 for low, high in intervals)} of {len(intervals)} power laws for {label(name)}"
        )
    for name, fit in fits.items():
        ends = fit.context_lengths[0], fit.context_lengths[-1]
        size = change_text(*fit.change("num_params", *ends), SIZE_WORDS)
        tokens = change_text(*fit.change("num_tokens", *ends), TOKEN_WORDS)
        moves.append(f"the best {label(name)} gets {size} and sees {tokens} tokens")
        sizes.append(f"{label(name)} {size}")
    warnings = [(name, note) for name, fit in fits.items() for note in fit.warnings if "left out" not in note]
    notes = [f"{label(name)}: {note}" for name, note in warnings]
    return {
        "c7_num_runs": str(sum(used)),
        "c7_contexts": "T = " + ", ".join(map(str, context_lengths(fits.values()))),
        "c7_budgets": ", ".join(map(power_of_ten, budgets)),
        "c7_first": str(first),
        "c7_last": str(last),
        "c7_answer_moves": "; ".join(moves),
        "c7_take_moves": ", ".join(sizes),
        "c7_moves": " and in ".join(clear),
        "c7_notes": "; ".join(notes) or "No optimum lies at the edge of the sizes that were trained",
    }


def ledger_facts(rows: list[LedgerRow], fits: Mapping[str, ContextFit]) -> Facts:
    """Published numbers at other contexts than 8192, and for which contexts of the runs there are none."""
    table = other_contexts(rows)
    published = set(table["T"]) | {8192}
    missing = ", ".join(str(length) for length in context_lengths(fits.values()) if length not in published)
    nothing = f"; no optimum or power law is published in numbers for T = {missing}" if missing else ""
    return {
        "c7_ledger_reproduced": f"{(table['verdict'] == 'reproduced').sum()} of {len(table)}",
        "c7_ledger_contexts": "T = " + ", ".join(map(str, sorted(table["T"].unique()))),
        "c7_ledger_dependent": str((~table["independent"]).sum()),
        "c7_ledger_missing": nothing,
    }


def share_facts(explanations: Mapping[str, Explanation], shares: Mapping[str, pd.DataFrame]) -> Facts:
    """Shares of the mixer in C at the shortest and the longest context; tables of `shares_at_optima`."""
    long, brief = [], []
    for name, table in shares.items():
        lengths = explanations[name].measured.context_lengths
        ends = [table[table["context_length"] == length] for length in (lengths[0], lengths[-1])]
        core, mixer = ([range_text(rows[column]) for rows in ends] for column in ("core_share", "mixer_share"))
        at = f"core {core[0]} at T = {lengths[0]} and {core[1]} at T = {lengths[-1]}"
        long.append(f"{label(name)}: {at}, mixer {mixer[0]} and {mixer[1]}")
        brief.append(f"{label(name)} {core[0]} and {core[1]}")
    return {"c7_shares": ". ".join(long), "c7_answer_share": "; ".join(brief)}


def law_facts(explanations: Mapping[str, Explanation]) -> Facts:
    """The laws: runs, context, exponents."""
    texts = []
    for name, each in explanations.items():
        law, bootstrap = each.law_fit.law, each.bootstrap
        alpha = f"α = {law.alpha:.2f} {interval(bootstrap.interval('alpha'), 2)}"
        beta = f"β = {law.beta:.2f} {interval(bootstrap.interval('beta'), 2)}"
        runs = f"{each.law_fit.num_rows} runs at T = {each.fit_context}"
        texts.append(f"{label(name)}, {runs}: {alpha}, {beta}, γ = {law.gamma:.2f}")
    return {"c7_law": "; ".join(texts), "c7_start": start_text(explanations)}


def method_facts(levels: Mapping[str, pd.DataFrame]) -> Facts:
    """How far the ways of predicting N\\* differ; tables of `Explanation.levels`."""
    texts = []
    for name, table in levels.items():
        sizes = table[table["quantity"] == "num_params"]
        by_method = sizes.pivot_table("predicted", ["isoflop_budget", "context_length"], "method")
        apart = [f"same runs and family differ by {_largest_gap(by_method, SAME_RUNS)} at most"]
        if OWN_SHAPES in by_method:
            apart.append(f"family and own shapes by {_largest_gap(by_method, OWN_SHAPES)}")
        texts.append(f"{label(name)}: {', '.join(apart)}")
    return {"c7_ways": "; ".join(texts)}


def _largest_gap(by_method: pd.DataFrame, method: str) -> str:
    """Largest relative difference of a method from the one along the family."""
    return f"{100 * np.abs(by_method[method] / by_method[FAMILY] - 1).max():.0f} %"


def verdict_facts(verdicts: pd.DataFrame) -> Facts:
    """Which shifts of N\\* the law explains, and what is left; from `shift_verdicts`."""
    rows = verdicts.to_dict("records")
    explained = [_place(row) for row in rows if row["explained"]]
    unexplained = [_place(row) for row in rows if not row["explained"]]
    refuted = [_place(row) for row in rows if row["null_verdict"] == OUTSIDE]
    text = f"Within the error, accounting gives the shift of N* of {', '.join(explained) or 'no architecture'}"
    text += f"; not that of {', '.join(unexplained)}" if unexplained else ""
    left = [
        f"at T = {row['context_length']} N* of {label(row['architecture'])} is {_ratio_change(row)} than predicted "
        "from "
        f"T = {row['start']}"
        for row in rows
        if not row["explained"]
    ]
    return {
        "c7_test": f"{text}. That nothing moves is refuted for {', '.join(refuted) or 'none'}",
        "c7_answer_explained": _answer_explained(verdicts),
        "c7_left": "; ".join(left) or "no shift of N* outside its interval",
        "c7_take_rest": "; ".join(_rest(verdicts)) or "no shift of N* outside its error",
    }


def _answer_explained(verdicts: pd.DataFrame) -> str:
    """Whether FLOPs explain all or most of the shift, architecture by architecture; first those fully explained."""
    fully, mostly = [], []
    for name in verdicts["architecture"].unique():
        own = verdicts[verdicts["architecture"] == name]
        if own["explained"].all():
            fully.append(f"FLOPs explain the shift of the best size N* for {label(name)}: {_evidence(own)}")
        elif mostly_explained(own):
            mostly.append(f"FLOPs explain most of the shift of the best size N* for {label(name)}: {_evidence(own)}")
    return "; ".join(fully + mostly) or "FLOPs do not explain the shift of N* that is seen"


def _evidence(verdicts: pd.DataFrame) -> str:
    """Measured over predicted shift at the longest context, an unexplained one where there is one, in words."""
    row = verdicts.sort_values("explained", ascending=False, kind="stable").iloc[-1]
    found = value_text(row["ratio"], row["ratio_low"], row["ratio_high"], "{:.2f}".format)
    return (
        f"the law of T = {row['start']} with exact counts predicts it (at T = {row['context_length']} measured over "
        f"predicted is {found}, and {row['null_ratio']:.2f} if prices stayed the same)"
    )


def _rest(verdicts: pd.DataFrame) -> list[str]:
    return [
        f"at T = {row['context_length']} the best {label(row['architecture'])} is {_ratio_change(row)} than predicted"
        for row in verdicts[~verdicts["explained"]].to_dict("records")
    ]


def _place(row: Mapping[Any, Any]) -> str:
    return f"{label(row['architecture'])} at T = {row['context_length']}"


def _ratio_change(row: Mapping[Any, Any]) -> str:
    return change_text(row["ratio"], row["ratio_low"], row["ratio_high"], SIZE_WORDS, 1)


def imposed_facts(
    runs: pd.DataFrame, explanations: Mapping[str, Explanation], gamma: float | None, num_resamples: int
) -> Facts:
    """The shift at the longest context without losses that had a published fit imposed, fitted again."""
    texts = []
    for name, explanation in explanations.items():
        own = runs[runs["architecture"] == name]
        if "imposed_published_fit" not in runs or not (own["imposed_published_fit"] == 1).any():
            continue
        fit = fit_context_optima(own[own["imposed_published_fit"] == 0], name, num_resamples=num_resamples)
        again = explain(fit, fit_context=explanation.fit_context, gamma=gamma, methods=[SAME_RUNS]).pooled_shifts()
        last = explanation.measured.context_lengths[-1]
        chosen = (again["quantity"] == "num_params") & (again["context_length"] == last)
        for row in again[chosen].to_dict("records"):
            verdict = row["verdict"] + (": these losses are not the cause" if row["verdict"] == OUTSIDE else "")
            found = f"{row['ratio']:.3f} {interval((row['ratio_low'], row['ratio_high']))}"
            texts.append(
                f"{label(name)} without the runs that had a published parabola imposed: measured over predicted shift "
                "at "
                f"T = {last} is {found}, {verdict}"
            )
    return {"c7_imposed": "; ".join(texts) or "This table marks no losses that were read off published fits"}


def settings_facts(settings: pd.DataFrame, far_contexts: Sequence[int]) -> Facts:
    """In how many profiles the settings agree over the contexts, and how few long sequences fill a step.

    Parameters
    ----------
    settings
        from `settings_by_context`.
    """
    words = {"batch_tokens": "tokens per step", "smallest": "the smallest model"}
    words |= {"learning_rate_low": "the lowest learning rate"}
    texts = []
    for column in (column for column in words if column in settings):
        groups = settings.groupby(["architecture", "isoflop_budget"])[column]
        same = int((groups.max() / groups.min() < 1.01).sum())
        texts.append(f"{words[column]} agrees in {same} of {groups.ngroups} profiles")
    tokens = settings["batch_tokens"].max() if "batch_tokens" in settings else np.nan
    step = ""
    if np.isfinite(tokens):
        number = max(1, round(tokens / max(far_contexts)))
        held = f"{number} {'sequence' if number == 1 else 'sequences'}"
        step = f"; a step of {count(tokens)} tokens would hold {held} at the longest"
    return {"c7_settings": "; ".join(texts), "c7_batch": step}


def loss_facts(explanations: Mapping[str, Explanation], at_equal: Mapping[str, pd.DataFrame]) -> Facts:
    """Observed loss minus the law at the other contexts; tables of `loss_differences`."""
    texts = []
    for name, table in at_equal.items():
        rows = table[table["context_length"] != explanations[name].fit_context].to_dict("records")
        found = [
            f"{row['difference']:+.3f} {interval((row['difference_low'], row['difference_high']))} "
            f"at T = {row['context_length']}"
            for row in rows
        ]
        texts.append(f"{label(name)} {' and '.join(found)}")
    return {"c7_equal": "; ".join(texts)}


def worth_facts(verdicts: pd.DataFrame, worths: pd.DataFrame, start: str) -> Facts:
    """What a worth of tokens explains of the shifts that are left.

    Parameters
    ----------
    verdicts, worths
        from `shift_verdicts` and `worth_verdicts`.
    start
        contexts of the laws, in words.
    """
    troubled = worths.loc[worths["verdict_before"] == OUTSIDE, "architecture"].unique()
    shown = [
        f"{label(row['architecture'])}, T = {row['context_length']}, {row['kind']}: {row['ratio_before']:.3f} to "
        f"{row['ratio']:.3f} ({row['verdict']})"
        for row in worths[worths["architecture"].isin(troubled)].to_dict("records")
    ]
    rest = _rest(verdicts)
    text = f"FLOPs do not explain all: {'; '.join(rest)}" if rest else "FLOPs leave no shift of N* outside its error"
    good, bad = cured(worths), spoiled(worths)
    if len(good):
        tokens = " and ".join(f"{worth:.2f} of one at T = {start}" for worth in good["worth"])
        text += f", as if a token there were worth {tokens}"
    if len(good) and len(bad):
        lengths = ", ".join(map(str, sorted(bad["context_length"].unique())))
        text += f"; at T = {lengths} the same idea goes too far, so it stays open"
    what = f"Measured over predicted shift of N* with w: {'; '.join(shown)}"
    return {"c7_worth": what if shown else "w has nothing to explain", "c7_answer_rest": text}


def agreement_facts(shifts: Mapping[str, pd.DataFrame]) -> Facts:
    """How many shifts of N\\* are as predicted with the prices of each context, and with one price for all.

    Parameters
    ----------
    shifts
        by architecture: tables of `Explanation.shifts`.
    """
    texts = []
    for name, table in shifts.items():
        sizes = table[table["quantity"] == "num_params"]
        counts = []
        for method in (FAMILY, NOTHING_MOVES):
            verdicts = sizes.loc[sizes["method"] == method, "verdict"]
            counts.append(f"{(verdicts == 'inside').sum()} of {len(verdicts)}")
        texts.append(f"{label(name)} {counts[0]} with the prices of each context, {counts[1]} with one price for all")
    return {"c7_take_test": "; ".join(texts)}
