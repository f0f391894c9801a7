"""Ratios of times over the context: the authors' timings and ours, for chapter 8."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion.chapters.ch14.labels import QUANTITY_NAMES, tokens_text
from companion.chapters.ch14.measured import PARTS, Measured
from companion.errors import NotApplicable
from companion.inference.timings import COLUMNS, Quantity, measured, middle_context
from companion.plotting import LABELS as AXIS_LABELS
from companion.plotting import Html, show, subplots
from companion.plotting.style import ARCHITECTURE_COLORS, count_ticks

#: Context (tokens) at which the text compares.
AT = 16384


def authors_ratio(authors: pd.DataFrame, quantity: Quantity, size: str, batch: int) -> pd.Series:
    """Time of the Transformer over that of the xLSTM, by context, in a table of timings; empty without them."""
    sides = []
    for name in ("transformer", "xlstm"):
        rows = measured(authors, name, quantity)
        rows = rows[(rows["model_size"] == size) & (rows["batch_size"] == batch)]
        context = rows["prefill_length"] if quantity == "ttft" else middle_context(rows)
        times = rows.assign(context_length=context).groupby("context_length")[COLUMNS[quantity]].mean()
        sides.append(times[times.index > 0])
    return (sides[0] / sides[1]).dropna()


def own_ratio(recorded: Measured, quantity: Quantity, size: str, batch: int, over: str = "transformer") -> pd.Series:
    """Time of a model with attention over that of the xLSTM, by context, in our records."""
    sides = [
        recorded.series(PARTS[quantity], model, size, batch).set_index("prompt_tokens")["seconds_median"]
        for model in (over, "xlstm")
    ]
    ratio = (sides[0] / sides[1]).dropna()
    return ratio[ratio.index > 0]


def show_own_ratios(recorded: Measured, authors: pd.DataFrame, size: str, batch: int = 1) -> Html:
    """Ratio of times over the context: authors' timings, ours, and ours against grouped heads.

    Raises
    ------
    NotApplicable
        if our records lack the size.
    """
    if size not in recorded.sizes:
        raise NotApplicable(f"our records have no {size}; there are {', '.join(recorded.sizes)}")
    figure, axes = subplots(1, 2, height=3.2, sharey=True)
    for ax, quantity in zip(axes, PARTS, strict=True):
        lines: Mapping[str, tuple[pd.Series, dict[str, object]]] = {
            "authors": (
                authors_ratio(authors, quantity, size, batch),
                {"marker": "x", "linestyle": ":", "color": "0.45"},
            ),
            "ours": (
                own_ratio(recorded, quantity, size, batch),
                {"marker": "s", "linestyle": "-", "color": ARCHITECTURE_COLORS["transformer"]},
            ),
            "ours, grouped heads": (
                own_ratio(recorded, quantity, size, batch, "grouped"),
                {"marker": "^", "linestyle": "--", "color": "#029e73"},
            ),
        }
        for label, (ratio, look) in lines.items():
            ax.plot(ratio.index, ratio, label=label, markersize=4.5, **look)  # type: ignore[arg-type]
        ax.axhline(1, color="0.5", linewidth=1)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        count_ticks(ax.yaxis)
        ticks = [2**n for n in range(7, 18, 2)]
        ax.set_xticks(ticks, [tokens_text(tick) for tick in ticks])
        ax.set_xlabel(AXIS_LABELS["context_length"])
        ax.set_title(QUANTITY_NAMES[quantity])
    axes[0].set_ylabel("Transformer / xLSTM")
    axes[0].legend(loc="upper left")
    return show(
        figure,
        name="inference-own-kernels",
        alt="Ratio of the Transformer's time to the xLSTM's over the context, in the authors' timings and in ours: "
        "rising lines that cross one at different contexts.",
        caption=f"Time of the Transformer over that of the xLSTM at equal size ({size}), B = {batch}: the authors' "
        f"timings, and ours on {recorded.device} with kernels of our own. Above 1 the xLSTM is faster.",
    )


def own_ratio_facts(recorded: Measured, authors: pd.DataFrame, size: str, batch: int = 1) -> dict[str, object]:
    """Ratios at a long context, the authors' and ours; a dash where one is missing."""
    facts: dict[str, object] = {"c8_own_device": recorded.device, "c8_own_at": tokens_text(AT), "c8_own_size": size}
    for quantity, word in (("ttft", "first"), ("step_time", "step")):
        series = {
            "theirs": authors_ratio(authors, quantity, size, batch),  # type: ignore[arg-type]
            "ours": own_ratio(recorded, quantity, size, batch),  # type: ignore[arg-type]
            "grouped": own_ratio(recorded, quantity, size, batch, "grouped"),  # type: ignore[arg-type]
        }
        facts |= {f"c8_own_{word}_{whose}": _at(ratio) for whose, ratio in series.items()}
    return facts


def _at(ratio: pd.Series) -> str:
    """A ratio at the context of the text, between neighbors by a straight line in log-log axes; a dash outside."""
    if ratio.empty or not ratio.index.min() <= AT <= ratio.index.max():
        return "–"
    return f"{np.exp(np.interp(np.log(AT), np.log(ratio.index.to_numpy(dtype=float)), np.log(ratio.to_numpy()))):.2f}"
