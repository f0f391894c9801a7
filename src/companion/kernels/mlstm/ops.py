"""The Triton kernels as operators of torch: differentiable, traceable by torch.compile, fit for CUDA graphs."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from companion.kernels.common import replay
from companion.kernels.common.replay import Launch, launch_now
from companion.kernels.mlstm import configs, launch, launch_backward, launch_fused
from companion.kernels.mlstm.checks import CHUNK_SIZES
from companion.kernels.mlstm.launch import saved_bytes, saved_views
from companion.kernels.mlstm.problem import Problem, bounds_of
from companion.kernels.mlstm.state import MLSTMState

Tensor = torch.Tensor


def default_chunk_size(d_qk: int, dtype: torch.dtype) -> int:
    """Tokens per chunk where a caller names none: longer for wide heads, whose states cost more to write and read."""
    return 128 if d_qk >= 128 and dtype == torch.bfloat16 else 64


def mlstm_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    initial_state: MLSTMState | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    chunk_size: int | None = None,
    gate: str = "exponential",
    normalizer_gradient: bool = True,
    return_state: bool = True,
) -> tuple[Tensor, MLSTMState | None]:
    """The mLSTM by Triton kernels; see `companion.kernels.mlstm`, which checks its input and calls this.

    Parameters
    ----------
    q, k, v
        (B, T, H, d_qk), (B, T, H, d_qk), (B, T, H, d_hv) of one dtype, any strides (a last dimension that is not
        contiguous is copied).
    i, f
        (B, T, H), any floating dtype and strides.
    initial_state
        of every sequence; C and n are read as float32.
    cu_seqlens
        (N + 1,) first token of every packed sequence, and the end of the last; B is then 1.

    Returns
    -------
    h of shape (B, T, H, d_hv), laid out in memory as v, and the state after the last token of every sequence, float32;
    None without `return_state`.
    """
    q, k, v = (_ready(x) for x in (q, k, v))
    C_0, n_0, m_0 = (None, None, None) if initial_state is None else (x.float().contiguous() for x in initial_state)
    size = chunk_size or default_chunk_size(q.shape[-1], q.dtype)
    given = (q, k, v, i, f, C_0, n_0, m_0)
    keep = torch.is_grad_enabled() and any([x is not None and x.requires_grad for x in given])
    if keep and not launch_fused.pays_to_keep(q.shape[-1], v.shape[-1], q.shape[1], size):
        keep = False  # by a branch: of a size that changes torch.compile would make the result an input of its graph
    h, C, n, m, _, _ = _forward(
        q, k, v, i, f, C_0, n_0, m_0, cu_seqlens, size, gate == "sigmoid", normalizer_gradient, return_state, keep
    )
    return h, MLSTMState(C, n, m) if return_state else None


def mlstm_step_triton(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState, *, gate: str = "exponential"
) -> Tensor:
    """One token by Triton kernels: h of shape (B, H, d_hv); `state` is updated in place, no gradient.

    Parameters
    ----------
    q, k, v
        (B, H, d_qk), (B, H, d_qk), (B, H, d_hv)
    i, f
        (B, H)
    state
        C in float32 or bfloat16, n and m in float32; parts that are not contiguous are copied there and back.
    """
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    whole = [x.contiguous() for x in state]
    h = _step(q, k, v, i, f, *whole, gate == "sigmoid")
    for part, copy in zip(state, whole, strict=True):
        if not part.is_contiguous():
            part.copy_(copy)
    return h


#: Operators are defined by their schemas rather than by `custom_op`, whose wrappers take as long as several launches: a
#: step of a small batch is over before they are, and so are most kernels of a training step of small heads.
_library = torch.library.Library("companion", "FRAGMENT")
_SOURCE = (
    "Tensor q, Tensor k, Tensor v, Tensor i, Tensor f, Tensor? C_0, Tensor? n_0, Tensor? m_0, Tensor? cu_seqlens, "
    "int chunk_size, bool sigmoid, bool normalizer_gradient"
)
_library.define(f"mlstm_forward({_SOURCE}, bool return_state, bool keep_states) -> ({', '.join(['Tensor'] * 6)})")
_library.define(
    f"mlstm_backward(Tensor dh, Tensor? dC, Tensor? dn, Tensor saved, Tensor states, {_SOURCE}) "
    f"-> ({', '.join(['Tensor'] * 7)})"
)
_library.define(
    "mlstm_step(Tensor q, Tensor k, Tensor v, Tensor i, Tensor f, Tensor(a!) C, Tensor(b!) n, Tensor(c!) m, "
    "bool sigmoid) -> Tensor"
)


def _new_state(q: Tensor, v: Tensor, num_seqs: int, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for C, n and m of sequences; without elements where they are not wanted."""
    num_seqs = num_seqs if wanted else 0
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
) -> tuple[Tensor, ...]:
    """Memory for h, the final state and what is kept; zero where packed sequences leave tokens out.

    States at the start of every chunk, (all chunks, H, d_hv, d_qk), are kept for shapes whose states and outputs may be
    one kernel, which has them at hand (where they are two all the same, another writes them); else without elements.
    """
    num_seqs, num_chunks = _sequences(q, cu_seqlens, chunk_size)
    size = saved_bytes(q.shape[0] * q.shape[1], num_chunks, q.shape[2], q.shape[3], q.dtype)
    saved = q.new_empty(size, dtype=torch.uint8)
    keep = keep_states and cu_seqlens is None and launch_fused.can_be_one(q, v, chunk_size)
    states = q.new_empty((num_chunks if keep else 0, q.shape[2], v.shape[3], q.shape[3]), dtype=torch.bfloat16)
    if cu_seqlens is None:
        return torch.empty_like(v), *_new_state(q, v, num_seqs, return_state), saved, states
    return torch.zeros_like(v), *_new_state(q, v, num_seqs, return_state), saved.zero_(), states


@torch.library.impl(_library, "mlstm_forward", "CUDA")
@torch.library.impl(_library, "mlstm_forward", "CPU")  # under Triton's interpreter
def _forward_kernels(
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
) -> tuple[Tensor, ...]:
    results = h, C, n, m, saved, states = _new_results(q, v, cu_seqlens, chunk_size, return_state, keep_states)
    kept = states if states.numel() else None

    def launches(launcher: Launch) -> None:
        p = Problem.of(q, v, cu_seqlens, chunk_size, sigmoid, launcher)
        final = (C, n, m) if return_state else None
        launch.forward(p, (q, k, v, i, f), _state(C_0, n_0, m_0), h, final, saved_views(p, saved), kept)

    options = ("forward", C_0 is None, chunk_size, sigmoid, return_state, kept is None)
    _launch(options, (q, k, v, i, f), cu_seqlens, (C_0, n_0, m_0, *results), launches)
    return results


def _launch(
    options: tuple[Any, ...],
    inputs: tuple[Tensor, ...],
    cu_seqlens: Tensor | None,
    others: tuple[Tensor | None, ...],
    launches: Callable[[Launch], None],
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
        shapes = (first.shape, inputs[2].shape[-1], *[x.dtype for x in inputs], first.device)
        strides = tuple([x.stride() for x in inputs])

        def kind() -> tuple[Any, ...]:
            # of sizes the compiler knows those of heads alone, of strides whether they are 1 or multiples of 16
            classes = tuple((n == 1, n % 16 == 0) for each in strides for n in each[:3])
            return (*options, first.shape[2:], shapes[1:], classes)

        outside = (*inputs, *others)
        replay.call((options, shapes, strides), kind, first.device, outside, launches)


@torch.library.register_fake("companion::mlstm_forward", lib=_library)
def _(
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
) -> tuple[Tensor, ...]:
    return _new_results(q, v, cu_seqlens, chunk_size, return_state, keep_states)


@torch.library.impl(_library, "mlstm_backward", "CUDA")
@torch.library.impl(_library, "mlstm_backward", "CPU")
def _backward_kernels(
    dh: Tensor,
    dC: Tensor | None,
    dn: Tensor | None,
    saved: Tensor,
    states: Tensor,
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
) -> tuple[Tensor, ...]:
    inputs, dh, kept = (q, k, v, i, f), _ready(dh), states if states.numel() else None
    gradient = None if dC is None or dn is None else (dC, dn)
    new = torch.empty_like if cu_seqlens is None else torch.zeros_like
    of_inputs = tuple([new(x) for x in inputs])
    dC_0, dn_0, _ = _new_state(q, v, _sequences(q, cu_seqlens, chunk_size)[0], C_0 is not None)
    if gradient is None and (sigmoid or not normalizer_gradient):
        dn_0.zero_()  # nothing flows through n

    def launches(launcher: Launch) -> None:
        p = Problem.of(q, v, cu_seqlens, chunk_size, sigmoid, launcher)
        of_state = None if C_0 is None else (dC_0, dn_0)
        launch_backward.backward(
            p, dh, gradient, inputs, C_0, saved_views(p, saved), kept, normalizer_gradient, of_inputs, of_state
        )

    options = ("backward", C_0 is None, chunk_size, sigmoid, normalizer_gradient, gradient is None, kept is None)
    others = (dC, dn, saved, kept, C_0, *of_inputs, dC_0, dn_0)
    _launch(options, (*inputs, dh), cu_seqlens, others, launches)
    return (*of_inputs, dC_0, dn_0)


@torch.library.register_fake("companion::mlstm_backward", lib=_library)
def _(dh: Tensor, dC: Any, dn: Any, saved: Tensor, states: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    q, k, v, i, f, C_0, _, _, cu_seqlens, chunk_size, *_ = rest
    of_state = _new_state(q, v, _sequences(q, cu_seqlens, chunk_size)[0], C_0 is not None)
    return (*(torch.empty_like(x) for x in (q, k, v, i, f)), *of_state[:2])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, i, f, C_0, n_0, m_0, cu_seqlens, *options, _, _ = inputs
    _, C, n, m, saved, states = output
    ctx.mark_non_differentiable(states)
    ctx.set_materialize_grads(False)
    ctx.options = options
    ctx.save_for_backward(q, k, v, i, f, C_0, n_0, m_0, cu_seqlens, C, n, m, saved, states)


def _gradients(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, i, f, C_0, n_0, m_0, cu_seqlens, C, n, m, saved, states = ctx.saved_tensors
    dh, dC, dn, dm, _, _ = gradients
    if not m.numel():  # no state was asked for
        dC = dn = dm = None
    if dh is None:
        dh = torch.zeros_like(v)
    of_m = None
    if not (dC is None and dn is None and dm is None):
        dC = torch.zeros_like(C) if dC is None else dC.contiguous()
        dn = torch.zeros_like(n) if dn is None else dn.contiguous()
        of_m = (torch.zeros_like(m) if dm is None else dm) - (dC * C).sum((-1, -2)) - (dn * n).sum(-1)
    dq, dk, dv, di, df, dC_0, dn_0 = _backward(
        dh, dC, dn, saved, states, q, k, v, i, f, C_0, n_0, m_0, cu_seqlens, *ctx.options
    )
    nothing = (None,) * 6
    to_start = None
    if of_m is not None:
        # scaling C and n by exp(−m) and m with it: the stored state moves with the maximum that m is
        add_i, add_f, to_start = _through_final_exponent(of_m, i, f, m_0, cu_seqlens, ctx.options[1])
        di, df = (di.float() + add_i).to(i.dtype), (df.float() + add_f).to(f.dtype)
    if C_0 is None:
        return dq, dk, dv, di, df, None, None, None, *nothing
    dm_0 = (dC_0 * C_0).sum((-1, -2)) + (dn_0 * n_0).sum(-1)
    return dq, dk, dv, di, df, dC_0, dn_0, dm_0 if to_start is None else dm_0 + to_start, *nothing


def _through_final_exponent(
    gradient: Tensor, i: Tensor, f: Tensor, m_0: Tensor | None, cu_seqlens: Tensor | None, sigmoid: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a gradient of the final m, (sequences, H), sends to ĩ, f̃ and the initial m; all on the device.

    m_T = max(m_0 + Σ log f, max_t (log i_t + Σ_{s > t} log f_s)): the gradient goes to the largest of these (shared by
    equals), and from there to every log f in its sum. In float64, as sums over whole sequences are compared.
    """
    batch_size, context_length, n_heads = i.shape
    bounds = bounds_of(cu_seqlens, context_length)
    if bounds is None:
        bounds = torch.arange(batch_size + 1, device=i.device) * context_length
    starts, ends = bounds[:-1], bounds[1:].contiguous()
    raw_i, raw_f = (x.reshape(-1, n_heads).double() for x in (i, f))
    token = torch.arange(raw_i.shape[0], device=i.device)
    inside = (token < ends[-1])[:, None]
    seq = torch.searchsorted(ends, token, right=True).clamp(max=ends.numel() - 1)
    log_i = torch.nn.functional.logsigmoid(raw_i) if sigmoid else raw_i
    none = raw_f.new_zeros(1, n_heads)
    from_here = torch.cat([torch.nn.functional.logsigmoid(raw_f).flip(0).cumsum(0).flip(0), none])
    option = torch.where(inside, log_i + from_here[1:] - from_here[ends][seq], -torch.inf)
    peak = option.new_full(gradient.shape, -torch.inf).scatter_reduce(0, seq[:, None].expand_as(option), option, "amax")
    first = None if m_0 is None else m_0.double() + from_here[starts] - from_here[ends]
    if first is not None:
        peak = torch.maximum(peak, first)
    hit = (option == peak[seq]).double() * inside
    number = torch.zeros_like(peak).index_add(0, seq, hit)
    start_hit = torch.zeros_like(peak) if first is None else (first == peak).double()
    share = gradient.double() / (number + start_hit).clamp_min(1)
    d_i = hit * share[seq]
    before = torch.cat([none, d_i.cumsum(0)])
    d_log_f = (before[:-1] - before[starts][seq] + (start_hit * share)[seq]) * inside
    if sigmoid:
        d_i = d_i * torch.sigmoid(-raw_i)
    d_f = d_log_f * torch.sigmoid(-raw_f)
    to_start = None if first is None else (start_hit * share).float()
    return d_i.reshape(i.shape), d_f.reshape(f.shape), to_start


def _no_second_derivative(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
    raise NotImplementedError(
        "the Triton kernels of the mLSTM have no second derivative; use backend='torch', which has"
    )


torch.library.register_autograd("companion::mlstm_forward", _gradients, setup_context=_setup, lib=_library)
torch.library.register_autograd("companion::mlstm_backward", _no_second_derivative, lib=_library)


@torch.library.impl(_library, "mlstm_step", "CUDA")
@torch.library.impl(_library, "mlstm_step", "CPU")  # under Triton's interpreter
def _step_kernels(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, C: Tensor, n: Tensor, m: Tensor, sigmoid: bool
) -> Tensor:
    h = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    _launch(
        ("step", C.dtype, sigmoid),
        (q, k, v, i, f),
        None,
        (C, n, m, h),
        lambda launcher: launch.step(q, k, v, i, f, C, n, m, h, sigmoid, launcher),
    )
    torch.autograd.graph.increment_version((C, n, m))  # so that a backward pass that needs the old state refuses
    return h


@torch.library.register_fake("companion::mlstm_step", lib=_library)
def _(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, C: Tensor, n: Tensor, m: Tensor, sigmoid: bool) -> Tensor:
    return v.new_empty(v.shape)


_forward = torch.ops.companion.mlstm_forward.default
_backward = torch.ops.companion.mlstm_backward.default
_step = torch.ops.companion.mlstm_step.default


def _ready(x: Tensor) -> Tensor:
    """The tensor (B, T, H, d), or a contiguous copy where kernels cannot walk through it.

    They take a contiguous last dimension, in results laid out alike too (a sliding window has two axes of stride 1),
    and tokens of a chunk less than 2³¹ numbers apart.
    """
    batch, token, head, last = x.stride()
    near = token * max(CHUNK_SIZES) < 2**31
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
