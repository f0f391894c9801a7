"""Whole weights, and tables that draw from exactly these."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.study.corpus.alias import WHOLE, alias_table, drawn, power_law, quantized
from companion.study.corpus.philox import philox

weights_of = st.integers(1, 7).flatmap(
    lambda bits: st.lists(st.floats(1e-6, 1e6), min_size=1 << bits, max_size=1 << bits)
)


def reproduced(weights: np.ndarray) -> np.ndarray:
    """How many of the 2³² words draw each index, counted from the table."""
    threshold, alias = alias_table(weights)
    column = WHOLE // len(weights)
    assert threshold.min() >= 0
    assert threshold.max() <= column
    found = threshold.copy()
    np.add.at(found, alias, column - threshold)
    return found


@given(weights_of)
def test_tables_reproduce_whole_weights(weights: list[float]) -> None:
    whole = quantized(np.array(weights))
    assert whole.sum() == WHOLE
    assert whole.min() >= 1
    assert np.array_equal(reproduced(whole), whole)
    assert np.abs(whole / WHOLE - np.array(weights) / sum(weights)).max() <= (len(weights) + 1) / WHOLE


@pytest.mark.parametrize(("size", "exponent"), [(16, 0.0), (1024, 1.2), (65536, 2.0), (4096, 1.0)])
def test_power_laws(size: int, exponent: float) -> None:
    whole = power_law(size, exponent)
    assert np.array_equal(reproduced(whole), whole)
    assert whole[0] / whole[1] == pytest.approx(2**exponent, rel=1e-5)


def test_words_at_the_edges_of_columns() -> None:
    """`drawn` reads the table as `reproduced` counts it: first and last word of both parts of every column."""
    threshold, alias = alias_table(power_law(64, 1.5))
    column = WHOLE // 64
    for i in range(64):
        if 0 < threshold[i] < column:
            words = i * column + np.array([0, threshold[i] - 1, threshold[i], column - 1])
            assert drawn(words, threshold, alias).tolist() == [i, i, alias[i], alias[i]]


def test_chi_square_of_what_is_drawn() -> None:
    whole = power_law(16, 1.0)
    counts = np.bincount(drawn(philox(9, np.arange(200_000))[0], *alias_table(whole)), minlength=16)
    expected = whole / WHOLE * 200_000
    assert ((counts - expected) ** 2 / expected).sum() < 37.7  # 0.1 % of chi-square with 15 degrees of freedom
