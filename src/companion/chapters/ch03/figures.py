"""Figures of the IsoFLOP chapter: `show_...` are what its page shows, with captions."""

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from companion.chapters.ch03.student import student_factor
from companion.chapters.ch03.tables import Key
from companion.chapters.labels import OPTIMUM_LABELS, SYMBOLS
from companion.fitting.isoflop.joint import JointIsoflopFit
from companion.fitting.isoflop.profiles import IsoflopFit, IsoflopProfile
from companion.formatting import level_text, power_of_ten
from companion.plotting import Html, show
from companion.plotting.style import (
    INK,
    LABELS,
    architecture_look,
    count_ticks,
    panels,
    percent_ticks,
    subplots,
)

EXPONENT_LABELS = {"num_params": "exponent a of N*", "num_tokens": "exponent b of D*"}
GREY = "#888888"
_BUDGET_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
#: Two valleys end beside each other where the larger size is less than this factor times the smaller.
_NEAR_ENDS = 2
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def show_profiles(every: Mapping[Key, IsoflopFit]) -> Html:
    """Loss over N with a parabola per budget; fits by architecture and x."""
    return show(
        isoflop_profiles({name: fit for (name, x), fit in every.items() if x == "num_params"}),
        name="isoflop-profiles",
        alt="Loss over parameters: one valley for every budget, with a parabola through its runs and a mark at its "
        "bottom.",
        caption="One valley per budget (FLOP), named at its right end. Points are runs, lines parabolas; a "
        "diamond marks the lowest point, with its 95 % interval.",
    )


def show_power_laws(
    fits: Mapping[Key, IsoflopFit], joint: Mapping[Key, JointIsoflopFit], budgets: Mapping[str, Collection[float]]
) -> Html:
    """Optima and joint laws over compute; arguments as for `power_laws`."""
    return show(
        power_laws(fits, joint, budgets),
        name="isoflop-power-laws",
        alt="Optimal parameters and optimal tokens over compute: points on straight lines in log-log axes.",
        caption="The best size and the best number of tokens at every budget, with joint power laws and their 95 % "
        "bands. Hollow: the optimum of a budget that the laws leave out.",
    )


def show_law_residuals(
    fits: Mapping[Key, IsoflopFit], joint: Mapping[Key, JointIsoflopFit], budgets: Mapping[str, Collection[float]]
) -> Html:
    """Distance of every optimum from its joint law; arguments as for `power_laws`."""
    return show(
        law_residuals(fits, joint, budgets),
        name="isoflop-law-residuals",
        alt="Distance of each optimum from the joint law of its architecture, over compute, with error bars.",
        caption="How far each optimum lies from the joint law, with 95 % intervals and the band of the law. Hollow: "
        "the optimum of a budget that the laws leave out.",
    )


def show_choices(choices: Mapping[Key, pd.DataFrame]) -> Html:
    """Exponents by choice of procedure; tables of `exponent_choices` by architecture and x."""
    return show(
        exponent_forest(choices),
        name="isoflop-exponents",
        alt="Exponents of optimal parameters and tokens with intervals, one row for every choice of procedure.",
        caption="The exponents under each choice of procedure. Thick: one standard error. Thin: 95 % interval; some "
        "run out of the panel. “Published” is the paper's procedure on these runs. A choice that changes nothing for "
        "an architecture has no mark of it.",
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
            ends = [other.x.max() / profile.x.max() for other in fits[name].profiles]
            _name_budget(ax, profile, beside=any(1 < end < _NEAR_ENDS for end in ends))
        ax.margins(x=0.08)
        ax.set(xscale="log", xlabel=LABELS[x_column], title=look["label"])
        count_ticks(ax.xaxis)
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + 0.05 * (high - low))  # room for the highest name
    axes[0].set_ylabel(LABELS["val_loss"])
    optimum = Line2D(
        [], [], color=INK, marker="d", markersize=6, linewidth=1.6, label=f"optimum, {level_text(level)} interval"
    )
    figure.legend(handles=[optimum], loc="outside lower center")
    return figure


def power_laws(
    fits: Mapping[Key, IsoflopFit],
    joints: Mapping[Key, JointIsoflopFit],
    budgets: Mapping[str, Collection[float]],
    level: float = 0.95,
) -> Figure:
    """N\\*(C) and D\\*(C): optima, the joint laws and their bands.

    Parameters
    ----------
    fits
        by architecture and x; their optima are the points, with delta-method intervals.
    joints
        by architecture and x; their laws are the lines. Without one the optima alone are drawn.
    budgets
        by architecture: the budgets that the joint fit used. Optima of other budgets are hollow.
    level
        of intervals and bands.
    """
    figure, axes, handles = _over_compute(fits, joints, budgets, level, relative=False)
    for x, ax in axes.items():
        ax.set(yscale="log", ylabel=OPTIMUM_LABELS[x])
        count_ticks(ax.yaxis)
    next(iter(axes.values())).legend(handles=handles, loc="upper left")  # lines rise: this corner is free
    return figure


def law_residuals(
    fits: Mapping[Key, IsoflopFit],
    joints: Mapping[Key, JointIsoflopFit],
    budgets: Mapping[str, Collection[float]],
    level: float = 0.95,
) -> Figure:
    """How far each optimum lies from its joint law, with the band of the law; arguments as for `power_laws`."""
    figure, axes, handles = _over_compute(fits, joints, budgets, level, relative=True)
    for x, ax in axes.items():
        ax.axhline(0, color=GREY, linewidth=0.8)
        percent_ticks(ax.yaxis)
        ax.set(ylabel=f"{SYMBOLS[x]} against the law (%)")
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 3))
    return figure


def _over_compute(
    fits: Mapping[Key, IsoflopFit],
    joints: Mapping[Key, JointIsoflopFit],
    budgets: Mapping[str, Collection[float]],
    level: float,
    *,
    relative: bool,
) -> tuple[Figure, dict[str, Axes], list[Line2D]]:
    """Optima and laws over compute in a panel per x, and what a legend shows; `relative`: over the law, minus 1."""
    columns = list(dict.fromkeys(x for _, x in fits))
    figure, panels_ = subplots(1, len(columns), height=2.6)
    axes = dict(zip(columns, panels_, strict=True))
    appearance = architecture_look(list(dict.fromkeys(name for name, _ in fits)))
    dashes = dict(zip(appearance, cycle(DASHES), strict=False))
    for (name, x), fit in fits.items():
        joint = joints.get((name, x))
        if relative and joint is None:
            continue
        ax, color, marker = axes[x], appearance[name]["color"], appearance[name]["marker"]
        if joint is not None:
            flops = np.array([profile.mean_train_flops for profile in fit.optima])
            grid = np.geomspace(flops.min() / 1.3, flops.max() * 1.3, 60)
            low, high = joint.predict_interval(grid, level)
            law = joint.law.predict(grid)
            scale, zero = (law, 1.0) if relative else (1.0, 0.0)
            ax.plot(grid, law / scale - zero, color=color, linestyle=dashes[name])
            ax.fill_between(grid, low / scale - zero, high / scale - zero, color=color, alpha=0.2, linewidth=0)
        # optima of equal compute would hide each other where they are close to the law
        aside = 1.08 ** (list(appearance).index(name) - (len(appearance) - 1) / 2) if relative else 1.0
        for profile in fit.optima:
            used = any(np.isclose(profile.isoflop_budget, budget) for budget in budgets[name])
            bounds = np.array(_optimum_bounds(profile, level))
            if relative and joint is not None:
                bounds = bounds / float(joint.law.predict(profile.mean_train_flops)) - 1
            ax.errorbar(
                profile.mean_train_flops * aside, bounds[1], yerr=np.diff(bounds)[:, None], color=color,
                marker=marker, markerfacecolor=color if used else "none", markersize=5.5, linewidth=1.2,
            )  # fmt: skip
    for ax in axes.values():
        ax.set(xscale="log", xlabel=LABELS["train_flops"])
    handles = [
        Line2D([], [], color=look["color"], marker=look["marker"], linestyle=dashes[name], label=look["label"])
        for name, look in appearance.items()
    ]
    return figure, axes, handles


def exponent_forest(tables: Mapping[Key, pd.DataFrame]) -> Figure:
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
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%.2f"))
        ax.grid(False, axis="y")
    handles = [
        Line2D([], [], color=look["color"], marker=look["marker"], label=look["label"]) for look in appearance.values()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


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


def _name_budget(ax: Axes, profile: IsoflopProfile, beside: bool) -> None:
    """The budget above the right end of its valley, where curves lie apart; more to the left if one ends `beside`."""
    top = float(profile.loss[profile.x == profile.x.max()].max())
    if profile.fit is not None:
        top = max(top, float(profile.fit.law.predict(profile.x.max())))
    ax.annotate(
        power_of_ten(profile.isoflop_budget), (float(profile.x.max()), top), xytext=(8 if beside else 0, 4),
        textcoords="offset points", fontsize=9, ha="right" if beside else "center", va="bottom",
    )  # fmt: skip


def _limit_to_estimates(ax: Axes, tables: Sequence[pd.DataFrame]) -> None:
    """Axis limits from the estimates and their standard errors: an interval of few points may run out of the panel."""
    every: Any = pd.concat(tables)
    low = float((every["exponent"] - 2.5 * every["standard_error"].fillna(0)).min())
    high = float((every["exponent"] + 2.5 * every["standard_error"].fillna(0)).max())
    margin = 0.15 * (high - low) or 0.05
    if np.isfinite(margin):  # no estimate, no limits
        ax.set_xlim(low - margin, high + margin)
