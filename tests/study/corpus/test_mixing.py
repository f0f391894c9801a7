"""Hashes and keyed bijections."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.study.corpus.mixing import mix, permuted, scramble, unscramble

keys = st.integers(0, 2**32 - 1)


@given(keys, st.integers(1, 16))
def test_a_bijection_with_its_inverse(key: int, bits: int) -> None:
    x = np.arange(1 << bits)
    y = scramble(x, np.full_like(x, key), bits)
    assert np.array_equal(np.sort(y), x)
    assert np.array_equal(unscramble(y, np.full_like(x, key), bits), x)


@given(st.lists(keys, min_size=1, max_size=20))
def test_torch_computes_the_same(words: list[int]) -> None:
    array = np.array(words)
    assert mix(torch.from_numpy(array)).tolist() == mix(array).tolist()
    x = array & 1023
    assert scramble(torch.from_numpy(x), torch.from_numpy(array), 10).tolist() == scramble(x, array, 10).tolist()
    assert unscramble(torch.from_numpy(x), torch.from_numpy(array), 10).tolist() == unscramble(x, array, 10).tolist()


def test_mix_is_one_to_one_and_spreads() -> None:
    words = mix(np.arange(1 << 16))
    assert len(np.unique(words)) == 1 << 16
    assert words.min() >= 0
    assert words.max() < 1 << 32
    # every bit is set in half of them: within 5 standard errors
    set_bits = (words[:, None] >> np.arange(32) & 1).mean(0)
    assert np.abs(set_bits - 0.5).max() < 5 * 0.5 / 256


def test_the_first_two_ranks_spread_over_the_vocabulary() -> None:
    """Over keys, the upper four bits of the tokens of ranks 0 and 1 are independent: 255 degrees of freedom."""
    key = mix(np.arange(1 << 16) + 12345)
    first, second = (scramble(np.full_like(key, rank), key, 10) >> 6 for rank in (0, 1))
    counts = np.bincount(first * 16 + second, minlength=256)
    # equal tokens are impossible, which takes 64 of 1,048,576 pairs: nothing beside the bound
    assert ((counts - 256) ** 2 / 256).sum() < 255 * 1.5


@given(st.integers(1, 3000), st.integers(0, 2**40))
def test_permuted_is_a_permutation(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permuted(np.arange(size), size, key)), np.arange(size))


@pytest.mark.parametrize("size", [2**31 + 11, 10**12])
def test_permuted_needs_no_room(size: int) -> None:
    numbers = np.array([0, 1, 12345, size - 1])
    found = permuted(numbers, size, 5)
    assert len(set(found.tolist())) == 4
    assert found.min() >= 0
    assert found.max() < size
    assert not np.array_equal(found, permuted(numbers, size, 6))
    assert permuted(numbers[2:3], size, 5)[0] == found[2]
