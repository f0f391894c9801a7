"""The mLSTM by one call: `mlstm` for sequences, `mlstm_step` for one token, by Triton kernels or plain torch."""

from itertools import pairwise
from typing import Any, Literal, NamedTuple, overload

import torch

from companion.errors import InputError
from companion.kernels.mlstm import checks, torch_forms
from companion.kernels.mlstm.state import MLSTMState
from companion.kernels.mlstm.transforms import transform_obstacle

Tensor = torch.Tensor


class _Options(NamedTuple):
    """What every form takes beside its tensors (see `mlstm`)."""

    chunk_size: int | None
    gate: str
    normalizer_gradient: bool


@overload
def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    initial_state: MLSTMState | None = ...,
    return_state: Literal[False] = ...,
    chunk_size: int | None = ...,
    backend: str = ...,
    layout: str = ...,
    cu_seqlens: Tensor | None = ...,
    gate: str = ...,
    normalizer_gradient: bool = ...,
) -> Tensor: ...
@overload
def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    initial_state: MLSTMState | None = ...,
    return_state: Literal[True],
    chunk_size: int | None = ...,
    backend: str = ...,
    layout: str = ...,
    cu_seqlens: Tensor | None = ...,
    gate: str = ...,
    normalizer_gradient: bool = ...,
) -> tuple[Tensor, MLSTMState]: ...
def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    initial_state: MLSTMState | None = None,
    return_state: bool = False,
    chunk_size: int | None = None,
    backend: str = "auto",
    layout: str = "bthd",
    cu_seqlens: Tensor | None = None,
    gate: str = "exponential",
    normalizer_gradient: bool = True,
) -> Tensor | tuple[Tensor, MLSTMState]:
    """Outputs of the mLSTM for whole sequences, differentiable in every tensor given.

    Per head and token (arXiv 2405.04517, equations 19 to 27; d_qk scales q as in arXiv 2503.13427)::

        log f_t = logsigmoid(f̃_t)
        m_t = max(log f_t + m_{t−1}, ĩ_t)
        C_t = exp(log f_t + m_{t−1} − m_t) C_{t−1} + exp(ĩ_t − m_t) k_t v_tᵀ
        n_t = exp(log f_t + m_{t−1} − m_t) n_{t−1} + exp(ĩ_t − m_t) k_t
        h_t = C_tᵀ q_t/√d_qk / max(|n_tᵀ q_t/√d_qk|, exp(−m_t))

    Parameters
    ----------
    q, k
        (B, T, H, d_qk); q is scaled by 1/√d_qk here.
    v
        (B, T, H, d_hv), in the dtype of q and k.
    i, f
        (B, T, H): pre-activations ĩ and f̃ of the input and the forget gate. They may have another dtype than q; float32
        is best. ĩ must be finite (a large negative one keeps a token out); f̃ of −inf, or −1e9, forgets all before. No
        gate forgets more than e^-1e6 in one token in the chunkwise forms (e^-1000 in `triton` with bfloat16): h is
        right as long as no ĩ lies further than that, less a hundred, below an earlier one (or the initial m).
    initial_state
        memory before the first token; empty if not given.
    return_state
        also return the state after the last token.
    chunk_size
        tokens per chunk: 16, 32, 64, 128 or 256 (`torch`: any); the backend's choice if not given. Changes speed and
        rounding, not the result.
    backend
        `triton`: fused chunkwise kernels. `torch`: the chunkwise form in plain torch, on any device. `torch-parallel`:
        all pairs of tokens, T² numbers per head. `torch-recurrent`: one token after another. `auto`: `triton` if the
        tensors are on a CUDA GPU of compute capability 8.0 or later, in bfloat16, float16 or float32 (gates included),
        with head sizes from 16 to 512, and Triton is installed; else `torch`.
    layout
        `bthd` as above; `bhtd`: (B, H, T, d) and (B, H, T), for h too. Either is read by its strides, without a copy.
    cu_seqlens
        (N + 1), int32 or int64: of a batch with B = 1, sequence number j has the tokens from cu_seqlens[j] up to
        cu_seqlens[j + 1]. It starts at 0 and ends at T; a sequence may be empty, its state stays. States have N for B.
        With `triton` the values are checked only if the tensor is on the CPU (see
        `companion.kernels.mlstm.checks.check_bounds`): wrong ones on the GPU give wrong results. The torch backends
        read the values, which cannot be part of a compiled graph.
    gate
        `exponential` as above. `sigmoid`: logsigmoid(ĩ_t) in place of ĩ_t, and h_t = exp(m_t) C_tᵀ q_t/√d_qk, without
        a normalizer.
    normalizer_gradient
        False: the cheaper backward, in which the unscaled normalizer, `max(|ñᵀq|, 1)` with ñ = exp(m) n and the
        scaled q, is a constant to the gradient of h. That is exact for a token and head where `|ñᵀq|` < 1, and
        elsewhere if and only if the gradient that comes from above is orthogonal to h_t, as it is behind a norm over
        each head that ignores the scale of h (RMSNorm without an epsilon; with one, nearly so while epsilon is small
        beside the mean square of h). Otherwise its error has no bound. The gradient of the final state is the same
        either way. No effect with `sigmoid`.

    Returns
    -------
    Tensor | tuple[Tensor, MLSTMState]
        h of shape (B, T, H, d_hv) in the dtype of v; with `return_state` also the state: C (B, H, d_qk, d_hv), n (B, H,
        d_qk), m (B, H), in float32, or float64 for float64 inputs.

    Notes
    -----
    Products of matrices take operands in the dtype of q (in Triton, float32 as three TF32 products, which is nearly as
    exact, and float16 in TF32, which holds it) and accumulate in float32; gates, normalizer and state are float32,
    exponents float64 (float32 in Triton for bfloat16). float64 works with the torch backends and is float64 throughout.
    The normalizer is taken to be at least 1e-30 (1e-200 in float64): where exp(−m) and nᵀq are both smaller, as with
    zero queries, h is 0 if Cᵀq is. The same call of the Triton kernels gives the same bits.

    In float16 the gradients of `triton` are finite where their values are below 65504. dq and dk grow as
    1/max(`|ñᵀq|`, 1)² exp(2m): with q, k, v and the gradient of h normal of variance 1 they stay below 3e4 for ĩ up to
    3, and reach 5e5 for ĩ up to 5. `torch` and `torch-parallel` multiply in float16, where dh over a normalizer near
    zero is too large: some of their gradients are infinite or NaN that would fit.

    The Triton kernels have no second derivative and refuse one (NotImplementedError), and they refuse forward-mode
    derivatives, `torch.func.vmap` and `torch.func.grad` (InputError), also where `auto` chose them; the torch backends
    have all of these.

    Raises
    ------
    InputError
        for shapes, dtypes, devices or options that are wrong or that the named backend does not support; the message
        says what is supported and what to use instead.

    Examples
    --------
    >>> import torch
    >>> q, k, v = (torch.ones(1, 3, 2, 16) for _ in range(3))
    >>> i, f = torch.zeros(1, 3, 2), torch.full((1, 3, 2), 3.0)
    >>> h, state = mlstm(q, k, v, i, f, return_state=True)
    >>> h.shape, state.C.shape
    (torch.Size([1, 3, 2, 16]), torch.Size([1, 2, 16, 16]))
    """
    checks.check_options(backend=backend, gate=gate, layout=layout, chunk_size=chunk_size)
    sizes = checks.check_inputs(q, k, v, i, f, layout)
    sequences = sizes
    if cu_seqlens is not None:
        sequences = sizes._replace(batch_size=checks.check_cu_seqlens(cu_seqlens, sizes, q.device))
    if initial_state is not None:
        first = "B" if cu_seqlens is None else "N"
        initial_state = checks.check_state(
            initial_state, sequences, dtype=q.dtype, device=q.device, name="initial_state", first=first
        )
    options = _Options(chunk_size, gate, normalizer_gradient)
    inputs: tuple[Tensor, ...] = (q, k, v, i, f)
    chosen = checks.choose_backend(backend, inputs, sizes)
    if chosen == "triton":
        checks.check_transforms(inputs if initial_state is None else (*inputs, *initial_state))
    if layout == "bhtd":
        inputs = tuple(x.transpose(1, 2) for x in inputs)
    state: MLSTMState | None
    if chosen == "triton":
        h, state = _triton(inputs, initial_state, cu_seqlens, options, return_state)
    elif cu_seqlens is None:
        h, state = _torch(chosen, inputs, initial_state, options)
    else:
        bounds = cu_seqlens.tolist()
        checks.check_bounds(bounds, sizes.context_length)
        h, state = _torch_packed(chosen, inputs, bounds, initial_state, options)
    if layout == "bhtd":
        h = h.transpose(1, 2)
    return (h, state) if return_state and state is not None else h


def mlstm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState,
    *,
    backend: str = "auto",
    gate: str = "exponential",
) -> tuple[Tensor, MLSTMState]:
    """One token of the mLSTM, as in generation: its output, and the state after it (equations of `mlstm`).

    Where no gradient is needed (under `torch.no_grad`, or if no tensor given requires one) the tensors of `state` are
    overwritten and returned, by every backend: clone them first to keep the state before the token. Where a gradient is
    needed, in forward mode too, or under `torch.func.vmap`, `state` is left alone and a new one is returned; only the
    torch backends do that, and `auto` chooses `torch`.

    Parameters
    ----------
    q, k, v
        (B, H, d_qk), (B, H, d_qk), (B, H, d_hv), of one dtype.
    i, f
        (B, H): pre-activations of the input and the forget gate.
    state
        before the token; `MLSTMState.empty(...)` to begin. C in float32 or bfloat16 (half the bytes to move; rounded at
        every token), n and m in float32; float64 with float64 inputs.
    backend
        as for `mlstm`; the three torch backends do the same here.
    gate
        as for `mlstm`.

    Returns
    -------
    tuple[Tensor, MLSTMState]
        h of shape (B, H, d_hv) in the dtype of v, and the state in the dtypes of the one given. Computed in float32, or
        float64 for float64 inputs.

    Raises
    ------
    InputError
        as `mlstm`; and for `triton` where `state` may not be overwritten.

    Examples
    --------
    >>> import torch
    >>> q, k, v = (torch.ones(1, 2, 16) for _ in range(3))
    >>> state = MLSTMState.empty(1, 2, 16, 16)
    >>> h, state = mlstm_step(q, k, v, torch.zeros(1, 2), torch.zeros(1, 2), state)
    >>> h[0, 0, 0].item()
    1.0
    """
    checks.check_options(backend=backend, gate=gate)
    sizes = checks.check_inputs(q, k, v, i, f, "step")
    state = checks.check_state(state, sizes, dtype=q.dtype, device=q.device)
    tensors = (q, k, v, i, f, *state)
    if backend == "triton":
        checks.check_transforms(tensors)
    differentiate = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    differentiate = differentiate or transform_obstacle(tensors) is not None
    if differentiate:
        if backend == "triton":
            raise InputError(
                "backend 'triton': a single step has no gradient; use torch.no_grad(), backend='torch', or mlstm() "
                "for a sequence"
            )
        backend = "torch"
    else:
        checks.check_updatable(state)
    if checks.choose_backend(backend, (q, k, v, i, f), sizes) == "triton":
        from companion.kernels.mlstm.ops import mlstm_step_triton

        return mlstm_step_triton(q, k, v, i, f, state, gate=gate), state
    with torch.autocast(q.device.type, enabled=False):
        h, new = torch_forms.recurrent_step(q, k, v, i, f, state, gate=gate)
    if differentiate:
        return h, new
    for old, x in zip(state, new, strict=True):
        old.copy_(x)
    return h, state


def _triton(
    inputs: tuple[Tensor, ...],
    state: MLSTMState | None,
    cu_seqlens: Tensor | None,
    options: _Options,
    return_state: bool,
) -> tuple[Tensor, MLSTMState | None]:
    from companion.kernels.mlstm.ops import mlstm_triton  # imports Triton

    if cu_seqlens is not None:
        if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
            checks.check_bounds(cu_seqlens.tolist(), inputs[0].shape[1])
        cu_seqlens = cu_seqlens.to(inputs[0].device)
    q, k, v, i, f = inputs
    size, gate, normalizer_gradient = options
    return mlstm_triton(
        q,
        k,
        v,
        i,
        f,
        state,
        cu_seqlens=cu_seqlens,
        chunk_size=size,
        gate=gate,
        normalizer_gradient=normalizer_gradient,
        return_state=return_state,
    )


def _torch_packed(
    backend: str, inputs: tuple[Tensor, ...], bounds: list[int], state: MLSTMState | None, options: _Options
) -> tuple[Tensor, MLSTMState]:
    """One sequence after another: outputs joined along the tokens, states along N."""
    outputs, states = [], []
    for number, (start, end) in enumerate(pairwise(bounds)):
        tokens = tuple(x[:, start:end] for x in inputs)
        before = None if state is None else MLSTMState(*(x[number : number + 1] for x in state))
        h, after = _torch(backend, tokens, before, options)
        outputs.append(h)
        states.append(after)
    return torch.cat(outputs, dim=1), MLSTMState(*(torch.cat(parts) for parts in zip(*states, strict=True)))


def _torch(
    backend: str,
    inputs: tuple[Tensor, ...],
    state: MLSTMState | None,
    options: _Options,
) -> tuple[Tensor, MLSTMState]:
    """One of the plain-torch forms; a sequence without tokens leaves the state as it is."""
    q, k, v, i, f = inputs
    if q.shape[1] == 0:
        high = torch.promote_types(q.dtype, torch.float32)
        if state is None:
            state = MLSTMState.empty(q.shape[0], q.shape[2], q.shape[-1], v.shape[-1], dtype=high, device=q.device)
        return torch.zeros_like(v), MLSTMState(*(x.to(high) for x in state))
    shared: dict[str, Any] = {
        "initial_state": state,
        "gate": options.gate,
        "normalizer_gradient": options.normalizer_gradient,
    }
    # as the kernels: the dtypes of the arguments decide, not autocast
    with torch.autocast(q.device.type, enabled=False):
        if backend == "torch-parallel":
            return torch_forms.parallel(q, k, v, i, f, **shared)
        if backend == "torch-recurrent":
            return torch_forms.recurrent(q, k, v, i, f, **shared)
        return torch_forms.chunkwise(q, k, v, i, f, chunk_size=options.chunk_size or torch_forms.CHUNK_SIZE, **shared)
