"""Figures of chapter 12, without their captions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from companion.plotting.style import (
    ARCHITECTURE_COLORS,
    INK,
    LABELS,
    architecture_look,
    count_ticks,
    panels,
    percent_ticks,
    subplots,
)
from companion.training.batch import StepTrend
from companion.training.batch_effects import OptimumShift
from companion.training.curves import FAMILY

GREY = "#888888"
STEPS_LABEL = "optimizer steps"
TRAIN_LABEL = "training loss (nats/token)"
#: Series that are not architectures: seaborn's colorblind palette, each with marker and dashes of its own.
COLORS = ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#ca9161", "#949494")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def batch_and_twins(pairs: pd.DataFrame | None, trend: StepTrend | None, twins: pd.DataFrame | None) -> Figure:
    """Loss differences of pairs over the steps, and the curves of two trainings of one configuration.

    Parameters
    ----------
    pairs
        from `companion.training.batch.pair_batches`; None leaves the panel out.
    trend
        a power law over the steps, drawn where it is given.
    twins
        the table of `companion.training.curve_faults.parting`; None leaves the panel out.
    """
    figure, axes = panels(int(pairs is not None) + int(twins is not None), height=3.5)
    rest = list(axes)
    if pairs is not None:
        _differences(rest.pop(0), pairs, trend)
    if twins is not None:
        ax = rest.pop(0)
        for name, color, dashes in (("first", COLORS[1], "--"), ("second", INK, "-")):
            label = {"first": "ends higher", "second": "ends lower"}[name]
            ax.plot(twins["step"], twins[name], color=color, linestyle=dashes, linewidth=1.3, label=label)
        ax.set(xscale="log", yscale="log", xlabel=STEPS_LABEL, ylabel=TRAIN_LABEL, title="one configuration, twice")
        _plain_ticks(ax)
        ax.legend()
    return figure


def _differences(ax: Axes, pairs: pd.DataFrame, trend: StepTrend | None) -> None:
    for name, look in architecture_look(pairs["architecture"].unique()).items():
        rows = pairs[pairs["architecture"] == name]
        for same, fill in ((True, look["color"]), (False, "none")):
            part = rows[rows["same_learning_rate"] == same]
            style = {"marker": look["marker"], "color": look["color"], "markerfacecolor": fill, "markersize": 5}
            label = "equal learning rates" if same else "different or unknown"
            if len(part):
                ax.plot(part["second_steps"], part["difference"], linewidth=0, label=label, **style)
    if trend is not None:
        steps = np.geomspace(pairs["second_steps"].min(), pairs["second_steps"].max(), 60)
        ax.plot(steps, trend.predict(steps), color=GREY, linestyle="--", linewidth=1.2, label="power law")
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set(xscale="log", xlabel="steps at the larger batch", ylabel="loss difference (nats/token)", title="batch size")
    count_ticks(ax.xaxis, (1.0, 2.0, 3.0, 5.0))
    ax.legend()


def _plain_ticks(ax: Axes) -> None:
    count_ticks(ax.xaxis, (1.0, 3.0))
    low, high = ax.get_ylim()
    ax.set_yticks([value for value in (1, 1.5, 2, 3, 4, 6, 8, 10) if low <= value <= high])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def two_profiles(shift: OptimumShift, batches: tuple[float, float], color: str) -> Figure:
    """The pairs as two IsoFLOP profiles with their parabolas; the lowest points are marked."""
    figure, [ax] = subplots(height=3.5)
    for profile, batch, look in zip((shift.first, shift.second), batches, (("o", "-"), ("^", "--")), strict=True):
        marker, dashes = look
        fill = color if marker == "o" else "none"
        ax.plot(profile.x, profile.loss, marker, color=color, markerfacecolor=fill, markersize=5)
        grid = np.geomspace(profile.x.min(), profile.x.max(), 100)
        assert profile.fit is not None
        ax.plot(grid, profile.fit.law.predict(grid), dashes, color=color, linewidth=1.2, label=f"batch {batch:g}")
        ax.plot(profile.x_opt, profile.loss_opt, "*", color=INK, markersize=11)
    ax.set(xscale="log", xlabel=LABELS["num_params"], ylabel=LABELS["val_loss"])
    count_ticks(ax.xaxis)
    ax.legend()
    return figure


def counted_optima(optima: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """N\\* of profiles cut by another count: measured with its interval, predicted, and what both counts in one expect.

    Parameters
    ----------
    optima
        from `companion.training.budgets.compare_optima`.
    labels
        of its rows.
    """
    figure, [ax] = subplots(height=1.5 + 0.55 * len(optima))
    places = np.arange(len(optima))[::-1]
    for place, row in zip(places, optima.to_dict("records"), strict=True):
        ax.plot([row["low"], row["high"]], [place, place], color=INK, linewidth=2)
        ax.plot(row["measured"], place, "o", color=INK, markersize=7)
        between = [row["predicted_low"], row["predicted_high"]]
        ax.plot(between, [place - 0.2] * 2, color=COLORS[0], linewidth=2)
        ax.plot(row["predicted"], place - 0.2, "D", color=COLORS[0], markersize=6)
        ax.plot(row["unaware"], place - 0.2, "X", color=COLORS[1], markersize=8)
    ax.set_yticks(places, labels)
    ax.grid(False, axis="y")
    ax.set(xscale="log", xlabel="optimal parameters N*", ylim=(-0.7, len(optima) - 0.4))
    count_ticks(ax.xaxis, (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0))
    marks = (
        ("o", INK, "measured"),
        ("D", COLORS[0], "predicted by recounting"),
        ("X", COLORS[1], "counts taken for one"),
    )
    handles = [Line2D([], [], marker=marker, color=color, linewidth=0, label=label) for marker, color, label in marks]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def errors_over_fraction(errors: pd.DataFrame, predictors: Mapping[str, str]) -> Figure:
    """Median and root mean square errors of predicted final losses over the fraction of the run.

    Parameters
    ----------
    errors
        from `companion.training.early_loss.rms_errors`.
    predictors
        labels by predictor, in the order of the legend; those without a fraction are horizontal lines.
    """
    figure, axes = subplots(1, 2, height=3.6, sharey=True)
    for ax, (column, title) in zip(
        axes, {"median_error": "median", "rms_error": "root mean square"}.items(), strict=True
    ):
        for number, (name, label) in enumerate(predictors.items()):
            rows = errors[errors["predictor"] == name].sort_values("fraction")
            look = {"color": COLORS[number], "linestyle": DASHES[number], "label": label}
            if rows["fraction"].isna().all():
                ax.axhline(rows[column].iloc[0], **look)
            else:
                ax.plot(rows["fraction"], rows[column], marker=MARKERS[number], markersize=4, **look)
        ax.set(yscale="log", xlabel="share of the run (%)", title=title)
        percent_ticks(ax.xaxis)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].set_ylabel("absolute error (nats/token)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def collapsed_curves(normalized: pd.DataFrame, logs: pd.DataFrame, titles: Mapping[tuple[Any, ...], str]) -> Figure:
    """Normalized curves over the share of the run, a panel per family, color and dashes by learning rate.

    Parameters
    ----------
    normalized
        from `companion.training.collapse.normalized_curves`; every fourth fraction is drawn, back from the end.
    logs
        of these runs, with `learning_rate`.
    titles
        by family.
    """
    # three of four panels in a row would leave the last one alone
    figure, axes = subplots(2, 2, height=5.4, sharey=True) if len(titles) == 4 else panels(len(titles), sharey=True)
    rates = logs.set_index("run")["learning_rate"]
    known = sorted(rates.dropna().unique())
    drawn = normalized.iloc[:, ::-4]
    members = dict(list(logs.groupby(list(FAMILY))["run"]))
    for ax, (family, title) in zip(axes, titles.items(), strict=True):
        for run in members[family]:
            number = known.index(rates[run]) % len(COLORS) if rates[run] in known else len(COLORS) - 1
            look = {"color": COLORS[number], "linestyle": DASHES[number]}
            ax.plot(drawn.columns, drawn.loc[run], linewidth=0.7, alpha=0.7, **look)
        ax.set(xlim=(0.3, 1), ylim=(0.95, 2.2), xlabel="share of the run (%)", title=title)
        ax.set_ylabel("normalized loss")
        ax.label_outer(remove_inner_ticks=True)
        percent_ticks(ax.xaxis)
    looks = [(COLORS[number % len(COLORS)], DASHES[number % len(DASHES)]) for number in range(len(known))]
    handles = [
        Line2D([], [], color=color, linestyle=dashes, label=f"{rate:g}")
        for (color, dashes), rate in zip(looks, known, strict=True)
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, title="peak learning rate")
    return figure


def spike_places(found: pd.DataFrame, logs: pd.DataFrame) -> Figure:
    """Jump of every spike over its step, by architecture."""
    figure, [ax] = subplots(height=3.2)
    each = found.merge(logs[["run", "architecture"]], on="run")
    for name, look in architecture_look(sorted(each["architecture"].unique())).items():
        rows = each[each["architecture"] == name]
        style = {"marker": look["marker"], "color": look["color"], "markersize": 5}
        ax.plot(rows["step"], rows["jump"], linewidth=0, label=look["label"], **style)
    ax.set(xscale="log", yscale="log", xlabel=STEPS_LABEL, ylabel="jump (nats/token)")
    count_ticks(ax.xaxis)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.legend()
    return figure


def bands(tables: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """Training loss of runs that failed, and the band of their siblings, a panel per run.

    Parameters
    ----------
    tables
        by run, from `companion.training.curve_faults.left_band`.
    titles
        by run.
    """
    figure, axes = panels(len(tables), height=3.2)
    for ax, (run, table) in zip(axes, tables.items(), strict=True):
        ax.fill_between(table["step"], table["median"] ** 2 / table["upper"], table["upper"], color=GREY, alpha=0.3)
        ax.plot(table["step"], table["median"], color=GREY, linewidth=1)
        ax.plot(table["step"], table["train_loss"], color=COLORS[1], linewidth=1.3)
        ax.set(xscale="log", yscale="log", xlabel=STEPS_LABEL, title=titles[run])
        _plain_ticks(ax)
    for ax in axes[::3]:  # the first of every row
        ax.set_ylabel(TRAIN_LABEL)
    return figure


def pair_color(pairs: pd.DataFrame) -> str:
    """The color of the architecture of the pairs."""
    return ARCHITECTURE_COLORS.get(str(pairs["architecture"].iloc[0]), COLORS[0])
