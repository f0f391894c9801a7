"""On a CUDA GPU: checks of a few cases, timings, forced configurations, torch.compile and CUDA graphs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from companion.benchmarks.kernels import benchmark
from companion.benchmarks.kernels.cases import GENERAL, select_cases
from companion.benchmarks.kernels.evaluation import evaluate
from companion.benchmarks.kernels.implementations import ours
from companion.benchmarks.kernels.references import references
from companion.benchmarks.records import read_records
from companion.errors import InputError
from companion.kernels import MLSTMState, mlstm, mlstm_step

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


@pytest.mark.parametrize("kernel", ["outputs", "key_value_gradients"])
def test_forced_configurations_reach_forward_and_backward(kernel: str) -> None:
    from companion.kernels.mlstm.configs import forced

    (case,) = select_cases(["length_15"])
    inputs, _ = references((case,), "cuda")[case.name]
    with forced(**{kernel: 99}), pytest.raises(InputError, match="no configuration 99"):
        evaluate(ours(16), case, inputs, torch.bfloat16, GENERAL)


def layer_inputs(context_length: int = 200) -> list[torch.Tensor]:
    """q, k, v, ĩ, f̃ in bfloat16 for two sequences of two heads, d_qk 64 and d_hv 128, that want gradients."""
    random = torch.Generator(device="cuda").manual_seed(0)

    def normal(*width: int) -> torch.Tensor:
        x = torch.randn(2, context_length, 2, *width, generator=random, device="cuda", dtype=torch.bfloat16)
        return x.requires_grad_()

    return [normal(64), normal(64), normal(128), normal(), normal()]


def with_gradients(call: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """h of a call, and the gradients of Σ h²."""
    h = call(*inputs)
    return [h, *torch.autograd.grad(h.float().square().sum(), inputs)]


def test_torch_compile_gives_the_same_numbers_without_a_graph_break() -> None:
    inputs = layer_inputs()
    expected = with_gradients(mlstm, inputs)
    torch._dynamo.reset()
    found = with_gradients(torch.compile(mlstm, fullgraph=True), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_whole_training_step_runs_as_a_cuda_graph() -> None:
    inputs = layer_inputs()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            with_gradients(mlstm, inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = with_gradients(mlstm, inputs)
    with torch.no_grad():
        for x in inputs:
            x.copy_(torch.randn_like(x))
    graph.replay()
    for one, other in zip(captured, with_gradients(mlstm, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_generation_runs_as_a_cuda_graph() -> None:
    q, k, v, i, f = (x[:, 0].detach() for x in layer_inputs())
    state, by_hand = MLSTMState.empty(2, 2, 64, 128, device="cuda"), MLSTMState.empty(2, 2, 64, 128, device="cuda")
    mlstm_step(q, k, v, i, f, MLSTMState.empty(2, 2, 64, 128, device="cuda"))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        h, _ = mlstm_step(q, k, v, i, f, state)
    for _ in range(3):
        graph.replay()
        expected, _ = mlstm_step(q, k, v, i, f, by_hand)
        torch.testing.assert_close(h, expected, rtol=0, atol=0)
    for one, other in zip(state, by_hand, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_prefill_of_packed_sequences_runs_as_a_cuda_graph_for_other_lengths() -> None:
    q, k, v, i, f = (x[:1].detach() for x in layer_inputs())
    bounds = torch.tensor([0, 70, 70, 200], device="cuda")
    mlstm(q, k, v, i, f, cu_seqlens=bounds)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        h = mlstm(q, k, v, i, f, cu_seqlens=bounds)
    bounds.copy_(torch.tensor([0, 1, 130, 200]))
    graph.replay()
    torch.testing.assert_close(h, mlstm(q, k, v, i, f, cu_seqlens=bounds), rtol=0, atol=0)


def test_the_books_own_measurement() -> None:
    pytest.importorskip("pandas")
    from companion.benchmarks.kernels.results import measure_here

    timings, note = measure_here()
    assert note == ""
    assert timings is not None
    assert (timings.table["seconds_median"] > 0).all()
