"""Drawings of chapter 0: one block of each architecture, and what each of them remembers."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from companion.plotting import Html, show
from companion.plotting.style import INK, architecture_look, subplots

_GREY = "#888888"
#: What stands where attention stands in a Transformer, from the bottom up.
_MIXERS = {
    "transformer": ("q, k, v with rotary positions", "softmax attention\nover all earlier tokens", "projection"),
    "xlstm": (
        "q, k, v; two scalar gates per head",
        "mLSTM cell\nwith a matrix memory",
        "head norm, output gate,\nprojection",
    ),
}
_TITLES = {"transformer": "Transformer block", "xlstm": "xLSTM block"}


def show_blocks() -> Html:
    """One block of each architecture."""
    return show(
        blocks(),
        name="paper-blocks",
        alt="Two columns of boxes, each from the bottom up: norm, mixer, sum, norm, feed-forward, sum. "
        "They differ in the mixer alone: attention in the first, the mLSTM layer in the second.",
        caption="Both blocks from the bottom up. Colored: the sequence mixer, the only part that differs.",
    )


def show_memories(states: NDArray[np.float64]) -> Html:
    """What attention and the mLSTM keep after every token.

    Parameters
    ----------
    states
        matrix memories of a small head after every token, shape (num_tokens, d_qk, d_hv).
    """
    return show(
        memories(states),
        name="paper-memories",
        alt="Attention: a stack of keys and values that gets one entry higher with every token. mLSTM: a square of "
        "numbers that keeps its size while its entries change.",
        caption="What is kept after each token. Attention: a key and a value more each time. mLSTM: the memory "
        "of a small head, computed; a stronger color is a larger size. It is rewritten and never grows.",
    )


def blocks() -> Figure:
    """The boxes of both blocks, a panel each."""
    figure, axes = subplots(1, 2, height=4.2)
    for ax, (name, look) in zip(axes, architecture_look(_MIXERS).items(), strict=True):
        _bare(ax, _TITLES[name])
        ax.set(xlim=(0, 10), ylim=(0, 16.4))
        low, middle, high = _MIXERS[name]
        _sum(ax, 10.4)
        _sum(ax, 15.5)
        _box(ax, 0.9, 1.3, "RMSNorm")
        _box(ax, 2.9, 1.3, low, look["color"])
        _box(ax, 4.9, 2.0, middle, look["color"])
        _box(ax, 7.6, 1.9, high, look["color"])
        _box(ax, 11.3, 1.3, "RMSNorm")
        _box(ax, 13.3, 1.3, "SwiGLU feed-forward")
        for start, end in ((0.0, 0.9), (2.2, 2.9), (4.2, 4.9), (6.9, 7.6), (9.5, 10.1), (10.7, 11.3), (12.6, 13.3)):
            _arrow(ax, (5.4, start), (5.4, end))
        _arrow(ax, (5.4, 14.6), (5.4, 15.2))
        _residual(ax, 0.45, 10.4)
        _residual(ax, 11.0, 15.5)
    return figure


def memories(states: NDArray[np.float64]) -> Figure:
    """Stacks of keys and values that grow, and the matrix memory of a head that does not."""
    look, number = architecture_look(_MIXERS), len(states)
    figure, (left, right) = subplots(1, 2, height=2.6)
    _bare(left, "Attention: one entry per token")
    left.set(xlim=(-0.2, number), ylim=(-1.3, number + 0.2))
    for token in range(number):
        for entry in range(token + 1):
            for half, shade in ((0.0, 0.75), (0.4, 0.35)):  # key and value
                style = {"facecolor": look["transformer"]["color"], "edgecolor": "none", "alpha": shade}
                cell = Rectangle((token + half, entry), 0.36, 0.8, **style)
                left.add_patch(cell)
        left.text(token + 0.38, -0.35, f"t = {token + 1}", ha="center", va="top", fontsize=9)
    _bare(right, "mLSTM: one memory, rewritten")
    right.set(xlim=(-0.2, number), ylim=(-1.3, number + 0.2))
    size = np.abs(states) / np.abs(states).max()
    step, height = 0.8 / states.shape[2], 3.4 / states.shape[1]
    for token in range(number):
        for row in range(states.shape[1]):
            for column in range(states.shape[2]):
                corner = (token + column * step, row * height)
                shade = 0.08 + 0.92 * float(size[token, row, column])
                color = look["xlstm"]["color"]
                style = {"facecolor": color, "edgecolor": "none", "alpha": shade}
                right.add_patch(Rectangle(corner, 0.92 * step, 0.92 * height, **style))
        right.text(token + 0.38, -0.35, f"t = {token + 1}", ha="center", va="top", fontsize=9)
    return figure


def _bare(ax: Axes, title: str) -> None:
    """No axes, only a title: a drawing has no scale."""
    ax.set_axis_off()
    ax.set_title(title)


def _box(ax: Axes, bottom: float, height: float, text: str, color: str | None = None) -> None:
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": _GREY, "linewidth": 1.1}
    ax.add_patch(Rectangle((1.6, bottom), 7.6, height, **style))
    if color is not None:
        ax.add_patch(Rectangle((1.6, bottom), 7.6, height, facecolor=color, edgecolor="none", alpha=0.25))
    ax.text(5.4, bottom + height / 2, text, ha="center", va="center", fontsize=9)


def _sum(ax: Axes, height: float) -> None:
    ax.plot([5.4], [height], "o", markersize=11, markerfacecolor="none", markeredgecolor=_GREY)
    ax.text(5.4, height, "+", ha="center", va="center", fontsize=10)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.0})


def _residual(ax: Axes, start: float, end: float) -> None:
    """The path around a branch."""
    ax.plot([5.4, 0.7, 0.7], [start, start, end], color=_GREY, linewidth=1.1)
    ax.annotate("", (4.9, end), (0.7, end), arrowprops={"arrowstyle": "->", "color": _GREY, "linewidth": 1.1})
