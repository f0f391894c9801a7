"""On a CUDA GPU: checks of a few cases, one timing, and that forced configurations reach the backward kernels."""

from pathlib import Path

import pytest
import torch

from companion.benchmarks import kernel_benchmark as benchmark
from companion.benchmarks.kernel_cases import GENERAL, select_cases
from companion.benchmarks.kernel_checks import evaluate
from companion.benchmarks.kernel_implementations import ours
from companion.benchmarks.kernel_references import references
from companion.benchmarks.records import read_records
from companion.errors import InputError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def test_checks_of_small_cases(tmp_path: Path) -> None:
    out = str(tmp_path / "checks.jsonl")
    cases = ["length_1", "length_15", "layouts", "packed"]
    assert benchmark.main(["--part", "checks", "--cases", *cases, "--out", out]) == 0


def test_a_timing_is_recorded_with_the_peaks(tmp_path: Path) -> None:
    out = tmp_path / "timings.jsonl"
    arguments = ["--part", "forward", "--quick", "--implementations", "companion", "--out", str(out)]
    assert benchmark.main(arguments) == 0
    records = read_records(out)
    assert {record["benchmark"] for record in records} == {"kernels"}
    assert all(record["parameters"]["peak_flops_per_s"] > 1e13 for record in records)
    times = [x for record in records for x in record["results"]]
    assert all(0 < x["seconds_median"] < 1 and x["share_of_peak_flops"] < 1 for x in times)


@pytest.mark.parametrize("kernel", ["outputs", "key_gradients"])
def test_forced_configurations_reach_forward_and_backward(kernel: str) -> None:
    from companion.kernels.configs import forced

    (case,) = select_cases(["length_15"])
    inputs, _ = references((case,), "cuda")[case.name]
    with forced(**{kernel: 99}), pytest.raises(InputError, match="no configuration 99"):
        evaluate(ours(16), case, inputs, torch.bfloat16, GENERAL)
