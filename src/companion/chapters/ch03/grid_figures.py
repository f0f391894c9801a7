"""Figures of the grid of sizes: parabolas through one side of a valley, and parabolas through exact losses."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from companion.chapters.ch03.figures import DASHES, GREY
from companion.chapters.ch03.grids import one_sided
from companion.chapters.ch03.tables import Key
from companion.fitting.isoflop.bias import GRIDS, SizeGrid, noise_free_profile, optimum_bias
from companion.fitting.isoflop.profiles import IsoflopFit, IsoflopProfile
from companion.formatting import power_of_ten
from companion.laws import LossSurface
from companion.plotting import Html, show
from companion.plotting.style import INK, LABELS, architecture_look, count_ticks, panels, percent_ticks, subplots

#: Decades to either side of the optimum that the left panel of `noise_free_bias` shows.
_ZOOM = 0.3
_SURFACE_COLORS = (INK, "#029e73", "#cc78bc", "#ca9161", "#949494")  # none of an architecture


def show_one_sided_profiles(main: Mapping[Key, IsoflopFit], reach: float) -> Html:
    """Parabolas through one side of the grid at the highest budget; fits by architecture and x."""
    return show(
        one_sided_profiles({name: fit.optima[-1] for (name, x), fit in main.items() if x == "num_params"}, reach),
        name="isoflop-one-sided",
        alt="IsoFLOP profiles, each with a parabola through all sizes and two through the sizes of one side.",
        caption="The highest main budget. Three parabolas, through all sizes and through either side of the grid, have "
        "their lowest points (diamonds) at different sizes.",
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
        alt="An exact profile with three parabolas that miss its bottom, and the error over the grid's center.",
        caption="An error without noise. First: the exact loss near its optimum, and parabolas through three grids of "
        "equal width, each a decade; diamonds mark their lowest points. Then: the error of N* grows as the grid's "
        "center leaves the optimum.",
    )


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
        for (label, part), dashes in zip(sides.items(), DASHES, strict=False):
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
    decades = np.linspace(-_ZOOM, _ZOOM, 121)
    loss = np.asarray(surface.predict(optimum * 10**decades, tokens * 10**-decades))
    left.plot(decades, loss, color=GREY, linewidth=3, alpha=0.7, label="exact")
    lowest = [float(loss.min())]
    for name, dashes in zip(grids, DASHES, strict=False):
        sizes = shapes[name].num_params(surface, train_flops)
        fit = noise_free_profile(surface, train_flops, sizes).fit
        if fit is not None:
            left.plot(
                decades, fit.law.predict(optimum * 10**decades), color=INK, linestyle=dashes, linewidth=1.2, label=name
            )
            lowest.append(fit.law.loss_opt)
            left.plot(np.log10(fit.law.x_opt / optimum), fit.law.loss_opt, "d", color=INK, markersize=6)
    left.axvline(0, ymax=0.68, color=GREY, linewidth=0.8)  # the legend is above
    height = max(np.ptp(loss), loss.min() - min(lowest))
    left.set_ylim(min(lowest) - 0.2 * height, loss.min() + 1.6 * height)
    left.set(
        xlabel="N over the true optimum (decades)", ylabel=LABELS["val_loss"].replace("validation ", ""), title=label
    )
    left.legend(fontsize=9)
    half = (shapes[grids[0]].upper - shapes[grids[0]].lower) / 2
    centers = np.linspace(-0.6, 0.6, 49)
    colors = cycle(_SURFACE_COLORS)
    for (name, each), color, dashes in zip(surfaces.items(), colors, cycle(DASHES), strict=False):
        bias = [10 ** _bias_at(each, train_flops, center, half) - 1 for center in centers]
        right.plot(centers, bias, color=color, linestyle=dashes, label=name)
    right.axhline(0, color=GREY, linewidth=0.8)
    percent_ticks(right.yaxis)
    right.set(xlabel="center of the grid (decades)", ylabel="error of N* (%)")
    low, high = right.get_ylim()
    right.set_ylim(low, high + 0.45 * (high - low))  # room for the legend
    right.legend(fontsize=9)
    return figure


def _bias_at(surface: LossSurface, train_flops: float, center: float, half: float) -> float:
    grid = SizeGrid(lower=center - half, upper=center + half, reference_flops=train_flops)
    return optimum_bias(surface, train_flops, grid.num_params(surface, train_flops))
