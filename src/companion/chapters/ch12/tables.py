"""Tables of chapter 12 on batch sizes and on budgets by another count."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion.chapters.applicability import optional
from companion.chapters.ch12.study import LEAST_PAIRS, Study
from companion.formatting import count, interval, percent, plural, power_of_ten, signed
from companion.plotting import Html, show_table
from companion.training.batch import MeanDifference, StepTrend, mean_difference
from companion.training.curve_faults import spikes

#: Counts of FLOPs as the page calls them.
CONVENTIONS = {
    "paper": "the paper's",
    "chinchilla": "Chinchilla's",
    "chinchilla look-up": "Chinchilla's, free look-up",
    "6ND": "6ND",
}
#: Decades from which on a window is all sizes.
WHOLE = 5.0


def answer_table(study: Study) -> Html:
    """What these final losses hide, how much it is, and what shows it."""
    rows = []
    if study.pairs is not None and study.batches is not None:
        equal = study.pairs[study.pairs["same_learning_rate"]]
        words, some = f"batch {study.batches[1]:g} instead of {study.batches[0]:g}", {}
        if LEAST_PAIRS <= len(equal) < len(study.pairs):
            some = {f"{words}, learning rates equal": equal}
        for hidden, pairs in {words: study.pairs, **some}.items():
            found = mean_difference(pairs, num_resamples=1)
            size = f"{signed(found.mean, 3)} {interval(found.t_interval)}"
            rows.append({"hidden": hidden, "seen in": plural(found.num_pairs, "pair"), "size (nats/token)": size})
    if study.twins is not None:
        gap = study.losses[study.twins[0]] - study.losses[study.twins[1]]
        rows.append(
            {"hidden": "another training of the same", "seen in": "1 pair", "size (nats/token)": signed(gap, 3)}
        )
    done, failed = study.finished, study.logs[study.logs["status"] != "finished"]
    jumps = None if study.curves is None else optional(spikes, study.curves[study.curves["run"].isin(done["run"])])
    if jumps is not None:
        jump = f"median jump {jumps['jump'].median():.2f}" if len(jumps) else "–"
        seen = f"{jumps['run'].nunique()} of {len(done)} runs"
        rows.append({"hidden": "a spike on the way", "seen in": seen, "size (nats/token)": jump})
    seen = f"{len(failed)} of {len(study.logs)} runs"
    rows.append({"hidden": "runs that failed", "seen in": seen, "size (nats/token)": "no final loss to use"})
    return show_table(
        pd.DataFrame(rows),
        name="hidden-answer",
        caption="What the final losses of these runs do not show. The interval is Student's, 95 %, over the pairs.",
    )


def classes_table(classes: pd.DataFrame) -> Html:
    """Mean differences from few to many steps (`companion.training.batch.differences_by_steps`)."""
    steps = [f"{low:,} to {high:,}" for low, high in zip(classes["fewest_steps"], classes["most_steps"], strict=True)]
    shown = classes.assign(
        steps=steps,
        difference=[f"{row['mean']:.3f} {interval((row['low'], row['high']))}" for row in classes.to_dict("records")],
    )
    return show_table(
        shown[["steps", "num_pairs", "num_same_learning_rate", "difference"]],
        name="hidden-classes",
        caption="Mean loss difference of the pairs by the steps of the run at the larger batch, with Student's 95 % "
        "interval.",
        labels={
            "steps": "steps",
            "num_pairs": "pairs",
            "num_same_learning_rate": "with equal learning rates",
            "difference": "difference (nats/token)",
        },
    )


def trends_table(trends: Mapping[str, StepTrend], means: Mapping[str, MeanDifference]) -> Html:
    """Means and power laws over the steps, of all pairs and of those with equal learning rates."""
    rows = [
        {
            "pairs": f"{name} ({means[name].num_pairs})",
            "mean": f"{means[name].mean:.3f} {interval(means[name].t_interval)}",
            "bootstrap": interval(means[name].bootstrap_interval),
            "exponent": f"{trend.exponent:.2f} {interval(trend.interval('exponent'), 2)}",
            "scatter": trend.residual_deviation,
        }
        for name, trend in trends.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        name="hidden-trends",
        caption="Trends over the steps: means of the differences (Student's interval, and that of resampled pairs), "
        "and the exponent of a power law in one over the steps, with a bootstrap interval. Scatter: of the differences "
        "about that law.",
        formats={"scatter": "{:.4f}"},
        labels={"mean": "mean (nats/token)", "bootstrap": "bootstrap interval", "scatter": "scatter (nats/token)"},
    )


def windows_table(windows: pd.DataFrame) -> Html:
    """The shift of the optimum from sizes near it (`companion.training.batch_effects.shifts_by_window`)."""
    rows = [
        {
            "window": f"±{row['decades']:g} decades" if row["decades"] < WHOLE else "all sizes",
            "num_pairs": int(row["num_pairs"]),
            "first": row["first"],
            "second": row["second"],
            "ratio": f"{row['ratio']:.3f} {interval((row['low'], row['high']))}",
        }
        for row in windows.to_dict("records")
    ]
    return show_table(
        pd.DataFrame(rows),
        name="hidden-windows",
        caption="N* at both batches and their ratio, from pairs near the optimum only. A parabola over all sizes "
        "leans on those far away, where the steps are fewest.",
        formats={"first": count, "second": count},
        labels={
            "window": "sizes",
            "num_pairs": "pairs",
            "first": "N*, smaller batch",
            "second": "N*, larger batch",
            "ratio": "ratio",
        },
    )


def critical_table(implied: pd.DataFrame) -> Html:
    """Each pair's difference, how much any critical batch could explain, and the one that explains it."""
    shown = implied.assign(
        critical=["none" if np.isnan(value) else count(value, 2) for value in implied["critical_batch"]]
    )
    return show_table(
        shown[["num_params", "second_steps", "difference", "limit", "critical"]],
        name="hidden-critical",
        caption="The critical batch that would explain each difference. Limit: the largest difference that the "
        "relation allows, with a critical batch of 0.",
        formats={"num_params": count, "second_steps": "{:,}", "difference": "{:.4f}", "limit": "{:.4f}"},
        labels={
            "num_params": "N",
            "second_steps": "steps",
            "difference": "difference (nats/token)",
            "limit": "limit (nats/token)",
            "critical": "critical batch (tokens)",
        },
    )


def constancy_table(constancy: pd.DataFrame) -> Html:
    """How constant every count is within the profiles (`companion.training.budgets.count_constancy`)."""
    shown = constancy.assign(
        convention=[CONVENTIONS.get(name, name) for name in constancy["convention"]],
        trend=[f"{row['trend']:+.3f} {interval((row['low'], row['high']))}" for row in constancy.to_dict("records")],
        spread=constancy["spread"] - 1,
    )
    batch = ["batch_size_seqs"] if "batch_size_seqs" in shown else []
    return show_table(
        shown[["convention", *batch, "num_runs", "mean_count", "spread", "trend"]],
        name="hidden-counts",
        caption="Four counts within each profile. The count that set the budgets has a small spread (largest "
        "over smallest, less one) and no trend over the size (slope of ln C on ln N, with Student's 95 % interval).",
        formats={"mean_count": power_of_ten, "spread": percent, **dict.fromkeys(batch, "{:g}")},
        labels={
            "convention": "count",
            "num_runs": "runs",
            "mean_count": "mean (FLOP)",
            "trend": "trend over N",
            **dict.fromkeys(batch, "batch"),
        },
    )


def profile_labels(optima: pd.DataFrame) -> list[str]:
    """Labels of the rows of `companion.training.budgets.compare_optima`."""
    return [f"{power_of_ten(row['mean_count'])}, batch {row['batch_size_seqs']:g}" for row in optima.to_dict("records")]


def optima_table(optima: pd.DataFrame) -> Html:
    """N\\* of the profiles, measured and predicted (`companion.training.budgets.compare_optima`)."""
    rows = [
        {
            "profile": label,
            "measured": f"{count(row['measured'])} [{count(row['low'])}, {count(row['high'])}]",
            "predicted": f"{count(row['predicted'])} [{count(row['predicted_low'])}, {count(row['predicted_high'])}]",
            "unaware": count(row["unaware"]),
            "ratio": f"{row['ratio']:.2f} {interval((row['ratio_low'], row['ratio_high']), 2)}",
            "range": "outside" if row["outside"] else "inside",
        }
        for label, row in zip(profile_labels(optima), optima.to_dict("records"), strict=True)
    ]
    return show_table(
        pd.DataFrame(rows),
        name="hidden-optima",
        caption="N* of the profiles: measured, predicted by the law of the paper's runs counted again, and expected by "
        "someone who takes both counts for one. Ratio: measured over predicted. Last column: whether the compute lies "
        "inside the range of the law's budgets. 95 % intervals.",
        labels={"unaware": "counts taken for one", "range": "law's budgets"},
    )
