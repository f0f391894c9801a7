"""Launches of an operator: noted when a kind of call is new, replayed with new addresses from then on.

For a launch, Triton binds arguments by name, looks at each, and finds the compiled kernel by a key of them all: with
six or seven launches a forward pass of the mLSTM took the host about 1 ms, and a backward pass has up to nine. Between
two calls with the same shapes, strides and options nothing changes but the addresses of tensors. So the first such call
launches as usual and notes, for every launch, the compiled kernel, the grid, the arguments, and where each address
comes from; a replay hands these to the driver (see `driver`), or to the compiled kernel itself. The memory between the
kernels of a call is then one allocation.
"""

import contextvars
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, reduce
from operator import or_
from os import cpu_count
from typing import Any, NamedTuple

import torch
import triton
from triton import knobs
from triton.runtime.errors import OutOfResources

from companion.kernels.common.driver import Noted, prepare
from companion.kernels.common.host import INTERPRETED

Tensor = torch.Tensor
#: What launches a kernel: called with the kernel, the grid and its arguments.
Launch = Callable[..., None]
#: Kinds of calls that are remembered: prompts of ever new lengths push the oldest ones out.
MOST_PLANS = 512
#: Bytes: kernels are compiled for addresses that are multiples of it, and for others anew.
ALIGNMENT = 16
#: Parts of the memory of a call begin at multiples of so many bytes.
LINE = 256
_plans: OrderedDict[tuple[Any, ...], "Plan"] = OrderedDict()
_compiled: set[tuple[Any, ...]] = set()
_refused: dict[Hashable, OutOfResources] = {}


class Plan:
    """Launches to replay.

    Parameters
    ----------
    num_outside
        tensors outside.
    num_bytes
        of the memory between the kernels.
    """

    def __init__(self, launches: Sequence[Noted], num_outside: int, num_bytes: int, device: torch.device) -> None:
        self.launches, self.num_bytes, self.device = launches, num_bytes, device
        #: None where Triton has to launch.
        self.by_driver = prepare(launches, num_outside + 1, num_bytes)
        if self.by_driver is not None:
            self.num_bytes = self.by_driver.num_bytes
        self._memory = torch.empty(0, dtype=torch.uint8, device=device)

    def __call__(self, addresses: list[int]) -> None:
        """Launch with these addresses of the tensors outside, on the current stream."""
        memory = self._memory.new_empty(self.num_bytes)
        addresses.append(memory.data_ptr())
        stream = triton.runtime.driver.active.get_current_stream(self.device.index)
        if self.by_driver is not None:
            self.by_driver(addresses, stream)
        elif any(x.compiled.metadata.global_scratch_size for x in self.launches):
            with_memory(lambda: self._by_triton(addresses, stream))
        else:
            self._by_triton(addresses, stream)

    def _by_triton(self, addresses: list[int], stream: int) -> None:
        for compiled, grid, arguments, places in self.launches:
            values = arguments.copy()
            for position, tensor, offset in places:
                values[position] = addresses[tensor] + offset
            compiled.run(*grid, stream, compiled.function, compiled.packed_metadata, None, None, None, *values)


class Recorder:
    """Launches kernels as Triton does, and notes them.

    Parameters
    ----------
    outside
        tensors that a replay gets anew, inputs and results; None for those not given.
    """

    def __init__(self, outside: Sequence[Tensor | None]) -> None:
        self.outside = outside
        self.launches: list[Noted] = []
        #: Whether everything could be noted: not where Triton interprets kernels.
        self.complete = True
        self._inside: dict[int, int] = {}
        self._kept: list[Tensor] = []  # until the plan is made, so that no two of them are in one place
        self._num_bytes = 0

    def launch(self, kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
        """`kernel[grid](*args, **constants)`."""
        compiled = kernel[grid](*args, **constants)
        if not hasattr(compiled, "packed_metadata"):
            self.complete = False
            return
        values = [*args, *(constants[name] for name in kernel.arg_names[len(args) :])]
        places = [(n, *self._place(x)) for n, x in enumerate(values) if isinstance(x, Tensor) and x.numel()]
        plain = [0 if isinstance(x, Tensor) else x for x in values]
        x, y, z = (*grid, 1, 1)[:3]
        self.launches.append(Noted(compiled, (x, y, z), plain, places))

    def plan(self, device: torch.device) -> Plan | None:
        """What a replay needs; None if not everything could be noted."""
        return Plan(self.launches, len(self.outside), self._num_bytes, device) if self.complete else None

    def _place(self, x: Tensor) -> tuple[int, int]:
        """Number of the tensor outside, or the one behind them for memory between kernels, and bytes from its start."""
        storage = x.untyped_storage()
        near = [
            number
            for number, other in enumerate(self.outside)
            if other is not None and other.untyped_storage().data_ptr() == storage.data_ptr()
        ]
        for number in near:
            if self.outside[number] is x:
                return number, 0
        if near:
            # part of a tensor outside; of several in one memory, how they lie to each other may change
            self.complete &= len(near) == 1
            whole = self.outside[near[0]]
            return near[0], x.data_ptr() - (0 if whole is None else whole.data_ptr())
        start = storage.data_ptr()
        if start not in self._inside:
            self._inside[start] = self._num_bytes
            self._kept.append(x)
            self._num_bytes += -(-storage.nbytes() // LINE) * LINE
        return len(self.outside), self._inside[start] + x.data_ptr() - start


def call(
    key: tuple[Any, ...],
    kind: Callable[[], tuple[Any, ...]],
    device: torch.device,
    outside: Sequence[Tensor | None],
    launches: Callable[[Launch], None],
    to_come: Callable[[], Mapping[tuple[Any, ...], Callable[[Launch], None]]] = dict,
) -> None:
    """Launch the kernels of one call of an operator.

    Parameters
    ----------
    key
        everything that decides what is launched: sizes, strides, dtypes, options, device.
    kind
        gives what decides which kernels are compiled, a coarser key; called for a new key only.
    device
        of all tensors, and current.
    outside
        tensors that change from call to call, in a fixed order.
    launches
        launches the kernels one by one by the function that it is given.
    to_come
        gives kinds of calls that will follow, and their launches: their kernels are compiled with those of this call,
        in the time that the dearest one takes. Called for a new kind only.
    """
    addresses = [0 if x is None else x.data_ptr() for x in outside]
    aligned = reduce(or_, addresses) % ALIGNMENT == 0
    plan = _plans.get(key)
    if plan is not None and aligned and not _is_watched():
        plan(addresses)
        return
    if not INTERPRETED and (name := kind()) not in _compiled:
        calls = {name: launches, **{other: x for other, x in to_come().items() if other not in _compiled}}
        compile_first(calls.values(), device)
        _compiled.update(calls)
    recorder = Recorder(outside)
    launches(recorder.launch)
    given = [id(x) for x in outside if x is not None]
    distinct = len(set(given)) == len(given)  # else the next call's addresses could not be told apart
    if aligned and distinct and (made := recorder.plan(device)) is not None:
        _plans[key] = made
        if len(_plans) > MOST_PLANS:
            _plans.popitem(last=False)


def launch_now(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Launch a kernel and note nothing."""
    kernel[grid](*args, **constants)


class _Job(NamedTuple):
    """A kernel to compile: with its grid, arguments and constants."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    constants: dict[str, Any]

    def compile(self, device: torch.device) -> Any:
        """The compiled kernel."""
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return self.kernel.warmup(*self.args, grid=self.grid, **self.constants)


def _load(compiled: Any, device: torch.device) -> OutOfResources | None:
    """Build what launches a kernel, and load both; returns the refusal of a GPU that has too little memory."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        # Triton 3.6 runs a C compiler for the launcher of every kernel, when this is asked for the first time
        getattr(compiled, "run", None)
    except OutOfResources as error:
        return error
    return None


def compile_first(
    calls: Iterable[Callable[[Launch], None]], device: torch.device, report: Callable[[int, int], None] | None = None
) -> list[str]:
    """Compile the kernels that calls would launch, several at a time, and launch none.

    The compiler leaves Python alone for nine tenths of the time, so that threads help. Where a configuration asks for
    more than the GPU has, the next one is compiled.

    Parameters
    ----------
    calls
        each launches its kernels by the function that it is given.
    device
        of all tensors.
    report
        called after each kernel with the number of those that are done and of those known so far.

    Returns
    -------
    Names of the kernels in the order in which they were compiled, each as often as it was.
    """
    calls, compiled, refused = list(calls), dict[Hashable, str](), True
    _get_ready()
    while refused:
        jobs = {name: job for name, job in _jobs(calls, device).items() if name not in compiled}
        # dear ones first, so that none is left for the end: those with more blocks, of which each is a constant
        order = sorted(jobs, key=lambda name: -len(jobs[name].constants))
        total, refused = len(compiled) + len(jobs), False
        with ThreadPoolExecutor(max(1, min(len(jobs), cpu_count() or 1))) as threads:
            made = threads.map(lambda job: job.compile(device), [jobs[name] for name in order])
            found = []
            for name, each in zip(order, made, strict=True):
                found.append(each)
                compiled[name] = getattr(jobs[name].kernel, "__name__", "kernel")
                if report is not None:
                    report(len(compiled), total)
            # Not while others compile. Once, in 900 checks by 16 processes that filled the same cache, a kernel got the
            # launcher of another one, and its launch failed: Python may take two files for one if another process
            # replaces the first between two looks at it. Now the time between them is as short as in Triton itself.
            for name, refusal in zip(order, threads.map(lambda each: _load(each, device), found), strict=True):
                if refusal is not None:
                    _refused[device, name], refused = refusal, True
    return list(compiled.values())


def _jobs(calls: Iterable[Callable[[Launch], None]], device: torch.device) -> dict[Hashable, _Job]:
    """What calls would launch, where those that the GPU refused are refused again, so that others are chosen."""
    jobs: dict[Hashable, _Job] = {}

    def note(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
        name = _specialization(kernel, args, constants)
        if (refusal := _refused.get((device, name))) is not None:
            raise refusal.with_traceback(None)
        # a dtype stands for an aligned tensor, so that the memory of one call can be used by the next
        types = [x.dtype if isinstance(x, Tensor) and _is_aligned(x) else x for x in args]
        jobs.setdefault(name, _Job(kernel, grid, tuple(types), constants))

    for launches in calls:
        launches(note)
    return jobs


def _specialization(kernel: Any, args: tuple[Any, ...], constants: dict[str, Any]) -> Hashable:
    """Equal for launches that Triton compiles a kernel once for; rarely not, and then it is compiled twice."""
    names, free = kernel.arg_names, getattr(kernel, "do_not_specialize", ())
    arguments = {**dict(zip(names, args, strict=False)), **constants}
    by_value = {names[n] for n in getattr(kernel, "constexprs", ())} | (arguments.keys() - set(names))
    classes = [(name, x if name in by_value else _class(x, name in free)) for name, x in arguments.items()]
    return (kernel, *classes)


def _is_aligned(x: Tensor) -> bool:
    return x.data_ptr() % ALIGNMENT == 0


def _class(x: Any, free: bool) -> Hashable:
    """What the compiler knows of an argument; of a whole number that is `free` only whether it has 32 bits."""
    if isinstance(x, Tensor):
        return x.dtype, _is_aligned(x)
    if isinstance(x, tuple):
        return tuple(_class(each, free) for each in x)
    if isinstance(x, int) and not isinstance(x, bool):
        return "int", -(2**31) <= x < 2**31, not free and x == 1, not free and x % ALIGNMENT == 0
    return x


@cache
def _get_ready() -> None:
    """What every thread would do for itself at the same time: find the GPU's driver, and hash Triton's own files.

    The first runs a C compiler where Triton's cache is empty.
    """
    try:
        from triton.runtime.cache import triton_key
    except ImportError:  # moved: the threads find it
        triton_key = None
    with ThreadPoolExecutor(1) as thread:
        if triton_key is not None:
            thread.submit(triton_key)
        _ = triton.runtime.driver.active


def forget() -> None:
    """Drop all plans: kernels or their configurations have changed."""
    _plans.clear()
    _compiled.clear()
    _refused.clear()


def with_memory(launch: Callable[[], None]) -> None:
    """Launch with memory for descriptors from torch; which allocator the caller has set stays as it is."""

    def inside() -> None:
        triton.set_allocator(_allocate)
        launch()

    contextvars.copy_context().run(inside)


def _allocate(size: int, alignment: int, stream: int | None) -> Tensor:
    return torch.empty(size, dtype=torch.int8, device="cuda")


def _is_watched() -> bool:
    """Whether Triton tells somebody of its launches, such as a profiler; a replay would not."""
    before, after = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(before, "calls", before) or getattr(after, "calls", after))
