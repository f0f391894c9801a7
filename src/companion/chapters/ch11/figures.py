"""Figures of chapter 11."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from companion.chapters.ch11.shown import Costs
from companion.numeric import Array
from companion.plotting.style import INK, LABELS, architecture_look, count_ticks, panels, percent_ticks, subplots
from companion.training.measured import MeasuredUtilization

HOURS_LABEL = "GPU-hours of training"
GREY = "#888888"


def fronts(costs: Costs, bands: pd.DataFrame) -> Figure:
    """Loss over GPU-hours: runs, hulls of the fronts, and bands of the law.

    Parameters
    ----------
    bands
        of `companion.training.front_bands`; empty where no architecture has a law.
    """
    figure, (ax,) = subplots(height=4.0)
    for name, look in architecture_look(sorted(costs.fronts)).items():
        runs, hull = costs.runs[name], costs.fronts[name].hull()
        ax.plot(
            runs["gpu_hours"], runs["val_loss"], look["marker"], color=look["color"], markersize=3.5, alpha=0.4,
            markeredgewidth=0,
        )  # fmt: skip
        ax.plot(hull.cost, hull.loss, color=look["color"], marker=look["marker"], markersize=5, label=look["label"])
        part = bands[bands["architecture"] == name] if len(bands) else bands
        if len(part):
            ax.fill_betweenx(
                part["loss"], part["gpu_hours_low"], part["gpu_hours_high"], color=look["color"], alpha=0.25,
                linewidth=0,
            )  # fmt: skip
    ax.axhline(costs.loss, color=INK, linewidth=0.8, linestyle=":")
    ax.set_ylim(*front_window(costs))
    ax.set(xscale="log", xlabel=HOURS_LABEL, ylabel=LABELS["val_loss"])
    count_ticks(ax.xaxis)
    ax.legend()
    return figure


def front_window(costs: Costs) -> tuple[float, float]:
    """Losses that the figure of the fronts shows: those of the fronts, and a little more."""
    top = max(float(front.loss[0]) for front in costs.fronts.values())
    low = min(float(front.loss[-1]) for front in costs.fronts.values())
    height = (top - low) or 0.1  # fronts of one run each
    return low - 0.05 * height, top + 0.1 * height


def utilization(logs: pd.DataFrame, measured: MeasuredUtilization | None) -> Figure:
    """Utilization over size, a panel for every context length: runs, and the fitted curve with the band of a new run.

    Parameters
    ----------
    logs
        finished runs with throughput.
    measured
        curves of the same runs; None where they are too few.
    """
    lengths = sorted(logs["context_length"].unique())
    figure, axes = panels(len(lengths), height=3.4, sharex=True, sharey=True)
    looks = architecture_look(sorted(logs["architecture"].unique()))
    for ax, length in zip(axes, lengths, strict=True):
        for name, look in looks.items():
            rows = logs[(logs["architecture"] == name) & (logs["context_length"] == length)]
            if rows.empty:
                continue
            ax.plot(
                rows["num_params"], rows["utilization"], look["marker"], color=look["color"], markersize=3,
                alpha=0.4, markeredgewidth=0,
            )  # fmt: skip
            if measured is not None and name in measured.curves and length in measured.context_lengths(name):
                size = np.geomspace(rows["num_params"].min(), rows["num_params"].max(), 60)
                curve = measured.at(name, size, float(length))
                ax.plot(size, curve.value, color=look["color"])
                ax.fill_between(size, curve.low, curve.high, color=look["color"], alpha=0.15, linewidth=0)
        ax.set(xscale="log", xlabel=LABELS["num_params"], title=f"T = {length}")
        count_ticks(ax.xaxis, (1.0,))
    axes[0].set_ylabel("utilization (%)")
    axes[0].set_ylim(bottom=0)
    percent_ticks(axes[0].yaxis)
    for look in looks.values():
        axes[0].plot([], [], look["marker"], color=look["color"], linestyle="-", label=look["label"])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=max(len(looks), 1))
    return figure


def widths(split: pd.DataFrame, ridge_width: float) -> Figure:
    """Utilization over the width of the models: whole steps and layers alone.

    Parameters
    ----------
    split
        of `companion.chapters.ch11.layers.layer_split`.
    ridge_width
        d at which a product of many rows with a d × d matrix leaves the memory's side of the roofline.
    """
    figure, (ax,) = subplots(height=3.4)
    top = float(split[["utilization", "layer_utilization"]].to_numpy(float).max()) * 1.12
    for name, look in architecture_look(sorted(split["architecture"].unique())).items():
        rows = split[split["architecture"] == name]
        ax.plot(rows["d_model"], rows["layer_utilization"], color=look["color"], marker=look["marker"], markersize=5,
                label=f"{look['label']}, layers alone")  # fmt: skip
        ax.plot(rows["d_model"], rows["utilization"], "--", color=look["color"], label=f"{look['label']}, whole steps")
    ax.axvspan(0, ridge_width, color=GREY, alpha=0.15, linewidth=0)
    ends = float(split["d_model"].min()), float(split["d_model"].max())
    ax.set(xlabel="width of the model d", ylabel="utilization (%)", ylim=(0, top))
    ax.set_xlim(min(ends[0], ridge_width) * 0.9, max(ends[1], ridge_width) * 1.03)
    percent_ticks(ax.yaxis)
    ax.legend(loc="lower right")
    return figure


def sizes(tables: Mapping[str, pd.DataFrame], best: pd.DataFrame) -> Figure:
    """GPU-hours to one loss over the size of the model.

    Parameters
    ----------
    tables
        of `companion.chapters.ch11.compared.hours_over_size`.
    best
        of `LawFront.size_shift` with `architecture`, at that loss.
    """
    figure, (ax,) = subplots(height=3.4)
    for name, look in architecture_look(sorted(tables)).items():
        smooth, trained = (tables[name][tables[name]["trained"] == each] for each in (False, True))
        ax.plot(smooth["num_params"], smooth["gpu_hours"], color=look["color"], label=look["label"])
        ax.plot(
            trained["num_params"], trained["gpu_hours"], look["marker"], color=look["color"], markersize=3.5, alpha=0.5,
            markeredgewidth=0,
        )  # fmt: skip
        for row in best[best["architecture"] == name].to_dict("records"):
            for column, marker, face in (("flops_optimal", "v", "none"), ("hours_optimal", "v", look["color"])):
                hours = np.interp(np.log(row[column]), np.log(smooth["num_params"]), smooth["gpu_hours"])
                ax.plot(row[column], hours * 1.09, marker, color=look["color"], markerfacecolor=face, markersize=8)
    ax.plot([], [], "v", color=INK, markerfacecolor="none", label="fewest FLOPs")
    ax.plot([], [], "v", color=INK, label="fewest GPU-hours")
    ax.set(xscale="log", yscale="log", xlabel=LABELS["num_params"], ylabel=HOURS_LABEL)
    hours = pd.concat(tables.values())["gpu_hours"]
    ax.set_ylim(hours.min() * 0.85, hours.max() * 1.5)  # with room for the legend
    count_ticks(ax.xaxis)
    count_ticks(ax.yaxis)
    ax.legend(ncols=2, loc="upper right")
    return figure


def factors(table: pd.DataFrame, words: Mapping[str, str], ratio: str) -> Figure:
    """The factors of the decomposition with their intervals, on a logarithmic axis.

    Parameters
    ----------
    table
        of `companion.training.decomposition`.
    words
        by `quantity`: what a row is called.
    ratio
        what the factors are of: `Transformer over xLSTM`.
    """
    figure, (ax,) = subplots(height=2.9)
    rows = table.iloc[::-1].reset_index(drop=True)
    for at, row in enumerate(rows.to_dict("records")):
        whole = row["quantity"] in ("train_flops", "gpu_hours")
        ax.plot([row["low"], row["high"]], [at, at], color=INK, linewidth=2.2)
        ax.plot(row["factor"], at, "D" if whole else "o", color=INK, markersize=7 if whole else 6)
        ax.annotate(
            f"{row['factor']:.2f}", (row["factor"], at), xytext=(0, 7), textcoords="offset points", ha="center",
            fontsize=9,
        )  # fmt: skip
    ax.axvline(1, color=GREY, linewidth=0.8)
    ax.set(xscale="log", xlabel=ratio, ylim=(-0.6, len(rows) - 0.3))
    ax.set_yticks(range(len(rows)), [words[str(name)] for name in rows["quantity"]])
    high = float(np.nanmax(rows[["factor", "high"]].to_numpy(float)))
    low = float(np.nanmin(rows[["factor", "low"]].to_numpy(float)))
    ticks = [
        tick for tick in (0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if low / 1.3 <= tick <= high * 1.3
    ]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticklabels([f"{tick:g}" for tick in ticks])
    return figure


def ratio_over_loss(readings: pd.DataFrame, common: Array, ratio: str) -> Figure:
    """The ratio of GPU-hours over the loss, read off the hulls and by the laws.

    Parameters
    ----------
    readings
        of `companion.chapters.ch11.compared.ratio_readings`.
    common
        losses that the runs of both architectures were made for; shaded.
    """
    figure, (ax,) = subplots(height=3.3)
    ax.axvspan(common[0], common[-1], color=GREY, alpha=0.15, linewidth=0)
    ax.plot(readings["loss"], readings["hulls"], "--", color=INK, label="hulls of the runs")
    inside = readings[readings["loss"].between(common[0], common[-1])]
    ax.plot(inside["loss"], inside["laws"], color=INK, linewidth=2.2, label="laws")
    ax.set(xlabel=LABELS["val_loss"], ylabel=ratio)
    ax.set_ylim(bottom=0)
    ax.axhline(1, color=GREY, linewidth=0.8)
    ax.legend(loc="lower left")
    return figure
