"""Figures of the IsoFLOP chapter: `show_...` are what its page shows, with captions."""

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from companion.chapters.ch03.grids import one_sided
from companion.chapters.ch03.student import student_factor
from companion.chapters.names import OPTIMUM_LABELS
from companion.fitting.isoflop.bias import GRIDS, SizeGrid, noise_free_profile, optimum_bias
from companion.fitting.isoflop.joint import JointIsoflopFit
from companion.fitting.isoflop.profiles import IsoflopFit, IsoflopProfile
from companion.formatting import power_of_ten
from companion.laws import LossSurface
from companion.plotting import Html, show
from companion.plotting.style import (
    INK,
    LABELS,
    architecture_look,
    count_ticks,
    panels,
    subplots,
)

EXPONENT_LABELS = {"num_params": "exponent a of N*", "num_tokens": "exponent b of D*"}
GREY = "#888888"
_SURFACE_COLORS = (INK, "#029e73", "#cc78bc", "#ca9161", "#949494")  # none of an architecture
_BUDGET_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def show_profiles(every: Mapping[tuple[str, str], IsoflopFit]) -> Html:
    """Loss over N with a parabola per budget; fits by architecture and x."""
    return show(
        isoflop_profiles({name: fit for (name, x), fit in every.items() if x == "num_params"}),
        name="isoflop-profiles",
        alt="Loss over parameters: one valley for every budget, with a parabola through its runs and a mark at its "
        "bottom.",
        caption="Runs, one parabola per budget, and its bottom: the optimum with its 95 % interval (delta method).",
    )


def show_power_laws(
    every: Mapping[tuple[str, str], IsoflopFit],
    joint: Mapping[tuple[str, str], JointIsoflopFit],
    budgets: Mapping[str, Collection[float]],
) -> Html:
    """Optima and joint laws over compute; arguments as for `power_laws`."""
    return show(
        power_laws(every, joint, budgets),
        name="isoflop-power-laws",
        alt="Optimal parameters and tokens over compute, straight lines in log-log axes, and the distance of each "
        "optimum.",
        caption="Above: optima and joint laws with 95 % bands. Below: how far each optimum lies from its joint law. "
        "Hollow: optima of budgets that took no part in the fit.",
    )


def show_choices(choices: Mapping[tuple[str, str], pd.DataFrame]) -> Html:
    """Exponents by choice of procedure; tables of `exponent_choices` by architecture and x."""
    return show(
        exponent_forest(choices),
        name="isoflop-exponents",
        alt="Exponents of optimal parameters and tokens with intervals, one row for every choice of procedure.",
        caption="Exponents by choice. Thick: one standard error. Thin: 95 % interval, some wider than the panel. "
        "'Published' means the procedure, on these runs.",
    )


def show_one_sided_profiles(main: Mapping[tuple[str, str], IsoflopFit], reach: float) -> Html:
    """Parabolas through one side of the grid at the highest budget; fits by architecture and x."""
    return show(
        one_sided_profiles({name: fit.optima[-1] for (name, x), fit in main.items() if x == "num_params"}, reach),
        name="isoflop-one-sided",
        alt="IsoFLOP profiles, each with a parabola through all sizes and two through the sizes of one side.",
        caption="The highest main budget: parabolas through all sizes and through one side of the grid, and their "
        "minima.",
    )


def show_noise_free_bias(surfaces: Mapping[str, LossSurface], first: str, train_flops: float) -> Html:
    """Parabolas through exact losses.

    Parameters
    ----------
    surfaces
        by label. Drawn are the most skewed one (alpha and beta furthest apart), `first` and the two next skewed.
    first
        label of a surface that is drawn in any case.
    train_flops
        the budget, FLOP.
    """
    skewed = sorted(surfaces, key=lambda label: -abs(float(surfaces[label].alpha - surfaces[label].beta)))
    drawn = {label: surfaces[label] for label in dict.fromkeys([skewed[0], first, *skewed[1:3]])}
    return show(
        noise_free_bias(drawn, train_flops, ["symmetric", "only below", "only above"], GRIDS),
        name="isoflop-noise-free",
        alt="Left: an exact profile and three parabolas that miss its bottom. Right: the error over the grid's center.",
        caption="Left: exact loss and parabolas through three grids of equal width; diamonds are their minima. "
        "Right: error of N* when the center of such a grid is off.",
    )


def isoflop_profiles(fits: Mapping[str, IsoflopFit], level: float = 0.95) -> Figure:
    """Loss over x with one parabola per budget, a panel per architecture; optima with their intervals.

    Parameters
    ----------
    fits
        by architecture, all over the same x.
    level
        of the horizontal interval at each optimum (delta method, Student's t).
    """
    figure, axes = panels(len(fits), height=4.2, sharey=True)
    budgets = sorted({profile.isoflop_budget for fit in fits.values() for profile in fit.profiles})
    markers = dict(zip(budgets, islice(cycle(_BUDGET_MARKERS), len(budgets)), strict=True))
    x_column = next(iter(fits.values())).x_column
    for ax, (name, look) in zip(axes, architecture_look(fits).items(), strict=True):
        for profile in fits[name].profiles:
            marker = markers[profile.isoflop_budget]
            ax.plot(profile.x, profile.loss, marker, color=look["color"], markersize=3.5, alpha=0.55, linewidth=0)
            if profile.fit is not None:
                grid = np.geomspace(profile.x.min(), profile.x.max(), 80)
                ax.plot(grid, profile.fit.law.predict(grid), color=look["color"], linewidth=1.3)
            _mark_optimum(ax, profile, level)
        ax.set(xscale="log", xlabel=LABELS[x_column], title=look["label"])
        count_ticks(ax.xaxis)
    axes[0].set_ylabel(LABELS["val_loss"])
    handles = [
        Line2D([], [], color=GREY, marker=marker, linewidth=0, markersize=5, label=power_of_ten(budget))
        for budget, marker in markers.items()
    ]
    optimum = Line2D([], [], color=INK, marker="d", markersize=6, linewidth=1.6, label=f"optimum, {level:.0%} interval")
    figure.legend(handles=[*handles, optimum], loc="outside lower center", ncols=6, title="budget (FLOP)")
    return figure


def power_laws(
    fits: Mapping[tuple[str, str], IsoflopFit],
    joints: Mapping[tuple[str, str], JointIsoflopFit],
    budgets: Mapping[str, Collection[float]],
    level: float = 0.95,
) -> Figure:
    """N\\*(C) and D\\*(C) with the joint law and its band above; below, how far each optimum lies from that law.

    Parameters
    ----------
    fits
        by architecture and x; their optima are the points, with delta-method intervals.
    joints
        by architecture and x; their laws are the lines.
    budgets
        by architecture: the budgets that the joint fit used. Optima of other budgets are hollow.
    level
        of intervals and bands.
    """
    columns = list(dict.fromkeys(x for _, x in fits))
    figure, axes = subplots(2, len(columns), height=5.4, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
    appearance = architecture_look(list(dict.fromkeys(name for name, _ in fits)))
    for (name, x), fit in fits.items():
        top, bottom = axes[columns.index(x)], axes[len(columns) + columns.index(x)]
        look, joint = appearance[name], joints[name, x]
        flops = np.array([profile.mean_train_flops for profile in fit.optima])
        grid = np.geomspace(flops.min() / 1.3, flops.max() * 1.3, 60)
        low, high = joint.predict_interval(grid, level)
        center = joint.law.predict(grid)
        top.plot(grid, center, color=look["color"], label=look["label"], marker=look["marker"], markevery=[])
        top.fill_between(grid, low, high, color=look["color"], alpha=0.2, linewidth=0)
        bottom.fill_between(grid, low / center - 1, high / center - 1, color=look["color"], alpha=0.2, linewidth=0)
        for profile in fit.optima:
            used = any(np.isclose(profile.isoflop_budget, budget) for budget in budgets[name])
            fill = look["color"] if used else "none"
            bounds = _optimum_bounds(profile, level)
            for ax, reference in ((top, 1.0), (bottom, float(joint.law.predict(profile.mean_train_flops)))):
                shift = 0.0 if ax is top else 1.0
                low_high = [
                    [bounds[1] / reference - bounds[0] / reference],
                    [bounds[2] / reference - bounds[1] / reference],
                ]
                ax.errorbar(
                    profile.mean_train_flops, bounds[1] / reference - shift, yerr=low_high, color=look["color"],
                    marker=look["marker"], markerfacecolor=fill, markersize=5.5, linewidth=1.2,
                )  # fmt: skip
    for index, x in enumerate(columns):
        axes[index].set(xscale="log", yscale="log", ylabel=OPTIMUM_LABELS[x])
        count_ticks(axes[index].yaxis)
        axes[index].legend(
            handles=[
                Line2D([], [], color=look["color"], marker=look["marker"], label=look["label"])
                for look in appearance.values()
            ]
        )
        lower = axes[len(columns) + index]
        lower.axhline(0, color=GREY, linewidth=0.8)
        lower.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        lower.set(xscale="log", xlabel=LABELS["train_flops"], ylabel="optimum against\njoint law (%)")
    return figure


def exponent_forest(tables: Mapping[tuple[str, str], pd.DataFrame]) -> Figure:
    """Exponents under different choices: one panel per x, a row per choice, ±1 standard error thick, 95 % thin.

    Parameters
    ----------
    tables
        by architecture and x: a table of `companion.chapters.ch03.choices.exponent_choices`.
    """
    columns = list(dict.fromkeys(x for _, x in tables))
    names = list(dict.fromkeys(name for name, _ in tables))
    longest = max(tables.values(), key=len)
    choices = list(dict.fromkeys([*longest["choice"], *(c for table in tables.values() for c in table["choice"])]))
    figure, axes = subplots(1, len(columns), height=1.6 + 0.36 * len(choices), sharey=True)
    appearance = architecture_look(names)
    offsets = dict(zip(names, np.linspace(-0.16, 0.16, len(names)) if len(names) > 1 else [0.0], strict=True))
    for (name, x), table in tables.items():
        ax, look = axes[columns.index(x)], appearance[name]
        for row in table.to_dict("records"):
            y = choices.index(row["choice"]) + offsets[name]
            ax.plot([row["low"], row["high"]], [y, y], color=look["color"], linewidth=1.0)
            one = row["standard_error"]
            ax.plot([row["exponent"] - one, row["exponent"] + one], [y, y], color=look["color"], linewidth=4, alpha=0.5)
            ax.plot(row["exponent"], y, look["marker"], color=look["color"], markersize=5)
    for ax, x in zip(axes, columns, strict=True):
        _limit_to_estimates(ax, [table for (_, column), table in tables.items() if column == x])
        ax.set(xlabel=EXPONENT_LABELS[x], ylim=(len(choices) - 0.5, -0.5))
        ax.set_yticks(range(len(choices)), choices)
        ax.grid(False, axis="y")
    handles = [
        Line2D([], [], color=look["color"], marker=look["marker"], label=look["label"]) for look in appearance.values()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def one_sided_profiles(
    profiles: Mapping[str, IsoflopProfile], reach: float = 0.0, x_column: str = "num_params"
) -> Figure:
    """For one profile per architecture: the parabola through all sizes, and those through one side of it only.

    Parameters
    ----------
    profiles
        by architecture.
    reach
        as in `companion.chapters.ch03.grids.one_sided`.
    x_column
        what the profiles are drawn over.
    """
    figure, axes = panels(len(profiles), height=3.8)
    for ax, (name, look) in zip(axes, architecture_look(profiles).items(), strict=True):
        profile = profiles[name]
        ax.plot(profile.x, profile.loss, look["marker"], color=look["color"], markersize=4, alpha=0.6, linewidth=0)
        grid = np.geomspace(profile.x.min() / 1.2, profile.x.max() * 1.2, 120)
        sides = {"all sizes": profile, "only below": one_sided(profile, "below", reach)}
        sides["only above"] = one_sided(profile, "above", reach)
        for (label, part), dashes in zip(sides.items(), _DASHES, strict=False):
            if part.fit is None:
                continue
            color = look["color"] if part is profile else INK
            ax.plot(grid, part.fit.law.predict(grid), color=color, linestyle=dashes, linewidth=1.4, label=label)
            if part.has_optimum and grid[0] <= part.fit.law.x_opt <= grid[-1]:
                ax.plot(part.fit.law.x_opt, part.fit.law.loss_opt, "d", color=color, markersize=6)
        span = float(np.ptp(profile.loss))
        ax.set_ylim(profile.loss.min() - 0.25 * span, profile.loss.max() + 0.15 * span)
        title = f"{look['label']}, {power_of_ten(profile.isoflop_budget)} FLOP"
        ax.set(xscale="log", xlabel=LABELS[x_column], title=title)
        count_ticks(ax.xaxis)
        ax.legend()
    axes[0].set_ylabel(LABELS["val_loss"])
    return figure


def noise_free_bias(
    surfaces: Mapping[str, LossSurface], train_flops: float, grids: Sequence[str], shapes: Mapping[str, SizeGrid]
) -> Figure:
    """Left: the exact profile of the first surface and parabolas through grids beside it. Right: bias over the center.

    Parameters
    ----------
    surfaces
        by label; the right panel has a curve for each.
    train_flops
        the budget, FLOP, cut along C = 6·N·D.
    grids
        names in `shapes` of the grids to show on the left; the first one's width is used on the right.
    shapes
        grids by name.
    """
    figure, (left, right) = subplots(1, 2, height=3.8)
    label, surface = next(iter(surfaces.items()))
    optimum, tokens = surface.optimum(train_flops)
    decades = np.linspace(-1.0, 1.0, 121)
    loss = np.asarray(surface.predict(optimum * 10**decades, tokens * 10**-decades))
    left.plot(decades, loss, color=GREY, linewidth=3, alpha=0.7, label="exact")
    for name, dashes in zip(grids, _DASHES, strict=False):
        sizes = shapes[name].num_params(surface, train_flops)
        fit = noise_free_profile(surface, train_flops, sizes).fit
        if fit is not None:
            left.plot(
                decades, fit.law.predict(optimum * 10**decades), color=INK, linestyle=dashes, linewidth=1.2, label=name
            )
            left.plot(np.log10(fit.law.x_opt / optimum), fit.law.loss_opt, "d", color=INK, markersize=5)
    left.axvline(0, ymax=0.72, color=GREY, linewidth=0.8)  # the legend is above
    left.set_ylim(loss.min() - 0.15 * np.ptp(loss), loss.max())
    left.set(
        xlabel="N over the true optimum (decades)", ylabel=LABELS["val_loss"].replace("validation ", ""), title=label
    )
    left.legend(fontsize=8)
    half = (shapes[grids[0]].upper - shapes[grids[0]].lower) / 2
    centers = np.linspace(-0.6, 0.6, 49)
    colors = cycle(_SURFACE_COLORS)
    for (name, each), color, dashes in zip(surfaces.items(), colors, cycle(_DASHES), strict=False):
        bias = [10 ** _bias_at(each, train_flops, center, half) - 1 for center in centers]
        right.plot(centers, bias, color=color, linestyle=dashes, label=name)
    right.axhline(0, color=GREY, linewidth=0.8)
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    right.set(xlabel="center of the grid (decades from optimum)", ylabel="error of N* (%)")
    right.legend(fontsize=8)
    return figure


def _bias_at(surface: LossSurface, train_flops: float, center: float, half: float) -> float:
    grid = SizeGrid(lower=center - half, upper=center + half, reference_flops=train_flops)
    return optimum_bias(surface, train_flops, grid.num_params(surface, train_flops))


def _optimum_bounds(profile: IsoflopProfile, level: float) -> tuple[float, float, float]:
    """Lower bound, optimum, upper bound; without a standard error all three are the optimum."""
    if profile.fit is None:
        return (np.nan, np.nan, np.nan)
    half = student_factor(profile.fit.degrees_of_freedom, level) * profile.fit.log10_x_opt_standard_error
    half = half if np.isfinite(half) else 0.0
    return (profile.fit.law.x_opt * 10**-half, profile.fit.law.x_opt, profile.fit.law.x_opt * 10**half)


def _mark_optimum(ax: Axes, profile: IsoflopProfile, level: float) -> None:
    if profile.fit is None or not profile.has_optimum:
        return
    low, center, high = _optimum_bounds(profile, level)
    ax.plot([low, high], [profile.fit.law.loss_opt] * 2, color=INK, linewidth=1.8)
    ax.plot(center, profile.fit.law.loss_opt, "d", color=INK, markersize=5)


def _limit_to_estimates(ax: Axes, tables: Sequence[pd.DataFrame]) -> None:
    """Axis limits from the estimates and their standard errors: an interval of few points may run out of the panel."""
    every: Any = pd.concat(tables)
    low = float((every["exponent"] - 2.5 * every["standard_error"].fillna(0)).min())
    high = float((every["exponent"] + 2.5 * every["standard_error"].fillna(0)).max())
    margin = 0.15 * (high - low) or 0.05
    if np.isfinite(margin):  # no estimate, no limits
        ax.set_xlim(low - margin, high + margin)
