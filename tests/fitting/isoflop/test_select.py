"""Which runs, budgets and sizes enter an IsoFLOP fit."""

import numpy as np
import pandas as pd
import pytest

from companion.errors import InputError
from companion.fitting.isoflop.profiles import fit_isoflop
from companion.fitting.isoflop.select import (
    budgets_between,
    contexts_of,
    isoflop_runs,
    near_optimum,
    settings_by_budget,
)
from companion.runs.load import load_paper_runs


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture(scope="module")
def xlstm(runs: pd.DataFrame) -> pd.DataFrame:
    return isoflop_runs(runs, "xlstm", 8192)


def test_papers_runs(xlstm: pd.DataFrame) -> None:
    assert len(xlstm) == 145
    assert set(xlstm["experiment"]) == {"isoflop"}
    assert sorted(xlstm["isoflop_budget"].unique()) == [6e18, 1e19, 3e19, 1e20, 6e20]


def test_a_table_with_five_columns(xlstm: pd.DataFrame) -> None:
    bare = xlstm[["architecture", "num_params", "num_tokens", "train_flops", "val_loss"]]
    chosen = isoflop_runs(bare, "xlstm", 8192)
    sizes = chosen.groupby("isoflop_budget").size()
    assert sizes.to_list() == xlstm.groupby("isoflop_budget").size().to_list()
    assert contexts_of(bare, ["xlstm"]) == [None]


def test_contexts(runs: pd.DataFrame) -> None:
    assert contexts_of(runs, ["transformer", "xlstm"]) == [2048, 8192, 16384]


def test_what_is_not_there(runs: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no runs with architecture mamba"):
        isoflop_runs(runs, "mamba", 8192)
    with pytest.raises(InputError, match="no runs with context_length 4096"):
        isoflop_runs(runs, "xlstm", 4096)


def test_published_rule_for_budgets(xlstm: pd.DataFrame) -> None:
    assert budgets_between(xlstm, 5e18, 2e20) == [6e18, 1e19, 3e19, 1e20]
    assert budgets_between(xlstm, 5e18, 1e21)[-1] == 6e20
    with pytest.raises(InputError, match=r"1 IsoFLOP budget .* from 5e\+20 to 1e\+21; .* and there are 6.04e\+18, "):
        budgets_between(xlstm, 5e20, 1e21)


def test_settings(xlstm: pd.DataFrame) -> None:
    table = settings_by_budget(xlstm)
    assert table["num_runs"].sum() == len(xlstm)
    assert table["batch_tokens"].to_list() == [2**20] * 4 + [2**21]
    assert (table["flops_spread"] >= 1).all()
    assert "batch_tokens" not in settings_by_budget(xlstm.drop(columns="batch_size_seqs"))


def test_window(xlstm: pd.DataFrame) -> None:
    inside = near_optimum(xlstm, 0.3)
    for profile in fit_isoflop(xlstm, num_resamples=0).optima:
        assert profile.fit is not None
        kept = inside.loc[inside["isoflop_budget"] == profile.isoflop_budget, "num_params"]
        distance = np.abs(np.log10(profile.x / profile.fit.law.x_opt))
        assert sorted(kept) == sorted(profile.x[distance <= 0.3])
    assert len(near_optimum(xlstm, 2.0)) == len(xlstm)
    with pytest.raises(InputError, match="no run within 1e-09 decades"):
        near_optimum(xlstm, 1e-9)
