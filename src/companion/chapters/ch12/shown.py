"""The figures of chapter 12 as the page shows them: with names, alternative texts and captions."""

import pandas as pd

from companion.chapters.applicability import optional
from companion.chapters.ch12 import figures
from companion.chapters.ch12.study import Study, parted
from companion.chapters.ch12.tables import profile_labels
from companion.chapters.ch12.tables_curves import PREDICTORS, family_titles
from companion.chapters.labels import label_of, the
from companion.formatting import count, percent, plural
from companion.plotting import Html, show
from companion.training.batch import fit_step_trend
from companion.training.batch_effects import OptimumShift
from companion.training.curve_faults import left_band, siblings

#: N of the siblings of a run that failed is at most this factor away.
SIBLING_FACTOR = 1.6


def answer_figure(study: Study) -> Html:
    """What two final losses of a table do not show: the batch, and an accident on the way."""
    pairs = study.pairs
    trend = None if pairs is None else optional(fit_step_trend, pairs, 10)
    found = parted(study)
    twins = None if found is None else found[1]
    if pairs is None and twins is None:
        return Html("<p>Neither batch sizes nor repeated trainings can be compared on these logs.</p>")
    parts = []
    if pairs is not None and study.batches is not None:
        parts.append(
            f"{'Left' if twins is not None else 'Points'}: loss at batch {study.batches[1]:g} less that at batch "
            f"{study.batches[0]:g}, for {len(pairs)} pairs of runs with equal N and nearly equal D. Hollow: learning "
            "rates differ or are unknown." + ("" if trend is None else " Dashed: a power law through all pairs.")
        )
    if twins is not None and study.twins is not None:
        gap = study.losses[study.twins[0]] - study.losses[study.twins[1]]
        where = "Right" if pairs is not None else "Lines"
        parts.append(f"{where}: two trainings of one configuration, which end {gap:.3f} nats per token apart.")
    return show(
        figures.batch_and_twins(pairs, trend, twins),
        name="hidden-answer",
        alt="Loss differences between two batch sizes over the optimizer steps, and two loss curves of one "
        "configuration.",
        caption=" ".join(parts),
    )


def profiles_figure(study: Study, shift: OptimumShift) -> Html:
    """The pairs as two profiles with their optima."""
    assert study.pairs is not None
    assert study.batches is not None
    name = str(study.pairs["architecture"].iloc[0])
    return show(
        figures.two_profiles(shift, study.batches, figures.pair_color(study.pairs)),
        name="hidden-profiles",
        alt="Two IsoFLOP profiles of the same sizes at two batch sizes, with parabolas and their lowest points.",
        caption=f"One budget of {the(name)} at two batch sizes. Stars: the lowest points, N* = "
        f"{count(shift.first.x_opt)} at batch {study.batches[0]:g} and {count(shift.second.x_opt)} at batch "
        f"{study.batches[1]:g}.",
    )


def optima_figure(optima: pd.DataFrame) -> Html:
    """N\\* of the profiles, measured and predicted."""
    return show(
        figures.counted_optima(optima, profile_labels(optima)),
        name="hidden-optima",
        alt="Optimal sizes of the profiles with intervals, beside the predicted ones and those of a reader who takes "
        "both counts for one.",
        caption="Optimal sizes of runs whose budgets follow another count. Where the batch is that of the law, the "
        "prediction of chapter 3 can be checked; at another batch something else moves N*. Left: mean compute by that "
        "count, FLOP, and sequences in a batch. Bars: 95 % intervals.",
    )


def errors_figure(errors: pd.DataFrame, fraction: float) -> Html:
    """Errors of predicted final losses over the fraction of the run."""
    return show(
        figures.errors_over_fraction(errors, PREDICTORS),
        name="hidden-errors",
        alt="Median and root mean square errors of predicted final losses over the share of the run; horizontal lines "
        "for predictions that see no curve.",
        caption="How well a loss on the way predicts the final one, budgets left out in turn. Horizontal lines need no "
        f"curve at all. The text reads the errors at {percent(fraction)} of the run.",
    )


def collapse_figure(normalized: pd.DataFrame, logs: pd.DataFrame) -> Html:
    """Normalized curves by family."""
    return show(
        figures.collapsed_curves(normalized, logs, family_titles(logs)),
        name="hidden-collapse",
        alt="Reducible loss over its last value along the runs, one panel per architecture and context.",
        caption="Normalized curves, the reducible loss over its last value, of the runs of each family. If the runs "
        "were tuned alike and shared one schedule, the curves of a panel would be one.",
    )


def spikes_figure(found: pd.DataFrame, logs: pd.DataFrame) -> Html:
    """When spikes came, and how high they were."""
    if found.empty:
        return Html("<p>No run has a spike.</p>")
    return show(
        figures.spike_places(found, logs),
        name="hidden-spikes",
        alt="Jump of every spike over the optimizer step.",
        caption=f"{plural(len(found), 'spike')} of the runs that finished: the step, and by how much the training loss "
        "jumped above the median of the five points before.",
    )


def bands_figure(study: Study, failed: pd.DataFrame) -> Html:
    """Runs that failed, and the band of their siblings."""
    tables, titles = {}, {}
    for row in failed.to_dict("records"):
        others = siblings(study.logs, row["run"], SIBLING_FACTOR)
        if len(others) >= 3 and study.curves is not None:
            table = left_band(study.curves, row["run"], others)[1]
            if table.empty:  # the siblings have no records along this run
                continue
            tables[row["run"]] = table
            titles[row["run"]] = (
                f"{label_of(str(row['architecture']))}, {count(row['num_params'])}\nrate {row['learning_rate']:g}"
            )
    if not tables:
        return Html("<p>No run that failed has three finished siblings with records along it.</p>")
    return show(
        figures.bands(tables, titles),
        name="hidden-failures",
        alt="Training loss of every run that failed, and the gray band of finished runs of about its size.",
        caption="Runs that failed (colored), by size and peak learning rate, and the band of finished runs of "
        "about their size (gray line: median; band: four robust standard deviations on both sides).",
    )
