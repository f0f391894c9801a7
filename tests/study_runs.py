"""A corpus that needs no file, and recipes that take milliseconds."""

from typing import Any

import torch
from torch import Tensor

from companion.architectures import Architecture, make_architecture
from companion.errors import InputError
from companion.study.corpus.base import Corpus
from companion.study.train.recipe import Recipe

VOCAB_SIZE = 64
_SHAPES: dict[str, dict[str, Any]] = {
    "transformer": {"name": "transformer"},
    "xlstm": {"name": "xlstm"},
    "hybrid": {"name": "xlstm", "attention_every": 2, "attention_heads": 2},
}
#: A run of 24 steps of 8 sequences.
USUAL: dict[str, Any] = {
    "corpus": "counting",
    "context_length": 32,
    "batch_size_seqs": 8,
    "train_steps": 24,
    "learning_rate": 3e-3,
    "held_out_sequences": 8,
    "evaluations": 2,
}


class Counting(Corpus):
    """Tokens that grow by a step of 1 or 2 from a first one; which step and which token, the number of a sequence says.

    The first two tokens say everything about the rest: the least loss is that of one token among two.
    """

    name = "counting"

    def __init__(self, vocab_size: int = VOCAB_SIZE, num_sequences: int | None = None) -> None:
        self.vocab_size, self._number = vocab_size, num_sequences
        self.asked: list[tuple[int, int]] = []

    def sequences(self, first: int, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        self.asked.append((first, number))
        return self._drawn(1 + 2 * torch.arange(first, first + number), context_length).to(device)

    def held_out(self, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        if number > 1000:
            raise InputError(f"held_out_sequences: {number} are more than the 1000 of {self.name}")
        return self._drawn(2 * torch.arange(number), context_length).to(device)

    def _drawn(self, numbers: Tensor, context_length: int) -> Tensor:
        mixed = (numbers * 2654435761 + 12345) % 2**31
        first, step = (mixed >> 7) % self.vocab_size, 1 + (mixed >> 20) % 2
        return (first[:, None] + step[:, None] * torch.arange(context_length + 1)) % self.vocab_size

    def num_sequences(self, context_length: int) -> int | None:
        return self._number

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "vocab_size": self.vocab_size}

    def loss_floor(self, context_length: int) -> tuple[float, float] | None:
        return 0.6931471805599453 / context_length, 0.0


def tiny(kind: str = "transformer", **shapes: Any) -> Architecture:
    """Two layers of width 32: `transformer`, `xlstm`, or a `hybrid` of both."""
    widths = {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64, "vocab_size": VOCAB_SIZE}
    return make_architecture(**{**widths, **_SHAPES[kind], **shapes})


def tiny_recipe(kind: str = "transformer", **values: Any) -> Recipe:
    """`USUAL` with other values."""
    return Recipe(**{"architecture": tiny(kind), **USUAL, **values})
