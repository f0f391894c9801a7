"""Chapter 8: the figures that compare two architectures over the context."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from companion.chapters.ch08.figures import GREY, QUANTITY_LABELS, token_ticks
from companion.inference.compare import Comparison
from companion.plotting.style import INK, LABELS, architecture_look, subplots

METHOD_DASHES: dict[str, Any] = {"measured": "-", "roofline": "--", "count": "-"}
METHOD_LABELS = {"measured": "as timed", "roofline": "roofline"}


def ratio_over_context(comparisons: Mapping[str, Comparison], measured_to: float) -> Figure:
    """Ratio of the two architectures over the context, with intervals; rows: comparisons, columns: quantities.

    Parameters
    ----------
    comparisons
        by title, of `companion.inference.compare.compare_trained`.
    measured_to
        longest context of the timings (tokens): beyond it the page is shaded.
    """
    quantities = ("ttft", "step_time")
    rows = len(comparisons)
    figure, axes = subplots(rows, 2, height=2.3 * rows + 0.5, sharex=True, sharey="col")
    for row, (title, comparison) in enumerate(comparisons.items()):
        color = architecture_look([comparison.first])[comparison.first]["color"]
        for ax, quantity in zip(axes[2 * row : 2 * row + 2], quantities, strict=True):
            part = comparison.table[comparison.table["quantity"] == quantity]
            for method, group in part.groupby("method", sort=False):
                T = group["context_length"]
                ink = INK if method == "roofline" else color
                ax.plot(T, group["ratio"], METHOD_DASHES[str(method)], color=ink)
                ax.fill_between(T, group["ratio_low"], group["ratio_high"], color=ink, alpha=0.2, linewidth=0)
            ax.axhline(1, color=INK, linewidth=1)
            longest = float(part["context_length"].max())
            if longest > measured_to:
                ax.axvspan(measured_to, longest, color=GREY, alpha=0.12, linewidth=0)
            ax.set(xscale="log", yscale="log", title=f"{_quantity(quantity)}, {title}")
            _ratio_axis(ax)
            token_ticks(ax.xaxis, part["context_length"])
        looks = architecture_look([comparison.first, comparison.second])
        axes[2 * row].set_ylabel(f"{looks[comparison.second]['label']} / {looks[comparison.first]['label']}")
    for ax in axes[-2:]:
        ax.set_xlabel(LABELS["context_length"])
    handles = [
        Line2D([], [], color=INK if method == "roofline" else color, linestyle=METHOD_DASHES[method], label=label)
        for method, label in METHOD_LABELS.items()
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=8, alpha=0.25, label="beyond the timings"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _quantity(quantity: str) -> str:
    return QUANTITY_LABELS.get(quantity, quantity).removesuffix(" (s)")


def _ratio_axis(ax: Axes) -> None:
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
