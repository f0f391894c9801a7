"""Parabolas through exact losses: where they are right, and how wrong they are elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.fitting.isoflop.bias import (
    GRIDS,
    SizeGrid,
    exponent_bias,
    grid_bias,
    leading_bias,
    noise_free_profile,
    optimum_bias,
)
from companion.laws import LossSurface

EVEN = LossSurface(E=1.7, A=400, B=400, alpha=0.3, beta=0.3)
SKEWED = LossSurface(E=1.7, A=400, B=2000, alpha=0.25, beta=0.4, gamma=0.8)
BUDGETS = (1e19, 1e20, 1e21)


def test_losses_lie_on_the_surface_at_equal_compute() -> None:
    sizes = GRIDS["symmetric"].num_params(SKEWED, 1e20)
    profile = noise_free_profile(SKEWED, 1e20, sizes)
    np.testing.assert_allclose(profile.loss, SKEWED.predict(sizes, 1e20 / 6 / sizes))
    assert profile.mean_train_flops == pytest.approx(1e20)
    assert noise_free_profile(SKEWED, 1e20, sizes, "num_tokens").x == pytest.approx(1e20 / 6 / sizes)


def test_equal_exponents_and_a_symmetric_grid_have_no_bias() -> None:
    for budget in BUDGETS:
        for x in ("num_params", "num_tokens"):
            assert optimum_bias(EVEN, budget, GRIDS["symmetric"].num_params(EVEN, budget), x) == pytest.approx(
                0, abs=1e-9
            )


@given(st.floats(0.1, 0.8), st.floats(0.1, 0.8), st.floats(0.2, 1.5))
def test_leading_term_in_the_limit_of_a_narrow_grid(alpha: float, beta: float, gamma: float) -> None:
    surface = LossSurface(E=0, A=100, B=100, alpha=alpha, beta=beta, gamma=gamma)
    grid = SizeGrid(lower=-0.1, upper=0.1, num_sizes=201)
    bias = optimum_bias(surface, 1e19, grid.num_params(surface, 1e19))
    assert bias == pytest.approx(leading_bias(surface, 0.1), rel=0.05, abs=2e-5)


def test_bias_is_the_same_at_all_budgets_so_the_exponent_is_right() -> None:
    for name in ("symmetric", "off-center", "only below", "only above"):
        sizes = {budget: GRIDS[name].num_params(SKEWED, budget) for budget in BUDGETS}
        biases = [optimum_bias(SKEWED, budget, sizes[budget]) for budget in BUDGETS]
        assert np.ptp(biases) < 1e-9
        assert exponent_bias(SKEWED, sizes) == pytest.approx(0, abs=1e-9)


def test_a_drifting_grid_biases_the_exponent_even_of_an_even_surface() -> None:
    table = grid_bias(EVEN, BUDGETS).set_index("grid")["exponent_bias"]
    assert abs(table["drifting"]) > 1e-3
    assert table.drop("drifting").abs().max() < 1e-9


def test_one_sided_grids_err_in_opposite_directions_where_the_surface_is_even() -> None:
    table = grid_bias(EVEN, BUDGETS).set_index("grid")["bias_lowest"]
    assert table["only below"] == pytest.approx(-table["only above"], abs=1e-9)
    assert abs(table["only below"]) > 0.01


def test_errors_of_both_exponents_cancel() -> None:
    sizes = {budget: np.geomspace(1e8, 5e9, 12) for budget in BUDGETS}
    of_size, of_tokens = (exponent_bias(SKEWED, sizes, x) for x in ("num_params", "num_tokens"))
    assert of_size == pytest.approx(-of_tokens, abs=1e-9)  # log D is minus log N but for a constant
    assert abs(of_size) > 1e-4


def test_drift_moves_the_grid_with_compute() -> None:
    grid = SizeGrid(lower=-0.5, upper=0.5, drift=0.25, num_sizes=3)
    middle = [np.log10(grid.num_params(EVEN, budget)[1] / EVEN.optimum(budget)[0]) for budget in (1e18, 1e19, 1e21)]
    np.testing.assert_allclose(middle, [-0.25, 0, 0.5], atol=1e-12)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="is not below"):
        SizeGrid(lower=0.5, upper=0.5)
    with pytest.raises(InputError, match="2 sizes; a parabola needs at least 3"):
        SizeGrid(lower=-1, upper=1, num_sizes=2)
    with pytest.raises(InputError, match="x 'loss' is not one of"):
        noise_free_profile(EVEN, 1e19, [1e8, 2e8, 3e8], "loss")
