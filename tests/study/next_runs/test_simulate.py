"""Simulated studies: what holds whatever the noise, and what a wrong law does."""

import numpy as np
import pandas as pd
import pytest

from companion.errors import InputError
from companion.laws import LossSurface
from companion.study.next_runs.quantities import LossOf
from companion.study.next_runs.simulate import (
    STRATEGIES,
    CrossTerm,
    Study,
    designed,
    paper_truths,
    simulate,
    simulate_table,
    summarized,
)

LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
#: A truth that the assumed law misses most: gamma far from 1.
WRONG = LossSurface(E=1.8, A=2.6e5, B=9.8e5, alpha=0.65, beta=0.63, gamma=0.47)
SMALL = {"profile_law": LAW, "multiples": (10.0,), "max_runs": 6}


@pytest.fixture(scope="module")
def right() -> pd.DataFrame:
    study = Study(truth=LAW, **SMALL)
    return simulate(study, 8, seed=1, strategies=("V-optimal", "IsoFLOP grid", "random"))


def test_rows_hold_every_strategy_and_the_start(right: pd.DataFrame) -> None:
    assert right.groupby("strategy").size().to_dict() == {"start": 8, "V-optimal": 8, "IsoFLOP grid": 8, "random": 8}
    chosen = right[right["strategy"] != "start"]
    assert (chosen["spent_flops"] <= 11 * 3e20 * (1 + 1e-6)).all()
    assert (chosen["num_runs"] <= 21).all()
    assert right["identified"].all()


def test_chosen_runs_give_narrower_intervals_than_other_designs(right: pd.DataFrame) -> None:
    table = summarized(right).set_index("strategy")
    assert table.loc["V-optimal", "half_width"] < table.loc["IsoFLOP grid", "half_width"]
    assert table.loc["V-optimal", "half_width"] < table.loc["random", "half_width"]
    assert table.loc["V-optimal", "half_width"] < table.loc["start", "half_width"]


def test_under_the_right_law_errors_are_of_the_size_that_is_stated(right: pd.DataFrame) -> None:
    ratio = right["error"] / right["standard_error"]
    assert 0.6 < np.sqrt(np.mean(ratio**2)) < 1.6
    assert right["covered"].mean() > 0.8


def test_a_wrong_law_biases_what_its_interval_leaves_out() -> None:
    study = Study(truth=WRONG, **SMALL)
    table = simulate(study, 3, seed=1, strategies=("IsoFLOP grid",))
    grid = table[table["strategy"] == "IsoFLOP grid"]
    assert grid["covered"].mean() < 0.5
    assert abs(grid["error"].mean()) > 5 * grid["error"].std()


def test_the_same_seed_gives_the_same_table_and_another_another() -> None:
    study = Study(truth=LAW, **SMALL)
    one, two, three = (pd.DataFrame(simulate_table(study, 0, seed, ("random",))) for seed in (5, 5, 6))
    assert one.equals(two)
    assert not one.equals(three)


def test_every_strategy_spends_at_most_the_budget() -> None:
    study = Study(truth=LAW, **SMALL)
    start = study.drawn(study.start(), np.random.default_rng(0))
    found = study.fitted(start)
    for strategy in STRATEGIES:
        runs = designed(study, strategy, found, start, 1e21, 0)
        assert 0 < runs["cost"].sum() <= 1e21 * (1 + 1e-6), strategy
        assert len(runs) <= study.max_runs, strategy
    with pytest.raises(InputError, match="strategy 'best'"):
        designed(study, "best", found, start, 1e21, 0)


def test_a_further_term_adds_to_the_loss() -> None:
    truth = CrossTerm(law=LAW, K=10.0, power=0.1)
    assert truth.predict(1e9, 1e10) == pytest.approx(LAW.predict(1e9, 1e10) + 10.0 * 1e19**-0.1)
    assert LossOf(1e9, 1e10).value(truth) > LossOf(1e9, 1e10).value(LAW)


def test_truths_are_near_each_other_where_the_runs_are() -> None:
    truths = paper_truths()
    losses = [float(truth.predict(4e8, 2e10)) for truth in truths.values()]
    assert max(losses) / min(losses) < 1.04
    assert len({round(loss, 6) for loss in losses}) == 4
