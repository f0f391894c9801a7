"""Figures of chapter 1: how far 6ND, the context, the embedding and conventions move the count."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from companion.accounting import PAPER, Convention, count_flops, get_convention, num_params
from companion.architectures import Architecture
from companion.chapters.ch01.formulas import mlstm_core_per_token
from companion.formatting import listed, significant
from companion.plotting.embed import Html, show
from companion.plotting.style import (
    INK,
    LABELS,
    architecture_label,
    architecture_look,
    count_ticks,
    percent_ticks,
    subplots,
)

#: Shape of a mark by context length, shortest first.
_CONTEXT_MARKERS = ("v", "o", "^", "D", "P", "X")
_STYLES = ("-", "--", ":", "-.")


def six_nd_ranges(runs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Least and largest C / (6ND) of the runs of each architecture, as text, by its label."""
    ratios = runs["train_flops"] / (6.0 * runs["num_params"] * runs["num_tokens"])
    return {
        architecture_label(str(name)): (significant(group.min(), 2), significant(group.max(), 2))
        for name, group in ratios.groupby(runs["architecture"])
    }


def six_nd_ratio(runs: pd.DataFrame) -> Figure:
    """C / (6ND) of every run against N, one panel per architecture, a mark per context length."""
    names = sorted(runs["architecture"].unique())
    figure, axes = subplots(1, len(names), sharex=True, sharey=True)
    ratio = runs["train_flops"] / (6.0 * runs["num_params"] * runs["num_tokens"])
    for ax, (name, look) in zip(axes, architecture_look(names).items(), strict=True):
        for marker, (label, rows) in zip(_CONTEXT_MARKERS, _by_context(runs), strict=False):
            chosen = rows.index[rows["architecture"] == name]
            ax.plot(
                runs.loc[chosen, "num_params"],
                ratio[chosen],
                linestyle="none",
                marker=marker,
                markersize=4.5,
                markerfacecolor="none",
                markeredgewidth=0.9,
                color=look["color"],
                label=label,
            )
        ax.axhline(1.0, color=INK, linewidth=0.8)
        ax.set(xscale="log", yscale="log", xlabel=LABELS["num_params"], title=look["label"])
        count_ticks(ax.xaxis)
        _plain_ticks(ax)
    axes[0].set_ylabel("C / (6ND)")
    _legend(figure, axes[0], columns=4)
    return figure


def context_curves(
    models: Mapping[str, Architecture], context_lengths: Sequence[int], convention: str | Convention = PAPER
) -> Figure:
    """Against the context length: C / (6ND) on the left, the share of the mixer core on the right.

    Parameters
    ----------
    models
        label of the line, and one configuration; line styles distinguish models of one architecture.
    context_lengths
        tokens, each at least one chunk.
    """
    figure, axes = subplots(1, 2)
    lengths = np.asarray(context_lengths)
    drawn: dict[str, int] = {}
    for label, model in models.items():
        look, place = architecture_look([model.name])[model.name], drawn.get(model.name, 0)
        drawn[model.name] = place + 1
        style: dict[str, Any] = {
            "color": look["color"],
            "linestyle": _STYLES[place % len(_STYLES)],
            "marker": look["marker"],
            "markersize": 4,
            "markevery": max(1, len(lengths) // 8),
            "label": label,
        }
        count = count_flops(model, lengths, convention)
        axes[0].plot(
            lengths, np.broadcast_to(np.asarray(count.train_flops_per_token), lengths.shape) / _six(model), **style
        )
        axes[1].plot(lengths, np.broadcast_to(np.asarray(count.share("mixer_core")), lengths.shape), **style)
    axes[0].axhline(1.0, color=INK, linewidth=0.8)
    axes[1].axhline(0.5, color=INK, linewidth=0.8)
    for ax in axes:
        ax.set(xscale="log", xlabel=LABELS["context_length"])
        ax.xaxis.set_major_formatter(FuncFormatter(short_tokens))
        ax.set_xticks([4**k for k in range(2, 12) if lengths.min() <= 4**k <= lengths.max()])
        ax.xaxis.set_minor_locator(NullLocator())
    axes[0].set(yscale="log", ylabel="C / (6ND)")
    _plain_ticks(axes[0], "y")
    axes[1].set(ylim=(0, 1), ylabel="share of the mixer core (%)")
    percent_ticks(axes[1].yaxis)
    _legend(figure, axes[0], columns=2)
    return figure


def embedding_shares(shares: pd.DataFrame) -> Figure:
    """Share of embedding and unembedding against N: of the parameters on the left, of the FLOPs on the right.

    Parameters
    ----------
    shares
        from `companion.chapters.ch01.tables.share_table`.
    """
    figure, axes = subplots(1, 2, sharex=True, sharey=True)
    titles = {"params_share": "of the parameters", "flops_share": "of the training FLOPs"}
    looks = architecture_look(sorted(shares["architecture"].unique()))
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for place, (name, look) in enumerate(looks.items()):
            rows = shares[shares["architecture"] == name]
            ax.plot(
                rows["num_params"],
                rows[column],
                linestyle="none",
                marker=look["marker"],
                markersize=5.5 if place == 0 else 3.5,
                markerfacecolor="none" if place == 0 else look["color"],
                markeredgewidth=0.9,
                color=look["color"],
                label=look["label"],
            )
        ax.set(xscale="log", ylim=(0, None), xlabel=LABELS["num_params"], title=title)
        count_ticks(ax.xaxis)
        percent_ticks(ax.yaxis)
    axes[0].set_ylabel("embedding and unembedding (%)")
    if len(shares):
        _legend(figure, axes[0], columns=4)
    return figure


def convention_shift(runs: pd.DataFrame, ratios: pd.DataFrame) -> Figure:
    """Compute by other conventions over the table's own, for every run: one panel per convention.

    Parameters
    ----------
    runs
        a run table.
    ratios
        from `companion.runs.conventions.convention_ratios`, the columns to draw; empty columns are left out.
    """
    columns = [name for name in ratios if ratios[name].notna().any()]
    figure, axes = subplots(1, len(columns), sharey=True)
    looks = architecture_look(sorted(runs["architecture"].unique()))
    groups = _by_context(runs)
    for ax, column in zip(axes, columns, strict=True):
        for place, (name, look) in enumerate(looks.items()):
            for position, (_, rows) in enumerate(groups):
                chosen = ratios.loc[rows.index[rows["architecture"] == name]]
                values = np.sort(chosen[str(column)].dropna())
                # side by side, spread by rank, so that equal values can be seen
                center = position + 0.5 * ((place + 0.5) / len(looks) - 0.5)
                spread = 0.16 * (np.arange(values.size) * 0.618034 % 1 - 0.5)
                ax.plot(
                    center + spread,
                    values,
                    linestyle="none",
                    marker=look["marker"],
                    markersize=2.8,
                    markeredgewidth=0,
                    alpha=0.75,
                    color=look["color"],
                    label=look["label"] if position == 0 else None,
                )
        ax.axhline(1.0, color=INK, linewidth=0.8)
        ax.set_xticks(range(len(groups)), [label.removeprefix("T = ") for label, _ in groups])
        ax.set(yscale="log", xlabel=LABELS["context_length"], title=f"counted by {column}")
        ax.grid(False, axis="x")
        _plain_ticks(ax, "y")
    axes[0].set_ylabel("C over the table's C")
    _legend(figure, axes[0], columns=4)
    return figure


def chunk_cost(
    architecture: Architecture, chunk_sizes: Sequence[int], conventions: Sequence[str | Convention]
) -> Figure:
    """FLOPs per token of the mLSTM core against the chunk size, in millions; a mark at each convention's own chunk.

    Parameters
    ----------
    chunk_sizes
        L in tokens; the context is taken to be a multiple of each.
    conventions
        the counts to draw, one line style each.
    """
    figure, [ax] = subplots(height=3.2)
    sizes, color = np.asarray(chunk_sizes), architecture_look(["xlstm"])["xlstm"]["color"]
    for place, convention in enumerate(map(get_convention, conventions)):
        costs = mlstm_core_per_token(architecture, sizes, convention) / 1e6
        ax.plot(sizes, costs, color=color, linestyle=_STYLES[place % len(_STYLES)], label=convention.name)
        mark = mlstm_core_per_token(architecture, convention.chunk_size, convention) / 1e6
        ax.plot([convention.chunk_size], [mark], color=color, marker="o", linestyle="none")
    ax.set(xscale="log", xlabel="chunk size L (tokens)", ylabel="mLSTM core (MFLOP/token)", ylim=(0, None))
    ax.set_xticks([size for size in sizes if np.log2(size).is_integer()])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    _legend(figure, ax, columns=4)
    return figure


# ---- with captions -------------------------------------------------------------------------------


def show_six_nd_ratio(runs: pd.DataFrame) -> Html:
    """`six_nd_ratio` with its caption."""
    ranges = listed(f"{low} to {high} ({label})" for label, (low, high) in six_nd_ranges(runs).items())
    return show(
        six_nd_ratio(runs),
        name="flops-six-nd",
        alt="Scatter of the ratio of exact compute to 6ND over parameters, one panel per architecture, marks "
        "by context length.",
        caption=f"The compute of all {len(runs)} runs of the table over 6ND: {ranges}. On the horizontal line the "
        "shortcut is exact. Below it the embedding dominates the error, above it the mixer core.",
    )


def show_context_curves(
    models: Mapping[str, Architecture], context_lengths: Sequence[int], convention: Convention
) -> Html:
    """`context_curves` with its caption."""
    return show(
        context_curves(models, context_lengths, convention),
        name="flops-context",
        alt="Two panels of lines over the context length: exact compute over 6ND, and the share of the mixer core.",
        caption=f"C / (6ND) and the share of the mixer core at contexts from {context_lengths[0]} to "
        f"{context_lengths[-1]} tokens, by the convention {convention.name}. Horizontal lines: 6ND is exact; the core "
        "takes one half. Only the curves of the Transformer rise.",
    )


def show_embedding_shares(shares: pd.DataFrame, convention: Convention) -> Html:
    """`embedding_shares` with its caption."""
    return show(
        embedding_shares(shares),
        name="flops-embedding",
        alt="Two scatter panels over parameters: share of embedding and unembedding in the parameters, and "
        "in the FLOPs.",
        caption="Embedding and unembedding together, for every run with known shapes: their share of N and of C "
        f"(convention {convention.name}). Points of one size at different heights have different contexts: the more "
        "attention costs, the smaller the rest.",
    )


def show_convention_shift(runs: pd.DataFrame, ratios: pd.DataFrame) -> Html:
    """`convention_shift` with its caption."""
    return show(
        convention_shift(runs, ratios),
        name="flops-conventions",
        alt="Strips of points by context length and architecture: compute by other conventions over the "
        "compute of the table.",
        caption="Every run of the table: its compute by another convention over the table's own. A "
        "comparison at equal compute survives a change of convention only where both architectures move alike.",
    )


def show_chunk_cost(
    model: Architecture, size: str, chunk_sizes: Sequence[int], conventions: Sequence[str | Convention]
) -> Html:
    """`chunk_cost` with its caption; `size` is what the caption calls the model."""
    return show(
        chunk_cost(model, chunk_sizes, conventions),
        name="flops-chunk",
        alt="Training cost of the mLSTM core per token over the chunk size, two conventions.",
        caption=f"Training cost of the mLSTM core per token, xLSTM {size}, when the whole matrix inside a chunk "
        "counts, and when only its unmasked half does (tfla with causal factor 0.5). Dots: the chunk size "
        "of each convention.",
    )


def _six(model: Architecture) -> float:
    return 6.0 * float(num_params(model))


def _by_context(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if "context_length" not in runs or runs["context_length"].isna().all():
        return [("all runs", runs)]
    return [(f"T = {length:.0f}", rows) for length, rows in runs.groupby("context_length")]


def short_tokens(value: float, _: Any = None) -> str:
    """A context length in few signs, also for an axis: 8k for 8192, 100 as it is."""
    return f"{value / 1024:g}k" if value >= 1024 and value % 256 == 0 else f"{value:.0f}"


def _plain_ticks(ax: Axes, axis: str = "y") -> None:
    """Ratios on a logarithmic axis as plain numbers, a few of them."""
    which = ax.yaxis if axis == "y" else ax.xaxis
    low, high = which.get_view_interval()
    steps = [0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0, 16.0, 32.0, 64.0]
    inside = [step for step in steps if low <= step <= high]
    which.set_ticks(inside if len(inside) <= 7 else [step for step in inside if np.log2(step).is_integer()])
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    which.set_minor_locator(NullLocator())
    which.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, ax: Axes, columns: int) -> None:
    handles, labels = ax.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=max(1, min(columns, len(labels))))
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D):
            handle.set(alpha=1.0, markersize=max(5.0, handle.get_markersize()))
