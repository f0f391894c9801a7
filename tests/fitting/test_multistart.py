"""The plain multi-start search: its grid, its cost, and that it never beats the exact fit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import huber

from companion.errors import InputError
from companion.fitting.fit import Fit, fit
from companion.fitting.multistart import MEAN_SETTINGS, SETTINGS, reference_multistart, start_grid
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def table(num_runs: int = 40, noise: float = 0.005, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n, d = 10 ** rng.uniform(8, 10, num_runs), 10 ** rng.uniform(9.5, 11.5, num_runs)
    loss = LAW.predict(n, d) * np.exp(rng.normal(0, noise, num_runs))
    return pd.DataFrame({"num_params": n, "num_tokens": d, "val_loss": loss})


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit(LossSurface, table(), gamma=1.0)


def test_grid_is_the_published_one() -> None:
    free, fixed = start_grid(), start_grid(1.0)
    assert free.shape == (8000, 6)
    assert fixed.shape == (2000, 6)
    assert np.unique(free, axis=0).shape == free.shape
    assert set(free[:, 5]) == {0.0, 0.5, 1.0, 1.5}
    assert (fixed[:, 5] == 1).all()


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_never_below_the_exact_fit(fitted: Fit, setting: str) -> None:
    search = reference_multistart(fitted, 12, setting=setting)
    assert (search.objective >= fitted.objective * (1 - 1e-9)).all()
    assert search.theta.shape == search.starts.shape == (12, 6)
    assert (search.evaluations >= 1).all()
    assert search.seconds_per_start > 0


def test_published_tolerances_arrive_and_default_ones_stop_early(fitted: Fit) -> None:
    tight = reference_multistart(fitted, 12)
    loose = reference_multistart(fitted, 12, setting="scipy default")
    mean = reference_multistart(fitted, 12, setting=MEAN_SETTINGS[0])
    assert tight.share_within(fitted.objective, 1e-4) > 0
    assert np.median(tight.objective) <= np.median(loose.objective) <= np.median(mean.objective)
    assert tight.evaluations.sum() > loose.evaluations.sum() > mean.evaluations.sum()
    assert tight.parameters["alpha"] == pytest.approx(fitted.law.alpha, rel=1e-2)


def test_objective_is_that_of_the_fit(fitted: Fit) -> None:
    search = reference_multistart(fitted, 2)
    a, b, e, alpha, beta, gamma = search.theta[0]
    law = LossSurface(E=np.exp(e), A=np.exp(a), B=np.exp(b), alpha=alpha, beta=beta, gamma=gamma)
    predicted = law.predict(fitted.data["num_params"].to_numpy(), fitted.data["num_tokens"].to_numpy())
    terms = huber(fitted.huber_delta, np.log(predicted / fitted.data["val_loss"].to_numpy()))
    assert search.objective[0] == pytest.approx(terms.sum(), rel=1e-9)


def test_weights_of_zero_remove_runs(fitted: Fit) -> None:
    spoilt = pd.concat([fitted.data, fitted.data.iloc[:3].assign(val_loss=9.0, weight=0.0)], ignore_index=True)
    same = reference_multistart(replace(fitted, data=spoilt), 3)
    assert same.objective == pytest.approx(reference_multistart(fitted, 3).objective, rel=1e-6)


def test_seed_chooses_the_starts(fitted: Fit) -> None:
    first, again, other = (reference_multistart(fitted, 3, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.starts, again.starts)
    assert np.array_equal(first.objective, again.objective)
    assert not np.array_equal(first.starts, other.starts)


def test_gamma_free_searches_six_parameters() -> None:
    runs = subset(load_paper_runs(), architecture="transformer", context_length=8192, experiment="tokenparam")
    fitted = fit(LossSurface, runs)
    search = reference_multistart(fitted, 6)
    assert search.grid_size == 8000
    assert (search.theta[:, 5] != search.starts[:, 5]).any()
    assert search.objective.min() >= fitted.objective * (1 - 1e-9)


def test_bad_input(fitted: Fit) -> None:
    with pytest.raises(InputError, match="no setting 'tight'"):
        reference_multistart(fitted, 2, setting="tight")
    with pytest.raises(InputError, match="the grid has 1 to 2000"):
        reference_multistart(fitted, 2001)
    with pytest.raises(InputError, match="0 starts"):
        reference_multistart(fitted, 0)
