"""Chapter 10: what a call takes of the host, by made-up records."""

from pathlib import Path
from typing import Any

import pytest

from companion.benchmarks.kernels.results import load_host
from companion.benchmarks.records import append_record, new_record
from companion.chapters import ch10
from companion.chapters.ch10 import host
from companion.errors import InputError

SIZES = {"batch_size": 1, "context_length": 1024, "n_heads": 4, "d_qk": 32, "d_hv": 64}


def cell(implementation: str, launch: str = "calls", part: str = "host", **times: Any) -> dict[str, Any]:
    heads = "x".join(str(times.get(name, SIZES[name])) for name in ("n_heads", "d_qk", "d_hv"))
    row = {"part": part, "case": f"{heads}-T1024", "implementation": implementation, "launch": launch}
    return {**row, **SIZES, **times}


def records(path: Path, *results: dict[str, Any], gpu: str = "NVIDIA H200") -> Path:
    append_record(path, new_record("kernels", "a command", {"gpu": gpu, "code": "0"}, list(results), packages=()))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return records(
        tmp_path / "kernels.jsonl",
        cell("companion", seconds_forward=8e-5, seconds_median=3.8e-4, seconds_further=3.5e-4),
        cell("companion", "compiled", seconds_forward=2e-4, seconds_median=6.5e-4, seconds_further=2.93e-4),
        cell("torch, v · 1", seconds_forward=5e-6, seconds_median=1.4e-4, seconds_further=4e-5),
        cell("mlstm_kernels xl_chunk, chunk 128", skipped="mlstm_kernels is not installed"),
        cell("companion", part="first-call", seconds_median=2.61, seconds_second=0.002),
        cell("companion", part="first-call", n_heads=8, d_qk=256, d_hv=512, seconds_median=4.41, seconds_second=0.002),
    )


def test_the_prose(path: Path) -> None:
    facts = ch10.host_facts(path)
    assert facts["c10_host"] == (
        "On the host of an H200, a forward pass takes 80.0 µs and both passes take 380 µs, where torch takes 140 µs "
        "for a product with 1. In a graph of torch.compile, every further call takes 293 µs"
    )
    assert facts["c10_first_call"] == (
        "With nothing compiled, the first call of both passes takes 4.4 s for 8 × (256, 512) and 2.6 s for 4 × (32, 64)"
    )


def test_the_table(path: Path) -> None:
    shown = ch10.show_host(path).markup
    assert "ours" in shown
    assert "293" in shown
    assert "xl_chunk" not in shown, "nothing was timed"


def test_without_records(tmp_path: Path) -> None:
    path = records(tmp_path / "kernels.jsonl", cell("companion", part="forward", seconds_median=1e-3))
    assert not len(load_host(path))
    assert ch10.host_facts(path) == {"c10_host": host.NO_HOST, "c10_first_call": host.NO_FIRST}
    assert "no record says what a call takes" in ch10.show_host(path).markup
    with pytest.raises(InputError, match="absent"):
        load_host(tmp_path / "absent.jsonl")


def test_the_last_record_counts_and_another_gpu_is_named(path: Path) -> None:
    records(path, cell("companion", seconds_forward=7e-5, seconds_median=3e-4, seconds_further=2e-4))
    assert "both passes take 300 µs" in str(ch10.host_facts(path)["c10_host"])
    with pytest.raises(InputError, match="H100"):
        load_host(path, gpu="NVIDIA H100")
