"""One look for every figure: sizes, colors that color-blind readers can distinguish, ink that follows the page."""

import math
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from companion.formatting import count, power_of_ten, true_minus

#: Stand-ins for colors that the page decides: `companion.plotting.embed` turns them into CSS.
INK, MUTED = "#010203", "#040506"

#: Font of every figure: matplotlib brings it along, so that a layout is the same on every machine.
FONT = "DejaVu Sans"

#: Multiples of powers of ten at which axes have ticks: the first that give two.
_STEPS = ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), tuple(np.arange(10, 100) / 10))

#: Color of an architecture everywhere in the book (seaborn's `colorblind` palette, Wong 2011).
ARCHITECTURE_COLORS = {"transformer": "#de8f05", "xlstm": "#0173b2"}
ARCHITECTURE_MARKERS = {"transformer": "s", "xlstm": "o"}
ARCHITECTURE_LABELS = {
    "transformer": "Transformer",
    "xlstm": "xLSTM",
    "gated_deltanet": "Gated DeltaNet",
    "gated_deltanet_3to1": "Gated DeltaNet and attention, 3:1",
    "gated_deltanet_7to1": "Gated DeltaNet and attention, 7:1",
}
#: For architectures that the book does not know: the rest of the palette.
_SPARE_COLORS = ("#029e73", "#cc78bc", "#ca9161", "#949494")
#: Their number has no divisor in common with that of the colors: twenty architectures look different.
_SPARE_MARKERS = ("^", "D", "v", "P", "X")

#: Names and units of the axes.
LABELS = {
    "num_params": "parameters N",
    "num_tokens": "training tokens D",
    "train_flops": "training compute C (FLOP)",
    "val_loss": "validation loss (nats/token)",
    "context_length": "context length T (tokens)",
    "tokens_per_param": "tokens per parameter M = D/N",
}

RC_PARAMS = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": MUTED,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "font.family": FONT,
    "svg.fonttype": "none",  # text stays text: small, searchable; pages have the font
    "svg.hashsalt": "companion",
}


def architecture_look(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`color`, `marker` and `label` of every architecture, those of the book and any other."""
    spare = zip(cycle(_SPARE_COLORS), cycle(_SPARE_MARKERS), strict=False)
    result: dict[str, dict[str, Any]] = {}
    for name in names:
        known = name in ARCHITECTURE_COLORS
        color, marker = (ARCHITECTURE_COLORS[name], ARCHITECTURE_MARKERS[name]) if known else next(spare)
        result[name] = {"color": color, "marker": marker, "label": ARCHITECTURE_LABELS.get(name, name)}
    return result


def architecture_label(name: str) -> str:
    """An architecture as pages write it: the book's label, else its own name."""
    return ARCHITECTURE_LABELS.get(name, name)


def subplots(
    num_rows: int = 1, num_columns: int = 1, *, height: float = 3.6, width: float = 7.2, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure in the book's style and its axes as a flat list.

    `width` and `height` are inches of the whole figure; further arguments go to `matplotlib.figure.Figure.subplots`.
    Sets matplotlib's defaults to the book's, so that legends and notes added later match. The figure is not registered
    with pyplot: nothing has to be closed, and nothing is shown until `companion.plotting.show`.

    Examples
    --------
    >>> figure, (left, right) = subplots(1, 2)
    >>> float(figure.get_figwidth())
    7.2
    """
    theme = {**sns.axes_style("ticks"), **RC_PARAMS}
    mpl.rcParams.update({key: value for key, value in theme.items() if key in mpl.rcParams})
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False, **kwargs).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(True, which="major")
        ax.set_axisbelow(True)
    return figure, axes


def panels(number: int, *, height: float = 3.6, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """A figure with as many panels as asked for, at most three in a row, each row of the given height (inches).

    Further arguments go to `subplots`. Panels of an unfinished last row are removed.
    """
    columns = min(max(number, 1), 3)
    rows = -(-max(number, 1) // columns)
    figure, axes = subplots(rows, columns, height=height if rows == 1 else 0.8 * height * rows, **kwargs)
    for spare in axes[number:] if number else []:
        spare.remove()
    return figure, axes[: max(number, 1)]


def count_ticks(axis: Axis, steps: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Ticks at these multiples of powers of ten, as counts: 200M, 1B.

    Over less than a decade matplotlib chooses other places; they get their labels with up to three digits: 150M.
    """
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short_count(value)))
    axis.set_minor_formatter(NullFormatter())


def power_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as powers of ten, for its limits of now: 10¹⁵; where these are few, 2×10¹⁵ too."""
    low, high = axis.get_view_interval()
    powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = powers
    for steps in _STEPS:
        ticks = np.outer(powers, steps).ravel()
        ticks = ticks[(low <= ticks) & (ticks <= high)]
        if len(ticks) > 1:
            break
    axis.set_major_locator(FixedLocator(ticks.tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value).removeprefix("1×")))
    axis.set_minor_formatter(NullFormatter())


def percent_ticks(axis: Axis) -> None:
    """Ticks of shares as plain numbers of percent; the label of the axis has the unit: (%)."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: true_minus(f"{round(100 * value, 6) + 0:g}")))


def _short_count(value: float) -> str:
    """`count` without zeros at the end of its digits: 20M, 1.5B."""
    text = count(value)
    digits = text.rstrip("kMBT")
    return f"{float(digits):g}{text.removeprefix(digits)}"
