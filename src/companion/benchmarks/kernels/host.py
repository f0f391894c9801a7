"""What a call of the cell takes of the host: the time until Python goes on, while the GPU computes. Needs torch.

Heads of small models are done on the GPU before the host has launched what comes next: then this is the time of a
training step. One call is timed, and a chain of calls in which h of one is v of the next: what every further call takes
is left when all is gone that a function takes once, whatever is in it (guards of a compiled graph, the start of the
autograd engine). The device is waited for every few calls, so that no launch waits for room in the queue.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from companion.benchmarks.kernels.checks import failure
from companion.benchmarks.kernels.counts import significant
from companion.benchmarks.kernels.implementations import Implementation, absent, timed
from companion.benchmarks.kernels.shapes import Shape
from companion.benchmarks.kernels.suites import Fields, Settings, guarded, sequence_inputs

Tensors = list[torch.Tensor]
#: Timings of a cell, calls before the first, calls between two waits for the device, and calls in a chain.
CALLS, WARM_UP, EVERY, CHAIN = 200, 20, 10, 6
#: Of what is timed on whole sequences these are timed here: ours, and for comparison.
COMPARED = ("companion", "torch chunkwise, chunk 64", "mlstm_kernels xl_chunk, chunk 128", "attention, flash")
LAUNCHES = ("calls", "compiled")
#: Seconds that a first call in a process of its own may take.
FIRST_LIMIT = 300


def one_product() -> Implementation:
    """What torch takes for any operation with a gradient: v times 1."""

    def call(q: Any, k: Any, v: Any, i: Any, f: Any, state: Any = None, return_state: bool = False) -> Any:
        return v * 1.0, None

    return Implementation(name="torch, v · 1", library="torch", computation="none", layout="bthd", call=call)


def hosts(shape: Shape, *, settings: Settings, todo: Callable[[Fields], bool]) -> Iterator[Fields]:
    """Host times of one shape: ours, others and a single operation, called one by one and under `torch.compile`."""
    for implementation in (*(x for x in timed() if x.name in COMPARED), one_product()):
        if not settings.wanted(implementation.name, implementation.library):
            continue
        for launch in LAUNCHES:
            fields: Fields = {
                "part": "host",
                "case": shape.name,
                "implementation": implementation.name,
                "computation": implementation.computation,
                "launch": launch,
                "batch_size": shape.batch_size,
                "context_length": shape.context_length,
                "n_heads": shape.n_heads,
                "d_qk": shape.d_qk,
                "d_hv": shape.d_hv,
            }
            if todo(fields):
                yield from guarded(fields, partial(_host, implementation, shape, launch, settings))


def _host(implementation: Implementation, shape: Shape, launch: str, settings: Settings) -> Fields:
    reason = absent(implementation.library) or implementation.refusal(shape.context_length, shape.d_qk, shape.d_hv)
    if reason:
        return {"skipped": reason}
    gate: Fields = {"verified": True, "reason": "no cell"}
    if implementation.computation != "none":
        gate = settings.gate(implementation, shape.d_qk, shape.d_hv, backward=True)
    if not gate["verified"]:
        return {"skipped": gate["reason"], "gate": gate}
    random = torch.Generator(device=settings.device).manual_seed(0)
    *tensors, upstream = sequence_inputs(implementation, shape, True, random)
    leaves = tensors[: {"attention": 3}.get(implementation.computation, 5)]
    try:
        times = {}
        for number in (1, CHAIN):
            torch.compiler.reset()
            chain = _chain(implementation, number)
            times[number] = _times(torch.compile(chain) if launch == "compiled" else chain, tensors, leaves, upstream)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a refusal is a reason not to time it
        return {"skipped": failure(error)["reason"], "gate": gate}
    one, many = times[1], times[CHAIN]
    return {
        "seconds_median": significant(one["both"]),
        "seconds_forward": significant(one["forward"]),
        "seconds_further": significant((many["both"] - one["both"]) / (CHAIN - 1)),
        "repeats": CALLS,
        "gate": gate,
    }


def _chain(implementation: Implementation, number: int) -> Callable[..., torch.Tensor]:
    def chain(q: Any, k: Any, v: Any, i: Any, f: Any) -> Any:
        for _ in range(number):
            v, _state = implementation.call(q, k, v, i, f, None, False)
        return v

    return chain


def _times(
    call: Callable[..., torch.Tensor], tensors: Tensors, leaves: Tensors, upstream: torch.Tensor
) -> dict[str, float]:
    """Seconds of the host: `forward` without gradient, and `both` passes."""

    def forward() -> None:
        with torch.no_grad():
            call(*tensors)

    def both() -> None:
        torch.autograd.grad(call(*tensors), leaves, upstream, allow_unused=True)

    return {"forward": _median(forward), "both": _median(both)}


def _median(action: Callable[[], None]) -> float:
    found = []
    for number in range(WARM_UP + CALLS):
        if number % EVERY == 0:
            wait()
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return statistics.median(found[WARM_UP:])


def first_calls(shape: Shape, *, settings: Settings, todo: Callable[[Fields], bool]) -> Iterator[Fields]:
    """Seconds of the first forward and backward pass of a process, with nothing in Triton's cache."""
    fields: Fields = {
        "part": "first-call",
        "case": shape.name,
        "implementation": "companion",
        "computation": "exponential",
        "launch": "calls",
        "batch_size": shape.batch_size,
        "context_length": shape.context_length,
        "n_heads": shape.n_heads,
        "d_qk": shape.d_qk,
        "d_hv": shape.d_hv,
    }
    if settings.wanted("companion", "companion") and todo(fields):
        yield from guarded(fields, partial(_first_call, shape, settings.device))


def _first_call(shape: Shape, device: str) -> Fields:
    with tempfile.TemporaryDirectory() as folder:
        sizes = (shape.batch_size, shape.context_length, shape.n_heads, shape.d_qk, shape.d_hv)
        command = [sys.executable, "-m", "companion.benchmarks.kernels.host", device, *map(str, sizes)]
        environment = {**os.environ, "TRITON_CACHE_DIR": folder}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=FIRST_LIMIT)
        except subprocess.TimeoutExpired:
            return {"skipped": f"took longer than {FIRST_LIMIT} s"}
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    first, second = json.loads(done.stdout.splitlines()[-1])
    return {"seconds_median": significant(first), "seconds_second": significant(second), "repeats": 1}


def time_first_calls(device: str, sizes: tuple[int, ...]) -> tuple[float, float]:
    """Seconds of the first and the second forward and backward pass of this process, the device waited for."""
    from companion.kernels import mlstm

    batch_size, context_length, n_heads, d_qk, d_hv = sizes
    axes = (batch_size, context_length, n_heads)
    vectors = [torch.randn(*axes, d, device=device, dtype=torch.bfloat16) for d in (d_qk, d_qk, d_hv)]
    given = [x.requires_grad_() for x in (*vectors, *(torch.randn(*axes, device=device) for _ in range(2)))]
    (given[2] * 2).sum().backward()  # torch itself is ready
    found = []
    for _ in range(2):
        wait()
        start = time.perf_counter()
        torch.autograd.grad(mlstm(*given).sum(), given)
        wait()
        found.append(time.perf_counter() - start)
    return found[0], found[1]


def wait() -> None:
    """For the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    where, *numbers = sys.argv[1:]
    print(json.dumps(time_first_calls(where, tuple(map(int, numbers)))))
