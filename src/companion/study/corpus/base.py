"""What every corpus is: token sequences by number, the same sequence for the same number. Needs torch."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class Corpus(ABC):
    """Sequences to train on and sequences held out.

    Attributes
    ----------
    name
        as `companion.study.corpus.open_corpus` takes it.
    vocab_size
        tokens are whole numbers below it.
    """

    name: str
    vocab_size: int

    @abstractmethod
    def sequences(self, first: int, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        """Training sequences `first` to `first + number - 1`.

        A sequence depends on its number and the context length alone, not on the batch that it comes in: a run that is
        resumed, or shared by several GPUs, sees the same tokens.

        Parameters
        ----------
        first, number
            the sequences wanted, numbered from 0.
        context_length
            T, tokens that a model reads; a sequence has one more, the last target.

        Returns
        -------
        Tensor
            (number, T + 1), int64, on the device.

        Raises
        ------
        InputError
            if the corpus has no such sequences, with the number of tokens that it has.
        """

    @abstractmethod
    def held_out(self, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        """The first `number` sequences that no training sequence overlaps, (number, T + 1), int64.

        Raises
        ------
        InputError
            if fewer are held out.
        """

    def num_sequences(self, context_length: int) -> int | None:
        """How many training sequences of this length there are; None: no end."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What identifies the tokens, for a record: plain values, with a checksum where there are files."""

    def loss_floor(self, context_length: int) -> tuple[float, float] | None:
        """Lowest mean loss that a model can reach on sequences of T tokens, nats per token, and its standard error.

        None where nobody knows it.
        """
        return None
