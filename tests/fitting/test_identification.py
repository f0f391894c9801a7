"""Which tables determine the law: families that cannot, families that can, and what is withheld."""

import math

import numpy as np
import pandas as pd
import pytest
from simulated_tables import CHINCHILLA, simulated

from companion.fitting.fit import fit
from companion.fitting.identification import standard_errors
from companion.fitting.solved import NOT_IDENTIFIED
from companion.laws import LossSurface

SIZES = np.logspace(7.7, 10, 12)


def runs(num_params: np.ndarray, num_tokens: np.ndarray, noise: float = 0.002) -> pd.DataFrame:
    n, d = np.round(num_params), np.round(num_tokens)
    scatter = np.exp(np.random.default_rng(1).normal(0, noise, n.size))
    return pd.DataFrame({"num_params": n, "num_tokens": d, "val_loss": CHINCHILLA.predict(n, d) * scatter})


def grid(sizes: np.ndarray, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, r = (axis.ravel() for axis in np.meshgrid(sizes, ratios))
    return n, n * r


RATIOS = np.logspace(0.8, 2.5, 6)
UNIDENTIFIED = {
    "one ratio": (SIZES, 20 * SIZES),
    "one budget": (SIZES, 1e20 / 6 / SIZES),
    "D follows N squared": (SIZES, 1e10 * (SIZES / 1e9) ** 2),
    "D follows the root of N": (SIZES, 1e10 * (SIZES / 1e9) ** 0.5),
    "one size": (np.full(12, 1e9), np.logspace(9, 12, 12)),
    "one number of tokens": (SIZES, np.full(12, 1e10)),
    "two sizes": grid(np.array([1e8, 1e9]), RATIOS),
    "two numbers of tokens": (np.tile(SIZES[:6], 2), np.repeat([2e9, 5e10], 6)),
    "one run repeated": (np.full(12, 1e9), np.full(12, 2e10)),
    "four places": (np.tile([1e8, 3e8, 1e9, 3e9], 3), np.tile([3e9, 5e10, 2e10, 9e11], 3)),
    "sizes within 20 %": grid(np.array([1e9, 1.1e9, 1.2e9]), RATIOS),
}
NAMED = {
    "one ratio": "same ratio",
    "one budget": "same compute",
    "one size": "E, A and alpha",
    "one number of tokens": "E, B and beta",
    "four places": "4 different runs",
}


@pytest.mark.parametrize("gamma", [1.0, None])
@pytest.mark.parametrize("name", UNIDENTIFIED)
def test_tables_that_leave_a_direction_free(name: str, gamma: float | None) -> None:
    fitted = fit(LossSurface, runs(*UNIDENTIFIED[name]), gamma=gamma)
    assert fitted.status == NOT_IDENTIFIED
    assert not fitted.identified
    assert NAMED.get(name, "") in fitted.status_detail
    resampled = fitted.bootstrap(20)
    assert resampled.withheld == fitted.intervals_withheld != ""
    assert np.isnan([resampled.interval("alpha"), resampled.interval_of(lambda law: law.E)]).all()
    assert np.isnan(resampled.prediction_band(1e9, 2e10)).all()


@pytest.mark.parametrize("gamma", [1.0, None])
def test_ordinary_designs_are_identified(gamma: float | None) -> None:
    fitted = fit(LossSurface, runs(*grid(np.logspace(7.7, 9.7, 6), np.logspace(0.8, 2.8, 5))), gamma=gamma)
    assert fitted.identified
    assert fitted.intervals_withheld == ""


def test_weights_and_repeats_add_no_knowledge() -> None:
    table = simulated(CHINCHILLA, 0.004, 0)
    once = standard_errors(fit(LossSurface, table, gamma=1.0))[0]
    heavy = standard_errors(fit(LossSurface, table.assign(w=1000.0), gamma=1.0, weights="w"))[0]
    np.testing.assert_allclose(once, heavy, rtol=1e-4)


def test_first_order_errors_are_the_spread_over_tables() -> None:
    fits = [fit(LossSurface, simulated(CHINCHILLA, 0.004, seed), gamma=1.0, huber_delta=math.inf) for seed in range(30)]
    spread = np.std([fitted.law.beta for fitted in fits])
    assert standard_errors(fits[0])[0][4] == pytest.approx(spread, rel=0.4)


def test_few_runs_have_no_intervals_and_say_so() -> None:
    table = runs(np.array([5e7, 1e8, 4e8, 1e9, 2e9, 5e9, 8e8]), np.array([1e11, 2e9, 5e10, 1e10, 4e11, 6e10, 2e12]))
    fitted = fit(LossSurface, table, gamma=1.0)
    assert "7 runs for 5 free parameters, intervals need at least 10" in fitted.intervals_withheld


@pytest.mark.parametrize("gamma", [1.0, 0.6])
def test_a_floor_that_runs_to_zero_is_at_its_bound(gamma: float) -> None:
    for seed in range(3):
        table = simulated(CHINCHILLA, 0.002, seed)
        n, d = table["num_params"], table["num_tokens"]
        law = (300 * n**-0.3 + 300 * d**-0.25) ** gamma * np.exp(-0.02 * np.log(n) ** 1.2)
        fitted = fit(LossSurface, table.assign(val_loss=law), gamma=gamma)
        assert fitted.status in {"at a bound", NOT_IDENTIFIED}
        assert "E" in fitted.at_bound
