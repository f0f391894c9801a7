"""Products of whole numbers that wrapped: 6·N·D in 64-bit integers is wrong from 9.2e18 FLOP on, without an error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Significant digits to which a printed value must agree with the wrapped one: all of float64, or what CSV files keep.
_EXACT, _PRINTED = 1e-12, 1e-6


@dataclass(frozen=True)
class Wrapped:
    """Positions (k,) of values that wrapped, what they should be (k,), and the width of the integers in bits (k,)."""

    positions: NDArray[np.intp]
    right: NDArray[np.float64]
    bits: NDArray[np.int64]

    def row(self, position: int) -> tuple[float, int] | None:
        """(right value, bits) of one position, or None if its value did not wrap."""
        found = np.flatnonzero(self.positions == position)
        return (float(self.right[found[0]]), int(self.bits[found[0]])) if found.size else None


def wrapped_flops(num_params: ArrayLike, num_tokens: ArrayLike, train_flops: ArrayLike) -> Wrapped:
    """Values of train_flops that are 6·N·D (or 2·N·D) modulo 2^64 or 2^32, signed or not, rather than the product.

    A value counts if it equals the wrapped product to 12 digits; to 6 digits if half of all rows whose product is too
    large for the integer agree that well. Values that are the product itself never count.

    Parameters
    ----------
    num_params, num_tokens
        (n,) each, whole numbers of at least 0 (int64).
    train_flops
        (n,), FLOP; may be negative, as wrapped values are.
    """
    n, d = (np.asarray(values).astype(np.uint64) for values in (num_params, num_tokens))
    flops = np.asarray(train_flops, dtype=np.float64)
    pairs, size = n * d, n.astype(np.float64) * d.astype(np.float64)
    right, bits = np.zeros(flops.size), np.zeros(flops.size, dtype=np.int64)
    for factor in (6, 2):
        product, true = pairs * np.uint64(factor), factor * size
        low = product & np.uint64(2**32 - 1)
        for width, limit, value in (
            (64, 2.0**63, product.view(np.int64).astype(np.float64)),
            (64, 2.0**64, product.astype(np.float64)),
            (64, factor * 2.0**63, factor * pairs.view(np.int64).astype(np.float64)),  # N·D wrapped, then times 6.0
            (32, 2.0**31, low.astype(np.uint32).view(np.int32).astype(np.float64)),
            (32, 2.0**32, low.astype(np.float64)),
        ):
            found = _matches(flops, value, true, limit) & (bits == 0)
            right[found], bits[found] = true[found], width
    at = np.flatnonzero(bits)
    return Wrapped(at, right[at], bits[at])


def wrapped_products(values: ArrayLike, factors: ArrayLike) -> Wrapped:
    """Values (n,) that are the product of factors (k, n) modulo 2^32 or 2^64 rather than the product."""
    given, parts = np.asarray(values, dtype=np.float64), np.asarray(factors, dtype=np.float64)
    true, product = parts.prod(axis=0), np.ones(given.size, dtype=np.uint64)
    known = np.isfinite(true) & (np.abs(true) < 2.0**80)
    for part in parts:
        product = product * np.where(known, part, 0).astype(np.uint64)
    low = product & np.uint64(2**32 - 1)
    right, bits = np.zeros(given.size), np.zeros(given.size, dtype=np.int64)
    for width, limit, value in (
        (64, 2.0**63, product.view(np.int64).astype(np.float64)),
        (32, 2.0**31, low.astype(np.uint32).view(np.int32).astype(np.float64)),
        (32, 2.0**32, low.astype(np.float64)),
    ):
        found = known & (true >= limit) & (given == value) & (given != true) & (bits == 0)
        right[found], bits[found] = true[found], width
    at = np.flatnonzero(bits)
    return Wrapped(at, right[at], bits[at])


def _matches(
    flops: NDArray[np.float64], value: NDArray[np.float64], true: NDArray[np.float64], limit: float
) -> NDArray[np.bool_]:
    beyond = (true >= limit) & (np.abs(flops / np.where(true > 0, true, 1.0) - 1) > 1e-3) & (value != 0)
    gap = np.abs(flops - value)
    exact, printed = (beyond & (gap <= tolerance * np.abs(value)) for tolerance in (_EXACT, _PRINTED))
    return printed if 2 * printed.sum() >= (true >= limit).sum() else exact
