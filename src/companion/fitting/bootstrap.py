"""Resampling: counts of how often each row is drawn, and intervals from the results."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.errors import InputError

#: More resamples than this fill the memory and teach nothing.
MAX_RESAMPLES = 1_000_000


def resample_counts(strata: Any, num_resamples: int, seed: int) -> NDArray[np.int64]:
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
    """
    if not 1 <= num_resamples <= MAX_RESAMPLES:
        raise InputError(f"bootstrap: {num_resamples} resamples; 1 to {MAX_RESAMPLES} can be drawn")
    labels = np.asarray(strata)
    rng = np.random.default_rng(seed)
    counts = np.zeros((num_resamples, labels.size), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counts[:, rows] = rng.multinomial(rows.size, np.full(rows.size, 1 / rows.size), size=num_resamples)
    return counts


def percentile_interval(samples: Any, level: float = 0.95) -> tuple[float, float]:
    """Equal-tailed percentile interval of the finite samples; (NaN, NaN) if there are none.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level} of an interval is not between 0 and 1")
    values = np.asarray(samples, dtype=float)
    values = values[np.isfinite(values)]
    if not values.size:
        return (float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))
