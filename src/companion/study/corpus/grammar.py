"""What the synthetic source draws from: a mixture of Zipf laws over contexts of growing length, and two ways to copy.

Given the tokens before it in its document, token t has the distribution

    P(v) =   w_0 · Z_0(v)                                       no context: which tokens are frequent
           + w_1 · Z_1(v; x_{t−1})                              the last token
           + w_2 · Z_2(v; x_{t−2}, x_{t−1})                     the last two tokens
           + w_3 · Z_3(v; classes of x_{t−4} ... x_{t−1})       coarse classes of the last four tokens
           + w_echo · [Σ_{d ≤ t} p(d)·1(v = x_{t−d}) + P(d > t)·Z_0(v)]
           + w_recall · 1(v = r_t)                              what followed the last token where it stood before

Z_j is a Zipf law over ranks, and in every context another keyed bijection says which token has which rank: a table that
can only be learned by heart. Four levels have from one to V² contexts, some common and most rare, so that there is
something to learn with few parameters and tokens and something left to learn with many. p(d) is a power law on
1 ... 4096: recent tokens come again. r_t is the token that followed the last earlier occurrence of x_{t−1} in this
document; without an earlier occurrence its weight goes to Z_0. Neither copy can be learned by heart, only looked up in
the document: the longer the context, the more there is to find. Before a document all tokens are a start symbol.

All weights are whole numbers, so the probabilities that we compute are exactly those that are drawn. NumPy only.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from companion.errors import InputError
from companion.study.corpus.alias import WHOLE, alias_table, power_law, quantized
from companion.study.corpus.mixing import STEP, mix, scramble
from companion.study.corpus.philox import WORD

#: Raise it when the same parameters come to mean other tokens: measured floors of the old ones no longer count.
VERSION = 1
#: The parts of the mixture, in the order of `Grammar.weights`.
PARTS = ("none", "one", "two", "classes", "echo", "recall")
ECHO, RECALL = PARTS.index("echo"), PARTS.index("recall")
#: Levels with a Zipf law.
LEVELS = 4
#: Tokens back that a level sees, and whether it sees only their classes.
ORDERS = (0, 1, 2, 4)
CLASSES_LEVEL = 3


@dataclass(frozen=True)
class Grammar:
    """Parameters of the source; its tables follow from them.

    Attributes
    ----------
    seed
        which tables and which documents: from 0 to 2⁶³ − 1.
    vocab_size
        V, a power of two from 16 to 65536.
    weights
        of the parts of the mixture (`PARTS`), any positive numbers.
    exponents
        of the Zipf law of each level.
    class_bits, class_exponent
        the classes of the last level are 2^class_bits in number (one for each token of a smaller vocabulary), with 1
        to 6 bits: four of them are the context, so that a bit more makes 16 times as many contexts to learn; their
        sizes fall with this power of their number, so that some contexts are common and most are rare.
    max_distance, distance_exponent
        of the power law over distances; the former is a power of two.

    Raises
    ------
    InputError
        if a parameter is out of these bounds.

    Examples
    --------
    >>> Grammar(vocab_size=1000)
    Traceback (most recent call last):
    ...
    companion.errors.InputError: source: vocab_size=1000: use a power of two from 16 to 65536
    """

    seed: int = 0
    vocab_size: int = 1024
    weights: tuple[float, ...] = (0.12, 0.22, 0.23, 0.21, 0.08, 0.14)
    exponents: tuple[float, ...] = (1.2, 1.8, 1.9, 2.0)
    class_bits: int = 5
    class_exponent: float = 1.0
    max_distance: int = 4096
    distance_exponent: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"source: seed={self.seed}: use a whole number from 0 to 2^63 - 1")
        if self.vocab_size not in [1 << bits for bits in range(4, 17)]:
            raise InputError(f"source: vocab_size={self.vocab_size}: use a power of two from 16 to 65536")
        if not 1 <= self.class_bits <= 6:
            raise InputError(f"source: class_bits={self.class_bits}: use a whole number from 1 to 6")

    @cached_property
    def bits(self) -> int:
        """log2 of the vocabulary size."""
        return self.vocab_size.bit_length() - 1

    @cached_property
    def whole_weights(self) -> NDArray[np.int64]:
        """Weights of the parts, summing to 2³²."""
        return quantized(np.array(self.weights))

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """A word below bounds[i] and not below bounds[i − 1] chooses part i."""
        return np.cumsum(self.whole_weights)

    @cached_property
    def zipf(self) -> NDArray[np.int64]:
        """(LEVELS, V): weights of the ranks at every level."""
        return np.stack([power_law(self.vocab_size, exponent) for exponent in self.exponents])

    @cached_property
    def rank_tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Thresholds and aliases of `zipf`, each (LEVELS, V)."""
        tables = [alias_table(weights) for weights in self.zipf]
        return np.stack([threshold for threshold, _ in tables]), np.stack([alias for _, alias in tables])

    @cached_property
    def distances(self) -> NDArray[np.int64]:
        """(max_distance,): weights of the distances 1, 2, ..."""
        return power_law(self.max_distance, self.distance_exponent)

    @cached_property
    def distance_tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Thresholds and aliases of `distances`: they draw d − 1."""
        return alias_table(self.distances)

    @cached_property
    def tails(self) -> NDArray[np.int64]:
        """tails[t] = weight of d > t, for t = 0 ... max_distance."""
        return np.concatenate([[WHOLE], WHOLE - np.cumsum(self.distances)])

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """The hash that every level starts from, and at the end the key of the classes."""
        low, high = self.seed & WORD, self.seed >> 32
        words = (low + np.arange(1, LEVELS + 2) * STEP) & WORD
        found = mix(mix(words) ^ high).tolist()
        return tuple(found)

    @cached_property
    def unconditional(self) -> NDArray[np.int64]:
        """(V,): the token of every rank at level 0."""
        return scramble(np.arange(self.vocab_size), np.full(self.vocab_size, self.roots[0]), self.bits)

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """(V + 1,): symbol of every token plus 1 at the level of classes; of the start symbol, entry 0, it is 0.

        A symbol is a class plus 1.
        """
        key = np.full(self.vocab_size, self.roots[LEVELS])
        number = np.arange(1, min(1 << self.class_bits, self.vocab_size) + 1)
        symbols = np.repeat(number, quantized(number.astype(float) ** -self.class_exponent, self.vocab_size))
        return np.concatenate([[0], symbols[scramble(np.arange(self.vocab_size), key, self.bits)]])

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any parameter, and with `VERSION`."""
        text = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
