"""A kernel on the host, and an operator that launches it, for tests of replays."""

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from companion.kernels.common import replay

Tensor = torch.Tensor
CPU = torch.device("cpu")


class AddKernel:
    """Stands for a kernel, and for what it is compiled to: out = SCALE·(a + b) for numbers of float32, by addresses."""

    arg_names = ("a", "b", "out", "size", "SCALE")
    launched = 0

    def __init__(self, scratch: int = 0, function: int = 7, **metadata: Any) -> None:
        values = {"num_ctas": 1, "launch_pdl": False, "launch_cooperative_grid": False, "profile_scratch_size": 0}
        values |= {"global_scratch_size": scratch, "global_scratch_align": 128, **metadata}
        self.metadata = SimpleNamespace(**values)
        self.packed_metadata, self.function = (4, 1, 1000), function
        address = "*fp32"
        self.src = SimpleNamespace(signature=dict(zip(self.arg_names, [*[address] * 3, "i32", "fp32"], strict=False)))
        self.warmed: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., "AddKernel"]:
        def launch(*args: Any, **constants: Any) -> "AddKernel":
            values = [*args, *(constants[name] for name in self.arg_names[len(args) :])]
            addresses = [x.data_ptr() if isinstance(x, Tensor) else x for x in values]
            self.run(*(*grid, 1, 1)[:3], 0, self.function, self.packed_metadata, None, None, None, *addresses)
            return self

        return launch

    def warmup(self, *args: Any, **constants: Any) -> "AddKernel":
        self.warmed.append((args, constants))
        return self

    def run(self, *arguments: Any) -> None:
        AddKernel.launched += 1
        assert arguments[:3] == (2, 1, 1)
        add(*arguments[9:])


def add(a: int, b: int, out: int, size: int, scale: float) -> None:
    """What the kernel does."""
    arrays = [(ctypes.c_float * size).from_address(address) for address in (a, b, out)]
    for n in range(size):
        arrays[2][n] = scale * (arrays[0][n] + arrays[1][n])


def operator(kernel: AddKernel, a: Tensor, b: Tensor, key: tuple[Any, ...] = ("add",)) -> Tensor:
    """4 a + 5 b, by two tensors between the kernels that must not be in one place: the last kernel reads both."""
    out, inside = torch.zeros(4), []

    def launches(launch: replay.Launch) -> None:
        inside.append(torch.zeros(4))
        between = torch.zeros(2, 4)
        launch(kernel, (2,), a, b, between[1], 4, SCALE=2.0)
        launch(kernel, (2,), between[1], b, inside[-1], 4, SCALE=1.0)
        launch(kernel, (2,), inside[-1], between[1], out, 4, SCALE=1.0)

    replay.call(key, lambda: ("add",), CPU, (a, b, None, out), launches)
    return out
