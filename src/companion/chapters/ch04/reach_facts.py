"""Values and words of chapter 4's sentences on what the law says away from its runs, and on the published values."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.ch04.analysis import law_crossing
from companion.chapters.ch04.reach_tables import compared_optima, shown_of_ledger
from companion.chapters.ch04.shown import Fits, Tables
from companion.chapters.ch04.words import power, runs_of
from companion.chapters.labels import by_label, label_of
from companion.fitting.diagnostics import cross_errors
from companion.fitting.pareto import compare_fronts, fit_front
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import interval, percent, power_of_ten, share_in_words, signed_percent, significant, span_text

Facts = dict[str, str]


def prediction_verdict(predicted: pd.DataFrame) -> str:
    """Whether the observed loss of the target lies in the prediction intervals."""
    texts = []
    for name, rows in predicted[predicted["observed"].notna()].groupby("architecture", sort=False):
        found = []
        for row in rows.to_dict("records"):
            (low, high), seen = row["prediction"], row["observed"]
            word = "holds" if low <= seen <= high else "misses"
            found.append(
                f"that of the fit to {runs_of(row['fitted to'])} {word} it ({signed_percent(row['law'] / seen - 1, 1)})"
            )
        texts.append(
            f"The withheld run of {label_of(str(name))} has a loss of {rows['observed'].iloc[0]:.3f}. Of the "
            f"prediction intervals, {', '.join(found)}; in brackets the error of the law"
        )
    return ". ".join(texts) or "The table has no run at this target to compare with"


def optimum_facts(implied: Tables, measured: Tables) -> Facts:
    """Where the optima of law and parabolas differ most, and how many agree."""
    both = compared_optima(implied, measured)
    furthest = both.iloc[int(both["ratio"].abs().to_numpy().argmax())]
    within = (both["num_params_low"] <= both["num_params_parabola"]) & (
        both["num_params_parabola"] <= both["num_params_high"]
    )
    return {
        "c4_optima_apart": percent(abs(furthest["ratio"]), decimals=0),
        "c4_optima_where": f"{label_of(furthest['architecture'])}, {power_of_ten(furthest['isoflop_budget'])} FLOP",
        "c4_optima_within": f"{within.sum()} of {len(within)}",
    }


def exponent_facts(found: pd.DataFrame) -> Facts:
    """The exponent of N* by the law of all runs and by the joint fit to the profiles, of `ch04.exponents`."""
    rows = {source: found[found["from"] == source].to_dict("records") for source in ("all", "joint")}
    texts = {
        source: by_label({str(row["architecture"]): f"{row['exponent']:.3f} {row['interval']}" for row in own})
        for source, own in rows.items()
    }
    return {"c4_exponent_law": texts["all"], "c4_exponent_joint": texts["joint"]}


def furthest_facts(furthest: Mapping[tuple[str, str], pd.DataFrame]) -> Facts:
    """How far the loss of the furthest run is missed; errors by architecture and form of the law."""
    every = pd.concat(furthest.values())
    free = {name: table for (name, form), table in furthest.items() if form == "γ free"}
    middle = {name: table.iloc[len(table) // 2] for name, table in free.items()}
    nearer = sum(
        bool(abs(error) < abs(fixed))
        for name, table in free.items()
        for error, fixed in zip(table["log_error"], furthest[name, "γ = 1"]["log_error"], strict=True)
    )
    decades = pd.concat(free.values())["decades"]
    missed = pd.concat(free.values())["log_error"].abs()
    return {
        "c4_beyond_high": share_in_words(int((every["log_error"] > 0).sum()), len(every)),
        "c4_beyond_middle": by_label(
            {
                name: f"{signed_percent(np.expm1(row['log_error']), 1)} across {row['decades']:.1f} decades"
                for name, row in middle.items()
            }
        ),
        "c4_beyond_gamma": share_in_words(nearer, len(every) // 2),
        "c4_beyond_decades": f"{decades.min():.1f} to {decades.max():.1f}",
        "c4_beyond_missed": span_text(np.expm1(missed)),
    }


def crossing_verdict(fits: Fits, tables: Tables, pair: tuple[str, str]) -> str:
    """Where the optimal losses of two laws cross, and whether the fronts of the runs do.

    Raises
    ------
    InputError
        if the fronts share no range of compute or of loss.
    """
    first, second = (fit_front(tables[name]["train_flops"], tables[name]["val_loss"]) for name in pair)
    fronts = compare_fronts(first, second)
    low, high = fronts.flops_range
    least, most = fronts.loss_gap.minimum, fronts.loss_gap.maximum
    found = law_crossing(fits, tables, pair, (low, 10 * high))
    if found is None:
        laws = f"The optimal losses of the two laws do not cross between {_flops(low)} and {_flops(10 * high)} FLOP."
    else:
        at, winner = found
        where = "inside" if at <= high else "beyond"
        laws = (
            f"The optimal losses of the two laws cross at {_flops(at)} FLOP, {where} the range of compute that both "
            f"sets of runs cover; from there on the law of {label_of(winner)} is lower."
        )
    if least > 0 or most < 0:
        lower, gap = (pair[0], least) if least > 0 else (pair[1], -most)
        runs = (
            f"The fronts of the runs {'also stay' if found is None else 'stay'} apart: at every compute that both "
            f"cover, {label_of(lower)} is lower by {significant(gap, 2)} nats per token or more"
        )
    else:
        runs = "The fronts of the runs cross as well"
    return f"{laws} {runs}"


def _flops(value: float) -> str:
    return power_of_ten(value, 1)


def withheld_facts(withheld: Tables) -> Facts:
    """Which method predicts the optimum of a withheld budget better."""
    both = pd.concat(withheld.values())
    errors = {method: (both[method] / both["measured"] - 1).abs() for method in ("parabola", "parametric")}
    closer = int((errors["parabola"] < errors["parametric"]).sum())
    return {
        "c4_withheld_closer": share_in_words(closer, len(both)),
        "c4_withheld_parabola": percent(errors["parabola"].mean(), decimals=0),
        "c4_withheld_law": percent(errors["parametric"].mean(), decimals=0),
    }


def design_verdict(
    by_design: Mapping[str, Fits], parts: Mapping[str, Tables], held: Mapping[tuple[str, str], Bootstrap]
) -> str:
    """E and errors of fits to single designs, where a table has several.

    Parameters
    ----------
    held
        resamples by architecture and design, for the intervals of E.
    """
    texts = []
    for name, fits in by_design.items():
        block = cross_errors(fits, parts[name]).set_index("fitted_to")
        alone = [design for design in parts[name] if design != "all"]
        if len(alone) < 2:
            continue
        floors = [
            f"{held[name, d].fit.law.E:.2f} {interval(held[name, d].interval('E'), 2)} from {runs_of(d)}" for d in alone
        ]
        errors = block[alone].to_dict("index")
        own = [percent(errors[d][d]) for d in alone]
        other = [percent(max(errors[d][o] for o in alone if o != d)) for d in alone]
        texts.append(
            f"For {label_of(name)}, E is {' and '.join(floors)}. The fits err by {' and '.join(own)} (rms) on the runs "
            f"of their own design, and by {' and '.join(other)} on those of the other"
        )
    return ". ".join(texts) or "This table names one design only, so there is nothing to compare"


def ledger_verdict(ledger: pd.DataFrame) -> str:
    """How many published numbers come out, how many of them dependent, and what is known of those that differ."""
    reproduced = ledger["verdict"] == "reproduced"
    dependent = int((reproduced & ~ledger["independent"].astype(bool)).sum())
    texts = [
        f"{share_in_words(int(reproduced.sum()), len(ledger)).capitalize()} published numbers come out again; "
        f"{dependent or 'none'} of these rest on losses that were reconstructed from the number itself"
    ]
    goals = ledger[(ledger["quantity"] == "objective") & ledger["ours"].notna()]
    if len(goals):
        excess = (goals["ours"].astype(float) / goals["published"] - 1).to_numpy()
        good = share_in_words(int((goals["verdict"] == "reproduced").sum()), len(goals))
        texts.append(
            f"Of the objectives, {good} agree within the tolerance; relative to the published ones, ours differ by "
            f"{power(excess.min(), 2)} to {power(excess.max(), 2)}"
        )
    shown = shown_of_ledger(ledger)
    notes: Sequence[str] = [note for note in shown.loc[shown["verdict"] == "differs", "note"].unique() if note]
    return ". ".join([*texts, *(f"The note of the ledger on rows that differ: “{note}”" for note in notes)])
