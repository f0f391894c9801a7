"""Results side by side: the paper's published and better values, and what must not depend on a choice."""

import numpy as np
import pandas as pd
import pytest

from companion.errors import InputError
from companion.fitting.isoflop.compare import (
    exponent_choices,
    exponent_differences,
    exponent_errors,
    exponents_by_convention,
    optimum_ratio,
)
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.isoflop.profiles import fit_isoflop
from companion.fitting.isoflop.select import isoflop_runs
from companion.runs.load import load_paper_runs, subset

MULTIPLICITY, MAIN = "multiplicity_in_published_fits", (6e18, 1e19, 3e19, 1e20)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    runs = load_paper_runs()
    return {name: isoflop_runs(runs, name, 8192) for name in ("transformer", "xlstm")}


@pytest.fixture(scope="module")
def choices(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {
        name: exponent_choices(table, weights=MULTIPLICITY, budgets=MAIN, num_resamples=200).set_index("choice")
        for name, table in tables.items()
    }


def test_choices_of_the_paper(choices: dict[str, pd.DataFrame]) -> None:
    exponent = choices["xlstm"]["exponent"]
    assert exponent["published"] == pytest.approx(0.547253, abs=1e-5)
    assert exponent["published, lowest 3 budgets"] == pytest.approx(0.540627, abs=1e-5)
    assert exponent["published, all budgets"] == pytest.approx(0.523, abs=1e-3)
    assert exponent["joint, all budgets"] == pytest.approx(0.537, abs=1e-3)
    assert choices["xlstm"].loc["published, lowest 3 budgets", "degrees_of_freedom"] == 1
    assert (choices["xlstm"]["low"] < exponent).all()
    assert (choices["xlstm"]["high"] > exponent).all()


def test_repeated_runs_shrink_the_error_without_new_data(choices: dict[str, pd.DataFrame]) -> None:
    error = choices["xlstm"]["standard_error"]
    assert error["joint, runs repeated"] < error["joint"]


def test_choices_that_change_nothing_are_left_out(
    tables: dict[str, pd.DataFrame], choices: dict[str, pd.DataFrame]
) -> None:
    assert "joint, runs repeated" not in choices["transformer"].index
    assert "published, all budgets" not in choices["transformer"].index
    three = exponent_choices(tables["transformer"], budgets=MAIN[:3], num_resamples=20)
    assert "published, lowest 3 budgets" not in set(three["choice"])


def test_a_choice_that_cannot_be_fitted_is_left_out(tables: dict[str, pd.DataFrame]) -> None:
    table = exponent_choices(tables["xlstm"], budgets=MAIN, window=0.001, num_resamples=20)
    assert not table["choice"].str.contains("within").any()


def test_small_published_error_of_the_transformer(choices: dict[str, pd.DataFrame]) -> None:
    error = choices["transformer"]["standard_error"]
    assert error["published"] == pytest.approx(0.003047, abs=5e-6)
    assert error["joint"] > 3 * error["published"]
    assert error["each run once, bootstrap"] > 3 * error["published"]


def test_difference(choices: dict[str, pd.DataFrame]) -> None:
    first, second = choices["xlstm"].reset_index(), choices["transformer"].reset_index()
    table = exponent_differences(first, second).set_index("choice")
    row = table.loc["joint"]
    assert row["difference"] == pytest.approx(row["first"] - row["second"])
    assert row["low"] < row["difference"] < row["high"]
    assert (row["high"] < 0) == (row["p_value"] < 0.05 and row["difference"] < 0)
    swapped = exponent_differences(second, first).set_index("choice")
    pd.testing.assert_series_equal(swapped["p_value"], table["p_value"])
    pd.testing.assert_series_equal(swapped["difference"], -table["difference"])


def test_welch_against_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1, 8), rng.normal(0.5, 2, 5)
    tables = [
        pd.DataFrame(
            {
                "choice": ["mean"],
                "exponent": [sample.mean()],
                "standard_error": [sample.std(ddof=1) / np.sqrt(sample.size)],
                "degrees_of_freedom": [sample.size - 1.0],
            }
        )
        for sample in samples
    ]
    expected = stats.ttest_ind(*samples, equal_var=False)
    row = exponent_differences(*tables).iloc[0]
    assert row["p_value"] == pytest.approx(expected.pvalue)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()))


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


def test_errors_of_the_exponent_by_procedure() -> None:
    # published: 0.003047 (notebooks/optimal_flop_param_token_tables.ipynb cell 5), from four optima nearly on a line
    runs = subset(load_paper_runs(), "transformer", 8192, "isoflop")
    found = exponent_errors(runs, [6e18, 1e19, 3e19, 1e20], "multiplicity_in_published_fits")
    assert found["optima"] == 4
    assert found["published"] == pytest.approx(0.003047, abs=5e-6)
    assert found["half_published"] == pytest.approx(4.303 * found["published"], rel=1e-3)
    assert found["joint"] > 3 * found["published"]
    assert found["bootstrap"] > 3 * found["published"]
    assert 0 < found["nearer"] < 0.5
    assert np.isnan(exponent_errors(runs, [6e18, 1e20])["nearer"])
