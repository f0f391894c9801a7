"""What users hand over without thinking: states in slices of a cache, gates that reset, padding, wrong bounds."""

import pytest
import torch

from companion.kernels import MLSTMState, mlstm, mlstm_step
from companion.kernels.mlstm.oracle import mlstm_oracle


def tensors(*shape: int, d_qk: int = 16, d_hv: int = 32, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    widths = ((d_qk,), (d_qk,), (d_hv,), (), ())
    return [torch.randn(*shape, *width, generator=random) for width in widths]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def test_a_step_in_a_slice_of_a_cache() -> None:
    cache = MLSTMState(torch.randn(2, 3, 2, 16, 32), torch.randn(2, 3, 2, 16), torch.randn(2, 3, 2))
    before = MLSTMState(*(x.clone() for x in cache))
    layer = MLSTMState(*(x[:, 1] for x in cache))
    x = tensors(2, 2)
    h, state = mlstm_step(*x, layer, backend="triton")
    expected, after = mlstm_step(*x, MLSTMState(*(x[:, 1].clone() for x in before)), backend="torch")
    assert relative(h, expected) < 1e-6
    for part, whole, old, right in zip(state, cache, before, after, strict=True):
        assert part.data_ptr() == whole[:, 1].data_ptr()
        assert relative(whole[:, 1], right) < 1e-6
        assert torch.equal(whole[:, ::2], old[:, ::2]), "other layers are left alone"


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("reset", [-1e4, -1e9, torch.finfo(torch.float32).min, -torch.inf])
def test_gates_that_reset(backend: str, reset: float) -> None:
    q, k, v, i, f = tensors(1, 70, 1)
    f = f + 2
    f[:, 20::20] = reset
    h, state = mlstm(q, k, v, i, f, chunk_size=64, backend=backend, return_state=True)
    expected, after = mlstm_oracle(q, k, v, i, f)
    assert relative(h, expected) < (1e-5 if backend == "triton" else 2e-3)
    assert relative(state.C, after.C) < (1e-5 if backend == "triton" else 1e-4)


@pytest.mark.parametrize("backend", ["triton", "torch", "torch-parallel", "torch-recurrent"])
@pytest.mark.parametrize("shut", [-95.0, -1e4])
def test_gradients_behind_shut_input_gates(backend: str, shut: float) -> None:
    leaves = tensors(1, 40, 1)
    leaves[3][:, :3] = shut
    leaves = [x.requires_grad_() for x in leaves]
    weight = torch.randn(1, 40, 1, 32, generator=torch.Generator().manual_seed(1))
    h = mlstm(*leaves, backend=backend)
    expected, _ = mlstm_oracle(*leaves)
    found = torch.autograd.grad(h, leaves, weight)
    right = torch.autograd.grad(expected, leaves, weight.double())
    assert relative(h, expected) < 1e-4
    for one, other in zip(found, right, strict=True):
        assert torch.isfinite(one).all()
        assert torch.isfinite(other).all()
        assert relative(one, other) < 1e-3


def test_tokens_beyond_the_last_sequence() -> None:
    leaves = [x.requires_grad_() for x in tensors(1, 40, 2)]
    bounds = torch.tensor([0, 7, 25])
    h, state = _operator(leaves, bounds)
    apart = [mlstm(*(x[:, a:b] for x in leaves), return_state=True) for a, b in ((0, 7), (7, 25))]
    assert relative(h[:, :25], torch.cat([x[0] for x in apart], 1)) < 1e-5
    assert torch.equal(h[:, 25:], torch.zeros_like(h[:, 25:]))
    gradients = torch.autograd.grad(h.sum() + sum(x.sum() for x in state), leaves)
    right = torch.autograd.grad(sum(y.sum() for one in apart for y in (one[0], *one[1])), leaves)
    for one, other in zip(gradients, right, strict=True):
        assert torch.equal(one[:, 25:], torch.zeros_like(one[:, 25:]))
        assert relative(one, other) < 1e-4


def test_bounds_that_are_wrong_stay_within_the_tensors() -> None:
    """On a GPU their values are not read by the host, so they are not refused: nothing else may be touched."""
    x = tensors(1, 20, 1)
    h, _ = _operator(x, torch.tensor([0, 100, 20]))
    assert torch.isfinite(h).all()
    assert relative(h, mlstm(*x)) < 1e-5


def test_a_window_that_slides() -> None:
    """Tokens that overlap: two axes of stride 1, and an output laid out alike would have none at the end."""
    row = torch.randn(10 + 32 - 1)
    q, k, _, i, f = tensors(1, 10, 1)
    v = row.unfold(0, 32, 1)[None, :, None]
    assert relative(mlstm(q, k, v, i, f, backend="triton"), mlstm(q, k, v.contiguous(), i, f)) < 1e-5


def test_autocast_changes_nothing() -> None:
    x = tensors(1, 40, 1)
    for backend in ("triton", "torch", "torch-recurrent"):
        plain = mlstm(*x, backend=backend)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(mlstm(*x, backend=backend), plain)


def _operator(x: list[torch.Tensor], bounds: torch.Tensor) -> tuple[torch.Tensor, MLSTMState]:
    """The kernels without the checks of `mlstm`, which on a GPU see no values."""
    from companion.kernels.mlstm.ops import mlstm_triton

    q, k, v, i, f = x
    return mlstm_triton(q, k, v, i, f, cu_seqlens=bounds, chunk_size=16)


FORMS = ("triton", "torch", "torch-parallel", "torch-recurrent")


@pytest.mark.parametrize("backend", FORMS)
def test_a_gate_that_forgets_more_than_all_but_less_than_the_input_gates_differ(backend: str) -> None:
    """The second token writes e^3500 beside what its gate leaves of a memory of e^5000."""
    q, k, v, i, f = tensors(1, 2, 1)
    for forgets, wins in ((-2000.0, 1), (-1000.0, 0), (-1e5, 1)):  # what is left is e^3000, e^4000, nothing
        i[0, :, 0], f[0, :, 0] = torch.tensor([5000.0, 3500.0]), torch.tensor([0.0, forgets])
        h, state = mlstm(q, k, v, i, f, backend=backend, return_state=True)
        expected, after = mlstm_oracle(q, k, v, i, f)
        assert relative(h, expected) < 1e-5
        assert relative(state.C, after.C) < 1e-5
        kept = k[0, wins, 0, :, None] * v[0, wins, 0]
        assert relative(state.C[0, 0], kept) < 1e-5, "one token is all that is remembered"


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("level", [45.0, 100.0, 700.0])
def test_gradients_of_a_large_memory(backend: str, level: float) -> None:
    """70 tokens: the second chunk is filled up with 58 that have no queries and no keys."""
    leaves = tensors(1, 70, 1)
    leaves[3] = leaves[3] + level
    leaves = [x.requires_grad_() for x in leaves]
    weight = torch.randn(1, 70, 1, 32, generator=torch.Generator().manual_seed(1))
    h = mlstm(*leaves, backend=backend)
    expected, _ = mlstm_oracle(*leaves)
    found, right = torch.autograd.grad(h, leaves, weight), torch.autograd.grad(expected, leaves, weight.double())
    assert relative(h, expected) < 1e-6 * level
    for one, other in zip(found, right, strict=True):
        assert relative(one, other) < 2e-6 * level


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("zero", [0, 1], ids=["queries", "keys"])
@pytest.mark.parametrize("normalizer_gradient", [True, False])
def test_zero_queries_or_keys_of_a_large_memory(backend: str, zero: int, normalizer_gradient: bool) -> None:
    """exp(−m) underflows and nᵀq is 0: the equations give h = 0, and no gradient may be NaN."""
    leaves = tensors(1, 20, 1)
    leaves[3] = leaves[3] + 150
    leaves[zero][:, 3:9] = 0
    if zero == 1:
        leaves[1][:] = 0
    leaves = [x.requires_grad_() for x in leaves]
    h = mlstm(*leaves, backend=backend, normalizer_gradient=normalizer_gradient)
    expected, _ = mlstm_oracle(*leaves)
    assert torch.isfinite(expected).all()
    assert (h[:, 3:9] == 0).all()
    assert torch.allclose(h.double(), expected, rtol=1e-3, atol=1e-4)
    for gradient in torch.autograd.grad(h, leaves, torch.randn_like(h)):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_step_with_zero_queries_or_keys(backend: str) -> None:
    q, k, v, i, f = tensors(2, 2)
    k[0], q[1] = 0, 0
    h, _ = mlstm_step(q, k, v, i + 150, f, MLSTMState.empty(2, 2, 16, 32), backend=backend)
    assert (h == 0).all()


@pytest.mark.parametrize("backend", ["triton", "torch-recurrent"])
@pytest.mark.parametrize(("seed", "spread"), [(162, 15.0), (0, None)])
def test_gradients_in_float16_are_finite_where_they_fit(backend: str, seed: int, spread: float | None) -> None:
    """dq and dk reach 5e6 where a normalizer is near zero beside ĩ spread by 15; for ĩ up to 3 all of them fit."""
    q, k, v, i, f = tensors(1, 40, 1, seed=seed)
    i = spread * i if spread else (3 * i).clamp(-3, 3)
    leaves = [x.requires_grad_() for x in (q.half(), k.half(), v.half(), i, f + 3)]
    weight = torch.randn(1, 40, 1, 32, generator=torch.Generator().manual_seed(1)).half()
    exact = [x.detach().double().requires_grad_() for x in leaves]
    right = torch.autograd.grad(mlstm_oracle(*exact)[0], exact, weight.double())
    for one, other in zip(torch.autograd.grad(mlstm(*leaves, backend=backend), leaves, weight), right, strict=True):
        fits = other.abs() < 65504
        assert torch.equal(one.isfinite(), fits if one.dtype == torch.float16 else torch.ones_like(fits))
        assert relative(one[fits], other[fits]) < 1e-2
    assert [bool((x.abs() > 65504).any()) for x in right[:3]] == [bool(spread), bool(spread), False]


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("length", [1, 2, 17])
def test_the_input_gate_of_a_first_token(backend: str, dtype: torch.dtype, length: int) -> None:
    """Where the normalizer divides h of a first token is ±v for every ĩ: the parts of dĩ cancel to the last bit."""
    leaves = [x.to(dtype) if number < 3 else x for number, x in enumerate(tensors(10, length, 1))]
    leaves[3][:, 0] = torch.linspace(-2, 4, 10)[:, None]
    leaves = [x.requires_grad_() for x in leaves]
    weight = torch.randn(10, length, 1, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    (found,) = torch.autograd.grad(mlstm(*leaves, backend=backend), leaves[3:4], weight)
    (right,) = torch.autograd.grad(mlstm_oracle(*leaves)[0], leaves[3:4], weight.double())
    if length == 1:
        divides = (leaves[0] * leaves[1]).double().sum(-1).abs() / 4 > (-leaves[3]).double().exp()
        assert 2 < divides.sum() < 8
        assert (found[divides] == 0).all()
        assert (right[divides].abs() < 1e-14).all()
    assert relative(found, right) < {torch.bfloat16: 2e-2, torch.float32: 5e-6}[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_final_state_of_one_token(dtype: torch.dtype) -> None:
    """C is k vᵀ whatever ĩ is: dĩ is zero, in two parts that are rounded alike."""
    leaves = [x.to(dtype) if number < 3 else x for number, x in enumerate(tensors(10, 1, 1))]
    leaves = [x.requires_grad_() for x in leaves]
    dC = torch.randn(10, 1, 16, 32, generator=torch.Generator().manual_seed(1))
    for backend in ("triton", "torch", "torch-recurrent"):
        _, state = mlstm(*leaves, backend=backend, return_state=True)
        (found,) = torch.autograd.grad(state.C, leaves[3:4], dC)
        assert (found == 0).all()
