"""Replayed launches get the addresses of the tensors of their own call; kernels here are functions on the host."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

import torch
import triton
from add_kernel import CPU, AddKernel, operator
from triton.runtime.errors import OutOfResources

from companion.kernels.common import driver, replay


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    of_host = SimpleNamespace(get_current_stream=lambda index: 0)
    monkeypatch.setattr(triton.runtime.driver, "_active", of_host, raising=False)
    monkeypatch.setattr(driver, "library", lambda: None)
    monkeypatch.setattr(replay, "INTERPRETED", False)
    monkeypatch.setattr(replay, "_get_ready", lambda: None)
    AddKernel.launched = 0
    replay.forget()
    yield
    replay.forget()


def test_a_replay_computes_with_the_tensors_of_its_call() -> None:
    kernel = AddKernel()
    for seed in range(4):
        torch.manual_seed(seed)
        a, b = torch.randn(4), torch.randn(4)
        assert operator(kernel, a, b) == pytest.approx(4 * a + 5 * b)
    assert AddKernel.launched == 12
    assert len(kernel.warmed) == 2, "compiled beforehand once for each scale"
    (plan,) = replay._plans.values()
    assert plan.num_bytes == 2 * replay.LINE
    assert plan.by_driver is None, "no driver is here"


def test_other_keys_have_other_plans_and_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MOST_PLANS", 2)
    kernel = AddKernel()
    for number in range(4):
        operator(kernel, torch.ones(4), torch.ones(4), key=(number,))
    assert list(replay._plans) == [(2,), (3,)]


def test_tensors_given_twice_or_out_of_line_are_not_noted() -> None:
    kernel, a = AddKernel(), torch.randn(4)
    assert operator(kernel, a, a) == pytest.approx(9 * a)
    assert not replay._plans, "the addresses of the two could not be told apart"
    shifted = torch.randn(5)[1:]
    assert operator(kernel, shifted, a) == pytest.approx(4 * shifted + 5 * a)
    assert not replay._plans
    operator(kernel, torch.randn(4), a)
    assert len(replay._plans) == 1
    # a plan for aligned addresses is not for others
    assert operator(kernel, shifted, a) == pytest.approx(4 * shifted + 5 * a)


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


def test_calls_to_come_are_compiled_with_the_first() -> None:
    first, second, asked = AddKernel(), AddKernel(), []
    a, b, out = torch.ones(4), torch.ones(4), torch.zeros(4)

    def forward(launch: replay.Launch) -> None:
        launch(first, (2,), a, b, out, 4, SCALE=1.0)

    def backward(launch: replay.Launch) -> None:
        launch(second, (2,), a, b, out, 4, SCALE=1.0)

    def to_come() -> dict[tuple[Any, ...], Callable[[replay.Launch], None]]:
        asked.append(1)
        return {("backward",): backward}

    replay.call(("forward", 1), lambda: ("forward",), CPU, (a, b, out), forward, to_come)
    assert (len(first.warmed), len(second.warmed), AddKernel.launched) == (1, 1, 1)
    replay.call(("forward", 2), lambda: ("forward",), CPU, (a, b, out), forward, to_come)
    replay.call(("backward", 1), lambda: ("backward",), CPU, (a, b, out), backward)
    assert (len(first.warmed), len(second.warmed), len(asked)) == (1, 1, 1)


class Sized(AddKernel):
    """Needs as much memory as it adds numbers at once, BLOCK; the GPU has room for 8."""

    arg_names = ("a", "out", "size", "stride", "BLOCK")
    constexprs = (4,)
    do_not_specialize = ("size",)

    def warmup(self, *args: Any, **constants: Any) -> Any:
        self.warmed.append((args, constants))

        class Compiled:
            @property
            def run(self) -> None:
                if constants["BLOCK"] > 8:
                    raise OutOfResources(constants["BLOCK"], 8, "shared memory")

        return Compiled()


def test_the_next_configuration_is_compiled_where_the_gpu_refuses_one() -> None:
    kernel, other, reports = Sized(), AddKernel(), []

    def launches(launch: replay.Launch) -> None:
        for block in (32, 16, 8, 4):
            try:
                launch(kernel, (1,), torch.ones(4), torch.ones(4), 4, 2, BLOCK=block)
                break
            except OutOfResources:
                continue
        launch(other, (1,), torch.ones(4), torch.ones(4), torch.ones(4), 4, SCALE=1.0)

    names = replay.compile_first([launches], CPU, lambda *numbers: reports.append(numbers))
    assert [constants["BLOCK"] for _, constants in kernel.warmed] == [32, 16, 8]
    assert len(other.warmed) == 1, "not again for every refusal"
    assert len(names) == 4
    assert reports == [(1, 2), (2, 2), (3, 3), (4, 4)]


def test_kernels_are_compiled_once_for_sizes_that_the_compiler_does_not_know() -> None:
    kernel, x = Sized(), torch.ones(64)

    def of(size: int, stride: int, block: int = 4, shift: int = 0) -> Callable[[replay.Launch], None]:
        return lambda launch: launch(kernel, (1,), x[shift:], x, size, stride, BLOCK=block)

    same = [of(1, 2), of(16, 3), of(2, 7)]
    replay.compile_first(same, CPU)
    assert len(kernel.warmed) == 1
    for other in (of(2**40, 2), of(1, 1), of(1, 16), of(1, 2, block=8), of(1, 2, shift=1)):
        kernel.warmed.clear()
        replay.compile_first([*same, other], CPU)
        assert len(kernel.warmed) == 2
