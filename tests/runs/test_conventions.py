"""A run table under other conventions: the paper's, and tables that lack what a count needs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from companion.accounting import SIX_ND
from companion.runs.conventions import (
    check_counts,
    convention_ratios,
    countable,
)
from companion.runs.load import load_paper_runs


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture
def plain() -> pd.DataFrame:
    """Five columns, one architecture that nobody can count."""
    return pd.DataFrame(
        {
            "architecture": ["mamba", "transformer"],
            "num_params": [100, 200],
            "num_tokens": [1000, 3000],
            "train_flops": [1.2e6, 3.6e6],
            "val_loss": [3.5, 3.2],
        }
    )


def test_every_run_of_the_paper(runs: pd.DataFrame) -> None:
    check = check_counts(runs)
    assert check["num_runs"].sum() == len(runs) == 640
    assert (check["num_params_equal"] == check["num_runs"]).all()
    assert (check["train_flops_equal"] == check["num_runs"]).all()
    assert check["largest_difference"].max() < 5e-6


def test_wrong_numbers_are_seen(runs: pd.DataFrame) -> None:
    wrong = runs.copy()
    wrong.loc[wrong.index[0], "num_params"] += 1
    wrong.loc[wrong.index[0], "train_flops"] *= 1.01
    check = check_counts(wrong)
    for column in ("num_params_equal", "train_flops_equal"):
        assert (check["num_runs"] - check[column]).sum() == 1
    assert check["largest_difference"].max() == pytest.approx(0.01, rel=0.02)


def test_tables_without_shapes(plain: pd.DataFrame) -> None:
    assert countable(plain).empty
    check = check_counts(plain)
    assert check.empty
    assert check.sum(numeric_only=True)["num_runs"] == 0
    ratios = convention_ratios(plain)
    assert ratios["6ND"].tolist() == pytest.approx([0.5, 1.0])
    assert ratios[["paper", "tfla", "chinchilla"]].isna().all(axis=None)


def test_rows_with_gaps_are_left_out(runs: pd.DataFrame) -> None:
    some = runs.copy()
    some["d_ff"] = some["d_ff"].astype(float)
    some.loc[some.index[:3], "d_ff"] = np.nan
    some.loc[some.index[5], "architecture"] = "mamba"
    assert len(countable(some)) == len(runs) - 4
    ratios = convention_ratios(some, ["paper"])
    assert ratios["paper"].isna().sum() == 4
    assert ratios["paper"].dropna().to_numpy() == pytest.approx(1, abs=5e-6)


def test_ratios_of_the_paper(runs: pd.DataFrame) -> None:
    ratios = convention_ratios(runs)
    np.testing.assert_allclose(ratios["paper"], 1, rtol=5e-6)
    expected = 6.0 * runs["num_params"] * runs["num_tokens"] / runs["train_flops"]
    np.testing.assert_allclose(ratios["6ND"], expected, rtol=1e-12)
    inference = replace(SIX_ND, name="2ND", backward_factor=0.0)
    np.testing.assert_allclose(convention_ratios(runs, [inference])["2ND"], expected / 3, rtol=1e-12)


def test_own_convention_of_some_weights_needs_shapes(runs: pd.DataFrame, plain: pd.DataFrame) -> None:
    kaplan = replace(SIX_ND, name="kaplan", counted_weights=("mixer_projections", "output_gate", "ffn"))
    assert convention_ratios(plain, [kaplan])["kaplan"].isna().all()
    assert (convention_ratios(runs, [kaplan])["kaplan"] < convention_ratios(runs, [SIX_ND])["6ND"]).all()
