"""Chapter 8: names, words and numbers that its parts write alike."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from companion.plotting import Html
from companion.plotting.embed import show_table

#: The architectures that the chapter compares, in the order of its tables: times of the first over those of the second.
NAMES = ("transformer", "xlstm")
#: What tables and sentences call a quantity, and where its times come from.
QUANTITY_NAMES = {"ttft": "first token", "step_time": "step", "memory": "memory held"}
METHOD_NAMES = {"timings": "timings", "measured": "fit to timings", "roofline": "roofline", "count": "count"}
#: Heading and unit of every parameter of the paper's form.
PARAMETER_UNITS = {
    "alpha_eff_flops_per_s": ("α (TFLOP/s)", 1e12),
    "beta_eff_bytes_per_s": ("β (TB/s)", 1e12),
    "eps_s": ("ε (ms)", 1e-3),
    "eps_bp_s": ("ε per sequence (µs)", 1e-6),
}


def note_table(notes: str | Sequence[str], caption: str) -> Html:
    """A table of one column that says why there is nothing to show."""
    return show_table(pd.DataFrame({"note": [notes] if isinstance(notes, str) else list(notes)}), caption=caption)


def with_groups(model: Any, n_kv_heads: int) -> Any:
    """A Transformer whose query heads share this many heads of keys and values, at most as many as it has heads."""
    return replace(model, n_kv_heads=min(n_kv_heads, model.n_heads))


def crossover_text(value: float, longest: float) -> str:
    """A crossover of `companion.inference.compare` as a cell of a table, in tokens.

    Parameters
    ----------
    value
        tokens; 0: faster at every context; infinite: not up to the longest; NaN or below 0: unknown.
    longest
        context up to which was compared.
    """
    if not value >= 0:
        return "–"
    if value == 0:
        return "always"
    return f"> {longest:,.0f}" if np.isinf(value) else f"{float(f'{value:.2g}'):,.0f}"


def from_words(value: float, longest: float) -> str:
    """A crossover within a sentence: "at every context", "from 260 tokens on"; arguments as for `crossover_text`."""
    if not value >= 0:
        return "at an unknown context"
    if value == 0:
        return "at every context"
    if np.isinf(value):
        return f"at no context up to {longest:,.0f} tokens"
    return f"from {crossover_text(value, longest)} tokens on"


def interval_words(low: float, high: float, longest: float) -> str:
    """The interval of a crossover within a sentence: "up to 3,800", "580 to 2,900"; as for `crossover_text`."""
    ends = [crossover_text(end, longest) for end in (low, high)]
    if ends[0] != "always":
        return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
    return "every context" if ends[1] == "always" else f"up to {ends[1].replace('> ', 'beyond ')}"


def extremes(values: Iterable[float], form: str = "{:.2f}") -> str:
    """Least and largest value, said once where both read alike: 0.93 to 1.02."""
    low, high = form.format(min(found := list(values))), form.format(max(found))
    return low if low == high else f"{low} to {high}"
