"""Information and standard errors: known answers, and the scatter of many simulated fits."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_tables import CHINCHILLA, simulated

from companion.errors import InputError
from companion.fitting.fit import fit
from companion.fitting.identification import standard_errors
from companion.laws import LossSurface
from companion.study.next_runs.information import (
    Noise,
    condition_number,
    huber_efficiency,
    linear_law,
    linearize,
    noise_of,
    repeat_noise,
    variance_of,
)
from companion.study.next_runs.quantities import LossOf, OptimalSize, ParameterValue, Quantity, SizeExponent

SIZES = np.repeat([1e8, 3e8, 1e9, 3e9], 4)
TOKENS = SIZES * np.tile([5.0, 20.0, 80.0, 300.0], 4)


def test_information_adds_up() -> None:
    linear = linear_law(CHINCHILLA, 0.005, ["gamma"])
    parts = linear.information(SIZES[:7], TOKENS[:7]) + linear.information(SIZES[7:], TOKENS[7:])
    assert parts == pytest.approx(linear.information(SIZES, TOKENS))
    assert 2 * linear.information(SIZES, TOKENS) == pytest.approx(
        linear.information(np.tile(SIZES, 2), np.tile(TOKENS, 2))
    )


@pytest.mark.parametrize("quantity", [SizeExponent(), LossOf(7e9, 1e12), OptimalSize(1e23), ParameterValue("B")])
def test_the_center_changes_no_standard_error(quantity: Quantity) -> None:
    errors = []
    for center in ((0.0, 0.0), (20.0, 24.0), (18.0, 26.0)):
        linear = linear_law(CHINCHILLA, 0.005, ["gamma"], center=center)
        covariance = np.linalg.inv(linear.information(SIZES, TOKENS))
        slope = linear.slope(quantity)
        errors.append(math.sqrt(slope @ covariance @ slope))
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-4)


def test_four_times_the_runs_halve_the_error_and_noise_scales_it() -> None:
    linear = linear_law(CHINCHILLA, 0.005, ["gamma"], huber_delta=math.inf)
    once = linear.standard_error(linear.information(SIZES, TOKENS), SizeExponent())
    four = linear.standard_error(4 * linear.information(SIZES, TOKENS), SizeExponent())
    noisy = linear_law(CHINCHILLA, 0.01, ["gamma"], huber_delta=math.inf)
    assert four == pytest.approx(once / 2)
    assert noisy.standard_error(noisy.information(SIZES, TOKENS), SizeExponent()) == pytest.approx(2 * once)


def test_errors_of_least_squares_are_those_of_the_fit_package() -> None:
    runs = simulated(CHINCHILLA, 0.003, seed=1)
    found = fit(LossSurface, runs, huber_delta=math.inf, gamma=1)
    linear = linearize(found)
    information = linear.information(runs["num_params"], runs["num_tokens"])
    theirs = standard_errors(found)[0]
    for name in ("alpha", "beta", "E"):
        own = linear.standard_error(information, ParameterValue(name))
        own *= getattr(found.law, name) if name != "E" else 1.0  # theirs is of the solver's parameter
        assert own == pytest.approx(theirs[found.law.index(name)], rel=0.02)


@pytest.mark.parametrize("huber_delta", [1e-3, math.inf])
def test_errors_are_the_scatter_of_many_fits(huber_delta: float) -> None:
    """Of 120 simulated tables with known noise; their scatter is itself known to 6.5 %."""
    noise, quantities = 0.004, (SizeExponent(), LossOf(2e10, 4e11), OptimalSize(1e22), ParameterValue("alpha"))
    linear = linear_law(CHINCHILLA, noise, ["gamma"], huber_delta=huber_delta)
    mean = CHINCHILLA.predict(SIZES, TOKENS)
    found = []
    for number in range(120):
        loss = mean * np.exp(noise * np.random.default_rng(number).standard_normal(len(SIZES)))
        table = pd.DataFrame({"num_params": SIZES, "num_tokens": TOKENS, "val_loss": loss})
        law = fit(LossSurface, table, huber_delta=huber_delta, num_starts=2, gamma=1).law
        found.append([quantity.error_of(law, quantity.value(CHINCHILLA)) for quantity in quantities])
    expected = [linear.standard_error(linear.information(SIZES, TOKENS), quantity) for quantity in quantities]
    assert np.std(found, axis=0) == pytest.approx(expected, rel=0.15)


def test_what_runs_do_not_determine_has_an_infinite_error() -> None:
    linear = linear_law(CHINCHILLA, 0.005, ["gamma"])
    one_size = linear.information(np.full(9, 1e9), np.geomspace(1e9, 1e12, 9))
    assert linear.standard_error(one_size, ParameterValue("alpha")) == math.inf
    assert linear.standard_error(one_size, LossOf(3e9, 1e11)) == math.inf
    assert math.isinf(condition_number(one_size))
    # but the loss of that very size is known
    assert linear.standard_error(one_size, LossOf(1e9, 1e11)) < 0.01


@given(st.integers(1, 6), st.integers(0, 10**6))
def test_variance_is_that_of_the_inverse(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, slope = rng.normal(size=(size + 6, size)), rng.normal(size=size)
    information = rows.T @ rows
    assert np.isclose(variance_of(information, slope), slope @ np.linalg.solve(information, slope))


def test_nothing_known() -> None:
    assert variance_of(np.zeros((2, 2)), np.array([1.0, 0.0])) == math.inf
    assert variance_of(np.zeros((2, 2)), np.zeros(2)) == 0.0


@pytest.mark.parametrize("k", [1e-4, 0.1, 0.5, 1.0, 2.0])
def test_huber_efficiency_by_integration(k: float) -> None:
    x = np.linspace(-12, 12, 400_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    square = np.trapezoid(np.clip(x, -k, k) ** 2 * density, x)
    inside = math.erf(k / math.sqrt(2))
    assert huber_efficiency(1.0, k) == pytest.approx(inside**2 / square, rel=1e-3)


def test_huber_efficiency_rises_from_the_median_to_least_squares() -> None:
    values = [huber_efficiency(1.0, k) for k in np.geomspace(1e-8, 20, 60)]
    assert np.all(np.diff(values) >= -1e-9)
    assert values[0] == pytest.approx(2 / math.pi, abs=1e-4)
    assert huber_efficiency(0.01, math.inf) == values[-1] == 1.0


def test_noise_of_residuals_and_of_repeats() -> None:
    runs = simulated(CHINCHILLA, 0.004, seed=3)
    noise = noise_of(fit(LossSurface, runs, gamma=1))
    assert noise.sd == pytest.approx(0.004, rel=0.15)
    assert noise.degrees == len(runs) - 5
    assert repeat_noise(runs) is None
    again = runs.assign(val_loss=simulated(CHINCHILLA, 0.004, seed=4)["val_loss"])
    repeated = repeat_noise(pd.concat([runs, again]))
    assert repeated is not None
    assert repeated.sd == pytest.approx(0.004, rel=0.15)
    assert repeated.degrees == len(runs)


def test_runs_without_scatter_need_a_given_noise() -> None:
    found = fit(LossSurface, simulated(CHINCHILLA, 0.0, seed=0), gamma=1)
    with pytest.raises(InputError, match="without scatter"):
        linearize(found)
    assert linearize(found, Noise(sd=0.005)).noise.sd == 0.005
    with pytest.raises(InputError, match="must be positive"):
        Noise(sd=math.nan)


def test_a_law_that_is_not_identified_is_an_error() -> None:
    runs = simulated(CHINCHILLA, 0.004, seed=3)
    few = runs[runs["num_params"].isin(runs["num_params"].unique()[:2])]
    with pytest.raises(InputError, match="not identified"):
        linearize(fit(LossSurface, few, gamma=1))


def test_a_parameter_at_its_bound_is_held_and_named() -> None:
    law = LossSurface(E=1e-6, A=40.0, B=60.0, alpha=0.15, beta=0.13)
    found = fit(LossSurface, simulated(law, 0.002, seed=5), gamma=1)
    assert "E" in found.at_bound
    linear = linearize(found)
    assert linear.names == ["A", "B", "alpha", "beta"]
    assert linear.notes == ("E is at its bound and held there",)
