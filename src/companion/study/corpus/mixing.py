"""Hashes of 32 bits and keyed bijections: the same arithmetic for NumPy arrays and torch tensors of int64.

Everything is a whole number in [0, 2³²) inside an int64. A product of two such numbers may pass 2⁶³: it wraps, and its
lower 32 bits are right all the same.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from companion.study.corpus.philox import WORD

#: An int64 array or an int64 tensor: both have the operators, and what comes back is what was given.
Words: TypeAlias = Any

#: Step between the two words of a key: 2³² divided by the golden ratio.
STEP = 0x9E3779B9
#: Multipliers and shifts of `mix`: a 32-bit finalizer of low bias (Wellons, *Prospecting for hash functions*, 2018).
MIX = (0x7FEB352D, 0x846CA68B)
SHIFTS = (16, 15, 16)


def mix(x: Words) -> Words:
    """A bijection of the 32-bit words that leaves no pattern of its argument.

    Examples
    --------
    >>> mix(np.array([0, 1, 2])).tolist()
    [0, 1753845952, 3507691905]
    """
    x = x ^ (x >> SHIFTS[0])
    x = (x * MIX[0]) & WORD
    x = x ^ (x >> SHIFTS[1])
    x = (x * MIX[1]) & WORD
    return x ^ (x >> SHIFTS[2])


def scramble(x: Words, key: Words, bits: int) -> Words:
    """Where a keyed bijection of [0, 2^bits) sends x: two rounds of multiply, add and fold. At most 16 bits.

    Parameters
    ----------
    x
        whole numbers below 2^bits.
    key
        32-bit words; every key has a bijection of its own.
    """
    mask, fold = (1 << bits) - 1, (bits + 1) // 2
    second = mix((key + STEP) & WORD)
    x = (x * ((key & mask) | 1) + (key >> 16)) & mask
    x = x ^ (x >> fold)
    x = (x * ((second & mask) | 1) + (second >> 16)) & mask
    return x ^ (x >> fold)


def unscramble(y: Words, key: Words, bits: int) -> Words:
    """The x that `scramble` sends to y."""
    mask, fold = (1 << bits) - 1, (bits + 1) // 2
    second = mix((key + STEP) & WORD)
    # a fold by at least half of the bits undoes itself
    y = y ^ (y >> fold)
    y = ((y - (second >> 16)) * _inverse((second & mask) | 1, mask)) & mask
    y = y ^ (y >> fold)
    return ((y - (key >> 16)) * _inverse((key & mask) | 1, mask)) & mask


def _inverse(odd: Words, mask: int) -> Words:
    """Inverse of an odd number modulo a power of two of at most 2¹⁶, by Newton's iteration: 3, 6, 12, 24 right bits."""
    x = odd
    for _ in range(3):
        x = (x * (2 - odd * x)) & mask
    return x


def permuted(numbers: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Where a keyed permutation of [0, size) sends these numbers; nothing is stored, whatever the size.

    A Feistel network of six rounds permutes the numbers below the next power of four; what lands at `size` or above
    goes through it again until it lands below (cycle walking: Black, Rogaway, *Ciphers with arbitrary finite domains*,
    2002).

    Examples
    --------
    >>> sorted(permuted(np.arange(5), 5, key=3).tolist())
    [0, 1, 2, 3, 4]
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    keys = mix(((key & WORD) + np.arange(1, 7) * STEP) & WORD).tolist()
    found = np.array(numbers, dtype=np.int64)
    outside = np.arange(found.size)
    while outside.size:
        left, right = found[outside] >> half, found[outside] & mask
        for word in keys:
            left, right = right, left ^ (mix((right ^ word) & WORD) & mask)
        found[outside] = (left << half) | right
        outside = outside[found[outside] >= size]
    return found
