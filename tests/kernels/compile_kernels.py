"""Compiles all Triton kernels of the mLSTM for a GPU that need not be there; prints what each takes, as lines of JSON.

Run in a process of its own, with Triton's compiler and an empty cache (a kernel from the cache leaves no log):
TRITON_DUMP_PTXAS_LOG=1 TRITON_CACHE_DIR=<empty folder> python compile_kernels.py '[<task>, ...]', where a task is
{"capability": 90, "d_qk": 256, "d_hv": 512, "chunk_size": 64, "dtype": "bfloat16"} with, as needed, "plain": false
(packed, states, sigmoid gate), "last": true (only the last candidate of each kernel), "chosen": true (only kernels with
candidates), "keep": false (the backward pass computes states again; else those of shapes for which they may be kept
come from the forward pass), "described": true (through a descriptor).
"""

import json
import sys
from typing import Any

import torch
from absent_gpu import AbsentGPU, Compiled, replace_kernels
from triton.runtime import driver

from companion.kernels.common import device
from companion.kernels.common.device import Config
from companion.kernels.mlstm import (
    configs,
    launch,
    launch_backward,
    launch_fused,
    triton_backward,
    triton_forward,
    triton_fused,
    triton_gates,
    triton_normalizer,
    triton_step,
)
from companion.kernels.mlstm.problem import Problem

#: Kernels without candidates of their own; `segment_states` runs with those of `states_and_outputs`.
UNCHOSEN = (
    "gate_vectors",
    "state_exponents",
    "gate_weights",
    "gate_gradients",
    "carry_vectors",
    "step_scalars",
    "segment_states",
)
task: dict[str, Any] = {}
seen: set[str] = set()


def report_unchosen(notes: dict[str, Any]) -> None:
    """Of kernels with candidates `run_all` prints more."""
    if notes["function"] in UNCHOSEN:
        print(json.dumps({**task, **notes, "configuration": None}), flush=True)


def run_all(kernel: str, attempt: Any, **shape: Any) -> Any:
    """In place of `configs.run`: every candidate of a kernel, once for every task."""
    shape.pop("device")
    shape.pop("variant", None)  # flags of the kernel: no part of its list
    shape.pop("programs", None)
    shape.pop("size", None)  # what the number of programs depends on
    choices = configs.candidates(kernel, **shape)
    for number, config in enumerate(choices):
        if kernel in seen or (task.get("last") and number + 1 < len(choices)):
            continue
        print(json.dumps({**task, "kernel": kernel, "configuration": str(config), **compile_one(attempt, config)}))
    seen.add(kernel)
    return silently(attempt, choices[-1])


def compile_one(attempt: Any, config: Config) -> dict[str, Any]:
    try:
        attempt(config)
    except Exception as error:  # whatever the compiler raises is the finding
        return {"error": f"{type(error).__name__}: {error}"[-2000:]}
    return Compiled.notes


def silently(attempt: Any, config: Config) -> Any:
    """What `attempt` returns, without compiling."""
    compiles = Compiled.__getitem__
    Compiled.__getitem__ = lambda self, grid: lambda *arguments, **constants: None  # type: ignore[method-assign]
    try:
        return attempt(config)
    finally:
        Compiled.__getitem__ = compiles  # type: ignore[method-assign]


def compile_kernels(options: dict[str, Any]) -> None:
    """Forward pass, backward pass and step of one task."""
    global task
    task = options
    seen.clear()
    Compiled.passed_over = UNCHOSEN if options.get("chosen") else ()
    driver.set_active(AbsentGPU(options["capability"]))
    for name in ("can_overlap", "is_hopper"):
        setattr(device, name, lambda _: options["capability"] >= 90)
    launch_fused.DESCRIBED_ABOVE = 0 if options.get("described") else 512
    dtype, plain = getattr(torch, options["dtype"]), options.get("plain", True)
    d_qk, d_hv, size = options["d_qk"], options["d_hv"], options["chunk_size"]
    # one head and one chunk at most, if not plain: numbers that are 1 become constants of the compiler
    n_heads, context_length = (2, 3 * size) if plain else (1, size)
    q = torch.zeros(1, context_length, n_heads, d_qk, dtype=dtype)
    v = torch.zeros(1, context_length, n_heads, d_hv, dtype=dtype)
    gate = torch.zeros(1, context_length, n_heads)
    places, state, gradient = None, None, None
    if not plain:
        places = torch.tensor([0, context_length])
        n = torch.zeros(1, n_heads, d_qk)
        state = (n[..., None].expand(-1, -1, -1, d_hv).contiguous(), n, torch.zeros(1, n_heads))
        gradient = state[:2]
    p = Problem.of(q, v, places, size, not plain)
    inputs, h, final = (q, q, v, gate, gate), torch.empty_like(v), None if plain else state
    num_bytes = launch.saved_bytes(p.num_tokens, p.num_chunks, n_heads, d_qk, dtype)
    saved = launch.saved_views(p, torch.empty(num_bytes, dtype=torch.uint8))
    kept = None
    if plain and options.get("keep", True) and launch_fused.can_be_one(q, v, size):
        kept = torch.empty(p.num_chunks, n_heads, d_hv, d_qk, dtype=dtype)
    launch.forward(p, inputs, state, h, final, saved, kept)
    with configs.forced(outputs=0):  # states and outputs in two kernels
        launch.forward(p, inputs, state, h, final, saved, kept)
    C_0 = None if state is None else state[0]
    of_end = None if plain else state[2]
    launch_backward.backward(p, h, gradient, inputs, C_0, saved, kept, plain, inputs, gradient, of_end)
    C = torch.zeros(1, n_heads, d_qk, d_hv, dtype=torch.float32 if plain else torch.bfloat16)
    token = (q[:, 0], q[:, 0], v[:, 0], gate[:, 0], gate[:, 0])
    launch.step(*token, C, torch.zeros(1, n_heads, d_qk), torch.zeros(1, n_heads), v[:, 0], not plain)


if __name__ == "__main__":
    Compiled.report = staticmethod(report_unchosen)
    configs.run = run_all  # type: ignore[assignment]
    launch_fused.segments = lambda *sizes: 2  # so that `segment_states` is launched too
    for module in (triton_backward, triton_forward, triton_fused, triton_gates, triton_normalizer, triton_step):
        replace_kernels(module)
    for options in json.loads(sys.argv[1]):
        compile_kernels(options)
