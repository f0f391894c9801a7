"""Figures of chapter 10 (`10_gpu_kernels`): errors by implementation, times over context and batch, the crossing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE_NAME
from companion.chapters.kernel_tables import short_name
from companion.plotting.style import INK, subplots

GREY = "#888888"
OURS_COLOR, ATTENTION_COLOR = "#0173b2", "#de8f05"
#: Colors and markers of other implementations, in the order in which they appear.
_OTHERS = ("#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9", "#ece133")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<")
_DASHES = ("-", (0, (6, 1)), (0, (4, 1, 1, 1)), (0, (2, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)), (0, (3, 3)))
_UPSTREAMS = {"general": ("#d55e00", "o"), "orthogonal": ("#0173b2", "s")}


def implementation_looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`color`, `marker` and `linestyle` by implementation: ours blue, attention orange, others by turns.

    A cell of another kind is grey and dotted.
    """
    looks: dict[str, dict[str, Any]] = {}
    ours = attention = others = 0
    lines = ("-", "--", ":", "-.")
    for name in names:
        if name.startswith("companion"):
            looks[name] = {"color": OURS_COLOR, "marker": "o", "linestyle": lines[ours % 4]}
            ours += 1
        elif name.startswith("attention"):
            looks[name] = {"color": ATTENTION_COLOR, "marker": "*", "linestyle": lines[attention % 4]}
            attention += 1
        elif name == GATED_DELTA_RULE_NAME:
            looks[name] = {"color": GREY, "marker": "", "linestyle": ":"}
        else:
            number = others % len(_OTHERS)
            looks[name] = {"color": _OTHERS[number], "marker": _MARKERS[number], "linestyle": _DASHES[number]}
            others += 1
    return looks


def error_strip(rows: pd.DataFrame, tolerance: float | None = None) -> Figure:
    """Errors of h and of the gradients, a dot per case and a line per implementation; crosses where not finite.

    Parameters
    ----------
    rows
        of `companion.benchmarks.kernels.results.error_rows`: implementation, upstream, error_h, error_gradients.
    tolerance
        drawn as a line, if given.
    """
    names = list(dict.fromkeys(rows["implementation"]))
    figure, axes = subplots(1, 2, height=0.9 + 0.3 * len(names), sharey=True)
    columns = {"error_h": "error of h", "error_gradients": "worst gradient's error"}
    finite = rows[list(columns)].replace(np.inf, np.nan)
    edge = 10 * float(np.nanmax(finite.to_numpy(float)))
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for upstream, (color, marker) in _UPSTREAMS.items():
            part = rows[(rows["upstream"] == upstream) & rows[column].notna()]
            if part.empty:
                continue
            shift = 0.14 if upstream == "general" else -0.14
            height = np.array([names.index(name) for name in part["implementation"]]) - shift
            values = part[column].to_numpy(float)
            lost = ~np.isfinite(values)
            ax.plot(values[~lost], height[~lost], marker, color=color, markersize=3.5, alpha=0.7, linestyle="none")
            ax.plot(np.full(lost.sum(), edge), height[lost], "x", color=color, markersize=5)
        if tolerance is not None:
            ax.axvline(tolerance, color=GREY, linewidth=0.9, linestyle=":")
        ax.set(xscale="log", xlabel=label, ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)))
        ax.set_yticklabels(names)
        ax.xaxis.set_major_locator(LogLocator(numticks=4))
        ax.xaxis.set_minor_formatter(NullFormatter())
    handles = [_mark(f"{name} upstream gradient", *look) for name, look in _UPSTREAMS.items()]
    if finite.lt(np.inf).sum().sum() < rows[list(columns)].notna().sum().sum():
        handles.append(_mark("not finite", GREY, "x"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def times_over_context(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Median times with quartiles over the context length, a panel per part, and least times as thin lines.

    Parameters
    ----------
    table
        of `companion.benchmarks.kernels.results.with_rooflines`, one set of heads.
    titles
        of the panels, by `part`.
    """
    parts = [part for part in titles if (table["part"] == part).any()]
    figure, axes = subplots(1, len(parts), height=4.6)
    looks = implementation_looks(list(dict.fromkeys(table["implementation"])))
    for ax, part in zip(axes, parts, strict=True):
        rows = table[table["part"] == part].sort_values("context_length")
        for name, look in looks.items():
            group = rows[rows["implementation"] == name]
            _with_quartiles(ax, group["context_length"], group, look, short_name(name))
        for computation, color in (("exponential", OURS_COLOR), ("attention", ATTENTION_COLOR)):
            least = rows[rows["computation"] == computation].groupby("context_length")["roofline_seconds"].min()
            ax.plot(least.index, 1e3 * least, color=color, linewidth=0.8, alpha=0.8)
        ax.set(xscale="log", yscale="log", title=titles[part], xlabel="context length T (tokens)")
        power_ticks(ax, rows["context_length"])
    axes[0].set_ylabel("time (ms)")
    handles, labels = axes[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=INK, linewidth=0.8, label="roofline"))
    figure.legend(handles, [*labels, "roofline"], loc="outside lower center", ncols=3)
    return figure


def step_times(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Median times of a step over the batch, a panel per way to launch, and least times as thin lines."""
    launches = [launch for launch in titles if (table["launch"] == launch).any()]
    figure, axes = subplots(1, len(launches), height=4.2, sharey=True)
    looks = implementation_looks(list(dict.fromkeys(table["implementation"])))
    for ax, launch in zip(axes, launches, strict=True):
        rows = table[table["launch"] == launch].sort_values("batch_size")
        for name, look in looks.items():
            group = rows[rows["implementation"] == name]
            _with_quartiles(ax, group["batch_size"], group, look, short_name(name))
        for state, group in rows.groupby("state_dtype", sort=False):
            least = group.groupby("batch_size")["roofline_seconds"].min()
            style = "-" if state == "float32" else "--"
            ax.plot(
                least.index, 1e3 * least, color=INK, linewidth=0.8, linestyle=style, label=f"roofline, {state} state"
            )
        ax.set(xscale="log", yscale="log", title=titles[launch], xlabel="batch B (sequences)")
        power_ticks(ax, rows["batch_size"])
    axes[0].set_ylabel("time of a step (ms)")
    found: dict[str, Any] = {}
    for ax in axes:
        found |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=2)
    return figure


def crossing_panels(tables: Mapping[str, pd.DataFrame], measured: Mapping[str, float]) -> Figure:
    """Attention beside our kernels over the context, per token; thick measured, thin least by roofline.

    Parameters
    ----------
    tables
        by title: `companion.benchmarks.kernels.results.Crossing.table` with times divided by the number of tokens.
    measured
        context of the crossing by title; no line where it is NaN.
    """
    figure, axes = subplots(1, len(tables), height=3.3)
    looks = {"attention": (ATTENTION_COLOR, "s", "attention"), "cell": (OURS_COLOR, "o", "mLSTM")}
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        for column, (color, marker, label) in looks.items():
            nanoseconds = 1e9 * table[column]
            ax.plot(table["context_length"], nanoseconds, color=color, marker=marker, markersize=4, label=label)
            ax.plot(
                table["context_length"], 1e9 * table[f"{column}_roofline"], color=color, linewidth=0.8, linestyle="--"
            )
        if np.isfinite(measured[title]):
            ax.axvline(measured[title], color=GREY, linewidth=1, linestyle=":")
        ax.set(xscale="log", yscale="log", title=title, xlabel="context length T (tokens)")
        power_ticks(ax, table["context_length"])
    axes[0].set_ylabel("time per token (ns)")
    handles, labels = axes[0].get_legend_handles_labels()
    handles += [Line2D([], [], color=INK, linewidth=0.8, linestyle="--"), Line2D([], [], color=GREY, linestyle=":")]
    figure.legend(handles, [*labels, "roofline", "crossing"], loc="outside lower center", ncols=4)
    return figure


def power_ticks(ax: Axes, values: Sequence[Any] | pd.Series) -> None:
    """Ticks at powers of two or four of a logarithmic axis: 16, 1k, 4k."""
    low, high = np.log2(min(values)), np.log2(max(values))
    step = 2 if high - low > 5 else 1
    ticks = [2**k for k in range(int(np.ceil(low)), int(np.floor(high)) + 1, step)]
    ax.set_xticks(ticks, [f"{t // 1024}k" if t >= 1024 else str(t) for t in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_minor_locator(LogLocator(subs=()))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _with_quartiles(ax: Axes, x: Any, group: pd.DataFrame, look: dict[str, Any], label: str) -> None:
    median, low, high = (
        1e3 * group[name].astype(float) for name in ("seconds_median", "seconds_quartile_1", "seconds_quartile_3")
    )
    spread = np.array([median - low, high - median])
    ax.plot(x, median, label=label, markersize=4.5, **look)
    ax.errorbar(x, median, yerr=spread, fmt="none", ecolor=look["color"], elinewidth=1.2)


def _mark(label: str, color: str, marker: str) -> Line2D:
    return Line2D([], [], color=color, marker=marker, linestyle="none", markersize=5, label=label)
