"""The inference suite on a CPU: cells, the gate, cells that do not fit, errors, the records, and their tables."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'kernels')")

import torch

from companion.accounting import num_params
from companion.accounting.inference import count_prefill, count_step
from companion.architectures import make_architecture
from companion.benchmarks.kernels.identity import PACKAGE
from companion.benchmarks.models import gate, launches, peer, serving
from companion.benchmarks.models.__main__ import main
from companion.benchmarks.models.models import architecture_of
from companion.benchmarks.models.tables import inference_table, measured_cells
from companion.benchmarks.records import read_records
from companion.errors import InputError
from companion.inference.timings import load_inference, model_of
from companion.models import layers

Results = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("companion.benchmarks.models.timed.MOST", 3)


def suite(path: Path, *words: object) -> tuple[int, Results]:
    """Exit status of a run on the CPU, and the results it added to the file."""
    before = len(read_records(path)) if path.exists() else 0
    few = ("--sizes", "tiny", "--batches", 1, "--device", "cpu", "--out", path)
    status = main(["inference", *map(str, (*few, *words))])
    after = read_records(path)[before:] if path.exists() else []
    return status, [result for record in after for result in record["results"]]


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Results]:
    path = tmp_path_factory.mktemp("suite") / "records.jsonl"
    return path, *suite(path, "--models", "hybrid", "--prompts", 0, 128, 1024)


def test_cells_are_checked_and_timed(hybrid: tuple[Path, int, Results]) -> None:
    path, status, results = hybrid
    checks, cells = results[:6], results[6:]
    assert status == 0
    assert [(x["quantity"], x["batch_size"], x["verdict"]) for x in checks] == [
        (name, batch, "pass") for batch in (2, 1) for name in ("prefill, eager", "steps, eager", "generate")
    ]
    assert all(x["error"] <= x["tolerance"] <= 1.5 * x["reference_error"] for x in checks)
    assert all(x["error"] > 0 for x in checks if x["quantity"] != "generate")
    assert [(x["part"], x["prompt_tokens"]) for x in cells] == [
        ("prefill", 128), ("prefill", 1024), ("step", 0), ("step", 1024)
    ]  # fmt: skip
    architecture = architecture_of("hybrid", "tiny")
    for x in cells:
        assert (x["model"], x["size"], x["implementation"], x["launch"]) == ("hybrid", "tiny", "companion", "eager")
        assert make_architecture(**x["shapes"]) == architecture
        assert 0 < x["seconds_low"] <= x["seconds_median"] <= x["seconds_high"]
        assert (x["batch_size"], x["peak_memory_bytes"], x["share_of_matmul_peak"]) == (1, None, None)
    assert cells[1]["flops"] == count_prefill(architecture, 1024).flops.total
    step = count_step(architecture, 1025)
    assert (cells[3]["flops"], cells[3]["bytes"]) == (step.flops.total, step.traffic.weights + step.traffic.cache)
    [record] = read_records(path)
    assert record["benchmark"] == "model_inference"
    assert set(record["parameters"]) == {
        "identity", "device", "device_memory_bytes", "copy_bytes_per_s", "matmul_flops_per_s"
    }  # fmt: skip
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in record["versions"]["torch"]
    assert record["command"].startswith("python -m companion.benchmarks.models inference --models hybrid --sizes tiny")


def test_resume_measures_only_what_is_missing(hybrid: tuple[Path, int, Results], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    record = json.loads(hybrid[0].read_text())
    record["results"].pop()
    path.write_text(json.dumps(record) + "\n")
    words = ("--models", "hybrid", "--prompts", 0, 128, 1024, "--resume")
    status, results = suite(path, *words)
    assert status == 0
    assert [(x["part"], x["prompt_tokens"]) for x in results] == [("step", 1024)]  # and no check again
    assert suite(path, *words) == (0, [])


def test_what_does_not_fit_is_recorded_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = architecture_of("xlstm", "tiny")
    prefill = float(count_prefill(architecture, 1024).memory.total)
    monkeypatch.setattr(serving, "verified", lambda *_: True)
    monkeypatch.setattr(serving, "free_bytes", lambda device: int(prefill) - 1)
    words = ("--models", "xlstm", "--part", "prefill", "--prompts", 128, 1024)
    _, results = suite(tmp_path / "a", *words)
    assert "seconds_median" in results[-2]
    gib = prefill / 2**30
    assert results[-1]["skipped"] == f"needs {gib:.1f} GiB, {(int(prefill) - 1) / 2**30:.1f} GiB are free"
    monkeypatch.setattr(serving, "free_bytes", lambda device: 1000)
    status, results = suite(tmp_path / "b", *words)
    assert (status, len(results)) == (0, 2)  # not even built: no checks
    assert all(x["skipped"] == "needs 0.0 GiB, 0.0 GiB are free" for x in results)


def test_cells_that_take_too_long_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "verified", lambda *_: True)
    monkeypatch.setattr(serving, "ASSUMED", (1e6, 1e6))
    _, results = suite(tmp_path / "a", "--models", "xlstm", "--part", "prefill", "--prompts", 1024)
    assert results[-1]["skipped"].startswith("a repeat takes about ")
    assert results[-1]["skipped"].endswith(" s, the limit is 10 s")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 0, "GiB are free: more was needed than foreseen"),
        (RuntimeError("no kernel for this"), 1, "failed: RuntimeError: no kernel for this"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 3, "failed: RuntimeError: CUDA error"),
    ],
)
def test_errors_end_a_cell(
    error: Exception, status: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(serving, "verified", lambda *_: True)
    monkeypatch.setattr(serving, "Step", fail)
    found, results = suite(tmp_path / "a", "--models", "xlstm", "--part", "step", "--prompts", 0, 1024)
    assert found == status
    assert len(results) == (1 if status == 3 else 2)
    assert all(reason in x["skipped"] for x in results)


def test_memory_that_ran_out_in_a_capture_is_seen() -> None:
    error = RuntimeError("the capture failed")
    error.__context__ = torch.OutOfMemoryError("no")
    assert serving.why(error, 2**31, 2**30) == "needs 2.0 GiB, 1.0 GiB are free: more was needed than foreseen"


def test_a_wrong_model_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = layers.SwiGLU.step
    monkeypatch.setattr(layers.SwiGLU, "step", lambda self, x, norm: right(self, x, norm) + 0.05)
    status, results = suite(tmp_path / "a", "--models", "xlstm", "--part", "step", "--prompts", 0)
    assert status == 1
    verdicts = {(x["quantity"], x["batch_size"]): x["verdict"] for x in results}
    assert verdicts.pop(("steps, eager", 2)) == verdicts.pop(("steps, eager", 1)) == "fail"
    assert set(verdicts.values()) == {"pass"}
    assert [x["part"] for x in results] == ["check"] * 6
    assert all(x["reason"].endswith("is right") for x in results if x["verdict"] == "fail")


def test_numbers_that_are_not_finite_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.SwiGLU, "step", lambda self, x, norm: x * torch.nan)
    status, results = suite(tmp_path / "a", "--models", "xlstm", "--part", "step", "--prompts", 0)
    assert status == 1
    failed = {x["quantity"] for x in results if x["verdict"] == "fail"}
    assert failed == {"steps, eager", "generate"}


def test_an_error_in_the_gate_is_a_failed_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gate, "timed_logits", fail)
    status, [result] = suite(tmp_path / "a", "--models", "xlstm", "--part", "step", "--prompts", 0)
    assert (status, result["verdict"], result["reason"]) == (1, "fail", "failed: RuntimeError: no such kernel")


def test_a_model_compiles_once_for_one_sequence_and_once_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every kind of block, whatever the batch and the number of tokens; and the logits stay."""
    monkeypatch.setattr(launches, "COMPILER", "eager")
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters["stats"]
    model = launches.random_model(architecture_of("grouped", "tiny"), "cpu")
    for part, sizes in (("forward", ((1, 128), (1, 300), (2, 128), (4, 256))), ("step", ((2, 0), (8, 128)))):
        counted.clear()
        for batch, tokens in sizes:
            kind: Any = launches.Prefill if part == "forward" else launches.Step
            action = kind(model, batch, tokens, "cpu")
            action()
            eager = action.logits
            if part == "step":
                action.reset()
            with launches.compiled_blocks(model, part):
                action()
            assert torch.equal(action.logits, eager)
        assert counted["unique_graphs"] == 2 if part == "forward" else 1, part
    assert "forward" not in vars(model.blocks[0])


def test_all_launches_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "COMPILER", "eager")
    monkeypatch.setattr(serving, "verified", lambda *_: True)
    words = ("--models", "transformer", "--part", "prefill", "--prompts", 128, "--implementations", "companion")
    _, results = suite(tmp_path / "a", *words, "--all-launches")
    assert [x["launch"] for x in results] == ["eager", "compiled"]


def test_a_missing_library_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "find_spec", lambda name: None)
    words = ("--models", "transformer", "--implementations", "transformers", "--prompts", 1024)
    status, results = suite(tmp_path / "a", *words)
    assert status == 0
    assert [(x["attention"], x["launch"]) for x in results] == [("sdpa", "eager"), ("flash_attention_2", "eager")]
    assert {x["skipped"] for x in results} == {"transformers is not installed"}
    monkeypatch.setattr(peer, "find_spec", lambda name: None if name == "flash_attn" else object())
    assert peer.absent("flash_attention_2") == "flash_attn is not installed"
    assert peer.absent("sdpa") == ""


def test_the_other_library_has_the_same_shapes(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    architecture = architecture_of("grouped", "tiny")
    model = peer.llama(architecture, "sdpa", "cpu")
    assert sum(parameter.numel() for parameter in model.parameters()) == num_params(architecture)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "sdpa"
    words = ("--models", "grouped", "--implementations", "transformers", "--prompts", 1024)
    _, results = suite(tmp_path / "a", *words)
    timed = results[0]
    assert (timed["launch"], timed["attention"], timed["implementation"]) == ("eager", "sdpa", "transformers")
    assert timed["flops"] == count_prefill(architecture, 1024).flops.total
    assert timed["seconds_median"] > 0


def test_records_become_a_table_of_timings(hybrid: tuple[Path, int, Results], tmp_path: Path) -> None:
    records = read_records(hybrid[0])
    table = inference_table(records)
    table.to_csv(tmp_path / "timings.csv", index=False)
    with pytest.warns(UserWarning, match="in milliseconds"):  # a CPU is slower than the roofline of a GPU
        loaded = load_inference(tmp_path / "timings.csv")
    assert loaded["model_size"].unique().tolist() == ["tiny hybrid"]
    assert loaded["ttft_s"].notna().tolist() == [True, True, False, False]
    assert loaded["step_time_s"].notna().tolist() == [False, False, True, True]
    assert loaded["prefill_length"].tolist() == [128, 1024, 0, 1024]
    assert {model_of(row) for _, row in loaded.iterrows()} == {architecture_of("hybrid", "tiny")}
    with pytest.raises(InputError, match="no timings of xlstm"):
        inference_table(records, models=["xlstm"])
    with pytest.raises(InputError, match="no timings of companion on a GPU"):
        measured_cells(records, device="a GPU")
    with pytest.raises(InputError, match="none of benchmark 'model_inference'"):
        measured_cells([])


def test_the_fastest_launch_of_the_last_record_counts(hybrid: tuple[Path, int, Results]) -> None:
    [record] = read_records(hybrid[0])
    cell = next(x for x in record["results"] if x["part"] == "step")
    other = {**record, "benchmark": "model_training"}
    of = [{**cell, "seconds_median": seconds, "launch": name} for seconds, name in ((3.0, "graph"), (2.0, "eager"))]
    skipped = {name: value for name, value in cell.items() if not name.startswith("seconds")}
    records = [{**record, "results": [cell]}, {**record, "results": [*of, {**skipped, "skipped": "no"}]}, other]
    assert measured_cells(records)[["seconds_median", "launch"]].to_numpy().tolist() == [[2.0, "eager"]]


def imported(name: str, seen: set[str]) -> set[str]:
    """Packages of others that are imported with a module of ours, directly or not."""
    found: set[str] = set()
    if name in seen:
        return found
    seen.add(name)
    path = PACKAGE.joinpath(*name.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.exists():  # a name in a module
        return imported(name.rpartition(".")[0], seen)
    if "." in name:
        found |= imported(name.rpartition(".")[0], seen)
    for node in ast.parse(file.read_text("utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for other in names:
            found |= imported(other, seen) if other.startswith("companion.") else {other.split(".")[0]}
    return found


def test_measuring_needs_no_pandera_and_the_command_no_torch() -> None:
    """A GPU machine may lack the one; a reader who only fits, the other."""
    names = ("__main__", "gate", "launches", "peer", "serving", "session")
    measuring = set[str]().union(*(imported(f"companion.benchmarks.models.{name}", set()) for name in names))
    assert {"torch", "numpy"} <= measuring
    assert not measuring & {"pandera", "IPython", "nbclient", "papermill", "matplotlib"}
    assert not imported("companion.benchmarks.models.__main__", set()) & {"torch", "triton"}


def test_without_a_gpu_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["inference", "--quick"]) == 2
    assert "needs a CUDA GPU; torch sees none" in capsys.readouterr().err
    assert main(["inference", "--list", "--models", "xlstm"]) == 0
    assert "xlstm 7b, companion, step: 18 of 0, 1024" in capsys.readouterr().out
