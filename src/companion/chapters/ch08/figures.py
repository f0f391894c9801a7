"""Figures of the inference chapter: accounting, measured times and their terms."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from companion.hardware import Hardware
from companion.plotting.style import INK, LABELS, architecture_look, subplots

GREY = "#888888"
#: Colors of what limits a time, from the same color-blind palette as the architectures.
KIND_COLORS = {"compute": "#029e73", "memory": "#cc78bc", "latency": "#ca9161", "fixed": "#c4c4c4"}
#: Patterns beside the colors, for a page printed in grey.
KIND_HATCHES = {"compute": "", "memory": "//", "latency": "\\\\", "fixed": ""}
KIND_LABELS = {"compute": "compute", "memory": "memory", "latency": "latency of attention", "fixed": "overhead"}
QUANTITY_LABELS = {"ttft": "time to first token (s)", "step_time": "step time (s)"}
#: Height of the rows of passes below a roofline, as shares of the panel's.
_LOWEST_ROW, _ROW_STEP = 0.07, 0.1
SIZE_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def memory_and_roofline(
    curves: Mapping[str, pd.DataFrame], equal: float, points: pd.DataFrame, hardware: Hardware
) -> Figure:
    """Left: bytes that one sequence keeps over its context. Right: attainable FLOP/s over arithmetic intensity.

    Parameters
    ----------
    curves
        by label: columns architecture, context_length, cache_bytes; a second curve of an architecture is dashed.
    equal
        tokens at which keys and values take as much as the state.
    points
        columns architecture, kind (`prefill` filled, `step` hollow), arithmetic_intensity: passes, in rows
        below the roofline, where those of two architectures cannot hide each other.
    hardware
        whose memory and roofline are drawn.
    """
    figure, (left, right) = subplots(1, 2, height=3.0)
    seen: set[str] = set()
    for label, table in curves.items():
        name = str(table["architecture"].iloc[0])
        color = architecture_look([name])[name]["color"]
        left.plot(
            table["context_length"], table["cache_bytes"], "--" if name in seen else "-", color=color, label=label
        )
        seen.add(name)
    handles = [*left.get_legend_handles_labels()[0], _line("memory of the device", dashes="-.")]
    left.axvline(equal, color=GREY, linewidth=1, linestyle=":")
    left.axhline(hardware.memory_bytes, color=GREY, linewidth=1, linestyle="-.")
    left.set(xscale="log", yscale="log", xlabel=LABELS["context_length"], ylabel="bytes kept per sequence")
    token_ticks(left.xaxis, np.concatenate([table["context_length"] for table in curves.values()]))
    _draw_roofline(right, points, hardware)
    handles += [_line(kind, marker=mark, fill=kind == "prefill") for kind, mark in (("prefill", "o"), ("step", "o"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw_roofline(ax: Axes, points: pd.DataFrame, hardware: Hardware) -> None:
    low = min(0.5, float(points["arithmetic_intensity"].min()) / 1.5)
    grid = np.geomspace(low, max(2e4, float(points["arithmetic_intensity"].max()) * 1.5), 200)
    ax.plot(grid, np.minimum(hardware.peak_flops_per_s, grid * hardware.peak_bytes_per_s), color=INK)
    ax.axvline(hardware.ridge, color=GREY, linewidth=1, linestyle=":")
    looks = architecture_look(points["architecture"].unique())
    for (name, kind), group in points.groupby(["architecture", "kind"], sort=False):
        look, row = looks[str(name)], list(looks).index(str(name))
        ax.plot(
            group["arithmetic_intensity"], np.full(len(group), _LOWEST_ROW + _ROW_STEP * row), look["marker"],
            color=look["color"], markersize=4.5, markerfacecolor=look["color"] if kind == "prefill" else "none",
            transform=ax.get_xaxis_transform(),
        )  # fmt: skip
    room = 10.0 ** (1 + len(looks) / 4)  # below the line's low end, for the rows
    ax.set_ylim(low * hardware.peak_bytes_per_s / room, 2 * hardware.peak_flops_per_s)
    ax.set(xscale="log", yscale="log", xlabel="arithmetic intensity (FLOP per byte)", ylabel="attainable FLOP/s")


def times_over_context(curves: Mapping[tuple[str, str], pd.DataFrame]) -> Figure:
    """Measured times (markers) and predicted ones (lines) over the context; rows: quantities, columns: architectures.

    `curves` by architecture and quantity: columns model_size, batch_size, context_length, predicted, measured (NaN
    where there is none), all times in seconds. The smaller batch of a size has solid lines, larger ones dashed.
    """
    names = list(dict.fromkeys(name for name, _ in curves))
    quantities = list(dict.fromkeys(quantity for _, quantity in curves))
    figure, axes = subplots(len(quantities), len(names), height=2.5 * len(quantities) + 0.6, sharey="row", sharex=True)
    looks, grid = architecture_look(names), np.array(axes).reshape(len(quantities), len(names))
    sizes = list(dict.fromkeys(size for table in curves.values() for size in table["model_size"]))
    batches = sorted({batch for table in curves.values() for batch in table["batch_size"]})
    marks = dict(zip(sizes, cycle(SIZE_MARKERS), strict=False))
    dashes = dict(zip(batches, cycle(("-", "--", ":")), strict=False))
    for (name, quantity), table in curves.items():
        ax = grid[quantities.index(quantity), names.index(name)]
        for (size, batch), group in table.groupby(["model_size", "batch_size"], sort=False):
            color = looks[name]["color"]
            ax.plot(group["context_length"], group["predicted"], dashes[batch], color=color, linewidth=1.2)
            fill = color if batch == batches[0] else "none"
            ax.plot(
                group["context_length"],
                group["measured"],
                marks[size],
                color=color,
                markersize=4.5,
                markerfacecolor=fill,
            )
        ax.set(xscale="log", yscale="log")
        token_ticks(ax.xaxis, table["context_length"])
    for ax, name in zip(grid[0], names, strict=True):
        ax.set_title(looks[name]["label"])
    for ax in grid[-1]:
        ax.set_xlabel(LABELS["context_length"])
    for ax, quantity in zip(grid[:, 0], quantities, strict=True):
        ax.set_ylabel(QUANTITY_LABELS.get(quantity, quantity))
    handles = [_line(str(size), marker=mark) for size, mark in marks.items()]
    handles += [_line(f"B = {batch:g}", dashes=dash) for batch, dash in dashes.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def regime_shares(panels: Mapping[str, pd.DataFrame], along: Sequence[str]) -> Figure:
    """What limits a time: shares of the kinds of terms, stacked, a panel per title.

    Parameters
    ----------
    panels
        by title: tables of `companion.inference.terms.shares`.
    along
        the column on the horizontal axis of every panel: context_length or batch_size.
    """
    rows = -(-len(panels) // 2)
    figure, axes = subplots(rows, min(2, len(panels)), height=1.75 * rows + 0.5, sharey=True)
    if isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
        engine.set(h_pad=0.09)  # a panel's title must not touch the label of the axis above it
    drawn: list[str] = []
    for ax, (title, table), column in zip(axes, panels.items(), along, strict=False):
        kinds = [kind for kind in KIND_COLORS if kind in table]
        drawn += [kind for kind in kinds if kind not in drawn]
        ax.stackplot(
            table[column], *(table[kind] for kind in kinds), colors=[KIND_COLORS[kind] for kind in kinds],
            hatch=[KIND_HATCHES[kind] for kind in kinds], linewidth=0, edgecolor="white",
        )  # fmt: skip
        label = LABELS["context_length"] if column == "context_length" else "batch B (sequences)"
        ax.set(xscale="log", title=title, xlabel=label, ylim=(0, 1), xlim=(table[column].min(), table[column].max()))
        token_ticks(ax.xaxis, table[column])
    for ax in axes[::2]:
        ax.set_ylabel("share of the time")
    handles = [
        Patch(facecolor=KIND_COLORS[kind], hatch=KIND_HATCHES[kind], linewidth=0, edgecolor="white", label=label)
        for kind, label in KIND_LABELS.items()
        if kind in drawn
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def token_ticks(axis: Axis, values: Any, step: int = 4) -> None:
    """Ticks at powers of two, every second one or as `step` says, as plain numbers: 512, 2k, 8k."""
    low, high = float(np.min(values)), float(np.max(values))
    ticks, tick = [], 1.0
    while tick <= high * 1.001:
        ticks += [tick] * (tick >= low * 0.999)
        tick *= step
    while len(ticks) > 6:
        ticks = ticks[::2]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tokens_text(value)))
    axis.set_minor_locator(NullLocator())


def tokens_text(value: float) -> str:
    """Tokens in binary thousands: 512, 2k, 128k, 1M; other numbers with three digits."""
    for size, letter in ((2**20, "M"), (2**10, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _line(label: str, *, marker: str = "", dashes: Any = "-", fill: bool = True) -> Line2D:
    """A legend entry in no architecture's color."""
    return Line2D(
        [], [], color=GREY, marker=marker or None, linestyle="" if marker else dashes, linewidth=1.3, markersize=5,
        markerfacecolor=GREY if fill else "none", label=label,
    )  # fmt: skip
