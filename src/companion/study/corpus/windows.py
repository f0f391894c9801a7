"""Sequences cut from long arrays of tokens, in a shuffled order. Needs torch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from companion.errors import InputError
from companion.study.corpus.base import Corpus
from companion.study.corpus.mixing import permuted

#: Keys of the orders: of training windows (plus the number of the epoch), and of windows held out.
TRAINING_KEY, HELD_OUT_KEY = 1, 0x80000000


class Windows(Corpus):
    """Windows of T + 1 tokens, one beginning at every T-th token of every array.

    Windows of one array share a token: the last target of one is the first input of the next. Their order is a keyed
    permutation of their numbers: an epoch has every window once, and each epoch has an order of its own.

    Parameters
    ----------
    name, vocab_size
        as `Corpus`.
    training, held_out
        arrays of whole numbers below the vocabulary size; no window crosses from one to the next.
    repeat
        begin another epoch where one ends, instead of an error.
    """

    def __init__(
        self, name: str, vocab_size: int, training: Sequence[NDArray], held_out: Sequence[NDArray], repeat: bool = False
    ) -> None:
        self.name, self.vocab_size, self.repeat = name, vocab_size, repeat
        self._training, self._held_out = list(training), list(held_out)

    def num_sequences(self, context_length: int) -> int | None:
        """Windows of one epoch; None with repeat=true: they begin anew."""
        self._check_numbers(0, 0, context_length)
        return None if self.repeat else int(_ends(self._training, context_length)[-1])

    def sequences(self, first: int, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        """As `Corpus.sequences`."""
        count = self._check(self._training, first, number, context_length, "for training")
        if first + number > count and not self.repeat:
            tokens = sum(len(array) for array in self._training)
            raise InputError(
                f"{self.name}: sequences {first} to {first + number - 1} of T = {context_length} are asked for, but"
                f" there are {count} ({tokens:,} tokens): train for fewer tokens, or add ',repeat=true' to the name"
            )
        numbers = np.arange(first, first + number, dtype=np.int64)
        chosen = np.empty_like(numbers)
        for epoch in np.unique(numbers // count):
            inside = numbers // count == epoch
            chosen[inside] = permuted(numbers[inside] % count, count, TRAINING_KEY + int(epoch))
        return self._cut(self._training, chosen, context_length, device)

    def held_out(self, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        """As `Corpus.held_out`; these never repeat."""
        count = self._check(self._held_out, 0, number, context_length, "held out")
        if number > count:
            tokens = sum(len(array) for array in self._held_out)
            raise InputError(
                f"{self.name}: {number} held-out sequences of T = {context_length} are asked for, but there are {count}"
                f" ({tokens:,} tokens): use fewer, or add files"
            )
        return self._cut(self._held_out, permuted(np.arange(number), count, HELD_OUT_KEY), context_length, device)

    def _check(self, arrays: list[NDArray], first: int, number: int, context_length: int, kind: str) -> int:
        """Number of windows, at least one."""
        self._check_numbers(first, number, context_length)
        count = int(_ends(arrays, context_length)[-1])
        if count == 0:
            longest = max(len(array) for array in arrays)
            raise InputError(
                f"{self.name}: no sequence of T = {context_length} {kind}: that takes {context_length + 1} tokens in a"
                f" row, and there are {longest} at most; shorten T or add files"
            )
        return count

    def _check_numbers(self, first: int, number: int, context_length: int) -> None:
        if context_length < 1 or first < 0 or number < 0:
            raise InputError(
                f"{self.name}: first={first}, number={number}, context_length={context_length}: use numbers from 0 on,"
                " and a context length from 1 on"
            )

    def _cut(self, arrays: list[NDArray], chosen: NDArray, context_length: int, device: torch.device | str) -> Tensor:
        ends = _ends(arrays, context_length)
        out = np.empty((len(chosen), context_length + 1), dtype=np.int64)
        where = np.searchsorted(ends, chosen, side="right")
        for row, (array, window) in enumerate(zip(where, chosen, strict=True)):
            start = int(window - (ends[array - 1] if array else 0)) * context_length
            out[row] = arrays[array][start : start + context_length + 1]
        if out.size and int(out.max()) >= self.vocab_size:
            raise InputError(f"{self.name}: token {int(out.max())} is not below the vocabulary size {self.vocab_size}")
        return torch.from_numpy(out).to(device)


def _ends(arrays: list[NDArray], context_length: int) -> NDArray[np.int64]:
    """Windows up to and with every array."""
    return np.cumsum([max(len(array) - 1, 0) // context_length for array in arrays], dtype=np.int64)
