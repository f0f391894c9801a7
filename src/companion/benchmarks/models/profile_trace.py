"""Kernels of a pass, by component. Needs torch; on a CPU the time between marks is taken instead.

A pass is captured twice as a CUDA graph: with a marking kernel before every component, which says what each kernel
belongs to, and without marks, which says how long each takes where nothing comes between. Of the second, replays are
traced for half a second and the later half of them counts: a GPU under load lowers its clock, as in all other times.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from companion.architectures import Architecture
from companion.benchmarks.models import launches
from companion.benchmarks.models.profile_parts import MARK_KERNEL, Marks, Parts, marked_steps
from companion.benchmarks.models.timed import release, timing_of
from companion.benchmarks.models.training_step import Training, choose_attention
from companion.models import Memory
from companion.models.layers import Place, rotary_angles

#: Replays are traced for about so long, seconds, and how many at least and at most; times are means of the later half.
SECONDS, LEAST, MOST = 0.5, 4, 60
#: Largest relative difference between a pass in parts and the pass: of loss, or of the outputs of a layer in bfloat16.
TOLERANCE = {"training": 2e-3, "prefill_layer": 2e-2}


class Kernel(NamedTuple):
    """A kernel of a trace: seconds from any origin."""

    name: str
    start: float
    end: float


def profile(part: str, architecture: Architecture, context_length: int, batch_size: int, device: str) -> dict[str, Any]:
    """Seconds and numbers of kernels by component of one pass.

    Returns
    -------
    dict
        `seconds` and `kernels` by component, `attention`, `launch`.

    Raises
    ------
    ArithmeticError
        if a pass in parts differs from the pass.
    """
    torch.compiler.reset()
    release(device)
    marks = Marks(device)
    makers: dict[str, Callable[..., Callable[[], Any]]]
    makers = {"step": _step, "prefill_layer": _prefill_layer, "training": _training}
    choose = choose_attention if part == "training" else launches.choose_attention
    attention = "own kernel" if part == "step" else choose(architecture, device)
    with launches.attention(attention):
        action = makers[part](architecture, context_length, batch_size, marks)
        found = _traced(action, marks) if device == "cuda" else _clocked(action, marks)
    if part == "step" and "attention" not in found["seconds"]:
        attention = "none"
    return {**found, "attention": attention}


def _step(architecture: Architecture, context_length: int, batch_size: int, marks: Marks) -> Callable[[], None]:
    """A generated token, by its own kernels."""
    model = launches.random_model(architecture, marks.device)
    step = launches.Step(model, batch_size, context_length, marks.device)

    def action() -> None:
        with marked_steps(model, marks):
            marks("embedding")
            step()

    return action


def _prefill_layer(architecture: Architecture, context_length: int, batch_size: int, marks: Marks) -> Callable[[], Any]:
    """A layer that reads a prompt and keeps it."""
    model = launches.random_model(architecture, marks.device)
    block = model.blocks[0]
    dtype, device = model.unembedding.weight.dtype, marks.device
    memory = Memory.empty(architecture, batch_size, context_length, dtype=dtype, device=device).layers[0]
    x = torch.randn(batch_size, context_length, int(architecture.d_model), device=device, dtype=dtype)
    positions = torch.arange(context_length, device=device)
    place = Place(positions, rotary_angles(positions, model.rotary_width) if model.rotary_width else None, True)
    parts = Parts(marks)

    @torch.no_grad()
    def action() -> Tensor:
        parts.start("norms")
        stream, branch = parts.block(block, x, None, place, memory)
        return stream + parts.to("norms", branch)

    with torch.no_grad():
        _compare("prefill_layer", action(), block(x, place, memory))
    return action


def _training(architecture: Architecture, context_length: int, batch_size: int, marks: Marks) -> Callable[[], Any]:
    """A training step."""
    training, parts = Training(architecture, marks.device), Parts(marks)
    training.tokens = training.batch(batch_size, context_length)
    in_parts = partial(parts.loss, training.model)
    with training.mixed():
        found = in_parts(training.tokens).detach()  # with gradients, so that the step needs no other code
        with torch.no_grad():
            _compare("training", found, training.loss(training.tokens))
    training.loss = in_parts
    training.optimizer.register_step_pre_hook(lambda *_: marks("optimizer"))
    return training


def _compare(part: str, found: Tensor, expected: Tensor) -> None:
    error = float((found.float() - expected.float()).norm() / expected.float().norm())
    if not error <= TOLERANCE[part]:
        raise ArithmeticError(f"in parts: relative difference {error:.3g} from the whole, allowed {TOLERANCE[part]}")


def _clocked(action: Callable[[], Any], marks: Marks) -> dict[str, Any]:
    """Seconds between marks of a pass that runs while its code is executed."""
    action()
    marks.clear()
    action()
    marks("end")
    seconds: dict[str, float] = {}
    for name, (begin, end) in zip(marks.names, pairwise(marks.times), strict=False):
        seconds[name] = seconds.get(name, 0.0) + end - begin
    return {"seconds": seconds, "kernels": {}, "launch": "eager"}


def _traced(action: Callable[[], Any], marks: Marks) -> dict[str, Any]:
    """Seconds of the kernels of a pass, as a CUDA graph."""
    action()  # compiles
    marks.clear()
    marked = _trace(_captured(action, marks, enabled=True), 1)
    release(marks.device)
    labels = labels_of(marked, marks.names)
    graph = _captured(action, marks, enabled=False)
    wall = timing_of(graph.replay, marks.device)["seconds_median"]
    replays = max(LEAST, min(MOST, int(SECONDS / wall)))
    kernels = _trace(graph, replays)
    later = len(kernels) // replays * (replays // 2)
    return {**by_component(kernels[later:], labels, wall), "launch": "graph"}


def _captured(action: Callable[[], Any], marks: Marks, enabled: bool) -> Any:
    """A pass as a CUDA graph; the names of its marks, if they are enabled, are those of this capture alone."""
    marks.enabled = enabled
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        action()
    torch.cuda.current_stream().wait_stream(stream)
    release(marks.device)
    marks.clear()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        action()
    return graph


def _trace(graph: Any, replays: int) -> list[Kernel]:
    """Kernels of some replays, in their order."""
    graph.replay()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(replays):
            graph.replay()
        torch.cuda.synchronize()
    on_gpu = torch.autograd.DeviceType.CUDA
    events: Any = profiler.events() or []
    found = [
        Kernel(each.name, each.time_range.start / 1e6, each.time_range.end / 1e6)
        for each in events
        if each.device_type == on_gpu
    ]
    return sorted(found, key=lambda kernel: kernel.start)


def labels_of(kernels: Sequence[Kernel], names: Sequence[str]) -> list[tuple[str, str]]:
    """Name and component of every kernel but the marks: that of the mark before it, the first before any mark.

    Raises
    ------
    ArithmeticError
        if the trace has another number of marks than were made.
    """
    found, number = [], -1
    for kernel in kernels:
        if MARK_KERNEL in kernel.name:
            number += 1
        elif number < len(names):
            found.append((kernel.name, names[max(number, 0)]))
    if number + 1 != len(names):
        raise ArithmeticError(f"trace: {number + 1} marks, {len(names)} were made")
    return found


def by_component(kernels: Sequence[Kernel], labels: Sequence[tuple[str, str]], wall: float) -> dict[str, Any]:
    """Seconds and numbers of kernels by component, a pass.

    A kernel counts from the end of what ran before it: kernels that begin early (programmatic dependent launch) wait.
    Time in which no kernel of a pass runs is `gaps`; tracing makes these longer, so they are at most what the kernels
    leave of a pass that is not traced.

    Parameters
    ----------
    kernels
        of one or more passes, in their order.
    labels
        name and component of each kernel of one pass.
    wall
        seconds of a pass without a profiler.

    Raises
    ------
    ArithmeticError
        if the kernels are not those of the labels, some times over.
    """
    passes, rest = divmod(len(kernels), max(len(labels), 1))
    if not passes or rest or any(x.name != name for x, (name, _) in zip(kernels, [*labels] * passes, strict=True)):
        raise ArithmeticError(f"trace: {len(kernels)} kernels without marks, {len(labels)} with marks, or other ones")
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    before, idle = kernels[0].start, 0.0
    for number, (kernel, (_, component)) in enumerate(zip(kernels, [*labels] * passes, strict=True)):
        if number % len(labels):
            idle += max(0.0, kernel.start - before) / passes
        busy = max(0.0, kernel.end - max(kernel.start, before))
        seconds[component] = seconds.get(component, 0.0) + busy / passes
        if number < len(labels):
            counts[component] = counts.get(component, 0) + 1
        before = max(before, kernel.end)
    seconds["gaps"] = min(idle, max(0.0, wall - sum(seconds.values())))
    return {"seconds": seconds, "kernels": counts}
