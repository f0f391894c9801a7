"""Results side by side: ratios of optima, and exponents by convention."""

import numpy as np
import pandas as pd
import pytest

from companion.errors import InputError
from companion.fitting.isoflop.compare import exponents_by_convention, optimum_ratio
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.isoflop.profiles import fit_isoflop
from companion.fitting.isoflop.select import isoflop_runs
from companion.runs.load import load_paper_runs

MAIN = (6e18, 1e19, 3e19, 1e20)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    runs = load_paper_runs()
    return {name: isoflop_runs(runs, name, 8192) for name in ("transformer", "xlstm")}


def test_ratio_of_optima(tables: dict[str, pd.DataFrame]) -> None:
    fits = {name: fit_isoflop(table, num_resamples=300) for name, table in tables.items()}
    table = optimum_ratio(fits["xlstm"], fits["transformer"])
    assert table["isoflop_budget"].to_list() == list(MAIN)
    assert (table["low"] > 1).all()
    assert ((table["low"] < table["ratio"]) & (table["ratio"] < table["high"])).all()
    np.testing.assert_allclose(table["ratio"], table["first"] / table["second"], rtol=0.01)
    inverse = optimum_ratio(fits["transformer"], fits["xlstm"])
    np.testing.assert_allclose(inverse["ratio"] * table["ratio"].to_numpy(), 1, rtol=1e-3)


def test_ratio_with_itself_is_one(tables: dict[str, pd.DataFrame]) -> None:
    fit = fit_isoflop(tables["transformer"], num_resamples=200)
    table = optimum_ratio(fit, fit)
    np.testing.assert_allclose(table["ratio"], 1)
    assert (table["low"] < 0.999).all()  # equal seeds must not cancel the noise


def test_ratio_refuses(tables: dict[str, pd.DataFrame]) -> None:
    size = fit_isoflop(tables["xlstm"], num_resamples=10)
    with pytest.raises(InputError, match="one is over num_params, the other over num_tokens"):
        optimum_ratio(size, fit_isoflop(tables["xlstm"], "num_tokens", num_resamples=10))
    low = fit_isoflop(tables["xlstm"], budgets=[6e18, 1e19], num_resamples=10)
    high = fit_isoflop(tables["transformer"], budgets=[3e19, 1e20], num_resamples=10)
    with pytest.raises(InputError, match="no two budgets are within"):
        optimum_ratio(low, high)


def test_conventions(tables: dict[str, pd.DataFrame]) -> None:
    table = exponents_by_convention(tables["xlstm"], ["paper", "6ND"], MAIN).set_index("convention")
    joint = fit_isoflop_joint(tables["xlstm"], budgets=MAIN)
    assert table.loc["paper", "flops_ratio"] == pytest.approx(1, abs=1e-5)
    assert table.loc["paper", "a_joint"] == pytest.approx(joint.law.exponent, abs=1e-4)
    assert (table["a_low"] < table["a_joint"]).all()
    assert (table["a_joint"] < table["a_high"]).all()
    assert table.loc["6ND", "spread"] > table.loc["paper", "spread"]
    scaled = table.loc["6ND", ["a", "b"]] / table.loc["paper", ["a", "b"]]
    assert scaled["a"] == pytest.approx(scaled["b"], rel=1e-3)  # only the axis of compute is stretched
