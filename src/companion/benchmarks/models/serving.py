"""The cells of one model and size: what each needs, by which launches it is timed, and what becomes of its errors."""

import traceback
from collections.abc import Sequence
from typing import Any

import torch
import torch._dynamo

from companion.accounting.inference import InferencePass, count_prefill, count_step
from companion.architectures import Architecture
from companion.benchmarks.models.gate import UNKNOWN, verified
from companion.benchmarks.models.launches import (
    Prefill,
    Step,
    attention,
    choose_attention,
    launches_of,
    random_model,
)
from companion.benchmarks.models.models import architecture_of, shapes_of
from companion.benchmarks.models.session import Session, say
from companion.benchmarks.models.timed import does_not_fit, free_bytes, release
from companion.models import LanguageModel

#: A prefill that takes longer than this, seconds, is not captured: the GPU is busy while the host launches.
GRAPH_SECONDS = 0.2
#: How much longer a prefill takes than its roofline, before one was measured.
SLOWNESS = 2.0
#: FLOP/s and bytes/s by which times are foreseen where no peaks were measured.
ASSUMED = (2e10, 1e10)
#: Errors of CUDA after which a process computes nothing more.
FAULTS = ("illegal memory access", "device-side assert", "launch failure", "misaligned address")


class DeviceFault(RuntimeError):
    """The GPU reported a fault: nothing more can be measured in this process."""


def measure_model(session: Session, name: str, size: str, cells: Sequence[dict[str, Any]]) -> None:
    """Check a model and time its cells; results go to the session.

    Raises
    ------
    DeviceFault
        if the GPU reports a fault; the cell is kept as failed.
    """
    architecture, device = architecture_of(name, size), session.device
    common = {"model": name, "size": size, "shapes": shapes_of(architecture)}
    counted = [count(architecture, cell) for cell in cells]
    weights, free = float(counted[0].memory.weights), free_bytes(device)
    if weights > free:
        for cell in cells:
            session.add({**cell, **common, "skipped": does_not_fit(weights, free)})
        return
    torch._dynamo.reset()
    release(device)
    model = random_model(architecture, device)
    backend = choose_attention(architecture, device)
    say(f"{name} {size}: {sum(p.numel() for p in model.parameters()):,} parameters, attention of torch: {backend}")
    with attention(backend):
        if not checked(session, model, {**common, "implementation": "companion", "attention": backend}):
            session.total -= len(cells)
            say(f"{name} {size}: a check failed; it is not timed")
            return
        slowness = SLOWNESS
        for cell, costs in zip(cells, counted, strict=True):
            if session.out_of_time():
                return
            foreseen = roofline(session, costs) * slowness
            found = measured(session, model, {**cell, **common, "attention": backend}, costs, foreseen)
            session.total += len(found) - 1
            for result in found:
                session.add(result)
            if cell["part"] == "prefill" and "seconds_median" in found[-1]:
                slowness = found[-1]["seconds_median"] / roofline(session, costs)
            if float(costs.memory.total) > free_bytes(device) / 10:  # small pools of graphs need not go back at once
                release(device)


def checked(session: Session, model: LanguageModel, common: dict[str, Any]) -> bool:
    """Whether the gate passes; an error in it is a check that fails."""
    try:
        return verified(session, model, common)
    except RuntimeError as error:
        traceback.print_exc()
        reason = why(error, 0.0, free_bytes(session.device))
    nothing = {"error": UNKNOWN, "reference_error": UNKNOWN, "tolerance": 0.0}
    fields = {"part": "check", **common, "quantity": "the checks themselves", "batch_size": 0}
    session.add({**fields, **nothing, "verdict": "fail", "reason": reason})
    if any(word in reason for word in FAULTS):
        raise DeviceFault(reason)
    return False


def count(architecture: Architecture, cell: dict[str, Any]) -> InferencePass:
    """What a cell costs; the context of a step holds its new token."""
    if cell["part"] == "prefill":
        return count_prefill(architecture, cell["prompt_tokens"], cell["batch_size"])
    return count_step(architecture, cell["prompt_tokens"] + 1, cell["batch_size"])


def moved_bytes(costs: InferencePass) -> float:
    """Bytes of a prefill: all that are counted. Of a step: weights, the cache read, the state read and written."""
    traffic = costs.traffic
    return float(traffic.total if costs.kind == "prefill" else traffic.weights + traffic.cache)


def roofline(session: Session, costs: InferencePass) -> float:
    """Seconds that a cell takes at least, at the peaks measured in this run."""
    measured = session.parameters["matmul_flops_per_s"], session.parameters["copy_bytes_per_s"]
    flops_per_s, bytes_per_s = (x or assumed for x, assumed in zip(measured, ASSUMED, strict=True))
    return max(float(costs.flops.total) / flops_per_s, moved_bytes(costs) / bytes_per_s)


def measured(
    session: Session, model: LanguageModel, fields: dict[str, Any], costs: InferencePass, foreseen: float
) -> list[dict[str, Any]]:
    """Results of a cell: its times, the fastest launch or all, or why there are none."""
    device, needed, free = session.device, float(costs.memory.total), free_bytes(session.device)
    reason = does_not_fit(needed, free) if needed > free else session.too_slow(foreseen)
    if reason:
        return [{**fields, "skipped": reason}]
    found: list[dict[str, Any]] = []

    def done(launch: str, times: dict[str, Any]) -> None:
        shares = session.shares(times["seconds_median"], float(costs.flops.total), moved_bytes(costs))
        found.append({**fields, "launch": launch, **times, **shares})

    step = fields["part"] == "step"
    if step:
        fields = {**fields, "memory": "random numbers, no prompt was read", "bytes_of": "weights, cache or state"}
    fault, reason = "", ""
    try:
        kind = Step if step else Prefill
        action = kind(model, fields["batch_size"], fields["prompt_tokens"], device)
        wanted = launches(session, fields, foreseen)
        launches_of(action, "step" if step else "forward", device, wanted, done)
    except RuntimeError as error:
        reason = why(error, needed, free)
        fault = reason if any(word in reason for word in FAULTS) else ""
        session.num_failed += reason.startswith("failed")
    if not found:
        found = [{**fields, "skipped": reason}]
    elif not session.options.all_launches:
        found = [min(found, key=lambda result: result["seconds_median"])]
    if fault:
        for result in found:
            session.add(result)
        raise DeviceFault(fault)
    return found


def why(error: BaseException, needed: float, free: float) -> str:
    """What becomes of an error in a record: memory that ran out, also while a graph was captured, or a failure."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError):
            return f"{does_not_fit(needed, free)}: more was needed than foreseen"
        cause = cause.__context__
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def launches(session: Session, fields: dict[str, Any], foreseen: float) -> tuple[str, ...]:
    """The launches of a cell that may be the fastest; with --all-launches all of them."""
    options, graphs = session.options, session.device == "cuda"
    one_token_of_one = fields["part"] == "step" and fields["batch_size"] == 1  # has kernels of its own
    wanted: tuple[str, ...]
    if options.all_launches:
        wanted = ("eager", "graph", "compiled", "compiled graph")
    elif fields["part"] == "step":
        wanted = ("graph",) if one_token_of_one else ("graph", "compiled graph")
    else:
        wanted = ("compiled",) if foreseen > GRAPH_SECONDS else ("compiled graph",)
    if options.no_compile or one_token_of_one:
        wanted = tuple(dict.fromkeys(name.replace("compiled graph", "graph") for name in wanted))
        wanted = tuple(dict.fromkeys(name.replace("compiled", "eager") for name in wanted))
    if not graphs:
        wanted = tuple(dict.fromkeys({"graph": "eager", "compiled graph": "compiled"}.get(n, n) for n in wanted))
    return wanted
