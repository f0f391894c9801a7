"""Runs from the first step to the record: resumed, ended by signals, damaged, refused."""

import asyncio
import math
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from study_runs import Counting, tiny, tiny_recipe
from torch import Tensor

from companion.errors import InputError
from companion.study.train import RunInProgress, read_record, record_path, train
from companion.study.train import trainer as module
from companion.study.train.checkpoint import checkpoint_path, read_checkpoint
from companion.study.train.interrupts import _active, stop_runs
from companion.study.train.recipe import Recipe
from companion.study.train.records import DamagedRecord
from companion.study.train.step import TrainingStep

KINDS = ("transformer", "xlstm", "hybrid")
#: What a run that was resumed has the same of as one that was not.
SAME = ("status", "step", "val_loss", "val_loss_stderr", "train_loss", "curve", "evaluations", "num_tokens", "run_id")


def run(recipe: Recipe, folder: Path, **options: Any) -> dict[str, Any]:
    return train(recipe, folder, **{"corpus": Counting(), "device": "cpu", "progress": False, **options})


def same(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in SAME}


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_is_as_uninterrupted(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(kind)
    whole = run(recipe, tmp_path / "whole")
    assert whole["val_loss"] < whole["evaluations"][0]["val_loss"] < math.log(64)
    monkeypatch.setattr(module, "BLOCK_STEPS", 5)
    for stop_after in (1, 10, 0):
        stopped = run(recipe, tmp_path / "parts", stop_after=stop_after)
        assert stopped["status"] == "stopped"
    assert stopped["step"] == 11
    resumed = run(recipe, tmp_path / "parts")
    assert same(resumed) == same(whole)
    assert [each.name for each in (tmp_path / "parts").iterdir()] == [f"{recipe.run_id}.json"]


def test_losses_are_those_of_steps_made_by_hand(tmp_path: Path) -> None:
    recipe = tiny_recipe(train_steps=6, warmup_steps=2)
    record = run(recipe, tmp_path)
    step, losses, norms = TrainingStep(recipe, torch.device("cpu")), [], []
    for number in range(6):
        step.tokens.copy_(Counting().sequences(8 * number, 8, 32))
        step.rate.fill_(recipe.learning_rate_at(number))
        step.make()
        losses.append(step.outcome[0].item())
        norms.append(step.outcome[1].item())
    assert record["curve"]["loss"] == pytest.approx(losses, rel=1e-6)
    assert record["curve"]["grad_norm"] == pytest.approx(norms, rel=1e-6)
    assert record["val_loss"] == pytest.approx(step.sequence_losses(Counting().held_out(8, 32)).mean().item(), rel=1e-6)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run(tiny_recipe(), tmp_path)
    corpus = Counting()
    assert run(tiny_recipe(), tmp_path, corpus=corpus) == first == read_record(record_path(tmp_path, first["run_id"]))
    assert not corpus.asked


def test_a_damaged_record_is_not_overwritten(tmp_path: Path) -> None:
    path = record_path(tmp_path, tiny_recipe().run_id)
    path.write_text("{")
    with pytest.raises(DamagedRecord, match="is not JSON"):
        run(tiny_recipe(), tmp_path)
    assert path.read_text() == "{"


def test_every_sequence_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_TOKENS", 3 * 8 * 32)
    corpus = Counting()
    run(tiny_recipe(), tmp_path, corpus=corpus)
    assert max(number for _, number in corpus.asked) == 3 * 8
    numbers = [n for first, number in corpus.asked for n in range(first, first + number)]
    assert numbers == list(range(24 * 8))


class Ending(Counting):
    """Sends this process a signal when sequences are asked for."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._signal = number

    def sequences(self, first: int, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
        os.kill(os.getpid(), self._signal)
        return super().sequences(first, number, context_length, device)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_signals_leave_a_checkpoint(tmp_path: Path, number: int, error: type[BaseException]) -> None:
    recipe, before = tiny_recipe(), signal.getsignal(number)
    with pytest.raises(error) as caught:
        run(recipe, tmp_path / "ended", corpus=Ending(number))
    assert signal.getsignal(number) is before
    if error is SystemExit:
        assert caught.value.code == 143  # type: ignore[attr-defined]
    assert checkpoint_path(tmp_path / "ended", recipe.run_id).exists()
    assert same(run(recipe, tmp_path / "ended")) == same(run(recipe, tmp_path / "whole"))


def test_another_thread_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    """As where Dask trains: no signal arrives in its threads."""
    recipe, other = tiny_recipe(), tiny_recipe(seed=1)
    began = threading.Event()

    class Waiting(Counting):
        def sequences(self, first: int, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
            began.set()
            last = time.monotonic() + 30  # no thread waits for ever where nobody asks
            while not _active[recipe.run_id].asked and time.monotonic() < last:
                time.sleep(0.01)
            return super().sequences(first, number, context_length, device)

    with ThreadPoolExecutor(2) as pool:

        def stop(*recipes: Recipe) -> list[str]:
            """In a thread: that of the tests may have an event loop of a browser."""
            return pool.submit(asyncio.run, stop_runs([each.run_id for each in recipes], 60)).result()

        ended = pool.submit(run, recipe, tmp_path / "ended", corpus=Waiting())
        assert began.wait(60)
        assert stop(other) == [], "it is not trained here"
        assert not ended.done()
        assert stop(recipe, other) == []
        assert ended.result()["status"] == "stopped"
        assert stop(recipe) == []
    assert checkpoint_path(tmp_path / "ended", recipe.run_id).exists()
    assert same(run(recipe, tmp_path / "ended")) == same(run(recipe, tmp_path / "whole"))


def test_checkpoints_are_kept_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed leaves what it wrote: here an error in the middle of the run."""
    recipe, path = tiny_recipe(), checkpoint_path(tmp_path, tiny_recipe().run_id)

    class Failing(Counting):
        def sequences(self, first: int, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
            if first >= 80:
                raise InputError("the file is gone")
            return super().sequences(first, number, context_length, device)

    monkeypatch.setattr(module, "BLOCK_STEPS", 4)
    with pytest.raises(InputError, match="the file is gone"):
        run(recipe, tmp_path, corpus=Failing(), checkpoint_seconds=0.0)
    assert path.exists()
    corpus = Counting()
    assert same(run(recipe, tmp_path, corpus=corpus)) == same(run(recipe, tmp_path / "whole"))
    assert corpus.asked[0][0] >= 72  # it did not begin again
    assert not path.exists()


def test_a_damaged_checkpoint_is_named_and_the_run_begins_again(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    run(recipe, tmp_path, stop_after=9)
    path = checkpoint_path(tmp_path, recipe.run_id)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=f"{path.name}: is cut short .*; the run begins again"):
        record = run(recipe, tmp_path)
    assert same(record) == same(run(recipe, tmp_path / "whole"))


def test_two_processes_never_train_one_run(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    with filelock.FileLock(tmp_path / f"{recipe.run_id}.lock"), pytest.raises(RunInProgress, match=recipe.run_id):
        run(recipe, tmp_path)
    run(tiny_recipe(seed=1), tmp_path)  # another run is free
    assert run(recipe, tmp_path)["status"] == "finished"


def test_a_run_with_useless_losses_is_given_up(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        learning_rate=3.0, weight_decay=0.0, betas=(0.0, 0.5), train_steps=200, final_share=1.0, warmup_steps=3
    )
    record = run(recipe, tmp_path)
    assert (record["status"], record["step"], record["val_loss"]) == ("diverged", 103, None)
    assert record["curve"]["step"][-1] == 103
    assert record["num_tokens"] == 103 * 256
    assert record["train_flops"] == pytest.approx(recipe.train_flops * 103 / 200)
    assert [each["step"] for each in record["evaluations"]] == [66]
    assert record["train_loss"] == record["curve"]["loss"][-1] > math.log(64) + 1


@pytest.mark.filterwarnings("ignore")
def test_a_loss_that_is_not_finite_ends_a_run(tmp_path: Path) -> None:
    record = run(tiny_recipe(learning_rate=1e38, warmup_steps=0), tmp_path)
    assert record["status"] == "diverged"
    assert record["curve"]["loss"][-1] is None
    assert math.isfinite(record["train_loss"])
    assert run(tiny_recipe(learning_rate=1e38, warmup_steps=0), tmp_path) == record


def test_weights_that_are_lost_in_the_last_step(tmp_path: Path) -> None:
    record = run(tiny_recipe(learning_rate=3e38, warmup_steps=0, train_steps=1, final_share=1.0), tmp_path)
    assert (record["status"], record["step"], record["val_loss"]) == ("diverged", 1, None)
    assert math.isfinite(record["train_loss"])


def test_too_little_memory(tmp_path: Path) -> None:
    class Large(Counting):
        def held_out(self, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
            return torch.empty(2**50, dtype=torch.long)

    with pytest.raises(InputError, match=r"too small: 9007199254740992 bytes more was asked.*micro_batch to 4 or less"):
        run(tiny_recipe(), tmp_path, corpus=Large())


def test_other_errors_of_torch_stay_what_they_are(tmp_path: Path) -> None:
    class Wrong(Counting):
        def sequences(self, first: int, number: int, context_length: int, device: torch.device | str = "cpu") -> Tensor:
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match=r"^something else$"):
        run(tiny_recipe(), tmp_path, corpus=Wrong())


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"device": "tpu"}, "device: 'tpu' is not one"),
    ({}, {"device": "meta"}, "device: meta is neither cpu nor cuda"),
    ({}, {"launch": "fast"}, "launch: 'fast' is not one of eager, compiled, graph"),
    ({}, {"launch": "graph"}, "launch: a graph needs a CUDA GPU"),
    ({}, {"micro_batch": 3}, "micro_batch: 3 does not divide"),
    ({}, {"checkpoint_seconds": math.nan}, "checkpoint_seconds: nan"),
    (
        {},
        {"corpus": Counting(num_sequences=191)},
        r"reads 6,144 tokens, corpus 'counting' has 6,112 in sequences of 32",
    ),
    ({}, {"corpus": Counting(vocab_size=65)}, "vocab_size: the architecture has 64 rows, corpus .* has 65 tokens"),
    ({"architecture": tiny(vocab_size=192)}, {}, "vocab_size: the architecture has 192 rows"),
    ({"architecture": tiny(vocab_size=191)}, {"stop_after": 0}, ""),
    ({"held_out_sequences": 1001}, {}, "1001 are more than the 1000"),
]


@pytest.mark.parametrize(("values", "options", "words"), REFUSED)
def test_what_does_not_fit_together(
    tmp_path: Path, values: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    if not words:
        assert run(tiny_recipe(**values), tmp_path, **options)["step"] == 0
        return
    with pytest.raises(InputError, match=words):
        run(tiny_recipe(**values), tmp_path, **options)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torch sees no CUDA GPU"):
        run(tiny_recipe(), tmp_path, device="cuda")


def test_tokens_outside_of_the_vocabulary(tmp_path: Path) -> None:
    class Wrong(Counting):
        def _drawn(self, numbers: Tensor, context_length: int) -> Tensor:
            return super()._drawn(numbers, context_length) + 1

    with pytest.raises(InputError, match="tokens: 1 to 64; the vocabulary has 0 to 63"):
        run(tiny_recipe(), tmp_path, corpus=Wrong())


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(InputError, match=r"file.*cannot be written"):
            run(tiny_recipe(), folder)
    with pytest.raises(InputError, match="is not a folder name"):
        run(tiny_recipe(), Path("a\0b"))


def test_the_corpus_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_corpus(name: str) -> Counting:
        opened.append(name)
        return Counting()

    monkeypatch.setattr("companion.study.corpus.open_corpus", open_corpus, raising=False)
    run(tiny_recipe(corpus="counting:1"), tmp_path, corpus=None)
    assert opened == ["counting:1"]


def test_a_bar_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(module, "_BAR_AFTER", 0.0)
    record = run(tiny_recipe(), tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert record["run_id"] in shown
    assert "24/24" in shown
    run(tiny_recipe(seed=1), tmp_path, progress=False)
    assert not capsys.readouterr().err


def test_seconds_add_up_over_sessions(tmp_path: Path) -> None:
    run(tiny_recipe(), tmp_path, stop_after=12)
    kept = read_checkpoint(checkpoint_path(tmp_path, tiny_recipe().run_id), tiny_recipe().run_id)
    assert kept is not None
    record = run(tiny_recipe(), tmp_path)
    assert record["seconds"] > kept["progress"]["seconds"] > 0
    assert record["tokens_per_s"] == pytest.approx(record["num_tokens"] / record["seconds"])
    assert np.isfinite(kept["losses"].numpy()).sum() == 12
