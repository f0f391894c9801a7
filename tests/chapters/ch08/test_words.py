"""Crossovers and ranges as the inference chapter writes them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.chapters.ch08.common import crossover_text, extremes, from_words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "always"), (np.inf, "> 131,072"), (np.nan, "–"), (-1.0, "–"), (1234.0, "1,200"), (64.4, "64")],
)
def test_crossovers(value: float, text: str) -> None:
    assert crossover_text(value, 131072) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "at every context"),
        (np.inf, "at no context up to 131,072 tokens"),
        (np.nan, "at an unknown context"),
        (1234.0, "from 1,200 tokens on"),
    ],
)
def test_crossovers_in_sentences(value: float, text: str) -> None:
    assert from_words(value, 131072) == text


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5))
def test_extremes_hold_every_value(values: list[float]) -> None:
    ends = [float(end) for end in extremes(values).split(" to ")]
    assert ends[0] - 0.0051 <= min(values)
    assert max(values) <= ends[-1] + 0.0051
    assert extremes(values[::-1]) == extremes(values)
