"""A synthetic source without end, whose entropy is known. Needs torch; with Triton, a GPU draws for itself."""

from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion.errors import InputError
from companion.study.corpus.base import Corpus
from companion.study.corpus.conditional import Conditionals
from companion.study.corpus.drawing import HELD_OUT, TRAINING, draw
from companion.study.corpus.floor import floor_of
from companion.study.corpus.grammar import Grammar

#: Positions are one word of the counter; the kernel counts them in 31 bits.
LONGEST = (1 << 31) - 2


class Source(Corpus):
    """Documents of the source of `grammar`: a sequence is the beginning of the document of its number.

    Parameters
    ----------
    seed
        another seed is another language.
    vocab_size
        a power of two from 16 to 65536.
    class_bits
        of the classes of tokens: 2^(4 · class_bits) contexts of four classes.

    Examples
    --------
    >>> source = Source(vocab_size=16)
    >>> source.name, source.sequences(first=3, number=2, context_length=5).shape
    ('source:vocab_size=16', torch.Size([2, 6]))
    """

    def __init__(
        self,
        seed: int = Grammar.seed,
        vocab_size: int = Grammar.vocab_size,
        class_bits: int = Grammar.class_bits,
    ) -> None:
        self.grammar = Grammar(seed=seed, vocab_size=vocab_size, class_bits=class_bits)
        self.vocab_size = vocab_size
        default, options = Grammar(), {"seed": seed, "vocab_size": vocab_size, "class_bits": class_bits}
        changed = [f"{name}={value}" for name, value in options.items() if value != getattr(default, name)]
        self.name = "source" + (":" + ",".join(changed) if changed else "")
        self._tables: dict[torch.device, Any] = {}

    def sequences(self, first: int, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        """As `Corpus.sequences`; there are 2⁶³ of them, and no two are the same document."""
        return self._documents(first, number, context_length, TRAINING, device)

    def held_out(self, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        """As `Corpus.held_out`: documents with counters that no training document has."""
        return self._documents(0, number, context_length, HELD_OUT, device)

    def _documents(self, first: int, number: int, length: int, stream: int, device: torch.device | str) -> Tensor:
        if first < 0 or number < 0 or first + number > 1 << 63:
            raise InputError(f"{self.name}: sequences {first} to {first + number - 1}: use numbers from 0 to 2^63 - 1")
        if not 1 <= length <= LONGEST:
            raise InputError(f"{self.name}: context_length={length}: use a whole number from 1 to {LONGEST}")
        device = torch.device(device)
        numbers = np.arange(number, dtype=np.int64) + first
        if device.type != "cuda" or find_spec("triton") is None:
            return torch.from_numpy(draw(self.grammar, numbers, length + 1, stream)).to(device)
        # only here: the CPU needs no Triton
        from companion.study.corpus.source_kernel import DeviceTables, draw_on_device

        if device not in self._tables:
            self._tables[device] = DeviceTables.of(self.grammar, device)
        chosen = torch.arange(number, dtype=torch.int64, device=device) + first
        return draw_on_device(self._tables[device], chosen, length + 1, stream)

    def probabilities(self, tokens: Tensor) -> Tensor:
        """P(x_{t+1} | x_0 ... x_t), (B, T, V), float64: see `conditional.Conditionals.probabilities`."""
        return Conditionals(self.grammar, tokens.device).probabilities(tokens)

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        """ln P of the tokens after the first, (B, T) from (B, T + 1): minus the loss of a perfect model."""
        return Conditionals(self.grammar, tokens.device).log_probabilities(tokens)

    def describe(self) -> dict[str, Any]:
        """All parameters, and a fingerprint of them."""
        plain = {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self.grammar).items()}
        return {"name": self.name, "fingerprint": self.grammar.fingerprint, **plain}

    def loss_floor(self, context_length: int) -> tuple[float, float]:
        """As `Corpus.loss_floor`: from the committed table where it has these parameters and this context length.

        Anything else is measured when it is asked for, on 64 documents: seconds at V = 1024, and a standard error of
        about 0.004 nats. `python -m companion.study.corpus.entropy` does better.
        """
        floor = floor_of(self.grammar, context_length)
        return floor.loss, floor.standard_error
