"""Values of chapter 4's sentences, and the words of conclusions that a reader's own table can turn around.

A `..._facts` function returns values by the name under which they are glued, a `..._verdict` one sentence or several.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.benchmarks.records import read_records
from companion.chapters.applicability import Selection
from companion.chapters.ch04.shown import Fits, Tables, furthest_texts
from companion.chapters.ch04.tables import SYMBOLS, compared_optima, shown_of_ledger
from companion.chapters.labels import by_label, label_of
from companion.fitting.diagnostics import cross_errors
from companion.fitting.fit import Fit
from companion.fitting.likelihood import Profile
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import interval, percent, power_of_ten, significant
from companion.paths import data_dir

Facts = dict[str, str]


def opening_facts(selection: Selection, fits: Fits, huber_delta: float) -> Facts:
    """How many runs, whether they identify the law, and how many residuals lie beyond δ."""
    faults = [f"{label_of(name)}: {fit.status_detail}" for name, fit in fits.items() if not fit.identified]
    identified = "The runs identify all parameters of the law"
    if faults:
        identified = f"The runs do not identify the law, so no intervals are given for it: {'; '.join(faults)}"
    beyond = {name: percent(float(np.mean(np.abs(fit.residuals) > huber_delta))) for name, fit in fits.items()}
    context = selection.context_length
    return {
        "c4_num_runs": str(sum(map(len, selection.tables.values()))),
        "c4_at_context": f" at T = {context}" if context else "",
        "c4_identified": identified,
        "c4_delta": f"{huber_delta:g}",
        "c4_beyond": by_label(beyond),
    }


def outlier_facts(shifts: pd.DataFrame) -> Facts:
    """How far the largest error of one run moves the predicted loss, by delta."""
    largest = shifts["excess"].max()
    moved = {
        run: ", ".join(f"{abs(row['loss']):.3f} (δ = {row['huber_delta']:g})" for row in rows.to_dict("records"))
        for run, rows in shifts[shifts["excess"] == largest].groupby("run")
    }
    return {
        "c4_outlier": f"{largest:.0%}",
        "c4_moved_median": moved["median compute"].replace("inf", "∞"),
        "c4_moved_most": moved["most compute"].replace("inf", "∞"),
    }


def fit_benchmarks() -> list[dict[str, Any]]:
    """Recorded results of the benchmarks of fits; empty without a record."""
    records = data_dir() / "benchmarks" / "fits.jsonl"
    return [result for record in read_records(records) for result in record["results"]] if records.is_file() else []


def speed_verdict(fits: Fits) -> str:
    """How many starts arrive, and the recorded time of a fit where there is one."""
    shares = {
        name: f"{percent(fit.share_of_starts_at_optimum)} of {len(fit.start_objectives)} starts"
        for name, fit in fits.items()
    }
    arrive = f"Here {by_label(shares)} end within a millionth of the best objective."
    timed = {
        result["part"]: result
        for result in fit_benchmarks()
        if result.get("free_parameters", 6) == 6 and result.get("setting") in (None, "published")
    }
    if not {"full fit", "plain multi-start"} <= set(timed):
        return arrive
    ours, plain = timed["full fit"], timed["plain multi-start"]
    return (
        f"{arrive} The recorded time of a fit with γ free to {ours['rows']} runs on one core is "
        f"{significant(ours['seconds_median'], 2)} s; plain L-BFGS-B with finite differences would need "
        f"{significant(plain['seconds_extrapolated'], 2)} s for its {plain['grid_starts']} starts (extrapolated from "
        f"{plain['starts']}), of which {percent(plain['share_within_1e-6'])} end within a millionth of our objective."
    )


def form_facts(fits: Mapping[tuple[str, str, str], Fit]) -> Facts:
    """What fixing γ costs in the objective and does to E; fits by architecture, design and form."""
    factors = {
        (name, design): fixed.objective / fits[name, design, "γ free"].objective
        for (name, design, form), fixed in fits.items()
        if form == "γ = 1"
    }
    names = list(dict.fromkeys(name for name, _ in factors))
    moves = {
        name: f"from {fits[name, 'all', 'γ free'].law.E:.2f} to {fits[name, 'all', 'γ = 1'].law.E:.2f}"
        for name in names
    }
    least, most = min(factors.values()), max(factors.values())
    return {
        "c4_gamma_factors": by_label({name: f"{factors[name, 'all']:.2f}" for name in names}, ", "),
        "c4_gamma_least": f"{least:.2f}",
        "c4_gamma_most": f"{most:.2f}",
        "c4_gamma_e": by_label(moves),
        "c4_gamma_range": f"{least:.1f} to {most:.1f}",
    }


def residual_facts(scattered: pd.DataFrame) -> Facts:
    """On which side of the law the runs of most compute lie, of `companion.chapters.ch04.scatter`."""
    of_all = {str(row["architecture"]): row for row in scattered[scattered["runs"] == "all"].to_dict("records")}
    sides = [
        f"{label_of(name)}: the five runs of most compute lie {abs(np.expm1(row['top'])):.1%} "
        f"{'below' if row['top'] < 0 else 'above'} the fitted law, against a scatter of {percent(row['rms'])} (rms) of "
        "all runs"
        for name, row in of_all.items()
    ]
    return {
        "c4_residuals": ". ".join(sides),
        "c4_scatter": by_label({name: percent(row["rms"]) for name, row in of_all.items()}),
    }


def answer_facts(fits: Fits, by_sizes: Mapping[str, Bootstrap], curves: Mapping[str, Mapping[str, Profile]]) -> Facts:
    """The law with its intervals (bootstrap over sizes), for the parameters that have a profile."""
    laws = {
        name: ", ".join(
            f"{SYMBOLS[key]} = {fit.parameters[key]:.2f} {interval(by_sizes[name].interval(key), 2)}" for key in curves
        )
        for name, fit in fits.items()
    }
    return {"c4_answer_law": by_label(laws, "; ")}


def interval_verdict(
    by_runs: Mapping[str, Bootstrap],
    by_sizes: Mapping[str, Bootstrap],
    curves: Mapping[str, Mapping[str, Profile]],
) -> str:
    """How much wider the interval of E is by sizes and by profile, and what recorded simulations found."""
    texts = []
    for name in by_runs:
        runs, sizes = (np.ptp(drawn[name].interval("E")) for drawn in (by_runs, by_sizes))
        if not (np.isfinite(runs) and np.isfinite(sizes)):
            texts.append(f"{label_of(name)}: no interval of E from resamples")
            continue
        profile = np.ptp(curves["E"][name].interval())
        texts.append(
            f"{label_of(name)}: drawing sizes instead of runs makes the interval of E {sizes / runs:.2f} times "
            f"as wide, and the profile's is {profile / runs:.2f} times as wide"
        )
    return ". ".join([*texts, *_coverage()])


def _coverage() -> list[str]:
    """What the recorded simulations found, a sentence for every kind of interval that they cover."""
    results, texts = fit_benchmarks(), []
    for kind in ("bootstrap", "profile"):
        covered = [r["coverage"] for r in results if r["part"] == "coverage" and r["interval"] == kind]
        if covered:
            shares = " to ".join(dict.fromkeys(f"{share:.0%}" for share in (min(covered), max(covered))))
            texts.append(
                f"In the recorded simulations, with independent scatter, 95 % intervals of the {kind} held the truth "
                f"in {shares} of the tables{', depending on the parameter' if ' to ' in shares else ''}"
            )
    return texts


def term_facts(fits: Fits, ranges: pd.DataFrame) -> Facts:
    """How well A is known and how well its term, of `companion.chapters.ch04.terms`."""
    texts = [
        f"{label_of(row['architecture'])}: A is known within a factor of {significant(row['A'])}, its term at the mean "
        f"size within {significant(row['A_term'])}"
        for row in ranges.to_dict("records")
    ]
    factors = ranges[["A", "B"]].to_numpy()
    return {
        "c4_log_n": " and ".join(sorted({f"{fit.rows.center[0]:.1f}" for fit in fits.values()})),
        "c4_terms": ". ".join(texts),
        "c4_factor_least": significant(factors.min(), 2),
        "c4_factor_most": significant(factors.max(), 2),
    }


def prediction_verdict(predicted: pd.DataFrame) -> str:
    """Whether the observed loss of the target lies in the prediction intervals."""
    texts = []
    for row in predicted[predicted["observed"].notna()].to_dict("records"):
        low, high = row["prediction"]
        texts.append(
            f"{label_of(row['architecture'])}, fitted to {row['fitted to']}: the observed {row['observed']:.3f} lies "
            f"{'inside' if low <= row['observed'] <= high else 'outside'} the prediction interval "
            f"(error {row['law'] / row['observed'] - 1:+.1%})"
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
        "c4_optima_apart": f"{abs(furthest['ratio']):.0%}",
        "c4_optima_where": f"{label_of(furthest['architecture'])}, {power_of_ten(furthest['isoflop_budget'])} FLOP",
        "c4_optima_within": f"{within.sum()} of {len(within)}",
    }


# ---- beyond the runs -----------------------------------------------------------------------------


def furthest_facts(furthest: Mapping[tuple[str, str], pd.DataFrame], tables: Tables) -> Facts:
    """How far the loss of the furthest run is missed; errors by architecture and form of the law."""
    runs = furthest_texts(tables)
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
        "c4_beyond_high": f"{(every['log_error'] > 0).sum()} of {len(every)}",
        "c4_beyond_middle": " and ".join(
            f"for {label_of(name)} by {np.expm1(row['log_error']):+.1%} across {row['decades']:.1f} decades"
            for name, row in middle.items()
        ),
        "c4_beyond_gamma": f"{nearer} of {len(every) // 2}",
        "c4_answer_beyond": " and ".join(
            f"{np.expm1(row['log_error']):+.1%} for {label_of(name)} ({runs[name]}, from runs up to "
            f"{power_of_ten(row['cutoff'])} FLOP)"
            for name, row in middle.items()
        ),
        "c4_beyond_decades": f"{decades.min():.1f} to {decades.max():.1f}",
        "c4_beyond_missed": f"{np.expm1(missed.min()):.1%} to {np.expm1(missed.max()):.0%}",
    }


def withheld_facts(withheld: Tables) -> Facts:
    """Which method predicts the optimum of a withheld budget better."""
    both = pd.concat(withheld.values())
    errors = {method: (both[method] / both["measured"] - 1).abs() for method in ("parabola", "parametric")}
    closer = (errors["parabola"] < errors["parametric"]).sum()
    return {
        "c4_withheld_closer": f"{closer} of {len(both)}",
        "c4_withheld_parabola": f"{errors['parabola'].mean():.0%}",
        "c4_withheld_law": f"{errors['parametric'].mean():.0%}",
    }


def design_verdict(
    by_design: Mapping[str, Fits],
    parts: Mapping[str, Tables],
    held: Mapping[tuple[str, str], Bootstrap],
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
        floors = [f"{held[name, d].fit.law.E:.2f} {interval(held[name, d].interval('E'), 2)} ({d})" for d in alone]
        errors = block[alone].to_dict("index")
        own = [percent(errors[d][d]) for d in alone]
        other = [percent(max(errors[d][o] for o in alone if o != d)) for d in alone]
        texts.append(
            f"{label_of(name)}: E is {' and '.join(floors)}; errors on the runs of its own design are "
            f"{' and '.join(own)}, on those of the other design {' and '.join(other)}"
        )
    return ". ".join(texts) or "This table names one design only, so there is nothing to compare"


def ledger_verdict(ledger: pd.DataFrame) -> str:
    """How many published numbers come out, and what is known of those that do not."""
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in ledger["verdict"].value_counts().items())
    texts = [f"Verdicts: {verdicts}"]
    goals = ledger[(ledger["quantity"] == "objective") & ledger["ours"].notna()]
    if len(goals):
        excess = (goals["ours"].astype(float) / goals["published"] - 1).to_numpy()
        texts.append(
            f"Of {len(goals)} published objectives, {(goals['verdict'] == 'reproduced').sum()} come out within the "
            f"tolerance; ours over the published one is between {excess.min():+.1e} and {excess.max():+.1e}, relative"
        )
    shown = shown_of_ledger(ledger)
    notes: Sequence[str] = [note for note in shown.loc[shown["verdict"] == "differs", "note"].unique() if note]
    return ". ".join([*texts, *(f"The rows that differ: {note}" for note in notes)])
