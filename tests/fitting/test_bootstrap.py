"""Resampling: counts keep their strata and are reproducible; percentile intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.fitting.bootstrap import (
    in_order_of,
    interval_with_lost,
    lost_share,
    percentile_interval,
    resample_counts,
    standard_spread,
    undefined_reason,
)


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


def test_more_counts_than_memory_holds_are_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"at most 300 resamples \(--bootstrap 300\)"):
        resample_counts(np.zeros(1_000_000, dtype=np.int8), 1000, 0)


# ---- resamples without a value ---------------------------------------------------------------------


def test_lost_resamples_lie_outside_the_interval() -> None:
    samples = np.arange(1, 1001, dtype=float)
    assert interval_with_lost(samples, 0.9) == percentile_interval(samples, 0.9)
    lost = samples.copy()
    lost[::50] = np.nan  # 2 %: one hundredth on each side
    low, high = interval_with_lost(lost, 0.9)
    kept = lost[np.isfinite(lost)]
    # 5 % of all resamples on each side, of which 1 % are lost
    assert np.mean(kept < low) == pytest.approx(0.04 / 0.98, abs=2e-3)
    assert np.mean(kept > high) == pytest.approx(0.04 / 0.98, abs=2e-3)
    assert (lost_share(lost), lost_share([])) == (0.02, 0.0)


def test_an_interval_that_lost_resamples_leave_open_is_undefined() -> None:
    samples = np.arange(1000, dtype=float)
    samples[:100] = np.nan
    assert np.isnan(interval_with_lost(samples, 0.9)).all()
    assert np.isfinite(interval_with_lost(samples, 0.8)).all()
    assert undefined_reason(samples, 0.9) == "10.0 % of the resamples lost an optimum"
    assert undefined_reason(samples, 0.8) is None
    assert undefined_reason([]) == "no resamples"
    assert undefined_reason([2.0, 2.0, 2.0]) == "all resamples are equal"
    assert np.isnan(interval_with_lost([])).all()
    with pytest.raises(InputError, match="not between 0 and 1"):
        interval_with_lost(samples, 95)


def test_a_spread_that_heavy_tails_do_not_move() -> None:
    rng = np.random.default_rng(0)
    assert standard_spread(rng.normal(0, 3, 20_000)) == pytest.approx(3, rel=0.03)
    assert standard_spread(np.r_[rng.normal(0, 3, 20_000), 1e9]) == pytest.approx(3, rel=0.03)


def test_values_follow_the_ranks_of_their_guide() -> None:
    values, guide = np.array([5.0, 1.0, 3.0, np.nan, 2.0]), np.array([0.3, 0.1, np.nan, 0.2, 0.4])
    result = in_order_of(values, guide)
    finite = np.isfinite(result) & np.isfinite(guide)
    assert sorted(result[np.isfinite(result)]) == [1, 2, 3, 5]
    np.testing.assert_array_equal(np.argsort(result[finite]), np.argsort(guide[finite]))
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=500), rng.normal(size=500)
    assert np.corrcoef(np.argsort(np.argsort(in_order_of(a, b))), np.argsort(np.argsort(b)))[0, 1] == pytest.approx(1)
