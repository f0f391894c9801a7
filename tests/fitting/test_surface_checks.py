"""What a parametric fit rests on: known answers on simulated tables."""

import numpy as np
import pandas as pd
import pytest

from companion.errors import InputError
from companion.fitting import surface_checks
from companion.fitting.extrapolation import extrapolate, optimum_on_profile
from companion.fitting.fit import Fit, fit
from companion.laws import LossSurface

TRUTH = LossSurface(E=1.7, A=400.0, B=500.0, alpha=0.34, beta=0.3)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two designs of a known law with a scatter of 0.2 %."""
    sizes = np.geomspace(1e8, 3e9, 8)
    iso = [(n, flops / (6 * n)) for flops in (6e18, 3e19, 1e20) for n in sizes]
    long = [(n, ratio * n) for n in sizes[::2] for ratio in (20, 100, 500)]
    runs = pd.DataFrame(iso + long, columns=["num_params", "num_tokens"])
    runs["experiment"] = ["isoflop"] * len(iso) + ["tokenparam"] * len(long)
    runs["train_flops"] = 6 * runs["num_params"] * runs["num_tokens"]
    runs["isoflop_budget"] = [flops for flops in (6e18, 3e19, 1e20) for _ in sizes] + [np.nan] * len(long)
    noise = np.random.default_rng(0).normal(0, 0.002, len(runs))
    return runs.assign(val_loss=TRUTH.predict(runs["num_params"], runs["num_tokens"]) * np.exp(noise))


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame) -> Fit:
    return fit(LossSurface, table, gamma=1.0)


def test_designs(table: pd.DataFrame) -> None:
    parts = surface_checks.designs(table)
    assert {name: len(part) for name, part in parts.items()} == {"all": 36, "isoflop": 24, "tokenparam": 12}
    assert list(surface_checks.designs(table.drop(columns="experiment"))) == ["all"]


def test_fit_row(fitted: Fit) -> None:
    row = surface_checks.fit_row(fitted)
    assert row["exponent"] == pytest.approx(fitted.law.beta / (fitted.law.alpha + fitted.law.beta))
    assert row["alpha_gamma"] == fitted.law.alpha
    assert row["num_rows"] == 36


def test_flops_per_param_and_token(table: pd.DataFrame) -> None:
    assert surface_checks.flops_per_param_and_token(table) == pytest.approx(6.0)


def test_projection_finds_the_exponents_of_exact_losses(table: pd.DataFrame) -> None:
    exact = table.assign(val_loss=TRUTH.predict(table["num_params"], table["num_tokens"]))
    alphas, betas = [0.24, 0.34, 0.44], [0.2, 0.3, 0.4]
    misfit = surface_checks.projected_misfit(fit(LossSurface, exact, gamma=1.0), alphas, betas)
    assert misfit.shape == (3, 3)
    assert np.unravel_index(np.argmin(misfit), misfit.shape) == (1, 1)
    assert misfit[1, 1] < 1e-3
    assert misfit[1, 1] < 0.3 * np.partition(misfit.ravel(), 1)[1]


def test_least_squares_follows_an_outlier_and_huber_does_not(table: pd.DataFrame) -> None:
    chosen = surface_checks.typical_runs(table)
    assert chosen["most compute"] == table["train_flops"].idxmax()
    shifts = surface_checks.outlier_shifts(
        table, chosen, [0.1, 0.2], [1e-3, np.inf], 1.0, {"E": lambda law: law.E}
    ).set_index(["run", "huber_delta", "excess"])["E"]
    for run in chosen:
        assert shifts[run, np.inf, 0.0] == 0
        assert shifts[run, 1e-3, 0.1] == pytest.approx(shifts[run, 1e-3, 0.2], abs=1e-4)
        assert abs(shifts[run, np.inf, 0.2]) > 3 * abs(shifts[run, 1e-3, 0.2])


def test_optima_by_budget(fitted: Fit, table: pd.DataFrame) -> None:
    groups = {float(budget): group for budget, group in table.groupby("isoflop_budget")}
    found = surface_checks.optima_by_budget(fitted.bootstrap(60), groups)
    assert len(found) == 3
    for name in ("num_params", "num_tokens", "tokens_per_param"):
        assert (found[f"{name}_low"] < found[name]).all()
        assert (found[name] < found[f"{name}_high"]).all()
    assert found["num_params"].iloc[0] == optimum_on_profile(fitted.law, groups[6e18])
    np.testing.assert_allclose(6 * found["num_params"] * found["num_tokens"], list(groups), rtol=1e-9)
    np.testing.assert_allclose(found["tokens_per_param"], found["num_tokens"] / found["num_params"])


def test_terms_are_known_better_than_prefactors(fitted: Fit) -> None:
    ranges = surface_checks.term_ranges(fitted.bootstrap(60))
    assert 1 < ranges["A_term"] < ranges["A"]
    assert 1 < ranges["B_term"] < ranges["B"]


def test_near_target(table: pd.DataFrame) -> None:
    run = table.iloc[30]
    near = surface_checks.near_target(table, run["num_params"] * 1.01, run["num_tokens"] * 0.99)
    assert np.flatnonzero(near).tolist() == [30]
    assert not surface_checks.near_target(table, 1e12, 1e12).any()


def test_cross_errors(fitted: Fit, table: pd.DataFrame) -> None:
    errors = surface_checks.cross_errors({"all": fitted}, surface_checks.designs(table))
    assert errors.loc[0, "all"] == pytest.approx(np.sqrt(np.mean(fitted.residuals**2)))
    assert list(errors.columns) == ["fitted_to", "all", "isoflop", "tokenparam"]


def test_furthest_run(table: pd.DataFrame) -> None:
    results = extrapolate(table, [1.1e20], gamma=1.0)
    row = surface_checks.furthest_run_errors(results).iloc[0]
    assert row["val_loss"] == table.loc[table["train_flops"].idxmax(), "val_loss"]
    assert row["log_error"] == pytest.approx(np.log(row["predicted_loss"] / row["val_loss"]))
    with pytest.raises(InputError, match="none to read"):
        surface_checks.furthest_run_errors([])
