"""Everything a form of the mLSTM computes, gradients included, by name; and a comparison of two such results."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from mlstm_inputs import relative_error

from companion.kernels import MLSTMState, mlstm
from companion.kernels.mlstm.oracle import mlstm_oracle

Tensors = dict[str, torch.Tensor]
OUTPUTS = ("h", "C", "n", "m")
GRADIENTS = ("dq", "dk", "dv", "di", "df", "dC0", "dn0", "dm0")
#: Allowed relative error. float32: the distance to float64 grows where a normalizer is near zero. float16: outputs and
#: what is multiplied are rounded to 11 bits. bfloat16: 8 bits, and the interpreter cuts the rest off where a GPU
#: rounds: twice the error.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}


def outcome(
    call: Callable[..., Any],
    inputs: Iterable[torch.Tensor],
    state: Iterable[torch.Tensor] | None = None,
    upstream: Sequence[str] = OUTPUTS,
    **options: Any,
) -> Tensors:
    """h, C, n, m of `call` and the gradients of a fixed random linear function of those named in `upstream`.

    Gradients that autograd does not know of are zeros.
    """
    variables = [x.detach().requires_grad_() for x in inputs]
    if state is not None:
        before = MLSTMState(*(x.detach().requires_grad_() for x in state))
        options["initial_state"] = before
        variables = [*variables, *before]
    h, after = call(*variables[:5], **options)
    found = dict(zip(OUTPUTS, (h, *after), strict=True))
    generator = torch.Generator().manual_seed(7)
    weights = {name: torch.randn(x.shape, generator=generator, dtype=torch.float64) for name, x in found.items()}
    loss = torch.stack([(weights[name] * found[name].double()).sum() for name in upstream]).sum()
    gradients = torch.autograd.grad(loss, variables, allow_unused=True)
    for name, gradient, x in zip(GRADIENTS, gradients, variables, strict=False):
        found[name] = torch.zeros_like(x) if gradient is None else gradient
    return {name: x.detach() for name, x in found.items()}


def kernels(*inputs: torch.Tensor, **options: Any) -> Any:
    """`mlstm` by Triton, with its final state."""
    return mlstm(*inputs, backend="triton", return_state=True, **options)


def check(found: Tensors, expected: Tensors, tolerance: float) -> None:
    """All of the same shape, finite and within a relative error of the reference."""
    assert found.keys() == expected.keys()
    errors = {}
    for name, x in found.items():
        assert x.shape == expected[name].shape, name
        assert x.isfinite().all(), f"{name} is not finite"
        errors[name] = relative_error(x, expected[name])
    assert max(errors.values()) <= tolerance, {name: f"{error:.1e}" for name, error in errors.items()}


def check_against_oracle(
    inputs: Sequence[torch.Tensor],
    state: Sequence[torch.Tensor] | None = None,
    upstream: Sequence[str] = OUTPUTS,
    *,
    gate: str = "exponential",
    tolerance: float | None = None,
    **options: Any,
) -> Tensors:
    """Kernels against the recurrence in float64; returns what the kernels found."""
    found = outcome(kernels, inputs, state, upstream, gate=gate, **options)
    expected = outcome(mlstm_oracle, inputs, state, upstream, gate=gate)
    check(found, expected, tolerance or TOLERANCE[inputs[0].dtype])
    return found
