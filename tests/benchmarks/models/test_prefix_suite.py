"""The suite of copied prefixes on a CPU: what it records, and that it refuses to time a copy that shares memory."""

import argparse
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from companion.benchmarks.models import gate, prefix, prefix_copies  # noqa: E402
from companion.benchmarks.records import read_records  # noqa: E402
from companion.cli import main  # noqa: E402
from companion.errors import InputError  # noqa: E402
from companion.inference.prefix import kept_by  # noqa: E402
from companion.models import LanguageModel, Memory  # noqa: E402


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    prefix.add_prefix_options(parser)
    return parser.parse_args(["--device", "cpu", "--sizes", "tiny", "--models", "hybrid", *words])


def results(path: Path) -> list[dict[str, Any]]:
    return [result for record in read_records(path) for result in record["results"]]


def test_copies_are_checked_timed_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prefix.jsonl"
    assert prefix.run(options("--out", str(out))) == 0
    found = results(out)
    checks = [each for each in found if each["part"] == "check"]
    assert {each["verdict"] for each in checks} == {"pass"}
    assert len(checks) == 3
    copies = [each for each in found if each["part"] == "prefix"]
    assert [each["prompt_tokens"] for each in copies] == [1024, 4096]
    assert read_records(out)[0]["benchmark"] == "model_prefix"
    from companion.benchmarks.models.models import architecture_of

    kept = kept_by(architecture_of("hybrid", "tiny"))
    assert [each["kept_bytes"] for each in copies] == [kept.entry_bytes(n + prefix_copies.SPARE) for n in (1024, 4096)]
    assert all(each["bytes"] == 2 * each["kept_bytes"] for each in copies), "read and written"

    before = out.read_text()
    assert prefix.run(options("--out", str(out), "--resume")) == 0
    assert out.read_text() == before


def test_a_copy_that_shares_memory_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "copy", lambda self: self)
    out = tmp_path / "prefix.jsonl"
    monkeypatch.setattr(
        "companion.models.memory.Memory.check", lambda *arguments: None
    )  # it is too full by now, which is not what this test is about
    assert prefix.run(options("--out", str(out))) == 1
    found = results(out)
    assert "fail" in {each["verdict"] for each in found}
    assert {each["part"] for each in found} == {"check"}


def test_plain_torch_that_loses_everything_excuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unrelated(model: LanguageModel, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        exact, plain = torch.randn(2, len(tokens), 1 + gate.STEPS, model.architecture.vocab_size)
        return exact, plain

    monkeypatch.setattr(prefix_copies, "references", unrelated)
    out = tmp_path / "prefix.jsonl"
    assert prefix.run(options("--out", str(out))) == 1
    assert {each["verdict"] for each in results(out)} == {"fail"}


def test_list_and_bad_options(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    prefix.add_prefix_options(parser)
    assert prefix.run(parser.parse_args(["--list"])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8, "four models of two sizes"
    assert lines[-1] == "hybrid 7b: copies of 1024, 4096, 16384, 65536 tokens, eager and graph"
    assert main(["bench", "prefix", "--sizes", "7b", "--models", "xlstm", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "xlstm 7b: copies of 1024, 4096, 16384, 65536 tokens, eager and graph"
    ]
    with pytest.raises(InputError, match="--prefixes"):
        prefix.run(options("--prefixes", "77"))
