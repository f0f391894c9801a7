"""Random words by their address."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.study.corpus.philox import philox

#: Counter, key and words, as 32-bit words in hexadecimal: Random123 1.14, tests/kat_vectors, "philox4x32 10".
KNOWN_ANSWERS = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, words: str) -> None:
    low, high = (int(word, 16) for word in key.split())
    found = philox(high << 32 | low, *(int(word, 16) for word in counter.split()))
    assert [f"{int(word):08x}" for word in found] == words.split()


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5))
def test_a_word_depends_on_its_own_counter_alone(seed: int, counters: list[int]) -> None:
    together = philox(seed, np.array(counters), 7)
    for place, counter in enumerate(counters):
        assert [int(word[place]) for word in together] == [int(word) for word in philox(seed, counter, 7)]


def test_broadcast_and_range() -> None:
    words = philox(3, np.arange(200)[:, None], np.arange(300))
    assert all(word.shape == (200, 300) and word.dtype == np.int64 for word in words)
    assert all(word.min() >= 0 and 0.999 < word.max() / 2**32 < 1 for word in words)
    # a uniform word has mean 1/2 and a standard deviation of 12^-1/2; 60,000 of them: within 4 standard errors
    assert all(abs(word.mean() / 2**32 - 0.5) < 4 * (12 * word.size) ** -0.5 for word in words)
