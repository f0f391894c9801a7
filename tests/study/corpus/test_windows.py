"""Windows of long arrays in a shuffled order."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.study.corpus.windows import Windows


class Plain(Windows):
    """Windows that describe nothing."""

    def describe(self) -> dict[str, object]:
        return {}


def corpus(*lengths: int, held_out: int = 50, repeat: bool = False) -> Plain:
    """Arrays whose tokens count on from 0, across all of them."""
    ends = np.cumsum([0, *lengths, held_out])
    arrays = [np.arange(low, high) for low, high in itertools.pairwise(ends)]
    return Plain("counted", 10**6, arrays[:-1], arrays[-1:], repeat)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 9))
def test_an_epoch_has_every_window_once(lengths: list[int], T: int) -> None:
    counted, count = corpus(*lengths), sum(max(length - 1, 0) // T for length in lengths)
    if count == 0:
        with pytest.raises(InputError, match=f"no sequence of T = {T} for training"):
            counted.sequences(0, 0, T)
        return
    assert counted.num_sequences(T) == count
    found = counted.sequences(0, count, T)
    assert found.shape == (count, T + 1)
    assert torch.equal(found, found[:, :1] + torch.arange(T + 1))  # none crosses from one array to the next
    starts = np.concatenate([[0], np.cumsum(lengths)])
    expected = {int(s) + T * i for s, n in zip(starts, lengths, strict=False) for i in range(max(n - 1, 0) // T)}
    assert sorted(found[:, 0].tolist()) == sorted(expected)
    assert torch.equal(torch.cat([counted.sequences(i, 1, T) for i in range(count)]), found)


def test_order_is_shuffled_and_epochs_differ() -> None:
    again = corpus(1001, repeat=True)
    assert again.num_sequences(10) is None
    first, second = again.sequences(0, 100, 10)[:, 0], again.sequences(100, 100, 10)[:, 0]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(0, 1000, 10))
    assert not torch.equal(first, second)
    assert first.tolist() != sorted(first.tolist())
    across = again.sequences(90, 20, 10)[:, 0]
    assert torch.equal(across, torch.cat([first[90:], second[:10]]))


def test_past_the_end() -> None:
    counted = corpus(101, 60)
    assert counted.sequences(14, 1, 10).shape == (1, 11)
    with pytest.raises(InputError, match=r"sequences 14 to 15 of T = 10 .* there are 15 \(161 tokens\).*repeat=true"):
        counted.sequences(14, 2, 10)


def test_held_out_is_apart_and_does_not_repeat() -> None:
    counted = corpus(100, held_out=41, repeat=True)
    found = counted.held_out(4, 10)
    assert found.min() >= 100
    assert torch.equal(counted.held_out(2, 10), found[:2])
    with pytest.raises(InputError, match=r"5 held-out sequences of T = 10 .* there are 4 \(41 tokens\)"):
        counted.held_out(5, 10)
    with pytest.raises(
        InputError, match="no sequence of T = 41 held out: that takes 42 tokens in a row, and there are 41"
    ):
        counted.held_out(1, 41)


@pytest.mark.parametrize(("first", "number", "T"), [(-1, 1, 4), (0, -1, 4), (0, 1, 0)])
def test_out_of_bounds(first: int, number: int, T: int) -> None:
    with pytest.raises(InputError, match=f"first={first}, number={number}, context_length={T}"):
        corpus(100).sequences(first, number, T)


def test_a_context_length_of_nothing() -> None:
    with pytest.raises(InputError, match="context_length=0"):
        corpus(100).num_sequences(0)


def test_tokens_beyond_the_vocabulary() -> None:
    wrong = Plain("wrong", 90, [np.arange(100)], [np.arange(50)])
    with pytest.raises(InputError, match=r"token 9[0-9] is not below the vocabulary size 90"):
        wrong.sequences(0, 9, 10)
