"""A source of tokens whose entropy is known: each token repeats an earlier one, or follows from the last one."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from companion.errors import InputError
from companion.numeric import Array

#: Most numbers in the distribution of the tokens that decide about the next one, times the vocabulary.
MOST_STATES = 2**22
#: The distribution of these tokens is that of a source that has run for long, to this error.
STATIONARY_ERROR = 1e-14


@dataclass(frozen=True)
class CopySource:
    """With probability `copying` a token repeats the one `distance` back; else a Markov chain draws it after the last.

    Attributes
    ----------
    chain
        (V, V): row x holds the probabilities of the token after x.
    copying
        between 0 and 1, both excluded.
    distance
        tokens back, 2 or more.

    Raises
    ------
    InputError
        if a row of the chain is no distribution or has a zero, or another value is out of range.
    """

    chain: Array
    copying: float
    distance: int

    def __post_init__(self) -> None:
        sums = self.chain.sum(axis=-1)
        if self.chain.ndim != 2 or len(self.chain) != len(sums) or not np.allclose(sums, 1) or self.chain.min() <= 0:
            raise InputError("chain: not a square of positive probabilities whose rows sum to 1")
        if not 0 < self.copying < 1:
            raise InputError(f"copying {self.copying} is not between 0 and 1")
        if self.distance < 2 or len(self.chain) ** (self.distance + 1) > MOST_STATES:
            most = int(np.log(MOST_STATES) / np.log(len(self.chain))) - 1
            raise InputError(f"distance {self.distance} is not from 2 to {most}, with {len(self.chain)} tokens")

    @classmethod
    def random(cls, vocab_size: int, distance: int, copying: float = 0.5, seed: int = 0) -> "CopySource":
        """A source whose chain has rows from a Dirichlet distribution: after every token a few others are likely.

        A tenth of every row is spread evenly, so that no token is ever impossible.
        """
        rows = np.random.default_rng(seed).dirichlet(np.full(vocab_size, 0.2), size=vocab_size)
        return cls(0.9 * rows + 0.1 / vocab_size, copying, distance)

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.chain)

    @cached_property
    def next_token(self) -> Array:
        """(V, V, V): probability of a token, given the one `distance` back (first axis) and the last one (second)."""
        repeated = self.copying * np.eye(self.vocab_size)[:, None, :]
        return repeated + (1 - self.copying) * self.chain[None]

    @cached_property
    def stationary(self) -> Array:
        """(V,) * distance: probability of as many tokens in a row, once the source has forgotten how it began."""
        size = self.vocab_size
        found = np.full((size, size ** (self.distance - 2), size), size**-self.distance, dtype=float)
        while True:
            after = np.einsum("fml,fly->mly", found, self.next_token, optimize=True).reshape(found.shape)
            if np.abs(after - found).sum() < STATIONARY_ERROR * size:
                return after.reshape((size,) * self.distance)
            found = after

    def block_entropy(self, num_tokens: int) -> float:
        """Entropy of `num_tokens` tokens in a row, nats; up to `distance` of them."""
        axes = tuple(range(num_tokens, self.distance))
        return _entropy(self.stationary.sum(axis=axes))

    @cached_property
    def entropy_rate(self) -> float:
        """Least loss of any model that sees `distance` tokens or more, nats per token."""
        ends = self.stationary.reshape(self.vocab_size, -1, self.vocab_size).sum(axis=1)
        return float(-(ends[..., None] * self.next_token * np.log(self.next_token)).sum())

    @cached_property
    def unigram_entropy(self) -> float:
        """Least loss of a model that sees no token, nats per token."""
        return self.block_entropy(1)

    @cached_property
    def last_token_entropy(self) -> float:
        """Least loss of a model that sees the last token alone, nats per token."""
        return self.block_entropy(2) - self.block_entropy(1)

    @cached_property
    def repeats(self) -> float:
        """Share of tokens that equal the one `distance` back, by choice or by chance."""
        ends = self.stationary.reshape(self.vocab_size, -1, self.vocab_size).sum(axis=1)
        return float(np.einsum("fl,flf->", ends, self.next_token))

    def least_loss(self, context_length: int) -> float:
        """Least mean loss over a sequence of T + 1 tokens, of which the first is given, nats per token.

        The first few tokens of a sequence cannot be known as well: what they repeat came before it.
        """
        if context_length < self.distance:
            raise InputError(f"context_length {context_length} is shorter than the distance {self.distance}")
        begin = self.block_entropy(self.distance) - self.block_entropy(1)
        return (begin + (context_length - self.distance + 1) * self.entropy_rate) / context_length

    def sample(self, num_sequences: int, length: int, rng: np.random.Generator) -> Any:
        """Sequences (num_sequences, length) of whole numbers below V, each from a source that has run for long."""
        tokens = np.empty((num_sequences, max(length, self.distance)), dtype=np.int64)
        flat = self.stationary.ravel()
        begin = rng.choice(flat.size, num_sequences, p=flat / flat.sum())
        tokens[:, : self.distance] = np.stack(np.unravel_index(begin, self.stationary.shape), axis=-1)
        below = self.next_token.cumsum(axis=-1)
        for t in range(self.distance, length):
            edges = below[tokens[:, t - self.distance], tokens[:, t - 1]]
            drawn = (edges < rng.random(num_sequences)[:, None]).sum(axis=-1)
            tokens[:, t] = np.minimum(drawn, self.vocab_size - 1)
        return tokens[:, :length]

    def surprise(self, tokens: Any) -> float:
        """Mean of −log p of the tokens (…, length) by the source itself, nats; the first `distance` are given."""
        back, last = tokens[..., : -self.distance], tokens[..., self.distance - 1 : -1]
        return float(-np.log(self.next_token[back, last, tokens[..., self.distance :]]).mean())


def _entropy(probabilities: Array) -> float:
    """Of a distribution without zeros, nats."""
    return float(-(probabilities * np.log(probabilities)).sum())
