"""Exponents by choice of procedure: the paper's published and better values, and what must not depend on a choice."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.applicability import select_runs
from companion.chapters.ch03.choices import (
    both_fits,
    errors_by_context,
    exponent_choices,
    exponent_differences,
    exponent_errors,
    levers,
)
from companion.errors import NotApplicable
from companion.fitting.isoflop.profiles import fit_isoflop
from companion.fitting.isoflop.select import isoflop_runs
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

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


def test_errors_at_every_context() -> None:
    selection = select_runs(architectures=["xlstm"])
    table = errors_by_context(selection, None, MULTIPLICITY)
    assert table["T"].to_list() == [2048, 8192, 16384]
    assert set(table["architecture"]) == {"xLSTM"}
    expected = exponent_errors(subset(selection.runs, "xlstm", 8192, "isoflop"), MAIN, MULTIPLICITY)
    assert table.set_index("T").loc[8192, list(expected)].to_dict() == pytest.approx(expected)
    with pytest.raises(NotApplicable, match="no context length has optima"):
        errors_by_context(selection, (1e15, 2e15), MULTIPLICITY)


def test_a_fit_that_is_refused_is_none(tables: dict[str, pd.DataFrame]) -> None:
    two_steps, joint = both_fits(tables["xlstm"], MAIN)
    assert two_steps is not None
    assert joint is not None
    assert two_steps.power_law.law.exponent == fit_isoflop(tables["xlstm"], budgets=MAIN).power_law.law.exponent
    assert joint.law.exponent == pytest.approx(two_steps.power_law.law.exponent, abs=0.05)
    assert both_fits(tables["xlstm"], [1.0]) == (None, None)


def test_levers_make_the_exponent(tables: dict[str, pd.DataFrame]) -> None:
    fit = fit_isoflop(tables["xlstm"], budgets=MAIN, num_resamples=0)
    found = levers(fit)
    assert list(found) == list(MAIN)
    slope = sum(found[p.isoflop_budget] * np.log10(p.x_opt) for p in fit.optima)
    assert slope == pytest.approx(fit.power_law.law.exponent, rel=1e-12)
