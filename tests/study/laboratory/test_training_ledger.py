"""The ledger of a laboratory that trains: ends between two writes, signals, damaged records, forged entries."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from training_laboratory import TINY, records_in, tiny_laboratory, tiny_prediction, tiny_rules

from companion.errors import InputError
from companion.study.laboratory import Laboratory, Outcome, open_laboratory
from companion.study.laboratory.chain import Entry, next_entry
from companion.study.laboratory.journal import FolderJournal
from companion.study.train import trainer

#: What the ledger must say of one run that was trained, however it came there.
ONE_RUN = ["open", "begin", "ask"]


@pytest.fixture
def lab(tmp_path: Path) -> Laboratory:
    return tiny_laboratory(tmp_path / "lab")


def kinds(lab: Laboratory) -> list[str]:
    return [entry.kind for entry in lab.journal.read()[0]]


@dataclass(frozen=True)
class Ending(FolderJournal):
    """The journal of a process that ends where it would write an entry of a kind."""

    kind: str = "ask"

    def append(self, new: Sequence[Entry], entries: Sequence[Entry]) -> None:
        """Write it, or end."""
        if new[0].kind == self.kind:
            raise KeyboardInterrupt
        super().append(new, entries)


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of steps that are made from now on, a number for each look at the losses."""
    made: list[int] = []
    block = trainer._Run._block

    def counted(run: Any, *arguments: Any) -> None:
        before = run.progress.step
        block(run, *arguments)
        made.append(run.progress.step - before)

    monkeypatch.setattr(trainer._Run, "_block", counted)
    return made


@pytest.mark.parametrize("kind", ["begin", "ask"])
def test_an_end_between_two_writes_charges_once(
    lab: Laboratory, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before `begin` nothing has happened; before `ask` the record is there, and no step is made again."""
    cost = lab.cost(TINY).train_flops
    with pytest.raises(KeyboardInterrupt):
        replace(lab, journal=Ending(Path(lab.name), kind)).ask([TINY])
    state = lab.state()
    assert not state.answers
    assert state.spent == (0 if kind == "begin" else cost)
    assert [ask.num_params for ask in state.unfinished] == ([] if kind == "begin" else [50_694])
    steps = count_steps(monkeypatch)
    [answer] = lab.ask([TINY])
    assert sum(steps) == (20 if kind == "begin" else 0)
    assert kinds(lab) == ONE_RUN
    assert lab.state().spent == cost
    assert not lab.state().unfinished
    assert answer.outcome.val_loss == tiny_laboratory(tmp_path / "other").ask([TINY])[0].outcome.val_loss


def test_a_run_that_is_stopped_goes_on_and_is_charged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget pays for it once."""
    lab = tiny_laboratory(tmp_path / "lab", tiny_rules(budget=1e9))
    cost = lab.cost(TINY).train_flops
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            lab.ask([TINY])
    assert kinds(lab) == ["open", "begin"]
    assert list((Path(lab.name) / "training").glob("*.pt"))
    assert lab.state().spent == cost
    with pytest.raises(InputError, match="nothing was run"):  # what was set aside cannot be spent on another run
        lab.ask([replace(TINY, seed=1)])
    steps = count_steps(monkeypatch)
    [answer] = open_laboratory(Path(lab.name)).ask([TINY])
    assert sum(steps) == 13
    assert kinds(lab) == ONE_RUN
    assert lab.state().spent == cost
    assert answer.outcome.val_loss == tiny_laboratory(tmp_path / "other").ask([TINY])[0].outcome.val_loss


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let training stop with a checkpoint after some steps, as a signal makes it."""
    whole = trainer.train

    def stopped(*arguments: Any, **options: Any) -> dict[str, Any]:
        whole(*arguments, **options, stop_after=steps)
        raise KeyboardInterrupt

    patch.setattr("companion.study.train.trainer.train", stopped)


def test_a_prediction_may_leave_a_run_unfinished(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            lab.ask([TINY])
    lab.predict(tiny_prediction(lab.rules))
    with pytest.raises(InputError, match="no more runs can be asked for"):
        lab.ask([TINY])
    assert lab.state().spent == lab.cost(TINY).train_flops
    assert lab.reveal().val_loss


def test_a_run_that_cannot_be_made_costs_nothing(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: Any, **options: Any) -> None:
        raise InputError("the memory of the device is too small")

    with monkeypatch.context() as patch:
        patch.setattr("companion.study.train.trainer.train", too_large)
        with pytest.raises(InputError, match="memory of the device"):
            lab.ask([TINY])
    assert kinds(lab) == ["open", "begin", "drop"]
    assert lab.state().spent == 0
    assert lab.ask([TINY])[0].outcome.val_loss
    assert kinds(lab) == ["open", "begin", "drop", "begin", "ask"]
    assert lab.state().spent == lab.cost(TINY).train_flops


ASKING = """
import sys
from pathlib import Path
from companion import cli
sys.exit(cli.main(["lab", "ask", sys.argv[1], "--architecture", "xlstm", "--num-params", "6e4", "--num-tokens",
                   sys.argv[2], "--learning-rate", "1e-2", "--batch", "8"]))
"""


def asking(lab: Laboratory, num_tokens: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASKING, lab.name, str(num_tokens)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_is_charged_once(tmp_path: Path, how: signal.Signals) -> None:
    """A run of some seconds is killed while it is trained; then a shorter one is asked for, and it."""
    lab = tiny_laboratory(tmp_path / "lab", tiny_rules(budget=5e10))
    tokens = 128 * 600
    process = asking(lab, tokens)
    runs = Path(lab.name) / "training"
    wait_until(lambda: any(runs.glob("*.lock")) or process.poll() is not None)
    time.sleep(0.3)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 130), errors
    assert kinds(lab) == ["open", "begin"]
    long = replace(TINY, num_tokens=tokens)
    assert lab.state().spent == lab.cost(long).train_flops
    assert bool(list(runs.glob("*.pt"))) == (how == signal.SIGINT)
    answers = lab.ask([TINY, long])
    assert not any(answer.repeated for answer in answers)
    assert kinds(lab) == ["open", "begin", "begin", "ask", "ask"]
    assert lab.state().spent == pytest.approx(sum(lab.cost(answer.ask).train_flops for answer in answers))
    assert lab.ask([long])[0].repeated


def test_two_processes_train_one_run_once(tmp_path: Path) -> None:
    lab = tiny_laboratory(tmp_path / "lab", tiny_rules(budget=5e10))
    processes = [asking(lab, 128 * 60) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert kinds(lab) == ONE_RUN
    assert len(records_in(lab)) == 1
    loss = f"{lab.state().answers[0].outcome.val_loss:.4f}"
    assert all(loss in text for text in printed)


def damage(path: Path, how: str) -> None:
    record = json.loads(path.read_text())
    match how:
        case "cut":
            path.write_text(path.read_text()[:-200])
        case "edited":
            path.write_text(json.dumps(record | {"val_loss": 0.5}))
        case "impossible":
            from companion.study.train.records import write_record

            write_record(path.parent, record | {"val_loss": "low"})


@pytest.mark.parametrize("how", ["cut", "edited", "impossible"])
def test_a_damaged_record_is_trained_again_and_charged_once(lab: Laboratory, how: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        replace(lab, journal=Ending(Path(lab.name), "ask")).ask([TINY])
    [name] = records_in(lab)
    damage(Path(lab.name) / "training" / name, how)
    with pytest.warns(UserWarning, match=f"kept as {name}.damaged; trained again"):
        [answer] = lab.ask([TINY])
    assert kinds(lab) == ONE_RUN
    assert lab.state().spent == lab.cost(TINY).train_flops
    assert answer.outcome.val_loss == tiny_laboratory(tmp_path / "other").ask([TINY])[0].outcome.val_loss
    damage(Path(lab.name) / "training" / name, how)
    assert lab.ask([TINY])[0].outcome == answer.outcome  # the ledger has it


def append(lab: Laboratory, *new: tuple[str, Mapping[str, Any]]) -> None:
    for kind, body in new:
        entries, _ = lab.journal.read()
        lab.journal.append([next_entry(entries, kind, body)], entries)


def forged(lab: Laboratory, **changes: Any) -> dict[str, Any]:
    """An ask with an outcome that could be."""
    ask = TINY.checked(lab.rules)
    flops = lab.cost(ask).train_flops
    outcome = Outcome(val_loss=2.6, train_flops=flops, gpu_hours=1.0).as_dict()
    return {"ask": ask.as_dict(), "outcome": outcome | changes}


def test_an_entry_that_could_be_is_taken(lab: Laboratory) -> None:
    """The others below fail by what they change: whoever forges hashes and a loss is not found."""
    append(lab, ("begin", {"ask": forged(lab)["ask"]}), ("ask", forged(lab)))
    assert lab.state().answers[0].outcome.val_loss == 2.6


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("ask", {})], "line 2: an entry 'ask' cannot follow"),
        ([("drop", {})], "line 2: an entry 'drop' cannot follow"),
        ([("begin", {}), ("begin", {})], "line 3: an entry 'begin' cannot follow"),
        ([("begin", {}), ("ask", {}), ("begin", {})], "line 4: an entry 'begin' cannot follow"),
        ([("begin", {}), ("ask", {"train_flops": 1e6})], "line 3: train_flops is not that of the steps"),
        ([("begin", {}), ("ask", {"share_done": 0.5})], "line 3: train_flops is not that of the steps"),
        ([("begin", {}), ("ask", {"val_loss": "low"})], "line 3: val_loss is not a positive number"),
        ([("begin", {"num_params": 60_000})], "line 2: the run is not one that the rules allow"),
        ([("begin", {"num_tokens": 128 * 10**5})], "line 2: the runs up to here cost more than the budget"),
        ([("begin", {"seed": -1})], "line 2: the run is not one that the rules allow"),
        ([("begin", {}), ("predict", {"commitment": "0"}), ("ask", {})], "line 4: an entry 'ask' cannot follow"),
    ],
)
def test_forged_entries(lab: Laboratory, entries: list[tuple[str, dict[str, Any]]], message: str) -> None:
    for kind, changes in entries:
        whole = forged(lab, **(changes if kind == "ask" else {}))
        body = {
            "ask": whole,
            "begin": {"ask": whole["ask"] | changes},
            "drop": {"ask": whole["ask"], "reason": "none"},
            "predict": changes,
        }[kind]
        append(lab, (kind, body))
    with pytest.raises(InputError, match=message):
        lab.state()


def test_hours_above_what_was_set_aside_are_found(tmp_path: Path) -> None:
    lab = tiny_laboratory(tmp_path / "lab", replace(tiny_rules(), unit="gpu_hours", budget=1.0))
    hours = lab.cost(TINY).gpu_hours
    append(lab, ("begin", {"ask": forged(lab)["ask"]}), ("ask", forged(lab, gpu_hours=2 * hours)))
    with pytest.raises(InputError, match="line 3: the run costs more than was set aside"):
        lab.state()


def test_an_edited_ledger_is_found(lab: Laboratory) -> None:
    lab.ask([TINY])
    path = Path(lab.name) / "ledger.jsonl"
    good = path.read_text()
    path.write_text(good.replace('"val_loss":2', '"val_loss":1'))
    with pytest.raises(InputError, match="line 3 was changed after it was written"):
        lab.state()
    path.write_text("".join(good.splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="line 3 is missing"):
        lab.ask([TINY])


def test_who_waits_is_told_so(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.study.laboratory.chain._PATIENCE", 0.1)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom companion.study.laboratory.journal import FolderJournal\n"
        f"with FolderJournal(Path({lab.name!r})).locked():\n"
        "    print('locked', flush=True)\n    time.sleep(1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.warns(UserWarning, match="another process is at work in this laboratory; waiting"):
            lab.ask([TINY])
    assert kinds(lab) == ONE_RUN
    assert os.path.exists(Path(lab.name) / "training")
