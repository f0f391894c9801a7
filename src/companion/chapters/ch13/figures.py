"""Figures of chapter 13."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from companion.chapters.ch13.source import CopySource
from companion.chapters.ch13.steps import Steps, crossing
from companion.chapters.timed_models import LOOKS
from companion.plotting.style import INK, LABELS, panels, subplots

GREY = "#888888"
#: Most sizes that a figure has a panel for.
MOST_PANELS = 3
#: Most context lengths that all get a tick.
MOST_TICKS = 5


def some_sizes(models: Mapping[str, int]) -> list[str]:
    """As many of the sizes as a figure has panels for: the ends, and between them those with the most models.

    Parameters
    ----------
    models
        how many models were timed, by size from the smallest to the largest.
    """
    sizes = list(models)
    if len(sizes) <= MOST_PANELS:
        return sizes
    middle = sorted(sizes[1:-1], key=lambda size: -models[size])[: MOST_PANELS - 2]
    return [size for size in sizes if size in (sizes[0], *middle, sizes[-1])]


def models_by_size(table: pd.DataFrame, sizes: Sequence[str]) -> dict[str, int]:
    """How many models a table has of each size."""
    return {size: table.loc[table["size"] == size, "model"].nunique() for size in sizes}


def context_axis(ax: Axes, lengths: Sequence[float]) -> None:
    """A logarithmic axis of context lengths with ticks at them, or at every other of many: 512, 2k, 8k."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sorted(lengths)[:: 1 if len(lengths) <= MOST_TICKS else 2]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: context_text(value)))


def context_text(length: float) -> str:
    """A context length on an axis: 512, 8k."""
    return f"{length / 1024:g}k" if length >= 1024 else f"{length:g}"


def step_times(steps: Steps, labels: Mapping[str, str]) -> Figure:
    """Milliseconds of a step over the context length, a panel for some sizes, with the crossing marked."""
    sizes = some_sizes(models_by_size(steps.fastest, steps.curves))
    figure, axes = panels(len(sizes), height=3.4)
    for ax, size in zip(axes, sizes, strict=True):
        for model in steps.models:
            rows = steps.of(model, size)
            if rows.empty:
                continue
            ax.plot(rows.index, 1e3 * rows["seconds_median"], label=labels[model], markersize=4, **LOOKS[model])
        at = crossing(steps.ratios(size)).at
        if 0 < at < np.inf:
            ax.axvline(at, color=INK, linewidth=0.8, linestyle=":")
        ax.set(yscale="log", title=size.upper(), xlabel="context length T")
        context_axis(ax, sorted(steps.fastest["context_length"].unique()))
        _plain_logs(ax)
    axes[0].set_ylabel("time of a step (ms)")
    figure.legend(*_legend(axes), loc="outside upper center", ncols=4)
    return figure


def launches(costs: pd.DataFrame, labels: Mapping[str, str], names: Sequence[str]) -> Figure:
    """Milliseconds of a step by how it is launched, bars for every model, a panel for some sizes."""
    sizes = some_sizes(models_by_size(costs, list(dict.fromkeys(costs["size"]))))
    figure, axes = panels(len(sizes), height=3.4)
    hatches = dict(zip(names, ("", "//", "xx"), strict=False))
    shades = dict(zip(names, (0.35, 0.65, 1.0), strict=False))
    for ax, size in zip(axes, sizes, strict=True):
        rows = costs[costs["size"] == size].reset_index(drop=True)
        for number, name in enumerate(names):
            places = np.arange(len(rows)) + 0.27 * (number - (len(names) - 1) / 2)
            colors = [LOOKS[model]["color"] for model in rows["model"]]
            ax.bar(
                places, 1e3 * rows[name], 0.25, color=colors, alpha=shades[name], hatch=hatches[name],
                edgecolor=INK, linewidth=0.5,
            )  # fmt: skip
        ax.set(title=size.upper(), xticks=range(len(rows)))
        ax.set_xticklabels([labels[model] for model in rows["model"]])
        ax.grid(False, axis="x")
    axes[0].set_ylabel("time of a step (ms)")
    handles = [Patch(facecolor=GREY, alpha=shades[n], hatch=hatches[n], edgecolor=INK, linewidth=0.5) for n in names]
    figure.legend(handles, list(names), loc="outside lower center", ncols=len(names))
    return figure


def losses(curves: pd.DataFrame, source: CopySource, least: float, labels: Mapping[str, str]) -> Figure:
    """Loss over training tokens, means over some steps, with the entropies of the source.

    Parameters
    ----------
    curves
        with `model`, `num_tokens` and `loss`.
    """
    figure, (ax,) = subplots(height=3.9)
    for name, part in curves.groupby("model", sort=False):
        ax.plot(part["num_tokens"], part["loss"], label=labels[str(name)], markersize=4, **LOOKS[str(name)])
    levels = {
        "nothing seen": source.unigram_entropy,
        "last token seen": source.last_token_entropy,
        "least": least,
    }
    for word, level in levels.items():
        ax.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        ax.annotate(
            word, (1.0, level), xycoords=("axes fraction", "data"), xytext=(-2, -2), textcoords="offset points",
            ha="right", va="top", fontsize=9,
        )  # fmt: skip
    ax.set(xlabel=LABELS["num_tokens"], ylabel="loss (nats/token)")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=least - 0.1 * (source.unigram_entropy - least))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value else "0"))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def components(
    table: pd.DataFrame, titles: Mapping[str, str], groups: Sequence[str], labels: Mapping[str, str]
) -> Figure:
    """Milliseconds of every group of components, two bars each, with their least times as lines; a panel for each pass.

    Parameters
    ----------
    table
        of `companion.chapters.ch13.profile.Profile.table`.
    titles
        of the panels, by pass.
    """
    models = [name for name in LOOKS if (table["model"] == name).any()]
    figure, axes = subplots(1, len(titles), height=0.36 * len(groups) + 1.4, sharey=True)
    height = 0.8 / len(models)
    for ax, (part, title) in zip(axes, titles.items(), strict=True):
        for number, model in enumerate(models):
            rows = table[(table["part"] == part) & (table["model"] == model)].set_index("group").reindex(list(groups))
            places = np.arange(len(groups)) + height * (number - (len(models) - 1) / 2)
            look = {"color": LOOKS[model]["color"], "alpha": 0.75, "hatch": "//" if number else "", "edgecolor": INK}
            ax.barh(places, 1e3 * rows["seconds"].fillna(0), height, label=labels[model], linewidth=0.4, **look)
            ends = places - height / 2, places + height / 2
            ax.vlines(1e3 * rows["least"].where(rows["least"] > 0), *ends, color=INK, linewidth=2.2)
        ax.set(title=title, xlabel="time (ms)", yticks=range(len(groups)))
        ax.set_yticklabels(groups)
        ax.grid(False, axis="y")
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models))
    return figure


def _plain_logs(ax: Axes) -> None:
    """Ticks of a logarithmic axis as plain numbers: 20, 50, 100."""
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_locator(NullLocator())


def _legend(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Every label of any panel once."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
