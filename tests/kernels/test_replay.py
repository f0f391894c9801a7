"""Replayed launches get the addresses of the tensors of their own call; kernels here are functions on the host."""

import ctypes
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

import torch
import triton

from companion.kernels.common import replay

Tensor = torch.Tensor
CPU = torch.device("cpu")


class AddKernel:
    """Stands for a compiled kernel: out = a + b for numbers of float32, by addresses."""

    arg_names = ("a", "b", "out", "size", "SCALE")
    launched = 0

    def __init__(self, scratch: int = 0) -> None:
        self.metadata = SimpleNamespace(global_scratch_size=scratch)
        self.packed_metadata, self.function = (), 7
        self.warmed: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., "AddKernel"]:
        def launch(*args: Any, **constants: Any) -> "AddKernel":
            values = [*args, *(constants[name] for name in self.arg_names[len(args) :])]
            addresses = [x.data_ptr() if isinstance(x, Tensor) else x for x in values]
            self.run(*(*grid, 1, 1)[:3], 0, self.function, (), None, None, None, *addresses)
            return self

        return launch

    def warmup(self, *args: Any, **constants: Any) -> None:
        self.warmed.append((args, constants))

    def run(self, *arguments: Any) -> None:
        AddKernel.launched += 1
        assert arguments[:3] == (2, 1, 1)
        a, b, out, size, scale = arguments[9:]
        arrays = [(ctypes.c_float * size).from_address(address) for address in (a, b, out)]
        for n in range(size):
            arrays[2][n] = scale * (arrays[0][n] + arrays[1][n])


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    driver = SimpleNamespace(get_current_stream=lambda index: 0)
    monkeypatch.setattr(triton.runtime.driver, "_active", driver, raising=False)
    monkeypatch.setattr(replay, "INTERPRETED", False)
    AddKernel.launched = 0
    replay.forget()
    yield
    replay.forget()


def operator(kernel: AddKernel, a: Tensor, b: Tensor, key: tuple[Any, ...] = ("add",)) -> Tensor:
    """2 (2 (a + b) + b), by a tensor between two kernels and another one that only takes up memory."""
    out, inside = torch.zeros(4), []

    def launches(launch: replay.Launch) -> None:
        inside.append(torch.zeros(4))
        between = torch.zeros(2, 4)
        launch(kernel, (2,), a, b, between[1], 4, SCALE=2.0)
        launch(kernel, (2,), between[1], b, inside[-1], 4, SCALE=1.0)
        launch(kernel, (2,), inside[-1], inside[-1], out, 4, SCALE=1.0)

    replay.call(key, lambda: ("add",), CPU, (a, b, None, out), launches)
    return out


def test_a_replay_computes_with_the_tensors_of_its_call() -> None:
    kernel = AddKernel()
    for seed in range(4):
        torch.manual_seed(seed)
        a, b = torch.randn(4), torch.randn(4)
        assert operator(kernel, a, b) == pytest.approx(2 * (2 * (a + b) + b))
    assert AddKernel.launched == 12
    assert len(kernel.warmed) == 3, "compiled beforehand once"
    (plan,) = replay._plans.values()
    assert plan.num_bytes == 2 * replay.LINE
    assert not plan.scratch


def test_other_keys_have_other_plans_and_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST_PLANS", 2)
    kernel = AddKernel()
    for number in range(4):
        operator(kernel, torch.ones(4), torch.ones(4), key=(number,))
    assert list(replay._plans) == [(2,), (3,)]


def test_tensors_given_twice_or_out_of_line_are_not_noted() -> None:
    kernel, a = AddKernel(), torch.randn(4)
    assert operator(kernel, a, a) == pytest.approx(10 * a)
    assert not replay._plans, "the addresses of the two could not be told apart"
    shifted = torch.randn(5)[1:]
    assert operator(kernel, shifted, a) == pytest.approx(2 * (2 * (shifted + a) + a))
    assert not replay._plans
    operator(kernel, torch.randn(4), a)
    assert len(replay._plans) == 1
    # a plan for aligned addresses is not for others
    assert operator(kernel, shifted, a) == pytest.approx(2 * (2 * (shifted + a) + a))


def test_parts_of_tensors_that_share_memory_are_not_noted() -> None:
    """Where two tensors lie in one memory, their distance may be another one in the next call."""
    kernel, both = AddKernel(), torch.randn(2, 4)
    a, b, out = both[0], both[1], torch.zeros(4)

    def launches(launch: replay.Launch) -> None:
        launch(kernel, (2,), a, b, out, 4, SCALE=1.0)

    def of_parts(launch: replay.Launch) -> None:
        launch(kernel, (2,), a.view(4), b, out, 4, SCALE=1.0)

    replay.call(("whole",), lambda: (), CPU, (a, b, out), launches)
    replay.call(("part",), lambda: (), CPU, (a, b, out), of_parts)
    assert list(replay._plans) == [("whole",)]


def test_launches_that_a_profiler_is_told_of_are_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, told = AddKernel(), []
    operator(kernel, torch.ones(4), torch.ones(4))
    monkeypatch.setattr(replay.Plan, "__call__", lambda *_: told.append(1))
    replay.knobs.runtime.launch_enter_hook.add(print)
    try:
        operator(kernel, torch.ones(4), torch.ones(4))
        assert told == []
    finally:
        replay.knobs.runtime.launch_enter_hook.remove(print)
    operator(kernel, torch.ones(4), torch.ones(4))
    assert told == [1]


def test_kernels_that_ask_for_memory_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(replay, "with_memory", lambda launch: (seen.append(1), launch()))
    kernel = AddKernel(scratch=128)
    for _ in range(2):
        operator(kernel, torch.ones(4), torch.ones(4))
    assert seen == [1]
