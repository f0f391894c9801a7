"""Records as chapter 14 reads them: the last of every cell, the fastest launch, the peaks of the device."""

import json
from pathlib import Path
from typing import Any

import pytest
from model_records import BANDWIDTH, FLOPS, write_records

from companion.benchmarks.models.models import MODELS, SIZES, architecture_of, shapes_of
from companion.benchmarks.records import append_record, new_record
from companion.chapters.ch14.measured import LIBRARY, Measured, load
from companion.errors import InputError

CELL = {
    "part": "prefill", "model": "xlstm", "size": "160m", "implementation": "companion", "batch_size": 1,
    "shapes": shapes_of(architecture_of("xlstm", "160m")),
}  # fmt: skip
PEAKS = {"device": "A GPU", "copy_bytes_per_s": 1e12, "matmul_flops_per_s": 1e14, "device_memory_bytes": 1e10}


def cell(seconds: float | None, tokens: int = 1024, **more: Any) -> dict[str, Any]:
    times = {"skipped": "needs 2.0 GiB, 1.0 GiB are free"} if seconds is None else {"seconds_median": seconds}
    return {**CELL, "prompt_tokens": tokens, "launch": "compiled", **more, **times}


def written(path: Path, *records: list[dict[str, Any]], **parameters: Any) -> Path:
    for results in records:
        append_record(path, new_record("model_inference", "by hand", {**PEAKS, **parameters}, results))
    return path


def test_everything_is_there(measured: Measured) -> None:
    assert tuple(measured.sizes) == SIZES
    assert tuple(measured.models) == MODELS
    assert measured.batches == [1, 8, 64]
    assert (measured.peaks.peak_flops_per_s, measured.peaks.peak_bytes_per_s) == (FLOPS, BANDWIDTH)
    assert measured.datasheet is not None
    assert measured.datasheet.name == "h200-sxm"
    assert measured.architectures["grouped", "7b"] == architecture_of("grouped", "7b")
    assert measured.size("7b") == "7b"
    assert measured.size("13b") == "7b"


def test_the_fastest_launch_counts(measured: Measured) -> None:
    row = measured.at("prefill", "xlstm", "7b", 16384)
    assert row is not None
    assert row["launch"] == "compiled", "the made-up eager one takes 1.3 times as long"
    theirs = measured.at("prefill", "transformer", "7b", 16384, implementation=LIBRARY)
    assert theirs is not None
    assert theirs["attention"] == "sdpa"
    assert measured.at("prefill", "transformer", "7b", 999) is None


def test_the_last_record_of_a_cell_counts(tmp_path: Path) -> None:
    path = written(
        tmp_path / "records.jsonl",
        [cell(1.0, launch="graph"), cell(2.0), cell(None, 4096)],
        [cell(3.0), cell(4.0, 4096)],
    )
    found = load(path)
    assert found.series("prefill", "xlstm", "160m")["seconds_median"].tolist() == [3.0, 4.0]
    assert found.skipped.empty, "what was left out once has been timed since"
    assert load(written(path, [cell(None, 4096)])).skipped["prompt_tokens"].tolist() == [4096]


def test_crossover_by_hand(tmp_path: Path) -> None:
    other = {"model": "transformer", "shapes": shapes_of(architecture_of("transformer", "160m"))}
    tokens = (1024, 4096, 16384)
    xlstm = [cell(t / 1e5, t) for t in tokens]
    transformer = [cell(t**2 / 4096e5, t, **other) for t in tokens]
    found = load(written(tmp_path / "records.jsonl", [*xlstm, *transformer]))
    crossing = found.crossover("ttft", "xlstm", "transformer", "160m")
    assert crossing == (pytest.approx(4096), 16384)
    assert found.crossover("ttft", "transformer", "xlstm", "160m") == (float("inf"), 16384)
    assert found.crossover("step_time", "xlstm", "transformer", "160m") is None


def test_timings_are_a_table_for_the_fits(measured: Measured) -> None:
    table = measured.timings("hybrid")
    assert set(table["architecture"]) == {"xlstm"}
    assert set(table["attention_every"]) == {8}
    assert table["ttft_s"].notna().sum() == len(measured.best.query("model == 'hybrid' and part == 'prefill'"))


def test_a_device_that_is_asked_for(path: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.jsonl"
    both.write_text(path.read_text())
    written(both, [cell(1.0)])
    assert load(both).device == "A GPU", "the last one"
    assert load(both).datasheet is None
    assert load(both, "NVIDIA H200").device == "NVIDIA H200"
    with pytest.raises(InputError, match=r"no records of Nothing; there are NVIDIA H200, A GPU"):
        load(both, "Nothing")


def test_files_that_hold_no_timings(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with pytest.raises(InputError, match="no timings of A GPU"):
        load(written(path, [cell(None)]))
    with pytest.raises(InputError, match="was the benchmark run on a GPU"):
        load(written(path, [cell(1.0)], copy_bytes_per_s=None))
    other = tmp_path / "other.jsonl"
    append_record(other, new_record("kernels", "by hand", {}, []))
    with pytest.raises(InputError, match="no records of models"):
        load(other)


def test_prefixes_lie_beside(tmp_path: Path) -> None:
    path = write_records(tmp_path, sizes=("400m",), models=("xlstm",))
    assert len(load(path).series("prefix", "xlstm", "400m")) == 4
    path.with_name("model_prefix.jsonl").unlink()
    assert load(path).series("prefix", "xlstm", "400m").empty
    assert json.loads(path.read_text().splitlines()[0])["benchmark"] == "model_inference"
