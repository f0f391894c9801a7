"""One fit for every law: the product form with four parameters, and a law of three that only this test knows."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from simulated_tables import CHINCHILLA, simulated
from small_law import TokensOnly

from companion import fit
from companion.errors import InputError
from companion.fitting import Fit, Result
from companion.fitting.likelihood import profile, profiled
from companion.fitting.solved import CONVERGED, NOT_IDENTIFIED
from companion.laws import Law, LossSurface, ProductLaw, optimum

PRODUCT = ProductLaw(E=1.5, K=900.0, alpha=0.2, beta=0.1)
TOKENS = TokensOnly(E=1.8, B=120.0, beta=0.25)


def table(law: Law, noise: float = 0.002, seed: int = 0) -> pd.DataFrame:
    places = simulated(CHINCHILLA, 0.0, 0, num_sizes=8, num_ratios=6)
    scatter = np.random.default_rng(seed).normal(0, noise, len(places))
    loss = law.predict(places["num_params"].to_numpy(), places["num_tokens"].to_numpy())
    return places.assign(val_loss=loss * np.exp(scatter))


@pytest.mark.parametrize("law", [PRODUCT, TOKENS])
@pytest.mark.parametrize("huber_delta", [1e-3, math.inf])
def test_exact_tables_give_the_law_back(law: Law, huber_delta: float) -> None:
    found = fit(type(law), table(law, 0.0), huber_delta=huber_delta)
    assert found.objective < 1e-18
    assert list(found.parameters) == list(law.PARAMETERS)
    for name, value in law.parameters.items():
        assert found.parameters[name] == pytest.approx(value, rel=1e-4), name
    assert found.residuals == pytest.approx(np.zeros(48), abs=1e-9)


@pytest.mark.parametrize("law", [PRODUCT, TOKENS])
def test_all_that_a_fit_offers(law: Law) -> None:
    number = len(law.PARAMETERS)
    found = fit(type(law), table(law))
    assert found.status == CONVERGED
    assert isinstance(found, Result)
    assert found.num_free == number
    assert found.theta.shape == (number,)
    assert found.correlations.shape == (number, number)
    assert str(found).startswith(f"L = {law.FORMULA}, 48 runs, Huber delta 0.001")
    resampled = found.bootstrap(120, seed=1)
    assert resampled.theta.shape == (120, number)
    assert list(resampled.samples) == list(law.PARAMETERS)
    for name, value in law.parameters.items():
        low, high = resampled.interval(name, 0.999)
        assert low < value < high, name
    loss, low, high = found.predict(np.array([1e9]), np.array([2e10]), level=0.95)
    assert loss == found.predict(np.array([1e9]), np.array([2e10]))
    assert low < loss < high
    for name in profiled(type(law)):
        below, above = profile(found, name).interval(name)
        assert below < found.parameters[name] < above
    again = Fit.from_json(found.to_json())
    assert again.law == found.law
    assert again.fixed == {}
    np.testing.assert_array_equal(again.bootstrap(10, seed=3).theta, found.bootstrap(10, seed=3).theta)


def test_the_default_interval_is_that_of_a_thousand_resamples() -> None:
    found = fit(TokensOnly, table(TOKENS))
    assert found.interval("beta", 0.9) == found.bootstrap(1000).interval("beta", 0.9)
    with pytest.raises(InputError, match="no parameter 'alpha'; there are E, B, beta"):
        found.interval("alpha")


def test_a_law_is_not_identified_by_too_few_values_of_its_own_variables() -> None:
    runs = table(TOKENS)
    one_size = fit(TokensOnly, runs.assign(num_params=1e9))
    assert one_size.status == CONVERGED, "the size does not matter to this law"
    tokens = np.where(runs["num_tokens"] > 1e11, 2e11, 2e10)
    few = runs.assign(num_tokens=tokens, val_loss=TOKENS.predict(1e9, tokens))
    found = fit(TokensOnly, few)
    assert found.status == NOT_IDENTIFIED
    assert found.status_detail.startswith("E, B and beta trade off freely: 2 different numbers of tokens")
    assert np.isnan(found.interval("beta")).all()


def test_a_product_without_slope_in_one_variable_is_not_identified() -> None:
    found = fit(ProductLaw, table(PRODUCT).assign(num_params=1e9))
    assert found.status == NOT_IDENTIFIED
    assert found.status_detail == "K, alpha and beta trade off freely: all runs have the same model size"


def test_only_some_parameters_can_be_held() -> None:
    assert fit(LossSurface, table(CHINCHILLA), gamma=1.0).fixed == {"gamma": 1.0}
    for law, options, words in (
        (LossSurface, {"alpha": 0.3}, "LossSurface takes no option 'alpha'; it can fix gamma, E"),
        (ProductLaw, {"gamma": 1.0}, "ProductLaw takes no option 'gamma'$"),
        (LossSurface, {"gamma": 30.0}, r"gamma 30 is not between 0\.01 and 20"),
    ):
        with pytest.raises(InputError, match=words):
            fit(law, table(CHINCHILLA), **options)
    with pytest.raises(InputError, match="4 runs for 4 free parameters; at least 5 are needed"):
        fit(ProductLaw, table(PRODUCT).iloc[:4])


def test_a_floor_that_is_known_can_be_held() -> None:
    runs = table(CHINCHILLA)
    found = fit(LossSurface, runs, gamma=1.0, E=CHINCHILLA.E)
    assert found.fixed == {"gamma": 1.0, "E": CHINCHILLA.E}
    for name in ("A", "B", "alpha", "beta"):
        assert found.parameters[name] == pytest.approx(getattr(CHINCHILLA, name), rel=0.1), name  # runs scatter
    other = fit(LossSurface, runs, gamma=1.0, E=1.0)
    assert other.parameters["E"] == 1.0
    assert other.objective > found.objective
    free = fit(LossSurface, runs, gamma=1.0)
    assert free.objective <= found.objective + 1e-12
    drawn = other.bootstrap(20)
    assert np.allclose(np.exp(drawn.theta[:, 0]), 1.0)
    assert np.isnan(drawn.interval("E")).all(), "a held parameter has no interval"
    assert "E = 1," in str(other)
    assert "E free" not in str(free)
    with pytest.raises(InputError, match=r"E 9 is not below the lowest loss of the runs, \d"):
        fit(LossSurface, runs, E=9.0)


@pytest.mark.parametrize("free", [True, False])
def test_fits_saved_before_there_were_several_laws_still_load(free: bool) -> None:
    found = fit(LossSurface, table(CHINCHILLA), gamma=None if free else 1.0)
    old = {name: value for name, value in found.as_dict().items() if name not in ("law", "fixed")}
    again = Fit.from_json(json.dumps(old | {"gamma_free": free}))
    assert again.law == found.law
    assert again.fixed == found.fixed
    with pytest.raises(InputError, match="not a saved fit"):
        Fit.from_json(json.dumps(old | {"law": "Nonsense", "fixed": {}}))


def test_a_product_has_no_optimum() -> None:
    with pytest.raises(InputError, match="no optimum at 1e"):
        optimum(PRODUCT, 6.0, 1e21)
    with pytest.raises(InputError, match="tokens only: its class defines no log_gain_ratio"):
        optimum(TOKENS, 6.0, 1e21)
