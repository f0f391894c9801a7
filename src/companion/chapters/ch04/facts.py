"""Values of chapter 4's sentences, and the words of conclusions that a reader's own table can turn around.

A `..._facts` function returns values by the name under which they are glued, a `..._verdict` one sentence or several.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from companion.benchmarks.records import read_records
from companion.chapters.ch04.shown import Fits, Tables
from companion.chapters.ch04.tables import last_residual
from companion.chapters.labels import by_label, label_of
from companion.fitting.fit import Fit
from companion.fitting.likelihood import Profile
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import percent, plural, signed_percent, significant, span_text
from companion.paths import data_dir

Facts = dict[str, str]


def opening_facts(fits: Fits, huber_delta: float) -> Facts:
    """Whether the runs identify the law, and how many residuals lie beyond δ."""
    faults = [f"{label_of(name)}: {fit.status_detail}" for name, fit in fits.items() if not fit.identified]
    identified = "The runs identify all parameters of the law"
    if faults:
        identified = f"The runs do not identify the law, so no intervals are given for it: {'; '.join(faults)}"
    beyond = {name: percent(float(np.mean(np.abs(fit.residuals) > huber_delta))) for name, fit in fits.items()}
    return {
        "c4_identified": identified,
        "c4_delta": f"{huber_delta:g}",
        "c4_beyond": by_label(beyond),
    }


def outlier_facts(shifts: pd.DataFrame) -> Facts:
    """How far the largest error of one run moves the predicted loss, by delta."""
    largest = shifts["excess"].max()
    moved = {str(run): rows for run, rows in shifts[shifts["excess"] == largest].groupby("run")}
    most = [f"{abs(row['loss']):.3f} at δ = {row['huber_delta']:g}" for row in moved["most compute"].to_dict("records")]
    return {
        "c4_outlier": percent(largest, decimals=0),
        "c4_moved_median": f"{moved['median compute']['loss'].abs().max():.3f}",
        "c4_moved_most": " and ".join(filter(None, (", ".join(most[:-1]), most[-1]))).replace("inf", "∞"),
    }


def delta_facts(fits: Mapping[tuple[str, float], Fit], tables: Tables) -> Facts:
    """How far E and the residual of the run with the most compute move from the least to the largest delta.

    Parameters
    ----------
    fits
        by architecture and delta.
    """
    deltas = [delta for _, delta in fits]
    ends = min(deltas), max(deltas)
    last = {
        name: [signed_percent(last_residual(fits[name, delta], table), 1) for delta in ends]
        for name, table in tables.items()
    }
    floors = {name: [f"{fits[name, delta].law.E:.2f}" for delta in ends] for name in tables}
    return {
        "c4_delta_range": " to ".join(f"δ = {delta:g}" for delta in ends).replace("inf", "∞"),
        "c4_delta_last": by_label({name: f"from {least} to {most}" for name, (least, most) in last.items()}),
        "c4_delta_e": by_label({name: f"from {least} to {most}" for name, (least, most) in floors.items()}),
    }


def fit_benchmarks() -> list[dict[str, Any]]:
    """Recorded results of the benchmarks of fits; empty without a record."""
    records = data_dir() / "benchmarks" / "fits.jsonl"
    return [result for record in read_records(records) for result in record["results"]] if records.is_file() else []


def speed_verdict(fits: Fits) -> str:
    """How many starts arrive, and the recorded time of a fit where there is one."""
    shares = {
        name: f"{percent(fit.share_of_starts_at_optimum)} of {plural(len(fit.start_objectives), 'start')}"
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
        f"{arrive} On one core, a fit of {ours['rows']} runs with γ free took {significant(ours['seconds_median'], 2)} "
        f"s. Plain L-BFGS-B with finite differences would need {significant(plain['seconds_extrapolated'], 2)} s for "
        f"its {plain['grid_starts']} starts (we timed {plain['starts']} of them), and only "
        f"{percent(plain['share_within_1e-6'])} of those end within a millionth of our objective."
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
    floors = {
        name: sorted(f"{fits[own, design, 'γ free'].law.E:.2f}" for own, design in factors if own == name)
        for name in names
    }
    return {
        "c4_form_e": by_label({name: " to ".join(dict.fromkeys((own[0], own[-1]))) for name, own in floors.items()}),
        "c4_gamma_factors": by_label({name: f"{factors[name, 'all']:.2f}" for name in names}),
        "c4_gamma_least": f"{least:.2f}",
        "c4_gamma_most": f"{most:.2f}",
        "c4_gamma_e": by_label(moves),
        "c4_gamma_range": f"{least:.1f} to {most:.1f}",
    }


def residual_facts(scattered: pd.DataFrame) -> Facts:
    """On which side of the law the runs of most compute lie, of `companion.chapters.ch04.scatter`."""
    of_all = {str(row["architecture"]): row for row in scattered[scattered["runs"] == "all"].to_dict("records")}
    sides = [
        f"The five most expensive {label_of(name)} runs lie {percent(abs(np.expm1(row['top'])), decimals=1)} "
        f"{'below' if row['top'] < 0 else 'above'} the fitted law on average; all {label_of(name)} runs scatter by "
        f"{percent(row['rms'])} (rms)"
        for name, row in of_all.items()
    ]
    return {"c4_residuals": ". ".join(sides)}


def interval_verdict(
    by_runs: Mapping[str, Bootstrap],
    by_sizes: Mapping[str, Bootstrap],
    curves: Mapping[str, Mapping[str, Profile]],
) -> str:
    """How much wider the interval of E is by sizes and by profile, and what recorded simulations found."""
    texts, wider, narrower = [], {}, {}
    for name in by_runs:
        runs, sizes = (np.ptp(drawn[name].interval("E")) for drawn in (by_runs, by_sizes))
        if not (np.isfinite(runs) and np.isfinite(sizes)):
            texts.append(f"The resamples give no interval of E for {label_of(name)}")
            continue
        wider[name] = f"{sizes / runs:.2f}"
        narrower[name] = f"{np.ptp(curves['E'][name].interval()) / runs:.2f}"
    if wider:
        texts.append(
            f"Drawing sizes instead of runs makes the interval of E {by_label(wider)} times as wide; that of the "
            f"profile is {by_label(narrower)} times as wide"
        )
    return ". ".join([*texts, *_coverage()])


def _coverage() -> list[str]:
    """What the recorded simulations found, in one sentence; none without a record."""
    results, texts = fit_benchmarks(), []
    for kind, name in (("bootstrap", "bootstrap over runs"), ("profile", "profile")):
        covered = [r["coverage"] for r in results if r["part"] == "coverage" and r["interval"] == kind]
        if covered:
            span = span_text(covered, partial(percent, decimals=0))
            texts.append(f"those of the {name} in {span} of the tables")
    if not texts:
        return []
    return [f"In simulations with independent scatter, 95 % intervals covered the truth: {', '.join(texts)}"]


def term_facts(fits: Fits, ranges: pd.DataFrame) -> Facts:
    """How well A is known and how well its term, of `companion.chapters.ch04.terms`."""
    known = {
        column: by_label({row["architecture"]: significant(row[column]) for row in ranges.to_dict("records")})
        for column in ("A", "A_term")
    }
    factors = ranges[["A", "B"]].to_numpy()
    pairs = {"c4_correlation_n": ("A", "alpha"), "c4_correlation_d": ("B", "beta")}
    correlations = {
        key: by_label({name: f"{fit.correlations[exponent].to_dict()[factor]:.2f}" for name, fit in fits.items()})
        for key, (factor, exponent) in pairs.items()
    }
    return correlations | {
        "c4_factor_least": significant(factors.min(), 2),
        "c4_factor_most": significant(factors.max(), 2),
        "c4_log_n": " and ".join(sorted({f"{fit.rows.center[0]:.1f}" for fit in fits.values()})),
        "c4_terms": f"A is known within a factor of {known['A']}, its term at the mean size within a factor of "
        f"{known['A_term']}",
    }
