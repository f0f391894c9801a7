"""A laboratory as it is played: budget, ledger, commitment, reveal, run table."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_laboratory import SMALL, target

from companion import LossSurface, fit
from companion.errors import InputError
from companion.runs import load_runs
from companion.study.laboratory import (
    Laboratory,
    Rules,
    new_laboratory,
    open_laboratory,
    practice_laboratory,
)


def test_from_asks_to_a_score(lab: Laboratory) -> None:
    answers = lab.ask([SMALL, replace(SMALL, seed=1), replace(SMALL, architecture="transformer", learning_rate=0.3)])
    assert [answer.outcome.diverged for answer in answers] == [False, False, True]
    assert answers[0].outcome.val_loss != answers[1].outcome.val_loss
    state = lab.state()
    assert state.spent == pytest.approx(sum(answer.outcome.train_flops for answer in answers))
    assert state.left == pytest.approx(lab.rules.budget - state.spent)
    commitment = lab.predict(target())
    again = open_laboratory(Path(lab.name))
    assert again.state().commitment == commitment
    assert again.prediction() == target().checked(lab.rules)
    first = again.reveal()
    assert again.reveal() == first == lab.reveal()
    assert again.state().spent == state.spent
    found = again.score()
    assert found.covered == (2.6 <= (first.val_loss or 0) <= 2.8)
    assert 0 < found.compute_share <= 1


def test_the_same_ask_twice_costs_once(lab: Laboratory) -> None:
    [first] = lab.ask([SMALL])
    spent = lab.state().spent
    again, new = lab.ask([SMALL, replace(SMALL, seed=5)])
    assert again.outcome == first.outcome
    assert (again.repeated, new.repeated) == (True, False)
    assert len(lab.state().answers) == 2
    assert lab.ask([SMALL, SMALL]) == [again]
    assert lab.state().spent == pytest.approx(2 * spent)


def test_the_ledger_gives_the_answers_of_memory(lab: Laboratory) -> None:
    memory = practice_laboratory("a key", lab.rules)
    assert memory.ask([SMALL])[0].outcome == lab.ask([SMALL])[0].outcome


@given(shares=st.lists(st.floats(0.01, 0.7), min_size=1, max_size=8), unit=st.sampled_from(["flops", "gpu_hours"]))
@settings(max_examples=25)
def test_a_budget_is_never_overspent(shares: list[float], unit: str) -> None:
    lab = practice_laboratory("a key", Rules(unit=unit, budget=2.0 if unit == "gpu_hours" else 1e18))
    for seed, share in enumerate(shares):
        size = 10**7
        ask = replace(SMALL, num_params=size, num_tokens=round(share * 1e18 / 6 / size), seed=seed).checked(lab.rules)
        left, needed = lab.state().left, lab.cost(ask).charged(lab.rules)
        if needed <= left:
            lab.ask([ask])
            assert lab.state().left == pytest.approx(left - needed)
        else:
            with pytest.raises(InputError, match="left; nothing was run"):
                lab.ask([ask])
            assert lab.state().left == left


def test_of_several_runs_all_fit_or_none_is_made(lab: Laboratory) -> None:
    half = replace(SMALL, num_params=10**8, num_tokens=10**10)
    before = lab.journal.read()
    with pytest.raises(InputError, match="2 runs would cost"):
        lab.ask([half, replace(half, seed=1)])
    assert lab.journal.read() == before


def test_nothing_follows_a_prediction(lab: Laboratory) -> None:
    lab.predict(target())
    with pytest.raises(InputError, match="no more runs"):
        lab.ask([SMALL])
    with pytest.raises(InputError, match="cannot be changed"):
        lab.predict(replace(target(), loss=2.65))


def test_order_of_steps(lab: Laboratory) -> None:
    for step, message in ((lab.prediction, "no prediction yet"), (lab.reveal, "no prediction"), (lab.score, "reveal")):
        with pytest.raises(InputError, match=message):
            step()
    lab.predict(target())
    with pytest.raises(InputError, match="not revealed yet"):
        lab.score()


def test_a_folder_is_never_changed_by_new(lab: Laboratory, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        new_laboratory(Path(lab.name), Rules())
    with pytest.raises(InputError, match="cannot be made"):
        new_laboratory(tmp_path / "no" / "folder", Rules())
    with pytest.raises(InputError, match="h999"):
        new_laboratory(tmp_path / "other", Rules(hardware="h999"))
    assert not (tmp_path / "other").exists()


def test_two_new_laboratories_differ(tmp_path: Path) -> None:
    first, second = (new_laboratory(tmp_path / name, Rules()) for name in "ab")
    assert first.rules.identity != second.rules.identity
    assert first.ask([SMALL])[0].outcome != second.ask([SMALL])[0].outcome


def test_runs_are_a_run_table_that_can_be_fitted(tmp_path: Path) -> None:
    lab = practice_laboratory("a key")
    asks = [
        replace(SMALL, num_params=size, num_tokens=ratio * size, learning_rate=1e-3, batch_size_seqs=8)
        for size in (10**7, 2 * 10**7, 4 * 10**7)
        for ratio in (10, 20, 40)
    ]
    lab.ask([*asks, replace(SMALL, learning_rate=0.5)])
    table, diverged = lab.runs()
    assert (len(table), len(diverged)) == (9, 1)
    assert "val_loss" not in diverged
    table.to_csv(tmp_path / "runs.csv", index=False)
    with pytest.warns(UserWarning, match="kept without a check"):
        loaded = load_runs(tmp_path / "runs.csv")
    assert (loaded["train_flops"] == 6.0 * loaded["num_params"] * loaded["num_tokens"]).all()
    assert fit(LossSurface, loaded, gamma=1).num_rows == 9


def test_a_laboratory_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "import companion.cli.laboratory, companion.study.laboratory.coverage, companion.study.laboratory.grading\n"
        "from companion.study.laboratory.coverage import play\n"
        "assert play('ladder', 'paper', 0)['fault'] == ''\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
