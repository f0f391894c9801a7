"""Resampling: counts keep their strata and are reproducible; percentile intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.fitting.bootstrap import percentile_interval, resample_counts


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 100))
def test_every_resample_keeps_the_size_of_every_stratum(strata: list[int], seed: int) -> None:
    counts = resample_counts(strata, 20, seed)
    for label in set(strata):
        rows = np.array(strata) == label
        assert (counts[:, rows].sum(axis=1) == rows.sum()).all()


def test_same_seed_same_counts_and_another_seed_others() -> None:
    strata = np.repeat([0, 1], 10)
    np.testing.assert_array_equal(resample_counts(strata, 5, 1), resample_counts(strata, 5, 1))
    assert (resample_counts(strata, 5, 1) != resample_counts(strata, 5, 2)).any()


def test_rows_are_drawn_with_replacement_at_the_right_rate() -> None:
    counts = resample_counts(np.zeros(20), 4000, 0)
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 20) ** 20, abs=0.01)


def test_percentiles_skip_what_is_not_finite() -> None:
    samples = np.concatenate([np.linspace(0, 1, 1001), [np.nan, np.inf]])
    assert percentile_interval(samples, 0.9) == pytest.approx((0.05, 0.95))
    assert np.isnan(percentile_interval([np.nan])).all()


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="0 resamples; 1 to 1000000 can be drawn"):
        resample_counts([0], 0, 0)
    with pytest.raises(InputError, match="not between 0 and 1"):
        percentile_interval([1.0], 95)
