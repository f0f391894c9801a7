"""Figures of what one resample of the timings did to the published runtime models."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from companion.chapters.ch08.figures import GREY
from companion.plotting.style import INK, architecture_look, subplots

#: By how much markers of one size stand beside its bar.
_ASIDE = 0.18


def constants_over_draws(effects: pd.DataFrame, parameter: str, label: str, scale: float) -> Figure:
    """A parameter of every size: on the published resample, on every timing once, and its interval over resamples.

    Parameters
    ----------
    effects
        from `companion.chapters.ch08.draws.draw_effects`, of one quantity.
    parameter
        which; a panel per architecture.
    label, scale
        of the axis: the values are divided by the scale.
    """
    rows = effects[effects["parameter"] == parameter]
    names = list(dict.fromkeys(rows["architecture"]))
    figure, axes = subplots(1, max(1, len(names)), height=2.6)
    looks = architecture_look(names)
    for ax, name in zip(axes, names, strict=False):
        part = rows[rows["architecture"] == name]
        _bars(ax, part[["low", "high"]].to_numpy() / scale)
        for column, fill, aside in (("once", "none", _ASIDE), ("drawn", looks[name]["color"], -_ASIDE)):
            ax.plot(
                np.arange(len(part)) + aside, part[column] / scale, looks[name]["marker"], color=looks[name]["color"],
                markerfacecolor=fill, markersize=6,
            )  # fmt: skip
        ax.axhline(0, color=INK, linewidth=0.8)
        ax.set_xticks(range(len(part)), part["model_size"])
        ax.set(title=looks[name]["label"], xlabel="size")
    axes[0].set_ylabel(label)
    _legend(figure, ["the published resample", "every timing once", "95 % of the resamples"])
    return figure


def ratios_over_draws(ratios: pd.DataFrame, label: str) -> Figure:
    """Ratio of two architectures' prefill at every size: measured, and by the published form.

    `ratios` from `companion.chapters.ch08.draws.prefill_ratios`; `label` of the axis.
    """
    figure, [ax] = subplots(height=2.7)
    at = np.arange(len(ratios))
    _bars(ax, ratios[["low", "high"]].to_numpy())
    color = architecture_look(["xlstm"])["xlstm"]["color"]
    ax.plot(at + _ASIDE, ratios["once"], "s", color=color, markerfacecolor="none", markersize=6)
    ax.plot(at - _ASIDE, ratios["drawn"], "s", color=color, markersize=6)
    ax.plot(at, ratios["measured"], "x", color=INK, markersize=6, markeredgewidth=1.6)
    ax.axhline(1, color=INK, linewidth=0.8)
    ax.set_xticks(at, ratios["model_size"])
    ax.set(xlabel="size", ylabel=label, ylim=(0, None))
    figure.legend(
        handles=[
            Line2D([], [], color=INK, marker="x", linewidth=0, markersize=6, markeredgewidth=1.6, label="measured"),
            *_handles(["form, published resample", "form, every timing once", "95 % of the resamples"]),
        ],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _bars(ax: Axes, bounds: np.ndarray) -> None:
    for x, (low, high) in enumerate(bounds):
        ax.plot([x, x], [low, high], color=GREY, linewidth=5, alpha=0.4, solid_capstyle="butt")


def _legend(figure: Figure, labels: list[str]) -> None:
    figure.legend(handles=_handles(labels), loc="outside lower center", ncols=3)


def _handles(labels: list[str]) -> list[Line2D]:
    full, hollow, bar = labels
    return [
        Line2D([], [], color=GREY, marker="s", linewidth=0, markersize=6, label=full),
        Line2D([], [], color=GREY, marker="s", linewidth=0, markersize=6, markerfacecolor="none", label=hollow),
        Line2D([], [], color=GREY, linewidth=5, alpha=0.4, label=bar),
    ]
