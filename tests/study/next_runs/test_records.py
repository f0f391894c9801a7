"""The committed records are those of this code, and hold what is said of them."""

import numpy as np
import pandas as pd
import pytest

from companion.paths import data_dir
from companion.runs import load_paper_runs, subset
from companion.study.next_runs.__main__ import LAWS, REPLAY_FILE, SIMULATED_FILE
from companion.study.next_runs.replay import STRATEGIES, oracle_of, replay
from companion.study.next_runs.simulate import Study, paper_truths, simulate_table

KEYS = ["architecture", "law", "strategy", "follow", "seed", "round", "quantity"]


@pytest.fixture(scope="module")
def replayed() -> pd.DataFrame:
    return pd.read_csv(data_dir() / REPLAY_FILE)


@pytest.fixture(scope="module")
def simulated() -> pd.DataFrame:
    return pd.read_csv(data_dir() / SIMULATED_FILE)


@pytest.mark.parametrize(("strategy", "follow"), [("cheapest first", None), ("V-optimal", "size exponent")])
def test_a_replay_of_today_is_the_recorded_one(replayed: pd.DataFrame, strategy: str, follow: str | None) -> None:
    oracle = oracle_of(subset(load_paper_runs(), "transformer", 8192), LAWS["gamma free"])
    now = replay(oracle, strategy, follow=follow)
    kept = replayed.query("architecture == 'transformer' and law == 'gamma free'")
    kept = kept[(kept["strategy"] == strategy) & (kept["follow"].fillna("") == (follow or ""))]
    assert now["num_runs"].tolist() == kept["num_runs"].tolist()
    for column in ("value", "low", "high", "spent_flops"):
        assert now[column].to_numpy() == pytest.approx(kept[column].to_numpy(), rel=1e-3), column


def test_every_round_of_the_replay_is_there_once(replayed: pd.DataFrame) -> None:
    assert not replayed.duplicated(KEYS).any()
    assert set(replayed["strategy"]) == set(STRATEGIES)
    ends = replayed[replayed["round"] == replayed.groupby(["architecture", "law"])["round"].transform("max")]
    assert ends.groupby("architecture")["num_runs"].unique().map(list).to_dict() == {
        "transformer": [137],
        "xlstm": [179],
    }
    assert set(ends["share_of_compute"]) == {1.0}, "the last level buys the last run"
    known = replayed[replayed["status"] != "not identified"]
    assert known[["value", "low", "high"]].notna().all().all()
    assert ((known["low"] < known["value"]) & (known["value"] < known["high"])).all()


def test_the_start_of_a_simulation_of_today_is_the_recorded_one(simulated: pd.DataFrame) -> None:
    truths = paper_truths()
    study = Study(truth=truths["gamma free"], profile_law=truths["gamma = 1"], multiples=())
    errors = [simulate_table(study, number, 0)[0]["error"] for number in range(30)]
    kept = simulated.query("truth == 'gamma free' and law == 'gamma = 1' and strategy == 'start'")
    assert kept["bias"].item() == pytest.approx(np.mean(errors), rel=1e-2)


def test_coverage_holds_under_the_right_law_only(simulated: pd.DataFrame) -> None:
    right = simulated[simulated["truth"] == simulated["law"]]
    assert right["coverage"].between(0.85, 1).all()
    wrong = simulated.query("truth == 'gamma free' and law == 'gamma = 1'")
    assert wrong["coverage"].min() == 0
