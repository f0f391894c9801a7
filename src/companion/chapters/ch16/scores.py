"""Chapter 16: 1,200 simulated laboratories: coverage against width, what a score rewards, and why intervals miss."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from companion.chapters.ch16.looks import HALF_WIDTH, LAB_LABELS, LOOKS, WORLD_LABELS
from companion.chapters.ch16.opened import settings_cost, without_settings
from companion.formatting import percent, signed_percent, significant, span_text
from companion.numeric import Array
from companion.plotting import Html, show, show_table, subplots
from companion.plotting.style import INK, percent_ticks
from companion.study.laboratory import Rules, Simulator, practice_laboratory
from companion.study.laboratory.chance import derived_key
from companion.study.laboratory.coverage import coverage_summary
from companion.study.laboratory.strategies import FIRST_RATES, parametric_law

#: Level of the intervals of the recorded laboratories.
LEVEL = Rules().level
#: Factors on the width of an interval that the figure tries.
FACTORS = np.geomspace(0.2, 6, 120)


def scaled_scores(log_error: ArrayLike, log_width: ArrayLike, factors: ArrayLike, level: float = LEVEL) -> Array:
    """Mean interval score of predictions whose intervals are made longer by each factor, shape of `factors`.

    Every interval is taken as symmetric about its prediction, in logarithms of the loss: recorded are its width and the
    error only. Source of the score: Gneiting and Raftery 2007, equation 43.

    >>> scaled_scores([0.0, 0.03], [0.02, 0.02], [1.0, 3.0]).round(3).tolist()
    [0.22, 0.06]
    """
    error, width = np.abs(np.asarray(log_error, dtype=float)), np.asarray(log_width, dtype=float)
    wide = np.asarray(factors, dtype=float)[:, None] * width
    return np.asarray((wide + 2 / (1 - level) * np.maximum(0.0, error - wide / 2)).mean(axis=1))


def summary(laboratories: pd.DataFrame) -> pd.DataFrame:
    """A row for every strategy and kind of world: coverage with its standard error, width, errors, and two factors.

    Besides `companion.study.laboratory.coverage.coverage_summary`: `rms_error` of ln predicted − ln observed,
    `centered`, the share of (symmetric) intervals that would hold the outcome without the median error; `enough`, the
    factor on all widths with which the share would be the level; `best`, the factor with the least mean score.
    """
    rows = []
    for (law, strategy), own in laboratories.groupby(["law", "strategy"], sort=False):
        error, half = own["log_error"].to_numpy(float), own["log_width"].to_numpy(float) / 2
        scores = scaled_scores(error, 2 * half, FACTORS)
        rows.append(
            {
                "law": law,
                "strategy": strategy,
                "rms_error": float(np.sqrt(np.nanmean(error**2))),
                "centered": float((np.abs(error - np.nanmedian(error)) <= half).mean()),
                "enough": float(np.nanquantile(np.abs(error) / half, LEVEL)),
                "best": float(FACTORS[int(np.argmin(scores))]),
            }
        )
    return coverage_summary(laboratories).merge(pd.DataFrame(rows), on=["law", "strategy"])


def coverage_panels(laboratories: pd.DataFrame) -> Figure:
    """Left: coverage over the median half width; right: mean interval score over a factor on all widths."""
    figure, (left, right) = subplots(1, 2, height=3.6)
    found = summary(laboratories)
    for row in found.to_dict("records"):
        usual = row["law"] == found["law"].iloc[0]
        look = {"color": LOOKS[row["strategy"]]["color"], "marker": LOOKS[row["strategy"]]["marker"], "markersize": 8}
        fill = look["color"] if usual else "none"
        at = row["median_log_width"] / 2, row["coverage"]
        left.errorbar(*at, yerr=1.96 * row["coverage_standard_error"], markerfacecolor=fill, capsize=2.5, **look)
        if usual:
            own = laboratories[(laboratories["law"] == row["law"]) & (laboratories["strategy"] == row["strategy"])]
            scores = scaled_scores(own["log_error"], own["log_width"], FACTORS)
            label = LAB_LABELS.get(row["strategy"], row["strategy"])
            right.plot(FACTORS, scores, color=look["color"], linestyle=LOOKS[row["strategy"]].get("linestyle", "-"))
            best = int(np.argmin(scores))
            right.plot(FACTORS[best], scores[best], look["marker"], color=look["color"], markersize=8, label=label)
    left.axhline(LEVEL, color=INK, linewidth=0.9, linestyle=":")
    left.set(xlabel=HALF_WIDTH, ylabel="intervals that hold the loss (%)", ylim=(-0.04, 1.04), xlim=(0, None))
    right.set(xlabel="factor on every width", ylabel="mean interval score", xscale="log", yscale="log")
    right.set_xticks([0.3, 1, 3], ["0.3", "1", "3"])
    right.set_yticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    right.minorticks_off()
    right.axvline(1, color=INK, linewidth=0.9, linestyle=":")
    percent_ticks(left.xaxis)
    percent_ticks(left.yaxis)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def coverage_figure(laboratories: pd.DataFrame) -> Html:
    """Coverage against width, and what the score rewards."""
    worlds = laboratories.groupby(["law", "strategy"]).size().max()
    return show(
        coverage_panels(laboratories),
        name="lab-coverage",
        alt="Left: the widest intervals hold the loss most often, and the ladder's never do though they are not the "
        "narrowest. Right: each curve of scores has a valley, at factors below, about and far above one.",
        caption=f"Three strategies, {worlds} laboratories each in two kinds of worlds (filled: the usual law; hollow: "
        f"a further term). Left: how many {percent(LEVEL)} intervals hold the loss (dotted: as many as should), over "
        "their median half width. Right: the mean interval score, lower is better, if all widths were multiplied by a "
        "factor; marks are at the best one.",
    )


def coverage_table(laboratories: pd.DataFrame) -> Html:
    """The numbers behind the figure, and the score."""
    found = summary(laboratories)
    rows = pd.DataFrame(
        {
            "strategy": found["strategy"].map(LAB_LABELS),
            "worlds": found["law"].map(WORLD_LABELS),
            "held": found["coverage"],
            "half": found["median_log_width"] / 2,
            "rms": found["rms_error"],
            "median": found["median_log_error"],
            "centered": found["centered"],
            "enough": found["enough"],
            "total": found["total"],
            "interval": found["interval_points"],
        }
    )
    return show_table(
        rows,
        name="lab-coverage-numbers",
        caption="The three strategies in numbers. Half widths are medians; errors are predicted over observed loss. "
        "Centered: intervals that would hold the loss without the median error. Factor: on all widths, for "
        f"{percent(LEVEL)} of them to hold. Points: means of the score, and of its part for the interval.",
        formats={
            **dict.fromkeys(("held", "half", "rms", "centered"), percent),
            **dict.fromkeys(("enough", "total", "interval"), "{:.1f}"),
            "median": lambda value: signed_percent(value, 1),
        },
        labels={
            "held": "held",
            "half": "half width",
            "rms": "rms error",
            "median": "median error",
            "enough": "factor",
            "total": "points, of 100",
            "interval": "interval, of 50",
        },
    )


def coverage_facts(laboratories: pd.DataFrame) -> dict[str, str]:
    """Values of the section on simulated laboratories: those of the usual law without a suffix."""
    found = summary(laboratories)
    facts = {"c16_labs": f"{len(laboratories):,}", "c16_labs_level": percent(LEVEL)}
    for row in found.to_dict("records"):
        tail = f"{row['strategy'].split('_')[0]}{'' if row['law'] == 'chinchilla' else '_' + row['law']}"
        facts |= {
            f"c16_held_{tail}": percent(row["coverage"], 3 if row["coverage"] > 0.95 else 2),
            f"c16_half_{tail}": percent(row["median_log_width"] / 2),
            f"c16_rms_{tail}": percent(row["rms_error"]),
            f"c16_median_{tail}": signed_percent(row["median_log_error"], 1),
            f"c16_centered_{tail}": percent(row["centered"]),
            f"c16_enough_{tail}": significant(row["enough"], 2),
            f"c16_best_{tail}": significant(row["best"], 2),
            f"c16_total_{tail}": f"{row['total']:.0f}",
            f"c16_interval_{tail}": f"{row['interval_points']:.0f}",
        }
    return facts | {"c16_best_total": best_verdict(found), "c16_misfit": misfit_verdict(found)}


def best_verdict(found: pd.DataFrame) -> str:
    """A verdict: who earns most, and whether the intervals that hold most often are worth most."""
    usual = found[found["law"] == found["law"].iloc[0]].set_index("strategy")
    best, safest = str(usual["total"].idxmax()), str(usual["coverage"].idxmax())
    names = LAB_LABELS.get(best, best), LAB_LABELS.get(safest, safest)
    if best == safest:
        return f"The {names[0]} earns most, and its intervals hold most often"
    return f"The {names[0]} earns most; the intervals that hold most often, of the {names[1]}, earn less"


def misfit_verdict(found: pd.DataFrame) -> str:
    """A verdict: how far a term that no strategy knows lowers coverage, beside chance."""
    first, second = (found[found["law"] == law].set_index("strategy") for law in list(dict.fromkeys(found["law"]))[:2])
    drops = first["coverage"] - second["coverage"]
    errors = np.hypot(first["coverage_standard_error"], second["coverage_standard_error"])
    if (drops > 2 * errors).any():
        return "lowers coverage by more than chance would"
    return "lowers coverage by no more than chance would"


# ---- why the intervals of the parametric law are too short ------------------------------------------------


def settings_in_worlds(number: int, seed: int = 0) -> pd.DataFrame:
    """What settings added to the runs of the parametric law in practice worlds, opened after the score: a row a world.

    Columns: `small` and `large`, the mean cost in log loss of the five cheapest and the three dearest runs that the
    parametric law was fitted to (those after its sweeps of the learning rate), `target`, that of the target run,
    `error`, ln predicted − ln mean loss of the target run, and `cleaned`, the same had settings cost the runs nothing
    (`companion.chapters.ch16.opened.without_settings`).
    """
    rows = []
    for world_number in range(number):
        key = derived_key(f"{seed}", "coverage", "chinchilla", str(world_number))
        laboratory = practice_laboratory(key, Rules())
        prediction = parametric_law(laboratory)
        world, target = Simulator(key, laboratory.rules).world, prediction.ask
        fitted = laboratory.state().answers[len(FIRST_RATES) * len(laboratory.rules.architectures) + 3 :]
        done = sorted((a for a in fitted if not a.outcome.diverged), key=lambda answer: answer.ask.train_flops)
        costs = [settings_cost(world, answer.ask) for answer in done]
        rows.append(
            {
                "small": float(np.mean(costs[:5])),
                "large": float(np.mean(costs[-3:])),
                "target": settings_cost(world, target),
                "error": math.log(prediction.loss / world.expected_loss(target)),
                "cleaned": without_settings(world, done, target),
            }
        )
    return pd.DataFrame(rows)


def settings_table(found: pd.DataFrame) -> Html:
    """Means and ranges over worlds of what settings cost, and of the error."""
    names = {
        "small": "settings add to the five cheapest runs",
        "large": "to the three dearest runs",
        "target": "to the target run",
        "error": "prediction over mean loss",
        "cleaned": "the same without the settings' cost",
    }
    rows = [
        {"what": words, "mean": found[name].mean(), "least": found[name].min(), "most": found[name].max()}
        for name, words in names.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        name="lab-settings",
        caption=f"The parametric law in {len(found)} of these worlds, opened after the score: what learning rate, "
        "batch and schedule add to the loss, and by how much the prediction is too high: as it was made, and had the "
        "settings cost the runs nothing.",
        formats=dict.fromkeys(("mean", "least", "most"), lambda value: signed_percent(value, 2)),
    )


def settings_facts(found: pd.DataFrame, laboratories: pd.DataFrame) -> dict[str, str]:
    """Values of why the intervals are too short: what settings move, beside the bias of the recorded laboratories."""
    shift = found["error"] - found["cleaned"]
    own = laboratories[(laboratories["strategy"] == "parametric_law") & (laboratories["law"] == "chinchilla")]
    bias = float(own["log_error"].mean())
    return {
        "c16_settings_worlds": f"{len(found)}",
        "c16_settings_small": percent(found["small"].mean()),
        "c16_settings_large": percent(found["large"].mean()),
        "c16_settings_target": percent(found["target"].mean()),
        "c16_settings_shift": signed_percent(float(shift.mean()), 1),
        "c16_settings_range": span_text(shift, lambda value: signed_percent(value, 1)),
        "c16_settings_bias": signed_percent(bias, 1),
        "c16_settings_uncertain": percent(float(found["error"].std()) / math.sqrt(len(found)), 1),
        "c16_settings_shift_uncertain": percent(float(shift.std()) / math.sqrt(len(found)), 1),
        "c16_settings_verdict": settings_verdict(float(shift.mean()), bias),
    }


def settings_verdict(shift: float, bias: float) -> str:
    """A verdict: whether what settings move is as large as the bias."""
    if shift > bias / 2 > 0:
        return "enough to explain most of the bias"
    return "too little to explain the bias"
