"""Goodness of fit of power law and parabola: are the tests calibrated where the truth is known?"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.errors import InputError
from companion.fitting.isoflop.goodness_of_fit import law_scatter, skew
from companion.fitting.isoflop.profiles import IsoflopFit, IsoflopProfile, fit_isoflop, fit_profile

BUDGETS = (6e18, 1e19, 3e19, 1e20)


def synthetic(seed: int, noise: float = 0.01, bend: float = 0.0) -> IsoflopFit:
    """Parabolas around N* = 0.01·C^0.55, the last optimum `bend` decades off."""
    rng, tables = np.random.default_rng(seed), []
    for index, budget in enumerate(BUDGETS):
        distance = np.linspace(-0.5, 0.5, 25)
        size = 0.01 * budget**0.55 * 10**distance * 10 ** (bend * (index == len(BUDGETS) - 1))
        loss = 3 + 0.6 * distance**2 + rng.normal(0, noise, distance.size)
        columns = {"isoflop_budget": budget, "train_flops": budget, "num_params": size, "val_loss": loss}
        tables.append(pd.DataFrame(columns).assign(num_tokens=budget / 6 / size))
    return fit_isoflop(pd.concat(tables), num_resamples=0)


def test_chances_are_uniform_under_a_power_law() -> None:
    chances = [law_scatter(synthetic(seed)).closer for seed in range(200)]
    assert stats.kstest(chances, "uniform").pvalue > 0.01


def test_a_bend_is_found() -> None:
    scatter = law_scatter(synthetic(0, bend=0.1))
    assert scatter.farther < 1e-3
    assert scatter.degrees_of_freedom == 2
    assert scatter.chi_square == pytest.approx(np.sum(scatter.pulls**2))
    assert scatter.closer + scatter.farther == pytest.approx(1)


def test_scatter_needs_three_optima() -> None:
    fit = synthetic(0)
    short = IsoflopFit(**{**vars(fit), "profiles": fit.profiles[:2]})
    with pytest.raises(InputError, match="2 optima with a standard error; 3 are needed"):
        law_scatter(short)


def cubic_profile(third: float, noise: float = 0.0, seed: int = 0) -> IsoflopProfile:
    z = np.linspace(-0.5, 0.5, 21)
    loss = 3 + z**2 + third * z**3 + np.random.default_rng(seed).normal(0, noise, 21)
    return fit_profile(1e19, 1e9 * 10**z, loss, np.full(21, 1e19))


def test_cubic_minimum_is_found() -> None:
    result = skew(cubic_profile(0.5, noise=1e-4))
    assert result.p_value < 1e-6
    assert np.log10(result.x_opt) == pytest.approx(9, abs=1e-3)
    assert cubic_profile(0.5).fit.law.x_opt < 10**8.97  # type: ignore[union-attr]


def test_no_cubic_no_significance() -> None:
    chances = [skew(cubic_profile(0.0, noise=0.01, seed=seed)).p_value for seed in range(200)]
    assert stats.kstest(chances, "uniform").pvalue > 0.01


def test_skew_needs_five_sizes() -> None:
    z = np.array([-0.2, -0.1, 0.1, 0.2])
    with pytest.raises(InputError, match="five sizes"):
        skew(fit_profile(1e19, 1e9 * 10**z, 3 + z**2, np.full(4, 1e19)))
