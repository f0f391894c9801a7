"""The float64 oracle against numbers worked out by hand, the quadratic form, and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlstm_inputs import Inputs, mlstm_inputs, mlstm_state, relative_error

from companion.kernels import MLSTMState
from companion.kernels.mlstm.oracle import mlstm_oracle
from companion.kernels.mlstm.torch_forms import chunkwise

LOG2 = math.log(2)


def one_head(
    q: list[list[float]], k: list[list[float]], v: list[list[float]], i: list[float], f: list[float]
) -> Inputs:
    """Inputs of one sequence with one head, from one row per token."""
    q_, k_, v_ = (torch.tensor(x, dtype=torch.float64)[None, :, None] for x in (q, k, v))
    i_, f_ = (torch.tensor(x, dtype=torch.float64)[None, :, None] for x in (i, f))
    return q_, k_, v_, i_, f_


@pytest.mark.parametrize(
    ("query", "key", "input_gate", "expected"),
    [
        # q/√4 = 1, C = k v, n = k; the memory is empty, so m = ĩ and exp(ĩ − m) = 1
        (2.0, 3.0, 0.0, (5.0, -7.0)),  # |nq| = 3 above exp(−0) = 1: 3 v / 3
        (2.0, 0.5, 0.0, (2.5, -3.5)),  # |nq| = 0.5 below 1: 0.5 v / 1
        (2.0, 0.5, 2 * LOG2, (5.0, -7.0)),  # exp(−m) = 1/4 below 0.5: 0.5 v / 0.5
        (-2.0, 0.5, 2 * LOG2, (-5.0, 7.0)),  # nq = −0.5: −0.5 v / 0.5
        (2.0, 0.5, -LOG2, (1.25, -1.75)),  # exp(−m) = 2: 0.5 v / 2
    ],
)
def test_one_token(query: float, key: float, input_gate: float, expected: tuple[float, float]) -> None:
    inputs = one_head([[query, 0, 0, 0]], [[key, 0, 0, 0]], [[5, -7]], [input_gate], [1.7])
    h, state = mlstm_oracle(*inputs)
    torch.testing.assert_close(h.flatten(), torch.tensor(expected, dtype=torch.float64))
    assert state.C[0, 0, 0].tolist() == pytest.approx([5 * key, -7 * key])
    assert state.n[0, 0].tolist() == pytest.approx([key, 0, 0, 0])
    assert state.m.item() == pytest.approx(input_gate)


def test_two_tokens() -> None:
    """Forget gate σ(0) = 1/2; exp(ĩ) = 1 and 2; the second query is (1, 2) after 1/√4.

    Without the exponent m: C̃ = 1/2·1·k₁v₁ᵀ + 2 k₂v₂ᵀ has entries 2 and 12, ñ = (1/2, 2), so that C̃ᵀq = 2 + 24 = 26 and
    ñᵀq = 4.5. With it: m₁ = 0, m₂ = max(−ln 2, ln 2) = ln 2, which halves C̃ and ñ.
    """
    inputs = one_head([[2, 0, 0, 0], [2, 4, 0, 0]], [[1, 0, 0, 0], [0, 1, 0, 0]], [[4], [6]], [0, LOG2], [9.0, 0])
    h, state = mlstm_oracle(*inputs)
    assert h.flatten().tolist() == pytest.approx([4.0, 26 / 4.5])
    assert state.C[0, 0, :, 0].tolist() == pytest.approx([1.0, 6.0, 0, 0])
    assert state.n[0, 0].tolist() == pytest.approx([0.25, 1.0, 0, 0])
    assert state.m.item() == pytest.approx(LOG2)


def test_one_token_after_a_memory() -> None:
    """Unscaled, C̃ = 16 and ñ = 4 are halved by σ(0) and get k v = 1·10 and 1: 18 and 3, read by q/√4 = 1."""
    inputs = one_head([[2, 0, 0, 0]], [[1, 0, 0, 0]], [[10]], [0], [0])
    memory = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)[None, None]
    before = MLSTMState(8 * memory[..., None], 2 * memory, torch.full((1, 1), LOG2, dtype=torch.float64))
    h, state = mlstm_oracle(*inputs, initial_state=before)
    assert h.item() == pytest.approx(18 / 3)
    assert (state.C[0, 0, 0, 0].item(), state.n[0, 0, 0].item(), state.m.item()) == pytest.approx((18.0, 3.0, 0.0))


def test_sigmoid_gate_has_no_normalizer() -> None:
    """σ(0) = 1/2 for all gates: C̃ = 1/2·1/2·k₁v₁ᵀ + 1/2·k₂v₂ᵀ has entries 1 and 3, read by (1, 2): 7."""
    inputs = one_head([[2, 0, 0, 0], [2, 4, 0, 0]], [[1, 0, 0, 0], [0, 1, 0, 0]], [[4], [6]], [0, 0], [9.0, 0])
    h, _ = mlstm_oracle(*inputs, gate="sigmoid")
    assert h.flatten().tolist() == pytest.approx([2.0, 7.0])


def quadratic(inputs: Inputs, before: MLSTMState | None = None, gate: str = "exponential") -> torch.Tensor:
    """h from all pairs of tokens, weights Π σ(f̃)·exp(ĩ) as they are: no exponent is taken out (appendix A.3)."""
    q, k, v, i, f = (x.transpose(1, 2) for x in inputs)
    tokens = q.shape[2]
    decay = torch.ones(*f.shape, tokens, dtype=torch.float64)
    for t in range(tokens):
        for s in range(tokens):
            decay[..., t, s] = torch.sigmoid(f[..., s + 1 : t + 1]).prod(-1) if s <= t else 0.0
    write = torch.sigmoid(i) if gate == "sigmoid" else torch.exp(i)
    scores = decay * write[..., None, :] * (q @ k.mT) / math.sqrt(q.shape[-1])
    read, signed = scores @ v, scores.sum(-1)
    if before is not None:
        carried = torch.sigmoid(f).cumprod(-1) * torch.exp(before.m)[..., None] / math.sqrt(q.shape[-1])
        read = read + carried[..., None] * (q @ before.C)
        signed = signed + carried * (q @ before.n[..., None])[..., 0]
    h = read if gate == "sigmoid" else read / signed.abs().clamp(min=1.0)[..., None]
    return h.transpose(1, 2)


@settings(max_examples=25)
@given(
    context_length=st.integers(1, 12),
    d_qk=st.integers(1, 5),
    d_hv=st.integers(1, 5),
    regime=st.sampled_from(["usual", "closed", "soft cap"]),
    gate=st.sampled_from(["exponential", "sigmoid"]),
    with_state=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_equals_the_quadratic_form(
    context_length: int, d_qk: int, d_hv: int, regime: str, gate: str, with_state: bool, seed: int
) -> None:
    inputs = mlstm_inputs(context_length, d_qk=d_qk, d_hv=d_hv, regime=regime, seed=seed)
    before = mlstm_state(d_qk=d_qk, d_hv=d_hv, seed=seed) if with_state else None
    h, _ = mlstm_oracle(*inputs, initial_state=before, gate=gate)
    expected = quadratic(inputs, before, gate)
    # a normalizer that all but cancels loses digits in both forms, hence the absolute part
    torch.testing.assert_close(h, expected, rtol=1e-8, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("gate", ["exponential", "sigmoid"])
@pytest.mark.parametrize("seed", range(3))
def test_gradients_equal_finite_differences(gate: str, seed: int) -> None:
    """Of h and of the final state, in all inputs and the initial state."""
    inputs = mlstm_inputs(3, batch_size=1, n_heads=1, d_qk=3, d_hv=2, seed=seed)
    before = mlstm_state(1, 1, 3, 2, seed=seed)
    variables = tuple(x.requires_grad_() for x in (*inputs, *before))

    def outputs(*x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h, state = mlstm_oracle(*x[:5], initial_state=MLSTMState(*x[5:]), gate=gate)
        return h, *state

    assert torch.autograd.gradcheck(outputs, variables)


def test_checkpoints_change_nothing() -> None:
    inputs = [x.requires_grad_() for x in mlstm_inputs(11)]
    results = []
    for every in (None, 1, 4, 50):
        h, state = mlstm_oracle(*inputs, checkpoint_every=every)
        results.append((h, *state, *torch.autograd.grad(h.square().sum() + state.C.sum(), inputs)))
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            assert torch.equal(found, expected)


@settings(max_examples=20)
@given(shift=st.floats(-20, 20), seed=st.integers(0, 10**6))
def test_only_the_unscaled_memory_counts(shift: float, seed: int) -> None:
    """m + s with C and n times exp(−s) is the same memory."""
    inputs, before = mlstm_inputs(5, seed=seed), mlstm_state(seed=seed)
    factor = math.exp(-shift)
    h, state = mlstm_oracle(*inputs, initial_state=before)
    shifted = MLSTMState(before.C * factor, before.n * factor, before.m + shift)
    other_h, other_state = mlstm_oracle(*inputs, initial_state=shifted)
    assert relative_error(other_h, h) < 1e-10
    unscaled = [(x.n * torch.exp(x.m)[..., None]) for x in (state, other_state)]
    assert relative_error(unscaled[1], unscaled[0]) < 1e-12


@pytest.mark.parametrize("m", [-1e4, -30.0, 0.0, 30.0, 300.0])
def test_an_empty_memory_is_empty_whatever_its_exponent(m: float) -> None:
    inputs = mlstm_inputs(5)
    empty = MLSTMState.empty(2, 2, 16, 24, dtype=torch.float64)
    expected, _ = mlstm_oracle(*inputs)
    assert torch.equal(mlstm_oracle(*inputs, initial_state=empty)[0], expected)
    other = empty._replace(m=torch.full_like(empty.m, m))
    assert relative_error(mlstm_oracle(*inputs, initial_state=other)[0], expected) < 1e-12


@settings(max_examples=15)
@given(st.data())
def test_a_sequence_in_two_parts(data: st.DataObject) -> None:
    context_length = data.draw(st.integers(2, 15))
    split = data.draw(st.integers(1, context_length - 1))
    inputs = mlstm_inputs(context_length, regime=data.draw(st.sampled_from(["usual", "extreme"])))
    whole_h, whole_state = mlstm_oracle(*inputs)
    first_h, between = mlstm_oracle(*(x[:, :split] for x in inputs))
    second_h, state = mlstm_oracle(*(x[:, split:] for x in inputs), initial_state=between)
    assert torch.equal(torch.cat([first_h, second_h], dim=1), whole_h)
    for found, expected in zip(state, whole_state, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_constant_normalizer_matters_only_along_h(seed: int) -> None:
    """Gradients with and without the normalizer's part: equal for an upstream gradient orthogonal to h, else not."""
    inputs = [x.double().requires_grad_() for x in mlstm_inputs(12, seed=seed)]
    upstream = torch.randn(mlstm_oracle(*inputs)[0].shape, generator=torch.Generator().manual_seed(seed)).double()

    def gradients(upstream: torch.Tensor, full: bool) -> list[torch.Tensor]:
        h, state = mlstm_oracle(*inputs, normalizer_gradient=full)
        return list(torch.autograd.grad((h * upstream).sum() + state.n.sum(), inputs))

    h = mlstm_oracle(*inputs)[0].detach()
    across = upstream - h * (upstream * h).sum(-1, keepdim=True) / (h * h).sum(-1, keepdim=True)
    for one, other in zip(gradients(across, True), gradients(across, False), strict=True):
        torch.testing.assert_close(one, other)
    assert relative_error(gradients(upstream, False)[0], gradients(upstream, True)[0]) > 0.01
    torch.testing.assert_close(gradients(upstream, False)[2], gradients(upstream, True)[2])


def test_the_constant_normalizer_is_that_of_plain_torch() -> None:
    inputs, state = [x.double().requires_grad_() for x in mlstm_inputs(20)], mlstm_state(dtype=torch.float64)
    found = [
        torch.autograd.grad(form(*inputs, initial_state=state, normalizer_gradient=False)[0].square().sum(), inputs)
        for form in (mlstm_oracle, chunkwise)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
