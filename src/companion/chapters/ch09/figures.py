"""Figures of the planning chapter."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from companion.formatting import count
from companion.planner.planning import COST_OPTIMAL, LOSS_OPTIMAL, Plan
from companion.plotting.style import INK, LABELS, architecture_look, count_ticks, subplots

GREY = "#888888"
HOURS_LABEL = "device time (GPU-hours)"
_DASHES: dict[str, Any] = {"train_gpu_hours": ":", "serve_gpu_hours": "--", "total_gpu_hours": "-"}
_PARTS = {"train_gpu_hours": "training", "serve_gpu_hours": "serving", "total_gpu_hours": "both"}
#: Multiples of powers of ten that get a tick where an axis spans about one decade.
_FINE_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def cost_curves(curves: Mapping[str, pd.DataFrame], plan: Plan) -> Figure:
    """Device time over size at the planned loss, a panel per architecture; planned models marked.

    Parameters
    ----------
    curves
        by architecture: `companion.planner.costs.cost_curve`. Sizes that do not fit are drawn faint.
    plan
        whose models are marked: diamond loss-optimal, circle cost-optimal.
    """
    figure, axes = subplots(1, len(curves), height=3.3, sharex=True, sharey=True)
    highest = 0.0
    for ax, (name, look) in zip(axes, architecture_look(curves).items(), strict=True):
        curve = curves[name]
        for part, dashes in _DASHES.items():
            fits = curve[part].where(curve["fits"])
            ax.plot(curve["num_params"], curve[part], dashes, color=look["color"], alpha=0.3, linewidth=1.2)
            ax.plot(curve["num_params"], fits, dashes, color=look["color"], linewidth=1.6)
        for model in plan.models:
            if model.architecture == name:
                marker = "D" if model.objective == LOSS_OPTIMAL else "o"
                hours = model.numbers["total_gpu_hours"]
                ax.plot(model.numbers["num_params"], hours, marker, color=INK, markersize=6)
                highest = max(highest, hours)
        ax.set(xscale="log", yscale="log", xlabel=LABELS["num_params"], title=look["label"])
    smallest = min(float(curve["num_params"].min()) for curve in curves.values())
    axes[0].set_xlim(smallest / 1.3, smallest * 40)
    low = min(float(curve["train_gpu_hours"].min()) for curve in curves.values())
    axes[0].set_ylim(low / 2, highest * 6)
    axes[0].set_ylabel(HOURS_LABEL)
    count_ticks(axes[0].xaxis)
    count_ticks(axes[0].yaxis, (1.0,))
    handles = [Line2D([], [], color=GREY, linestyle=dashes, label=_PARTS[part]) for part, dashes in _DASHES.items()]
    handles += [Line2D([], [], color=INK, marker="D", linewidth=0, label=LOSS_OPTIMAL)]
    handles += [Line2D([], [], color=INK, marker="o", linewidth=0, label=COST_OPTIMAL)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def traffic(table: pd.DataFrame, architectures: Sequence[str]) -> Figure:
    """Cost-optimal size and tokens per parameter over served tokens, with intervals; dotted: loss-optimal.

    Parameters
    ----------
    table
        `companion.planner.sweeps.sweep` over `served_tokens`.
    architectures
        in the order of the legend.
    """
    figure, (left, right) = subplots(1, 2, height=3.7)
    for name, look in architecture_look(architectures).items():
        rows = table[table["architecture"] == name]
        best, plain = (rows[rows["objective"] == objective] for objective in (COST_OPTIMAL, LOSS_OPTIMAL))
        for ax, quantity in ((left, "num_params"), (right, "tokens_per_param")):
            x, y = best["served_tokens"], best[quantity]
            ax.plot(x, y, color=look["color"], marker=look["marker"], markersize=4, label=look["label"])
            ax.fill_between(
                x, best[f"{quantity}_low"], best[f"{quantity}_high"], color=look["color"], alpha=0.2, linewidth=0
            )
            ax.plot(plain["served_tokens"], plain[quantity], ":", color=look["color"], linewidth=1.2)
    for ax, label in ((left, LABELS["num_params"]), (right, LABELS["tokens_per_param"])):
        ax.set(xscale="log", yscale="log", xlabel="tokens served over the model's life", ylabel=label)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value, 1)))
    count_ticks(left.yaxis, _FINE_STEPS)
    count_ticks(right.yaxis)
    left.legend()
    return figure


def cost_ratios(tables: Mapping[str, pd.DataFrame], label: str, by: str = "context_length") -> Figure:
    """Total device time of one architecture over the other's, and the same of both times, over a sweep of contexts.

    Parameters
    ----------
    tables
        by the words that name a kind of timing: `companion.planner.sweeps.cost_ratio`.
    label
        of the ratio, e.g. `Transformer over xLSTM`.
    by
        column of the sweep, in tokens.
    """
    figure, axes = subplots(1, 3, height=3.6)
    names = {"ratio": "total device time", "ttft_ratio": "time to first token", "step_time_ratio": "step time"}
    for ax, (column, title) in zip(axes, names.items(), strict=True):
        for (timing, table), look in zip(tables.items(), (("-", "o"), ("--", "s"), (":", "^")), strict=False):
            ax.plot(table[by], table[column], look[0], color=INK, marker=look[1], markersize=4, label=timing)
        ax.axhline(1, color=GREY, linewidth=0.8)
        ax.set(xscale="log", yscale="log", xlabel=LABELS.get(by, by), title=title)
        ax.set_xticks(sorted({float(value) for table in tables.values() for value in table[by]}))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1024:g}k"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        low, high = ax.get_ylim()
        count_ticks(ax.yaxis, _FINE_STEPS if high / low < 10 else (1.0, 2.0, 5.0))
    axes[0].set_ylabel(label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
