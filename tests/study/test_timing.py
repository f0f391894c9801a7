"""Times of a study on a CPU: what is measured, and that wrong results are not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from companion.benchmarks.records import read_records
from companion.study import timing
from companion.study.corpus import Source

SMALL = ["--device", "cpu", "--no-progress", "--vocab-size", "16", "--context-length", "8", "--tokens-per-step", "16"]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 2, "REPEATS": 2, "DOCUMENTS": (1, 4)}.items():
        monkeypatch.setattr(timing, name, value)


def test_a_record_of_all_parts(tmp_path: Path) -> None:
    out = tmp_path / "study.jsonl"
    options = ["--architectures", "transformer", "xlstm", "--sizes", "0.1m", "--out", str(out)]
    assert timing.main([*SMALL, *options]) == 0
    (record,) = read_records(out)
    assert record["parameters"]["device"] == "cpu"
    assert record["command"].endswith(f"--out {out}")
    draws = [each for each in record["results"] if each["part"] == "draw"]
    assert [each["documents"] for each in draws] == [1, 4]
    assert all(each["tokens_per_s"] * each["seconds"] == pytest.approx(8 * each["documents"]) for each in draws)
    steps = [each for each in record["results"] if each["part"] == "step"]
    cells = [(each["architecture"], each["deterministic"], each["launch"]) for each in steps]
    assert cells == [("transformer", True, "eager"), ("xlstm", True, "eager"), ("transformer", False, "eager")]
    assert all(each["seconds_first"] > each["seconds_per_step"] > 0 for each in steps)


def test_tokens_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(self: Source, first: int, number: int, length: int, device: Any = None) -> torch.Tensor:
        return torch.full((number, length + 1), 0 if device is None else 1)

    monkeypatch.setattr(Source, "sequences", wrong)
    assert timing.main([*SMALL, "--sizes", "0.1m", "--out", "-"]) == 1
    assert "tokens on cpu differ from those on the CPU" in capsys.readouterr().err


def test_losses_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(timing, "TOLERANCE", -1.0)
    assert timing.main([*SMALL, "--sizes", "0.1m", "--out", "-"]) == 1
    assert "first loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tokens-per-step", "20"], "no whole number of sequences"),
        (["--vocab-size", "17"], "vocab_size"),
        (["--context-length", "0", "--tokens-per-step", "1"], "context_length"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    assert timing.main([*SMALL, "--sizes", "0.1m", "--out", "-", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert timing.main([]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


def test_a_record_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert timing.main([*SMALL, "--architectures", "hybrid", "--sizes", "0.3m", "--out", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmark"] == timing.NAME
