"""Records of kernels as tables: which record counts, verdicts, rooflines, crossings by construction."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from companion.accounting.kernel_costs import (
    CARRIED_TILE,
    CellShape,
    attention_kernel_costs,
    best_kernel_chunk,
    cell_kernel_costs,
    chunk_size_scan,
    pass_seconds,
    step_cost,
)
from companion.benchmarks.kernels import results
from companion.benchmarks.kernels.rooflines import least_kernels
from companion.benchmarks.records import new_record
from companion.errors import InputError
from companion.hardware import Hardware

GPU = {"gpu": "GPU one", "num_multiprocessors": 100, "memory_bytes": 8e10}
PEAKS = {"peak_flops_per_s": 8e14, "peak_bytes_per_s": 4e12}
HEADS = (8, 256, 512)


def write(path: Path, benchmark: str, rows: list[dict[str, Any]], **parameters: Any) -> None:
    record = new_record(benchmark, "made up", {**GPU, **parameters}, rows, packages=())
    record["versions"] |= {"mlstm-kernels": "2.0.6", "fla-core": "0.6.0"}
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def check(case: str = "a", implementation: str = "companion, chunk 64", **fields: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"part": "checks", "case": case, "dtype": "bfloat16", "implementation": implementation}
    row |= {"upstream": "general", "configuration": "default", "verdict": "pass", "reason": None, "worst": "dq"}
    row |= {"worst_over_allowed": 0.5, "errors": {"h": 1e-3, "dq": 3e-3, "dk": 2e-3}, "deterministic": True}
    return row | fields


def timing(implementation: str, context: int, seconds: float, part: str = "forward", **fields: Any) -> dict[str, Any]:
    attention = implementation.startswith("attention")
    heads = (32, 128, 128) if attention else HEADS
    row: dict[str, Any] = {"part": part, "case": f"8x256x512-T{context}", "implementation": implementation}
    row |= {"computation": "attention" if attention else "exponential", "layout": "bthd", "chunk_size": None}
    row |= {"batch_size": 65536 // context, "context_length": context}
    row |= dict(zip(("n_heads", "d_qk", "d_hv"), heads, strict=True))
    row |= {"seconds_median": seconds, "seconds_quartile_1": seconds, "seconds_quartile_3": seconds, "repeats": 20}
    return row | fields


@pytest.fixture
def timings(tmp_path: Path) -> results.Timings:
    path = tmp_path / "kernels.jsonl"
    for context in (1024, 2048, 4096, 8192):
        rows = [timing("companion", context, 4e-3), timing("companion", context, 4e-3 * 3, "training")]
        # one backend is slower everywhere; the other meets 4 ms at T = 2896, the geometric middle
        rows += [timing("attention, cuDNN", context, 4e-3 * context / (2048 * 2**0.5))]
        rows += [timing("attention, flash", context, 9e-3 * context / (2048 * 2**0.5))]
        rows += [timing("attention, cuDNN", context, 9.0, "training")]
        write(path, "kernels", rows, **PEAKS)
    tuning = timing("companion", 8192, 1e-3, "tuning", configuration="outputs 0", kernel="outputs")
    write(path, "kernels", [{name: tuning[name] for name in tuning if name != "computation"}])
    step = {"part": "step", "case": "8x256x512-B64", "implementation": "companion step, bfloat16 state"}
    step |= {"launch": "graph", "state_dtype": "bfloat16", "batch_size": 64, "seconds_median": 1e-4}
    step |= dict(zip(("n_heads", "d_qk", "d_hv"), HEADS, strict=True))
    write(path, "kernels", [step, {**step, "launch": "calls", "skipped": "absent"}], **PEAKS)
    return results.load_timings(path)


def test_the_last_record_of_a_cell_counts(tmp_path: Path) -> None:
    path = tmp_path / "checks.jsonl"
    write(path, "kernel_checks", [check("a", verdict="fail"), check("b")])
    write(path, "other", [check("c")])
    write(path, "kernel_checks", [check("a"), check("a", dtype="float16")])
    table = results.load_checks(path)
    assert list(zip(table["case"], table["dtype"], table["verdict"], strict=True)) == [
        ("a", "bfloat16", "pass"), ("b", "bfloat16", "pass"), ("a", "float16", "pass"),
    ]  # fmt: skip
    write(path, "kernel_checks", [check("d")], gpu="GPU two")
    assert list(results.load_checks(path, "GPU two")["case"]) == ["d"]
    assert len(results.load_checks(path, "GPU one")) == 3
    assert list(results.load_checks(path)["gpu"]) == ["GPU one"] * 3 + ["GPU two"], "any GPU, unless one is named"
    assert results.gpus(path, "kernel_checks") == ("GPU one", "GPU two")
    write(path, "kernel_checks", [check("a")])
    assert results.gpus(path, "kernel_checks") == ("GPU two", "GPU one"), "the last one last"
    with pytest.raises(InputError, match="no record of GPU 'GPU three'; there are GPU one, GPU two"):
        results.load_checks(path, "GPU three")
    with pytest.raises(InputError, match="no record of benchmark 'kernels'"):
        results.load_timings(path)
    with pytest.raises(InputError, match="cannot be read"):
        results.load_checks(tmp_path / "nothing.jsonl")


def test_versions_of_peers(tmp_path: Path) -> None:
    path = tmp_path / "checks.jsonl"
    names = ["companion, chunk 64", "mlstm_kernels xl_chunk, chunk 128", "simple_gla, chunk 64"]
    write(path, "kernel_checks", [check(implementation=name) for name in names])
    assert list(results.load_checks(path)["version"]) == ["", "2.0.6", "0.6.0"]


def test_verdicts() -> None:
    rows = [check("a"), check("b", worst_over_allowed=0.9), check("c", verdict="fail", worst_over_allowed=None)]
    rows += [check("a", "peer", verdict="fail", worst_over_allowed=40.0, deterministic=False)]
    rows += [
        {**check("b", "peer", verdict="skipped"), "errors": None, "deterministic": None, "worst_over_allowed": None}
    ]
    table = results.verdicts(pd.DataFrame(rows), ["implementation"]).set_index("implementation")
    ours, peer = table.loc["companion, chunk 64"], table.loc["peer"]
    assert [ours[name] for name in ("cells", "passed", "failed", "skipped")] == [3, 2, 1, 0]
    assert ours["worst_over_allowed"] == np.inf, "not finite"
    assert [peer[name] for name in ("cells", "passed", "failed", "skipped")] == [1, 0, 1, 1]
    assert peer["worst_over_allowed"] == 40
    assert [ours["deterministic"], peer["deterministic"]] == ["3 of 3", "0 of 1"]
    two = results.verdicts(pd.DataFrame(rows), ["implementation", "case"])
    assert len(two) == 5
    assert list(two.columns[:2]) == ["implementation", "case"]


def test_error_rows() -> None:
    rows = [
        check("a"),
        check("b", errors={"h": None, "dq": 1.0, "dv": None}),
        check("c", errors=None, verdict="fail"),
        check("d", verdict="skipped"),
    ]
    table = results.error_rows(pd.DataFrame(rows)).set_index("case")
    assert list(table.index) == ["a", "b", "c"]
    assert (table.loc["a", "error_h"], table.loc["a", "error_gradients"]) == (1e-3, 3e-3)
    assert (table.loc["b", "error_h"], table.loc["b", "error_gradients"]) == (np.inf, np.inf)
    assert table.loc["c", ["error_h", "error_gradients"]].isna().all()


def test_tensor_errors() -> None:
    rows = [check("a"), check("b", errors={"h": None}), check("c", errors=None, verdict="skipped")]
    table = pd.DataFrame(rows, index=[5, 6, 7])
    np.testing.assert_array_equal(results.tensor_errors(table, "h"), [1e-3, np.inf, np.nan])
    assert list(results.tensor_errors(table, "dq").index) == [5, 6, 7]


def test_peer_cases() -> None:
    rows = [check("a"), check("a", "peer"), check("b"), check("c", "peer", verdict="skipped")]
    assert results.peer_cases(pd.DataFrame(rows)) == {"a"}


def test_timings(timings: results.Timings) -> None:
    assert timings.gpu == "GPU one"
    assert set(timings.table["part"]) == {"forward", "training", "step"}, "candidates that were tuned are another table"
    assert timings.peaks.peak_flops_per_s == 8e14
    assert timings.peaks.num_multiprocessors == 100
    assert results.heads_of(timings) == [HEADS]
    assert timings.dates[0] <= timings.dates[1]
    assert len(timings.commits) == 1


def test_rows_say_of_which_code_they_are(tmp_path: Path) -> None:
    """The book says so where records are older than the kernels it shows."""
    path = tmp_path / "records.jsonl"
    write(path, "kernel_checks", [check("a"), check("b")], code="old")
    write(path, "kernel_checks", [check("b")], code="new")
    table = results.load_checks(path)
    assert dict(zip(table["case"], table["code"], strict=True)) == {"a": "old", "b": "new"}
    write(path, "kernels", [timing("companion", 1024, 1e-3)], **PEAKS, code="old")
    write(path, "kernels", [timing("companion", 2048, 1e-3)], **PEAKS, code="new")
    assert [each.code for each in results.load_timings(path).identities] == ["old", "new"]
    write(path, "kernels", [timing("attention, flash", 1024, 1e-3)], **PEAKS, code="newer")
    assert [each.code for each in results.load_timings(path).identities] == ["old", "new"], (
        "of ours: the others have none"
    )


def test_candidates_that_are_gone_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    every = [check("a", configuration=f"step {number}") for number in range(3)]
    write(path, "kernel_checks", [*every, check("b", configuration="step 2")], code="old")
    write(path, "kernel_checks", every[:2], code="new")
    table = results.load_checks(path)
    found = list(zip(table["case"], table["configuration"], table["code"], strict=True))
    assert found == [("a", "step 0", "new"), ("a", "step 1", "new"), ("b", "step 2", "old")]


def test_ours_come_first(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, "kernels", [timing(name, 1024, 1e-3) for name in ("peer", "companion", "other")], **PEAKS)
    assert list(results.load_timings(path).table["implementation"]) == ["companion", "peer", "other"]


def test_rooflines(timings: results.Timings) -> None:
    table = results.with_rooflines(timings).set_index(["part", "implementation", "case"])
    assert "calls" not in set(table["launch"]), "a cell without a timing"
    peaks: Hardware = timings.peaks
    shape = CellShape(batch_size=8, context_length=8192, n_heads=8, d_qk=256, d_hv=512)
    scan = chunk_size_scan(shape, peaks)
    best = CellShape(**{**vars(shape), "chunk_size": best_kernel_chunk(scan)})
    long = CellShape(**{**vars(shape), "chunk_size": 128})
    fused, kept = (cell_kernel_costs(long, carried_tile=CARRIED_TILE, keep_states=keep) for keep in (False, True))
    row = table.loc[("forward", "companion", "8x256x512-T8192")]
    assert row["roofline_seconds"] == pytest.approx(pass_seconds(fused, peaks))
    assert row["roofline_seconds"] < pass_seconds(cell_kernel_costs(best), peaks), "states and outputs in two kernels"
    assert row["roofline_share"] == pytest.approx(row["roofline_seconds"] / 4e-3)
    row = table.loc[("training", "companion", "8x256x512-T8192")]
    scan = chunk_size_scan(shape, peaks, keep_states=True)
    best = CellShape(**{**vars(shape), "chunk_size": best_kernel_chunk(scan, "forward+backward")})
    ways = (kept, cell_kernel_costs(best, keep_states=True))
    least = min(pass_seconds(costs, peaks, "forward+backward") for costs in ways)
    assert row["roofline_seconds"] == pytest.approx(least)
    assert least < pass_seconds(fused, peaks, "forward+backward"), "states computed again"
    wide = CellShape(batch_size=8, context_length=8192, n_heads=32, d_qk=128, d_hv=128)
    row = table.loc[("training", "attention, cuDNN", "8x256x512-T8192")]
    expected = pass_seconds(attention_kernel_costs(wide), peaks, "forward+backward")
    assert row["roofline_seconds"] == pytest.approx(expected)
    row = table.loc[("step", "companion step, bfloat16 state", "8x256x512-B64")]
    sixty_four = CellShape(batch_size=64, context_length=1, n_heads=8, d_qk=256, d_hv=512)
    assert row["roofline_seconds"] < float(step_cost(sixty_four).roofline(peaks).seconds), "half the state to move"


def test_two_kernels_where_they_are_less() -> None:
    """With pairs of 128 tokens dear, and a tiny state, short chunks of two kernels take less than one kernel."""
    shape = CellShape(batch_size=1, context_length=8192, n_heads=8, d_qk=16, d_hv=16)
    slow = Hardware(
        name="slow",
        label="slow",
        peak_flops_per_s=1e9,
        peak_bytes_per_s=4e12,
        memory_bytes=1e9,
        num_multiprocessors=1,
        source="made up",
    )
    chunk = best_kernel_chunk(chunk_size_scan(shape, slow))
    two = pass_seconds(cell_kernel_costs(CellShape(**{**vars(shape), "chunk_size": chunk})), slow)
    one = cell_kernel_costs(CellShape(**{**vars(shape), "chunk_size": 128}), carried_tile=CARRIED_TILE)
    assert least_kernels(shape, slow, "forward").seconds(slow, "forward") == pytest.approx(two)
    assert two < pass_seconds(one, slow)


def test_states_are_kept_only_for_a_gradient(timings: results.Timings) -> None:
    """And only where our kernels keep them: not those of one chunk of 64 tokens, which would be the larger part."""
    shape = CellShape(batch_size=8, context_length=8192, n_heads=8, d_qk=256, d_hv=512)
    assert not least_kernels(shape, timings.peaks, "forward").keep_states
    assert least_kernels(shape, timings.peaks, "forward+backward").keep_states
    short = CellShape(**{**vars(shape), "context_length": 64})
    assert not least_kernels(short, timings.peaks, "forward+backward").keep_states


def test_crossing(timings: results.Timings) -> None:
    found = results.crossing(timings, HEADS, "forward")
    assert found.measured == pytest.approx(2048 * 2**0.5)
    assert (found.text, found.since) == ("T = 2896", "from T = 2896 on")
    assert list(found.table["context_length"]) == [1024, 2048, 4096, 8192]
    assert 100 < found.by_flops < found.by_roofline < 10_000, "the mLSTM waits for memory, attention does not"
    # at the predicted context the rooflines of the timed table change order
    ratio = (found.table["attention_roofline"] / found.table["cell_roofline"]).to_numpy()
    contexts = found.table["context_length"].to_numpy()
    assert list(ratio > 1) == list(contexts > found.by_roofline)
    training = results.crossing(timings, HEADS, "training")
    assert np.isnan(training.measured)
    assert training.text == "below T = 1024"
    assert training.since == "at every timed context, T = 1024 and longer"
    nobody = results.crossing(timings, HEADS, "forward", "nobody")
    assert (nobody.text, nobody.since) == ("not timed", "not timed")
    assert nobody.by_flops == found.by_flops, "a prediction needs no timing"


def test_never_crossing(tmp_path: Path) -> None:
    path = tmp_path / "kernels.jsonl"
    rows = [timing("companion", t, 1.0) for t in (1024, 8192)] + [
        timing("attention, flash", t, 0.1) for t in (1024, 8192)
    ]
    write(path, "kernels", rows, **PEAKS)
    found = results.crossing(results.load_timings(path), HEADS, "forward")
    assert (found.text, found.since) == ("beyond T = 8192", "at no context up to T = 8192")


def test_no_gpu_no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found, note = results.measure_here()
    assert found is None
    assert "without a CUDA GPU" in note
