"""Compiled kernels launched by the CUDA driver itself, for the replays of `replay`.

Triton's launcher parses some 40 arguments in every call, and turns each into what the driver takes: 11 µs a launch on a
slow host. Between two replays only addresses and the stream change. So everything else is laid out once as the driver
reads it, and a replay writes the addresses of all launches by one call and calls the driver once for each.

What is laid out here is what Triton 3.6 and 3.7 do in `triton.backends.nvidia.driver`. Where the driver says that a
kernel takes other parameters, or a launch asks for more than is known here, Triton's launcher is used as before.
"""

import ctypes
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

#: How values lie in memory (as in `struct`), by their types in signatures of Triton; addresses are apart.
_CODES = {"i1": "b", "i8": "b", "i16": "h", "i32": "i", "i64": "q", "u1": "B", "u8": "B", "u16": "H", "u32": "I"}
_CODES |= {"u64": "Q", "fp32": "f", "fp64": "d"}
_BYTES = {code: struct.calcsize(code) for code in (*_CODES.values(), "Q")}
_SLOT = _BYTES["Q"]
_WARP = 32
_INVALID_CONTEXT = 201
_PROGRAMMATIC_STREAM_SERIALIZATION = 6


class _Attribute(ctypes.Structure):
    """`CUlaunchAttribute`."""

    _fields_ = (("id", ctypes.c_uint64), ("value", ctypes.c_uint), ("rest", ctypes.c_uint * 15))


class _Config(ctypes.Structure):
    """`CUlaunchConfig`."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("num_attributes", ctypes.c_uint),
    )


class Noted(NamedTuple):
    """One launch: compiled kernel, grid and arguments, and (position, tensor, offset in bytes) of every address."""

    compiled: Any
    grid: tuple[int, int, int]
    arguments: list[Any]
    addresses: list[tuple[int, int, int]]


class Address(NamedTuple):
    """In place of an argument: an address that is known in a replay only."""

    tensor: int
    offset: int


class Parameter(NamedTuple):
    """Of a kernel: how it lies in memory, and its value."""

    code: str
    value: Any


@cache
def library() -> Any:
    """The driver; None where there is none, or one that does not tell the parameters of a kernel (before CUDA 12.4).

    Its functions are called without Python's lock: a launch waits where too many are in line, maybe for a GPU that
    waits for what another thread has yet to launch.
    """
    try:
        found = ctypes.CDLL("libcuda.so.1")
        _ = found.cuLaunchKernelEx, found.cuFuncGetParamInfo, found.cuCtxSetCurrent
    except (OSError, AttributeError):
        return None
    return found


class Launches:
    """Launches as the driver takes them, made by `prepare`.

    Parameters
    ----------
    launches
        each with its parameters.
    num_addresses
        that a replay gives.
    num_bytes
        of the memory between the kernels, with what kernels ask for themselves.
    """

    def __init__(
        self, driver: Any, launches: Sequence[tuple[Noted, list[Parameter]]], num_addresses: int, num_bytes: int
    ) -> None:
        self.num_bytes = num_bytes
        self._driver, self._launch, self._stream = driver, driver.cuLaunchKernelEx, 0
        # threads of the autograd engine replay too, and all of them fill the same slots
        self._lock = Lock()
        self._context = ctypes.c_void_p()
        driver.cuCtxGetCurrent(ctypes.byref(self._context))
        # in slots: the addresses that are given, parts of their tensors, then numbers, which never change
        every = [x for _, parameters in launches for x in parameters]
        parts = dict.fromkeys(x.value for x in every if isinstance(x.value, Address) and x.value.offset)
        self._parts = [(part.tensor, part.offset) for part in parts]
        slot_of = {part: num_addresses + number for number, part in enumerate(parts)}
        slots = num_addresses + len(parts)
        self._pack = struct.Struct(f"{slots}Q").pack_into
        self._slots = (ctypes.c_uint64 * (slots + len(every)))()
        self._configs: list[_Config] = []
        self._calls: list[tuple[ctypes.c_void_p, ...]] = []
        self._kept: list[Any] = []  # what the driver reads by its address
        for launch, parameters in launches:
            places = []
            for code, value in parameters:
                if isinstance(value, Address):
                    places.append(slot_of.get(value, value.tensor))
                else:
                    struct.pack_into(code, self._slots, _SLOT * slots, value)
                    places.append(slots)
                    slots += 1
            self._add(launch, places)

    def _add(self, launch: Noted, places: list[int]) -> None:
        """A launch with its parameters in these slots."""
        num_warps, _, shared_bytes = launch.compiled.packed_metadata
        config = _Config(launch.grid, (_WARP * num_warps, 1, 1), shared_bytes)
        if launch.compiled.metadata.launch_pdl:
            attribute = _Attribute(_PROGRAMMATIC_STREAM_SERIALIZATION, 1)
            config.attributes, config.num_attributes = ctypes.addressof(attribute), 1
            self._kept.append(attribute)
        start = ctypes.addressof(self._slots)
        pointers = (ctypes.c_void_p * len(places))(*[start + _SLOT * place for place in places])
        self._configs.append(config)
        self._kept += [pointers, launch.compiled]
        call = (ctypes.addressof(config), launch.compiled.function, ctypes.addressof(pointers))
        self._calls.append(tuple([ctypes.c_void_p(x) for x in call]))

    def __call__(self, addresses: list[int], stream: int) -> None:
        """Launch with these addresses, on a stream of the device that is current."""
        with self._lock:
            if stream != self._stream:
                for each in self._configs:
                    each.stream = stream
                self._stream = stream
            self._pack(self._slots, 0, *addresses, *[addresses[tensor] + offset for tensor, offset in self._parts])
            launch = self._launch
            for config, function, pointers in self._calls:
                # the driver has copied the parameters when it returns
                if error := launch(config, function, pointers, None):
                    self._try_again(error, config, function, pointers)

    def _try_again(self, error: int, *call: ctypes.c_void_p) -> None:
        """With the context of the plan if there is none: a thread that has not used the GPU yet comes without."""
        if error == _INVALID_CONTEXT:
            self._driver.cuCtxSetCurrent(self._context)
            error = self._launch(*call, None)
        if error:
            name = ctypes.c_char_p()
            self._driver.cuGetErrorName(error, ctypes.byref(name))
            raise RuntimeError(f"the launch of a Triton kernel failed: {(name.value or b'').decode()} ({error})")


def prepare(launches: Sequence[Noted], num_addresses: int, num_bytes: int) -> Launches | None:
    """Launches by the driver; None if they have to be Triton's.

    Parameters
    ----------
    num_addresses
        that a replay gives: of tensors outside, and of the memory between the kernels as the last.
    num_bytes
        of that memory; what kernels ask for themselves is added at its end.
    """
    driver, prepared = library(), []
    for launch in launches if driver is not None else ():
        metadata, scratch = launch.compiled.metadata, None
        if metadata.global_scratch_size:
            num_bytes += -num_bytes % metadata.global_scratch_align
            scratch = Address(num_addresses - 1, num_bytes)
            num_bytes += metadata.global_scratch_size * math.prod(launch.grid)
        found = parameters(launch, scratch)
        if found is None or _sizes(driver, launch.compiled.function) != [_BYTES[x.code] for x in found]:
            return None
        if math.prod(launch.grid):
            prepared.append((launch, found))
    return None if driver is None else Launches(driver, prepared, num_addresses, num_bytes)


def parameters(launch: Noted, scratch: Address | None) -> list[Parameter] | None:
    """What a kernel takes: its arguments but constants, then its two memories; None if something here is not known."""
    metadata = launch.compiled.metadata
    if metadata.num_ctas != 1 or metadata.launch_cooperative_grid or metadata.profile_scratch_size:
        return None
    values = list(launch.arguments)
    for position, tensor, offset in launch.addresses:
        values[position] = Address(tensor, offset)
    found = []
    for kind, value in flatten(launch.compiled.src.signature.values(), values):
        is_address = kind[0] == "*" and isinstance(value, Address | int)
        if not is_address and kind not in _CODES:
            return None
        found.append(Parameter("Q" if is_address else _CODES[kind], value))
    return [*found, Parameter("Q", scratch or 0), Parameter("Q", 0)]


def flatten(kinds: Iterable[Any], values: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Types and values of what a compiled kernel takes: elements of tuples one by one, constants not at all."""
    for kind, value in zip(kinds, values, strict=True):
        if isinstance(kind, tuple):
            yield from flatten(kind, value)
        elif kind != "constexpr":
            yield kind, value


@cache
def _sizes(driver: Any, function: int) -> list[int]:
    """Bytes of every parameter that a kernel takes, by what the driver says; empty if it says nothing."""
    offset, size, found = ctypes.c_size_t(), ctypes.c_size_t(), list[int]()
    places = ctypes.byref(offset), ctypes.byref(size)
    while not driver.cuFuncGetParamInfo(ctypes.c_void_p(function), ctypes.c_size_t(len(found)), *places):
        found.append(size.value)
    return found
