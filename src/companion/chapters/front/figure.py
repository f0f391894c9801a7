"""The figure of the front page: loss over compute of both architectures, and the loss surfaces behind it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from companion.chapters.contours import label_contours
from companion.chapters.labels import label_of
from companion.fitting.fit import Fit, fit
from companion.fitting.overtraining.cost import fit_compute_scale
from companion.fitting.pareto import fit_front
from companion.formatting import percent, power_of_ten, significant
from companion.laws import LossSurface, optimum
from companion.plotting import Html, show
from companion.plotting.style import LABELS, architecture_look, count_ticks, subplots

Array = NDArray[np.float64]
#: Points of a curve over compute.
_POINTS = 25


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One architecture: its runs, its law, and the loss of its compute-optimal models.

    `train_flops` (FLOP), `loss`, and the ends `low` and `high` of the 95 % interval (nats per token) have shape (k,).
    """

    runs: pd.DataFrame
    law: Fit
    train_flops: Array
    loss: Array
    low: Array
    high: Array


def fit_headline(runs: pd.DataFrame, train_flops: Any, num_resamples: int = 200) -> Headline:
    """The law of all runs of one architecture at one context, and the least loss at every compute.

    Parameters
    ----------
    runs
        of one architecture at one context length.
    train_flops
        shape (k,), FLOP.
    num_resamples
        of the bootstrap behind the interval.
    """
    law, cost = fit(LossSurface, runs), fit_compute_scale(runs)
    laws = law.bootstrap(num_resamples).laws
    flops = np.asarray(train_flops, dtype=float)
    loss = np.array([float(optimum(law.law, cost, each).loss[0]) for each in flops])
    drawn = np.array([optimum(laws, cost, each).loss for each in flops])
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=1)
    return Headline(runs=runs, law=law, train_flops=flops, loss=loss, low=low, high=high)


def show_headline(runs: pd.DataFrame, num_resamples: int = 200) -> Html:
    """Loss over compute with intervals, and the loss surfaces.

    Parameters
    ----------
    runs
        at one context length; all of its architectures are drawn, over the compute that all of them cover.
    """
    ends = runs.groupby("architecture")["train_flops"].agg(["min", "max"])
    common = np.geomspace(ends["min"].max(), ends["max"].min(), _POINTS)
    found = {
        str(name): fit_headline(part, common, num_resamples) for name, part in runs.groupby("architecture", sort=True)
    }
    return show(
        headline(found),
        name="front-loss",
        alt="First panel: validation loss over training compute; the runs of xLSTM reach lower losses than those of "
        "the Transformer. Second panel: contours of equal loss over parameters and training tokens for both.",
        caption="Loss over compute: runs, the lowest losses reached (lines), and 95 % bands of the laws' "
        f"compute-optimal loss{overlap_words(found)}. Tokens over parameters: the laws as lines of equal loss (nats "
        f"per token){dash_words(list(found))}{exception_words(found)}.",
    )


def overlap_words(found: dict[str, Headline]) -> str:
    """From which compute on the bands of two architectures overlap, as a clause; empty if they never do."""
    if len(found) != 2:
        return ""
    one, other = found.values()
    overlap = (one.low <= other.high) & (other.low <= one.high)
    if not overlap.any():
        return ", which overlap nowhere"
    if not overlap[-1]:
        return ", which overlap in places"
    apart = np.flatnonzero(~overlap)
    since = one.train_flops[apart[-1] + 1] if apart.size else one.train_flops[0]
    return f", which from {power_of_ten(float(since), 1)} FLOP on overlap and no longer tell the two apart"


def exception_words(found: dict[str, Headline]) -> str:
    """At which of all runs the first law lies below the second, as a clause; empty if at none or without a pair."""
    if len(found) != 2:
        return ""
    runs = pd.concat([each.runs for each in found.values()])
    n, d = runs["num_params"].to_numpy(dtype=float), runs["num_tokens"].to_numpy(dtype=float)
    one, other = (each.law.law.predict(n, d) for each in found.values())
    lower = one < other
    if not lower.any():
        return ""
    ratio, share = significant(float(np.median(d[lower] / n[lower])), 2), percent(float(lower.mean()))
    return (
        f"; the {label_of(next(iter(found)))} is lower at {share} of the runs' sizes and tokens, "
        f"in the median with {ratio} tokens per parameter"
    )


def dash_words(names: list[str]) -> str:
    """Which lines belong to which architecture, as a clause; empty for a single one."""
    dashed = [label_of(name) for name in names[:-1]]
    return f", full for {label_of(names[-1])}, dashed for {' and '.join(dashed)}" if dashed else ""


def headline(found: dict[str, Headline]) -> Figure:
    """Both panels; `found` by architecture."""
    figure, (left, right) = subplots(1, 2, height=3.5)
    look = architecture_look(found)
    for name, each in found.items():
        color = look[name]["color"]
        flops, loss = each.runs["train_flops"], each.runs["val_loss"]
        left.plot(flops, loss, look[name]["marker"], color=color, markersize=2.6, alpha=0.3, markeredgewidth=0)
        hull = fit_front(flops, loss).hull()
        left.plot(hull.train_flops, hull.loss, color=color, linewidth=1.4, label=look[name]["label"])
        left.fill_between(each.train_flops, each.low, each.high, color=color, alpha=0.35, linewidth=0)
    left.set(xscale="log", yscale="log", xlabel=LABELS["train_flops"], ylabel=LABELS["val_loss"])
    _loss_ticks(left, found)
    left.legend(loc="upper right")
    _surfaces(right, found)
    return figure


def _loss_ticks(ax: Axes, found: dict[str, Headline]) -> None:
    losses = pd.concat([each.runs["val_loss"] for each in found.values()])
    ticks = [tick for tick in np.arange(1.5, 6.1, 0.5) if losses.min() <= tick <= losses.max()]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)


def _surfaces(ax: Axes, found: dict[str, Headline]) -> None:
    """Contours of every law over the sizes and tokens of all runs: full lines for the last, dashes for the others."""
    every = pd.concat([each.runs for each in found.values()])
    n = np.geomspace(every["num_params"].min(), every["num_params"].max(), 70)
    d = np.geomspace(every["num_tokens"].min(), every["num_tokens"].max(), 70)
    look = architecture_look(found)
    for position, (name, each) in enumerate(found.items()):
        dashes: Literal["-", "--"] = "-" if position == len(found) - 1 else "--"
        values = each.law.law.predict(n[None, :], d[:, None])
        levels = [level for level in np.arange(1.6, 6.0, 0.2).round(1) if values.min() < level < values.max()]
        ax.contour(n, d, values, levels=levels, colors=look[name]["color"], linewidths=1.2, linestyles=dashes)
        if dashes == "-":
            label_contours(ax, n, d, values, levels)
    ax.set(xscale="log", yscale="log", xlabel=LABELS["num_params"], ylabel=LABELS["num_tokens"])
    ax.grid(False)
    count_ticks(ax.xaxis, (1.0, 3.0))
    count_ticks(ax.yaxis, (1.0,))
