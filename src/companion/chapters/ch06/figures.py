"""Figures of chapter 6, without their captions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from companion.chapters.ch06.mistakes import Form
from companion.fitting.multistart import Multistart
from companion.formatting import count, power_of_ten
from companion.plotting.style import INK, LABELS, percent_ticks, subplots

GREY = "#888888"
#: Series that are not architectures: seaborn's colorblind palette, each with marker and dashes of its own.
_COLORS = ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#ca9161")
_MARKERS = ("o", "s", "^", "D", "v")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
#: Smallest relative excess that is drawn: differences below are rounding.
_FLOOR = 1e-12


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    styles = zip(_COLORS, _MARKERS, _DASHES, strict=True)
    return {
        name: {"color": color, "marker": marker, "linestyle": dashes}
        for name, (color, marker, dashes) in zip(names, styles, strict=False)
    }


def exponent_shifts(shifts: Mapping[str, float], bounds: tuple[float, float]) -> Figure:
    """By how much every mistake moves the exponent a of N\\*, and the 95 % interval of the right fit.

    Parameters
    ----------
    shifts
        by mistake: a with the mistake minus a without.
    bounds
        of the 95 % interval, less a.
    """
    order = sorted(shifts, key=lambda name: abs(shifts[name]))
    figure, [ax] = subplots(height=1.05 + 0.21 * len(order))
    ax.axvspan(*bounds, color=GREY, alpha=0.2, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=0.8)
    for y, name in enumerate(order):
        inside = bounds[0] <= shifts[name] <= bounds[1]
        ax.plot([0, shifts[name]], [y, y], color=_COLORS[0], linewidth=1.6)
        ax.plot(shifts[name], y, "o", color=_COLORS[0], markerfacecolor="none" if inside else _COLORS[0], markersize=6)
    ax.set_yticks(range(len(order)), order)
    ax.grid(False, axis="y")
    ax.set(xlabel="shift of the exponent a", ylim=(-0.6, len(order) - 0.4))
    handles = [
        Line2D([], [], color=_COLORS[0], marker="o", linewidth=0, label="outside the interval"),
        Line2D([], [], color=_COLORS[0], marker="o", linewidth=0, markerfacecolor="none", label="inside the interval"),
        Line2D([], [], color=GREY, alpha=0.4, linewidth=8, label="95 % interval of a"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def condition_over_spread(curve: pd.DataFrame, designs: pd.DataFrame) -> Figure:
    """Condition number over the spread of the ratios D/N; curves for simulated designs, markers for those of a table.

    Parameters
    ----------
    curve
        from `companion.chapters.ch06.designs.spread_of_ratios`.
    designs
        from `companion.chapters.ch06.designs.compare_designs`.
    """
    figure, [ax] = subplots()
    labels = {"gamma_free": "γ free", "gamma_fixed": "γ fixed"}
    for (column, label), dashes in zip(labels.items(), _DASHES, strict=False):
        ax.plot(curve["decades"], curve[column], color=INK, linestyle=dashes, label=f"simulated, {label}")
    for row, look in zip(designs.to_dict("records"), _looks(list(designs["design"])).values(), strict=False):
        style = {"color": look["color"], "marker": look["marker"], "linewidth": 0, "markersize": 7}
        ax.plot(row["decades"], row["condition_number"], **style, label=row["design"])
    ax.set(yscale="log", xlabel="spread of M = D/N (decades)", ylabel="condition number")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def end_objectives(searches: Mapping[str, Multistart], best: float, labels: Mapping[str, str]) -> Figure:
    """Where the starts of a plain multi-start end, sorted, as excess over the best objective known.

    Parameters
    ----------
    searches
        by setting.
    best
        objective of the exact fit.
    labels
        names of the settings in the legend.
    """
    figure, [ax] = subplots()
    for (name, search), look in zip(searches.items(), _looks(list(searches)).values(), strict=False):
        excess = np.sort(search.objective) / best - 1
        share = (np.arange(excess.size) + 1) / excess.size
        ax.plot(share, np.maximum(excess, _FLOOR), **look, markersize=4, linewidth=1, label=labels.get(name, name))
    ax.set(
        yscale="log", xlabel="share of starts, sorted (%)", ylabel="relative excess of the objective", xlim=(0, 1.02)
    )
    percent_ticks(ax.xaxis)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def metric_scatter(candidates: pd.DataFrame) -> Figure:
    """Nearly optimal fits by the mean square error over runs and over all pairs; the choice of each is marked.

    Parameters
    ----------
    candidates
        from `companion.chapters.ch06.mistakes.judged`; the first row is the fit.
    """
    figure, [ax] = subplots()
    x, y = 1e4 * candidates["mse_paired"], candidates["mse_all_pairs"]
    ax.plot(x.iloc[1:], y.iloc[1:], "o", color=GREY, markersize=3.5, alpha=0.6, label="nearly optimal fits")
    marked = {"the fit": 0, "lowest mse over runs": int(x.argmin()), "lowest over all pairs": int(y.argmin())}
    for (label, row), look in zip(marked.items(), _looks(list(marked)).values(), strict=False):
        style = {"color": look["color"], "marker": look["marker"], "linewidth": 0, "markersize": 9}
        ax.plot(x.iloc[row], y.iloc[row], **style, label=label)
    ax.set(xlabel="mse over runs (10⁻⁴ nats²/token²)", ylabel="mse over all pairs (nats²/token²)")
    figure.legend(loc="outside upper center", ncols=4, columnspacing=1.2, handletextpad=0.4)
    return figure


def forms_along_budget(runs: pd.DataFrame, forms: Mapping[str, Form], color: str, decades: float = 0.3) -> Figure:
    """Loss over size at one budget, C = 6·N·D with the runs' own mean of N·D, for every form; markers are the runs.

    Parameters
    ----------
    runs
        of one budget.
    forms
        from `companion.chapters.ch06.mistakes.fit_forms`.
    decades
        by which the curves pass the sampled sizes on both sides.
    """
    figure, [ax] = subplots()
    n, d = runs["num_params"].to_numpy(dtype=float), runs["num_tokens"].to_numpy(dtype=float)
    product = np.exp(np.log(n * d).mean())
    sizes = np.geomspace(n.min() / 10**decades, n.max() * 10**decades, 200)
    ax.plot(n, runs["val_loss"], "o", color=color, markersize=4.5, alpha=0.7, label="runs")
    for (name, form), dashes in zip(forms.items(), _DASHES, strict=False):
        label = name.replace("gamma 1", "γ = 1").replace("gamma", "γ")
        ax.plot(sizes, form.predict(sizes, product / sizes), color=INK, linestyle=dashes, label=label)
    ax.axvspan(n.min(), n.max(), color=GREY, alpha=0.15, linewidth=0)
    ax.set(xscale="log", xlabel=LABELS["num_params"], ylabel=LABELS["val_loss"])
    ax.set_title(f"C = 6ND = {power_of_ten(6 * product)} FLOP")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def embedding_optima(table: pd.DataFrame) -> Figure:
    """Optimal size over compute for every definition of size, in log-log axes.

    Parameters
    ----------
    table
        from `companion.chapters.ch06.designs.embedding_effect`.
    """
    figure, [ax] = subplots()
    for row, look in zip(table.to_dict("records"), _looks(list(table["definition"])).values(), strict=False):
        flops, sizes = np.array(row["flops"]), np.array(row["optima"])
        label = f"{row['definition']}: a = {row['isoflop_exponent']:.3f}"
        slope, intercept = np.polyfit(np.log(flops), np.log(sizes), 1)
        grid = np.geomspace(flops.min() / 1.2, flops.max() * 1.2, 2)
        ax.plot(flops, sizes, color=look["color"], marker=look["marker"], linewidth=0, markersize=6)
        ax.plot(grid, np.exp(intercept) * grid**slope, color=look["color"], linestyle=look["linestyle"])
        ax.plot([], [], **look, label=label)
    ax.set(xscale="log", yscale="log", xlabel=LABELS["train_flops"], ylabel="optimal parameters N*")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value, 1)))
    ax.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def delta_parameters(tables: Mapping[str, pd.DataFrame], reference: float) -> Figure:
    """Parameters over the Huber delta, relative to their value at one delta; a panel per set of runs.

    Parameters
    ----------
    tables
        by set of runs, from `companion.chapters.ch06.mistakes.delta_path`.
    reference
        the delta whose parameters are 1.
    """
    figure, axes = subplots(1, len(tables), sharey=True)
    names = {"E": "E", "alpha": "α", "beta": "β", "gamma": "γ", "size_exponent": "a"}
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        finite = table["huber_delta"][np.isfinite(table["huber_delta"])]
        x = np.where(np.isfinite(table["huber_delta"]), table["huber_delta"], finite.max() * 100)
        at = int(np.argmin(np.abs(np.log(x / reference))))
        for (column, label), look in zip(names.items(), _looks(list(names)).values(), strict=True):
            ax.plot(x, table[column] / table[column].iloc[at], **look, markersize=4.5, label=label)
        ax.axvline(reference, color=GREY, linewidth=0.8)
        ticks = finite.tolist()[::2]
        labels = [power_of_ten(tick).removeprefix("1×") if tick != 1 else "1" for tick in ticks]
        ax.set(xscale="log", xlabel="Huber δ (of the log loss)", title=title)
        ax.set_xticks([*ticks, x[-1]], [*labels, "∞" if x[-1] > finite.max() else power_of_ten(x[-1])])
        ax.minorticks_off()
    axes[0].set_ylabel(f"relative to δ = {power_of_ten(reference).removeprefix('1×')}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


__all__ = [
    "condition_over_spread",
    "delta_parameters",
    "embedding_optima",
    "end_objectives",
    "exponent_shifts",
    "forms_along_budget",
    "metric_scatter",
]
