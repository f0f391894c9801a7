"""Documents of the source on a CPU."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.study.corpus import drawing
from companion.study.corpus.drawing import HELD_OUT, MEASURING, TRAINING, draw
from companion.study.corpus.grammar import VERSION, Grammar

SMALL = Grammar(vocab_size=64)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4), st.integers(1, 30), st.integers(0, 10))
def test_a_short_document_begins_the_long_one_whatever_the_batch(numbers: list[int], length: int, more: int) -> None:
    together = draw(SMALL, np.array(numbers), length + more)
    for row, number in enumerate(numbers):
        assert np.array_equal(draw(SMALL, np.array([number]), length)[0], together[row, :length])


def test_batches_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw(SMALL, np.arange(10), 20)
    monkeypatch.setattr(drawing, "TOKENS_AT_ONCE", 60)
    assert np.array_equal(draw(SMALL, np.arange(10), 20), whole)
    assert draw(SMALL, np.arange(0), 20).shape == (0, 20)


def test_no_document_comes_twice() -> None:
    """2,000 documents each of three streams and two seeds; neighbors and numbers that differ in the upper word only."""
    numbers = np.concatenate([np.arange(1000), np.arange(1000) << 32 | 7])
    numbers = np.unique(numbers)
    streams = [draw(SMALL, numbers, 40, stream) for stream in (TRAINING, HELD_OUT, MEASURING)]
    other = draw(Grammar(seed=1, vocab_size=64), numbers, 40)
    assert len(np.unique(np.concatenate([*streams, other]), axis=0)) == 4 * len(numbers)


def test_tokens_are_pinned() -> None:
    """A change of any token makes committed entropies wrong: raise `VERSION`, measure again, and pin the new ones."""
    tokens = draw(Grammar(), np.array([0, 1, 1 << 40]), 300).astype("<i4")
    assert VERSION == 1
    assert hashlib.sha256(tokens.tobytes()).hexdigest()[:16] == "53c768e7e177c4b8"


def test_all_tokens_occur() -> None:
    tokens = draw(SMALL, np.arange(200), 64)
    assert tokens.dtype == np.int64
    assert tokens.min() == 0
    assert tokens.max() == 63
    assert len(np.unique(tokens)) == 64
