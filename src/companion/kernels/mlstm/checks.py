"""What `mlstm` and `mlstm_step` accept, checked before anything runs.

Every function either returns what the caller needs next or raises `InputError` with one line that says what is
supported and what to use instead. Shapes, dtypes and devices are known without waiting for a GPU; values are not, so
the only values that are read are those of `cu_seqlens`, and only where that costs nothing (see `check_bounds`).
"""

import os
from importlib.util import find_spec
from itertools import pairwise
from typing import NamedTuple

import torch

from companion.errors import InputError
from companion.kernels.mlstm.state import MLSTMState
from companion.kernels.mlstm.transforms import transform_obstacle

Tensor = torch.Tensor

BACKENDS = ("auto", "triton", "torch", "torch-parallel", "torch-recurrent")
#: Axes before the head's own, by layout; `step` is one token.
AXES = {"bthd": ("B", "T", "H"), "bhtd": ("B", "H", "T"), "step": ("B", "H")}
LAYOUTS = ("bthd", "bhtd")
GATES = ("exponential", "sigmoid")
#: Of the Triton kernels.
CHUNK_SIZES = (16, 32, 64, 128, 256)
HEAD_SIZES = (16, 512)
TRITON_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
CAPABILITY = (8, 0)
#: Of the plain-torch forms.
TORCH_DTYPES = (*TRITON_DTYPES, torch.float64)


class Sizes(NamedTuple):
    """Sizes that q, k, v and the gates agree on; `context_length` is 1 for a single step."""

    batch_size: int
    context_length: int
    n_heads: int
    d_qk: int
    d_hv: int


def check_options(*, backend: str, gate: str, layout: str = "bthd", chunk_size: int | None = None) -> None:
    """Names and the chunk size.

    Raises
    ------
    InputError
        for an unknown backend, gate or layout, or a chunk size that the backend does not have. `auto` takes those of
        Triton on every machine, so that what runs on a CPU runs on a GPU.
    """
    for name, value, known in (("backend", backend, BACKENDS), ("gate", gate, GATES), ("layout", layout, LAYOUTS)):
        if value not in known:
            raise InputError(f"{name}: {value!r} is unknown; use one of {', '.join(known)}")
    if chunk_size is None:
        return
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise InputError(f"chunk_size: {chunk_size!r} is not a positive whole number")
    if backend in ("torch-parallel", "torch-recurrent"):
        raise InputError(f"chunk_size: backend {backend!r} has no chunks; leave it out, or use backend='torch'")
    if backend != "torch" and chunk_size not in CHUNK_SIZES:
        raise InputError(
            f"chunk_size: {chunk_size} is not one of {', '.join(map(str, CHUNK_SIZES))}; "
            "use one of them, or backend='torch', which takes any"
        )


def check_inputs(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, layout: str = "bthd") -> Sizes:
    """Ranks, sizes, dtypes and devices of the inputs; `layout` is a key of `AXES`.

    Raises
    ------
    InputError
        if a tensor has another number of axes, disagrees with q in a size, dtype or device, is empty, or has a dtype
        that no backend supports.
    """
    if not _same_place(q, k, v, i, f):
        _complain({"q": q, "k": k, "v": v, "i": i, "f": f}, layout)
    shape, gates, widths = q.shape, i.shape, v.shape
    fits = len(gates) == len(AXES[layout]) and shape[:-1] == gates == widths[:-1]
    if not fits or f.shape != gates or k.shape != shape or 0 in shape or 0 in widths:
        _complain({"q": q, "k": k, "v": v, "i": i, "f": f}, layout)
    dtype = q.dtype
    known = dtype in TORCH_DTYPES and i.dtype in TORCH_DTYPES and f.dtype in TORCH_DTYPES
    if not known or k.dtype != dtype or v.dtype != dtype:
        _complain_of_dtypes({"q": q, "k": k, "v": v, "i": i, "f": f})
    if layout == "bthd":
        batch_size, context_length, n_heads, d_qk = shape
    elif layout == "bhtd":
        batch_size, n_heads, context_length, d_qk = shape
    else:
        (batch_size, n_heads, d_qk), context_length = shape, 1
    return Sizes(batch_size, context_length, n_heads, d_qk, widths[-1])


def _same_place(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> bool:
    """Whether all are tensors on one device, without saying what is not: a step of a small batch waits for it."""
    kind = torch.Tensor
    tensors = isinstance(q, kind) and isinstance(k, kind) and isinstance(v, kind)
    tensors = tensors and isinstance(i, kind) and isinstance(f, kind)
    return tensors and q.device == k.device == v.device == i.device == f.device


def _complain(inputs: dict[str, Tensor], layout: str) -> None:
    """The error for inputs that do not agree: of the first tensor that is at fault."""
    q, axes = inputs["q"], AXES[layout]
    widths = {"q": "d_qk", "k": "d_qk", "v": "d_hv"}
    for name, x in inputs.items():
        if not isinstance(x, torch.Tensor):
            raise InputError(f"{name}: {type(x).__name__} is not a torch tensor")
        expected = (*axes, widths[name]) if name in widths else axes
        if x.ndim != len(expected):
            raise InputError(f"{name}: {x.ndim} axes, shape {tuple(x.shape)}; expected ({', '.join(expected)})")
        for axis, size, wanted in zip(axes, x.shape, q.shape, strict=False):
            if size != wanted:
                raise InputError(
                    f"{name}: {axis} = {size} but q has {axis} = {wanted}; q, k, v start with ({', '.join(axes)}), "
                    f"i and f have just these axes{_layouts(layout)}"
                )
        for axis, size in zip(expected, x.shape, strict=True):
            if size == 0:
                raise InputError(f"{name}: {axis} = 0, shape {tuple(x.shape)}; every axis needs at least one element")
        if x.device != q.device:
            raise InputError(f"{name}: on {x.device} but q is on {q.device}; move all inputs to one device")
    d_k, d_q = inputs["k"].shape[-1], q.shape[-1]
    raise InputError(f"k: d_qk = {d_k} but q has d_qk = {d_q}; queries and keys share their size")


def _layouts(layout: str) -> str:
    return "" if layout == "step" else f" (layout {layout!r}; the other is {LAYOUTS[layout == 'bthd']!r})"


def _complain_of_dtypes(inputs: dict[str, Tensor]) -> None:
    """The error for dtypes that no backend supports, or that differ among q, k and v."""
    dtype = inputs["q"].dtype
    for name in ("k", "v"):
        if inputs[name].dtype != dtype:
            raise InputError(
                f"{name}: {_short(inputs[name].dtype)} but q is {_short(dtype)}; cast q, k and v to one dtype"
            )
    for name, x in inputs.items():
        if x.dtype not in TORCH_DTYPES:
            raise InputError(f"{name}: {_short(x.dtype)} is not supported; use one of {_names(TORCH_DTYPES)}")


def check_state(
    state: MLSTMState, sizes: Sizes, *, dtype: torch.dtype, device: torch.device, name: str = "state", first: str = "B"
) -> MLSTMState:
    """A state for these inputs, as `MLSTMState` (a plain tuple of C, n, m will do).

    Parameters
    ----------
    dtype
        of q. C may be float32 or bfloat16, n and m float32; with float64 inputs all may be float64.
    name
        what the message calls the state.
    first
        its first axis: `B`, or `N` sequences of a packed batch; `sizes.batch_size` is its size.

    Raises
    ------
    InputError
        if it has other parts, or one of them another shape, dtype or device.
    """
    if not isinstance(state, tuple) or len(state) != 3:
        raise InputError(f"{name}: {type(state).__name__} is not an MLSTMState(C, n, m); see MLSTMState.empty")
    axes = (first, "H", "d_qk", "d_hv")
    whole = (sizes.batch_size, sizes.n_heads, sizes.d_qk, sizes.d_hv)
    wide = (torch.float64,) if dtype == torch.float64 else ()
    for part, rank, x in zip("Cnm", (4, 3, 2), state, strict=True):
        if not isinstance(x, torch.Tensor):
            raise InputError(f"{name}.{part}: {type(x).__name__} is not a torch tensor")
        if tuple(x.shape) != whole[:rank]:
            raise InputError(
                f"{name}.{part}: shape {tuple(x.shape)}; expected ({', '.join(axes[:rank])}) = {whole[:rank]}"
            )
        allowed = (torch.float32, *((torch.bfloat16,) if part == "C" else ()), *wide)
        if x.dtype not in allowed:
            raise InputError(f"{name}.{part}: {_short(x.dtype)} is not supported; use {_names(allowed, ' or ')}")
        if x.device != device:
            raise InputError(f"{name}.{part}: on {x.device} but q is on {device}; move the state to the inputs")
    return MLSTMState(*state)


def check_updatable(state: MLSTMState) -> None:
    """A state that can be written in place.

    Raises
    ------
    InputError
        if a part is an expanded view, in which several elements are the same number in memory.
    """
    for part, x in zip("Cnm", state, strict=True):
        if not x.is_contiguous() and any(
            stride == 0 and size > 1 for size, stride in zip(x.shape, x.stride(), strict=True)
        ):
            raise InputError(f"state.{part}: an expanded view cannot be updated in place; pass state.{part}.clone()")


def check_cu_seqlens(cu_seqlens: Tensor, sizes: Sizes, device: torch.device) -> int:
    """Form of the bounds of packed sequences; returns their number N.

    Raises
    ------
    InputError
        if `cu_seqlens` is not a vector of at least two int32 or int64 on the CPU or the device of q, or B is not 1.
    """
    if not isinstance(cu_seqlens, torch.Tensor):
        raise InputError(f"cu_seqlens: {type(cu_seqlens).__name__} is not a torch tensor")
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise InputError(f"cu_seqlens: {_short(cu_seqlens.dtype)} is not supported; use int32 or int64")
    if cu_seqlens.ndim != 1 or cu_seqlens.shape[0] < 2:
        raise InputError(
            f"cu_seqlens: shape {tuple(cu_seqlens.shape)}; expected (N + 1), the bounds of N >= 1 sequences: 0, ..., T"
        )
    if cu_seqlens.device != device and cu_seqlens.device.type != "cpu":
        raise InputError(f"cu_seqlens: on {cu_seqlens.device} but q is on {device}; move it there or to the CPU")
    if sizes.batch_size != 1:
        raise InputError(
            f"cu_seqlens: packed sequences lie one after another in B = 1, but q has B = {sizes.batch_size}"
        )
    return cu_seqlens.shape[0] - 1


def check_bounds(bounds: list[int], context_length: int) -> None:
    """Values of `cu_seqlens`: they start at 0, never fall, and end at T.

    The plain-torch backends need the values on the CPU anyway. For Triton they are read only from a CPU tensor, and not
    while a graph is compiled: reading them from the GPU would make the CPU wait for all work before, on every call, and
    cannot be captured in a CUDA graph.

    Raises
    ------
    InputError
        if they do not.
    """
    if bounds[0] != 0:
        raise InputError(f"cu_seqlens: starts at {bounds[0]}, not at 0")
    for position, (start, end) in enumerate(pairwise(bounds)):
        if end < start:
            raise InputError(f"cu_seqlens: falls from {start} to {end} at position {position + 1}")
    if bounds[-1] != context_length:
        raise InputError(f"cu_seqlens: ends at {bounds[-1]}, but q has T = {context_length} tokens")


def choose_backend(backend: str, inputs: tuple[Tensor, ...], sizes: Sizes) -> str:
    """The backend that runs: `auto` becomes `triton` where these inputs can, else `torch`.

    Raises
    ------
    InputError
        for `triton` if it cannot; the message says why and what can.
    """
    if backend not in ("auto", "triton"):
        return backend
    device = inputs[0].device
    if backend == "auto" and device.type != "cuda":
        return "torch"
    obstacle = input_obstacle(inputs, sizes) or machine_obstacle(device)
    if backend == "auto":
        return "triton" if obstacle is None else "torch"
    if obstacle is not None:
        raise InputError(f"backend 'triton': {obstacle}; backend='torch' can, and 'auto' chooses it by itself")
    return backend


def check_transforms(tensors: tuple[Tensor, ...]) -> None:
    """No transform of torch that the Triton kernels do not go through; for `triton`, named or chosen by `auto`.

    Raises
    ------
    InputError
        under forward-mode derivatives, `torch.func.vmap` or `torch.func.grad` of one of the tensors.
    """
    if (obstacle := transform_obstacle(tensors)) is not None:
        raise InputError(f"backend 'triton': {obstacle}; use backend='torch', which can")


def input_obstacle(inputs: tuple[Tensor, ...], sizes: Sizes) -> str | None:
    """Why Triton kernels cannot take these dtypes and head sizes; None if they can."""
    q, _, _, i, f = inputs  # k and v have the dtype of q
    low, high = HEAD_SIZES
    known = q.dtype in TRITON_DTYPES and i.dtype in TRITON_DTYPES and f.dtype in TRITON_DTYPES
    if known and low <= sizes.d_qk <= high and low <= sizes.d_hv <= high:
        return None
    for name, x in (("q", q), ("i", i), ("f", f)):
        if x.dtype not in TRITON_DTYPES:
            return f"{name} is {_short(x.dtype)}, kernels take {_names(TRITON_DTYPES)}"
    axis, size = ("d_hv", sizes.d_hv) if low <= sizes.d_qk <= high else ("d_qk", sizes.d_qk)
    return f"{axis} = {size}, kernels take head sizes from {low} to {high}"


#: GPUs that were found to run the kernels: that does not change while a process lives, and is asked at every call.
_FIT_GPUS: set[torch.device] = set()


@torch.compiler.assume_constant_result
def machine_obstacle(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on this device here; None if they can. A compiled program asks only once."""
    if device in _FIT_GPUS:
        return None
    if find_spec("triton") is None:
        return "Triton is not installed (extra 'kernels', on Linux)"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        where = "q is on" if torch.cuda.is_available() else "torch sees no CUDA GPU here, and q is on"
        return f"{where} {device.type}, kernels take CUDA tensors (CPU ones only with TRITON_INTERPRET=1, to test them)"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        have, need = (".".join(map(str, pair)) for pair in (capability, CAPABILITY))
        return f"this GPU has compute capability {have}, kernels need {need} or later"
    _FIT_GPUS.add(device)
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(dtypes: tuple[torch.dtype, ...], between: str = ", ") -> str:
    return between.join(map(_short, dtypes))
