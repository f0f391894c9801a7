"""The gradient of the operators, by autograd functions of our own."""

from typing import Any

import torch

from companion.kernels.mlstm import operators
from companion.kernels.mlstm.problem import bounds_of

Tensor = torch.Tensor


#: Of the inputs of `mlstm_forward` so many are tensors; options follow.
_TENSORS = 9


def forward(differentiate: bool, *inputs: Any) -> list[Any]:
    """The operator `mlstm_forward`, differentiable; past torch's dispatcher where nobody listens there.

    `differentiate` says whether an input needs a gradient. What only the backward pass needs may be left out.
    """
    if _is_plain(inputs):
        return _forward(operators.forward_kernels, inputs, differentiate)
    found: list[Any] = operators.forward(*inputs)
    return found


def step(*inputs: Any) -> Tensor:
    """The operator `mlstm_step`, which has no gradient, past the dispatcher as above."""
    found: Tensor = (operators.step_kernels if _is_plain(inputs) else operators.step)(*inputs)
    return found


def _is_plain(inputs: tuple[Any, ...]) -> bool:
    """Whether nothing watches operators: no compiler, no mode (such as the one that counts FLOPs), no other tensors."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return _PLAIN.issuperset(map(type, inputs))


_PLAIN = {Tensor, type(None), bool, int}


def _run(operator: Any, kernels: Any, inputs: tuple[Any, ...]) -> list[Tensor]:
    """An operator below autograd."""
    if _is_plain(inputs):
        found: list[Tensor] = kernels(*inputs)
        return found
    with torch._C._AutoDispatchBelowAutograd():
        found = operator(*inputs)
    return found


def _needs_gradient(inputs: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any([isinstance(x, Tensor) and x.requires_grad for x in inputs])


def _forward(kernels: Any, inputs: tuple[Any, ...], differentiate: bool) -> list[Any]:
    # options in one: autograd looks at every argument, and wants a gradient for each
    return list(_Forward.apply(kernels, inputs[_TENSORS:], *inputs[:_TENSORS]) if differentiate else kernels(*inputs))


def _backward(kernels: Any, inputs: tuple[Any, ...]) -> list[Tensor]:
    return list(_Backward.apply(kernels, *inputs) if _needs_gradient(inputs) else kernels(*inputs))


def _gradients(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, i, f, C_0, n_0, m_0, cu_seqlens, C, n, m, saved, states = ctx.saved_tensors
    dh, _, *of_final = gradients
    dC, dn, dm = (None, None, None) if m is None else of_final[:3]  # None: no state was asked for
    if dh is None:
        dh = torch.zeros_like(v)
    with_state = not (dC is None and dn is None and dm is None)
    if with_state:
        dC = torch.zeros_like(C) if dC is None else dC.contiguous()
        dn = torch.zeros_like(n) if dn is None else dn.contiguous()
    inputs = (dh, dC, dn, saved, states, q, k, v, i, f, C_0, n_0, m_0, cu_seqlens, *ctx.options)
    dq, dk, dv, di, df, *rest = _backward(_backward_operator, inputs)
    to_start = None
    if with_state and dC is not None and dn is not None:
        of_end = rest[-1]
        # scaling C and n by exp(−m) and m with it: the stored state moves with the maximum that m is
        if cu_seqlens is not None:  # the state of an empty sequence is the initial one
            whole = (dC * C).sum((-1, -2)) + (dn * n).sum(-1)
            of_end = torch.where((cu_seqlens.diff() > 0)[:, None], of_end, whole)
        of_m = -of_end if dm is None else dm - of_end
        add_i, add_f, to_start = _through_final_exponent(of_m, i, f, m_0, cu_seqlens, ctx.options[1])
        di, df = (di.float() + add_i).to(i.dtype), (df.float() + add_f).to(f.dtype)
    if C_0 is None:
        return None, None, dq, dk, dv, di, df, None, None, None, None
    dC_0, dn_0, *_ = rest
    dm_0 = (dC_0 * C_0).sum((-1, -2)) + (dn_0 * n_0).sum(-1)
    dm_0 = dm_0 if to_start is None else dm_0 + to_start
    return None, None, dq, dk, dv, di, df, dC_0, dn_0, dm_0, None


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


class _Forward(torch.autograd.Function):
    """The forward pass with its gradient.

    `torch.library.register_autograd` would do the same and take 0.1 ms longer, as much as all launches of the pass.
    """

    @staticmethod
    def forward(ctx: Any, kernels: Any, options: tuple[Any, ...], *tensors: Tensor | None) -> tuple[Any, ...]:
        *of_operator, return_state, _ = options
        results = kernels(*tensors, *options)
        h, saved, final, states = operators.Results.of(results, return_state)
        ctx.options = of_operator
        ctx.save_for_backward(*tensors, *(final or (None,) * 3), saved, states)
        ctx.set_materialize_grads(False)
        if kernels is operators.forward_kernels:
            return h, None, *(final or ())  # every tensor that autograd hands on takes time
        if states is not None:
            ctx.mark_non_differentiable(states)
        return tuple(results)

    backward = staticmethod(_gradients)


class _Backward(torch.autograd.Function):
    """The backward pass, which has no gradient."""

    @staticmethod
    def forward(ctx: Any, kernels: Any, *inputs: Any) -> tuple[Tensor, ...]:
        return tuple(kernels(*inputs))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
        raise NotImplementedError(
            "the Triton kernels of the mLSTM have no second derivative; use backend='torch', which has"
        )


def _forward_operator(*inputs: Any) -> list[Tensor]:
    return _run(operators.forward, operators.forward_kernels, inputs)


def _backward_operator(*inputs: Any) -> list[Tensor]:
    return _run(operators.backward, operators.backward_kernels, inputs)


operators.library.impl("mlstm_forward.list", lambda *x: _forward(_forward_operator, x, _needs_gradient(x)), "Autograd")
operators.library.impl("mlstm_backward.list", lambda *x: _backward(_backward_operator, x), "Autograd")
