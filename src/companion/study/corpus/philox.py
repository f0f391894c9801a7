"""Random 32-bit words by their address: Philox-4x32-10. NumPy only."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Multipliers and Weyl constants of Philox-4x32 (Salmon et al. 2011, section 3.3 and Random123's `philox.h`).
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF


def philox(
    seed: int, c0: ArrayLike, c1: ArrayLike = 0, c2: ArrayLike = 0, c3: ArrayLike = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Four random words for every counter, each an int64 in [0, 2³²).

    Nothing is drawn in turn: a word depends on the seed and on its counter alone, so any part of a stream can be drawn
    anywhere, at any time. `tl.philox` of Triton gives the same words.

    Parameters
    ----------
    seed
        the key, 64 bits; the lower 32 are its first word.
    c0, c1, c2, c3
        the counter: whole numbers, of which the lower 32 bits count; they are broadcast against each other.

    Notes
    -----
    Salmon, Moraes, Dror, Shaw: *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.

    Examples
    --------
    >>> [f"{int(word):08x}" for word in philox(0, 0)]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    x0, x1, x2, x3 = (np.asarray(c, dtype=np.int64).astype(np.uint64) & np.uint64(WORD) for c in (c0, c1, c2, c3))
    half, word = np.uint64(32), np.uint64(WORD)
    k0, k1 = seed & WORD, (seed >> 32) & WORD
    for _ in range(ROUNDS):
        first, second = x0 * np.uint64(MULTIPLIERS[0]), x2 * np.uint64(MULTIPLIERS[1])
        x0, x2 = (second >> half) ^ x1 ^ np.uint64(k0), (first >> half) ^ x3 ^ np.uint64(k1)
        x1, x3 = second & word, first & word
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    words = np.broadcast_arrays(x0, x1, x2, x3)
    return tuple(x.astype(np.int64) for x in words)  # type: ignore[return-value]
