"""Figures of the chapter on context length, within the contexts of the runs: `show_...` are what its page shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from companion.chapters.ch07.words import context_label
from companion.chapters.labels import OPTIMUM_LABELS
from companion.fitting.context.prediction import NOTHING_MOVES, SAME_RUNS
from companion.fitting.context.scaling import ContextFit
from companion.formatting import power_of_ten
from companion.plotting import Html, show
from companion.plotting.style import INK, LABELS, architecture_look, count_ticks, percent_ticks, subplots

GREY = "#888888"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")


def show_profiles(fits: Mapping[str, ContextFit]) -> Html:
    """Loss over N with a parabola per budget and context; fits by architecture."""
    return show(
        context_profiles(fits),
        name="context-profiles",
        alt="Loss over parameters with a parabola per budget and context; Transformer valleys move up and left with "
        "the context.",
        caption="One parabola per budget and context. Where a longer context has its valley further left and higher, "
        "the same compute has a smaller best model and a higher best loss.",
    )


def show_shares(shares: Mapping[str, pd.DataFrame], curves: Mapping[str, Mapping[float, pd.DataFrame]]) -> Html:
    """Share of the mixer at the measured optima, and along the law at the middle budget.

    Parameters
    ----------
    shares
        by architecture: tables of `shares_at_optima`.
    curves
        by architecture and budget: tables of `optimum_by_context`.
    """
    budgets = sorted({budget for tables in curves.values() for budget in tables})
    middle = budgets[len(budgets) // 2]
    lines = {name: tables.get(middle, next(iter(tables.values()))) for name, tables in curves.items()}
    return show(
        shares_over_context(shares, lines),
        name="context-shares",
        alt="Share of the mixer in training compute over the context: rising steeply for the Transformer, flat for "
        "xLSTM.",
        caption="Share of training compute at the optimum: measured (markers) and by the law at "
        f"{power_of_ten(middle)} FLOP (lines). Small models spend more of their compute on attention than large ones.",
    )


def show_predictions(levels: Mapping[str, pd.DataFrame], curves: Mapping[str, Mapping[float, pd.DataFrame]]) -> Html:
    """Measured and predicted optima over the context; arguments as for `optima_over_context`."""
    return show(
        optima_over_context(levels, SAME_RUNS, curves),
        name="context-optima",
        alt="Optimal parameters above and tokens below over the context: falling for the Transformer, nearly flat for "
        "xLSTM.",
        caption="Measured optima (filled) and the law's predictions for the same runs (hollow), with 95 % intervals. "
        "Dashed: the exact optimum of the law. The distance of a hollow marker from the dashed line is the bias of the "
        "parabola.",
    )


def show_shift_test(shifts: Mapping[str, pd.DataFrame], pooled: Mapping[str, pd.DataFrame]) -> Html:
    """Measured over predicted shifts; by architecture tables of `Explanation.shifts` and `pooled_shifts`."""
    return show(
        shift_test(shifts, pooled, {SAME_RUNS: "law and accounting", NOTHING_MOVES: "nothing moves"}),
        name="context-shifts",
        alt="Ratios of measured to predicted shift with intervals: near 1 for the Transformer with accounting, off "
        "without.",
        caption="Measured over predicted shift of N*, with 95 % intervals; thick: the mean over the budgets. An "
        "interval that includes 1 means: explained. Gray squares: the same if the context changed no price.",
    )


def context_profiles(fits: Mapping[str, ContextFit], quantity: str = "num_params") -> Figure:
    """Loss over x with one parabola per budget and context length, a panel per architecture.

    Parameters
    ----------
    fits
        by architecture.
    quantity
        `num_params` or `num_tokens`.
    """
    figure, axes = subplots(1, len(fits), height=4.4, sharey=True)
    lengths = sorted({length for fit in fits.values() for length in fit.context_lengths})
    markers = dict(zip(lengths, _cycled(MARKERS, len(lengths)), strict=True))
    dashes = dict(zip(lengths, _cycled(DASHES, len(lengths)), strict=True))
    for ax, (name, look) in zip(axes, architecture_look(fits).items(), strict=True):
        for optimum in (each for each in fits[name].optima if each.quantity == quantity):
            profile, length = optimum.profile, optimum.context_length
            ax.plot(
                profile.x, profile.loss, markers[length], color=look["color"], markersize=3, alpha=0.35, linewidth=0
            )
            if profile.fit is None or not profile.has_optimum:
                continue
            grid = np.geomspace(profile.x.min(), profile.x.max(), 80)
            ax.plot(grid, profile.fit.law.predict(grid), color=look["color"], linestyle=dashes[length], linewidth=1.2)
            ax.plot(optimum.x_opt, optimum.loss_opt, markers[length], color=INK, markersize=5)
        ax.set(xscale="log", xlabel=LABELS[quantity], title=look["label"])
        count_ticks(ax.xaxis)
    axes[0].set_ylabel(LABELS["val_loss"])
    handles = [
        Line2D(
            [], [], color=GREY, marker=markers[length], linestyle=dashes[length], markersize=5, label=f"T = {length}"
        )
        for length in lengths
    ]
    handles.append(Line2D([], [], color=INK, marker="o", linewidth=0, markersize=5, label="optimum"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def optima_over_context(
    levels: Mapping[str, pd.DataFrame], method: str, curves: Mapping[str, Mapping[float, pd.DataFrame]]
) -> Figure:
    """Measured optima and what a law of one context says, over T: N\\* above, D\\* below, a panel per architecture.

    Parameters
    ----------
    levels
        by architecture: `Explanation.levels`.
    method
        whose predictions are the hollow markers.
    curves
        by architecture and budget: tables of `optimum_by_context`, drawn as dashed lines.
    """
    figure, axes = subplots(2, len(levels), height=6.0, sharex=True, sharey="row")
    budgets = sorted({budget for table in levels.values() for budget in table["isoflop_budget"]})
    markers = dict(zip(budgets, _cycled(MARKERS, len(budgets)), strict=True))
    for column, (name, look) in enumerate(architecture_look(levels).items()):
        table = levels[name][levels[name]["method"] == method]
        for row, quantity in enumerate(OPTIMUM_LABELS):
            ax = axes[row * len(levels) + column]
            for budget, group in table[table["quantity"] == quantity].groupby("isoflop_budget"):
                marker = markers[float(str(budget))]
                _bars(ax, group, "measured", shift=1 / 1.04, color=look["color"], marker=marker, filled=True)
                _bars(ax, group, "predicted", shift=1.04, color=GREY, marker=marker, filled=False)
            for curve in curves.get(name, {}).values():
                ax.plot(curve["context_length"], curve[quantity], "--", color=GREY, linewidth=1)
            ax.set(xscale="log", yscale="log")
            count_ticks(ax.yaxis)
            ax.set_ylabel(OPTIMUM_LABELS[quantity] if column == 0 else "")
        axes[column].set_title(look["label"])
        bottom = axes[len(levels) + column]
        bottom.set_xlabel(LABELS["context_length"])
        context_ticks(bottom.xaxis, sorted(levels[name]["context_length"].unique()))
    handles = [handle(f"{power_of_ten(budget)} FLOP", marker=marker) for budget, marker in markers.items()]
    handles += [
        handle("measured", marker="o", color=INK),
        handle("law, same runs", marker="o", filled=False),
        handle("law, exact", dashes="--"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(budgets) if len(budgets) > 3 else 3)
    return figure


def shares_over_context(measured: Mapping[str, pd.DataFrame], curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of the mixer in C at the optimum: core alone on the left, with projections and gate on the right.

    Parameters
    ----------
    measured
        by architecture: tables of `shares_at_optima`.
    curves
        by architecture: a table of `optimum_by_context`.
    """
    figure, axes = subplots(1, 2, height=3.7, sharey=True)
    budgets = sorted({budget for table in measured.values() for budget in table["isoflop_budget"]})
    markers = dict(zip(budgets, _cycled(MARKERS, len(budgets)), strict=True))
    lines = dict(zip(measured, _cycled(DASHES, len(measured)), strict=True))
    titles = {"core_share": "mixer core", "mixer_share": "core, projections, output gate"}
    lengths: list[float] = sorted({length for table in measured.values() for length in table["context_length"]})
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for name, look in architecture_look(measured).items():
            for budget, group in measured[name].groupby("isoflop_budget"):
                ax.plot(
                    group["context_length"], group[column], markers[float(str(budget))], color=look["color"],
                    markersize=5, linewidth=0,
                )  # fmt: skip
            curve = curves[name]
            ax.plot(curve["context_length"], curve[column], lines[name], color=look["color"], linewidth=1.2)
        ax.set(xscale="log", xlabel=LABELS["context_length"], title=title)
        percent_ticks(ax.yaxis)
        context_ticks(ax.xaxis, lengths)
    axes[0].set(ylabel="share of training compute (%)", ylim=(0, None))
    looks = architecture_look(measured).items()
    handles = [handle(look["label"], dashes=lines[name], color=look["color"]) for name, look in looks]
    handles += [handle(f"{power_of_ten(budget)} FLOP", marker=marker) for budget, marker in markers.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def shift_test(
    single: Mapping[str, pd.DataFrame], pooled: Mapping[str, pd.DataFrame], methods: Mapping[str, str]
) -> Figure:
    """Measured over predicted shift of N\\*, a row per context and budget, a panel per architecture; 1 is agreement.

    Parameters
    ----------
    single, pooled
        by architecture: `Explanation.shifts` and `Explanation.pooled_shifts`; pooled rows are drawn thick.
    methods
        the methods to draw, and how the legend calls them.
    """
    figure, axes = subplots(1, len(single), height=4.6, sharey=True, sharex=True)
    rows: list[tuple[float, float | None]] = []
    every = pd.concat(single.values())
    for length in sorted(every["context_length"].unique()):
        budgets = sorted(every.loc[every["context_length"] == length, "isoflop_budget"].unique())
        rows += [(length, budget) for budget in budgets] + [(length, None)]
    offsets = np.linspace(-0.22, 0.22, len(methods)) if len(methods) > 1 else np.zeros(1)
    for ax, (name, look) in zip(axes, architecture_look(single).items(), strict=True):
        for index, (length, budget) in enumerate(rows):
            table = pooled[name] if budget is None else single[name][single[name]["isoflop_budget"] == budget]
            table = table[(table["context_length"] == length) & (table["quantity"] == "num_params")]
            for at, (method, offset) in enumerate(zip(methods, offsets, strict=True)):
                for row in table[table["method"] == method].to_dict("records"):
                    color, width = (look["color"], 3.0) if at == 0 else (GREY, 2.0)
                    ax.plot(
                        [row["ratio_low"], row["ratio_high"]], [index + offset] * 2, color=color,
                        linewidth=width if budget is None else 1.1,
                    )  # fmt: skip
                    ax.plot(row["ratio"], index + offset, MARKERS[at], color=color, markersize=5)
        ax.axvline(1.0, color=INK, linewidth=0.9)
        ax.set(title=look["label"], xlabel="measured / predicted shift", ylim=(len(rows) - 0.5, -0.5))
        ax.grid(False, axis="y")
    axes[0].set_yticks(
        range(len(rows)),
        [f"T = {context_label(t)}, {'all budgets' if b is None else power_of_ten(b)}" for t, b in rows],
    )
    handles = [
        handle(label, marker=MARKERS[at], color=INK if at == 0 else GREY) for at, label in enumerate(methods.values())
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _bars(ax: Axes, rows: pd.DataFrame, name: str, *, shift: float, color: str, marker: str, filled: bool) -> None:
    values = rows[name]
    errors = np.nan_to_num(np.stack([values - rows[f"{name}_low"], rows[f"{name}_high"] - values]))
    ax.errorbar(
        rows["context_length"] * shift, values, yerr=np.maximum(errors, 0), color=color, marker=marker, markersize=5,
        markerfacecolor=color if filled else "none", linewidth=0, elinewidth=1.2,
    )  # fmt: skip


def handle(label: str, *, marker: str = "", dashes: Any = "-", color: str = GREY, filled: bool = True) -> Line2D:
    return Line2D(
        [], [], color=color, marker=marker or None, linestyle=dashes, linewidth=0 if marker else 1.4, markersize=5,
        markerfacecolor=color if filled else "none", label=label,
    )  # fmt: skip


def _cycled(values: Sequence[Any], number: int) -> list[Any]:
    return [values[i % len(values)] for i in range(number)]


def context_ticks(axis: Axis, lengths: Sequence[float]) -> None:
    axis.set_major_locator(FixedLocator(list(lengths)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: context_label(round(value))))
    axis.set_minor_locator(NullLocator())
