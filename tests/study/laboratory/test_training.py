"""A laboratory that trains: from asks to a score on a CPU, real N and D, charges, and what cannot be trained."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training_laboratory import TINY, records_in, tiny_laboratory, tiny_prediction, tiny_rules

from companion.accounting import num_params
from companion.errors import InputError
from companion.study.laboratory import Laboratory, Referee, Rules, Trainer, open_laboratory, training_rules
from companion.study.laboratory import training as training_module
from companion.study.laboratory.classroom import new_class
from companion.study.laboratory.predictions import target_tokens
from companion.study.laboratory.training_runs import FIRST_FINAL_SEED, final_seed, recipe_of
from companion.study.sweep import study_architecture
from companion.study.train import read_record, record_path


@pytest.fixture
def lab(tmp_path: Path) -> Laboratory:
    return tiny_laboratory(tmp_path / "lab")


def record_of(lab: Laboratory, **changes: Any) -> dict[str, Any]:
    recipe = recipe_of(replace(TINY, **changes).checked(lab.rules), lab.rules)
    return read_record(record_path(Path(lab.name) / "training", recipe.run_id))


def test_from_asks_to_a_score(lab: Laboratory) -> None:
    answers = lab.ask([TINY, replace(TINY, architecture="transformer"), replace(TINY, seed=1)])
    losses = [answer.outcome.val_loss for answer in answers]
    assert len(set(losses)) == 3
    assert all(loss is not None and 2.3 < loss < 3.2 for loss in losses)  # ln 16 is 2.77
    assert losses[0] == record_of(lab)["val_loss"]
    assert lab.state().spent == pytest.approx(sum(lab.cost(answer.ask).train_flops for answer in answers))
    lab.predict(tiny_prediction(lab.rules))
    final = lab.reveal()
    assert open_laboratory(Path(lab.name)).reveal() == final
    assert isinstance(lab.referee, Referee)
    found = lab.score()
    assert found.covered == (2.5 <= (final.val_loss or 0) <= 2.9)
    assert math.isnan(found.choice_points)
    assert found.total == pytest.approx(found.interval_points + found.accuracy_points)
    assert isinstance(lab.backend, Trainer)
    floor = lab.backend.loss_floor(lab.prediction().ask)
    assert floor is not None
    assert 2 < floor[0] < (final.val_loss or 0)
    table, _ = lab.runs()
    assert list(table["num_params"]) == [answer.ask.num_params for answer in answers]
    assert list(table["train_flops"]) == [answer.outcome.train_flops for answer in answers]


def test_the_run_has_the_nearest_size_and_is_charged_for_it(lab: Laboratory) -> None:
    [first] = lab.ask([TINY])
    model = study_architecture("xlstm", "0.1m", 16)
    assert first.ask.num_params == int(num_params(model)) != TINY.num_params
    record = record_of(lab)
    assert (record["num_params"], record["num_tokens"]) == (first.ask.num_params, first.ask.num_tokens)
    assert first.outcome.train_flops == record["train_flops"] == lab.state().spent
    assert first.outcome.train_flops != first.ask.train_flops  # 6·N·D
    assert first.outcome.gpu_hours == pytest.approx(record["seconds"] / 3600)
    [again] = lab.ask([replace(TINY, num_params=first.ask.num_params + 50)])
    assert again.repeated
    [larger] = lab.ask([replace(TINY, num_params=110_000)])
    assert larger.ask.num_params > 1.5 * first.ask.num_params


def test_the_same_ask_has_the_same_answer_elsewhere(lab: Laboratory, tmp_path: Path) -> None:
    other = tiny_laboratory(tmp_path / "other")
    assert lab.ask([TINY])[0].outcome.val_loss == other.ask([TINY])[0].outcome.val_loss


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_schedules(lab: Laboratory, schedule: str) -> None:
    recipe = recipe_of(replace(TINY, schedule=schedule).checked(lab.rules), lab.rules)
    rates = recipe.learning_rate_at([2, 19])
    assert (rates[1] < 0.5 * rates[0]) == (schedule != "constant")  # type: ignore[index]
    assert lab.ask([replace(TINY, schedule=schedule)])[0].outcome.val_loss


def test_the_target_has_a_seed_that_no_ask_has(lab: Laboratory) -> None:
    ask = tiny_prediction(lab.rules).ask.checked(lab.rules)
    assert isinstance(lab.backend, Trainer)
    assert lab.backend.final(ask).val_loss not in (None, lab.backend.run(ask).val_loss)
    assert final_seed(ask, lab.rules) == final_seed(replace(ask, seed=3), lab.rules) >= FIRST_FINAL_SEED
    assert final_seed(ask, lab.rules) != final_seed(ask, replace(lab.rules, identity="1" * 16))
    with pytest.raises(InputError, match="seed"):
        replace(ask, seed=FIRST_FINAL_SEED).checked(lab.rules)


def test_the_target_is_counted_in_the_flop_of_the_model(lab: Laboratory) -> None:
    rules = lab.rules
    made = tiny_prediction(rules).checked(rules)
    step = rules.flops_per_token("xlstm", TINY.num_params) * 8 * 16
    assert rules.target_flops - step < made.ask.flops_by(rules) <= rules.target_flops
    assert target_tokens(rules, "xlstm", TINY.num_params, 8) == made.ask.num_tokens
    with pytest.raises(InputError, match=r"the run costs 1\.6e\+09 FLOP, the target is 1\.5e\+09"):
        lab.predict(tiny_prediction(rules, num_tokens=made.ask.num_tokens + 3 * 128))


def test_a_run_that_diverges_is_charged_for_its_steps(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.study.train.trainer.diverged_after", lambda recipe, losses: 5)
    [answer] = lab.ask([TINY])
    assert answer.outcome.diverged
    assert answer.outcome.share_done == 5 / 20
    assert lab.state().spent == pytest.approx(lab.cost(TINY).train_flops / 4)
    assert len(lab.runs()[1]) == 1


def test_gpu_hours_are_measured_and_at_most_what_was_predicted(tmp_path: Path) -> None:
    rules = replace(tiny_rules(), unit="gpu_hours", budget=1.0)
    lab = tiny_laboratory(tmp_path / "lab", rules)
    [answer] = lab.ask([TINY])
    predicted = lab.cost(answer.ask).gpu_hours
    assert answer.outcome.gpu_hours == min(predicted, record_of(lab)["seconds"] / 3600)
    assert lab.state().spent == answer.outcome.gpu_hours > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_params": 10**9}, r"num_params 1e\+09 is not between 40320 and 1\d+"),
        ({"num_params": 1000}, "num_params 1000 is not between"),
        ({"architecture": "hybrid"}, "architecture 'hybrid': the laboratory has transformer and xlstm"),
        ({"num_tokens": 100}, "would take 1 steps"),
        ({"num_tokens": 10**7}, "1 run would cost .* nothing was run"),
    ],
)
def test_asks_that_are_refused(lab: Laboratory, change: dict[str, Any], message: str) -> None:
    before = lab.journal.read()
    with pytest.raises(InputError, match=message):
        lab.ask([replace(TINY, **change)])
    assert lab.journal.read() == before


def test_runs_too_large_for_the_device_are_refused(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lab.journal.read()
    monkeypatch.setattr(training_module, "_memory_bytes", lambda device: 1e5)
    for attempt in (lambda: lab.ask([TINY]), lambda: lab.predict(tiny_prediction(lab.rules))):
        with pytest.raises(InputError, match=r"batch_size_seqs 8: a run of 50\.7k parameters needs about"):
            attempt()
    assert lab.journal.read() == before
    assert not records_in(lab)


def test_other_tokens_are_refused(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text(f"{number} " + "the quick brown fox " * 200)
    options: dict[str, Any] = {"device": "cpu", "sizes": ["0.1m"], "context_length": 8, "target_flops": 1e9}
    lab = tiny_laboratory(tmp_path / "lab", training_rules(f"text:{texts}", **options))
    small = replace(TINY, num_params=70_000, num_tokens=10 * 8 * 8)
    assert lab.ask([small])[0].outcome.val_loss
    with pytest.raises(InputError, match="train_steps: the run reads"):
        lab.ask([replace(small, num_tokens=10**5)])
    spent = lab.state().spent
    (texts / "0.txt").write_text("another text " * 300)
    with pytest.raises(InputError, match="its tokens are not those that the laboratory was made with"):
        open_laboratory(Path(lab.name)).ask([replace(small, seed=1)])
    assert open_laboratory(Path(lab.name)).state().spent == spent


def test_a_class_cannot_train(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="backend 'training': a class has simulated worlds"):
        new_class(tmp_path / "class", ["ada"], "0123456789abcdef", tiny_rules())
    assert not (tmp_path / "class").exists()


def test_rules_and_ledger_are_read_without_torch(lab: Laboratory) -> None:
    lab.ask([TINY])
    lab.predict(tiny_prediction(lab.rules))
    lab.reveal()
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch': raise ImportError('no torch')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from pathlib import Path\n"
        "from companion.study.laboratory import open_laboratory\n"
        f"lab = open_laboratory(Path({lab.name!r}))\n"
        "assert len(lab.runs()[0]) == 1 and lab.score().total >= 0 and lab.backend.loss_floor(lab.prediction().ask)\n"
        "from companion import cli\n"
        f"sys.exit(cli.main(['lab', 'new', {lab.name + '2'!r}, '--backend', 'training']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("companion: a laboratory that trains needs torch: pip install")


def test_simulated_laboratories_stay_what_they_were() -> None:
    """The ledger of every one that was made before begins with this hash."""
    assert Rules().fingerprint() == "5bef3d14d8eea9655fb47cb9c8294de4ebbed268b21adf852d9b664e31293f30"
