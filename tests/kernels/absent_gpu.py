"""Compiling Triton kernels for a GPU that need not be there, whatever the operator.

In a process of its own, with Triton's compiler and an empty cache (a kernel from the cache leaves no log):
TRITON_DUMP_PTXAS_LOG=1 TRITON_CACHE_DIR=<empty folder>. There, `driver.set_active(AbsentGPU(90))`, then
`replace_kernels(module)` for every module of kernels, and calls with tensors on the CPU: each launch prints a line.
"""

import io
import json
import re
import struct
from collections.abc import Callable, Collection
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from companion.kernels.common import driver


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
    """Stands for a kernel: a launch compiles it, notes what it takes, and reports that."""

    notes: dict[str, Any]
    #: Names of kernels that are not compiled.
    passed_over: Collection[str] = ()
    #: What is done with the notes of a launch.
    report: Callable[[dict[str, Any]], None] = staticmethod(lambda notes: print(json.dumps(notes), flush=True))

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: Any) -> Any:
        def launch_it(*arguments: Any, **constants: Any) -> None:
            if self.kernel.__name__ in self.passed_over:
                return
            log = io.StringIO()
            with redirect_stdout(log):
                found = self.kernel.warmup(*arguments, grid=grid, **constants)
            notes = {"function": self.kernel.__name__, "shared_bytes": found.metadata.shared}
            values = [*arguments, *(constants[name] for name in self.kernel.arg_names[len(arguments) :])]
            notes |= {"parameters": parameters_of(found), "prepared": prepared_for(found, values)}
            # nothing in the log: compiled before
            if spilled := re.findall(r"(\d+) bytes spill stores", log.getvalue()):
                registers = re.findall(r"Used (\d+) registers", log.getvalue())
                notes |= {"spill_bytes": max(map(int, spilled)), "registers": max(map(int, registers))}
            Compiled.notes = notes
            Compiled.report(notes)

        return launch_it


def parameters_of(compiled: Any) -> list[int]:
    """Bytes of every parameter that the entry of a compiled kernel declares."""
    (declared,) = re.findall(r"\.entry[^(]*\(([^)]*)\)", compiled.asm["ptx"])
    return [int(bits) // 8 for bits in re.findall(r"\.param \.[busf](\d+)", declared)]


def prepared_for(compiled: Any, values: list[Any]) -> list[int] | None:
    """Bytes of every parameter that a replay would pass by the driver; None if it would leave that to Triton."""
    places = [(number, 0, 0) for number, x in enumerate(values) if isinstance(x, torch.Tensor)]
    found = driver.parameters(driver.Noted(compiled, (1, 1, 1), values, places), None)
    return None if found is None else [struct.calcsize(x.code) for x in found]


def replace_kernels(module: ModuleType) -> None:
    """From now on launches of the kernels of a module only compile them."""
    for name, value in list(vars(module).items()):
        here = isinstance(value, triton.runtime.jit.JITFunction) and value.__module__ == module.__name__
        if here and not name.startswith("_"):  # a part of a kernel
            setattr(module, name, Compiled(value))
