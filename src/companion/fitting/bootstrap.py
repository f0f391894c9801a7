"""Resampling: counts of how often each row is drawn, and intervals from the results."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.formatting import percent

#: More resamples than this fill the memory and teach nothing.
MAX_RESAMPLES = 1_000_000
#: Resamples times rows that fit into the memory of a small machine as counts (8 bytes each: 2.4 GB).
MAX_COUNTS = 300_000_000
#: Share of lost resamples above which a fit warns.
MANY_LOST = 0.01


def check_resamples(num_resamples: int) -> None:
    """Raise an InputError unless the number of resamples is from 1 to `MAX_RESAMPLES`."""
    if not 1 <= num_resamples <= MAX_RESAMPLES:
        raise InputError(f"bootstrap: {num_resamples} resamples; 1 to {MAX_RESAMPLES} can be drawn")


def resample_counts(strata: ArrayLike, num_resamples: int, seed: int) -> NDArray[np.int64]:
    """How often every row is drawn in every resample, drawing with replacement inside each stratum.

    A table of counts instead of row indices lets a whole bootstrap run as one batched weighted fit.

    Parameters
    ----------
    strata
        label of every row, shape (n,); every resample keeps the number of rows of each label.
    num_resamples
        R.
    seed
        of NumPy's PCG64; the same seed gives the same counts.

    Returns
    -------
    array
        int64, shape (R, n).

    Raises
    ------
    InputError
        if R is not from 1 to `MAX_RESAMPLES`, or R·n is above `MAX_COUNTS`.
    """
    check_resamples(num_resamples)
    labels = np.asarray(strata)
    if num_resamples * labels.size > MAX_COUNTS:
        raise InputError(
            f"bootstrap: {num_resamples} resamples of {labels.size} rows do not fit into memory: at most "
            f"{MAX_COUNTS // labels.size} resamples (--bootstrap {MAX_COUNTS // labels.size})"
        )
    rng = np.random.default_rng(seed)
    counts = np.zeros((num_resamples, labels.size), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counts[:, rows] = rng.multinomial(rows.size, np.full(rows.size, 1 / rows.size), size=num_resamples)
    return counts


def quantile_ends(samples: ArrayLike, level: float, method: str = "linear") -> NDArray[np.float64]:
    """Both ends of the equal-tailed interval of samples along their first axis, shape (2, ...); none may be NaN.

    Examples
    --------
    >>> quantile_ends([0.0, 1.0, 2.0, 3.0, 4.0], 0.5).tolist()
    [1.0, 3.0]
    """
    ends = [(1 - level) / 2, (1 + level) / 2]
    return np.asarray(np.quantile(samples, ends, axis=0, method=method))  # type: ignore[call-overload]


def percentile_interval(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Equal-tailed percentile interval of the finite samples; (NaN, NaN) if there are none.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level} of an interval is not between 0 and 1")
    values = np.asarray(samples, dtype=float)
    values = values[np.isfinite(values)]
    if not values.size:
        return (float("nan"), float("nan"))
    low, high = quantile_ends(values, level)
    return (float(low), float(high))


# ---- resamples without a value ---------------------------------------------------------------------


def lost_share(samples: ArrayLike) -> float:
    """Share of the samples that are not finite, between 0 and 1; 0 without samples."""
    values = np.asarray(samples, dtype=float)
    return float(np.mean(~np.isfinite(values))) if values.size else 0.0


def interval_with_lost(samples: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Equal-tailed percentile interval that counts lost resamples as outside it, half of them on each side.

    An interval of the surviving resamples alone holds the truth less often than its level says. With lost resamples as
    its outermost members, the interval has no end as soon as their share reaches 1 - level.

    Parameters
    ----------
    samples
        shape (R,); a value that is not finite is a lost resample.
    level
        between 0 and 1.

    Returns
    -------
    pair of float
        (NaN, NaN) without samples, and where the share of lost ones reaches 1 - level.
    """
    values, lost = np.asarray(samples, dtype=float), lost_share(samples)
    if not values.size or _no_end(lost, level):
        return (float("nan"), float("nan"))
    return percentile_interval(values, 1 - (1 - level - lost) / (1 - lost))


def standard_spread(samples: ArrayLike) -> float:
    """Half the width of the interval that holds 68.3 % of the samples: a standard error that heavy tails do not move.

    NaN where that interval is undefined.
    """
    low, high = interval_with_lost(samples, 0.6827)
    return (high - low) / 2


def undefined_reason(samples: ArrayLike, level: float = 0.95) -> str | None:
    """Why resamples of an estimate give no interval, in words; None where they give one.

    Resamples that are all equal give none either: an interval of zero width says that the value is known exactly.
    """
    values = np.asarray(samples, dtype=float)
    if not values.size:
        return "no resamples"
    if _no_end(lost := lost_share(values), level):
        return f"{percent(lost, 3)} of the resamples lost an optimum"
    kept = values[np.isfinite(values)]
    return "all resamples are equal" if np.ptp(kept) <= 1e-12 * np.abs(kept).max() else None


def _no_end(lost: float, level: float) -> bool:
    """Whether too many resamples are lost for an interval of this level to have an end."""
    if not 0 < level < 1:
        raise InputError(f"level {level} of an interval is not between 0 and 1")
    return lost >= 1 - level - 1e-9


def in_order_of(values: ArrayLike, guide: ArrayLike) -> NDArray[np.float64]:
    """The same values, arranged so that their ranks follow those of `guide` (Iman and Conover, 1982).

    It gives resamples another distribution and keeps what they have in common with other results of the same resample.

    Parameters
    ----------
    values, guide
        shape (R,); values that are not finite are lost, and stand half below and half above all others.

    Returns
    -------
    array
        shape (R,).
    """
    order = np.argsort(_lost_at_the_ends(np.asarray(guide, dtype=float)), kind="stable")
    sorted_values = np.asarray(values, dtype=float)
    result = np.empty_like(sorted_values)
    result[order] = sorted_values[np.argsort(_lost_at_the_ends(sorted_values), kind="stable")]
    return result


def _lost_at_the_ends(values: NDArray[np.float64]) -> NDArray[np.float64]:
    lost = np.flatnonzero(~np.isfinite(values))
    result = values.copy()
    result[lost[::2]], result[lost[1::2]] = -np.inf, np.inf
    return result
