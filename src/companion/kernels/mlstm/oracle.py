"""The mLSTM one token at a time in float64: what every other form is measured against.

Slow on purpose: the code is the recurrence, and its gradients are those of autograd through every step.
"""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from companion.kernels.mlstm.state import LEAST_NORMALIZER, MLSTMState


def mlstm_oracle(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    i: torch.Tensor,
    f: torch.Tensor,
    *,
    initial_state: MLSTMState | None = None,
    gate: str = "exponential",
    normalizer_gradient: bool = True,
    checkpoint_every: int | None = None,
) -> tuple[torch.Tensor, MLSTMState]:
    """Outputs and final state of the mLSTM by its recurrence, in float64.

    Per head and token (arXiv 2405.04517, equations 19 to 27; d_qk scales q as in arXiv 2503.13427)::

        log f_t = logsigmoid(f̃_t)
        m_t = max(log f_t + m_{t−1}, ĩ_t)
        C_t = exp(log f_t + m_{t−1} − m_t) C_{t−1} + exp(ĩ_t − m_t) k_t v_tᵀ
        n_t = exp(log f_t + m_{t−1} − m_t) n_{t−1} + exp(ĩ_t − m_t) k_t
        h_t = C_tᵀ q_t/√d_qk / max(|n_tᵀ q_t/√d_qk|, exp(−m_t))

    Parameters
    ----------
    q, k
        (B, T, H, d_qk); cast to float64.
    v
        (B, T, H, d_hv)
    i, f
        (B, T, H), pre-activations of the input and the forget gate.
    initial_state
        memory before the first token; empty if not given.
    gate
        `exponential` as above; `sigmoid`: logsigmoid(ĩ_t) in place of ĩ_t, and h_t = exp(m_t) C_tᵀ q_t/√d_qk without
        a normalizer.
    normalizer_gradient
        False: `max(|ñᵀq|, 1)` with ñ = exp(m) n is a constant to the gradient of h (see `companion.kernels.mlstm`).
    checkpoint_every
        tokens between the states that autograd keeps; all of them if not given.

    Returns
    -------
    tuple[Tensor, MLSTMState]
        h of shape (B, T, H, d_hv) and the state after the last token, both float64. Gradients flow to all inputs,
        through h as well as through the final state.
    """
    q, k, v, i, f = (x.double() for x in (q, k, v, i, f))
    q = q * q.shape[-1] ** -0.5
    batch_size, context_length, n_heads, d_qk = q.shape
    if initial_state is None:
        state = MLSTMState.empty(batch_size, n_heads, d_qk, v.shape[-1], dtype=torch.float64, device=q.device)
    else:
        state = MLSTMState(*(x.double() for x in initial_state))
    log_f = torch.nn.functional.logsigmoid(f)
    log_i = torch.nn.functional.logsigmoid(i) if gate == "sigmoid" else i
    size = checkpoint_every or context_length
    outputs = []
    for start in range(0, context_length, size):
        segment = [x[:, start : start + size] for x in (q, k, v, log_i, log_f)]
        arguments: tuple[Any, ...] = (*segment, *state, gate == "sigmoid", normalizer_gradient)
        if checkpoint_every is None:
            h, *new = _steps(*arguments)
        else:
            h, *new = checkpoint(_steps, *arguments, use_reentrant=False)
        state = MLSTMState(*new)
        outputs.append(h)
    return torch.cat(outputs, dim=1), state


def _steps(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    log_i: torch.Tensor,
    log_f: torch.Tensor,
    C: torch.Tensor,
    n: torch.Tensor,
    m: torch.Tensor,
    sigmoid: bool,
    normalizer_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    outputs = []
    for t in range(q.shape[1]):
        m_new = torch.maximum(log_f[:, t] + m, log_i[:, t])
        keep = torch.exp(log_f[:, t] + m - m_new)
        write = torch.exp(log_i[:, t] - m_new)
        C = keep[..., None, None] * C + write[..., None, None] * k[:, t, :, :, None] * v[:, t, :, None, :]
        n = keep[..., None] * n + write[..., None] * k[:, t]
        m = m_new
        read = torch.einsum("bhkv,bhk->bhv", C, q[:, t])
        if sigmoid:
            outputs.append(read * torch.exp(m)[..., None])
        else:
            normalizer = torch.einsum("bhk,bhk->bh", n, q[:, t]).abs()
            floor = torch.exp((-m).clamp_max(700)).clamp_min(LEAST_NORMALIZER[torch.float64])
            size = torch.maximum(normalizer, floor)
            if normalizer_gradient:
                outputs.append(read / size[..., None])
            else:  # a constant is the unscaled maximum: m, which cancels in h, keeps its gradient
                outputs.append(read / size.detach()[..., None] * torch.exp(m - m.detach())[..., None])
    return torch.stack(outputs, dim=1), C, n, m
