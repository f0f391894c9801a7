"""Chapter 14: names, looks and short texts that its parts write alike."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from companion.formatting import significant
from companion.hardware import Hardware
from companion.inference.timings import Quantity
from companion.plotting import Html
from companion.plotting.embed import show_table

#: What sentences call the models.
THE = {
    "transformer": "the Transformer",
    "grouped": "the Transformer with grouped heads",
    "xlstm": "the xLSTM",
    "hybrid": "the hybrid",
}
#: A check decides nothing where plain torch in bf16 has a larger error than this: unrelated numbers have one of 1.4.
DECIDES = 0.5
QUANTITY_NAMES: dict[Quantity, str] = {"ttft": "first token", "step_time": "step"}


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three digits."""
    return significant(1e3 * seconds)


def gib(number: float) -> str:
    """Bytes in GiB, with three digits."""
    return significant(number / 2**30)


def tokens_text(tokens: float) -> str:
    """Tokens of a context: 512, 16k, 128k."""
    return f"{tokens / 1024:g}k" if tokens >= 1024 and tokens % 1024 == 0 else f"{tokens:,.0f}"


def note(text: str, caption: str) -> Html:
    """In place of a table or figure: why there is none."""
    return show_table(pd.DataFrame({"note": [text]}), caption=caption)


def or_dash(value: Any, style: Callable[[Any], str]) -> str:
    """A cell of a table; a dash for what is missing."""
    return "–" if value is None or pd.isna(value) else style(value)


def crossover_text(found: tuple[float, float] | None) -> str:
    """A crossover (`Measured.crossover`) as a cell, in tokens: `always`, `3,400`, `> 131,072`, or a dash."""
    if found is None or not found[0] >= 0:
        return "–"
    tokens, longest = found
    if tokens == 0:
        return "always"
    return f"> {longest:,.0f}" if tokens == float("inf") else f"{float(f'{tokens:.2g}'):,.0f}"


def from_words(found: tuple[float, float] | None) -> str:
    """The same in a sentence: `at every context`, `from 3,400 tokens on`, `at no context up to 131,072 tokens`."""
    text = crossover_text(found)
    words = {"–": "at an unknown context", "always": "at every context that was timed"}
    if text.startswith(">"):
        return f"at no context up to {text[2:]} tokens"
    return words.get(text, f"from {text} tokens on")


def peaks_text(peaks: Hardware) -> tuple[str, str]:
    """Peaks of a device in words: FLOP/s and bytes/s."""
    return f"{significant(peaks.peak_flops_per_s / 1e12)} TFLOP/s", f"{significant(peaks.peak_bytes_per_s / 1e12)} TB/s"


def whose_peaks(ours: Hardware, stated: Hardware | None, theirs: Hardware | None) -> str:
    """The peaks behind the percents of a table, in a sentence each: the authors', and ours."""
    words = f"Authors: {theirs.label}, {' and '.join(peaks_text(theirs))}. " if theirs else ""
    as_stated = f"{' and '.join(peaks_text(stated))} as stated, " if stated else ""
    return f"{words}Ours: {ours.label}, {as_stated}{' and '.join(peaks_text(ours))} as measured. "
