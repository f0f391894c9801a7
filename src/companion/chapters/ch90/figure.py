"""The figure of the ledger: how much of its tolerance every difference uses."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from companion.chapters.ch90.words import SECTION_TITLES
from companion.formatting import power_of_ten
from companion.ledger import DIFFERS, NOT_ATTEMPTED, REPRODUCED
from companion.plotting import Html, show
from companion.plotting.style import INK, subplots

#: Differences below and above these multiples of the tolerance are drawn there: many are exactly zero.
_FLOOR, _CEILING = 1e-4, 1e2
#: Longest line of a section's name, in characters.
_LINE = 20


def tolerance_figure(ledger: pd.DataFrame) -> Html:
    """Every difference over its tolerance."""
    return show(
        tolerance_use(ledger),
        name="ledger-tolerance",
        alt="For every number that was computed, its difference over its tolerance, one line of marks per section.",
        caption="Difference over tolerance of every published number. Left of the dashed line a number is reproduced; "
        "open circles are not independent evidence. Marks at the left edge stand for smaller differences, zero among "
        "them; marks at the right edge for larger ones.",
    )


def tolerance_use(ledger: pd.DataFrame, sections: Sequence[str] = tuple(SECTION_TITLES)) -> Figure:
    """|difference| over tolerance for every number that was computed, one line per section; 1 is the limit."""
    done = ledger[ledger["verdict"] != NOT_ATTEMPTED]
    shown = [section for section in sections if section in set(done["section"])]
    figure, [ax] = subplots(height=0.9 + 0.33 * max(len(shown), 1))
    independent = done["independent"].astype(bool)
    kinds: tuple[tuple[str, pd.DataFrame, dict[str, Any]], ...] = (
        ("reproduced", done[(done["verdict"] == REPRODUCED) & independent], {"marker": "o", "color": "#0173b2"}),
        (
            "reproduced, not independent",
            done[(done["verdict"] == REPRODUCED) & ~independent],
            {"marker": "o", "color": "#0173b2", "markerfacecolor": "none", "markeredgewidth": 0.9},
        ),
        ("differs", done[done["verdict"] == DIFFERS], {"marker": "X", "color": "#de8f05", "markersize": 6}),
    )
    for label, rows, look in kinds:
        use = (rows["difference"].astype(float).abs() / rows["tolerance"].astype(float)).clip(_FLOOR, _CEILING)
        place = rows["section"].map({section: i for i, section in enumerate(shown)}).to_numpy(dtype=float)
        # spread within the line by order, so that equal values do not hide each other
        offset = 0.5 * ((np.arange(len(rows)) * 0.618) % 1 - 0.5)
        plain: dict[str, Any] = {"markersize": 4, "markeredgewidth": 0, "alpha": 0.75, "linestyle": "none"}
        ax.plot(use, place + offset, label=label, **plain | look)
    ax.axvline(1.0, color=INK, linewidth=1.0, linestyle="--")
    ax.set(xscale="log", xlabel="difference / tolerance", yticks=range(len(shown)))
    ax.set_yticklabels([textwrap.fill(SECTION_TITLES.get(section, section), _LINE) for section in shown])
    ax.xaxis.set_major_locator(FixedLocator([10.0**k for k in range(-4, 3)]))
    ends = {_FLOOR: "≤ ", _CEILING: "≥ "}
    ax.xaxis.set_major_formatter(lambda value, _: ends.get(value, "") + power_of_ten(value).removeprefix("1×"))
    ax.invert_yaxis()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
