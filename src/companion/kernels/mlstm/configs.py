"""Block sizes, warps and pipeline stages of the Triton kernels: a short list for every shape, in order of choice.

Nothing is tuned while a program runs: a shape always runs the same code, so results repeat bit by bit and a launch can
be captured in a CUDA graph. A configuration that asks for more shared memory than the GPU has is passed over. The order
is that of times measured on Hopper in bfloat16 at (H, d_qk, d_hv) = (8, 256, 512), (16, 128, 256), (8, 128, 128) and
(32, 64, 128), T = 8192 and 65,536; in other dtypes it follows what the compiler says of registers and shared memory.
For Ampere and Ada (compute capability 8.0 and 8.9) the lists are checked by compiling alone: of every kernel but
`states_and_outputs` a candidate fits the 101,376 bytes of 8.9.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from triton.runtime.errors import OutOfResources

from companion.errors import InputError
from companion.kernels.common.device import Config, by_programs, multiprocessors
from companion.kernels.common.host import power_of_2

T = TypeVar("T")
#: Triton kernels whose configuration can be chosen.
KERNELS = (
    "states",
    "scores",
    "outputs",
    "states_and_outputs",
    "pair_gradients",
    "state_gradients",
    "query_gradients",
    "key_value_gradients",
    "step",
)
#: Tokens of a tile of `states_and_outputs`: three of (d_qk, d_hv) = (256, 128) fit the shared memory of a
#: multiprocessor, of 64 tokens only two, and then the next is loaded when the one before is done.
TILE = 32
#: Not a context variable: autograd runs the backward pass of CUDA tensors in a thread of its own, which must see it.
_forced: dict[str, int] = {}
_observers: list[Callable[[str, "Config", Callable[["Config"], Any]], Any]] = []
_works: dict[tuple[Any, ...], "Config"] = {}


def _keys_and_values(keys: tuple[int, int, int, int], values: tuple[int, int, int]) -> dict[str, int]:
    """Blocks of the kernel of dk (tokens, d_qk, other tokens, d_hv) and dv (tokens, d_qk, d_hv)."""
    names = ("BLOCK_M", "BLOCK_K", "BLOCK_S", "BLOCK_V", "VALUE_M", "VALUE_K", "VALUE_V")
    return dict(zip(names, (*keys, *values), strict=True))


#: Registers of a thread of which three programs of 4 warps fit a multiprocessor, instead of two.
_FOR_THREE = 168
#: (block sizes wanted, warps, stages[, registers]); a block is cut to what the shape needs.
_Wanted = tuple[dict[str, int], int, int] | tuple[dict[str, int], int, int, int]
_WIDE: dict[str, tuple[_Wanted, ...]] = {
    "states": (
        ({"BLOCK_K": 128, "BLOCK_V": 128, "BLOCK_T": 64}, 8, 3),
        ({"BLOCK_K": 64, "BLOCK_V": 128, "BLOCK_T": 128}, 4, 3),
        ({"BLOCK_K": 64, "BLOCK_V": 128, "BLOCK_T": 64}, 4, 2),
        ({"BLOCK_K": 64, "BLOCK_V": 64, "BLOCK_T": 64}, 4, 3),
    ),
    "scores": (({"BLOCK_M": 64, "BLOCK_K": 64}, 4, 3),),
    "outputs": (
        ({"BLOCK_M": 128, "BLOCK_K": 64, "BLOCK_S": 64, "BLOCK_V": 256}, 8, 3),
        ({"BLOCK_M": 64, "BLOCK_K": 64, "BLOCK_S": 64, "BLOCK_V": 128}, 4, 3),
        ({"BLOCK_M": 64, "BLOCK_K": 64, "BLOCK_S": 64, "BLOCK_V": 64}, 4, 2),
    ),
    "states_and_outputs": (
        ({"BLOCK_K": 256, "BLOCK_V": 128}, 8, 3),
        ({"BLOCK_K": 256, "BLOCK_V": 128}, 4, 3),
        ({"BLOCK_K": 256, "BLOCK_V": 256}, 8, 3),
        ({"BLOCK_K": 256, "BLOCK_V": 64}, 4, 3),
    ),
    "pair_gradients": (
        ({"BLOCK_M": 128, "BLOCK_K": 64, "BLOCK_V": 64}, 8, 4),
        ({"BLOCK_M": 64, "BLOCK_K": 64, "BLOCK_V": 64}, 4, 3, _FOR_THREE),
        ({"BLOCK_M": 64, "BLOCK_K": 64, "BLOCK_V": 64}, 4, 3),
        ({"BLOCK_M": 64, "BLOCK_K": 64, "BLOCK_V": 64}, 4, 2),
    ),
    "state_gradients": (
        ({"BLOCK_K": 64, "BLOCK_V": 128, "BLOCK_T": 64}, 4, 2),
        ({"BLOCK_K": 64, "BLOCK_V": 64, "BLOCK_T": 64}, 4, 2),
    ),
    "query_gradients": (
        ({"BLOCK_M": 64, "BLOCK_Q": 512, "BLOCK_S": 64, "BLOCK_V": 128}, 4, 2),
        ({"BLOCK_M": 64, "BLOCK_Q": 512, "BLOCK_S": 64, "BLOCK_V": 64}, 4, 2),
        ({"BLOCK_M": 64, "BLOCK_Q": 512, "BLOCK_S": 64, "BLOCK_V": 64}, 4, 3, _FOR_THREE),
        ({"BLOCK_M": 32, "BLOCK_Q": 512, "BLOCK_S": 64, "BLOCK_V": 64}, 4, 3),
        ({"BLOCK_M": 32, "BLOCK_Q": 512, "BLOCK_S": 64, "BLOCK_V": 64}, 8, 2),
        ({"BLOCK_M": 16, "BLOCK_Q": 512, "BLOCK_S": 64, "BLOCK_V": 64}, 4, 2),
    ),
    "key_value_gradients": (
        (_keys_and_values((64, 128, 64, 64), (64, 64, 128)), 4, 3, _FOR_THREE),
        (_keys_and_values((64, 128, 64, 64), (128, 64, 128)), 4, 3),
        (_keys_and_values((128, 128, 64, 64), (128, 64, 256)), 8, 3),
        (_keys_and_values((64, 128, 64, 64), (64, 64, 128)), 4, 3),
        (_keys_and_values((64, 64, 64, 64), (64, 64, 64)), 4, 2),
    ),
    "step": (
        ({"BLOCK_K": 128, "BLOCK_V": 128}, 8, 1),
        ({"BLOCK_K": 256, "BLOCK_V": 64}, 4, 1),
        ({"BLOCK_K": 512, "BLOCK_V": 16}, 4, 1),
        ({"BLOCK_K": 64, "BLOCK_V": 64}, 4, 2),
    ),
}
#: Products of float32 numbers take twice the shared memory and, to stay precise, three passes.
_NARROW: dict[str, tuple[_Wanted, ...]] = {
    "states": (
        ({"BLOCK_K": 64, "BLOCK_V": 64, "BLOCK_T": 32}, 4, 1),
        ({"BLOCK_K": 32, "BLOCK_V": 32, "BLOCK_T": 32}, 4, 1),
    ),
    "scores": (
        ({"BLOCK_M": 64, "BLOCK_K": 32}, 4, 1),
        ({"BLOCK_M": 32, "BLOCK_K": 32}, 4, 1),
    ),
    "outputs": (
        ({"BLOCK_M": 64, "BLOCK_K": 32, "BLOCK_S": 32, "BLOCK_V": 64}, 4, 1),
        ({"BLOCK_M": 32, "BLOCK_K": 32, "BLOCK_S": 32, "BLOCK_V": 32}, 4, 1),
    ),
    "pair_gradients": (
        ({"BLOCK_M": 64, "BLOCK_K": 32, "BLOCK_V": 32}, 4, 1),
        ({"BLOCK_M": 32, "BLOCK_K": 32, "BLOCK_V": 32}, 4, 1),
    ),
    "state_gradients": (
        ({"BLOCK_K": 64, "BLOCK_V": 64, "BLOCK_T": 32}, 4, 1),
        ({"BLOCK_K": 32, "BLOCK_V": 32, "BLOCK_T": 32}, 4, 1),
    ),
    "query_gradients": (
        ({"BLOCK_M": 32, "BLOCK_Q": 512, "BLOCK_S": 32, "BLOCK_V": 32}, 8, 1),
        ({"BLOCK_M": 16, "BLOCK_Q": 512, "BLOCK_S": 16, "BLOCK_V": 16}, 8, 1),
    ),
    "key_value_gradients": (
        (_keys_and_values((64, 64, 32, 32), (64, 32, 64)), 4, 1),
        (_keys_and_values((32, 32, 32, 32), (32, 32, 32)), 4, 1),
    ),
    "step": _WIDE["step"],
}


@cache
def candidates(kernel: str, *, d_qk: int, d_hv: int, chunk_size: int, dtype: torch.dtype) -> tuple[Config, ...]:
    """Configurations that may run for a shape, the one that is tried first in front; none twice.

    None at all for `states_and_outputs` where the state of a head does not fit the registers or is not in bfloat16,
    tiles do not divide the chunk or heads are no multiples of 16 bytes.

    Parameters
    ----------
    kernel
        one of `KERNELS`.
    d_qk, d_hv, chunk_size
        the shape; blocks never exceed the next power of two.
    dtype
        of q, k and v.

    Raises
    ------
    InputError
        for an unknown kernel.
    """
    if kernel not in KERNELS:
        raise InputError(f"kernel {kernel!r}: there are {', '.join(KERNELS)}")
    # Blocks of bfloat16 are 64 wide even for narrower heads: with 32 columns and 4 warps ptxas gets products on Hopper
    # wrong (triton-lang/triton issue 11366; seen with d_qk 20 on an H200, Triton 3.6: wrong dq, dk and invalid reads).
    table, least = (_WIDE, 64) if dtype == torch.bfloat16 else (_NARROW, 16)
    if kernel == "states_and_outputs" and (dtype != torch.bfloat16 or chunk_size % TILE or d_qk % 8 or d_hv % 8):
        return ()
    k, v = power_of_2(d_qk, least), power_of_2(d_hv, least)
    limits = dict.fromkeys(("BLOCK_K", "BLOCK_Q", "VALUE_K"), k) | dict.fromkeys(("BLOCK_V", "VALUE_V"), v)
    limits |= dict.fromkeys(("BLOCK_M", "BLOCK_S", "BLOCK_T", "VALUE_M"), chunk_size)
    found = (
        Config(tuple((name, min(size, limits[name])) for name, size in blocks.items()), *rest)
        for blocks, *rest in table[kernel]
    )
    fits = (config for config in found if _fits_registers(config) and _pays(kernel, config, d_qk, d_hv))
    return tuple(dict.fromkeys(fits))


@contextmanager
def forced(**kernels: int) -> Iterator[None]:
    """Within the block, kernels run the candidate of the given number and no other: `forced(outputs=1)`."""
    if unknown := set(kernels) - set(KERNELS):
        raise InputError(f"kernel {', '.join(sorted(unknown))}: there are {', '.join(KERNELS)}")
    before = dict(_forced)
    _forced.update(kernels)
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


@contextmanager
def observed(observe: Callable[[str, Config, Callable[[Config], Any]], Any]) -> Iterator[None]:
    """Within the block `observe(kernel, config, attempt)` makes every launch: it returns `attempt(config)`."""
    _observers.append(observe)
    try:
        yield
    finally:
        _observers.remove(observe)


def run(
    kernel: str,
    attempt: Callable[[Config], T],
    *,
    d_qk: int,
    d_hv: int,
    chunk_size: int,
    dtype: torch.dtype,
    device: torch.device,
    variant: tuple[bool, ...] = (),
    programs: Callable[[Config], int] | None = None,
    size: int = 0,
) -> T:
    """Call `attempt` with the first configuration whose needs the GPU meets, and return what it returns.

    `programs` says how many programs a configuration makes: those that give every multiprocessor one come first. `size`
    is what it depends on beside the shape: the choice is remembered for both.

    Raises
    ------
    InputError
        if none fits, or a forced one does not exist or fit.
    """
    key = (kernel, d_qk, d_hv, chunk_size, dtype, device, variant, size)
    if key in _works and not _forced and not _observers:
        try:
            return attempt(_works[key])
        except OutOfResources:  # compiled anew, for pointers or strides that are not multiples of 16
            del _works[key]
    choices = candidates(kernel, d_qk=d_qk, d_hv=d_hv, chunk_size=chunk_size, dtype=dtype)
    wanted = _forced.get(kernel)
    if wanted is not None and not 0 <= wanted < len(choices):
        raise InputError(f"{kernel}: no configuration {wanted}, there are {len(choices)}")
    order = tuple(range(len(choices)))
    if programs is not None and device.type == "cuda":
        order = by_programs([programs(config) for config in choices], multiprocessors(device))
    if kernel == "query_gradients" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (9, 0):
        order = order[::-1]  # without Hopper's products only 16 rows of all of d_qk fit the registers
    if wanted is not None:
        order = (wanted,)
    elif key in _works:
        order = order[order.index(choices.index(_works[key])) :]
    for number in order:
        try:
            result = _observers[-1](kernel, choices[number], attempt) if _observers else attempt(choices[number])
        except OutOfResources as error:
            refusal = error
            continue
        if wanted is None:
            _works[key] = choices[number]
        return result
    raise InputError(
        f"{kernel}: d_qk {d_qk}, d_hv {d_hv}, chunk_size {chunk_size} in {dtype} needs more than this GPU "
        f"has ({refusal}); a smaller chunk_size needs less, backend='torch' none of it"
    )


def is_watched() -> bool:
    """Whether launches are observed, or candidates were asked for: then every call must choose anew."""
    return bool(_forced or _observers)


def is_forced(kernel: str) -> bool:
    """Whether a candidate of a kernel was asked for by `forced`."""
    return kernel in _forced


def _fits_registers(config: Config) -> bool:
    """Whether a row block of all of d_qk leaves a thread registers for the rest: at most 64 of 255 numbers."""
    blocks = dict(config.blocks)
    return blocks.get("BLOCK_M", 0) * blocks.get("BLOCK_Q", 0) <= 64 * 32 * config.num_warps


def _pays(kernel: str, config: Config, d_qk: int, d_hv: int) -> bool:
    """Whether a candidate that is the fastest for other widths is for these too.

    States in 8 warps want several blocks of d_qk (12 % faster there, 9 % slower at one), and of heads up to 128 wide
    blocks of all d_hv (0.106 ms against 0.160); their gradients at 128/128 blocks of 64 (0.171 ms against 0.186), at
    64/128 of all d_hv (0.467 against 0.654). Pairs in 8 warps want d_hv beyond 128 (2 % faster there, 6 % slower at
    128) and 128 rows; those of few registers d_qk up to 64 (0.56 ms against 0.68), where beyond they go to memory. dq
    in blocks of 128 columns wants two of them, so that one is loaded while the other is multiplied (16 % faster, 10 %
    slower at one), in blocks of 64 two stages for d_qk beyond 64 (0.406 ms against 0.437), else three and few registers
    (0.75 against 0.88). dk and dv want the smallest blocks for d_qk up to 64 (0.97 ms against 1.115), steps in 8 warps
    all of d_qk in one block.
    """
    narrow = d_qk <= 128 and d_hv <= 128
    if kernel == "step":
        return config.num_warps < 8 or (64 < d_qk <= 128 and d_hv > 64)
    if kernel == "states_and_outputs":  # a block of the state in 128 registers of every thread, no fewer in 8 warps
        each = config["BLOCK_K"] * config["BLOCK_V"] // (32 * config.num_warps)
        return d_qk <= config["BLOCK_K"] and (each == 128 or (each < 128 and config.num_warps < 8))
    if kernel == "states":
        whole = config["BLOCK_V"] >= d_hv or config.num_stages == 1  # in float32 a block of 64 is the largest
        return config["BLOCK_K"] < d_qk if config.num_warps == 8 else whole or not narrow
    if kernel == "state_gradients":
        return config["BLOCK_V"] < 128 or not narrow or d_qk <= 64
    if kernel == "pair_gradients":
        few = config.registers is None or d_qk <= 64
        return few and (config.num_warps < 8 or (d_hv > 128 and config["BLOCK_M"] == 128))
    if kernel == "query_gradients":
        early = config["BLOCK_M"] == 64 and config.num_stages == 2
        return d_hv > 128 if config["BLOCK_V"] == 128 else d_qk > 64 or not early
    return kernel != "key_value_gradients" or d_qk > 64 or config.num_stages < 3
