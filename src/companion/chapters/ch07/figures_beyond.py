"""Figures of the chapter on context length, beyond the contexts of the runs: `show_...` are what its page shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from companion.chapters.applicability import need
from companion.chapters.ch07.figures import GREY, context_ticks, handle
from companion.chapters.labels import OPTIMUM_LABELS
from companion.fitting.context.prediction import Explanation
from companion.fitting.context.scaling import ContextFit, ContextTrend
from companion.formatting import power_of_ten
from companion.plotting import Html, show
from companion.plotting.style import INK, LABELS, architecture_look, count_ticks, percent_ticks, subplots

BEYOND = "extrapolated"


def show_extrapolation(
    far: Mapping[str, pd.DataFrame],
    factors: pd.DataFrame | None,
    explanations: Mapping[str, Explanation],
    train_flops: float,
) -> Html:
    """N\\*, the core's share and compute at equal loss at one budget (FLOP), far beyond the contexts of the runs.

    Parameters
    ----------
    far
        by architecture: tables of `optimum_by_context`.
    factors
        from `equal_loss_by_context`, or None.
    """
    measured = {
        name: pd.DataFrame(
            [
                {"context_length": optimum.context_length, "x_opt": optimum.x_opt}
                for optimum in explanation.measured.optima
                if optimum.quantity == "num_params" and np.isclose(optimum.isoflop_budget, train_flops)
            ],
            columns=["context_length", "x_opt"],
        )
        for name, explanation in explanations.items()
    }
    budget = power_of_ten(train_flops)
    untrained = any(table["beyond_sizes"].any() for table in far.values())
    crosses = " Crosses: the optimum is smaller than any trained model." if untrained else ""
    right = "" if factors is None else f" Last panel: Transformer compute for the same loss as xLSTM at {budget} FLOP."
    return show(
        extrapolation(far, factors, measured),
        name="context-extrapolation",
        alt="Optimal size, share of attention and compute factor over contexts to a million tokens; hatched beyond "
        "the runs.",
        caption=f"Optima of the laws at {budget} FLOP, with 95 % intervals (shaded). Hatched, dashed: no run is that "
        f"long.{crosses}{right}",
    )


def size_trend(fit: ContextFit) -> ContextTrend:
    """The power law of N\\* over T at the largest budget that has one.

    Raises
    ------
    NotApplicable
        if no budget has one.
    """
    trends = [trend for trend in fit.trends if trend.quantity == "num_params"]
    need(trends, f"no budget of {fit.architecture} has optimal sizes at two contexts")
    return max(trends, key=lambda trend: trend.isoflop_budget)


def show_power_law_beyond(
    fits: Mapping[str, ContextFit], trends: Mapping[str, ContextTrend], laws: Mapping[str, pd.DataFrame]
) -> Html:
    """The power law through the optima of one budget, and the loss law, at the same contexts.

    Parameters
    ----------
    fits, trends
        by architecture; trends from `size_trend`.
    laws
        by architecture: tables of `optimum_by_context` at the budget of the trend.
    """
    measured = []
    for name, fit in fits.items():
        table = fit.optima_table().assign(architecture=name)
        at_budget = table["isoflop_budget"] == trends[name].isoflop_budget
        measured.append(table[at_budget & (table["quantity"] == "num_params")])
    lines = {
        name: _power_law_band(trend, laws[name]["context_length"].to_numpy(float)) for name, trend in trends.items()
    }
    return show(
        trend_beyond(laws, lines, pd.concat(measured)),
        name="context-power-law",
        alt="Two curves near the same optima that part beyond the data.",
        caption="A power law through the optima of the largest budget (dotted, with the 95 % band of drawn parabolas) "
        "and the loss law with exact accounting (solid). Both pass near the measured points and part far from them.",
    )


def _power_law_band(trend: ContextTrend, context_lengths: np.ndarray) -> pd.DataFrame:
    """N\\* of a trend at some contexts, and its 95 % band."""
    drawn = trend.prefactor_resamples[:, None] * context_lengths ** trend.exponent_resamples[:, None]
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    center = trend.power_law.law.predict(context_lengths)
    return pd.DataFrame({"context_length": context_lengths, "num_params": center, "low": low, "high": high})


def extrapolation(
    tables: Mapping[str, pd.DataFrame], factors: pd.DataFrame | None, measured: Mapping[str, pd.DataFrame]
) -> Figure:
    """N\\*, the core's share, and (where there are two architectures) compute at equal loss, far beyond the contexts.

    Solid lines with dark bands lie within the measured contexts; beyond, lines are dashed, bands light, and the ground
    is hatched. Crosses mark N\\* outside the sizes that were trained.

    Parameters
    ----------
    tables
        by architecture: tables of `optimum_by_context` at one budget.
    factors
        table of `equal_loss_by_context`, or None.
    measured
        by architecture: optima at that budget, columns context_length and x_opt.
    """
    figure, axes = subplots(1, 2 if factors is None else 3, height=3.9)
    for name, look in architecture_look(tables).items():
        for ax, column in zip(axes, ("num_params", "core_share"), strict=False):
            _inside_and_beyond(ax, tables[name], column, look["color"], "" if ax is axes[0] else look["marker"])
        points = measured[name]
        axes[0].plot(points["context_length"], points["x_opt"], look["marker"], color=look["color"], markersize=5)
        outside = tables[name][tables[name]["beyond_sizes"]]
        axes[0].plot(outside["context_length"], outside["num_params"], "x", color=INK, markersize=6)
    axes[0].set(yscale="log", ylabel=OPTIMUM_LABELS["num_params"])
    count_ticks(axes[0].yaxis)
    axes[1].set(ylabel="core's share of compute (%)", ylim=(0, 1))
    percent_ticks(axes[1].yaxis)
    if factors is not None:
        _inside_and_beyond(axes[2], factors, "factor", INK, "")
        axes[2].set(yscale="log", ylabel="compute factor at equal loss")
        axes[2].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[2].yaxis.set_minor_formatter(NullFormatter())
    table = next(iter(tables.values()))
    lengths = table["context_length"].to_numpy(dtype=float)
    for ax in axes:
        ax.set(xscale="log", xlabel="T (tokens)")
        context_ticks(ax.xaxis, [float(t) for t in lengths[:: max(1, len(lengths) // 3)]])
        known = lengths[~table["beyond_contexts"].to_numpy(dtype=bool)]
        if known.size and lengths[-1] > known[-1]:
            ax.axvspan(known[-1], lengths[-1], facecolor=GREY, alpha=0.12, linewidth=0)
            ax.axvspan(known[-1], lengths[-1], facecolor="none", edgecolor=GREY, hatch="//", alpha=0.45, linewidth=0)
            ax.axvline(known[-1], color=INK, linewidth=0.8)
    handles: list[Any] = [
        Line2D([], [], color=look["color"], marker=look["marker"], markersize=4, linewidth=1.4, label=look["label"])
        for look in architecture_look(tables).values()
    ]
    handles += [handle(BEYOND, dashes="--"), Patch(facecolor="none", edgecolor=GREY, hatch="//", label="no runs")]
    if any(table["beyond_sizes"].any() for table in tables.values()):
        handles.append(handle("smaller than any model", marker="x", color=INK))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.2)
    return figure


def trend_beyond(laws: Mapping[str, pd.DataFrame], trends: Mapping[str, pd.DataFrame], runs: pd.DataFrame) -> Figure:
    """Two curves through the same optima, carried far: the power law over T and the loss law with accounting.

    Parameters
    ----------
    laws
        by architecture: tables of `optimum_by_context`.
    trends
        by architecture: columns context_length, num_params, low, high of the power law.
    runs
        measured optima: columns architecture, context_length, x_opt.
    """
    figure, axes = subplots(1, len(laws), height=3.6, sharey=True)
    for ax, (name, look) in zip(axes, architecture_look(laws).items(), strict=True):
        trend, law, points = trends[name], laws[name], runs[runs["architecture"] == name]
        ax.fill_between(trend["context_length"], trend["low"], trend["high"], color=GREY, alpha=0.25, linewidth=0)
        ax.plot(trend["context_length"], trend["num_params"], ":", color=GREY)
        ax.plot(law["context_length"], law["num_params"], color=look["color"])
        ax.plot(points["context_length"], points["x_opt"], look["marker"], color=INK, markersize=5, linewidth=0)
        ax.set(xscale="log", yscale="log", xlabel=LABELS["context_length"], title=look["label"])
        lengths = law["context_length"].tolist()
        context_ticks(ax.xaxis, lengths[:: max(1, len(lengths) // 4)])
        count_ticks(ax.yaxis)
    axes[0].set_ylabel(OPTIMUM_LABELS["num_params"])
    handles = [
        handle("power law in T", dashes=":"),
        handle("loss law, exact accounting"),
        handle("measured", marker="o", color=INK),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _inside_and_beyond(ax: Axes, table: pd.DataFrame, column: str, color: str, marker: str) -> None:
    """A line with its band: solid and dark within the measured contexts, dashed and light beyond."""
    if marker:
        ax.plot(table["context_length"][::3], table[column][::3], marker, color=color, markersize=4)
    beyond = table["beyond_contexts"].to_numpy(dtype=bool)
    # the first row beyond joins on to the last one within, so that the line has no gap
    joined = beyond | np.append(beyond[1:], False) | np.insert(beyond[:-1], 0, False)
    for rows, dashes, alpha in ((table[~beyond], "-", 0.4), (table[joined], "--", 0.15)):
        ax.plot(rows["context_length"], rows[column], dashes, color=color, linewidth=1.4)
        ax.fill_between(
            rows["context_length"], rows[f"{column}_low"], rows[f"{column}_high"], color=color, alpha=alpha, linewidth=0
        )
