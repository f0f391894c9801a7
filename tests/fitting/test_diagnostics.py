"""Diagnostics of a parametric fit: known answers on simulated tables."""

import numpy as np
import pandas as pd
import pytest
from simulated_tables import two_designs

from companion.errors import InputError
from companion.fitting import diagnostics
from companion.fitting.extrapolation import extrapolate, optimum_on_profile
from companion.fitting.fit import Fit, fit
from companion.laws import LossSurface


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return two_designs()


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame) -> Fit:
    return fit(LossSurface, table, gamma=1.0)


def test_designs(table: pd.DataFrame) -> None:
    parts = diagnostics.designs(table)
    assert {name: len(part) for name, part in parts.items()} == {"all": 36, "isoflop": 24, "tokenparam": 12}
    assert list(diagnostics.designs(table.drop(columns="experiment"))) == ["all"]


def test_least_squares_follows_an_outlier_and_huber_does_not(table: pd.DataFrame) -> None:
    chosen = diagnostics.typical_runs(table)
    assert chosen["most compute"] == table["train_flops"].idxmax()
    shifts = diagnostics.outlier_shifts(
        table, chosen, [0.1, 0.2], [1e-3, np.inf], 1.0, {"E": lambda law: law.E}
    ).set_index(["run", "huber_delta", "excess"])["E"]
    for run in chosen:
        assert shifts[run, np.inf, 0.0] == 0
        assert shifts[run, 1e-3, 0.1] == pytest.approx(shifts[run, 1e-3, 0.2], abs=1e-4)
        assert abs(shifts[run, np.inf, 0.2]) > 3 * abs(shifts[run, 1e-3, 0.2])


def test_optima_by_budget(fitted: Fit, table: pd.DataFrame) -> None:
    groups = {float(budget): group for budget, group in table.groupby("isoflop_budget")}
    found = diagnostics.optima_by_budget(fitted.bootstrap(60), groups)
    assert len(found) == 3
    for name in ("num_params", "num_tokens", "tokens_per_param"):
        assert (found[f"{name}_low"] < found[name]).all()
        assert (found[name] < found[f"{name}_high"]).all()
    assert found["num_params"].iloc[0] == optimum_on_profile(fitted.law, groups[6e18])
    np.testing.assert_allclose(6 * found["num_params"] * found["num_tokens"], list(groups), rtol=1e-9)
    np.testing.assert_allclose(found["tokens_per_param"], found["num_tokens"] / found["num_params"])


def test_cross_errors(fitted: Fit, table: pd.DataFrame) -> None:
    errors = diagnostics.cross_errors({"all": fitted}, diagnostics.designs(table))
    assert errors.loc[0, "all"] == pytest.approx(np.sqrt(np.mean(fitted.residuals**2)))
    assert list(errors.columns) == ["fitted_to", "all", "isoflop", "tokenparam"]


def test_furthest_run(table: pd.DataFrame) -> None:
    results = extrapolate(table, [1.1e20], gamma=1.0)
    row = diagnostics.furthest_run_errors(results).iloc[0]
    assert row["val_loss"] == table.loc[table["train_flops"].idxmax(), "val_loss"]
    assert row["log_error"] == pytest.approx(np.log(row["predicted_loss"] / row["val_loss"]))
    with pytest.raises(InputError, match="none to read"):
        diagnostics.furthest_run_errors([])


def test_a_budget_of_one_size_has_no_optimum(fitted: Fit, table: pd.DataFrame) -> None:
    found = diagnostics.optima_by_budget(fitted.bootstrap(5), {6e18: table.head(1)})
    assert found[["num_params", "num_tokens"]].isna().all(axis=None)
    assert found["lost"].item() == 1
