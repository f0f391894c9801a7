"""Documents of the source on a CPU: all sequences at once, position by position. NumPy only."""

import numpy as np
from numpy.typing import NDArray

from companion.study.corpus.alias import drawn
from companion.study.corpus.grammar import ECHO, LEVELS, RECALL, Grammar
from companion.study.corpus.mixing import mix, scramble
from companion.study.corpus.philox import WORD, philox

#: Streams of documents that have no counter in common.
TRAINING, HELD_OUT, MEASURING = 0, 1, 2
#: Words of random numbers for this number of tokens are held at once, at most; a document is never divided.
TOKENS_AT_ONCE = 1 << 21


def draw(grammar: Grammar, numbers: NDArray[np.int64], length: int, stream: int = TRAINING) -> NDArray[np.int64]:
    """Documents with these numbers, their first `length` tokens: (len(numbers), length).

    The document of a number is the same whatever the length: a short one is the beginning of a long one. Position,
    number and stream are the counter of the random words, so two streams have no document in common but by chance.

    Examples
    --------
    >>> grammar = Grammar(vocab_size=16)
    >>> long, short = draw(grammar, np.array([7]), 9), draw(grammar, np.array([7]), 5)
    >>> long.shape, bool((long[:, :5] == short).all())
    ((1, 9), True)
    """
    # what followed every token of the vocabulary takes room too
    rows = max(TOKENS_AT_ONCE // max(length, grammar.vocab_size // 4), 1)
    parts = [_draw(grammar, numbers[i : i + rows], length, stream) for i in range(0, len(numbers), rows)]
    return np.concatenate(parts) if parts else np.zeros((0, length), dtype=np.int64)


def _draw(grammar: Grammar, numbers: NDArray[np.int64], length: int, stream: int) -> NDArray[np.int64]:
    """All that does not depend on the tokens is drawn first, then the tokens of one position after those of another."""
    rows = np.arange(len(numbers))
    part, rank, distance = _choices(grammar, numbers, length, stream)
    fallback = grammar.unconditional[rank]
    tokens = np.empty((length, len(numbers)), dtype=np.int64)
    # symbols: a token plus 1, or 0 before the document; the same of classes
    one = two = classes_2 = classes_3 = classes_4 = np.zeros(len(numbers), dtype=np.int64)
    classes_1 = classes_2
    follower = np.full((len(numbers), grammar.vocab_size + 1), -1, dtype=np.int64)
    by_prefix = _class_prefixes(grammar)
    second_prefixes = mix(np.arange(grammar.vocab_size + 1) ^ grammar.roots[2])
    for t in range(length):
        kind = part[t]
        prefix = np.choose(
            np.minimum(kind, LEVELS),
            [kind, grammar.roots[1], second_prefixes[two], by_prefix[classes_4, classes_3, classes_2], kind],
        )
        key = mix(prefix ^ np.where(kind == LEVELS - 1, classes_1, one))
        learned = scramble(rank[t], key, grammar.bits)
        recalled = follower[rows, one]
        recalled = np.where(recalled < 0, fallback[t], recalled)
        echoed = tokens[t - distance[t], rows] if t else fallback[t]
        token = np.choose(kind, [fallback[t], learned, learned, learned, echoed, recalled])
        tokens[t] = token
        follower[rows, one] = token
        two, one = one, token + 1
        classes_4, classes_3, classes_2 = classes_3, classes_2, classes_1
        classes_1 = grammar.classes[one]
    return np.ascontiguousarray(tokens.T)


def _choices(
    grammar: Grammar, numbers: NDArray[np.int64], length: int, stream: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Part of the mixture, rank and distance for every position, (length, number of documents) each.

    A distance that leads out of the document makes the part `none`; distances of other parts are set to 1.
    """
    positions = np.arange(length)[:, None]
    word, word_of_rank, word_of_distance, _ = philox(grammar.seed, positions, numbers & WORD, numbers >> 32, stream)
    part = np.searchsorted(grammar.bounds, word, side="right")
    distance = drawn(word_of_distance, *grammar.distance_tables) + 1
    part = np.where((part == ECHO) & (distance > positions), 0, part)
    distance = np.where(part == ECHO, distance, np.minimum(positions, 1))
    thresholds, aliases = grammar.rank_tables
    level = np.where(part < LEVELS, part, 0)
    shift = 32 - grammar.bits
    column = word_of_rank >> shift
    kept = (word_of_rank & ((1 << shift) - 1)) < thresholds[level, column]
    return part, np.where(kept, column, aliases[level, column]), distance


def _class_prefixes(grammar: Grammar) -> NDArray[np.int64]:
    """Hash of three symbols of classes, oldest first: what does not change from step to step."""
    symbols = np.arange((1 << min(grammar.class_bits, grammar.bits)) + 1)
    oldest = mix(symbols ^ grammar.roots[LEVELS - 1])
    middle = mix(oldest[:, None] ^ symbols)
    return mix(middle[:, :, None] ^ symbols)


assert RECALL == LEVELS + 1
