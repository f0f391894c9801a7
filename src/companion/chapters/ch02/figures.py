"""Figures of chapter 2: what was trained, and the fronts of loss over compute."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.fitting.isoflop.profiles import IsoflopProfile
from companion.fitting.pareto import READINGS, FrontComparison, ParetoFront, Reading
from companion.formatting import power_of_ten
from companion.plotting.embed import Html, show
from companion.plotting.style import (
    ARCHITECTURE_COLORS,
    INK,
    LABELS,
    architecture_look,
    count_ticks,
    panels,
    subplots,
)

_READING_STYLES: dict[Reading, str] = {"hull": "-", "linear": "--", "steps": ":"}
_READING_LABELS: dict[Reading, str] = {"hull": "convex hull", "linear": "lines from run to run", "steps": "steps"}
_HULL_STYLES = ("-", "--", "-.", ":")
#: What pages call the paper's two designs; other people's keep their names.
EXPERIMENT_LABELS = {"isoflop": "IsoFLOP", "tokenparam": "Token/Param"}
_GREY = "#888888"
_SMALL: dict[str, Any] = {"s": 14, "linewidths": 0.8}


def coverage(runs: pd.DataFrame) -> Figure:
    """Tokens against parameters, one panel per experiment, with lines of equal C = 6·N·D."""
    parts = _parts(runs, "experiment")
    figure, axes = panels(len(parts), height=4.0, sharex=True, sharey=True)
    # room on top for the labels of the lines: the largest runs must not lie on them
    (left, right), (bottom, top) = (
        (runs[column].min() / 2.2, runs[column].max() * room)
        for column, room in (("num_params", 1.5), ("num_tokens", 3.5))
    )
    for ax, (name, part) in zip(axes, parts.items(), strict=True):
        for place, (architecture, look) in enumerate(architecture_look(_names(runs)).items()):
            rows = part[part["architecture"] == architecture]
            # the first hollow and larger: where two architectures share a size, both can be seen
            style: dict[str, Any] = {"s": 26 if place == 0 else 9, "linewidths": 0.8, "edgecolors": look["color"]}
            style |= {"facecolors": "none" if place == 0 else look["color"], "marker": look["marker"]}
            ax.scatter(rows["num_params"], rows["num_tokens"], label=look["label"], **style)
        ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
        ax.set(xlabel=LABELS["num_params"], title=_title(name, part))
        for decade in range(int(np.log10(6 * left * bottom)) + 1, int(np.log10(6 * right * top)) + 1):
            _iso_line(ax, decade, (left, right), (bottom, top))
    axes[0].set_ylabel(LABELS["num_tokens"])
    _legend(figure, axes[0])
    return figure


def ratio_over_compute(runs: pd.DataFrame) -> Figure:
    """Tokens per parameter against compute, one panel per architecture, filled and hollow marks by experiment."""
    names, parts = _names(runs), _parts(runs, "experiment")
    figure, axes = panels(len(names), sharex=True, sharey=True)
    for ax, (architecture, look) in zip(axes, architecture_look(names).items(), strict=True):
        for place, part in enumerate(parts.values()):
            rows = part[part["architecture"] == architecture]
            ratio = rows["num_tokens"] / rows["num_params"]
            style = {"facecolors": look["color"] if place else "none", "edgecolors": look["color"], **_SMALL}
            ax.scatter(rows["train_flops"], ratio, marker=look["marker"], **style)
        number = (runs["architecture"] == architecture).sum()
        ax.set(xscale="log", yscale="log", xlabel=LABELS["train_flops"], title=f"{look['label']}, {number} runs")
    axes[0].set_ylabel(LABELS["tokens_per_param"])
    for place, name in enumerate(parts):  # marks for the legend only: it holds for all panels
        style = {"facecolors": INK if place else "none", "edgecolors": INK, **_SMALL}
        axes[0].scatter([], [], label=EXPERIMENT_LABELS.get(name, name), **style)
    _legend(figure, axes[0])
    return figure


def fronts(runs: pd.DataFrame, found: Mapping[str, ParetoFront]) -> Figure:
    """Loss against compute: all runs faint, the runs of each front, and the hull of each front."""
    figure, [ax] = subplots(height=3.0)
    for place, (architecture, look) in enumerate(architecture_look(list(found)).items()):
        rows, front = runs[runs["architecture"] == architecture], found[architecture]
        style: dict[str, Any] = {"color": look["color"], "marker": look["marker"], "linestyle": "none"}
        ax.plot(rows["train_flops"], rows["val_loss"], markersize=3, alpha=0.35, markeredgewidth=0, **style)
        ax.plot(front.train_flops, front.loss, markersize=4.5, label=f"{look['label']}: front", **style)
        hull = front.hull()
        line = {"color": look["color"], "linestyle": _HULL_STYLES[place % len(_HULL_STYLES)], "linewidth": 1.4}
        ax.plot(hull.train_flops, hull.loss, label=f"{look['label']}: hull", **line)
    ax.set(xscale="log", xlabel=LABELS["train_flops"], ylabel=LABELS["val_loss"])
    _legend(figure, ax)
    return figure


def gap_at_equal_compute(comparisons: Mapping[Reading, FrontComparison], label: str) -> Figure:
    """How far the second front lies above the first, over compute, in every reading.

    Parameters
    ----------
    label
        what the gap is, for the axis, e.g. `Transformer − xLSTM`.
    """
    figure, [ax] = subplots(height=3.2)
    for reading in READINGS:
        curve = comparisons[reading].loss_gap
        edges = np.repeat(10**curve.edges, 2)[1:-1]
        values = np.column_stack((curve.left, curve.right)).ravel()
        width = 1.8 if reading == "hull" else 1.0
        ax.plot(
            edges,
            values,
            color=INK,
            linewidth=width,
            linestyle=_READING_STYLES[reading],
            label=_READING_LABELS[reading],
        )
    ax.axhline(0, color=_GREY, linewidth=0.8)
    ax.set(xscale="log", xlabel=LABELS["train_flops"], ylabel=f"{label} (nats/token)")
    _legend(figure, ax)
    return figure


def gap_at_equal_size(pairs: pd.DataFrame, comparison: FrontComparison, label: str) -> Figure:
    """Loss gap of runs with the same N and D over tokens per parameter, above the range of the gap at equal compute.

    Parameters
    ----------
    pairs
        from `companion.fitting.pareto.matched_pairs`; larger marks are larger models.
    comparison
        fronts of the same runs.
    label
        what the gap is, for the axis, e.g. `Transformer − xLSTM`.
    """
    figure, [ax] = subplots()
    gap = comparison.loss_gap
    ax.axhspan(gap.minimum, gap.maximum, color=_GREY, alpha=0.2, linewidth=0, label="equal compute: range")
    ax.axhline(gap.quantile(0.5), color=INK, linewidth=1.2, label="equal compute: median")
    ax.axhline(0, color=_GREY, linewidth=0.8)
    area = 12 + 30 * np.log10(pairs["num_params"].to_numpy(dtype=float) / pairs["num_params"].min())
    ax.scatter(
        pairs["tokens_per_param"],
        pairs["loss_gap"],
        s=area,
        marker="D",
        facecolors="none",
        edgecolors=INK,
        linewidths=1.0,
        label="equal N and D, larger mark: larger N",
    )
    ax.set(xscale="log", xlabel=LABELS["tokens_per_param"], ylabel=f"{label} (nats/token)")
    count_ticks(ax.xaxis)
    _legend(figure, ax)
    return figure


def profile_with_marks(profile: IsoflopProfile, families: Sequence[Any], marked: Sequence[int]) -> Figure:
    """One IsoFLOP profile with its parabola, runs of one width joined, and some runs ringed.

    Parameters
    ----------
    families
        label of every run of the profile, e.g. `d_model`, shape (n,); labels of marked runs are drawn as lines.
    marked
        positions of the runs to ring.
    """
    figure, [ax] = subplots()
    labels = np.asarray(families)
    order = np.argsort(profile.x)
    ax.plot(profile.x, profile.loss, "o", color=ARCHITECTURE_COLORS["xlstm"], markersize=4, label="runs")
    grid = np.geomspace(profile.x.min(), profile.x.max(), 200)
    if profile.fit is not None:
        ax.plot(grid, profile.fit.law.predict(grid), color=_GREY, linewidth=1.2, label="parabola through all")
    for line, family in zip(("--", ":", "-."), dict.fromkeys(labels[list(marked)]), strict=False):
        rows = order[labels[order] == family]
        ax.plot(profile.x[rows], profile.loss[rows], line, color=INK, linewidth=1.0, label=f"width {family}")
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": INK, "markersize": 11, "linestyle": "none"}
    ax.plot(profile.x[list(marked)], profile.loss[list(marked)], "o", label="in question", **ring)
    ax.set(xscale="log", xlabel=LABELS["num_params"], ylabel=LABELS["val_loss"])
    count_ticks(ax.xaxis)
    _legend(figure, ax)
    return figure


# ---- with captions -------------------------------------------------------------------------------


def show_coverage(runs: pd.DataFrame) -> Html:
    """`coverage` with its caption."""
    return show(
        coverage(runs),
        name="run-table-coverage",
        alt="Scatter of training tokens over parameters, one panel per design, with diagonal lines of equal compute.",
        caption="Every run by size and tokens. Along a dotted line 6 N D, in FLOP, is constant. Runs of one budget "
        "form a diagonal. It differs between architectures and contexts, because C is counted from the shapes and is "
        "not 6 N D.",
    )


def show_ratio_over_compute(runs: pd.DataFrame) -> Html:
    """`ratio_over_compute` with its caption."""
    return show(
        ratio_over_compute(runs),
        name="run-table-ratio",
        alt="Scatter of tokens per parameter over compute, one panel per architecture.",
        caption="Tokens per parameter over compute. The IsoFLOP design gives columns: many ratios at a few budgets. "
        "The Token/Param design gives rows: a few ratios over a wide range of compute.",
    )


def show_swapped_profile(profile: IsoflopProfile, runs: pd.DataFrame, rows: Sequence[Any]) -> Html:
    """`profile_with_marks` of a budget; `rows` are the index labels of the runs to ring."""
    marked = [list(runs.index).index(row) for row in rows]
    return show(
        profile_with_marks(profile, runs["d_model"].tolist(), marked),
        name="run-table-swap",
        alt="IsoFLOP profile of the largest xLSTM budget with two ringed runs of nearly the same size, one above the "
        "other.",
        caption="The largest xLSTM budget. The two rings mark runs of nearly equal size. A dashed and a dotted line "
        "join the runs of the same width. The upper ring is where a line breaks.",
    )


def show_fronts(runs: pd.DataFrame, found: Mapping[str, ParetoFront], context_length: int | None) -> Html:
    """`fronts` with the context length (None: the table names none) and their ranges of compute in the caption."""
    at_context = "" if context_length is None else f" at T = {context_length} tokens"
    looks = architecture_look(list(found))
    spans = "; ".join(
        f"{looks[name]['label']} from {power_of_ten(front.train_flops[0])} to {power_of_ten(front.train_flops[-1])}"
        for name, front in found.items()
    )
    return show(
        fronts(runs, found),
        name="run-table-fronts",
        alt="Loss over compute for each architecture; the best runs of each form a falling curve.",
        caption=f"Loss over training compute{at_context}. Faint marks: all runs. Full marks: runs that no other run of "
        f"the same architecture beats (the front). Lines: the lower convex hull of each front. {spans} FLOP.",
    )


def show_gap(comparisons: Mapping[Reading, FrontComparison], first: str, second: str) -> Html:
    """`gap_at_equal_compute` with its caption."""
    a, b = (look["label"] for look in architecture_look([first, second]).values())
    return show(
        gap_at_equal_compute(comparisons, f"{b} − {a}"),
        name="run-table-gap",
        alt="Loss gap between the two fronts over compute, read in three ways, with a line at zero.",
        caption=f"Loss of the {b} front minus that of the {a} front at equal compute, over the range that both cover. "
        f"Above zero the {a} is better. Jumps and peaks come from the readings: where runs are sparse, each fills the "
        "space between them in its own way.",
    )


def show_equal_size(pairs: pd.DataFrame, comparison: FrontComparison, first: str, second: str) -> Html:
    """`gap_at_equal_size` with its caption."""
    a, b = (look["label"] for look in architecture_look([first, second]).values())
    return show(
        gap_at_equal_size(pairs, comparison, f"{b} − {a}"),
        name="run-table-equal-size",
        alt="Loss gap of pairs of equal size over tokens per parameter, with the range of the gap at equal compute as "
        "a band.",
        caption=f"Loss of the {b} minus that of the {a}, for pairs of runs with equal N and D (diamonds). Below zero "
        f"the {b} has the lower loss. Gray band and line: the gap between the fronts at equal compute.",
    )


def _names(runs: pd.DataFrame) -> list[str]:
    return sorted(map(str, runs["architecture"].unique()))


def _parts(runs: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """The table by the values of a column, or as one part if there is no such column or value."""
    if column not in runs or runs[column].isna().all():
        return {"all runs": runs}
    return {str(name): part for name, part in runs.groupby(runs[column].fillna("not named"))}


def _title(name: str, part: pd.DataFrame) -> str:
    return f"{EXPERIMENT_LABELS.get(name, name)}, {len(part)} runs"


def _iso_line(ax: Axes, decade: int, sizes: tuple[float, float], tokens: tuple[float, float]) -> None:
    """The line 6·N·D = 10^decade across a panel, with its compute where the line meets the left or the upper edge.

    Few runs lie there: a table rarely holds the smallest models trained on the most tokens.
    """
    product = 10.0**decade / 6
    low, high = max(sizes[0], product / tokens[1]), min(sizes[1], product / tokens[0])
    if not low < high:
        return
    style: dict[str, Any] = {"color": _GREY, "linewidth": 0.9, "linestyle": (0, (1, 3)), "zorder": 0}
    ax.plot([low, high], [product / low, product / high], gid=f"iso-{decade}", **style)
    at_top = product / low > tokens[1] / 1.01
    ax.annotate(
        f"$10^{{{decade}}}$",
        (low, product / low),
        (4, -2) if at_top else (3, 1),
        textcoords="offset points",
        ha="left",
        va="top" if at_top else "bottom",
        fontsize=9,
        color=INK,
    )


def _legend(figure: Figure, ax: Axes, **kwargs: Any) -> None:
    """One legend above the panels, where it hides nothing."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6), **kwargs)
