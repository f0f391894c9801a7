"""What every law owes a fit: derivatives of its own formula, and coordinates that go back and forth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_law import TokensOnly

from companion.errors import InputError
from companion.laws import Law, LossSurface, ProductLaw, law_named

LAWS = (LossSurface, ProductLaw, TokensOnly)
#: Places of runs: log N and log D.
LOG_N, LOG_D = np.log(np.geomspace(1e8, 1e10, 7)), np.log(np.geomspace(1e12, 3e9, 7))


def some_theta(law: type[Law], seed: int) -> np.ndarray:
    """Solver parameters of plain logs, shape (p,), of terms of order one."""
    rng = np.random.default_rng(seed)
    theta = np.empty(len(law.PARAMETERS))
    for at, name in enumerate(law.PARAMETERS):
        theta[at] = rng.uniform(0.1, 0.6) if name in law.EXPONENTS else rng.normal(0, 0.4)
    for shift in law.SHIFTS:
        center = (LOG_N.mean(), LOG_D.mean())[shift.variable]
        theta[law.index(shift.prefactor)] += theta[law.index(shift.exponent)] * center
    return theta


@pytest.mark.parametrize("law", LAWS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_the_formula_and_its_logarithm_are_one(law: type[Law], seed: int) -> None:
    theta = some_theta(law, seed)
    predicted = law.from_theta(theta).predict(np.exp(LOG_N), np.exp(LOG_D))
    np.testing.assert_allclose(np.exp(law.log_predictions(theta[None], LOG_N, LOG_D)[0]), predicted, rtol=1e-11)
    np.testing.assert_allclose(law.expand(theta[None], LOG_N, LOG_D).log_loss[0], np.log(predicted), rtol=1e-11)


@pytest.mark.parametrize("law", LAWS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_derivatives_against_differences(law: type[Law], seed: int) -> None:
    center = (float(LOG_N.mean()), float(LOG_D.mean()))
    theta, p = law.shifted(some_theta(law, seed), center, -1.0), len(law.PARAMETERS)
    places = (LOG_N - center[0], LOG_D - center[1])
    weights = np.random.default_rng(seed).normal(size=(1, LOG_N.size))
    at, steps = law.expand(theta[None], *places), 1e-6 * np.eye(p)
    above, below = law.expand(theta + steps, *places), law.expand(theta - steps, *places)
    np.testing.assert_allclose(at.gradient[0].T, (above.log_loss - below.log_loss) / 2e-6, rtol=1e-6, atol=1e-8)
    hessian = np.zeros((1, p, p))
    at.add_curvature(hessian, weights)
    numeric = np.einsum("n,pnq->pq", weights[0], above.gradient - below.gradient) / 2e-6
    np.testing.assert_allclose(hessian[0], numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("law", [law for law in LAWS if law.log_gain_ratio is not Law.log_gain_ratio])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_gain_of_tokens_over_gain_of_parameters(law: type[Law], seed: int) -> None:
    one, (n, d), step = law.from_theta(some_theta(law, seed)), (np.exp(LOG_N), np.exp(LOG_D)), 1e-5
    by_size = one.predict(n * np.exp(-step), d) - one.predict(n * np.exp(step), d)
    by_tokens = one.predict(n, d * np.exp(-step)) - one.predict(n, d * np.exp(step))
    np.testing.assert_allclose(one.log_gain_ratio(n, d), np.log(by_tokens / by_size), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("law", LAWS)
def test_many_laws_at_once_are_single_laws(law: type[Law]) -> None:
    thetas = np.array([some_theta(law, seed) for seed in range(3)])
    many = law.from_theta(thetas)
    assert len(many) == 3
    assert len(law.from_theta(thetas[0])) == 1
    sizes, tokens = np.array([[1e8], [1e9]]), np.array([[1e10], [2e10]])
    for at, single in enumerate(many):
        assert single == law.from_theta(thetas[at])
        np.testing.assert_allclose(many.predict(sizes, tokens)[:, at], single.predict(sizes, tokens)[:, 0], rtol=1e-14)


@pytest.mark.parametrize("law", LAWS)
def test_the_grid_gives_laws_inside_the_box(law: type[Law]) -> None:
    grid = law.grid({})
    theta = law.from_grid(grid, np.full(len(grid), 1.5), np.full(len(grid), 0.8))
    lower, upper = law.bounds()
    assert theta.shape == (len(grid), len(law.PARAMETERS))
    assert ((theta >= lower) & (theta <= upper)).all()
    # E + K·h, written by the law's own logarithm
    shape = np.exp(law.log_shape(grid, LOG_N - LOG_N.mean(), LOG_D - LOG_D.mean()))
    np.testing.assert_allclose(
        np.exp(law.log_predictions(theta, LOG_N - LOG_N.mean(), LOG_D - LOG_D.mean())), 1.5 + 0.8 * shape, rtol=1e-9
    )


def test_fixed_parameters_are_exact() -> None:
    theta = np.array([0.5, 8.0, 9.0, 0.4, 0.5, math.log(0.7)])
    assert LossSurface.from_theta(theta, {"gamma": 0.7}).gamma == 0.7


def test_laws_by_name() -> None:
    assert law_named("ProductLaw") is ProductLaw
    with pytest.raises(InputError, match="no law 'Nonsense'; there are LossSurface, ProductLaw"):
        law_named("Nonsense")
    with pytest.raises(InputError, match="no parameter 'gamma'; there are E, K, alpha, beta"):
        ProductLaw.index("gamma")


def test_parameters_of_many_laws_must_be_positive() -> None:
    refits = {"E": np.ones(2), "K": np.array([2.0, np.nan]), "alpha": np.full(2, 0.1), "beta": np.full(2, 0.1)}
    assert len(ProductLaw(**refits)) == 2  # NaN stands for a resample without a fit
    with pytest.raises(InputError, match="product law: K has a value that is not positive"):
        ProductLaw(**refits | {"K": np.array([2.0, -1.0])})
    with pytest.raises(InputError, match=r"product law: K is 0\.0 and must be positive"):
        ProductLaw(E=1.0, K=0.0, alpha=0.1, beta=0.1)


def test_a_part_of_many_laws() -> None:
    many = ProductLaw(E=np.array([1.0, 2.0, 3.0]), K=np.full(3, 5.0), alpha=np.array([0.1, 0.2, 0.3]), beta=np.ones(3))
    laws, rows, sizes = list(many), np.array([[2, 0], [1, 1]]), np.array([[1e8, 1e9], [1e8, 1e9]])
    expected = [laws[row].predict(size, 1e10) for row, size in zip(rows.flat, sizes.flat, strict=True)]
    np.testing.assert_allclose(many.part(rows).predict(sizes, 1e10).ravel(), expected, rtol=1e-14)
    np.testing.assert_array_equal(laws[1].part([0, 0]).E, [2.0, 2.0])
