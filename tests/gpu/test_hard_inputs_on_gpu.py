"""On a CUDA GPU: large memories, gates that reset, zero queries and keys, in every dtype, beside the float64 oracle."""

from collections.abc import Sequence

import pytest
import torch

from companion.kernels import MLSTMState, mlstm, mlstm_step
from companion.kernels.mlstm.oracle import mlstm_oracle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
#: Largest relative error of h and C by dtype; gradients, which pass through h, may have four times that.
ALLOWED = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
DTYPES = pytest.mark.parametrize("dtype", ALLOWED, ids=str)
D_QK, D_HV = 128, 256


def tensors(*shape: int, dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    widths = ((D_QK,), (D_QK,), (D_HV,), (), ())
    x = [torch.randn(*shape, *width, generator=random).cuda() for width in widths]
    return [*(a.to(dtype) for a in x[:3]), *x[3:]]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def check(leaves: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
    """h, C and every gradient of the Triton kernels."""
    leaves = [x.requires_grad_() for x in leaves]
    h, state = mlstm(*leaves, backend="triton", return_state=True)
    expected, after = mlstm_oracle(*leaves)
    weight = torch.randn(h.shape, generator=torch.Generator().manual_seed(1)).to(h)
    found, right = torch.autograd.grad(h, leaves, weight), torch.autograd.grad(expected, leaves, weight.double())
    assert relative(h, expected) < ALLOWED[dtype]
    assert relative(state.C, after.C) < ALLOWED[dtype]
    for one, other in zip(found, right, strict=True):
        assert relative(one, other) < 4 * ALLOWED[dtype]


@DTYPES
@pytest.mark.parametrize("length", [70, 200])
@pytest.mark.parametrize("level", [45.0, 100.0, 700.0])
def test_large_memories(level: float, length: int, dtype: torch.dtype) -> None:
    x = tensors(2, length, 2, dtype=dtype)
    check([*x[:3], x[3] + level, x[4]], dtype)


@DTYPES
@pytest.mark.parametrize("reset", [-1e4, -1e9, -torch.inf])
def test_gates_that_reset(reset: float, dtype: torch.dtype) -> None:
    x = tensors(2, 200, 2, dtype=dtype)
    x[4] += 2
    x[4][:, 20::20] = reset
    check(x, dtype)


@DTYPES
@pytest.mark.parametrize("zero", [0, 1], ids=["queries", "keys"])
@pytest.mark.parametrize("part", [slice(3, 9), slice(None)], ids=["some", "all"])
def test_zero_queries_or_keys_of_a_large_memory(part: slice, zero: int, dtype: torch.dtype) -> None:
    leaves = tensors(2, 140, 2, dtype=dtype)
    leaves[3] += 150
    leaves[zero][:, part] = 0
    leaves = [x.requires_grad_() for x in leaves]
    h = mlstm(*leaves, backend="triton")
    if zero == 0 or part == slice(None):
        assert (h[:, part] == 0).all()
    for gradient in torch.autograd.grad(h, leaves, torch.randn_like(h)):
        assert torch.isfinite(gradient).all()


@DTYPES
@pytest.mark.parametrize("forgets", [-1000.0, -2000.0, -1e5])
def test_gates_that_forget_more_than_all(forgets: float, dtype: torch.dtype) -> None:
    """The second token writes e^3500 beside a memory of e^5000: e^3000, e^4000 or nothing is left of it.

    Sequences in bfloat16 know no gate below e^-1000; steps do, as their exponents are summed over one token only.
    """
    x = tensors(2, 2, 2, dtype=dtype)
    x[3][:] = torch.tensor([[5000.0], [3500.0]], device="cuda")
    x[4][:] = torch.tensor([[0.0], [forgets]], device="cuda")
    expected, after = mlstm_oracle(*x)
    if dtype != torch.bfloat16 or forgets == -1000.0:
        h, state = mlstm(*x, backend="triton", return_state=True)
        assert relative(h, expected) < ALLOWED[dtype]
        assert relative(state.C, after.C) < ALLOWED[dtype]
    state = MLSTMState.empty(2, 2, D_QK, D_HV, device="cuda")
    for t in range(2):
        h, state = mlstm_step(*(a[:, t] for a in x), state, backend="triton")
    assert relative(h, expected[:, 1]) < ALLOWED[dtype]
    assert relative(state.C, after.C) < ALLOWED[dtype]


@DTYPES
def test_a_step_with_zero_queries_or_keys(dtype: torch.dtype) -> None:
    q, k, v, i, f = tensors(2, 2, dtype=dtype)
    k[0], q[1] = 0, 0
    h, _ = mlstm_step(q, k, v, i + 150, f, MLSTMState.empty(2, 2, D_QK, D_HV, device="cuda"), backend="triton")
    assert (h == 0).all()
