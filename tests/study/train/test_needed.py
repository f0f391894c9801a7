"""Memory and time that a run will need, against counts by hand."""

import gzip
import json
import math
import statistics
from collections import Counter

import pytest
from study_runs import tiny, tiny_recipe

from companion.benchmarks.records import latest_record
from companion.errors import InputError
from companion.hardware import known_hardware
from companion.paths import data_dir
from companion.study.sweep.ladder import study_architecture
from companion.study.train import Recipe
from companion.study.train.needed import (
    FIXED_BYTES,
    START_SECONDS,
    peak_flops_of,
    predicted_memory_bytes,
    predicted_step,
)


def test_memory_by_hand() -> None:
    recipe = tiny_recipe()  # width 32, 2 heads of 16, d_ff 64, 2 layers, 8 sequences of 32 tokens, 64 tokens
    numbers = 2 * (2 * 3 * 32 + 2 * 32 + 6 * 32 + 4 * 64)
    expected = 18 * recipe.num_params + 8 * 32 * (0.8 * 2 * numbers + 14 * 64) + FIXED_BYTES
    assert predicted_memory_bytes(recipe) == pytest.approx(expected, rel=1e-12)


def test_memory_of_an_mlstm_by_hand() -> None:
    recipe = tiny_recipe("xlstm")  # queries and keys half as wide
    numbers = 2 * (2 * 32 + 5 * 32 + 6 * 32 + 4 * 64)
    expected = 18 * recipe.num_params + 8 * 32 * (0.8 * 2 * numbers + 14 * 64) + FIXED_BYTES
    assert predicted_memory_bytes(recipe) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["transformer", "xlstm", "hybrid"])
def test_parts_and_gpus_share_the_activations(kind: str) -> None:
    recipe = tiny_recipe(kind)
    fixed = 18 * recipe.num_params + FIXED_BYTES
    whole = predicted_memory_bytes(recipe) - fixed
    assert predicted_memory_bytes(recipe, micro_batch=2) - fixed == pytest.approx(whole / 4)
    assert predicted_memory_bytes(recipe, num_gpus=2) - fixed == pytest.approx(whole / 2)


def test_a_hybrid_is_between_its_layers() -> None:
    other = tiny("hybrid", n_kv_heads=1)
    both = [predicted_memory_bytes(tiny_recipe(kind)) for kind in ("transformer", "xlstm")]
    assert min(both) < predicted_memory_bytes(tiny_recipe("hybrid")) < max(both)
    assert predicted_memory_bytes(tiny_recipe(architecture=other)) < predicted_memory_bytes(tiny_recipe("hybrid"))


def test_memory_of_recorded_runs() -> None:
    """Those of our own study. The least of equal shapes counts: others held memory of the run before, too."""
    least: dict[str, float] = {}
    counts: Counter[str] = Counter()
    with gzip.open(data_dir() / "study_v1024_runs_records.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            recipe = Recipe.from_dict(record["recipe"])
            shapes = f"{recipe.architecture} {recipe.context_length} {recipe.batch_size_seqs}"
            share = record["peak_memory_bytes"] / (predicted_memory_bytes(recipe) - FIXED_BYTES)
            least[shapes] = min(share, least.get(shapes, share))
            counts[shapes] += 1
    often = [share for shapes, share in least.items() if counts[shapes] >= 4]
    assert len(often) >= 9
    assert 0.7 < min(often) < max(often) < 1.05


def test_seconds_of_a_step_by_hand() -> None:
    recipe = tiny_recipe()
    flops = recipe.train_flops / recipe.train_steps
    kept = predicted_memory_bytes(recipe) - 18 * recipe.num_params - FIXED_BYTES
    parts = predicted_step(recipe, 1e12, 1e10)
    assert parts == pytest.approx((flops / 0.44e12, 3.9 * kept / 1e10, 2 * 0.38e-3), rel=1e-12)
    assert parts.total == pytest.approx(sum(parts))
    for peaks, words in (((0, 1), "peak_flops_per_s: 0"), ((1, -1), "peak_bytes_per_s: -1"), ((1, math.inf), "inf")):
        with pytest.raises(InputError, match=words):
            predicted_step(recipe, *peaks)


def test_seconds_of_recorded_steps() -> None:
    """Steps alone on an H200, and the compilation of runs of the study."""
    record = latest_record(data_dir() / "benchmarks" / "study.jsonl", "study")
    hardware = known_hardware()["h200-sxm"]
    peaks = hardware.peak_flops_per_s, hardware.peak_bytes_per_s
    ratios = {}
    for each in record["results"]:
        if each["part"] == "step" and each["launch"] == "graph" and each["deterministic"]:
            length, size = each["context_length"], each["size"]
            model = study_architecture(each["architecture"], size, record["parameters"]["vocab_size"])
            recipe = tiny_recipe(
                architecture=model, context_length=length, batch_size_seqs=each["tokens_per_step"] // length
            )
            key = (each["architecture"], size)
            ratios[key] = predicted_step(recipe, *peaks).total / each["seconds_per_step"]
    assert len(ratios) >= 6
    assert all(0.88 < ratio < 1.12 for ratio in ratios.values()), ratios
    compiled = []
    for name in ("study", "study_v1024"):
        with gzip.open(data_dir() / f"{name}_runs_records.jsonl.gz", "rt", encoding="utf-8") as lines:
            compiled += [json.loads(line)["seconds_compile"] for line in lines]
    assert pytest.approx(statistics.median(compiled), rel=0.3) == START_SECONDS


NAMES = {
    "NVIDIA H200": "h200-sxm",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA A100-SXM4-80GB": "a100-sxm",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "AMD Instinct MI300X": "mi300x",
}


@pytest.mark.parametrize("device", NAMES)
def test_peaks_are_those_of_the_table(device: str) -> None:
    assert peak_flops_of(device) == known_hardware()[NAMES[device]].peak_flops_per_s


@pytest.mark.parametrize("device", ["cpu", "NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090 D", "NVIDIA B200"])
def test_devices_without_a_peak(device: str) -> None:
    assert peak_flops_of(device) is None
