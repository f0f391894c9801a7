"""Power laws: recovery, an independent implementation, weights as repetition, Student intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from companion.errors import InputError
from companion.fitting.power_law import fit_power_law

RNG = np.random.default_rng(0)
X = 10 ** RNG.uniform(18, 21, 12)
Y = 0.01 * X**0.55 * np.exp(RNG.normal(0, 0.05, 12))


@given(st.floats(1e-6, 1e6), st.floats(-2, 2))
def test_exact_data_give_the_law_back(prefactor: float, exponent: float) -> None:
    x = np.array([1e18, 3e18, 1e19, 1e20])
    fit = fit_power_law(x, prefactor * x**exponent)
    assert fit.law.exponent == pytest.approx(exponent, abs=1e-10)
    assert np.log(fit.law.prefactor) == pytest.approx(np.log(prefactor), abs=1e-8)
    assert np.abs(fit.residuals).max() < 1e-9


def test_against_scipys_linregress() -> None:
    expected, fit = stats.linregress(np.log(X), np.log(Y)), fit_power_law(X, Y)
    assert fit.law.exponent == pytest.approx(expected.slope)
    assert np.log(fit.law.prefactor) == pytest.approx(expected.intercept)
    assert fit.exponent_standard_error == pytest.approx(expected.stderr)
    assert fit.log_prefactor_standard_error == pytest.approx(expected.intercept_stderr)
    assert fit.prefactor_standard_error == pytest.approx(fit.law.prefactor * expected.intercept_stderr)


def test_weight_two_is_a_point_listed_twice() -> None:
    weights = np.array([2, 1, 3] + [1] * 9)
    weighted, listed = fit_power_law(X, Y, weights), fit_power_law(np.repeat(X, weights), np.repeat(Y, weights))
    assert weighted.law.exponent == pytest.approx(listed.law.exponent)
    np.testing.assert_allclose(weighted.covariance, listed.covariance)


def test_three_points_have_one_degree_of_freedom() -> None:
    fit = fit_power_law(X[:3], Y[:3])
    low, high = fit.interval("exponent")
    assert (high - low) / 2 / fit.exponent_standard_error == pytest.approx(12.706, abs=1e-3)
    low, high = fit.interval("prefactor")
    assert low < fit.law.prefactor < high


def test_two_points_have_no_error_to_speak_of() -> None:
    fit = fit_power_law(X[:2], Y[:2])
    assert np.isnan(fit.exponent_standard_error)
    assert np.isnan(fit.interval("exponent")).all()


def test_intervals_cover() -> None:
    x = np.array([6e18, 1e19, 3e19, 1e20])
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        low, high = fit_power_law(x, 0.01 * x**0.55 * np.exp(rng.normal(0, 0.05, 4))).interval("exponent")
        hits += low <= 0.55 <= high
    assert 930 <= hits <= 970  # 95 % of 1000, three standard deviations of 6.9


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1, 2], [1, -1], "y has a value that is not positive"),
        ([0, 2], [1, 1], "x has a value that is not positive"),
        ([1, np.nan], [1, 1], "x has a value"),
        ([2, 2], [1, 3], "at least two different values"),
    ],
)
def test_bad_data(x: list, y: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_power_law(x, y)
    with pytest.raises(InputError, match="no parameter 'slope'"):
        fit_power_law([1, 2], [1, 2]).interval("slope")
