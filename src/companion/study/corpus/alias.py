"""Laws as whole numbers, and tables that draw from exactly these laws with one 32-bit word. NumPy only."""

import numpy as np
from numpy.typing import NDArray

#: Weights of a law sum to this: one for every value of a 32-bit word.
WHOLE = 1 << 32


def quantized(weights: NDArray[np.float64], whole: int = WHOLE) -> NDArray[np.int64]:
    """Whole weights in proportion to these that sum to `whole` and are at least 1: largest remainders round up.

    Examples
    --------
    >>> quantized(np.array([1.0, 1.0, 2.0])).tolist()
    [1073741824, 1073741824, 2147483648]
    """
    exact = weights / weights.sum() * (whole - len(weights))
    found = np.floor(exact).astype(np.int64)
    missing = whole - len(weights) - int(found.sum())
    found[np.argsort(found - exact, kind="stable")[:missing]] += 1
    return found + 1


def power_law(size: int, exponent: float) -> NDArray[np.int64]:
    """Whole weights of P(i) ∝ (i + 1)^−exponent for i = 0 ... size − 1, summing to 2³².

    Examples
    --------
    >>> (power_law(4, 1.0) / 2**32).round(3).tolist()
    [0.48, 0.24, 0.16, 0.12]
    """
    return quantized(np.arange(1, size + 1, dtype=np.float64) ** -exponent)


def alias_table(weights: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Thresholds and aliases from which `drawn` draws i with exactly weights[i] of the 2³² words.

    Walker's alias method (Vose, *A linear algorithm for generating random numbers with a given distribution*, 1991), in
    whole numbers: a column holds 2³²/size words, of which the first `threshold` belong to i and the rest to its alias.

    Parameters
    ----------
    weights
        whole numbers that sum to 2³²; their number is a power of two.
    """
    size = len(weights)
    column = WHOLE // size
    left = [int(weight) for weight in weights]
    threshold, alias = [column] * size, list(range(size))
    small = [i for i in range(size) if left[i] < column]
    large = [i for i in range(size) if left[i] > column]
    while small:
        i, giver = small.pop(), large[-1]
        threshold[i], alias[i] = left[i], giver
        left[giver] -= column - left[i]
        if left[giver] <= column:
            large.pop()
            if left[giver] < column:
                small.append(giver)
    return np.array(threshold, dtype=np.int64), np.array(alias, dtype=np.int64)


def drawn(words: NDArray[np.int64], threshold: NDArray[np.int64], alias: NDArray[np.int64]) -> NDArray[np.int64]:
    """What these 32-bit words draw: the upper bits choose a column, the others are compared with its threshold."""
    shift = 33 - len(threshold).bit_length()
    i = words >> shift
    return np.where((words & ((1 << shift) - 1)) < threshold[i], i, alias[i])
