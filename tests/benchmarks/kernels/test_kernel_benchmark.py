"""The command that checks and times kernels: options, records, resuming, exit status; kernels under the interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from companion.benchmarks.kernels import benchmark, session
from companion.benchmarks.kernels.cases import DTYPES
from companion.benchmarks.kernels.identity import Identity
from companion.benchmarks.records import read_records
from companion.cli.dispatch import main as companion


def options(*arguments: str) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    benchmark.add_options(parser)
    return parser.parse_args(arguments)


def interpret(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "companion.benchmarks.kernels", *arguments, "--device", "cpu"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_interpreter_finds_our_kernels_right_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    out = tmp_path / "checks.jsonl"
    arguments = ("--part", "checks", "step-checks", "configurations", "--cases", "tiny", "step_tiny", "--out", str(out))
    first = interpret(*arguments, "--processes", "2")
    assert first.returncode == 0, first.stderr
    records = read_records(out)
    assert {record["benchmark"] for record in records} == {"kernel_checks"}
    results = [result for record in records for result in record["results"]]
    assert {x["part"] for x in results} == {"checks", "step-checks", "configurations"}
    ours = [x for x in results if x["implementation"].startswith("companion") and x["verdict"] != "skipped"]
    assert {x["verdict"] for x in ours} == {"pass"}
    assert {x["case"] for x in ours} == {"tiny", "tiny_state", "step_tiny"}
    assert all(x["deterministic"] for x in ours if x["part"] == "checks")
    assert all(x["configurations"] >= 1 for x in ours if x["part"] == "configurations")
    assert records[0]["parameters"]["interpreter"]
    assert "triton" in records[0]["versions"]
    assert records[0]["command"].startswith("python -m companion.benchmarks.kernels --part checks")
    again = interpret(*arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert len(read_records(out)) == len(records)


def test_bad_options(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for arguments, said in (
        (["--cases", "T7"], "case 'T7' is not known (see --list)"),
        (["--implementations", "mine"], "implementation 'mine' is not known"),
        (["--part", "step", "--processes", "2"], "several processes would disturb each other's timings"),
        (["--part", "step", "--device", "cpu"], "--device cpu: only checks run there"),
        (["--part", "checks", "--device", "cpu"], "set TRITON_INTERPRET=1"),
        (["--part", "chekcs"], "invalid choice: 'chekcs'"),
        (["--repeats", "0"], "0 is not a positive whole number"),
        (["--shard", "3/3"], "'3/3' is not I/N with I below N"),
    ):
        assert companion(["bench", "kernels", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["--quick"]) == 2
    assert "needs a CUDA GPU" in capsys.readouterr().err


def test_without_torch_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert benchmark.main(["--quick"]) == 2
    assert "needs torch (extra 'kernels')" in capsys.readouterr().err


def test_the_list_names_absent_peers(capsys: pytest.CaptureFixture[str]) -> None:
    assert companion(["bench", "kernels", "--list"]) == 0
    listed = capsys.readouterr().out
    assert "simple_gla, chunk 64 (absent: fla is not installed)" in listed
    assert "8x256x512" in listed
    assert "length_4096" in listed
    assert "attention, cuDNN\n" in listed


def test_the_command_line_that_repeats_a_run() -> None:
    chosen = options("--part", "checks", "--implementations", "companion, sigmoid", "--shard", "1/4", "--repeats", "5")
    line = session.command(chosen)
    assert line.endswith("--part checks --implementations 'companion, sigmoid' --repeats 5")
    assert "shard" not in line


def test_shards_share_every_cell_once() -> None:
    whole = benchmark.check_cases("checks", options())
    cells = {(case.name, dtype) for case in whole for dtype in case.dtypes}
    shared = [
        (case.name, dtype)
        for index in range(5)
        for case in benchmark.check_cases("checks", options("--shard", f"{index}/5"))
        for dtype in case.dtypes
    ]
    assert len(shared) == len(set(shared))
    assert set(shared) == cells


def test_parts_of_the_checks() -> None:
    assert [case.name for case in benchmark.check_cases("long", options())] == ["length_65536"]
    assert all(case.configurations for case in benchmark.check_cases("configurations", options()))
    quick = benchmark.check_cases("checks", options("--quick"))
    assert {dtype for case in quick for dtype in case.dtypes} == {"bfloat16"}
    assert {len(case.chunk_sizes) for case in quick} == {1}
    named = benchmark.check_cases("checks", options("--cases", "packed", "T8192", "--dtypes", "float32"))
    assert {(case.name, case.dtypes) for case in named} == {("packed", ("float32",)), ("packed_state", ("float32",))}
    assert benchmark.check_cases("checks", options("--cases", "T8192")) == ()
    everything = benchmark.check_cases("checks", options())
    assert {dtype for case in everything for dtype in case.dtypes} == set(DTYPES)


def record_of(results: list[dict[str, Any]], run: session.Session) -> None:
    run.record(session.CHECKS, results)


def test_records_resume_only_what_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "records.jsonl"
    run = session.Session(options("--out", str(out)), {"gpu": "A"})
    fields = {"case": "x", "dtype": "bfloat16", "implementation": "companion", "upstream": "general"}
    fields["configuration"] = "default"
    record_of([{"part": "checks", **fields, "verdict": "fail", "reason": "h has 2 times"}], run)
    assert run.num_failed == 1
    resumed = session.Session(options("--out", str(out), "--resume"), {"gpu": "A"})
    assert not resumed.todo("checks")(fields)
    assert resumed.todo("configurations")(fields)
    assert resumed.todo("checks")({**fields, "dtype": "float32"})
    assert session.Session(options("--out", str(out), "--resume"), {"gpu": "B"}).todo("checks")(fields)
    assert session.Session(options("--out", str(out)), {"gpu": "A"}).todo("checks")(fields)
    monkeypatch.setattr(session, "identity_today", lambda: Identity("mlstm", "other", "harness"))
    assert session.Session(options("--out", str(out), "--resume"), {"gpu": "A"}).todo("checks")(fields)


def test_wanted_implementations() -> None:
    def wanted(*names: str) -> Any:
        return session.Session(options("--implementations", *names), {}).todo("forward")

    assert wanted("companion")({"implementation": "companion, chunk 64"})
    assert not wanted("companion, chunk 16")({"implementation": "companion, chunk 64"})
    assert wanted("fla")({"implementation": "simple_gla, chunk 64"})
    assert wanted("torch")({"implementation": "attention, flash"})
    assert not wanted("torch")({"implementation": "mlstm_kernels step"})


def test_a_failed_peer_does_not_fail_the_run(tmp_path: Path) -> None:
    run = session.Session(options("--out", str(tmp_path / "x.jsonl")), {})
    cell = {"part": "checks", "case": "x", "dtype": "float32", "configuration": "default", "reason": "dq has 9 times"}
    record_of([{**cell, "implementation": "mlstm_kernels xl_chunk, chunk 128", "verdict": "fail"}], run)
    assert run.num_failed == 0
    (line,) = (tmp_path / "x.jsonl").read_text().splitlines()
    assert json.loads(line)["results"][0]["verdict"] == "fail"
