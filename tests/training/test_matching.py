"""Runs and their logs."""

import pandas as pd
import pytest

from companion.errors import InputError
from companion.runs import load_paper_runs
from companion.training import load_training_logs
from companion.training.matching import coverage, match_logs


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture(scope="module")
def logs() -> pd.DataFrame:
    return load_training_logs()


def test_the_runs_with_logs_are_those_that_the_logs_name(runs: pd.DataFrame, logs: pd.DataFrame) -> None:
    found = match_logs(runs, logs)
    assert found["run"].is_unique
    assert set(logs.loc[logs["in_runs_csv"] == 1, "run"]) <= set(found["run"])
    assert (
        runs.loc[found.index, "num_params"] == logs.set_index("run").loc[found["run"], "num_params"].to_numpy()
    ).all()


def test_of_two_trainings_the_nearer_loss_is_taken(runs: pd.DataFrame, logs: pd.DataFrame) -> None:
    """3.06800 and 2.95118 nats per token; the paper's table holds the better one."""
    found = match_logs(runs, logs)
    pair = logs[logs["val_loss"].round(5).isin([3.068, 2.95118])]
    assert len(pair) == 2
    assert set(pair["run"]) & set(found["run"]) == set(pair.loc[pair["val_loss"] < 3, "run"])


def test_coverage_counts_every_run(runs: pd.DataFrame, logs: pd.DataFrame) -> None:
    table = coverage(runs, logs)
    assert table["num_runs"].sum() == len(runs)
    assert table["num_logs"].sum() == len(match_logs(runs, logs))
    assert (table["num_logs"] <= table["num_runs"]).all()
    assert table.loc[table["num_logs"] == 0, "largest_difference"].isna().all()


def test_a_table_without_sizes(runs: pd.DataFrame, logs: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"^runs and logs cannot be matched: column 'num_tokens' is missing"):
        match_logs(runs, logs.drop(columns="num_tokens"))
    assert match_logs(runs.drop(columns=["d_model", "batch_size_seqs"]), logs).index.isin(runs.index).all()
