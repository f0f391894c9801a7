"""The replay of a study: what strategies may see, spend and say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated_tables import CHINCHILLA, simulated

from companion.errors import InputError
from companion.study.next_runs.__main__ import REPLAY_FILE, SIMULATED_FILE, main, rounded
from companion.study.next_runs.quantities import SizeExponent
from companion.study.next_runs.replay import STRATEGIES, Oracle, oracle_of, replay, replay_all

LOSS, EXPONENT = "loss of the largest run", "size exponent"


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    runs = simulated(CHINCHILLA, 0.003, seed=2, num_sizes=8, num_ratios=6)
    return oracle_of(runs.sample(frac=1, random_state=0), {"gamma": 1.0}, growth=8.0)


@pytest.fixture(scope="module")
def replayed(oracle: Oracle) -> pd.DataFrame:
    return replay_all(oracle, random_seeds=2)


def test_the_start_is_cheap_and_identified(oracle: Oracle) -> None:
    start = oracle.start()
    others = np.setdiff1d(np.arange(len(oracle.runs)), start)
    flops = oracle.runs["train_flops"]
    assert flops.iloc[start].max() <= flops.iloc[others].min()
    assert oracle.fitted(start).identified
    assert len(start) % 5 == 0
    assert flops.idxmax() == oracle.held_out[0]


def test_levels_grow_to_everything_but_the_target(oracle: Oracle) -> None:
    levels = oracle.levels(oracle.start())
    flops = oracle.runs["train_flops"]
    assert levels[-1] == pytest.approx(flops.sum() - flops.max())
    assert np.all(np.diff(levels) > 0)
    assert levels[1] / levels[0] == pytest.approx(8)


def test_no_strategy_spends_more_than_its_round_allows(replayed: pd.DataFrame, oracle: Oracle) -> None:
    start = oracle.start()
    levels = [float(oracle.runs["train_flops"].iloc[start].sum()), *oracle.levels(start)]
    limits = replayed["round"].map(dict(enumerate(levels)))
    assert (replayed["spent_flops"] <= limits * (1 + 1e-6)).all()
    assert set(replayed["strategy"]) == set(STRATEGIES)


def test_all_end_with_all_runs_and_the_same_result(replayed: pd.DataFrame, oracle: Oracle) -> None:
    cheap = replayed[(replayed["strategy"] != "largest affordable")]
    last = cheap[cheap["round"] == cheap["round"].max()]
    assert (last["num_runs"] == len(oracle.runs) - 1).all()
    for _, values in last.groupby("quantity")["value"]:
        assert np.ptp(values) < 1e-6
    assert last["share_of_compute"].to_numpy() == pytest.approx(1)


def test_what_is_held_out_is_never_asked_for(oracle: Oracle) -> None:
    start = oracle.start()
    cheap = next(row for row in range(len(oracle.runs)) if row not in (*start, *oracle.held_out))
    values = []
    for factor in (1.0, 3.0):
        runs = oracle.runs.copy()
        runs.loc[cheap, "val_loss"] *= factor
        other = Oracle(**{**vars(oracle), "runs": runs, "held_out": (*oracle.held_out, cheap)})
        values.append(replay(other, "cheapest first")["value"])
    assert values[0].equals(values[1])


def test_intervals_hold_values_and_shrink(replayed: pd.DataFrame) -> None:
    assert ((replayed["low"] < replayed["value"]) & (replayed["value"] < replayed["high"])).all()
    for _, rows in replayed.groupby(["strategy", "follow", "seed", "quantity"]):
        errors = rows.sort_values("round")["standard_error"].to_numpy()
        assert errors[-1] < errors[0]


def test_what_is_measured_stays_what_was_measured(replayed: pd.DataFrame, oracle: Oracle) -> None:
    loss = replayed[replayed["quantity"] == LOSS]
    assert loss["observed"].to_numpy() == pytest.approx(oracle.runs["val_loss"].iloc[oracle.held_out[0]])
    assert loss["error_observed"].to_numpy() == pytest.approx(np.log(loss["value"] / loss["observed"]))
    assert replayed.loc[replayed["quantity"] == EXPONENT, "observed"].isna().all()


def test_losses_that_nobody_asked_for_change_nothing(oracle: Oracle) -> None:
    """A strategy must not see a hidden loss: another one there leaves the choice of the first round as it is."""
    start = oracle.start()
    hidden = np.setdiff1d(np.arange(len(oracle.runs)), start)
    losses = oracle.runs["val_loss"].to_numpy().copy()
    losses[hidden] *= 1.01
    other = Oracle(**{**vars(oracle), "runs": oracle.runs.assign(val_loss=losses)})
    for strategy in ("V-optimal", "D-optimal"):
        follow = EXPONENT if strategy == "V-optimal" else None
        one, two = (replay(each, strategy, follow=follow) for each in (oracle, other))
        first = [table.loc[table["round"] == 1, ["num_runs", "spent_flops"]].to_numpy() for table in (one, two)]
        assert np.array_equal(*first)


def test_a_bootstrap_is_there_where_it_was_asked_for(oracle: Oracle) -> None:
    table = replay(oracle, "random", bootstrap_at=(0,), seed=3)
    there = table["bootstrap_low"].notna()
    assert there[table["round"] == 0].all()
    assert not there[table["round"] > 0].any()
    rows = table[there]
    assert (rows["bootstrap_low"] < rows["bootstrap_high"]).all()


def test_wrong_names_and_tables_are_errors(oracle: Oracle) -> None:
    with pytest.raises(InputError, match="strategy 'best'"):
        replay(oracle, "best")
    with pytest.raises(InputError, match="follow 'speed'"):
        replay(oracle, "V-optimal", follow="speed")
    narrow = simulated(CHINCHILLA, 0.003, seed=2, num_sizes=2)
    with pytest.raises(InputError, match="not even all runs"):
        oracle_of(narrow, {"gamma": 1.0}, quantities={"exponent": SizeExponent()}).start()


def test_the_command_checks_before_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "nowhere")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["--out", str(tmp_path), "--tables", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
    assert not [name for name in (REPLAY_FILE, SIMULATED_FILE) if (tmp_path / name).exists()]


def test_records_hold_five_digits() -> None:
    table = rounded(pd.DataFrame({"a": [1.23456789, np.nan], "n": [1, 2], "t": ["x", "y"]}))
    assert table["a"].iloc[0] == 1.2346
    assert np.isnan(table["a"].iloc[1])
    assert table["n"].tolist() == [1, 2]
