"""The first screen of the chapter: what a token of training costs by component, and the answer in numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.accounting import Convention, TrainingFlops, count_flops, num_params
from companion.architectures import Architecture
from companion.chapters.ch01.figures import short_tokens, six_nd_ranges
from companion.chapters.ch01.words import component_word
from companion.chapters.labels import label_of
from companion.formatting import count, listed, percent, power_of_ten, share_in_words, significant
from companion.plotting.embed import Html, show, show_table
from companion.plotting.style import INK, subplots
from companion.runs.conventions import check_counts

#: Color of a component: light enough for dark text, apart in brightness (seaborn's `colorblind` palette).
COMPONENT_COLORS = {
    "embedding": "#ca9161",
    "mixer_projections": "#56b4e9",
    "mixer_core": "#e8742c",
    "output_gate": "#ece133",
    "ffn": "#a8a8a8",
    "norms": "#35b58b",
    "unembedding": "#fbafe4",
}
_HATCHED = "mixer_core"  # the component that the chapter is about: found in grey as well
_ON_COLOR = "#111111"  # text on a filled bar: the bar's color is the same on a light and on a dark page
_LEAST_LABEL = 0.055  # of the axis: narrower segments have no room for their number
_NOTHING = "–"

Array = np.ndarray[Any, Any]
Counts = Mapping[tuple[str, int], TrainingFlops]


def costs_by_context(
    models: Mapping[str, Architecture], contexts: Sequence[int], convention: Convention
) -> dict[tuple[str, int], TrainingFlops]:
    """Training FLOPs of every model at every context, by (architecture, T); contexts ascending, models side by side."""
    contexts = sorted(set(contexts))
    return {(name, T): count_flops(model, T, convention) for T in contexts for name, model in models.items()}


def component_costs(counts: Counts) -> Figure:
    """Training FLOPs per token as stacked bars, a segment per component, with a tick at 6 FLOPs per parameter.

    Parameters
    ----------
    counts
        from `costs_by_context`; the first is drawn on top. Components that cost nothing in any count are left out.
        The number in a segment is its share in percent, where it has room.
    """
    figure, [ax] = subplots(height=1.15 + 0.29 * len(counts))
    totals = np.array([float(each.train_flops_per_token) for each in counts.values()]) / 1e9
    six = np.array([6 * float(num_params(each.architecture)) for each in counts.values()]) / 1e9
    ends, positions = np.zeros(len(counts)), np.arange(len(counts))[::-1]
    for component in COMPONENT_COLORS:
        shares = np.array([float(each.share(component)) for each in counts.values()])
        if shares.any():
            _segments(ax, component, positions, ends, shares, totals, six)
            ends += shares * totals
    ax.vlines(six, positions - 0.48, positions + 0.48, color=INK, linewidth=2.2, label="6 N, the shortcut")
    ax.set_yticks(positions, [f"{label_of(name)}, {short_tokens(T)}" for name, T in counts])
    ax.set(xlabel="training GFLOP per token", xlim=(0, None), ylim=(-0.6, len(counts) - 0.4))
    ax.grid(False)
    ax.tick_params(axis="y", length=0)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _segments(
    ax: Axes, component: str, positions: Array, ends: Array, shares: Array, totals: Array, ticks: Array
) -> None:
    """One component of every bar, from `ends` on, with its share in percent beside the tick of its bar."""
    color, hatch = COMPONENT_COLORS[component], "////" if component == _HATCHED else None
    widths, room = shares * totals, _LEAST_LABEL * totals.max()
    ax.barh(
        positions, widths, left=ends, height=0.76, color=color, label=component_word(component),
        hatch=hatch, edgecolor=_ON_COLOR, linewidth=0,
    )  # fmt: skip
    box = {"facecolor": color, "edgecolor": "none", "pad": 1.8} if hatch else None
    for place, end, width, share, tick in zip(positions, ends, widths, shares, ticks, strict=True):
        if width < room:
            continue
        middle = end + width / 2
        at = end + width / 4 if abs(middle - tick) < room else middle
        ax.text(at, place, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=_ON_COLOR, bbox=box)


def show_component_costs(counts: Counts, size: str) -> Html:
    """`component_costs` with its caption; `size` is what the caption calls the models."""
    contexts = sorted({T for _, T in counts})
    cores = []
    for name in dict.fromkeys(name for name, _ in counts):
        shares = [percent(float(counts[name, T].share("mixer_core"))) for T in contexts]
        same = len(set(shares)) == 1
        cores.append(f"{f'always {shares[0]}' if same else listed(shares)} in the {label_of(name)}")
    return show(
        component_costs(counts),
        name="flops-shares",
        alt=f"Stacked bars of the training FLOPs per token of both {size} models by component, at "
        f"{len(contexts)} context lengths, with a tick at 6 FLOPs per parameter.",
        caption=f"What a training token costs the {size} models at T = {listed(contexts)} tokens (k: 1024), by "
        "component, with shares in percent. Vertical ticks: the shortcut, 6 FLOPs per parameter. The hatched mixer "
        f"core takes {listed(cores)}.",
    )


def show_answer(
    models: Mapping[str, Architecture],
    runs: pd.DataFrame,
    size: str,
    context_length: int,
    num_tokens: float,
    convention: Convention,
) -> Html:
    """The answer in numbers: a row per fact, a column per model.

    Parameters
    ----------
    models
        by architecture; `size` is what the caption calls them.
    runs
        a run table: C / (6ND) of its runs, and how many of them the count reproduces.
    """
    check = check_counts(runs).groupby("architecture")[["num_runs", "train_flops_equal"]].sum().to_dict("index")
    ranges = six_nd_ranges(runs)
    columns = {}
    for name, model in models.items():
        cost = count_flops(model, context_length, convention)
        found = check.get(name)
        columns[label_of(name)] = [
            count(float(num_params(model))),
            power_of_ten(float(cost.train_flops_per_token), 4),
            power_of_ten(float(cost.train_flops(num_tokens)), 3),
            significant(float(cost.train_flops_per_token) / (6 * float(num_params(model))), 3),
            " to ".join(ranges[label_of(name)]) if label_of(name) in ranges else _NOTHING,
            _NOTHING if found is None else share_in_words(int(found["train_flops_equal"]), int(found["num_runs"])),
        ]
    rows = [
        "parameters N",
        "training FLOP per token",
        f"C for D = {count(num_tokens)} tokens (FLOP)",
        "C / (6ND)",
        "C / (6ND), all runs of the run table",
        "runs of the table whose C comes out to six digits",
    ]
    return show_table(
        pd.DataFrame({"quantity": rows, **columns}),
        name="flops-answer",
        caption=f"The {size} models at T = {context_length}, counted by the convention {convention.name}, and the runs "
        "of the table.",
        labels={"quantity": " "},
    )
