"""A resample that nobody asked for, and a loss that is squared twice, on runs of a known law and on the paper's."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import huber

from companion.chapters.ch06.objectives import one_resample, squared_twice
from companion.fitting.fit import Fit, fit
from companion.fitting.isoflop.select import isoflop_runs
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return isoflop_runs(load_paper_runs(), "transformer", 8192)


@pytest.fixture(scope="module")
def fitted(runs: pd.DataFrame) -> Fit:
    return fit(LossSurface, runs)


def test_the_draw_is_numpy_s(runs: pd.DataFrame, fitted: Fit) -> None:
    table = one_resample(runs)
    assert table["drawn"].tolist() == ["every run once", "default_rng(0)"]
    assert table["size_exponent"].iloc[0] == pytest.approx(
        fitted.law.beta / (fitted.law.alpha + fitted.law.beta), rel=1e-6
    )
    order = np.random.default_rng(0).integers(0, len(runs), len(runs))
    assert table["distinct"].iloc[1] == len(set(order.tolist()))
    assert table["most"].iloc[1] == np.bincount(order).max()
    ours = fit(LossSurface, runs.iloc[order].reset_index(drop=True))
    assert table["E"].iloc[1] == pytest.approx(ours.law.E)
    assert one_resample(runs, 1)["E"].iloc[1] != table["E"].iloc[1]


def test_a_resample_that_cannot_be_fitted(runs: pd.DataFrame) -> None:
    few = one_resample(runs.iloc[:6])
    assert few["distinct"].tolist() == [6, 4]
    assert few["size_exponent"].isna().all()


def test_squared_again_is_a_minimum_of_its_objective(fitted: Fit) -> None:
    table = squared_twice(fitted).set_index("objective")
    data = fitted.data
    for label, delta in (("Huber loss", fitted.huber_delta), ("squares", math.inf)):

        def objective(law: LossSurface, delta: float = delta) -> float:
            predicted = law.predict(data["num_params"].to_numpy(), data["num_tokens"].to_numpy())
            return float((huber(delta, np.log(data["val_loss"] / predicted)) ** 2).sum())

        row = table.loc[f"{label}, squared again"]
        laws = {key: row[key] for key in ("E", "alpha", "beta", "gamma")}
        # A and B follow from the rest: where the objective is least along both
        middle = np.log(data["num_params"]).mean(), np.log(data["num_tokens"]).mean()
        best = _best_prefactors(objective, laws, middle, fitted.law)
        for name in laws:
            for factor in (0.999, 1.001):
                moved = _best_prefactors(objective, laws | {name: laws[name] * factor}, middle, fitted.law)
                assert moved >= best * (1 - 1e-4), (label, name, factor)


def _best_prefactors(objective, laws, middle, start) -> float:  # type: ignore[no-untyped-def]
    """Least objective over A and B, the other parameters fixed."""
    from scipy.optimize import minimize

    def at(logs: np.ndarray) -> float:
        A, B = np.exp(logs[0] + laws["alpha"] * middle[0]), np.exp(logs[1] + laws["beta"] * middle[1])
        return 1e6 * objective(LossSurface(A=float(A), B=float(B), **laws)) ** 0.5

    first = [np.log(start.A) - start.alpha * middle[0], np.log(start.B) - start.beta * middle[1]]
    return float(minimize(at, first, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9, "maxiter": 4000}).fun)


def test_fewer_runs_decide(fitted: Fit) -> None:
    table = squared_twice(fitted)
    assert table["objective"].tolist() == [
        "Huber loss", "Huber loss, squared again", "squares", "squares, squared again",
    ]  # fmt: skip
    half = table["half"].tolist()
    assert half[1] < half[0]
    assert half[3] < half[2]
    assert table["largest"].iloc[3] < table["largest"].iloc[2], "the largest residual is what it minimizes most"
    assert table["rms"].iloc[2] == table["rms"].min(), "least squares has the least squares"


def test_exact_losses_do_not_care(runs: pd.DataFrame) -> None:
    truth = LossSurface(E=1.8, A=400.0, B=2000.0, alpha=0.35, beta=0.37, gamma=1.0)
    exact = runs.assign(val_loss=truth.predict(runs["num_params"].to_numpy(), runs["num_tokens"].to_numpy()))
    table = squared_twice(fit(LossSurface, exact, gamma=1.0))
    np.testing.assert_allclose(table["alpha"], 0.35, rtol=1e-3)
    np.testing.assert_allclose(one_resample(exact)["size_exponent"], 0.37 / 0.72, rtol=1e-3)
