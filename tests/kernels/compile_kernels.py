"""Compiles all Triton kernels for a GPU that need not be there; prints what each takes, one JSON object per line.

Run in a process of its own, with Triton's compiler and an empty cache (a kernel from the cache leaves no log):
TRITON_DUMP_PTXAS_LOG=1 TRITON_CACHE_DIR=<empty folder> python compile_kernels.py '[<task>, ...]', where a task is
{"capability": 90, "d_qk": 256, "d_hv": 512, "chunk_size": 64, "dtype": "bfloat16"} with, as needed, "plain": false
(packed, states, sigmoid gate), "last": true (only the last candidate of each kernel).
"""

import io
import json
import re
import sys
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
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


class AbsentGPU:
    """What Triton asks its driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # compiled kernels are remembered by device

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, name: str) -> str:
        return name


class Compiled:
    """Stands for a kernel: a launch compiles it and notes what it takes."""

    notes: dict[str, Any]

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: Any) -> Any:
        def launch_it(*arguments: Any, **constants: Any) -> None:
            log = io.StringIO()
            with redirect_stdout(log):
                found = self.kernel.warmup(*arguments, grid=grid, **constants)
            notes = {"function": self.kernel.__name__, "shared_bytes": found.metadata.shared}
            # nothing in the log: compiled before
            if spilled := re.findall(r"(\d+) bytes spill stores", log.getvalue()):
                registers = re.findall(r"Used (\d+) registers", log.getvalue())
                notes |= {"spill_bytes": max(map(int, spilled)), "registers": max(map(int, registers))}
            Compiled.notes = notes
            if self.kernel.__name__ in UNCHOSEN:
                print(json.dumps({**task, **notes, "configuration": None}), flush=True)

        return launch_it


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


def replace_kernels(module: ModuleType) -> None:
    for name, value in list(vars(module).items()):
        here = isinstance(value, triton.runtime.jit.JITFunction) and value.__module__ == module.__name__
        if here and not name.startswith("_"):  # a part of a kernel
            setattr(module, name, Compiled(value))


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
    driver.set_active(AbsentGPU(options["capability"]))
    for name in ("can_overlap", "is_hopper"):
        setattr(device, name, lambda _: options["capability"] >= 90)
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
    h, _, saved = launch.forward(p, q, q, v, gate, gate, state)
    with configs.forced(outputs=0):  # states and outputs in two kernels
        launch.forward(p, q, q, v, gate, gate, state)
    launch_backward.backward(p, h, gradient, (q, q, v, gate, gate), state, saved, plain)
    C = torch.zeros(1, n_heads, d_qk, d_hv, dtype=torch.float32 if plain else torch.bfloat16)
    token = (q[:, 0], q[:, 0], v[:, 0], gate[:, 0], gate[:, 0])
    launch.step(*token, C, torch.zeros(1, n_heads, d_qk), torch.zeros(1, n_heads), not plain)


if __name__ == "__main__":
    configs.run = run_all  # type: ignore[assignment]
    launch_fused.segments = lambda *sizes: 2  # so that `segment_states` is launched too
    for module in (triton_backward, triton_forward, triton_fused, triton_gates, triton_normalizer, triton_step):
        replace_kernels(module)
    for options in json.loads(sys.argv[1]):
        compile_kernels(options)
