"""The benchmark of GPU peaks: its records hold what they claim, and without a GPU it says so."""

import json
from pathlib import Path

import pandas as pd
import pytest

from companion.benchmarks import hardware
from companion.benchmarks.records import append_record, new_record, read_records
from companion.errors import InputError
from companion.hardware import known_hardware
from companion.paths import data_dir

RECORDS = data_dir() / "benchmarks" / "hardware.jsonl"


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    return hardware.measured_on(RECORDS)


def test_two_gpus_and_every_cell(results: pd.DataFrame) -> None:
    assert results.groupby("gpu")["num_multiprocessors"].first().to_dict() == {
        "NVIDIA H100 80GB HBM3": 132,
        "NVIDIA H200": 132,
    }
    cache = results[results["part"] == "cache"]
    cells = cache.groupby(["gpu", "head_width", "backend"]).size()
    assert (cells == len(hardware.HEADS)).all()
    assert len(cells) == 2 * 2 * len(hardware.BACKENDS)
    assert cache["error"].max() < hardware.TOLERANCE


@pytest.mark.parametrize(("gpu", "entry"), [("NVIDIA H100 80GB HBM3", "h100-sxm"), ("NVIDIA H200", "h200-sxm")])
def test_measured_rates_stay_below_the_vendors_peaks(results: pd.DataFrame, gpu: str, entry: str) -> None:
    peaks, rows = known_hardware()[entry], results[results["gpu"] == gpu]
    product = rows.loc[rows["part"] == "product", "flops_per_s"]
    assert product.between(0.5 * peaks.peak_flops_per_s, peaks.peak_flops_per_s).all()
    assert rows["bytes_per_s"].max() < peaks.peak_bytes_per_s
    copy = rows.loc[rows["part"] == "copy", "bytes_per_s"]
    assert (copy > 0.8 * peaks.peak_bytes_per_s).all()
    assert peaks.num_multiprocessors == rows["num_multiprocessors"].iloc[0]


def test_one_block_per_head_comes_in_waves(results: pd.DataFrame) -> None:
    """The finding that chapter 8 rests on: flat up to as many heads as multiprocessors, then a jump."""
    for (_, width), rows in results[results["backend"] == "efficient_attention"].groupby(["gpu", "head_width"]):
        seconds = rows.set_index("heads")["seconds_median"]
        assert seconds[132] < 1.25 * seconds[16], width
        assert seconds[136] > 1.12 * seconds[132], width
        assert seconds[272] > 1.15 * seconds[264], width
    split = results[results["backend"] == "cudnn_attention"]
    assert (
        split.loc[split["heads"] == 136, "seconds_median"].to_numpy()
        < 1.12 * split.loc[split["heads"] == 132, "seconds_median"].to_numpy()
    ).all()


def test_the_last_record_of_a_gpu_counts(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, new_record("other", "x", {}, []))
    with pytest.raises(InputError, match="no record of benchmark 'hardware'"):
        hardware.measured_on(path)
    same = {"gpu": "card", "num_multiprocessors": 2, "context_length": 1, "head_width": 1}
    for seconds in (1.0, 2.0):
        append_record(path, new_record("hardware", "x", same, [{"part": "copy", "seconds_median": seconds}]))
    assert hardware.measured_on(path)["seconds_median"].tolist() == [2.0]


def test_without_a_gpu_it_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        import torch

        has_gpu = torch.cuda.is_available()
    except ImportError:
        has_gpu = False
    if has_gpu:
        pytest.skip("there is a GPU here")
    assert hardware.main([]) == 2
    assert "error: this benchmark needs" in capsys.readouterr().err


def test_a_record_is_printed_or_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [{"part": "copy", "bytes_per_s": 2e12}, {"part": "cache", "backend": "x", "heads": 8, "skipped": "no"}]
    monkeypatch.setattr(hardware, "measure", lambda **parameters: results)
    monkeypatch.setattr(hardware, "gpu", lambda: {"gpu": "card"})
    monkeypatch.setattr(hardware, "new_record", lambda *a, packages: new_record(*a, packages=()))
    assert hardware.main(["--out", "-", "--repeats", "3"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["results"] == results
    assert record["command"].endswith("--context-length 16384 --head-width 128 --repeats 3")
    out = tmp_path / "mine.jsonl"
    assert hardware.main(["--out", str(out)]) == 0
    assert len(read_records(out)) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.split() == ["copy", "2e+12", "per", "second"]
    assert second.split() == ["cache", "x", "8", "0", "per", "second"]
    assert last == f"recorded in {out}"
