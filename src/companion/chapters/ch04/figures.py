"""Figures of chapter 4: contours, objective, residuals, profiles, correlations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import stats

from companion.chapters.contours import label_contours
from companion.chapters.labels import design_name
from companion.fitting.fit import Fit
from companion.fitting.likelihood import Profile
from companion.formatting import level_text, true_minus
from companion.plotting.style import INK, LABELS, architecture_look, count_ticks, panels, percent_ticks, subplots

GREY = "#888888"
#: How a design of runs is drawn everywhere in the chapter.
DESIGN_MARKERS = {"isoflop": "o", "tokenparam": "D"}
_SPARE_MARKERS = ("^", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
_COLORS = (INK, "#0173b2", "#de8f05", "#029e73", "#cc78bc")
_SYMBOLS = {"E": "E", "A": "log A", "B": "log B", "alpha": "α", "beta": "β", "gamma": "γ"}


def loss_contours(
    fits: Mapping[str, Fit], tables: Mapping[str, pd.DataFrame], flops_per_nd: Mapping[str, float]
) -> Figure:
    """Contours of the fitted loss over N and D with the runs and the compute-optimal path, a panel per architecture.

    Parameters
    ----------
    fits, tables
        by architecture: the law and the runs it was fitted to.
    flops_per_nd
        by architecture: κ of C = κND, for the path.
    """
    figure, axes = panels(len(fits), height=3.7, sharex=True, sharey=True)
    every = pd.concat(tables.values())
    n = np.geomspace(every["num_params"].min() / 1.5, every["num_params"].max() * 1.5, 90)
    d = np.geomspace(every["num_tokens"].min() / 1.5, every["num_tokens"].max() * 1.5, 90)
    levels = np.round(np.arange(1.5, 6.0, 0.1), 1)
    markers = _design_markers(every)
    for ax, (name, look) in zip(axes, architecture_look(fits).items(), strict=True):
        loss = fits[name].law.predict(n[None, :], d[:, None])
        shown = [level for level in levels if loss.min() < level < loss.max() and level < every["val_loss"].max() + 0.5]
        ax.set(xscale="log", yscale="log", xlim=(n[0], n[-1]), ylim=(d[0], d[-1]))
        ax.contour(n, d, loss, levels=shown, colors=GREY, linewidths=0.9)
        label_contours(ax, n, d, loss, shown[::2])
        for design, marker in markers.items():
            runs = _of_design(tables[name], design)
            ax.plot(
                runs["num_params"], runs["num_tokens"], marker, color=look["color"], markersize=3.4, alpha=0.75,
                linewidth=0,
            )  # fmt: skip
        products = np.geomspace(float(n[0] * d[0]) / 100, float(n[-1] * d[-1]) * 100, 60)
        path = fits[name].law.optimum(flops_per_nd[name] * products, flops_per_nd[name])
        ax.plot(*path, color=INK, linewidth=1.8)
        ax.set(xlabel=LABELS["num_params"], title=look["label"])
        ax.grid(False)
        count_ticks(ax.xaxis, (1.0, 3.0))
        count_ticks(ax.yaxis, (1.0,))
    axes[0].set_ylabel(LABELS["num_tokens"])
    handles = [
        Line2D([], [], color=GREY, marker=marker, linewidth=0, markersize=4, label=design_name(design))
        for design, marker in markers.items()
    ]
    handles.append(Line2D([], [], color=INK, linewidth=1.8, label="compute-optimal path"))
    handles.append(Line2D([], [], color=GREY, linewidth=0.9, label="loss (nats/token)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def outlier_influence(shifts: pd.DataFrame, readings: Mapping[str, str]) -> Figure:
    """Change of numbers read off the law over the size of one outlier, a panel per reading and changed run.

    Parameters
    ----------
    shifts
        of `companion.fitting.diagnostics.outlier_shifts`.
    readings
        columns to draw, with their axis labels.
    """
    changed = list(dict.fromkeys(shifts["run"]))
    figure, axes = subplots(len(readings), len(changed), height=2.0 + 1.6 * len(readings), sharex=True, sharey="row")
    panels = [(column, label, run) for column, label in readings.items() for run in changed]
    for ax, (column, label, run) in zip(axes, panels, strict=True):
        groups = shifts[shifts["run"] == run].groupby("huber_delta")
        for (delta, rows), dashes, color, marker in zip(
            groups, DASHES, _COLORS, ("o", "s", "^", "D", "v"), strict=False
        ):
            name = f"δ = {delta:g}" if np.isfinite(float(delta)) else "δ = ∞ (least squares)"
            ax.plot(
                rows["excess"], rows[column], linestyle=dashes, color=color, marker=marker, markersize=3.5, label=name
            )
        percent_ticks(ax.xaxis)
        # a title on every panel: on a phone they stand below each other
        ax.set(ylabel=label if run == changed[0] else "", title=f"run of {run}")
    for ax in axes[-len(changed) :]:
        ax.set_xlabel("its loss raised by (%)")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(handles))
    return figure


def misfit_slices(
    misfits: Mapping[str, NDArray[np.float64]], alphas: Any, betas: Any, fits: Mapping[str, Fit]
) -> Figure:
    """Least misfit over (alpha, beta), everything else eliminated; the fitted exponents are marked.

    Parameters
    ----------
    misfits
        by architecture, of `companion.chapters.ch04.analysis.projected_misfit`, shape (len(alphas), len(betas)).
    fits
        by architecture: the fits at whose gamma the slices were taken.
    """
    figure, axes = panels(len(misfits), height=3.7, sharey=True)
    factors = [1.05, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0]
    for ax, (name, look) in zip(axes, architecture_look(misfits).items(), strict=True):
        ratio = misfits[name] / np.nanmin(misfits[name])
        lines = ax.contour(alphas, betas, np.ma.masked_invalid(ratio).T, levels=factors, colors=GREY, linewidths=1.0)
        ax.clabel(lines, fmt="×%g", fontsize=9)
        at = np.unravel_index(np.nanargmin(misfits[name]), misfits[name].shape)
        ax.plot(np.asarray(alphas)[at[0]], np.asarray(betas)[at[1]], "+", color=INK, markersize=10)
        ax.plot(fits[name].law.alpha, fits[name].law.beta, look["marker"], color=look["color"], markersize=6)
        ax.set(xlabel="α", title=f"{look['label']}, γ = {fits[name].law.gamma:.2f}")
    axes[0].set_ylabel("β")
    handles = [Line2D([], [], color=INK, marker="+", markersize=9, linewidth=0, label="best of the grid")]
    handles.append(Line2D([], [], color=GREY, marker="o", markersize=6, linewidth=0, label="Huber fit"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def residuals_over_compute(fits: Mapping[str, Fit], tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Observed over fitted loss, minus 1, against compute; a panel per architecture, markers by design."""
    figure, axes = panels(len(fits), height=3.6, sharey=True, sharex=True)
    markers = _design_markers(pd.concat(tables.values()))
    for ax, (name, look) in zip(axes, architecture_look(fits).items(), strict=True):
        relative = pd.Series(np.expm1(fits[name].residuals), index=tables[name].index)
        for design, marker in markers.items():
            runs = _of_design(tables[name], design)
            ax.plot(
                runs["train_flops"], relative[runs.index], marker, color=look["color"], markersize=4, alpha=0.6,
                linewidth=0, label=design_name(design),
            )  # fmt: skip
        ax.axhline(0, color=GREY, linewidth=0.8)
        percent_ticks(ax.yaxis)
        ax.set(xscale="log", xlabel=LABELS["train_flops"], title=look["label"])
        ax.legend()
    axes[0].set_ylabel("observed over fitted loss − 1 (%)")
    return figure


def profiles(
    curves: Mapping[str, Mapping[str, Profile]],
    intervals: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]],
    level: float = 0.95,
) -> Figure:
    """Profile likelihoods, a panel per parameter, with the threshold; below it bootstrap intervals as bars.

    Parameters
    ----------
    curves
        by parameter and architecture.
    intervals
        by parameter, architecture and name of the bootstrap.
    """
    figure, axes = subplots(1, len(curves), height=3.9, sharey=True)
    threshold = float(stats.chi2.ppf(level, 1))
    kinds: list[str] = []
    for ax, (parameter, by_name) in zip(axes, curves.items(), strict=True):
        row = 0
        for name, look in architecture_look(by_name).items():
            curve = by_name[name]
            inside = curve.drop <= 3.2 * threshold
            points = np.asarray(curve.values)
            # the signed root of a profile is nearly linear, so it can be interpolated
            fine = np.linspace(points[inside].min(), points[inside].max(), 120)
            signed = np.copysign(np.sqrt(np.maximum(curve.drop, 0)), points - points[np.argmin(curve.drop)])
            ax.plot(fine, np.interp(fine, points, signed) ** 2, color=look["color"])
            ax.plot(points[inside], curve.drop[inside], look["marker"], color=look["color"], markersize=3)
            for kind, (low, high) in intervals[parameter][name].items():
                kinds = kinds if kind in kinds else [*kinds, kind]
                height = -1.0 - 0.9 * row
                ax.plot(
                    [low, high], [height] * 2, linestyle=DASHES[kinds.index(kind)], color=look["color"], linewidth=2.4,
                    marker=look["marker"], markersize=5,
                )  # fmt: skip
                row += 1
        ax.axhline(threshold, color=GREY, linewidth=1.0, linestyle="--")
        ax.set(xlabel=_SYMBOLS[parameter] + (" (nats/token)" if parameter == "E" else ""))
        ax.set_yticks([0, 2, 4, 6, 8, 10, 12])
    axes[0].set_ylabel("twice the drop of log likelihood")
    handles = [
        Line2D([], [], color=look["color"], marker=look["marker"], markersize=4, label=look["label"])
        for look in architecture_look(next(iter(curves.values()))).values()
    ]
    handles.append(Line2D([], [], color=GREY, linestyle="--", label=f"{level_text(level)} threshold"))
    handles += [
        Line2D([], [], color=GREY, linestyle=DASHES[index], linewidth=2.4, label=kind)
        for index, kind in enumerate(kinds)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def correlation_maps(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Correlations of the parameters as numbers on color, a panel per architecture."""
    figure, axes = panels(len(tables), height=3.7)
    for ax, (name, look) in zip(axes, architecture_look(tables).items(), strict=True):
        values = tables[name].to_numpy()
        ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        names = [_SYMBOLS[str(column)] for column in tables[name].columns]
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(names)), names)
        for (row, column), value in np.ndenumerate(values):
            color = "#f7f7f7" if abs(value) > 0.6 else "#222222"  # on the cell, not on the page
            ax.text(column, row, true_minus(f"{value:.2f}"), ha="center", va="center", fontsize=9, color=color)
        ax.grid(False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(look["label"])
    return figure


def _design_markers(runs: pd.DataFrame) -> dict[str, str]:
    """A marker for every design in the table; one entry where it names none."""
    if "experiment" not in runs:
        return {"runs": "o"}
    names = sorted(map(str, runs["experiment"].dropna().unique()))
    spare = iter(_SPARE_MARKERS * len(names))
    return {name: DESIGN_MARKERS.get(name) or next(spare) for name in names}


def _of_design(runs: pd.DataFrame, design: str) -> pd.DataFrame:
    return runs[runs["experiment"] == design] if "experiment" in runs else runs
