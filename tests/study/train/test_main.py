"""`python -m companion.study.train`."""

import json
from pathlib import Path
from typing import Any

import pytest
from study_runs import Counting, tiny_recipe

from companion.study.train.__main__ import main, read_recipe


@pytest.fixture(autouse=True)
def _corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.study.corpus.open_corpus", lambda name: Counting(), raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def given(folder: Path, **values: Any) -> list[str]:
    """Arguments that train a recipe in a folder."""
    path = folder / "recipe.json"
    path.write_text(json.dumps(tiny_recipe(**values).to_dict()))
    return [str(path), "--folder", str(folder / "runs"), "--device", "cpu", "--quiet"]


def test_a_run_and_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = given(tmp_path)
    assert main(arguments) == 0
    line = capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["run_id"] == tiny_recipe().run_id == read_recipe(tmp_path / "recipe.json").run_id
    assert f"held-out loss {record['val_loss']:.4f} ± {record['val_loss_stderr']:.4f} nats per token" in line


def test_stopped_and_diverged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*given(tmp_path), "--stop-after", "5"]) == 1
    assert capsys.readouterr().out == f"{tiny_recipe().run_id} stopped after step 5\n"
    assert main([*given(tmp_path, learning_rate=1e38, warmup_steps=0), "--micro-batch", "4"]) == 1
    assert "diverged after step" in capsys.readouterr().out


@pytest.mark.parametrize("world_size", ["2", "two"])
def test_processes_that_cannot_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world_size: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.delenv("RANK", raising=False)
    assert main(given(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: WORLD_SIZE is {world_size}, and the processes cannot join")
    assert error.count("\n") == 1


WRONG: list[tuple[bytes | None, str]] = [
    (None, "no such file"),
    (b"\x80", "byte 0 is not UTF-8"),
    (b"{", "is not JSON"),
    (b"[]", "list is not an object"),
    (b"{}", "field 'architecture' is missing"),
    (b'{"train_step": 3}', "field 'train_step' is not known"),
    (b" " * (2**20 + 1), "the file is too large"),
]


@pytest.mark.parametrize(("content", "words"), WRONG)
def test_wrong_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, words: str) -> None:
    path = tmp_path / "wrong.json"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), "--folder", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ")
    assert words in error
    assert error.count("\n") == 1


def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*given(tmp_path), "--micro-batch", "0"]) == 2
    assert "micro_batch: 0 does not divide" in capsys.readouterr().err
    assert main([*given(tmp_path), "--launch", "graph"]) == 2
    assert "needs a CUDA GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path)])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert "torchrun --nproc-per-node 4 -m companion.study.train" in text
    assert "Exit status: 0 finished, 1 diverged or stopped, 2 wrong input" in text
