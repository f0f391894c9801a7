"""Values and short texts for the prose of the chapter on context length, by the names that it glues."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch07.tables import other_contexts
from companion.chapters.ch07.verdicts import cured, mostly_explained, spoiled
from companion.chapters.ch07.words import change_text, context_lengths, context_range
from companion.chapters.labels import label_of, the
from companion.fitting.context.prediction import (
    FAMILY,
    INSIDE,
    NOTHING_MOVES,
    OUTSIDE,
    OWN_SHAPES,
    SAME_RUNS,
    UNKNOWN,
    Explanation,
    explain,
)
from companion.fitting.context.scaling import ContextFit, fit_context_optima
from companion.formatting import count, interval, listed, percent, power_of_ten, share_in_words
from companion.ledger import LedgerRow

Facts = dict[str, str]
SIZE_WORDS = ("larger", "smaller")


def optima_facts(fits: Mapping[str, ContextFit]) -> Facts:
    """Runs, contexts and budgets behind the optima, how they move, and what the fits warn of."""
    first, last = context_range(fits.values())
    used = [o.profile.x.size for fit in fits.values() for o in fit.optima if o.quantity == "num_params"]
    budgets = sorted({budget for fit in fits.values() for budget in fit.budgets})
    brief, long, clear = [], [], []
    for name, fit in sorted(fits.items(), key=lambda item: label_of(item[0])):
        intervals = [trend.interval("exponent") for trend in fit.trends]
        excluded = sum(low > 0 or high < 0 for low, high in intervals)
        clear.append(f"{share_in_words(excluded, len(intervals))} for {the(name)}")
    for name, fit in fits.items():
        size = fit.change("num_params", fit.context_lengths[0], fit.context_lengths[-1])
        long.append(f"the best {label_of(name)} becomes {change_text(*size, SIZE_WORDS)}")
        brief.append(f"the best {label_of(name)} is {change_text(*size, SIZE_WORDS, bounds=False)}")
    notes = [
        f"{label_of(name)}: {note}" for name, fit in fits.items() for note in fit.warnings if "left out" not in note
    ]
    return {
        "c7_num_runs": str(sum(used)),
        "c7_contexts": f"{listed(context_lengths(fits.values()))} tokens",
        "c7_budgets": listed(map(power_of_ten, budgets)),
        "c7_first": str(first),
        "c7_last": str(last),
        "c7_growth": f"{last / first:.2g}",
        "c7_answer_moves": listed(brief),
        "c7_take_moves": listed(long),
        "c7_moves": listed(clear),
        "c7_notes": "; ".join(notes) or "No optimum lies at the edge of the sizes that were trained",
    }


def ledger_facts(rows: list[LedgerRow], fits: Mapping[str, ContextFit]) -> Facts:
    """Published numbers at other contexts than 8192, and for which contexts of the runs there are none."""
    table = other_contexts(rows)
    published = set(table["T"]) | {8192}
    missing = [str(length) for length in context_lengths(fits.values()) if length not in published]
    nothing = f"No optimum or power law is published in numbers for T = {listed(missing)}." if missing else ""
    again = table["verdict"] == "reproduced"
    return {
        "c7_ledger_reproduced": f"{again.sum()} of {len(table)}",
        "c7_ledger_contexts": f"T = {listed(sorted(table['T'].unique()))}",
        "c7_ledger_independent": str((again & table["independent"]).sum()),
        "c7_ledger_dependent": str((again & ~table["independent"]).sum()),
        "c7_ledger_missing": nothing,
    }


def method_facts(levels: Mapping[str, pd.DataFrame]) -> Facts:
    """How far the ways of predicting N\\* differ; tables of `Explanation.levels`."""
    runs, shapes = [], []
    for name, table in levels.items():
        sizes = table[table["quantity"] == "num_params"]
        by_method = sizes.pivot_table("predicted", ["isoflop_budget", "context_length"], "method")
        runs.append(f"{_largest_gap(by_method, SAME_RUNS)} for {the(name)}")
        if OWN_SHAPES in by_method:
            shapes.append(f"{_largest_gap(by_method, OWN_SHAPES)} for {the(name)}")
    text = f"Same runs and family differ by at most {listed(runs)}"
    text += f"; family and own shapes by at most {listed(shapes)}" if shapes else ""
    return {"c7_ways": text}


def _largest_gap(by_method: pd.DataFrame, method: str) -> str:
    """Largest relative difference of a method from the one along the family."""
    return percent(np.abs(by_method[method] / by_method[FAMILY] - 1).max(), decimals=0)


def verdict_facts(verdicts: pd.DataFrame) -> Facts:
    """Which shifts of N\\* the law explains, and what is left; from `shift_verdicts`."""
    explained, left = verdicts[verdicts["explained"]], verdicts[~verdicts["explained"]]
    refuted = verdicts[verdicts["null_verdict"] == OUTSIDE]
    text = "Accounting predicts no shift of N* within the error"
    if len(explained):
        text = f"Within the error, accounting predicts the shift of N* for {_places(explained)}"
        text += f", but not for {_places(left)}" if len(left) else ""
    where = "in every case" if len(refuted) == len(verdicts) else f"for {_places(refuted) or 'no architecture'}"
    rest = [f"{each} from T = {start}" for each, start in zip(_rest(verdicts), left["start"], strict=True)]
    return {
        "c7_test": f"{text}. That nothing moves is refuted {where}",
        "c7_answer_explained": _answer_explained(verdicts),
        "c7_left": "; ".join(rest) or "no shift of N* outside its interval",
        "c7_take_rest": "; ".join(_rest(verdicts)) or "no shift of N* outside its error",
    }


def _answer_explained(verdicts: pd.DataFrame) -> str:
    """For which architectures FLOPs explain the shift, most of it, or neither, as one sentence."""
    groups: dict[str, list[str]] = {"the shift": [], "most of the shift": [], "": []}
    for name in verdicts["architecture"].unique():
        own = verdicts[verdicts["architecture"] == name]
        how = "the shift" if own["explained"].all() else "most of the shift" if mostly_explained(own) else ""
        groups[how].append(the(str(name)))
    not_explained = groups.pop("")
    parts = [f"{what} for {listed(names)}" for what, names in groups.items() if names]
    if not parts:
        return "The FLOPs per token do not explain the shift of the best size"
    rest = f", but not for {listed(not_explained)}" if not_explained else ""
    return f"The FLOPs per token explain {listed(parts)}{rest}"


def _rest(verdicts: pd.DataFrame) -> list[str]:
    return [
        f"at T = {row['context_length']} the best {label_of(row['architecture'])} is "
        f"{change_text(row['ratio'], row['ratio_low'], row['ratio_high'], SIZE_WORDS, 1)} than predicted"
        for row in verdicts[~verdicts["explained"]].to_dict("records")
    ]


def _places(verdicts: pd.DataFrame) -> str:
    """Architectures and contexts of some shifts: the Transformer at T = 2048 and 16384 and for xLSTM at T = 2048."""
    groups = verdicts.groupby("architecture", sort=False)
    places = [f"{the(str(name))} at T = {listed(rows['context_length'])}" for name, rows in groups]
    return " and for ".join(places)


def imposed_facts(
    runs: pd.DataFrame, explanations: Mapping[str, Explanation], gamma: float | None, num_resamples: int
) -> Facts:
    """The shift to the longest other context without losses that had a published fit imposed, fitted again."""
    texts = []
    for name, explanation in explanations.items():
        own = runs[runs["architecture"] == name]
        if "imposed_published_fit" not in runs or not (own["imposed_published_fit"] == 1).any():
            continue
        fit = fit_context_optima(own[own["imposed_published_fit"] == 0], name, num_resamples=num_resamples)
        again = explain(fit, fit_context=explanation.fit_context, gamma=gamma, methods=[SAME_RUNS]).pooled_shifts()
        # the longest context whose shift the law predicts: not its own
        last = max(set(explanation.measured.context_lengths) - {explanation.fit_context})
        chosen = (again["quantity"] == "num_params") & (again["context_length"] == last)
        for row in again[chosen].to_dict("records"):
            found = f"{row['ratio']:.3f} {interval((row['ratio_low'], row['ratio_high']))}"
            texts.append(
                f"Without the {label_of(name)} runs whose losses had a published parabola imposed, the measured shift "
                f"of N* at T = {last} is {found} times the predicted one. {_IMPOSED[row['verdict']]}"
            )
    return {"c7_imposed": " ".join(texts) or "This table marks no losses that were read off published fits."}


_IMPOSED = {
    OUTSIDE: "The interval excludes 1, so these losses are not the cause.",
    INSIDE: "The interval includes 1, so these losses may be the cause.",
    UNKNOWN: "Its error is unknown.",
}


def settings_facts(settings: pd.DataFrame, far_contexts: Sequence[int]) -> Facts:
    """At how many budgets the settings agree over the contexts, and how few long sequences fill a step.

    Parameters
    ----------
    settings
        from `settings_by_context`.
    """
    words = {"batch_tokens": "the tokens per step", "smallest": "the smallest model"}
    words |= {"learning_rate_low": "the lowest learning rate"}
    texts: list[str] = []
    total = 0
    for column in (column for column in words if column in settings):
        groups = settings.groupby(["architecture", "isoflop_budget"])[column]
        same, total = int((groups.max() / groups.min() < 1.01).sum()), groups.ngroups
        verb = "" if texts else " agree"
        texts.append(f"{words[column]}{verb} in {share_in_words(same, total)}")
    tokens = settings["batch_tokens"].max() if "batch_tokens" in settings else np.nan
    step = ""
    if np.isfinite(tokens):
        number = max(1, round(tokens / max(far_contexts)))
        held = "a single sequence" if number == 1 else f"{number} sequences"
        step = f" A step of {count(tokens)} tokens would hold {held} of the longest context."
    return {"c7_settings": listed(texts), "c7_profiles": str(total), "c7_batch": step}


def loss_facts(explanations: Mapping[str, Explanation], at_equal: Mapping[str, pd.DataFrame]) -> Facts:
    """Observed loss minus the law at the other contexts, in words; tables of `loss_differences`."""
    texts = []
    for name, table in at_equal.items():
        rows = table[table["context_length"] != explanations[name].fit_context].to_dict("records")
        found = [
            f"{abs(row['difference']):.3f} {'above' if row['difference'] > 0 else 'below'} the law at "
            f"T = {row['context_length']}"
            for row in rows
        ]
        texts.append(f"For {the(name)} it is {listed(found)}.")
    return {"c7_equal": " ".join(texts)}


def worth_facts(verdicts: pd.DataFrame, worths: pd.DataFrame, start: str) -> Facts:
    """What a worth of tokens explains of the shifts that are left.

    Parameters
    ----------
    verdicts, worths
        from `shift_verdicts` and `worth_verdicts`.
    start
        contexts of the laws, in words.
    """
    good, bad = cured(worths), spoiled(worths)
    text = f"With w, accounting predicts the shift of N* within the error for {_places(good)} as well"
    text += f", but no longer for {_places(bad)}" if len(bad) else ""
    if not len(good):
        text = "No shift of N* that accounting left over is explained by w"
    if not (worths["verdict_before"] == OUTSIDE).any():
        text = "There is no shift of N* left to explain"
    rest = _rest(verdicts)
    whole = f"FLOPs do not explain everything: {'; '.join(rest)}" if rest else "FLOPs leave no shift outside its error"
    if len(good):
        worth = listed(f"{worth:.2f} of one" for worth in good["worth"])
        whole += f", as if a token there were worth {worth} at T = {start}"
    if len(good) and len(bad):
        lengths = listed(sorted(bad["context_length"].unique()))
        whole += f". At T = {lengths} the same idea goes too far, so the cause is open"
    return {"c7_worth": text, "c7_take_worth": whole}


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
            counts.append(share_in_words(int((verdicts == INSIDE).sum()), len(verdicts)))
        texts.append(f"{counts[0]} for {the(name)} ({counts[1]} if prices stayed the same)")
    return {"c7_take_test": listed(texts)}
