"""One implementation run on one case: its tensors in the layout of the case, its outputs and gradients by name."""

from itertools import accumulate
from typing import Any

import torch

from companion.benchmarks.kernels.cases import Case
from companion.benchmarks.kernels.implementations import Implementation
from companion.benchmarks.kernels.inputs import Inputs
from companion.benchmarks.kernels.references import INPUT_NAMES, STATE_NAMES
from companion.kernels.mlstm.state import MLSTMState

Tensors = dict[str, torch.Tensor]


def evaluate(
    implementation: Implementation,
    case: Case,
    inputs: Inputs,
    dtype: torch.dtype,
    mode: str,
    *,
    backward: bool = True,
    **options: Any,
) -> Tensors:
    """Outputs, final state and gradients of one implementation, by the names of `Reference`, as it stores them.

    Tensors are handed over in the layout of the case; with `fused` also gates are slices in `dtype`, else float32.
    Without `backward` no gradient is computed.
    """
    leaves, arguments = _arguments(case, inputs, dtype)
    state = None
    if inputs.initial_state is not None:
        state = MLSTMState(*(x.float().requires_grad_() for x in inputs.initial_state))
    if case.layout == "bhtd" and implementation.layout == "bthd":
        options["layout"] = "bhtd"
    elif implementation.layout == "bhtd":
        arguments = [x.transpose(1, 2) for x in arguments]
    if case.sequences is not None:
        bounds = [0, *accumulate(case.sequences)]
        options["cu_seqlens"] = torch.tensor(bounds, dtype=torch.int32, device=inputs.q.device)
    with torch.set_grad_enabled(backward):
        h, final = implementation.call(*arguments, state, implementation.has_state, **options)
    upstream = inputs.upstream[mode].to(dtype)
    if implementation.layout == "bhtd" or case.layout == "bhtd":
        h = h.transpose(1, 2)
    found = {"h": h.detach()}
    if final is not None:
        found |= {name: x.detach() for name, x in zip(STATE_NAMES, final, strict=True)}
    if not backward:
        return found
    outputs, weights = [h], [upstream]
    if inputs.state_upstream is not None and final is not None:
        for x, weight in zip(final, inputs.state_upstream, strict=True):
            if x.requires_grad:
                outputs.append(x)
                weights.append(torch.where(torch.isfinite(x), weight.to(x.dtype), 0.0))
    memory = list(state) if state is not None else []
    # backward in this thread: configurations are forced per thread
    with torch.autograd.set_multithreading_enabled(False):
        gradients = torch.autograd.grad(outputs, [*leaves, *memory], weights, allow_unused=True)
    by_name = _split(case, leaves, gradients[: len(leaves)])
    by_name |= {f"d{name}0": x for name, x in zip(STATE_NAMES, gradients[len(leaves) :], strict=False)}
    return found | {name: x for name, x in by_name.items() if x is not None}


def _arguments(case: Case, inputs: Inputs, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Leaves of autograd, and the arguments made of them in the layout of the case."""
    tensors = [x.to(dtype) for x in inputs[:3]] + [x.float() for x in inputs[3:5]]
    if case.layout == "fused":
        qkv = torch.cat([x.to(dtype).flatten(2) for x in tensors[:3]], dim=-1).requires_grad_()
        both = torch.cat([x.to(dtype) for x in tensors[3:]], dim=-1).requires_grad_()
        sizes = [case.n_heads * width for width in (case.d_qk, case.d_qk, case.d_hv)]
        parts = [x.unflatten(-1, (case.n_heads, -1)) for x in qkv.split(sizes, dim=-1)]
        return [qkv, both], [*parts, *both.split(case.n_heads, dim=-1)]
    if case.layout in ("transposed", "bhtd"):
        leaves = [x.transpose(1, 2).contiguous().requires_grad_() for x in tensors]
        return leaves, leaves if case.layout == "bhtd" else [x.transpose(1, 2) for x in leaves]
    leaves = [x.clone().requires_grad_() for x in tensors]
    return leaves, leaves


def _split(case: Case, leaves: list[torch.Tensor], gradients: Any) -> dict[str, Any]:
    """Gradients of the leaves as dq, dk, dv, di, df in (B, T, H, …)."""
    names = [f"d{name}" for name in INPUT_NAMES]
    if case.layout == "fused":
        of_qkv, of_gates = gradients
        sizes = [case.n_heads * width for width in (case.d_qk, case.d_qk, case.d_hv)]
        parts = [x.unflatten(-1, (case.n_heads, -1)) for x in of_qkv.split(sizes, dim=-1)]
        return dict(zip(names, [*parts, *of_gates.split(case.n_heads, dim=-1)], strict=True))
    if case.layout in ("transposed", "bhtd"):
        gradients = [x if x is None else x.transpose(1, 2) for x in gradients]
    return dict(zip(names, gradients, strict=True))
