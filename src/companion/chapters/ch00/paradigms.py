"""The two ways to a scaling law in one picture: valleys at fixed compute, and a surface over sizes and tokens."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.chapters.contours import label_contours
from companion.chapters.labels import label_of
from companion.fitting.fit import Fit
from companion.fitting.isoflop.profiles import IsoflopFit
from companion.formatting import power_of_ten
from companion.plotting import Html, show
from companion.plotting.style import INK, LABELS, architecture_look, count_ticks, subplots


def show_paradigms(architecture: str, valleys: IsoflopFit, surface: Fit, runs: pd.DataFrame) -> Html:
    """IsoFLOP profiles with their parabolas, and the contours of the parametric law, of one architecture.

    Parameters
    ----------
    valleys
        over `num_params`.
    surface
        the law of `runs`.
    runs
        of the architecture at one context.
    """
    return show(
        paradigms(architecture, valleys, surface, runs),
        name="paper-paradigms",
        alt="IsoFLOP: loss over parameters, one valley for every compute budget, with a parabola and its lowest point. "
        "Parametric: lines of equal loss over parameters and tokens, the runs as points.",
        caption=f"{label_of(architecture)}. IsoFLOP: runs of equal compute, a parabola for each budget (FLOP), its "
        "lowest point marked. Parametric: the fitted surface as lines of equal loss (nats per token), with the "
        "runs behind it.",
    )


def paradigms(architecture: str, valleys: IsoflopFit, surface: Fit, runs: pd.DataFrame) -> Figure:
    """Both panels; arguments as for `show_paradigms`."""
    color = architecture_look([architecture])[architecture]["color"]
    figure, (left, right) = subplots(1, 2, height=3.6)
    for profile in valleys.profiles:
        left.plot(profile.x, profile.loss, ".", color=color, markersize=5, alpha=0.5, markeredgewidth=0)
        if profile.fit is not None:
            grid = np.geomspace(profile.x.min(), profile.x.max(), 60)
            left.plot(grid, profile.fit.law.predict(grid), color=color, linewidth=1.2)
            left.plot(profile.fit.law.x_opt, profile.fit.law.loss_opt, "d", color=INK, markersize=5)
        text = power_of_ten(profile.isoflop_budget, 1)
        left.annotate(
            text,
            (profile.x.max(), profile.loss[np.argmax(profile.x)]),
            (2, 3),
            textcoords="offset points",
            fontsize=8.5,
        )
    left.set(xscale="log", xlabel=LABELS["num_params"], ylabel=LABELS["val_loss"], title="IsoFLOP: valleys")
    left.margins(x=0.16, y=0.1)
    count_ticks(left.xaxis, (1.0, 3.0))
    _contours(right, surface, runs, color)
    return figure


def _contours(ax: Axes, surface: Fit, runs: pd.DataFrame, color: str) -> None:
    n = np.geomspace(runs["num_params"].min() / 1.2, runs["num_params"].max() * 1.2, 70)
    d = np.geomspace(runs["num_tokens"].min() / 1.2, runs["num_tokens"].max() * 1.2, 70)
    loss = surface.law.predict(n[None, :], d[:, None])
    levels = np.arange(0.0, 12.0, 0.2).round(1)
    levels = levels[(levels > loss.min()) & (levels < loss.max())]
    ax.contour(n, d, loss, levels=levels, colors=INK, linewidths=0.9)
    label_contours(ax, n, d, loss, levels)
    ax.plot(runs["num_params"], runs["num_tokens"], ".", color=color, markersize=4, alpha=0.6, markeredgewidth=0)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=LABELS["num_params"],
        ylabel=LABELS["num_tokens"],
        title="Parametric: a surface",
    )
    ax.grid(False)
    count_ticks(ax.xaxis, (1.0, 3.0))
    count_ticks(ax.yaxis, (1.0,))
