"""The score: known answers, and that honesty pays."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from companion.errors import InputError
from companion.study.laboratory import Outcome, Regret, interval_score, score

REACHED = Outcome(val_loss=2.7, train_flops=1e20, gpu_hours=1.0)
BEST = Regret(nats=0.0, compute_share=1.0)


def test_interval_scores_by_hand() -> None:
    """Gneiting and Raftery (2007), equation 43: at 90 %, 2/alpha is 20."""
    assert interval_score(2.0, 3.0, 2.5, 0.9) == 1.0
    assert interval_score(2.0, 3.0, 3.1, 0.9) == pytest.approx(1 + 20 * 0.1)
    assert interval_score(2.0, 3.0, 1.5, 0.5) == pytest.approx(1 + 4 * 0.5)


def test_true_quantiles_score_least_in_expectation() -> None:
    outcomes = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)

    def expected(reach: float) -> float:
        return float(np.mean([interval_score(-reach, reach, each, 0.9) for each in outcomes]))

    reaches = np.linspace(0.8, 2.6, 37)
    best = reaches[int(np.argmin([expected(reach) for reach in reaches]))]
    assert best == pytest.approx(stats.norm.ppf(0.95), abs=0.05)


def test_parts_by_hand() -> None:
    low, high = 2.7 * math.exp(-0.03), 2.7 * math.exp(0.03)
    found = score(2.7 * math.exp(0.01), low, high, 0.9, REACHED, Regret(nats=0.02, compute_share=0.8))
    assert found.interval_points == pytest.approx(50 * (1 - 0.06 / 0.15))
    assert found.accuracy_points == pytest.approx(10 * (1 - 0.01 / 0.05))
    assert found.choice_points == pytest.approx(32)
    assert found.total == pytest.approx(30 + 8 + 32)
    assert found.covered


def test_outside_by_hand() -> None:
    found = score(2.6, 2.59, 2.7 * math.exp(-0.004), 0.9, REACHED, BEST)
    width = math.log(2.7 * math.exp(-0.004) / 2.59)
    assert found.interval_score == pytest.approx(width + 20 * 0.004)
    assert not found.covered


def test_a_diverged_target_earns_nothing() -> None:
    diverged = Outcome(val_loss=None, train_flops=1e19, gpu_hours=1.0, share_done=0.1)
    found = score(2.7, 2.6, 2.8, 0.9, diverged, Regret(nats=0.1, compute_share=0.0))
    assert (found.total, found.covered, found.interval_score) == (0.0, False, math.inf)


def test_without_a_best_run_the_other_parts_make_up_the_total() -> None:
    found = score(2.7, 2.7, 2.7, 0.9, REACHED, None)
    assert found.total == pytest.approx(100)
    assert math.isnan(found.choice_points)


@given(st.floats(1.5, 4), st.floats(1e-4, 0.5), st.floats(1e-4, 0.5), st.floats(0, 1))
def test_totals_are_between_0_and_100(loss: float, below: float, above: float, share: float) -> None:
    found = score(loss, loss - below, loss + above, 0.9, REACHED, Regret(nats=0.1, compute_share=share))
    assert 0 <= found.total <= 100
    assert found.total == pytest.approx(found.interval_points + found.accuracy_points + found.choice_points)


@pytest.mark.parametrize(("low", "high", "level"), [(3.0, 2.0, 0.9), (2.0, 3.0, 1.0), (math.nan, 3.0, 0.9)])
def test_wrong_intervals(low: float, high: float, level: float) -> None:
    with pytest.raises(InputError):
        interval_score(low, high, 2.5, level)


def test_losses_must_be_positive() -> None:
    with pytest.raises(InputError, match="positive"):
        score(2.7, -1.0, 2.8, 0.9, REACHED, BEST)
