"""`companion kernels warm-up`, with a compiler that only notes what it is asked for."""

from collections.abc import Iterable
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

import torch
from commands import error_line, run_json

from companion import cli
from companion.kernels.common import replay
from companion.kernels.mlstm import warm_up

COMMAND = ["kernels", "warm-up"]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Sizes of the queries and values, and the kernel, of everything that would be compiled."""
    found: list[dict[str, Any]] = []

    def compile_first(calls: Iterable[warm_up.Call], device: torch.device, report: Any) -> list[str]:
        jobs = replay._jobs(calls, device).values()
        for number in range(len(jobs)):
            report(number + 1, len(jobs))
        found.extend({"kernel": job.kernel.__name__, **job.constants} for job in jobs)
        return [job.kernel.__name__ for job in jobs]

    monkeypatch.setattr(replay, "compile_first", compile_first)
    monkeypatch.setattr(warm_up, "usable_gpu", lambda: torch.device("cpu"))
    return found


def test_kernels_of_all_shapes_are_compiled(noted: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    shapes = ["--shape", "4x128x256", "--shape", "2X64X128", "--heads", "4", "--d-qk", "128", "--d-hv", "256"]
    sizes = ["--batch-size", "1", "2", "--context-length", "512"]
    result = run_json(capsys, *COMMAND, *shapes, *sizes, "--dtype", "bfloat16", "float32")
    assert [(x["heads"], x["d_qk"], x["d_hv"], x["dtype"], x["chunk_size"]) for x in result["shapes"]] == [
        (4, 128, 256, "bfloat16", 128),
        (4, 128, 256, "float32", 64),
        (2, 64, 128, "bfloat16", 64),
        (2, 64, 128, "float32", 64),
    ]
    assert sum(result["kernels"].values()) == len(noted)
    pairs = [x for x in noted if x["kernel"] == "pair_gradients"]
    assert {(x["D_QK"], x["D_HV"], x["L"]) for x in pairs} == {(128, 256, 128), (128, 256, 64), (64, 128, 64)}
    assert result["seconds"] >= 0


def test_options_reach_the_work(noted: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--shape", "2x64x128", "--passes", "forward", "--batch-size", "1", "--context-length", "512"]
    result = run_json(capsys, *COMMAND, *options, "--chunk-size", "32", "--gate", "sigmoid", "--initial-state")
    assert result["passes"] == ["forward"]
    assert "pair_gradients" not in result["kernels"]
    assert {x["L"] for x in noted if "L" in x} == {32}
    assert {x["SIGMOID"] for x in noted if "SIGMOID" in x} == {True}
    assert {x["HAS_STATE"] for x in noted if "HAS_STATE" in x} == {True, False}


def test_text(noted: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*COMMAND, "--model", "xlstm", "--size", "160m", "--passes", "step", "--batch-size", "1"]) == 0
    out = capsys.readouterr().out
    assert "step_matrix" in out
    assert f"{len(noted)} kernels for step in " in out
    assert "Triton's cache: " in out


def test_shapes_of_models_are_listed_without_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/somewhere")
    result = run_json(capsys, *COMMAND, "--model", "xlstm", "--list")
    assert result["cache"] == "/somewhere"
    assert "seconds" not in result
    assert [(x["heads"], x["d_qk"], x["d_hv"]) for x in result["shapes"]][::5] == [(6, 64, 128), (8, 256, 512)]
    assert cli.main([*COMMAND, "--model", "xlstm", "--size", "7b", "--list"]) == 0
    assert "compiled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no shapes: give --shape"),
        (["--shape", "4x128"], "argument --shape: '4x128' is not number of heads"),
        (["--shape", "4x128x0"], "'4x128x0'"),
        (["--shape", "4x8x256"], "--shape 4x8x256: d_qk 8 is not from 16 to 512"),
        (["--heads", "4"], "missing --d-qk, --d-hv"),
        (["--heads", "4", "--d-qk", "64", "--d-hv", "600"], "--d-hv 600: d_hv 600 is not"),
        (["--shape", "4x64x64", "--chunk-size", "48"], "--chunk-size 48 is not one of 16"),
        (["--shape", "4x64x64", "--dtype", "float64"], "float64"),
        (["--shape", "4x64x64", "--passes", "sideways"], "sideways"),
        (["--shape", "4x64x64", "--batch-size", "0"], "0 is not a positive whole number"),
        (["--model", "transformer"], "--model transformer: its layers have no mLSTM"),
        (["--size", "7b"], "--size 7b: of which architecture"),
        (["--model", "xlstm", "--size", "70b"], "70b"),
    ],
)
def test_bad_input_names_the_option(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in error_line(capsys, *COMMAND, *options)


def test_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "here torch finds none" in error_line(capsys, *COMMAND, "--shape", "4x64x64")


def test_help_says_the_usual_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(cli.command_help()["companion kernels warm-up"].split())
    for usual in (warm_up.BATCH_SIZES, warm_up.CONTEXT_LENGTHS):
        assert f"(default: {' '.join(map(str, usual))})" in text
