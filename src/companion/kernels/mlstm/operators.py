"""The Triton kernels as operators of torch: schemas, what they compute, and the shapes that a tracer asks for."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from companion.kernels.common import replay
from companion.kernels.common.replay import Launch, launch_now
from companion.kernels.mlstm import configs, launch, launch_backward, launch_fused
from companion.kernels.mlstm.checks import CHUNK_SIZES
from companion.kernels.mlstm.launch import saved_bytes, saved_views
from companion.kernels.mlstm.problem import Problem

Tensor = torch.Tensor

#: A token further than this from the next is too far: those of a chunk must be less than 2³¹ numbers apart.
_FAR = 2**31 // max(CHUNK_SIZES)
#: Operators are defined by their schemas rather than by `custom_op`, whose wrappers take as long as several launches: a
#: step of a small batch is over before they are, and so are most kernels of a training step of small heads. They return
#: lists of the results asked for: a tensor without elements in place of the rest takes 4 µs to allocate. Their
#: names say so (`.list`): torch keeps compiled graphs on disk by the names of operators, and some of them take tuples.
library = torch.library.Library("companion", "FRAGMENT")
_SOURCE = (
    "Tensor q, Tensor k, Tensor v, Tensor i, Tensor f, Tensor? C_0, Tensor? n_0, Tensor? m_0, Tensor? cu_seqlens, "
    "int chunk_size, bool sigmoid, bool normalizer_gradient"
)
library.define(f"mlstm_forward.list({_SOURCE}, bool return_state, bool keep_states) -> Tensor[]")
library.define(
    f"mlstm_backward.list(Tensor dh, Tensor? dC, Tensor? dn, Tensor saved, Tensor? states, {_SOURCE}) -> Tensor[]"
)
library.define(
    "mlstm_step(Tensor q, Tensor k, Tensor v, Tensor i, Tensor f, Tensor(a!) C, Tensor(b!) n, Tensor(c!) m, "
    "bool sigmoid) -> Tensor"
)


def _new_state(q: Tensor, v: Tensor, num_seqs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for C, n and m of sequences."""
    n_heads, d_qk = q.shape[2:]
    return (
        q.new_empty((num_seqs, n_heads, d_qk, v.shape[-1]), dtype=torch.float32),
        q.new_empty((num_seqs, n_heads, d_qk), dtype=torch.float32),
        q.new_empty((num_seqs, n_heads), dtype=torch.float32),
    )


def _sequences(q: Tensor, cu_seqlens: Tensor | None, chunk_size: int) -> tuple[int, int]:
    """Number of sequences and of their chunks; if packed the most that there may be."""
    batch_size, context_length = q.shape[:2]
    if cu_seqlens is None:
        return batch_size, batch_size * ((context_length + chunk_size - 1) // chunk_size)
    num_seqs = cu_seqlens.numel() - 1
    return num_seqs, batch_size * context_length // chunk_size + num_seqs


def _new_results(
    q: Tensor, v: Tensor, cu_seqlens: Tensor | None, chunk_size: int, return_state: bool, keep_states: bool
) -> list[Tensor]:
    """Memory for `Results`, one after another; zero where packed sequences leave tokens out.

    States at the start of every chunk, (all chunks, H, d_hv, d_qk), are kept for shapes whose states and outputs may be
    one kernel, which has them at hand (where they are two all the same, another writes them).
    """
    num_seqs, num_chunks = _sequences(q, cu_seqlens, chunk_size)
    size = saved_bytes(q.shape[0] * q.shape[1], num_chunks, q.shape[2], q.shape[3], q.dtype)
    # interpreted (on the CPU) all of it is set, too: checks of operators compare the bytes between its parts
    new = q.new_empty if cu_seqlens is None and q.device.type != "cpu" else q.new_zeros
    saved = new(size, dtype=torch.uint8)
    h = torch.empty_like(v) if cu_seqlens is None else torch.zeros_like(v)
    results = [h, saved, *(_new_state(q, v, num_seqs) if return_state else ())]
    if keep_states and cu_seqlens is None and launch_fused.can_be_one(q, v, chunk_size):
        results.append(q.new_empty((num_chunks, q.shape[2], v.shape[3], q.shape[3]), dtype=torch.bfloat16))
    return results


class Results(NamedTuple):
    """Of the forward pass: `final` state where it was asked for, and `states` that are kept, if any."""

    h: Tensor
    saved: Tensor
    final: tuple[Tensor, Tensor, Tensor] | None
    states: Tensor | None

    @classmethod
    def of(cls, found: Sequence[Tensor], return_state: bool) -> "Results":
        """From what the operator returns."""
        h, saved, *rest = found
        final = (rest[0], rest[1], rest[2]) if return_state else None
        return cls(h, saved, final, rest[-1] if len(rest) % 3 else None)


@torch.library.impl(library, "mlstm_forward.list", "CUDA")
@torch.library.impl(library, "mlstm_forward.list", "CPU")  # under Triton's interpreter
def forward_kernels(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    C_0: Tensor | None,
    n_0: Tensor | None,
    m_0: Tensor | None,
    cu_seqlens: Tensor | None,
    chunk_size: int,
    sigmoid: bool,
    normalizer_gradient: bool,
    return_state: bool,
    keep_states: bool,
) -> list[Tensor]:
    """The operator `mlstm_forward`: see `Results`."""
    results = _new_results(q, v, cu_seqlens, chunk_size, return_state, keep_states)
    h, saved, final, kept = Results.of(results, return_state)

    def launches(launcher: Launch) -> None:
        p = Problem.of(q, v, cu_seqlens, chunk_size, sigmoid, launcher)
        launch.forward(p, (q, k, v, i, f), _state(C_0, n_0, m_0), h, final, saved_views(p, saved), kept)

    def backward(launcher: Launch) -> None:
        p = Problem.of(q, v, None, chunk_size, sigmoid, launcher)
        of_inputs = tuple([torch.empty_like(x) for x in (q, k, v, i, f)])
        of_state = None if C_0 is None else _new_state(q, v, p.num_seqs)[:2]
        launch_backward.backward(
            p,
            h,
            None,
            (q, k, v, i, f),
            C_0,
            saved_views(p, saved),
            kept,
            normalizer_gradient,
            of_inputs,
            of_state,
            None,
        )

    def to_come() -> Mapping[tuple[Any, ...], Callable[[Launch], None]]:
        # a gradient of h that is laid out as h, and none of the state: what training has
        if not any([x.requires_grad for x in (q, k, v, i, f)]):
            return {}
        options = ("backward", C_0 is None, chunk_size, sigmoid, normalizer_gradient, True, kept is None)
        return {_kind(options, (q, k, v, i, f, h)): backward}

    options = ("forward", C_0 is None, chunk_size, sigmoid, return_state, kept is None)
    _launch(options, (q, k, v, i, f), cu_seqlens, (C_0, n_0, m_0, *results), launches, to_come)
    return results


def _launch(
    options: tuple[Any, ...],
    inputs: tuple[Tensor, ...],
    cu_seqlens: Tensor | None,
    others: tuple[Any, ...],
    launches: Callable[[Launch], None],
    to_come: Callable[[], Mapping[tuple[Any, ...], Callable[[Launch], None]]] = dict,
) -> None:
    """Launch a pass by its plan; packed sequences, whose chunks torch finds on the device, and what is watched without.

    `options` say which pass it is, and how it differs from others on tensors like `inputs`. Strides of `others` are
    known from those of the inputs.
    """
    first = inputs[0]
    with _device_of(first):
        if cu_seqlens is not None or configs.is_watched():
            launches(launch_now)
            return
        key = (options, first.shape, _types(inputs), tuple([x.stride() for x in inputs]))
        outside = (*inputs, *others)
        replay.call(key, lambda: _kind(options, inputs), first.device, outside, launches, to_come)


def _types(inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Width of the values, dtypes and device."""
    return (inputs[2].shape[-1], *[x.dtype for x in inputs], inputs[0].device)


def _kind(options: tuple[Any, ...], inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """What decides which kernels a pass needs: of sizes those of heads, of strides whether they are 1 or 16·n."""
    classes = tuple((n == 1, n % 16 == 0) for x in inputs for n in x.stride()[:3])
    return (*options, inputs[0].shape[2:], _types(inputs), classes)


@torch.library.register_fake("companion::mlstm_forward.list", lib=library)
def _(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> list[Tensor]:
    *_, cu_seqlens, chunk_size, _, _, return_state, keep_states = rest
    return _new_results(q, v, cu_seqlens, chunk_size, return_state, keep_states)


@torch.library.impl(library, "mlstm_backward.list", "CUDA")
@torch.library.impl(library, "mlstm_backward.list", "CPU")
def backward_kernels(
    dh: Tensor,
    dC: Tensor | None,
    dn: Tensor | None,
    saved: Tensor,
    states: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    C_0: Tensor | None,
    n_0: Tensor | None,
    m_0: Tensor | None,
    cu_seqlens: Tensor | None,
    chunk_size: int,
    sigmoid: bool,
    normalizer_gradient: bool,
) -> list[Tensor]:
    """The operator `mlstm_backward`; `states` are those that the forward pass kept, if any.

    Gradients of the inputs; of C and n of the initial state if there was one; and, with gradients of the final state,
    what comes through the end of every sequence.
    """
    inputs, dh = (q, k, v, i, f), readable(dh)
    gradient = None if dC is None or dn is None else (dC, dn)
    results = _new_gradients(inputs, C_0, gradient, cu_seqlens, chunk_size)
    of_inputs, of_state = tuple(results[:5]), None if C_0 is None else (results[5], results[6])
    of_end = None if gradient is None else results[-1]
    if of_state is not None and gradient is None and (sigmoid or not normalizer_gradient):
        of_state[1].zero_()  # nothing flows through n

    def launches(launcher: Launch) -> None:
        p = Problem.of(q, v, cu_seqlens, chunk_size, sigmoid, launcher)
        launch_backward.backward(
            p,
            dh,
            gradient,
            inputs,
            C_0,
            saved_views(p, saved),
            states,
            normalizer_gradient,
            of_inputs,
            of_state,
            of_end,
        )

    options = ("backward", C_0 is None, chunk_size, sigmoid, normalizer_gradient, gradient is None, states is None)
    _launch(options, (*inputs, dh), cu_seqlens, (dC, dn, saved, states, C_0, *results), launches)
    return results


def _new_gradients(
    inputs: tuple[Tensor, ...], C_0: Any, of_final: Any, cu_seqlens: Tensor | None, chunk_size: int
) -> list[Tensor]:
    """Memory for what `mlstm_backward` returns, with an initial state or without, and a gradient of the final one."""
    q, _, v, _, _ = inputs
    new = torch.empty_like if cu_seqlens is None else torch.zeros_like
    results = [new(x) for x in inputs]
    if C_0 is not None or of_final is not None:
        num_seqs, _ = _sequences(q, cu_seqlens, chunk_size)
        results += () if C_0 is None else _new_state(q, v, num_seqs)[:2]
        results += () if of_final is None else [q.new_zeros((num_seqs, q.shape[2]), dtype=torch.float32)]
    return results


@torch.library.register_fake("companion::mlstm_backward.list", lib=library)
def _(dh: Tensor, dC: Any, dn: Any, saved: Tensor, states: Any, *rest: Any) -> list[Tensor]:
    q, k, v, i, f, C_0, _, _, cu_seqlens, chunk_size, *_ = rest
    return _new_gradients((q, k, v, i, f), C_0, None if dn is None else dC, cu_seqlens, chunk_size)


@torch.library.impl(library, "mlstm_step", "CUDA")
@torch.library.impl(library, "mlstm_step", "CPU")  # under Triton's interpreter
def step_kernels(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, C: Tensor, n: Tensor, m: Tensor, sigmoid: bool
) -> Tensor:
    h = v.new_empty(v.shape)
    _launch(
        ("step", C.dtype, sigmoid),
        (q, k, v, i, f),
        None,
        (C, n, m, h),
        lambda launcher: launch.step(q, k, v, i, f, C, n, m, h, sigmoid, launcher),
    )
    torch.autograd.graph.increment_version((C, n, m))  # so that a backward pass that needs the old state refuses
    return h


@torch.library.register_fake("companion::mlstm_step", lib=library)
def _(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, C: Tensor, n: Tensor, m: Tensor, sigmoid: bool) -> Tensor:
    return v.new_empty(v.shape)


def readable(x: Tensor) -> Tensor:
    """The tensor (B, T, H, d), or a contiguous copy where kernels cannot walk through it.

    They take a contiguous last dimension, in results laid out alike too (a sliding window has two axes of stride 1),
    and tokens of a chunk less than 2³¹ numbers apart.
    """
    batch, token, head, last = x.stride()
    if token < _FAR and x.is_contiguous():
        return x
    near = token < _FAR
    rows = x.shape[-1] > 1 and min(batch, token, head) >= x.shape[-1]  # apart: the last dimension stays the innermost
    alike = last == 1 and (rows or torch.empty_like(x, device="meta").stride(-1) == 1)
    return x if near and alike else x.contiguous()


def _device_of(x: Tensor) -> Any:
    """Triton launches on the current GPU, whichever the tensors are on."""
    if not x.is_cuda or x.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(x.device)


def _state(C: Tensor | None, n: Tensor | None, m: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
    return None if C is None or n is None or m is None else (C, n, m)


forward = torch.ops.companion.mlstm_forward.list
backward = torch.ops.companion.mlstm_backward.list
step = torch.ops.companion.mlstm_step.default
