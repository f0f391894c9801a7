"""Figures of chapter 5, without their captions."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from companion.fitting.overtraining.exponents import OvertrainingSlopes
from companion.formatting import count, level_text
from companion.plotting.style import INK, LABELS, architecture_look, panels, percent_ticks, subplots

GREY = "#888888"
RATIO_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
RATIO_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (7, 2)), (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
ETA = "exponent η"


def ratio_looks(slopes: Mapping[str, OvertrainingSlopes], hollow: bool = True) -> dict[float, dict[str, Any]]:
    """Marker and dashes of every ratio of tokens to parameters, distinguishable without colors.

    With `hollow` every second marker is hollow, so that markers on top of each other can be distinguished.
    """
    ratios = sorted({ratio for fits in slopes.values() for ratio in fits.laws})
    looks = zip(cycle(RATIO_MARKERS), cycle(RATIO_DASHES), cycle((True, not hollow)), strict=False)
    return {
        ratio: {"marker": marker, "dashes": dashes, "filled": filled}
        for ratio, (marker, dashes, filled) in zip(ratios, looks, strict=False)
    }


def overtraining_lines(slopes: Mapping[str, OvertrainingSlopes], spare: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss over compute in log-log axes, a line per ratio of tokens to parameters, a panel per architecture.

    Parameters
    ----------
    slopes
        by architecture; their runs are the filled markers.
    spare
        by architecture: further runs (columns train_flops, val_loss) that no line uses, as crosses.
    """
    figure, axes = panels(len(slopes), height=3.9, sharey=True)
    looks = ratio_looks(slopes)
    for ax, (name, look) in zip(axes, architecture_look(slopes).items(), strict=True):
        fits = slopes[name]
        for ratio, fit in fits.laws.items():
            runs = fits.data[fits.data["tokens_per_param"] == ratio]
            grid = np.geomspace(runs["train_flops"].min() / 1.3, runs["train_flops"].max() * 1.3, 2)
            _line(ax, grid, fit.law.predict(grid), looks[ratio], look["color"])
            _runs(ax, runs["train_flops"], runs["val_loss"], looks[ratio], look["color"])
        others = spare.get(name)
        if others is not None and len(others):
            ax.plot(others["train_flops"], others["val_loss"], "x", color=GREY, markersize=5)
        ax.set(xscale="log", yscale="log", xlabel=LABELS["train_flops"], title=look["label"])
        ax.yaxis.set_major_locator(FixedLocator(_loss_ticks(pd.concat([f.data for f in slopes.values()])["val_loss"])))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].set_ylabel(LABELS["val_loss"])
    handles = _ratio_handles(looks)
    if any(len(others) for others in spare.values()):
        handles.append(_handle("in no line", marker="x"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def tilted_lines(slopes: Mapping[str, OvertrainingSlopes]) -> Figure:
    """Loss over the power law with the common exponent of all ratios: a line with that exponent is level.

    The power law passes through the runs of the smallest ratio.
    """
    figure, axes = panels(len(slopes), height=3.9, sharey=True)
    looks = ratio_looks(slopes)
    for ax, (name, look) in zip(axes, architecture_look(slopes).items(), strict=True):
        fits = slopes[name]
        lowest = fits.data[fits.data["tokens_per_param"] == min(fits.laws)]
        height = np.exp(np.mean(np.log(lowest["val_loss"]) + fits.common_eta * np.log(lowest["train_flops"])))
        for ratio, fit in fits.laws.items():
            runs = fits.data[fits.data["tokens_per_param"] == ratio]
            ends = np.array([runs["train_flops"].min(), runs["train_flops"].max()])
            for draw, flops, loss in (
                (_line, ends, fit.law.predict(ends)),
                (_runs, runs["train_flops"], runs["val_loss"]),
            ):
                draw(ax, flops, loss * flops**fits.common_eta / height - 1, looks[ratio], look["color"])
        ax.set(xscale="log", xlabel=LABELS["train_flops"], title=look["label"])
        percent_ticks(ax.yaxis)
    axes[0].set_ylabel("loss over the common power law (%)")
    figure.legend(handles=_ratio_handles(looks), loc="outside lower center", ncols=4)
    return figure


def slopes_by_ratio(
    slopes: Mapping[str, OvertrainingSlopes],
    published: Mapping[str, Mapping[float, float]],
    implied: Mapping[str, OvertrainingSlopes],
    level: float = 0.95,
) -> Figure:
    """eta of every ratio: thick bar one standard error, thin bar Student's interval; band: the common slope.

    Parameters
    ----------
    slopes
        by architecture.
    published
        by architecture and ratio: printed values, as hollow diamonds.
    implied
        by architecture: the straight lines through a parametric law's losses of the same runs, as a dashed line.
    level
        of the thin bars and the band.
    """
    figure, axes = panels(len(slopes), height=3.9, sharey=True)
    for ax, (name, look) in zip(axes, architecture_look(slopes).items(), strict=True):
        fits, color = slopes[name], look["color"]
        ratios = np.array(list(fits.laws))
        half = 2 * fits.common_eta_standard_error
        ax.axhspan(fits.common_eta - half, fits.common_eta + half, color=color, alpha=0.15, linewidth=0)
        ax.axhline(fits.common_eta, color=color, linewidth=1)
        if name in implied:
            values = implied[name].table()
            ax.plot(values["tokens_per_param"], values["eta"], "--", color=GREY)
        for ratio, fit in fits.laws.items():
            eta, error = -fit.law.exponent, fit.exponent_standard_error
            low, high = fit.interval("exponent", level)
            ax.plot([ratio, ratio], [-high, -low], color=color, linewidth=1)
            ax.plot([ratio, ratio], [eta - error, eta + error], color=color, linewidth=4, alpha=0.5)
            ax.plot(ratio, eta, look["marker"], color=color, markersize=5)
        printed = published.get(name, {})
        ax.plot(
            [ratio * 1.13 for ratio in printed], list(printed.values()), "D", color=INK, markerfacecolor="none",
            markersize=5,
        )  # fmt: skip
        ax.set(xscale="log", xlabel=LABELS["tokens_per_param"], title=look["label"])
        ax.set_xlim(ratios.min() / 1.6, ratios.max() * 1.8)
        _ratio_ticks(ax.xaxis, ratios)
    axes[0].set_ylabel(ETA)
    handles = [
        _handle("η ± standard error", marker="o", width=4, alpha=0.5),
        _handle(f"{level_text(level)} interval", width=1, color=GREY),
        Line2D(
            [],
            [],
            color=INK,
            marker="D",
            markerfacecolor="none",
            linewidth=0,
            markersize=5,
            label="published",
        ),
        _handle("lines through the law", dashes="--"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def bending_lines(
    slopes: Mapping[str, OvertrainingSlopes],
    curves: Mapping[str, pd.DataFrame],
    level: float = 0.95,
) -> Figure:
    """The local exponent of a law over compute; marks: the exponents of the straight lines of the same ratios.

    Parameters
    ----------
    slopes
        by architecture: a straight line is drawn over the compute that its runs span, with its standard error.
    curves
        by architecture: columns tokens_per_param, train_flops, eta, low, high (the law's local exponent and interval;
        the interval is drawn for the smallest ratio). Only lines of these ratios are drawn.
    level
        of `low` and `high`, for the legend.
    """
    figure, axes = panels(len(slopes), height=3.9, sharey=True)
    looks = ratio_looks(slopes, hollow=False)
    ratios = sorted({float(ratio) for table in curves.values() for ratio in table["tokens_per_param"]})
    for ax, (name, look) in zip(axes, architecture_look(slopes).items(), strict=True):
        own = sorted(curves[name]["tokens_per_param"].unique())
        for place, ratio in enumerate(own):
            curve = curves[name][curves[name]["tokens_per_param"] == ratio]
            _line(ax, curve["train_flops"], curve["eta"], looks[ratio], look["color"])
            if ratio == ratios[0]:
                ax.fill_between(
                    curve["train_flops"], curve["low"], curve["high"], color=look["color"], alpha=0.18, linewidth=0
                )
            fit = slopes[name].laws[ratio]
            flops = slopes[name].data.query("tokens_per_param == @ratio")["train_flops"]
            eta, middle = -fit.law.exponent, float(np.exp(np.log(flops).mean()))
            ax.plot([flops.min(), flops.max()], [eta, eta], color=INK, linewidth=0.9, linestyle=":" if place else "-")
            ax.errorbar(
                middle, eta, yerr=fit.exponent_standard_error, color=INK, marker=looks[ratio]["marker"], markersize=5,
                linewidth=1, capsize=2,
            )  # fmt: skip
        ax.set(xscale="log", xlabel=LABELS["train_flops"], title=look["label"])
    axes[0].set_ylabel(ETA)
    handles = [_handle(f"law, M = {ratio:g}", dashes=looks[ratio]["dashes"]) for ratio in ratios]
    band = f"{level_text(level)}, M = {ratios[0]:g}"
    handles.append(Line2D([], [], color=GREY, linewidth=8, alpha=0.3, label=band))
    handles += [_handle(f"line, M = {ratio:g}", marker=looks[ratio]["marker"], color=INK) for ratio in ratios]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def above_the_front(
    slopes: Mapping[str, OvertrainingSlopes],
    excess: Mapping[str, pd.DataFrame],
    implied: Mapping[str, pd.DataFrame],
) -> Figure:
    """How far over-trained runs lie above the best that any run shows at their compute; lines: a parametric law.

    Parameters
    ----------
    slopes
        by architecture: their ratios.
    excess
        by architecture: columns tokens_per_param, train_flops, excess (relative).
    implied
        by architecture: columns tokens_per_param, train_flops, relative_penalty.
    """
    figure, axes = panels(len(excess), height=4.0, sharey=True)
    looks = ratio_looks(slopes)
    for ax, (name, look) in zip(axes, architecture_look(excess).items(), strict=True):
        for ratio in slopes[name].laws:
            seen, said = (each[name][each[name]["tokens_per_param"] == ratio] for each in (excess, implied))
            _runs(ax, seen["train_flops"], seen["excess"], looks[ratio], look["color"])
            _line(ax, said["train_flops"], said["relative_penalty"], looks[ratio], look["color"])
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set(xscale="log", xlabel=LABELS["train_flops"], title=look["label"])
        percent_ticks(ax.yaxis)
    axes[0].set_ylabel("loss above the front (%)")
    figure.legend(handles=_ratio_handles(looks), loc="outside lower center", ncols=4)
    return figure


def cost_and_gain(costs: Mapping[str, pd.DataFrame]) -> Figure:
    """Three panels over M: loss penalty and size at equal compute; served tokens that pay back at equal loss.

    Parameters
    ----------
    costs
        by architecture: columns tokens_per_param, relative_penalty, size_ratio, break_even_tokens, each with `_low`
        and `_high`.
    """
    figure, axes = subplots(1, 3, height=3.5)
    columns = ("relative_penalty", "size_ratio", "break_even_tokens")
    for place, (name, look) in enumerate(architecture_look(costs).items()):
        table = costs[name]
        for ax, column in zip(axes, columns, strict=True):
            rows = table.dropna(subset=[column])
            ratio = rows["tokens_per_param"]
            ax.plot(
                ratio, rows[column], color=look["color"], marker=look["marker"], markersize=4, label=look["label"],
                linestyle=RATIO_DASHES[place % len(RATIO_DASHES)],
            )  # fmt: skip
            ax.fill_between(
                ratio, rows[f"{column}_low"], rows[f"{column}_high"], color=look["color"], alpha=0.2, linewidth=0
            )
    for ax in axes:
        ax.set(xscale="log", xlabel="M = D/N")
        _ratio_ticks(ax.xaxis, np.array([10, 100, 1000, 10_000]))
    percent_ticks(axes[0].yaxis)
    axes[0].set(title="equal compute: cost", ylabel="loss above the optimum (%)")
    axes[0].legend()
    axes[1].set(title="equal compute: gain", ylabel="size N / N*", ylim=(0, None))
    axes[2].set(title="equal loss: pays back", ylabel="served tokens to break even", yscale="log")
    axes[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value, 1)))
    axes[2].yaxis.set_minor_formatter(NullFormatter())
    return figure


def window_slopes(windows: Mapping[str, pd.DataFrame], common: Mapping[str, float]) -> Figure:
    """Exponents from a few neighboring runs of one ratio, over the compute that these runs span.

    Parameters
    ----------
    windows
        by architecture: tables of `companion.chapters.ch05.analysis.short_windows`. Filled: all runs of a ratio.
    common
        by architecture: the common slope, as a line.
    """
    figure, axes = panels(len(windows), height=3.5, sharey=True)
    for ax, (name, look) in zip(axes, architecture_look(windows).items(), strict=True):
        for whole, group in windows[name].groupby("whole"):
            fill = look["color"] if whole else "none"
            ax.errorbar(
                group["decades"], group["eta"], yerr=group["eta_standard_error"], color=look["color"], linewidth=0,
                elinewidth=0.7, marker=look["marker"], markerfacecolor=fill, markersize=5,
            )  # fmt: skip
        ax.axhline(common[name], color=GREY, linewidth=1)
        ax.set(xlabel="compute spanned (decades)", title=look["label"])
    axes[0].set_ylabel(ETA)
    return figure


def _line(ax: Axes, flops: Any, values: Any, look: Mapping[str, Any], color: str) -> None:
    """A line in the look of its ratio."""
    ax.plot(flops, values, color=color, linewidth=1.3, linestyle=look["dashes"])


def _runs(ax: Axes, flops: Any, values: Any, look: Mapping[str, Any], color: str) -> None:
    """Runs as markers in the look of their ratio."""
    fill = color if look["filled"] else "none"
    ax.plot(flops, values, look["marker"], color=color, markersize=5, markerfacecolor=fill)


def _ratio_handles(looks: Mapping[float, Mapping[str, Any]]) -> list[Line2D]:
    """Legend entries of ratios, each with its marker and its dashes."""
    return [
        Line2D(
            [], [], color=GREY, marker=look["marker"], markerfacecolor=GREY if look["filled"] else "none",
            linestyle=look["dashes"], linewidth=1.3, markersize=5, label=f"M = {ratio:g}",
        )
        for ratio, look in looks.items()
    ]  # fmt: skip


def _handle(
    label: str, *, marker: str = "", dashes: Any = "-", color: str = GREY, width: float = 1.4, alpha: float = 1.0
) -> Line2D:
    """A legend entry in no architecture's color: with a marker alone, or a line."""
    return Line2D(
        [], [], color=color, marker=marker or None, linestyle=dashes, linewidth=0 if marker and width < 4 else width,
        markersize=5, alpha=alpha, label=label,
    )  # fmt: skip


def _loss_ticks(loss: pd.Series) -> list[float]:
    """Round losses inside the range, about five of them."""
    low, high = float(loss.min()), float(loss.max())
    step = next((step for step in (0.1, 0.2, 0.25, 0.5, 1.0) if (high - low) / step < 7), 2.0)
    return [float(tick) for tick in np.arange(np.ceil(low / step), high / step + 1e-9) * step]


def _ratio_ticks(axis: Axis, ratios: np.ndarray) -> None:
    """Ticks at the given ratios, as plain numbers, every other one where they are many."""
    chosen = np.sort(ratios)[:: 2 if len(ratios) > 4 else 1]
    axis.set_major_locator(FixedLocator(chosen.tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
