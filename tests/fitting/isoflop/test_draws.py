"""Optima drawn from what the runs of a profile leave open."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost
from companion.fitting.isoflop.draws import draw_optima, far_outside, parabola_spread
from companion.fitting.isoflop.profiles import fit_isoflop

Z = np.linspace(8, 9, 8)


def noisy(noise: float = 0.002, seed: int = 0, z: np.ndarray = Z) -> np.ndarray:
    return 3 + 0.3 * (z - 8.45) ** 2 + np.random.default_rng(seed).normal(0, noise, z.size)


def fieller(z: np.ndarray, loss: np.ndarray, level: float) -> tuple[float, float]:
    """Exact interval of the minimum: where 2·a·z + b is no farther from 0 than Student's factor says."""
    design = np.stack([z**2, z, np.ones_like(z)], axis=1)
    coefficients, (rss,), *_ = np.linalg.lstsq(design, loss, rcond=None)
    variance = rss / (z.size - 3) * np.linalg.inv(design.T @ design)
    t = stats.t.ppf((1 + level) / 2, z.size - 3)
    grid = np.linspace(z.min() - 1, z.max() + 1, 200_001)
    gradient = np.stack([2 * grid, np.ones_like(grid), np.zeros_like(grid)], axis=1)
    error = np.sqrt(np.einsum("gi,ij,gj->g", gradient, variance, gradient))
    inside = grid[np.abs(gradient @ coefficients) <= t * error]
    return float(inside.min()), float(inside.max())


@pytest.mark.parametrize(("noise", "count"), [(0.002, 8), (0.01, 8), (0.002, 5)])
def test_drawn_optima_have_the_quantiles_of_fiellers_interval(noise: float, count: int) -> None:
    z = np.linspace(8, 9, count) - 8.5  # Fieller is computed here without centring
    loss = 3 + 0.3 * (z + 0.05) ** 2 + np.random.default_rng(1).normal(0, noise, count)
    drawn, _ = draw_optima([parabola_spread(10**z, loss)], 40_000, 0)
    assert interval_with_lost(drawn[:, 0], 0.9) == pytest.approx(fieller(z, loss, 0.9), rel=0.03, abs=2e-3)


def test_draws_center_on_the_fit_and_repeat() -> None:
    spread = parabola_spread(10**Z, noisy())
    a, b, c = np.polyfit(Z, noisy(), 2)
    first, loss = draw_optima([spread], 4000, 3)
    assert np.median(first) == pytest.approx(-b / (2 * a), abs=2e-3)
    assert np.median(loss) == pytest.approx(c - b**2 / (4 * a), abs=5e-4)
    np.testing.assert_array_equal(first, draw_optima([spread], 4000, 3)[0])
    assert (first != draw_optima([spread], 4000, 4)[0]).all()


def test_a_run_that_counts_twice_is_not_two_runs() -> None:
    once, twice = (parabola_spread(10**Z, noisy(), weights) for weights in (None, np.full(8, 2.0)))
    assert (once.variance, once.degrees_of_freedom) == (pytest.approx(twice.variance), twice.degrees_of_freedom)
    np.testing.assert_allclose(np.abs(once.factor), np.abs(twice.factor), atol=1e-12)
    # the variance stays unbiased under unequal weights
    weights = np.arange(1.0, 9.0)
    found = [parabola_spread(10**Z, noisy(0.01, seed), weights).variance for seed in range(2000)]
    assert np.mean(found) == pytest.approx(1e-4, rel=0.05)
    assert parabola_spread(10**Z, noisy(), np.r_[0.0, np.ones(7)]).degrees_of_freedom == 4


def test_small_profiles_share_their_scatter_and_large_ones_do_not() -> None:
    def width(spreads: list) -> float:
        low, high = interval_with_lost(draw_optima(spreads, 4000, 0)[0][:, 0], 0.9)
        return high - low

    z = np.linspace(8, 9, 5)
    small = parabola_spread(10**z, noisy(0.001, 4, z))
    loud = parabola_spread(10**z, noisy(0.01, 5, z))
    large = parabola_spread(10 ** np.linspace(8, 9, 9), noisy(0.001, 4, np.linspace(8, 9, 9)))
    assert width([small, loud]) > 1.5 * width([small])
    assert width([large, loud]) == width([large])


def test_nothing_is_drawn_without_scatter_or_degrees_of_freedom() -> None:
    exact = parabola_spread(10**Z, 3 + 0.3 * (Z - 8.45) ** 2)
    three = parabola_spread(10 ** Z[:3], noisy()[:3])
    assert "within rounding" in exact.fault
    assert "no degree of freedom" in three.fault
    drawn, loss = draw_optima([exact, three, parabola_spread(10**Z, noisy())], 50, 0)
    assert np.isnan(drawn[:, :2]).all()
    assert np.isnan(loss[:, :2]).all()
    assert np.isfinite(drawn[:, 2]).all()
    with pytest.raises(InputError, match="0 resamples"):
        draw_optima([exact], 0, 0)


def test_optima_far_outside_the_sizes_are_lost() -> None:
    assert far_outside(np.array([6.9, 7.1, 9.9, 10.1]), 8.0, 9.0).tolist() == [True, False, False, True]
    assert far_outside(6.1, 8.0, 10.0) == np.False_
    nearly_flat = parabola_spread(10**Z, 3 + 1e-3 * (Z - 8.5) ** 2 + np.random.default_rng(0).normal(0, 0.01, 8))
    drawn, _ = draw_optima([nearly_flat], 500, 0)
    assert np.isnan(drawn).mean() > 0.1
    assert np.nanmin(drawn) >= 7
    assert np.nanmax(drawn) <= 10


def test_memory_grows_with_the_rows_and_not_with_rows_times_resamples() -> None:
    rows, rng = 50_000, np.random.default_rng(0)
    budget = np.repeat([1e19, 1e20], rows // 2)
    z = rng.uniform(-0.5, 0.5, rows)
    runs = pd.DataFrame({"isoflop_budget": budget, "train_flops": budget, "num_params": 0.01 * budget**0.55 * 10**z})
    runs = runs.assign(
        num_tokens=budget / 6 / runs["num_params"], val_loss=2.5 + 0.3 * z**2 + rng.normal(0, 0.01, rows)
    )
    tracemalloc.start()
    fit = fit_isoflop(runs, num_resamples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1000 * rows  # bytes: 1 kB a row, where a table of counts would take 8 kB
    low, high = fit.interval("exponent")
    assert low < 0.55 < high
