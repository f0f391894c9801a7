"""Counts behind rates, and the suites that time: nothing wrong is timed, every cell without a time has a reason."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

from companion.accounting.inference import RECURRENT_GATE_FLOPS, mlstm_recurrent_flops
from companion.benchmarks.kernels import counts, suites, timing
from companion.benchmarks.kernels.checks import DeviceFault
from companion.benchmarks.kernels.implementations import (
    Implementation,
    StepImplementation,
    absent,
    attention,
    peers,
    plain_torch,
    timed,
    timed_steps,
)
from companion.benchmarks.kernels.shapes import (
    HEADS,
    NARROW_HEADS,
    Shape,
    select_shapes,
    sequence_shapes,
    step_shapes,
)

SHAPE = Shape(2, 32, 48, batch_size=2, context_length=150)
TIMES = {"seconds_median": 2e-3, "seconds_quartile_1": 1e-3, "seconds_quartile_3": 3e-3, "repeats": 5}
PEAKS = {"peak_flops_per_s": 1e15, "peak_bytes_per_s": 4e12}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> suites.Settings:
    """On a CPU: actions run once and take two milliseconds."""

    def seconds(action: Any, **_: Any) -> dict[str, Any]:
        action(1)
        return TIMES

    monkeypatch.setattr(timing, "seconds", seconds)
    monkeypatch.setattr(timing, "peak_memory", lambda action: 123)
    monkeypatch.setattr(timing, "num_sets", lambda size: 2)
    return suites.Settings(5, PEAKS, "cpu")


def run(
    monkeypatch: pytest.MonkeyPatch, settings: Any, chosen: list[Implementation], *, backward: bool = True
) -> list[dict[str, Any]]:
    monkeypatch.setattr(suites, "timed", lambda: chosen)
    return list(suites.sequences(SHAPE, backward=backward, settings=settings, todo=lambda fields: True))


def test_what_is_right_is_timed(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    for backward in (False, True):
        (result,) = run(monkeypatch, settings, [plain_torch(64)], backward=backward)
        assert result["seconds_median"] == 2e-3
        assert result["gate"]["verified"]
        assert result["gate_at_shape"]["verified"]
        assert result["part"] == ("training" if backward else "forward")
        assert result["peak_memory_bytes"] == 123
        assert result["share_of_peak_flops"] == pytest.approx(result["useful_flops"] / 2e-3 / 1e15, rel=1e-4)


def test_what_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    right = plain_torch(64)

    def call(*arguments: Any, **options: Any) -> Any:
        h, state = right.call(*arguments, **options)
        return h * 1.1, state

    def large_only(q: Any, *arguments: Any, **options: Any) -> Any:
        h, state = right.call(q, *arguments, **options)
        return (h * 1.1 if q.shape[0] == SHAPE.batch_size else h), state

    def last_head(q: Any, *arguments: Any, **options: Any) -> Any:
        h, state = right.call(q, *arguments, **options)
        scale = torch.ones(q.shape[2])
        scale[-1] = 1.1 if q.shape[2] > 1 else 1.0
        return h * scale[:, None].to(h.dtype), state

    chosen = [replace(right, name=f.__name__, call=f) for f in (call, large_only, last_head)]
    results = run(monkeypatch, settings, chosen)
    assert all("seconds_median" not in result for result in results)
    assert "wrong: relative error of" in results[0]["skipped"]
    assert all("at the timed shape" in result["skipped"] for result in results[1:])


def test_every_refusal_is_a_reason(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    def raising(error: Exception) -> Implementation:
        def call(*_: Any, **__: Any) -> Any:
            raise error

        return replace(plain_torch(64), name=type(error).__name__, call=call)

    refusals = [RuntimeError("Triton >= 3.4.0 on Hopper"), AssertionError("S % 16")]
    absent_peer = next(peer for peer in peers() if absent(peer.library))
    chosen = [*map(raising, refusals), absent_peer, replace(plain_torch(64), name="odd", multiple=64)]
    found = [result["skipped"] for result in run(monkeypatch, settings, chosen)]
    assert found[0] == "RuntimeError: Triton >= 3.4.0 on Hopper"
    assert found[1] == "AssertionError: S % 16"
    assert "is not installed" in found[2]
    assert found[3] == "context_length 150 is not a multiple of 64"


def test_out_of_memory_is_a_reason_and_a_fault_ends_the_run(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    small = plain_torch(64)

    def call(q: Any, *arguments: Any, **options: Any) -> Any:
        if q.shape[0] == SHAPE.batch_size:
            raise torch.OutOfMemoryError("tried to allocate 1 TiB")
        return small.call(q, *arguments, **options)

    def fault(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    memory, broken = (replace(small, name=f.__name__, call=f) for f in (call, fault))
    (result,) = run(monkeypatch, settings, [memory])
    assert result["skipped"].startswith("out of memory")
    monkeypatch.setattr(suites, "timed", lambda: [broken, small])
    results = suites.sequences(SHAPE, backward=False, settings=settings, todo=lambda fields: True)
    assert next(results)["skipped"].startswith("fault of the GPU")
    with pytest.raises(DeviceFault):
        next(results)


def test_steps(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    torch_step = next(x for x in timed_steps() if x.library == "torch")

    def wrong(*arguments: Any) -> Any:
        h, state = torch_step.call(*arguments)
        return h, state._replace(n=state.n * 1.1)

    class Graph:
        def replay(self) -> None:
            pass

    monkeypatch.setattr(timing, "graph_of", lambda actions: [action() for action in actions] and Graph())
    chosen = [torch_step, StepImplementation(name="wrong", library="torch", state_dtype="float32", call=wrong)]
    monkeypatch.setattr(suites, "timed_steps", lambda: chosen)
    shape = Shape(2, 16, 24, batch_size=3)
    results = list(suites.steps(shape, settings=settings, todo=lambda fields: True))
    assert [x["launch"] for x in results] == ["calls", "graph", "calls", "graph"]
    assert all(x["gate"]["verified"] and x["seconds_median"] == 2e-3 for x in results[:2])
    assert all("relative error of n" in x["skipped"] for x in results[2:])


def test_attention_is_verified(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    def plain(q: Any, k: Any, v: Any, *_: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True), None

    def not_causal(q: Any, k: Any, v: Any, *_: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v), None

    monkeypatch.setattr(suites, "ATTENTION_WIDTH", 16)
    chosen = [replace(attention()[0], name=call.__name__, call=call) for call in (plain, not_causal)]
    right, wrong = run(monkeypatch, settings, chosen)
    assert right["seconds_median"] == 2e-3
    assert (right["n_heads"], right["d_qk"]) == (6, 16)
    assert "wrong: relative error" in wrong["skipped"]


def test_counts() -> None:
    shape = {"batch_size": 2, "context_length": 128, "n_heads": 3, "d_qk": 32, "d_hv": 64}
    for computation in ("exponential", "sigmoid", "forget_only", "attention"):
        forward, both = (
            counts.sequence_counts(computation, **shape, backward=backward)  # type: ignore[arg-type]
            for backward in (False, True)
        )
        assert both["useful_flops"] == 3 * forward["useful_flops"]
        assert 2 * forward["least_bytes"] < both["least_bytes"] < 3 * forward["least_bytes"]
    attention_flops = counts.sequence_counts("attention", **shape, backward=False)  # type: ignore[arg-type]
    assert attention_flops["useful_flops"] == 2 * 3 * 128 * 128 * (32 + 64)
    products = 2 * 3 * 128 * (64 * (32 + 64) + 4 * 32 * 64)
    mlstm = counts.sequence_counts("exponential", **shape, backward=False)["useful_flops"]  # type: ignore[arg-type]
    assert products < mlstm < 1.1 * products
    step = counts.step_counts(batch_size=2, n_heads=3, d_qk=32, d_hv=64, state_bytes=4)
    assert step["useful_flops"] == 6 * (mlstm_recurrent_flops(32, 64) - RECURRENT_GATE_FLOPS)
    assert step["least_bytes"] == 6 * (2 * 4 * (32 * 64 + 33) + 2 * (64 + 128) + 8)


def test_shapes_hold_the_tokens_and_batches() -> None:
    shapes = sequence_shapes()
    assert {shape.context_length * shape.batch_size for shape in shapes} == {65536}
    assert {shape.context_length for shape in shapes} == {1024 * 2**n for n in range(7)}
    assert {(shape.n_heads, shape.d_qk, shape.d_hv) for shape in shapes} == {*HEADS, NARROW_HEADS}
    assert {shape.batch_size for shape in step_shapes()} == {1, 4, 16, 64, 256}
    assert len(select_shapes(shapes, ["8x256x512", "T8192"])) == 1
    assert len(select_shapes(shapes, ["T8192"])) == 4
    assert len(select_shapes(shapes, ["8x128x128"])) == 7
    assert select_shapes(step_shapes(), ["T8192"]) == ()
    assert select_shapes(shapes, ["packed"]) == ()
    assert [x.name for x in select_shapes(step_shapes(), ["8x256x512-B4"])] == ["8x256x512-B4"]


def test_what_is_timed() -> None:
    names = [x.name for x in timed()]
    assert len(set(names)) == len(names)
    for wanted in ("companion", "companion, detached normaliser", "attention, cuDNN", "attention, flash"):
        assert wanted in names
    assert {"mlstm_kernels", "fla"} <= {x.library for x in timed()}
    mlstm_kernels = next(x for x in peers() if x.library == "mlstm_kernels" and x.chunk_size == 128)
    assert mlstm_kernels.refusal(100, 64, 64) == "context_length 100 is not a multiple of 128"
    assert mlstm_kernels.refusal(128, 20, 64) == "head sizes 20, 64 are not multiples of 16"
    assert mlstm_kernels.refusal(256, 64, 64) is None


def test_the_gate_is_asked_once_for_each_implementation_heads_and_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def verify(implementation: Implementation, d_qk: int, d_hv: int, *, backward: bool, device: str) -> dict[str, Any]:
        asked.append((implementation.name, d_qk, d_hv, backward))
        return {"verified": len(asked)}

    monkeypatch.setattr(suites, "verify_small", verify)
    settings = suites.Settings(5, PEAKS, device="cpu")
    questions = list(product([plain_torch(32), plain_torch(64)], (16, 32), (16, 32), (True, False)))
    first = [settings.gate(one, d_qk, d_hv, backward=backward) for one, d_qk, d_hv, backward in questions]
    again = [settings.gate(one, d_qk, d_hv, backward=backward) for one, d_qk, d_hv, backward in questions]
    assert asked == [(one.name, *rest) for one, *rest in questions]
    assert again == first == [{"verified": number + 1} for number in range(len(questions))]
    assert suites.Settings(5, PEAKS, device="cpu").gates == {}, "not shared between runs"
