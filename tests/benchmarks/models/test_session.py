"""What is measured, chosen by options; what a file holds already is left out; which code a record belongs to."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'kernels')")

from companion.architectures import Attention, make_architecture
from companion.benchmarks.kernels.identity import PACKAGE
from companion.benchmarks.models import identity, inference, prefix, profiles, training
from companion.benchmarks.models.identity import MEASURED, code_identity
from companion.benchmarks.models.inference import (
    BENCHMARK,
    MODULES,
    add_inference_options,
    cell_of,
    planned,
)
from companion.benchmarks.models.models import MODELS, SIZES, TINY, architecture_of, shapes_of
from companion.benchmarks.models.options import chosen_models
from companion.benchmarks.models.session import Session, summary
from companion.benchmarks.models.timed import LEAST, MOST, timing_of
from companion.benchmarks.records import read_records
from companion.chapters.timed_models import since_then
from companion.errors import InputError


def options_of(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_inference_options(parser)
    return parser.parse_args(["--device", "cpu", *map(str, words)])


@pytest.mark.parametrize("size", [*SIZES, TINY])
def test_models_of_a_size_belong_together(size: str) -> None:
    made = {model: architecture_of(model, size) for model in MODELS}
    assert len({(a.d_model, a.n_layers, a.vocab_size) for a in made.values()}) == 1
    heads = int(made["transformer"].n_heads)
    assert (made["grouped"].n_heads, made["grouped"].n_kv_heads) == (heads, heads // 4)
    [(mixer, number)] = [(mixer, n) for mixer, n in made["hybrid"].layers if isinstance(mixer, Attention)]
    assert (mixer.n_heads, mixer.n_kv_heads) == (heads, heads // 4)
    assert number == int(made["hybrid"].n_layers) // (2 if size == TINY else 8)
    for architecture in made.values():
        assert make_architecture(**shapes_of(architecture)) == architecture


def test_cells_follow_the_options() -> None:
    cells = planned("grouped", "7b", options_of())
    assert len({cell_of(cell) for cell in cells}) == len(cells) == 18 + 18 + 3 * 2 * 2
    assert {cell["part"] for cell in planned("xlstm", "7b", options_of("--part", "step"))} == {"step"}
    few = planned("grouped", "7b", options_of("--prompts", 0, 128, "--batches", 8, "--implementations", "companion"))
    assert [(cell["part"], cell["prompt_tokens"], cell["batch_size"]) for cell in few] == [
        ("prefill", 128, 8),
        ("step", 0, 8),
    ]
    assert len(planned("transformer", "7b", options_of("--quick"))) == 2 * 2 * 2 + 2 * 2
    assert not [cell for cell in planned("xlstm", "7b", options_of()) if cell["implementation"] != "companion"]
    assert chosen_models(options_of("--quick"), SIZES) == [(model, "160m") for model in MODELS]
    assert chosen_models(options_of("--sizes", TINY, "--models", "xlstm"), SIZES) == [("xlstm", TINY)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--models", "rnn"), "--models: 'rnn' is not one of transformer, grouped, xlstm, hybrid"),
        (("--sizes", "3b"), "--sizes: '3b' is not one of 160m, 400m, 1.4b, 7b, tiny"),
        (("--part", "training"), "--part: 'training' is not one of prefill, step"),
        (("--prompts", 100), "--prompts: 100 is not one of 0, 128, 1024"),
        (("--batches", 2), "--batches: 2 is not one of 1, 8, 64"),
        (("--implementations", "vllm"), "--implementations: 'vllm' is not one of companion, transformers"),
        (("--part", "prefill", "--prompts", 0), "leave no cell of transformer 160m"),
    ],
)
def test_wrong_options_are_named(words: tuple[object, ...], message: str) -> None:
    options = options_of(*words)
    with pytest.raises(InputError, match=message):
        [planned(*pair, options) for pair in chosen_models(options, SIZES)]


@pytest.mark.parametrize("words", [("--prompts", -1), ("--batches", 0), ("--max-seconds", "soon")])
def test_numbers_are_checked_by_the_parser(words: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of(*words)
    assert "is not a" in capsys.readouterr().err


def session_of(path: Path, *words: object, modules: tuple[str, ...] = MODULES) -> Session:
    return Session(options_of("--out", path, *words), BENCHMARK, modules, key=cell_of)


def test_what_the_file_holds_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    cells = planned("xlstm", TINY, options_of("--prompts", 0, 128))
    outcomes: list[dict[str, Any]] = [
        {"launch": "graph", "seconds_median": 0.01},
        {"skipped": "needs 210.3 GiB, 138.6 GiB are free"},
        {"skipped": "a repeat takes about 12 s, the limit is 10 s"},
        {"skipped": "failed: RuntimeError: no"},
    ]
    session = session_of(path)
    for cell, outcome in zip(cells, outcomes, strict=False):
        session.add({**cell, **outcome})
    checks = [{"part": "check", "quantity": name, "error": 1.0, "verdict": name} for name in ("pass", "fail")]
    for check in checks:
        session.add(check)
    session.save()
    session.save()  # nothing is left to write
    assert [len(record["results"]) for record in read_records(path)] == [6]
    again = session_of(path, "--resume")
    assert [again.todo(cell) for cell in cells[:5]] == [False, False, True, True, True]
    assert [again.todo(check) for check in checks] == [False, True]
    assert all(session_of(path).todo(cell) for cell in cells)
    assert all(session_of(path, "--resume", modules=("serving",)).todo(cell) for cell in cells)  # another identity
    again.parameters["device"] = "another"
    assert again._done() == set()


def test_time_is_limited_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("companion.benchmarks.models.session.time.monotonic", lambda: now[0])
    session = session_of(tmp_path / "x", "--cell-seconds", 5, "--max-seconds", 5)
    assert session.too_slow(12.4) == "a repeat takes about 12 s, the limit is 5 s"
    assert session.too_slow(4.9) == ""
    assert not session.out_of_time()
    now[0] += 2
    session.total = 3
    session.add({"model": "xlstm", "part": "step", "seconds_median": 0.0123, "share_of_copy_bandwidth": 0.5})
    assert "[1/3, 2 s, about 3 s left] xlstm, step: 12.3 ms, 0.500 of copy" in capsys.readouterr().err
    now[0] += 4
    assert session.out_of_time()
    assert summary({"part": "step", "skipped": "why"}) == "step: left out: why"


def test_shares_are_of_the_peaks(tmp_path: Path) -> None:
    session = session_of(tmp_path / "x")
    assert session.shares(2.0, 8.0, 6.0)["share_of_matmul_peak"] is None
    session.parameters |= {"matmul_flops_per_s": 10.0, "copy_bytes_per_s": 4.0}
    found = session.shares(2.0, 8.0, 6.0)
    assert found == {"flops": 8.0, "bytes": 6.0, "share_of_matmul_peak": 0.4, "share_of_copy_bandwidth": 0.75}


def test_the_identity_is_that_of_the_code(tmp_path: Path) -> None:
    package = tmp_path / "companion"
    for folder in (*MEASURED, "benchmarks/models"):
        shutil.copytree(PACKAGE / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_identity(MODULES, package)
    assert before == code_identity(MODULES)
    gate, tables = (package / "benchmarks" / "models" / f"{name}.py" for name in ("gate", "tables"))
    gate.write_text(gate.read_text() + "\n# a comment\n")
    tables.write_text(tables.read_text() + "\nMORE = 1\n")
    assert code_identity(MODULES, package) == before
    gate.write_text(gate.read_text() + "\nMORE = 2\n")
    assert code_identity(MODULES, package) != before
    with pytest.raises(InputError, match="has no module 'nothing'"):
        code_identity(("nothing",))


def test_repeats_adapt_to_the_action(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    for seconds, repeats in ((2**-12, MOST), (2**-5, 16), (1.0, LEAST), (4.0, 1)):
        calls.clear()
        monkeypatch.setattr(
            "companion.benchmarks.models.timed.time.perf_counter", lambda seconds=seconds: seconds * len(calls)
        )
        found = timing_of(lambda: calls.append(1), "cpu")
        assert len(calls) == found["repeats"] == repeats
        assert found["seconds_low"] == found["seconds_median"] == found["seconds_high"] == float(f"{seconds:.5g}")


@pytest.mark.parametrize("benchmark", identity.SUITES)
def test_records_of_earlier_code(benchmark: str) -> None:
    today = identity.identity_today(benchmark)
    for known, earlier in ((today, False), ("0" * 16, True), (None, False)):
        record = {"benchmark": benchmark, "parameters": {"identity": known} if known else {}}
        assert identity.is_of_earlier_code(record) == earlier
        words = since_then([record])
        assert words == ("; models or kernels have changed since" if earlier else "")


def test_every_suite_has_an_identity() -> None:
    """The names in records are those of the suites."""
    names = {inference.BENCHMARK, training.NAME, profiles.NAME, prefix.BENCHMARK}
    assert set(identity.SUITES) == names
