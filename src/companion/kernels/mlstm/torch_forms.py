"""The mLSTM in plain torch: step, recurrent, parallel and chunkwise form, on any device and in any dtype.

All are differentiable by autograd and take any number of tokens. Products of matrices run in the dtype of q, k and v,
as under autocast; gates, the normalizer and the state are in float32 (float64 for float64 inputs). Sums of log f reach
the thousands, where float32 leaves a difference three digits: the exponents of the chunkwise form are float64.
"""

import torch
from torch.nn.functional import logsigmoid, pad

from companion.kernels.mlstm.state import LEAST_LOG_F, LEAST_NORMALIZER, MLSTMState

Tensor = torch.Tensor
#: Tokens per chunk where a caller names none.
CHUNK_SIZE = 64


def recurrent_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState,
    *,
    gate: str = "exponential",
    normalizer_gradient: bool = True,
) -> tuple[Tensor, MLSTMState]:
    """One token: its output and the new state (equations of `mlstm_oracle`).

    Parameters
    ----------
    q, k, v
        (B, H, d_qk), (B, H, d_qk), (B, H, d_hv)
    i, f
        (B, H)
    state
        before this token.
    normalizer_gradient
        False: the normalizer `max(|ñᵀq|, 1)`, with ñ = exp(m) n, is a constant to the gradient of h. That gradient is
        exact where it is orthogonal to h per token and head, as behind a scale-invariant head norm.

    Returns
    -------
    h of shape (B, H, d_hv) in the dtype of v, and the state after the token in the dtypes of `state`.
    """
    high = torch.promote_types(q.dtype, torch.float32)
    C, n, m = (x.to(high) for x in state)
    log_f = logsigmoid(f.to(high))
    log_i = logsigmoid(i.to(high)) if gate == "sigmoid" else i.to(high)
    m_new = torch.maximum(log_f + m, log_i)
    keep, write = torch.exp(log_f + m - m_new), torch.exp(log_i - m_new)
    key, query = k.to(high), q.to(high) * q.shape[-1] ** -0.5
    C = keep[..., None, None] * C + (write[..., None] * key)[..., :, None] * v.to(high)[..., None, :]
    n = keep[..., None] * n + write[..., None] * key
    read = (query[..., None, :] @ C).squeeze(-2)
    h = _normalized(read, (query * n).sum(-1), m_new, gate, normalizer_gradient)
    return h.to(v.dtype), MLSTMState(*(x.to(old.dtype) for x, old in zip((C, n, m_new), state, strict=True)))


def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    initial_state: MLSTMState | None = None,
    gate: str = "exponential",
    normalizer_gradient: bool = True,
) -> tuple[Tensor, MLSTMState]:
    """All tokens one after another: T steps of `recurrent_step`. Shapes as in `chunkwise`."""
    state = _start(q, v, initial_state)
    outputs = []
    for t in range(q.shape[1]):
        now = (q[:, t], k[:, t], v[:, t], i[:, t], f[:, t])
        h, state = recurrent_step(*now, state, gate=gate, normalizer_gradient=normalizer_gradient)
        outputs.append(h)
    return torch.stack(outputs, dim=1), state


def parallel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    initial_state: MLSTMState | None = None,
    gate: str = "exponential",
    normalizer_gradient: bool = True,
) -> tuple[Tensor, MLSTMState]:
    """All pairs of tokens at once, as attention does: one chunk of T tokens (arXiv 2405.04517, appendix A.3)."""
    return chunkwise(
        q,
        k,
        v,
        i,
        f,
        initial_state=initial_state,
        chunk_size=q.shape[1],
        gate=gate,
        normalizer_gradient=normalizer_gradient,
    )


def chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    initial_state: MLSTMState | None = None,
    chunk_size: int = CHUNK_SIZE,
    gate: str = "exponential",
    normalizer_gradient: bool = True,
) -> tuple[Tensor, MLSTMState]:
    """Pairs of tokens within chunks of L, states between them (arXiv 2503.14376).

    With b_t the sum of log f from the start of the chunk to t, c_t = ĩ_t − b_t and m, C, n the state at its start::

        r_t = max(m, max_{s ≤ t} c_s)                         so that m_t = b_t + r_t, as in the recurrence
        S_ts = exp(c_s − r_t) q_tᵀk_s/√d_qk  for s ≤ t        pairs within the chunk
        h_t = (Σ_s S_ts v_s + exp(m − r_t) Cᵀq_t/√d_qk) / max(|Σ_s S_ts + exp(m − r_t) nᵀq_t/√d_qk|, exp(−m_t))
        C ← exp(b_L + m − m_L) C + Σ_s exp(b_L + c_s − m_L) k_s v_sᵀ,    n alike with k_s,    m ← m_L

    Parameters
    ----------
    q, k
        (B, T, H, d_qk)
    v
        (B, T, H, d_hv)
    i, f
        (B, T, H)
    chunk_size
        L, at least 1; a last, shorter chunk is filled with tokens that write nothing.
    normalizer_gradient
        as in `recurrent_step`.

    Returns
    -------
    h of shape (B, T, H, d_hv) in the dtype of v, and the state after the last token.
    """
    context_length, dtype, high = q.shape[1], q.dtype, torch.promote_types(q.dtype, torch.float32)
    exact = torch.float64
    size = min(chunk_size, context_length)
    missing = -context_length % size
    # (B, H, number of chunks, L, width); filled tokens keep the state: log f = 0 and ĩ = −inf
    q, k, v = (_to_chunks(pad(x, (0, 0, 0, 0, 0, missing)), size) for x in (q, k, v))
    log_f = logsigmoid(f.to(high)).clamp_min(LEAST_LOG_F[exact]).to(exact)
    log_f = _to_chunks(pad(log_f, (0, 0, 0, missing)), size)
    log_i = logsigmoid(i.to(high)) if gate == "sigmoid" else i.to(high)
    log_i = _to_chunks(pad(log_i.to(exact), (0, 0, 0, missing), value=-torch.inf), size)
    q = q * q.shape[-1] ** -0.5

    b = log_f.cumsum(-1)
    c = log_i - b
    states, last = _states(k, v, b, c, _start(q, v, initial_state, chunks=True))
    C, n, m = (torch.stack(x, dim=2) for x in zip(*states, strict=True))

    r = torch.maximum(m[..., None], c.cummax(-1).values)
    causal = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    weights = torch.exp((c[..., None, :] - r[..., :, None]).masked_fill(~causal, -torch.inf).to(high))
    scores = weights * (q @ k.transpose(-1, -2)).to(high)
    carried = torch.exp(m[..., None] - r).to(high)
    read = (scores.to(dtype) @ v).to(high) + carried[..., None] * (q @ C.to(dtype)).to(high)
    signed = scores.sum(-1) + carried * (q.to(high) @ n[..., None]).squeeze(-1)
    h = _normalized(read, signed, b + r, gate, normalizer_gradient)
    h = h.to(dtype).flatten(2, 3)[:, :, :context_length]
    return h.transpose(1, 2), last._replace(m=last.m.to(high))


def _states(
    k: Tensor, v: Tensor, b: Tensor, c: Tensor, state: MLSTMState
) -> tuple[list[tuple[Tensor, ...]], MLSTMState]:
    """The state at the start of every chunk, and the one after the last, with m in the dtype of the exponents."""
    state = state._replace(m=state.m.to(b.dtype))
    total, peak = b[..., -1], c.amax(-1)
    before = []
    for chunk in range(k.shape[2]):
        before.append(tuple(state))
        C, n, m = state
        whole = total[:, :, chunk]
        m_new = whole + torch.maximum(m, peak[:, :, chunk])
        keep = torch.exp(whole + m - m_new).to(C.dtype)
        write = torch.exp(whole[..., None] + c[:, :, chunk] - m_new[..., None]).to(C.dtype)
        key = write[..., None] * k[:, :, chunk].to(write.dtype)
        product = (key.to(v.dtype).transpose(-1, -2) @ v[:, :, chunk]).to(write.dtype)
        state = MLSTMState(keep[..., None, None] * C + product, keep[..., None] * n + key.sum(-2), m_new)
    return before, state


def _normalized(read: Tensor, signed: Tensor, m: Tensor, gate: str, gradient: bool) -> Tensor:
    """h from what was read, (..., d_hv), with nᵀq and m of every token, (...)."""
    high = read.dtype
    if gate == "sigmoid":
        return read * torch.exp(m).to(high)[..., None]
    # exp(−m) must not overflow: its gradient would be 0·∞ for a token whose h is 0 by then
    floor = torch.exp((-m).clamp_max(80 if high == torch.float32 else 700)).to(high)
    size = torch.maximum(signed.abs(), floor.clamp_min(LEAST_NORMALIZER[high]))
    if gradient:
        return read / size[..., None]  # not times its inverse, whose gradient would square it and overflow
    # the constant is max(|ñᵀq|, 1), not its scaled value: m has to cancel in h, so its own gradient stays
    return read / size.detach()[..., None] * torch.exp(m - m.detach()).to(high)[..., None]


def _to_chunks(x: Tensor, size: int) -> Tensor:
    return x.transpose(1, 2).unflatten(2, (-1, size))


def _start(q: Tensor, v: Tensor, state: MLSTMState | None, *, chunks: bool = False) -> MLSTMState:
    """The given state in at least float32, or an empty one."""
    high = torch.promote_types(q.dtype, torch.float32)
    if state is not None:
        return MLSTMState(*(x.to(high) for x in state))
    n_heads = q.shape[1] if chunks else q.shape[2]
    return MLSTMState.empty(q.shape[0], n_heads, q.shape[-1], v.shape[-1], dtype=high, device=q.device)
