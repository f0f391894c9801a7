"""Functional forms: known answers and the closed-form optimum against a search."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from companion.errors import InputError
from companion.laws import LossSurface, Parabola, PowerLaw

#: Hoffmann et al., arXiv 2203.15556, equation 10 (as printed; the fit behind it is contested in arXiv 2404.10102).
HOFFMANN = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def test_chinchilla_predicts_its_own_table() -> None:
    # D.3 of arXiv 2203.15556: Gopher's 280B on 300B tokens against Chinchilla's 70B on 1.4T: 1.993 and 1.936
    assert HOFFMANN.predict(280e9, 300e9) == pytest.approx(1.993, abs=1e-3)
    assert HOFFMANN.predict(70e9, 1.4e12) == pytest.approx(1.936, abs=1e-3)


surfaces = st.builds(
    LossSurface,
    E=st.floats(0, 3),
    A=st.floats(1, 1e6),
    B=st.floats(1, 1e6),
    alpha=st.floats(0.1, 1),
    beta=st.floats(0.1, 1),
    gamma=st.floats(0.2, 2),
)


@given(surfaces, st.floats(18, 25))
def test_optimum_of_a_surface_beats_its_neighbors(surface: LossSurface, log_flops: float) -> None:
    flops = 10**log_flops
    num_params, num_tokens = surface.optimum(flops)
    assert num_params * num_tokens * 6 == pytest.approx(flops, rel=1e-9)
    found = minimize_scalar(
        lambda shift: np.log(surface.reducible(num_params * np.exp(shift), num_tokens * np.exp(-shift))),
        bracket=(-1, 1),
    )
    assert found.x == pytest.approx(0, abs=1e-4)


@given(surfaces, st.floats(18, 25))
def test_optima_grow_with_exponent_beta_over_alpha_plus_beta(surface: LossSurface, log_flops: float) -> None:
    first, second = surface.optimum(10**log_flops)[0], surface.optimum(10 ** (log_flops + 1))[0]
    assert np.log10(second / first) == pytest.approx(surface.beta / (surface.alpha + surface.beta))


@pytest.mark.parametrize("name", ["A", "B", "alpha", "beta", "gamma"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_wrong_surface(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} is"):
        LossSurface(**{"E": 1.0, "A": 1.0, "B": 1.0, "alpha": 0.5, "beta": 0.5, name: value})


@given(st.floats(0.1, 5), st.floats(5, 12), st.floats(1, 4))
def test_parabola_around_a_known_minimum(curvature: float, center: float, floor: float) -> None:
    law = Parabola(curvature, -2 * curvature * center, curvature * center**2 + floor)
    assert np.log10(law.x_opt) == pytest.approx(center)
    assert law.loss_opt == pytest.approx(floor, abs=1e-9 * curvature * center**2)
    assert law.predict(law.x_opt) <= law.predict(np.array([0.5, 2.0]) * law.x_opt).min()


@pytest.mark.parametrize("curvature", [0.0, -1.0])
def test_parabola_without_a_minimum(curvature: float) -> None:
    law = Parabola(curvature, 1.0, 0.0)
    assert not law.has_minimum
    assert math.isnan(law.x_opt)
    assert math.isnan(law.loss_opt)


def test_power_law_and_its_inverse() -> None:
    law = PowerLaw(prefactor=2.0, exponent=0.5)
    assert law.predict(9.0) == 6.0
    np.testing.assert_allclose(law.invert(law.predict(np.array([1e18, 1e21]))), [1e18, 1e21])


def test_terms_that_never_balance_have_no_finite_optimum() -> None:
    extreme = LossSurface(E=1.0, A=1e300, B=1e-300, alpha=0.01, beta=0.01)
    assert extreme.optimum(1e20)[0] == float("inf")
