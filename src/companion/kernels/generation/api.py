"""Operators of one generated token on a GPU by own kernels, elsewhere by plain torch."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.kernels.common.device import can_overlap, multiprocessors
from companion.kernels.common.host import cdiv, power_of_2


class Gates(NamedTuple):
    """A second, small matrix (N, K) of the same input with bias (N,): cap·tanh((W f(x) + bias)/cap), float32."""

    weight: Tensor
    bias: Tensor
    cap: float


def linear_step(
    x: Tensor,
    weight: Tensor,
    *,
    norm: Tensor | None = None,
    swiglu: bool = False,
    residual: Tensor | None = None,
    gates: Gates | None = None,
    epsilon: float = 1e-6,
) -> tuple[Tensor, Tensor | None]:
    """W x (+ residual) of one token a sequence, and its gates.

    A single sequence on a CUDA GPU, in bfloat16 or float16 and without gradient, takes one kernel that reads each
    weight once: memory is the limit, so that is all it can do. Everything else is plain torch.

    Parameters
    ----------
    x
        (B, K)
    weight
        (N, K); (2·N, K) with `swiglu`.
    norm
        weights (K,) of an RMSNorm of x before the product.
    swiglu
        silu of the first half of W x, times the second half.
    residual
        (B, N), added.
    gates
        no `swiglu` beside them.

    Returns
    -------
    tuple[Tensor, Tensor | None]
        (B, N) in the dtype of x; the gates (B, N of theirs).
    """
    if x.shape[0] == 1 and _fast(x):
        small = (None, None, 1.0) if gates is None else gates
        out, small_out = _matvec(x, weight, norm, swiglu, residual, *small, epsilon)
        return out, None if gates is None else small_out
    if norm is not None:
        x = F.rms_norm(x, x.shape[-1:], norm, epsilon)
    y = F.linear(x, weight)
    if swiglu:
        gate, up = y.chunk(2, dim=-1)
        y = F.silu(gate) * up
    y = y if residual is None else residual + y
    if gates is None:
        return y, None
    raw = F.linear(x, gates.weight, gates.bias)
    return y, gates.cap * torch.tanh(raw.to(torch.promote_types(raw.dtype, torch.float32)) / gates.cap)


def attend_step(
    qkv: Tensor,
    angles: tuple[Tensor, Tensor],
    position: Tensor,
    keys: Tensor,
    values: Tensor,
    norms: tuple[Tensor, Tensor] | None = None,
    epsilon: float = 1e-6,
) -> Tensor:
    """Attention of one token a sequence, which is put into the cache first.

    Parameters
    ----------
    qkv
        (B, H·d + HK·d + HK·d_v): queries, keys and values of the token.
    angles
        cosines and sines (1, d/2) of its position.
    position
        () tokens before it. Its slot is position mod S; kept slots that are older than S tokens are overwritten.
    keys, values
        (B, HK, S, d) and (B, HK, S, d_v), changed in place.
    norms
        weights (d,) of an RMSNorm of queries and of keys.

    Returns
    -------
    Tensor
        (B, H·d_v)
    """
    heads_kv, d, d_v = keys.shape[1], keys.shape[3], values.shape[3]
    n_heads = (qkv.shape[1] - heads_kv * (d + d_v)) // d
    if _fast(qkv):
        q_norm, k_norm = (None, None) if norms is None else norms
        return _attend(qkv, *angles, position, keys, values, q_norm, k_norm, n_heads, epsilon)
    q, k, v = qkv[:, :, None].split([n_heads * d, heads_kv * d, heads_kv * d_v], dim=1)
    q, k, v = (x[:, :, 0].unflatten(1, (-1, size)) for x, size in ((q, d), (k, d), (v, d_v)))
    if norms is not None:
        q, k = (F.rms_norm(x, (d,), norm, epsilon) for x, norm in zip((q, k), norms, strict=True))
    q, k = (rotate(x, *angles) for x in (q, k))
    slots = keys.shape[2]
    slot = (position % slots)[None]
    keys.index_copy_(2, slot, k[:, :, None])
    values.index_copy_(2, slot, v[:, :, None])
    seen = (torch.arange(slots, device=keys.device) <= position)[None]
    h = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=seen, enable_gqa=n_heads != heads_kv)
    return h.flatten(1)


def gated_head_norm(h: Tensor, gate: Tensor, weight: Tensor, epsilon: float = 1e-6) -> Tensor:
    """sigmoid(gate) · LayerNorm of every head, with weights (H·d): h (B, H, d) and gate (B, H·d) give (B, H·d)."""
    if _fast(h):
        return _gated_norm(h, gate, weight, epsilon)
    return torch.sigmoid(gate) * (F.layer_norm(h, h.shape[-1:], eps=epsilon).flatten(-2) * weight)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (…, d) (arXiv 2104.09864): the pair of numbers j and j + d/2 turns by the angle of x."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def _fast(x: Tensor) -> bool:
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and not torch.is_grad_enabled()


_library = torch.library.Library("companion", "FRAGMENT")
_library.define(
    "matvec(Tensor x, Tensor weight, Tensor? norm, bool swiglu, Tensor? residual, Tensor? small, Tensor? small_bias, "
    "float cap, float epsilon) -> (Tensor, Tensor)"
)
_library.define(
    "attend_step(Tensor qkv, Tensor cos, Tensor sin, Tensor position, Tensor(a!) keys, Tensor(b!) values, "
    "Tensor? q_norm, Tensor? k_norm, int n_heads, float epsilon) -> Tensor"
)
_library.define("gated_head_norm(Tensor h, Tensor gate, Tensor weight, float epsilon) -> Tensor")


def _early(x: Tensor) -> tuple[bool, dict[str, bool]]:
    overlap = can_overlap(x.device)
    return overlap, {"launch_pdl": True} if overlap else {}


@torch.library.impl(_library, "matvec", "CUDA")
@torch.library.impl(_library, "matvec", "CPU")  # under Triton's interpreter
def _matvec_kernel(
    x: Tensor,
    weight: Tensor,
    norm: Tensor | None,
    swiglu: bool,
    residual: Tensor | None,
    small: Tensor | None,
    small_bias: Tensor | None,
    cap: float,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    from companion.kernels.generation import triton_matvec

    N, K = weight.shape[0] // (2 if swiglu else 1), weight.shape[1]
    extra = 0 if small is None else small.shape[0]
    out, small_out = x.new_empty(1, N), x.new_empty(1, extra, dtype=torch.float32)
    overlap, early = _early(x)
    # rows of a program and its warps: fastest of those tried on an H200 for the matrices of a 7B model
    rows, warps = (2, 8) if swiglu else (4, 4) if K > 6000 else (4, 8)
    triton_matvec.matvec[(cdiv(N, rows) + cdiv(extra, rows),)](
        x.contiguous(), weight, weight if norm is None else norm, weight if residual is None else residual.contiguous(),
        out, weight if small is None else small, weight if small_bias is None else small_bias, small_out, cap,
        N=N, N_SMALL=extra, K=K, NORM=norm is not None, SWIGLU=swiglu, RESIDUAL=residual is not None, EPSILON=epsilon,
        BLOCK_N=rows, BLOCK_K=2048, OVERLAP=overlap, num_warps=warps, num_stages=2, **early,
    )  # fmt: skip
    return out, small_out


@torch.library.register_fake("companion::matvec", lib=_library)
def _(
    x: Tensor,
    weight: Tensor,
    norm: Tensor | None,
    swiglu: bool,
    residual: Tensor | None,
    small: Tensor | None,
    small_bias: Tensor | None,
    cap: float,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    extra = 0 if small is None else small.shape[0]
    return x.new_empty(1, weight.shape[0] // (2 if swiglu else 1)), x.new_empty(1, extra, dtype=torch.float32)


@torch.library.impl(_library, "attend_step", "CUDA")
@torch.library.impl(_library, "attend_step", "CPU")
def _attend_kernels(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    position: Tensor,
    keys: Tensor,
    values: Tensor,
    q_norm: Tensor | None,
    k_norm: Tensor | None,
    n_heads: int,
    epsilon: float,
) -> Tensor:
    from companion.kernels.generation import triton_attention as kernels

    (B, HK, S, D), DV = keys.shape, values.shape[3]
    overlap, early = _early(qkv)
    q = qkv.new_empty(B, n_heads, D)
    weight = q if q_norm is None else q_norm
    kernels.turn_and_keep[(B, n_heads + HK)](
        qkv, cos, sin, weight, weight if k_norm is None else k_norm, position, q, keys, values, qkv.stride(0),
        H=n_heads, HK=HK, S=S, D=D, DV=DV, HALF=power_of_2(D // 2), BLOCK_V=power_of_2(DV), NORM=q_norm is not None,
        EPSILON=epsilon, OVERLAP=overlap, num_warps=1, **early,
    )  # fmt: skip
    splits = 1  # at least four programs a multiprocessor, of at least two blocks each
    while B * HK * splits < 4 * multiprocessors(qkv.device) and splits < 128 and splits * 128 < S:
        splits *= 2
    partial = torch.empty(B, n_heads, splits, DV, dtype=torch.float32, device=qkv.device)
    top, total = torch.empty(2, B, n_heads, splits, dtype=torch.float32, device=qkv.device)
    kernels.split_keys[(B * HK, splits)](
        q, keys, values, position, partial, top, total, D**-0.5 / math.log(2),
        H=n_heads, HK=HK, S=S, SPLITS=splits, GROUP=power_of_2(n_heads // HK, 16), D=D, DV=DV,
        BLOCK_D=power_of_2(D, 16), BLOCK_V=power_of_2(DV, 16), BLOCK=64, OVERLAP=overlap,
        num_warps=4, num_stages=3, **early,
    )  # fmt: skip
    out = qkv.new_empty(B, n_heads * DV)
    kernels.combine[(B * n_heads,)](
        partial, top, total, out, SPLITS=splits, DV=DV, BLOCK_V=power_of_2(DV), OVERLAP=overlap, num_warps=4, **early
    )
    return out


@torch.library.register_fake("companion::attend_step", lib=_library)
def _(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    position: Tensor,
    keys: Tensor,
    values: Tensor,
    q_norm: Tensor | None,
    k_norm: Tensor | None,
    n_heads: int,
    epsilon: float,
) -> Tensor:
    return qkv.new_empty(qkv.shape[0], n_heads * values.shape[3])


@torch.library.impl(_library, "gated_head_norm", "CUDA")
@torch.library.impl(_library, "gated_head_norm", "CPU")
def _gated_norm_kernel(h: Tensor, gate: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    from companion.kernels.generation import triton_norm

    (B, H, D), out = h.shape, h.new_empty(h.shape[0], h.shape[1] * h.shape[2])
    overlap, early = _early(h)
    triton_norm.gated_head_norm[(B, H)](
        h.contiguous(), gate, weight, out, gate.stride(0),
        H=H, D=D, BLOCK=power_of_2(D), EPSILON=epsilon, OVERLAP=overlap, num_warps=4, **early,
    )  # fmt: skip
    return out


@torch.library.register_fake("companion::gated_head_norm", lib=_library)
def _(h: Tensor, gate: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return h.new_empty(h.shape[0], h.shape[1] * h.shape[2])


_matvec = torch.ops.companion.matvec.default
_attend = torch.ops.companion.attend_step.default
_gated_norm = torch.ops.companion.gated_head_norm.default
