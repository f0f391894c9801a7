"""The mLSTM by Triton kernels: differentiable, traceable by torch.compile, fit for CUDA graphs."""

import torch

from companion.kernels.mlstm import gradients, launch_fused
from companion.kernels.mlstm.operators import readable
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
    q, k, v = readable(q), readable(k), readable(v)
    C_0, n_0, m_0 = (None, None, None) if initial_state is None else (x.float().contiguous() for x in initial_state)
    size = chunk_size or default_chunk_size(q.shape[-1], q.dtype)
    given = (q, k, v, i, f, C_0, n_0, m_0)
    differentiate = keep = torch.is_grad_enabled() and any([x is not None and x.requires_grad for x in given])
    if keep and not launch_fused.pays_to_keep(q.shape[-1], v.shape[-1], q.shape[1], size):
        keep = False  # by a branch: of a size that changes torch.compile would make the result an input of its graph
    options = (size, gate == "sigmoid", normalizer_gradient, return_state, keep)
    h, _, *rest = gradients.forward(differentiate, *given, cu_seqlens, *options)
    return h, MLSTMState(*rest[:3]) if return_state else None


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
    h = gradients.step(q, k, v, i, f, *whole, gate == "sigmoid")
    for part, copy in zip(state, whole, strict=True):
        if not part.is_contiguous():
            part.copy_(copy)
    return h
