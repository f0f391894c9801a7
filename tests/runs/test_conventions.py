"""A run table under other conventions: the paper's, and tables that lack what a count needs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from companion.accounting import PAPER, SIX_ND, num_params
from companion.architectures import preset
from companion.errors import InputError
from companion.runs.conventions import (
    check_counts,
    convention_ratios,
    countable,
    median_ratios,
    share_table,
    smallest_model,
)
from companion.runs.load import SHAPE_COLUMNS, load_paper_runs


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
    assert share_table(plain).empty
    medians = median_ratios(plain, ratios)
    assert medians["convention"].tolist() == ["6ND"]
    assert medians["apart"].tolist() == pytest.approx([2.0])
    with pytest.raises(InputError, match="no run of architecture 'transformer' has the shapes"):
        smallest_model(plain, "transformer")


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
    medians = median_ratios(runs, ratios[["chinchilla", "6ND"]])
    assert len(medians) == 3 * 2
    row = medians[(medians["context_length"] == 16384) & (medians["convention"] == "6ND")].iloc[0]
    assert row["apart"] == pytest.approx(row["xlstm"] / row["transformer"])


def test_own_convention_of_some_weights_needs_shapes(runs: pd.DataFrame, plain: pd.DataFrame) -> None:
    kaplan = replace(SIX_ND, name="kaplan", counted_weights=("mixer_projections", "output_gate", "ffn"))
    assert convention_ratios(plain, [kaplan])["kaplan"].isna().all()
    assert (convention_ratios(runs, [kaplan])["kaplan"] < convention_ratios(runs, [SIX_ND])["6ND"]).all()


def test_smallest_model(runs: pd.DataFrame) -> None:
    for name, rows in runs.groupby("architecture"):
        assert num_params(smallest_model(runs, str(name))) == rows["num_params"].min()


def test_shares(runs: pd.DataFrame) -> None:
    shares = share_table(runs, PAPER)
    assert shares.index.equals(runs.index)
    columns = ["params_share", "flops_share", "core_share"]
    assert ((shares[columns] > 0) & (shares[columns] < 1)).all(axis=None)
    model = preset("transformer", "160m")
    same = (runs[list(SHAPE_COLUMNS)] == pd.Series({name: getattr(model, name) for name in SHAPE_COLUMNS})).all(axis=1)
    chosen = shares[same & (runs["architecture"] == "transformer")]
    assert len(chosen)
    assert chosen["params_share"].to_numpy() == pytest.approx(2 * 50304 * 768 / num_params(model))
