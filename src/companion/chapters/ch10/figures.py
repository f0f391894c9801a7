"""Figures of chapter 10 (`10_gpu_kernels`): pairs of each form, chunks and tiles, errors, what a kernel must cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from matplotlib.ticker import NullFormatter

from companion.plotting.style import INK, subplots

GREY = "#888888"
PAIR, STATE, SKIPPED = "#0173b2", "#de8f05", "#94949444"
#: Colors of dtypes and of ways to compute, from the color-blind palette.
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9", "#ece133")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")
#: Colors of stacked kernels: dark and light by turns, so that neighbors differ in grey as well.
_STACKED = ("#949494", "#56b4e9", "#0173b2", "#ece133", "#d55e00", "#fbafe4", "#029e73", "#de8f05", "#cc78bc")


def pairs_of_forms(num_tokens: int = 16, chunk_size: int = 4) -> Figure:
    """Which pairs of tokens each form computes one by one, and which it reaches through a state."""
    figure, axes = subplots(1, 3, height=3.3)
    forms = {"recurrent": 1, f"chunkwise, L = {chunk_size}": chunk_size, "parallel": num_tokens}
    for ax, (name, size) in zip(axes, forms.items(), strict=True):
        for t in range(num_tokens):
            for s in range(t + 1):
                # the recurrent form has no pairs at all: even a token's own key is read out of the state
                direct = size > 1 and t // size == s // size
                color = PAIR if direct else STATE
                ax.add_patch(Rectangle((s, t), 1, 1, facecolor=color, alpha=0.85 if direct else 0.45, linewidth=0))
        for edge in range(size, num_tokens, size):
            ax.plot([0, edge], [edge, edge], color=INK, linewidth=0.9)
        states = f"{num_tokens // size} states" if size < num_tokens else "no state"
        ax.set(
            title=f"{name}\n{states}",
            xlim=(0, num_tokens),
            ylim=(num_tokens, 0),
            xlabel="key and value: token s",
        )
        _bare(ax)
        ax.set_aspect("equal")
    axes[0].set_ylabel("query: token t")
    handles = [
        Patch(facecolor=PAIR, alpha=0.85, label="pair computed"),
        Patch(facecolor=STATE, alpha=0.45, label="through a state"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def chunks_and_tiles(num_chunks: int = 4, tiles_per_chunk: int = 4) -> Figure:
    """The chain of states over the chunks, and one chunk cut into tiles."""
    figure, axes = subplots(1, 2, height=3.6, gridspec_kw={"width_ratios": (1.25, 1)})
    _chain(axes[0], num_chunks)
    _tiles(axes[1], tiles_per_chunk)
    handles = [
        Patch(facecolor=PAIR, alpha=0.85, label="tile computed in full"),
        Patch(facecolor=PAIR, alpha=0.45, label="tile on the diagonal, masked"),
        Patch(facecolor=SKIPPED, label="tile skipped"),
        Patch(facecolor=STATE, alpha=0.6, label="state C, n, m"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=1.2, columnspacing=1.2)
    return figure


def form_error_dots(table: pd.DataFrame) -> Figure:
    """Errors of the forms by quantity, a panel per form, a color and a marker per dtype (`experiments.form_errors`)."""
    quantities, forms, dtypes = (list(table[name].unique()) for name in ("quantity", "form", "dtype"))
    figure, axes = subplots(1, len(forms), height=3.6, sharey=True)
    floor = 1e-17  # an error of exactly zero has no place on a logarithm
    for ax, form in zip(axes, forms, strict=True):
        for number, dtype in enumerate(dtypes):
            group = table[(table["form"] == form) & (table["dtype"] == dtype)]
            shift = 0.3 * (number - (len(dtypes) - 1) / 2) / len(dtypes)  # 16-bit formats lie close together
            places = [quantities.index(q) + shift for q in group["quantity"]]
            look: dict[str, Any] = {"color": PALETTE[number % len(PALETTE)], "markersize": 5, "linestyle": "none"}
            look |= {"marker": _MARKERS[number % len(_MARKERS)], "label": dtype}
            ax.plot(places, group["error"].clip(lower=floor), **look)
        ax.set(yscale="log", title=form, xticks=range(len(quantities)))
        ax.set_xticklabels(quantities)
        ax.grid(False, axis="x")
        ax.yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("relative error")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(dtypes))
    return figure


def overflow_lines(panels: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> Figure:
    """Errors with and without m over a gate's mean; a hollow mark above a line where numbers overflow.

    Parameters
    ----------
    panels
        by label of the horizontal axis: its values in the first column, then one column per way in `labels`.
    labels
        by column: what the way is called.
    """
    figure, axes = subplots(1, len(panels), height=3.7, sharey=True)
    top = 3.0
    for ax, (title, table) in zip(axes, panels.items(), strict=True):
        x = table.iloc[:, 0].to_numpy()
        for number, (column, label) in enumerate(labels.items()):
            values = table[column].to_numpy()
            lost = ~np.isfinite(values)
            look: dict[str, Any] = {"color": PALETTE[number], "marker": _MARKERS[number], "markersize": 4.5}
            ax.plot(x, np.where(lost, np.nan, values), label=label, linestyle=_LINES[number % len(_LINES)], **look)
            height = top * 5.0 ** (len(labels) - number)
            ax.plot(x[lost], np.full(lost.sum(), height), linestyle="none", markerfacecolor="none", **look)
        ax.axhline(top, color=GREY, linewidth=0.8)
        ax.set(yscale="log", xlabel=title)
        ax.yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("relative error of h\n(above line: overflow)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(labels))
    return figure


def forget_gradient_errors(tokens: pd.DataFrame, scan: pd.DataFrame) -> Figure:
    """Two sums for the gradient of log f: absolute errors token by token, and relative ones over the gate's mean.

    Parameters
    ----------
    tokens
        of `experiments.forget_gate_gradients`.
    scan
        columns forget_gate, totals, pairs: relative errors.
    """
    figure, (left, right) = subplots(1, 2, height=3.6)
    labels, dots = {"totals": "difference of totals", "pairs": "sum over pairs"}, ("o", "^")
    left.plot(tokens["token"], tokens["exact"].abs(), color=GREY, linewidth=0.8, label="size of the gradient")
    for number, (column, label) in enumerate(labels.items()):
        look: dict[str, Any] = {"color": PALETTE[number + 2]}
        error = (tokens[column] - tokens["exact"]).abs()
        left.plot(tokens["token"], error, dots[number], markersize=2, label=label, linestyle="none", **look)
        right.plot(scan["forget_gate"], scan[column], marker=dots[number], markersize=5, label=label, **look)
    left.set(yscale="log", xlabel="token t", ylabel="gradient of log f, and its error")
    right.set(yscale="log", xlabel="mean of f̃", ylabel="relative error")
    for ax in (left, right):
        ax.yaxis.set_minor_formatter(NullFormatter())
    left.set_ylim(bottom=1e-9)  # a token or two happen to have no error
    right.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, markerscale=2.5)
    return figure


def chunk_scan(scans: Mapping[str, pd.DataFrame], best: Mapping[str, int]) -> Figure:
    """Roofline milliseconds of every kernel over the chunk length, one bar each, a panel per shape.

    Parameters
    ----------
    scans
        of `companion.accounting.kernel_costs.chunk_size_scan`, by name of the shape.
    best
        chunk length of the least sum, by the same names; its bar has an outline.
    """
    figure, axes = subplots(1, len(scans), height=4.0)
    kernels = list(dict.fromkeys(kernel for scan in scans.values() for kernel in scan["kernel"]))
    for ax, (name, scan) in zip(axes, scans.items(), strict=True):
        # a kernel that runs twice is one piece of its bar
        wide = scan.pivot_table(index="chunk_size", columns="kernel", values="seconds", aggfunc="sum", sort=False)
        bottom = np.zeros(len(wide))
        for kernel in kernels:
            values = 1e3 * wide[kernel].to_numpy()
            color = _STACKED[kernels.index(kernel) % len(_STACKED)]
            look: dict[str, Any] = {"color": color, "width": 0.75, "label": kernel.replace("_", " ")}
            ax.bar(range(len(wide)), values, bottom=bottom, linewidth=0, **look)
            bottom += values
        at = list(wide.index).index(best[name])
        ax.bar(at, bottom[at], width=0.75, facecolor="none", edgecolor=INK, linewidth=1.8)
        ax.set(title=name, xlabel="chunk length L (tokens)", xticks=range(len(wide)))
        ax.set_xticklabels([str(size) for size in wide.index])
        ax.grid(False, axis="x")
    axes[0].set_ylabel("roofline time (ms)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _chain(ax: Axes, num_chunks: int) -> None:
    """Chunks along the tokens with the state handed from one to the next."""
    _bare(ax)
    ax.set(xlim=(-0.75, num_chunks * 1.5 + 0.15), ylim=(-1.4, 3.3), title="chunks of one head: states, then outputs")
    for chunk in range(num_chunks):
        x = 1.5 * chunk
        ax.add_patch(Rectangle((x, 0), 1, 0.7, facecolor=PAIR, alpha=0.3, edgecolor=INK))
        ax.text(x + 0.5, 0.35, "q k v", ha="center", va="center", fontsize=9)
        ax.add_patch(Rectangle((x - 0.42, 1.55), 0.5, 0.5, facecolor=STATE, alpha=0.6, edgecolor=INK))
        ax.add_patch(Rectangle((x, 2.6), 1, 0.5, facecolor="none", edgecolor=INK))
        ax.text(x + 0.5, 2.85, "h", ha="center", va="center", fontsize=9)
        if chunk < num_chunks - 1:
            _arrow(ax, (x + 0.08, 1.8), (x + 1.08, 1.8), STATE)
            _arrow(ax, (x + 0.6, 0.7), (x + 1.1, 1.6), STATE)
        _arrow(ax, (x + 0.5, 0.7), (x + 0.5, 2.6), PAIR)
        _arrow(ax, (x - 0.1, 2.05), (x + 0.3, 2.6), PAIR)
        ax.text(x + 0.5, -0.3, f"chunk {chunk + 1}", ha="center", va="center", fontsize=9)
    end = 1.5 * num_chunks - 0.5
    look: dict[str, Any] = {"fontsize": 9, "ha": "center", "va": "center"}
    ax.text(end / 2, -0.85, "orange: one after another", **look)
    ax.text(end / 2, -1.2, "blue: all chunks at once", **look)
    ax.plot([0, end], [-0.55, -0.55], color=GREY, linewidth=0.8)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


def _tiles(ax: Axes, count: int) -> None:
    """One chunk: tiles of the L × L weights, and the state beside them."""
    _bare(ax)
    for row in range(count):
        ax.add_patch(Rectangle((-1.35, row), 1, 1, facecolor=STATE, alpha=0.6, edgecolor=INK, linewidth=0.5))
        for column in range(count):
            look: dict[str, Any] = {"facecolor": PAIR, "alpha": 0.85}
            if row == column:
                look["alpha"] = 0.45
            elif column > row:
                look = {"facecolor": SKIPPED}
            ax.add_patch(Rectangle((column, row), 1, 1, edgecolor=INK, linewidth=0.5, **look))
    ax.text(-0.85, -0.3, "state", ha="center", fontsize=9)
    ax.text(count / 2, -0.3, "keys of the chunk", ha="center", fontsize=9)
    # an axis label would be given to the first panel as well where panels stack
    ax.text(-1.6, count / 2, "queries of the chunk", ha="center", va="center", fontsize=9, rotation=90)
    ax.set(xlim=(-1.9, count + 0.1), ylim=(count + 0.1, -0.9), title="one chunk in tiles")
    ax.set_aspect("equal")
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=color, linewidth=1.3))


def _bare(ax: Axes) -> None:
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
