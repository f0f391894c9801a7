"""Launches by the driver: a stand-in reads what it is given as the driver does, and adds numbers on the host."""

import ctypes
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

import torch
import triton
from add_kernel import AddKernel, add, operator

from companion.kernels.common import driver, replay

#: Three addresses, two numbers, two memories of the kernel.
SIZES = [8, 8, 8, 4, 4, 8, 8]
STREAM = 0xABCDEF012345


class Launched(NamedTuple):
    """What the driver found."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    stream: int
    attributes: list[tuple[int, int]]
    function: int
    arguments: tuple[Any, ...]


class Driver:
    """Stands for libcuda; launches compute at once."""

    def __init__(self, sizes: list[int] = SIZES, error: int = 0) -> None:
        self.sizes, self.error = sizes, error
        self.launched: list[Launched] = []
        self.current: int | None = 5

    def cuFuncGetParamInfo(self, function: Any, number: Any, offset: Any, size: Any) -> int:
        if number.value >= len(self.sizes):
            return 1
        size._obj.value = self.sizes[number.value]
        return 0

    def cuCtxGetCurrent(self, context: Any) -> int:
        context._obj.value = self.current
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        self.current = context.value
        return 0

    def cuGetErrorName(self, error: int, name: Any) -> int:
        name._obj.value = {1: b"CUDA_ERROR_INVALID_VALUE", 201: b"CUDA_ERROR_INVALID_CONTEXT"}[error]
        return 0

    def cuLaunchKernelEx(self, config: Any, function: Any, parameters: Any, extra: None) -> int:
        time.sleep(1e-6)  # other threads run meanwhile, as they do in a launch
        if self.current is None:
            return 201
        if self.error:
            return self.error
        *sizes, shared_bytes, stream, attributes, number = struct.unpack("7I4xQQI", ctypes.string_at(config.value, 52))
        # an attribute has 72 bytes; its value begins at byte 8
        each = [struct.unpack("I4xI", ctypes.string_at(attributes + 72 * n, 12)) for n in range(number)]
        places = struct.unpack("7Q", ctypes.string_at(parameters.value, 56))
        arguments = [
            struct.unpack(code, ctypes.string_at(place, struct.calcsize(code)))[0]
            for code, place in zip("QQQifQQ", places, strict=True)
        ]
        found = (tuple(sizes[:3]), tuple(sizes[3:]), shared_bytes, stream, each, function.value, tuple(arguments))
        self.launched.append(Launched(*found))
        add(*arguments[:5])
        return 0


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    found = Driver()
    of_host = SimpleNamespace(get_current_stream=lambda index: STREAM)
    monkeypatch.setattr(triton.runtime.driver, "_active", of_host, raising=False)
    monkeypatch.setattr(replay, "INTERPRETED", False)
    monkeypatch.setattr(replay, "_get_ready", lambda: None)
    monkeypatch.setattr(driver, "library", lambda: found)
    AddKernel.launched = 0
    replay.forget()
    yield found
    replay.forget()


def pair(seed: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(4, generator=random) for _ in range(2)]


def calls(kernel: AddKernel, number: int = 2) -> None:
    """The first by Triton, the others by its plan."""
    for seed in range(number):
        a, b = pair(seed)
        assert operator(kernel, a, b) == pytest.approx(4 * a + 5 * b)


def test_the_driver_gets_what_triton_would_give(stand_in: Driver) -> None:
    calls(AddKernel(), 4)
    assert AddKernel.launched == 3, "the first call"
    assert len(stand_in.launched) == 9
    first, second, third = stand_in.launched[-3:]
    for found in (first, second, third):
        assert found[:6] == ((2, 1, 1), (128, 1, 1), 1000, STREAM, [], 7)
        assert found.arguments[3] == 4
        assert found.arguments[5:] == (0, 0)
    assert [x.arguments[4] for x in (first, second, third)] == [2, 1, 1]
    assert first.arguments[2] == second.arguments[0] == third.arguments[1]
    assert second.arguments[2] == third.arguments[0]


def test_a_kernel_that_may_begin_early(stand_in: Driver) -> None:
    calls(AddKernel(launch_pdl=True))
    assert [x.attributes for x in stand_in.launched] == [[(6, 1)]] * 3, "programmatic stream serialization"


def test_memory_of_kernels_is_apart_from_all_other(stand_in: Driver) -> None:
    calls(AddKernel(scratch=40))
    (plan,) = replay._plans.values()
    between = 2 * replay.LINE
    assert plan.num_bytes == between + 128 + 128 + 80, "two programs of 40 bytes, three times"
    own = [x.arguments[5] for x in stand_in.launched]
    start = stand_in.launched[0].arguments[2] - 16  # the second row of the first tensor between the kernels
    assert [x - start for x in own] == [between, between + 128, between + 256]


@pytest.mark.parametrize("sizes", [SIZES[:-1], [*SIZES, 8], [8, 8, 8, 8, 4, 8, 8], []], ids=str)
def test_other_parameters_are_left_to_triton(sizes: list[int], stand_in: Driver) -> None:
    stand_in.sizes = sizes
    calls(AddKernel(), 3)
    assert (AddKernel.launched, stand_in.launched) == (9, [])


@pytest.mark.parametrize(
    "option", [{"num_ctas": 2}, {"launch_cooperative_grid": True}, {"profile_scratch_size": 8}], ids=str
)
def test_launches_of_other_kinds_are_left_to_triton(option: dict[str, Any], stand_in: Driver) -> None:
    calls(AddKernel(**option))
    assert (AddKernel.launched, stand_in.launched) == (6, [])


@pytest.mark.parametrize("kind", ["tensordesc<fp16[64, 64]>", "nvTmaDesc", "bf16"])
def test_arguments_of_other_kinds_are_left_to_triton(kind: str, stand_in: Driver) -> None:
    kernel = AddKernel()
    kernel.src.signature["a"] = kind
    calls(kernel)
    assert (AddKernel.launched, stand_in.launched) == (6, [])


def test_an_error_has_the_name_that_the_driver_gives_it(stand_in: Driver) -> None:
    kernel = AddKernel()
    calls(kernel)
    stand_in.error = 1
    with pytest.raises(RuntimeError, match=r"CUDA_ERROR_INVALID_VALUE \(1\)"):
        calls(kernel, 1)


def test_a_thread_without_a_context_gets_that_of_the_plan(stand_in: Driver) -> None:
    kernel = AddKernel()
    calls(kernel)
    stand_in.current = None
    calls(kernel)
    assert stand_in.current == 5


def test_threads_that_replay_one_plan_at_once_have_their_own_addresses(stand_in: Driver) -> None:
    kernel = AddKernel()
    calls(kernel)
    pairs = [pair(seed) for seed in range(200)]
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda given: operator(kernel, *given), pairs)
        for (a, b), out in zip(pairs, found, strict=True):
            assert out == pytest.approx(4 * a + 5 * b, abs=1e-5)
    assert AddKernel.launched == 3


def test_nothing_is_launched_for_an_empty_grid(stand_in: Driver) -> None:
    kernel, out = AddKernel(), torch.zeros(4)
    places = [(number, number, 0) for number in range(3)]
    found = [driver.Noted(kernel, (2, size, 1), [0, 0, 0, 4, 1.0], places) for size in (0, 1)]
    prepared = driver.prepare(found, 4, 0)
    assert prepared is not None
    prepared([torch.ones(4).data_ptr()] * 2 + [out.data_ptr(), 0], STREAM)
    assert [x.grid for x in stand_in.launched] == [(2, 1, 1)]


def test_tuples_are_flattened_and_constants_left_out() -> None:
    kinds = ["*bf16", ("i64", "constexpr", ("i32",)), "constexpr", "fp32"]
    found = list(driver.flatten(kinds, [8, (5, 1, (2,)), (3, 4), 0.5]))
    assert found == [("*bf16", 8), ("i64", 5), ("i32", 2), ("fp32", 0.5)]
