"""Budgets set by another count of FLOPs: which count it was, and the optima that follow."""

import numpy as np
import pandas as pd
import pytest

from companion.accounting import CHINCHILLA, PAPER
from companion.errors import InputError
from companion.fitting.isoflop import fit_isoflop, isoflop_runs
from companion.runs import load_paper_runs
from companion.runs.recount import recount
from companion.training import load_training_logs
from companion.training.budgets import (
    CHINCHILLA_GROUP,
    CHINCHILLA_LOOK_UP,
    compare_optima,
    count_constancy,
    counted_profiles,
)

BUDGETS = [6e18, 1e19, 3e19, 1e20]


@pytest.fixture(scope="module")
def profiles() -> pd.DataFrame:
    return counted_profiles(load_training_logs(), CHINCHILLA_LOOK_UP, CHINCHILLA_GROUP)


@pytest.fixture(scope="module")
def paper_runs() -> pd.DataFrame:
    return isoflop_runs(load_paper_runs(), "transformer", 8192)


def test_the_runs_form_three_profiles(profiles: pd.DataFrame) -> None:
    found = profiles.groupby("profile").agg(
        budget=("isoflop_budget", "first"), batch=("batch_size_seqs", "first"), runs=("run", "size")
    )
    assert found.to_numpy().tolist() == [[6e18, 64, 17], [6e18, 128, 15], [1e19, 128, 20]]
    given = profiles.groupby("isoflop_budget")["given_train_flops"].agg(["min", "max"]).to_numpy()
    # 4.1e18 to 4.6e18 and 6.9e18 to 7.6e18 by the paper's count: a first look at the logs
    assert np.round(given / 1e18, 1).tolist() == [[4.1, 4.6], [6.9, 7.6]]


def test_the_count_behind_the_budgets_is_chinchillas_with_a_look_up(profiles: pd.DataFrame) -> None:
    found = count_constancy(profiles).set_index(["convention", "isoflop_budget", "batch_size_seqs"])
    flat = (found["low"] < 0) & (found["high"] > 0)
    own = found.loc[CHINCHILLA_LOOK_UP.name]
    assert flat.loc[CHINCHILLA_LOOK_UP.name].all()
    # the budgets have round numbers in this count
    assert own["mean_count"].to_numpy() == pytest.approx([6e18, 6e18, 1e19], rel=0.01)
    assert own["spread"].max() < 1.09
    for other in (PAPER.name, CHINCHILLA.name):
        assert not flat.loc[other].all()
        assert found.loc[other]["spread"].sum() > own["spread"].sum()
    # 6ND has no trend here, but a spread that no rounding explains
    assert found.loc["6ND"]["spread"].min() > 1.2


def test_a_constant_count_has_no_trend(paper_runs: pd.DataFrame) -> None:
    """Tokens set so that one count is exact: only that one is constant."""
    counts = recount(paper_runs, CHINCHILLA)
    exact = paper_runs.assign(num_tokens=paper_runs["num_tokens"] * paper_runs["isoflop_budget"] / counts)
    profiles = counted_profiles(exact, CHINCHILLA)
    found = count_constancy(profiles).set_index("convention")
    assert found.loc["chinchilla", "spread"].to_numpy() == pytest.approx(1, abs=1e-9)
    assert found.loc["chinchilla", "trend"].to_numpy() == pytest.approx(0, abs=1e-9)
    assert (found.loc["paper", "low"] > 0).all()
    with pytest.raises(InputError, match="profile 0: 2 runs; a trend of the count needs at least 3"):
        count_constancy(profiles.groupby("profile").head(2))


def test_the_optima_are_where_the_other_count_predicts(profiles: pd.DataFrame, paper_runs: pd.DataFrame) -> None:
    found = compare_optima(profiles, paper_runs, CHINCHILLA_LOOK_UP, BUDGETS)
    same_batch = found[found["batch_size_seqs"] == 128]
    assert ((same_batch["ratio_low"] < 1) & (same_batch["ratio_high"] > 1)).all()
    # and not where one would look who takes both counts for one
    assert (same_batch["moved_high"] < 1).all()
    assert same_batch["moved_predicted"].to_numpy() == pytest.approx(0.82, abs=0.01)
    assert same_batch["outside"].tolist() == [True, False]
    # half the batch moves the optimum much more than the count does
    half_batch = found[found["batch_size_seqs"] == 64].iloc[0]
    assert half_batch["ratio_low"] > 1.2


def test_a_prediction_from_the_same_runs_is_their_own_fit(paper_runs: pd.DataFrame) -> None:
    profiles = counted_profiles(paper_runs, PAPER)
    found = compare_optima(profiles, paper_runs, PAPER, BUDGETS)
    own = fit_isoflop(paper_runs, budgets=BUDGETS, num_resamples=0)
    assert found["measured"].to_numpy() == pytest.approx([profile.x_opt for profile in own.optima])
    assert found["predicted"].to_numpy() == pytest.approx(found["unaware"].to_numpy(), rel=1e-4)
    assert found["two_step"].to_numpy() == pytest.approx(
        own.power_law.law.predict(found["mean_count"].to_numpy()), rel=1e-5
    )
    assert found["ratio"].to_numpy() == pytest.approx(1, abs=0.06)
    assert (found["predicted_low"] < found["predicted"]).all()
    assert (found["predicted"] < found["predicted_high"]).all()


def test_a_simulated_study_finds_the_shift(paper_runs: pd.DataFrame) -> None:
    """Losses of a known law of C, cut along another count: measured and predicted agree."""
    rng = np.random.default_rng(3)

    def with_losses(runs: pd.DataFrame) -> pd.DataFrame:
        flops = recount(runs, PAPER).to_numpy()
        distance = np.log10(runs["num_params"].to_numpy() / (1.5e8 * (flops / 6e18) ** 0.6))
        loss = 3.2 - 0.3 * np.log10(flops / 6e18) + 0.7 * distance**2 + rng.normal(0, 0.002, len(runs))
        return runs.assign(val_loss=loss)

    counts = recount(paper_runs, CHINCHILLA)
    cut = paper_runs.assign(num_tokens=paper_runs["num_tokens"] * 1.4 * paper_runs["isoflop_budget"] / counts)
    profiles = counted_profiles(with_losses(cut).assign(train_flops=recount(cut, PAPER)), CHINCHILLA)
    found = compare_optima(profiles, with_losses(paper_runs), CHINCHILLA, BUDGETS)
    assert found["ratio"].to_numpy() == pytest.approx(1, abs=0.1)
    assert (np.abs(np.log(found["moved"])) > 3 * np.abs(np.log(found["ratio"]))).sum() >= 3


def test_the_papers_own_budget_at_a_doubled_batch() -> None:
    """The xLSTM at 6e20 FLOP: its optimum is below what the four budgets at half the batch predict."""
    runs = isoflop_runs(load_paper_runs(), "xlstm", 8192)
    highest = counted_profiles(runs[runs["isoflop_budget"] == 6e20], PAPER)
    found = compare_optima(highest, runs, PAPER, BUDGETS).iloc[0]
    assert found["batch_size_seqs"] == 256
    assert found["outside"]
    assert 0.8 < found["ratio_low"] < found["ratio"] < found["ratio_high"] < 0.95


def test_a_group_that_is_not_there() -> None:
    logs = load_training_logs()
    with pytest.raises(InputError, match=r"training_logs.csv: no finished run of group 'none'"):
        counted_profiles(logs, PAPER, "none")
    with pytest.raises(InputError, match=r"training_logs.csv: train_flops cannot be counted again: no column 'd_ff'"):
        counted_profiles(logs.drop(columns="d_ff"), PAPER, CHINCHILLA_GROUP)
