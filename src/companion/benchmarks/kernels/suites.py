"""Timings of mLSTM kernels: whole sequences forward and forward with backward, and single steps. Needs a CUDA GPU.

Nothing is timed before `gate` has found it right; a cell that is not timed holds the reason.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from companion.benchmarks.kernels import timing
from companion.benchmarks.kernels.checks import DeviceFault, failure
from companion.benchmarks.kernels.counts import sequence_counts, shares, step_counts
from companion.benchmarks.kernels.gate import judge_errors, verify_small, verify_timed
from companion.benchmarks.kernels.implementations import (
    ATTENTION_WIDTH,
    Implementation,
    StepImplementation,
    absent,
    timed,
    timed_steps,
)
from companion.benchmarks.kernels.references import STATE_NAMES, relative_error
from companion.benchmarks.kernels.shapes import Shape
from companion.kernels.mlstm.oracle import mlstm_oracle
from companion.kernels.mlstm.state import MLSTMState

Fields = dict[str, Any]
#: Seconds that all timings of one cell may take.
LIMIT = 0.5
#: Steps that a CUDA graph holds at least.
GRAPH_STEPS = 10


@dataclass(frozen=True)
class Settings:
    """How often cells are timed, and the peaks their rates are compared with; what the gate found so far."""

    repeats: int
    peaks: dict[str, float]
    device: str = "cuda"
    wanted: Callable[[str, str], bool] = lambda name, library: True
    gates: dict[tuple[Any, ...], Fields] = field(default_factory=dict)

    def gate(self, implementation: Implementation, d_qk: int, d_hv: int, *, backward: bool) -> Fields:
        """What `verify_small` says: once for an implementation, heads and pass, as every timed length asks the same."""
        key = (implementation.name, d_qk, d_hv, backward)
        if key not in self.gates:
            self.gates[key] = verify_small(implementation, d_qk, d_hv, backward=backward, device=self.device)
        return self.gates[key]


def sequences(shape: Shape, *, backward: bool, settings: Settings, todo: Callable[[Fields], bool]) -> Iterator[Fields]:
    """Results of all implementations on whole sequences of one shape."""
    slices: dict[str, dict[str, torch.Tensor]] = {}
    part = "training" if backward else "forward"
    for implementation in timed():
        if not settings.wanted(implementation.name, implementation.library):
            continue
        heads, d_qk, d_hv = _heads(shape, implementation)
        fields: Fields = {
            "part": part,
            "case": shape.name,
            "implementation": implementation.name,
            "computation": implementation.computation,
            "layout": implementation.layout,
            "chunk_size": implementation.chunk_size,
            "batch_size": shape.batch_size,
            "context_length": shape.context_length,
            "n_heads": heads,
            "d_qk": d_qk,
            "d_hv": d_hv,
        }
        if not todo(fields):
            continue
        yield from guarded(fields, partial(_sequence, implementation, shape, backward, settings, slices))


def steps(shape: Shape, *, settings: Settings, todo: Callable[[Fields], bool]) -> Iterator[Fields]:
    """Results of all implementations on single steps of one shape, launched one by one and as a CUDA graph."""
    for implementation in timed_steps():
        if not settings.wanted(implementation.name, implementation.library):
            continue
        for launch in ("calls", "graph"):
            fields: Fields = {
                "part": "step",
                "case": shape.name,
                "implementation": implementation.name,
                "launch": launch,
                "state_dtype": implementation.state_dtype,
                "batch_size": shape.batch_size,
                "n_heads": shape.n_heads,
                "d_qk": shape.d_qk,
                "d_hv": shape.d_hv,
            }
            if not todo(fields):
                continue
            yield from guarded(fields, partial(_step, implementation, shape, launch, settings))


def guarded(fields: Fields, measure: Callable[[], Fields]) -> Iterator[Fields]:
    """The cell with what was measured; out of memory is a reason not to, a fault is yielded, and then ends the run."""
    try:
        yield {**fields, **measure()}
    except torch.OutOfMemoryError as error:
        yield {**fields, "skipped": f"out of memory: {' '.join(str(error).split())[:120]}"}
    except DeviceFault as error:
        yield {**fields, "skipped": f"fault of the GPU: {error}"}
        raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _sequence(
    implementation: Implementation,
    shape: Shape,
    backward: bool,
    settings: Settings,
    slices: dict[str, dict[str, torch.Tensor]],
) -> Fields:
    heads, d_qk, d_hv = _heads(shape, implementation)
    reason = absent(implementation.library) or implementation.refusal(shape.context_length, d_qk, d_hv)
    if reason:
        return {"skipped": reason}
    gate = settings.gate(implementation, d_qk, d_hv, backward=backward)
    if not gate["verified"]:
        return {"skipped": gate["reason"], "gate": gate}
    sets = sequence_sets(implementation, shape, backward, settings.device)

    def action(number: int) -> dict[str, torch.Tensor]:
        *tensors, upstream = sets[number % len(sets)]
        with torch.set_grad_enabled(backward):
            h, _ = implementation.call(*tensors, None, False)
            if not backward:
                return {"h": h}
            leaves = tensors[: {"attention": 3}.get(implementation.computation, 5)]
            gradients = torch.autograd.grad(h, leaves, upstream, allow_unused=True)
        return {"h": h.detach(), **dict(zip(("dq", "dk", "dv"), gradients, strict=False))}

    try:
        found = action(0)
        _wait(settings.device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a refusal is a reason not to time it
        return {"skipped": failure(error)["reason"], "gate": gate}
    *tensors, upstream = sets[0]
    at_shape = verify_timed(implementation, tuple(tensors), found, upstream, slices)
    del found
    if not at_shape["verified"]:
        return {"skipped": at_shape["reason"], "gate": gate, "gate_at_shape": at_shape}
    memory = timing.peak_memory(action)
    times = timing.seconds(action, repeats=settings.repeats, limit=LIMIT)
    counts = sequence_counts(
        implementation.computation,
        batch_size=shape.batch_size,
        context_length=shape.context_length,
        n_heads=heads,
        d_qk=d_qk,
        d_hv=d_hv,
        backward=backward,
    )
    rates = shares(times, counts, settings.peaks)
    common = {"input_sets": len(sets), "peak_memory_bytes": memory}
    return {**times, **common, **rates, "gate": gate, "gate_at_shape": at_shape}


def _heads(shape: Shape, implementation: Implementation) -> tuple[int, int, int]:
    """Attention has heads of 128 and the same width altogether."""
    if implementation.computation == "attention":
        return shape.n_heads * shape.d_hv // ATTENTION_WIDTH, ATTENTION_WIDTH, ATTENTION_WIDTH
    return shape.n_heads, shape.d_qk, shape.d_hv


def sequence_sets(
    implementation: Implementation, shape: Shape, backward: bool, device: str
) -> list[list[torch.Tensor]]:
    """As many `sequence_inputs` as no cache holds."""
    heads, d_qk, d_hv = _heads(shape, implementation)
    random = torch.Generator(device=device).manual_seed(0)
    one = shape.batch_size * shape.context_length * heads * (2 * d_qk + d_hv) * 2
    return [sequence_inputs(implementation, shape, backward, random) for _ in range(timing.num_sets(one))]


def sequence_inputs(
    implementation: Implementation, shape: Shape, backward: bool, random: torch.Generator
) -> list[torch.Tensor]:
    """q, k, v, i, f and an upstream gradient, in the layout of the implementation; gates of an untrained xLSTM."""
    heads, d_qk, d_hv = _heads(shape, implementation)
    axes = (shape.batch_size, shape.context_length, heads)
    if implementation.layout == "bhtd":
        axes = (shape.batch_size, heads, shape.context_length)

    def normal(*width: int) -> torch.Tensor:
        dtype = torch.bfloat16 if width else torch.float32
        return torch.randn(*axes, *width, generator=random, device=random.device, dtype=dtype)

    uniform = torch.rand(*axes, generator=random, device=random.device)
    tensors = [normal(d_qk), normal(d_qk), normal(d_hv), normal() - 10, 3 + 3 * uniform]
    return [*(x.requires_grad_(backward) for x in tensors), normal(d_hv)]


def _step(implementation: StepImplementation, shape: Shape, launch: str, settings: Settings) -> Fields:
    if reason := absent(implementation.library):
        return {"skipped": reason}
    try:
        gate = verify_step(implementation, shape, settings.device)
    except Exception as error:  # a refusal is a reason not to time it
        return {"skipped": failure(error)["reason"]}
    if not gate["verified"]:
        return {"skipped": gate["reason"], "gate": gate}
    number_bytes = getattr(torch, implementation.state_dtype).itemsize
    counts = step_counts(
        batch_size=shape.batch_size,
        n_heads=shape.n_heads,
        d_qk=shape.d_qk,
        d_hv=shape.d_hv,
        state_bytes=number_bytes,
    )
    seeds = range(timing.num_sets(int(counts["least_bytes"] / 2)))
    sets = [_step_inputs(implementation, shape, seed, settings.device) for seed in seeds]

    def one(number: int) -> torch.Tensor:
        vectors, state = sets[number % len(sets)]
        h, new = implementation.call(*vectors, state)
        sets[number % len(sets)] = (vectors, new)
        return h

    with torch.no_grad():
        for number in range(len(sets)):
            one(number)
        if launch == "calls":
            memory = timing.peak_memory(one)
            times = timing.seconds(one, repeats=max(settings.repeats, 50), limit=LIMIT)
        else:
            memory = timing.peak_memory(one)
            try:
                # a graph of one step would be timed with its own launch
                count = max(len(sets), GRAPH_STEPS)
                graph = timing.graph_of([partial(one, number) for number in range(count)])
            except Exception as error:  # what cannot be captured is not timed
                return {"skipped": failure(error)["reason"], "gate": gate}
            times = timing.seconds(
                lambda _: graph.replay(), repeats=max(settings.repeats, 20), limit=LIMIT, calls=count
            )
    rates = shares(times, counts, settings.peaks)
    return {**times, "input_sets": len(sets), "peak_memory_bytes": memory, **rates, "gate": gate}


def _step_inputs(
    implementation: StepImplementation, shape: Shape, seed: int, device: str
) -> tuple[list[torch.Tensor], MLSTMState]:
    random = torch.Generator(device=device).manual_seed(seed)
    axes = (shape.batch_size, shape.n_heads)

    def normal(*width: int) -> torch.Tensor:
        return torch.randn(*axes, *width, generator=random, device=device)

    vectors = [normal(width).bfloat16() for width in (shape.d_qk, shape.d_qk, shape.d_hv)]
    pair = [normal() - 2, 3 + 3 * torch.rand(*axes, generator=random, device=device)]
    C = normal(shape.d_qk, shape.d_hv).to(getattr(torch, implementation.state_dtype))
    return [*vectors, *pair], MLSTMState(C, normal(shape.d_qk), normal())


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def verify_step(implementation: StepImplementation, shape: Shape, device: str) -> Fields:
    """One step of the timed shape (at most 16 sequences) against the float64 recurrence."""
    small = Shape(shape.n_heads, shape.d_qk, shape.d_hv, batch_size=min(shape.batch_size, 16))
    vectors, state = _step_inputs(implementation, small, 1234, device)
    expected, final = mlstm_oracle(*(x[:, None] for x in vectors), initial_state=state)
    with torch.no_grad():
        h, new = implementation.call(*vectors, MLSTMState(*(x.clone() for x in state)))
    found = {"h": h, **dict(zip(STATE_NAMES, new, strict=True))}
    wanted = {"h": expected[:, 0], **dict(zip(STATE_NAMES, final, strict=True))}
    return judge_errors({name: relative_error(found[name], wanted[name])[0] for name in wanted}, None)
