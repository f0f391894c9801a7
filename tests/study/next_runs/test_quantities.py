"""Quantities read off a law, and their slopes against central differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.laws import LossSurface, ProductLaw, optimum
from companion.runs.shape_family import FamilyScale, paper_family
from companion.study.next_runs.quantities import (
    LossOf,
    OptimalLoss,
    OptimalSize,
    ParameterValue,
    Quantity,
    SizeExponent,
    checked_differences,
    parse_quantity,
)

LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
FREE = LossSurface(E=1.8, A=2.6e5, B=9.8e5, alpha=0.65, beta=0.63, gamma=0.47)
PRODUCT = ProductLaw(E=1.7, K=50.0, alpha=0.1, beta=0.05)
XLSTM = FamilyScale(family=paper_family("xlstm"), context_length=8192)


def theta_of(law: LossSurface | ProductLaw) -> np.ndarray:
    return np.array([np.log(v) if n in law.LOGARITHMIC else v for n, v in law.parameters.items()])


def differences(quantity: Quantity, law: LossSurface | ProductLaw) -> np.ndarray:
    def number(theta: np.ndarray) -> float:
        value = quantity.value(type(law).from_theta(theta))
        return float(np.log(value)) if quantity.in_logs else value

    theta, step = theta_of(law), 1e-5
    moves = step * np.eye(len(theta))
    return np.array([(number(theta + move) - number(theta - move)) / (2 * step) for move in moves])


@pytest.mark.parametrize("law", [LAW, FREE], ids=["gamma 1", "gamma free"])
@pytest.mark.parametrize(
    "quantity",
    [
        ParameterValue("E"),
        ParameterValue("alpha"),
        ParameterValue("A"),
        SizeExponent(),
        LossOf(7e9, 1.4e12),
        OptimalSize(1e24),
        OptimalLoss(1e24),
        OptimalSize(1e23, XLSTM),
        OptimalLoss(1e23, XLSTM),
    ],
    ids=lambda quantity: type(quantity).__name__,
)
def test_slopes_are_those_of_central_differences(quantity: Quantity, law: LossSurface) -> None:
    assert quantity.slope(type(law), theta_of(law)) == pytest.approx(differences(quantity, law), rel=1e-4, abs=1e-6)


def test_slopes_of_another_law() -> None:
    for quantity in (ParameterValue("beta"), LossOf(1e9, 1e10)):
        assert quantity.slope(ProductLaw, theta_of(PRODUCT)) == pytest.approx(differences(quantity, PRODUCT), rel=1e-5)


@given(st.floats(0.1, 1.5), st.floats(0.1, 1.5), st.floats(18, 26))
def test_the_optimal_size_moves_as_its_closed_form_says(alpha: float, beta: float, log_flops: float) -> None:
    law = LossSurface(E=1.5, A=400.0, B=900.0, alpha=alpha, beta=beta)
    quantity = OptimalSize(10**log_flops)
    assert np.isclose(quantity.value(law), law.optimum(10**log_flops)[0])
    expected = differences(quantity, law)
    assert np.allclose(quantity.slope(LossSurface, theta_of(law)), expected, rtol=1e-4, atol=1e-5)


def test_the_exponent_is_that_of_the_optimum_over_compute() -> None:
    sizes = [float(optimum(LAW, 6.0, flops).num_params[0]) for flops in (1e20, 1e22)]
    assert SizeExponent().value(LAW) == pytest.approx(np.log(sizes[1] / sizes[0]) / np.log(100))


def test_intervals_are_factors_for_positive_numbers_and_differences_for_exponents() -> None:
    assert LossOf(1e9, 1e10).interval(2.0, np.log(2)) == pytest.approx((1.0, 4.0))
    assert SizeExponent().interval(0.5, 0.1) == pytest.approx((0.4, 0.6))
    assert LossOf(1e9, 1e10).interval(2.0, np.inf) == (0.0, np.inf)


def test_texts_name_quantities() -> None:
    assert parse_quantity("loss@70e9,1.4e12") == LossOf(70e9, 1.4e12)
    assert parse_quantity("optimum@1e24") == OptimalSize(1e24)
    assert parse_quantity("optimal-loss@1e24", XLSTM) == OptimalLoss(1e24, XLSTM)
    assert parse_quantity("exponent") == SizeExponent()
    assert parse_quantity(" alpha ") == ParameterValue("alpha")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed", "is not known"),
        ("", "is not known"),
        ("loss@1e9", "loss takes 2 numbers"),
        ("optimum@", "'' is not a number"),
        ("optimum@1e24,3", "optimum takes 1 numbers"),
        ("optimum@-1", "is not between"),
        ("optimum@nan", "is not between"),
        ("optimum@1e41", "is not between"),
        ("exponent@1", "takes 0 numbers"),
        ("loss@a,b", "'a' is not a number"),
    ],
)
def test_wrong_texts_are_errors(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_quantity(text)


@given(st.text(max_size=30))
@settings(max_examples=50)
def test_any_text_is_a_quantity_or_an_input_error(text: str) -> None:
    try:
        label = parse_quantity(text).label
    except InputError as error:
        label = str(error)
    assert label
    assert "\n" not in label


def test_a_law_without_the_quantity_is_an_error() -> None:
    with pytest.raises(InputError, match="only LossSurface"):
        SizeExponent().value(PRODUCT)
    with pytest.raises(InputError, match="no parameter 'gamma'"):
        ParameterValue("gamma").value(PRODUCT)


def test_a_number_that_jumps_has_no_slope() -> None:
    with pytest.raises(InputError, match="no smooth slope"):
        checked_differences(lambda laws: np.sign(laws.alpha - 0.34), LossSurface, theta_of(LAW))
