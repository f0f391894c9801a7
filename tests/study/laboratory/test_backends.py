"""Other backends than the simulator; runs that are interrupted, and several processes at once."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_laboratory import SMALL, target

from companion.errors import InputError
from companion.study.laboratory import (
    Ask,
    Laboratory,
    Outcome,
    Rules,
    new_laboratory,
    open_laboratory,
)
from companion.study.laboratory.backend import Cost


class Constant:
    """A backend that needs two methods; it stops once at a run, as a machine does."""

    def __init__(self, stop_at: int = -1) -> None:
        self.made, self.stop_at = 0, stop_at

    def cost(self, ask: Ask) -> Cost:
        return Cost(train_flops=ask.train_flops, gpu_hours=1.0)

    def run(self, ask: Ask) -> Outcome:
        self.made += 1
        if self.made == self.stop_at:
            raise KeyboardInterrupt
        return Outcome(val_loss=3.0 + ask.seed, train_flops=ask.train_flops, gpu_hours=1.0)


class Judging(Constant):
    """A backend that runs the target and does not know the best run."""

    def final(self, ask: Ask) -> Outcome:
        return Outcome(val_loss=2.7, train_flops=ask.train_flops, gpu_hours=1.0)

    def regret(self, ask: Ask, outcome: Outcome, target_flops: float) -> None:
        return None


def test_another_backend(tmp_path: Path) -> None:
    rules = Rules(backend="constant")
    lab = new_laboratory(tmp_path / "lab", rules, backend=Constant())
    assert not (tmp_path / "lab" / "sealed.json").exists()
    assert lab.ask([SMALL])[0].outcome.val_loss == 3.0
    lab.predict(target())
    with pytest.raises(InputError, match="the target is not run here"):
        lab.reveal()
    judged = open_laboratory(tmp_path / "lab", Judging())
    judged.reveal()
    assert judged.score().total == pytest.approx(100 * (50 * (1 - math.log(2.8 / 2.6) / 0.15) + 10) / 60)
    for backend, folder in ((None, tmp_path / "lab"), (Constant(), new_folder(tmp_path))):
        with pytest.raises(InputError, match="not made by what was to answer"):
            open_laboratory(folder, backend)


def new_folder(tmp_path: Path) -> Path:
    return Path(new_laboratory(tmp_path / "simulated", Rules()).name)


def test_what_was_run_before_an_interruption_is_kept(tmp_path: Path) -> None:
    lab = new_laboratory(tmp_path / "lab", Rules(backend="constant"), backend=Constant(stop_at=3))
    asks = [replace(SMALL, seed=seed) for seed in range(5)]
    with pytest.raises(KeyboardInterrupt):
        lab.ask(asks)
    assert [answer.ask.seed for answer in lab.state().answers] == [0, 1]
    answers = lab.ask(asks)
    assert [answer.repeated for answer in answers] == [True, True, False, False, False]
    assert [answer.outcome.val_loss for answer in answers] == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert lab.state().spent == pytest.approx(5 * SMALL.checked(lab.rules).train_flops)


ASKING = """
import sys
from dataclasses import replace
from pathlib import Path
from companion.errors import InputError
from companion.study.laboratory import Ask, open_laboratory
lab = open_laboratory(Path(sys.argv[1]))
ask = Ask(architecture="xlstm", num_params=10**8, num_tokens=2*10**9, learning_rate=1e-3, batch_size_seqs=64)
done = 0
print("ready", flush=True)
sys.stdin.readline()
for seed in range(6):
    try:
        lab.ask([replace(ask, seed=100 * int(sys.argv[2]) + seed)])
        done += 1
    except InputError as error:
        assert "left; nothing was run" in str(error), error
print(done)
"""


def test_processes_that_ask_at_once_never_overspend(lab: Laboratory) -> None:
    """Eight runs of 1.2e18 fit into 1e19; three processes want six each."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASKING, lab.name, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    done = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(done) == 8
    state = lab.state()
    assert len(state.answers) == 8
    assert state.spent <= lab.rules.budget
