"""The one call: layouts, backends, packed sequences, steps, compiled graphs, and the cheaper gradient."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlstm_inputs import mlstm_inputs, mlstm_state, relative_error

from companion.errors import InputError
from companion.kernels import MLSTMState, mlstm, mlstm_step
from companion.kernels.mlstm import torch_forms
from companion.kernels.mlstm.oracle import mlstm_oracle

BACKENDS = ("auto", "torch", "torch-parallel", "torch-recurrent")
FLOAT32: dict[str, Any] = {"dtype": torch.float32}


def swapped(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2)


@pytest.mark.parametrize("gate", ["exponential", "sigmoid"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_and_layouts(backend: str, gate: str) -> None:
    inputs, before = mlstm_inputs(37), mlstm_state()
    expected, expected_state = mlstm_oracle(*inputs, initial_state=before, gate=gate)
    options: dict[str, Any] = {"initial_state": before, "backend": backend, "gate": gate}
    h, state = mlstm(*inputs, return_state=True, **options)
    assert relative_error(h, expected) < 1e-10
    for found, reference in zip(state, expected_state, strict=True):
        assert relative_error(found, reference) < 1e-10
    assert torch.equal(mlstm(*inputs, **options), h)
    heads_first, same_state = mlstm(*map(swapped, inputs), return_state=True, layout="bhtd", **options)
    assert torch.equal(swapped(heads_first), h)
    assert torch.equal(same_state.C, state.C)


def test_auto_is_chunkwise_torch_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Triton's interpreter too: that is for tests, not for use."""
    inputs = mlstm_inputs(100, **FLOAT32)
    expected, _ = torch_forms.chunkwise(*inputs, chunk_size=32)
    for value in ("0", "1"):
        monkeypatch.setenv("TRITON_INTERPRET", value)
        assert torch.equal(mlstm(*inputs, chunk_size=32), expected)


def test_chunk_sizes_change_rounding_only() -> None:
    inputs = mlstm_inputs(70)
    expected = mlstm(*inputs)
    for chunk_size in (1, 7, 16, 64, 256):
        assert relative_error(mlstm(*inputs, chunk_size=chunk_size, backend="torch"), expected) < 1e-11


def test_a_plain_tuple_is_a_state() -> None:
    inputs, before = mlstm_inputs(5), mlstm_state()
    assert torch.equal(mlstm(*inputs, initial_state=tuple(before)), mlstm(*inputs, initial_state=before))


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any),
    backend=st.sampled_from(["torch", "torch-parallel", "torch-recurrent"]),
    layout=st.sampled_from(["bthd", "bhtd"]),
    with_state=st.booleans(),
    dtype=st.sampled_from([torch.int32, torch.int64]),
)
def test_packed_sequences_are_separate_calls(
    lengths: list[int], backend: str, layout: str, with_state: bool, dtype: torch.dtype
) -> None:
    """Outputs, final states and gradients; a sequence without tokens keeps its state."""
    inputs = [x.requires_grad_() for x in mlstm_inputs(sum(lengths), batch_size=1)]
    before = mlstm_state(len(lengths)) if with_state else None
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(dtype)
    arranged = [swapped(x) for x in inputs] if layout == "bhtd" else inputs
    h, state = mlstm(
        *arranged, initial_state=before, return_state=True, backend=backend, layout=layout, cu_seqlens=bounds
    )
    h = swapped(h) if layout == "bhtd" else h
    assert h.shape == (1, sum(lengths), 2, 24)
    assert state.C.shape == (len(lengths), 2, 16, 24)
    loss = h.new_zeros(())
    for number, (start, length) in enumerate(zip(bounds[:-1].tolist(), lengths, strict=True)):
        own = None if before is None else MLSTMState(*(x[number : number + 1] for x in before))
        if length == 0:
            expected_state = own or MLSTMState.empty(1, 2, 16, 24, dtype=torch.float64)
        else:
            tokens = [x[:, start : start + length] for x in inputs]
            expected, expected_state = mlstm(*tokens, initial_state=own, return_state=True, backend=backend)
            assert torch.equal(h[:, start : start + length], expected)
            loss = loss + expected.square().sum()
        for found, reference in zip(state, expected_state, strict=True):
            assert torch.equal(found[number : number + 1], reference)
    gradients = torch.autograd.grad(h.square().sum(), inputs)
    for found, reference in zip(gradients, torch.autograd.grad(loss, inputs), strict=True):
        torch.testing.assert_close(found, reference)


@pytest.mark.parametrize("gate", ["exponential", "sigmoid"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_are_the_sequence(backend: str, gate: str) -> None:
    inputs = mlstm_inputs(12)
    expected, expected_state = mlstm_oracle(*inputs, gate=gate)
    state = MLSTMState.empty(2, 2, 16, 24, dtype=torch.float64)
    outputs = []
    for t in range(12):
        h, after = mlstm_step(*(x[:, t] for x in inputs), state, backend=backend, gate=gate)
        assert all(new is old for new, old in zip(after, state, strict=True))  # updated in place
        outputs.append(h)
    assert relative_error(torch.stack(outputs, 1), expected) < 1e-12
    assert relative_error(state.C, expected_state.C) < 1e-12


def test_a_step_that_needs_a_gradient_leaves_its_state_alone() -> None:
    token, state = [x[:, 0] for x in mlstm_inputs(1)], mlstm_state()
    kept = MLSTMState(*(x.clone() for x in state))
    variables = [x.requires_grad_() for x in (*token, *state)]
    h, after = mlstm_step(*token, state)
    for old, copy, new in zip(state, kept, after, strict=True):
        assert torch.equal(old, copy)
        assert not torch.equal(new, copy)
    expected, _ = mlstm_oracle(*(x[:, None] for x in token), initial_state=state)
    found = torch.autograd.grad(h.square().sum(), variables)
    for gradient, reference in zip(found, torch.autograd.grad(expected.square().sum(), variables), strict=True):
        assert relative_error(gradient, reference) < 1e-10
    with pytest.raises(InputError, match=r"^backend 'triton': a single step has no gradient; use torch.no_grad\(\)"):
        mlstm_step(*token, state, backend="triton")
    with torch.no_grad():
        _, same = mlstm_step(*token, state)
    assert same.C is state.C
    assert torch.equal(state.C, after.C)


def test_a_memory_in_bfloat16() -> None:
    inputs = mlstm_inputs(20, **FLOAT32)
    expected, _ = mlstm_oracle(*inputs)
    state = MLSTMState.empty(2, 2, 16, 24, dtype=torch.bfloat16)
    assert (state.C.dtype, state.n.dtype, state.m.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    h = torch.stack([mlstm_step(*(x[:, t] for x in inputs), state)[0] for t in range(20)], 1)
    # C is rounded to 8 bits at each of 20 tokens
    assert 1e-5 < relative_error(h, expected) < 20 * 2**-8
    prefilled = mlstm_state(**FLOAT32)
    rounded = prefilled._replace(C=prefilled.C.bfloat16())
    widened = rounded._replace(C=rounded.C.float())
    assert torch.equal(mlstm(*inputs, initial_state=rounded), mlstm(*inputs, initial_state=widened))


def test_what_reaches_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """(B, T, H, d) as views, bounds checked where they can be; h goes back to the layout."""
    calls: list[tuple[Any, ...]] = []

    def kernels(q: Any, k: Any, v: Any, i: Any, f: Any, state: Any, **options: Any) -> Any:
        calls.append((q, i, state, options))
        return torch.zeros_like(v), "state"

    def step_kernel(q: Any, k: Any, v: Any, i: Any, f: Any, state: Any, *, gate: str) -> Any:
        calls.append((state, gate))
        return torch.zeros_like(v)

    monkeypatch.setitem(
        sys.modules, "companion.kernels.mlstm.ops", SimpleNamespace(mlstm_triton=kernels, mlstm_step_triton=step_kernel)
    )
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    inputs = [swapped(x).contiguous() for x in mlstm_inputs(30, batch_size=1, **FLOAT32)]
    before = mlstm_state(2, **FLOAT32)
    bounds = torch.tensor([0, 10, 30])
    options: dict[str, Any] = {"backend": "triton", "layout": "bhtd", "initial_state": before, "chunk_size": 32}
    h, state = mlstm(*inputs, cu_seqlens=bounds, return_state=True, normalizer_gradient=False, **options)
    q, i, given_state, given = calls.pop()
    assert (h.shape, state) == ((1, 2, 30, 24), "state")
    assert q.shape == (1, 30, 2, 16)
    assert q.data_ptr() == inputs[0].data_ptr()
    assert i.shape == (1, 30, 2)
    assert given_state == before
    assert torch.equal(given.pop("cu_seqlens"), bounds)
    assert given == {"chunk_size": 32, "gate": "exponential", "normalizer_gradient": False, "return_state": True}
    with pytest.raises(InputError, match=r"^cu_seqlens: ends at 29"):
        mlstm(*inputs, cu_seqlens=bounds - torch.tensor([0, 0, 1]), **options)

    token, state = [x[:, :, 0] for x in inputs], mlstm_state(1, **FLOAT32)
    _, same = mlstm_step(*token, state, backend="triton", gate="sigmoid")
    assert calls == [(state, "sigmoid")]
    assert same.C is state.C


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_graph(backend: str) -> None:
    """torch.compile finds no break: sequences with gradients, any options; steps in place."""
    inputs, before = [x.requires_grad_() for x in mlstm_inputs(20)], mlstm_state()

    def sequences(*x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h, state = mlstm(*x, initial_state=before, return_state=True, backend=backend, normalizer_gradient=False)
        swapped_h = mlstm(*map(swapped, x), layout="bhtd", backend=backend, gate="sigmoid")
        return h + swapped(swapped_h), state.C

    compiled = torch.compile(sequences, backend="eager", fullgraph=True)
    results = [f(*inputs) for f in (compiled, sequences)]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(*(torch.autograd.grad(h.sum() + C.sum(), inputs) for h, C in results), strict=True):
        torch.testing.assert_close(found, expected)

    step = torch.compile(mlstm_step, backend="eager", fullgraph=True)
    state, other = mlstm_state(), mlstm_state()
    with torch.no_grad():
        token = [x[:, 0] for x in inputs]
        h, after = step(*token, state, backend=backend)
        torch.testing.assert_close(h, mlstm_step(*token, other)[0])
    assert after.C is state.C
    torch.testing.assert_close(state.C, other.C)


def gradients(inputs: list[torch.Tensor], normalise: bool, **options: Any) -> tuple[torch.Tensor, ...]:
    """Gradients of a fixed random function of h, or of h over its norm per token and head."""
    h = mlstm(*inputs, **options)
    weights = torch.randn(h.shape, generator=torch.Generator().manual_seed(3), dtype=h.dtype)
    if normalise:
        h = h / h.norm(dim=-1, keepdim=True)
    return torch.autograd.grad((weights * h).sum(), inputs)


@pytest.mark.parametrize("regime", ["usual", "open", "closed", "extreme"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_cheaper_gradient_is_exact_behind_a_norm(backend: str, regime: str) -> None:
    """And only there; the same from every form."""
    inputs = [x.requires_grad_() for x in mlstm_inputs(30, regime=regime)]
    exact, cheap = (gradients(inputs, True, backend=backend, normalizer_gradient=on) for on in (True, False))
    scale = float(torch.cat([x.flatten() for x in exact]).norm())
    for name, found, reference in zip("qkvif", cheap, exact, strict=True):
        error = float((found - reference).norm())
        assert error <= 1e-8 * float(reference.norm()) + 1e-12 * scale, (name, error)
    exact, cheap = (gradients(inputs, False, backend=backend, normalizer_gradient=on) for on in (True, False))
    assert relative_error(cheap[2], exact[2]) < 1e-12  # v is not in the normalizer
    assert relative_error(cheap[1], exact[1]) > 0.01
    recurrent = gradients(inputs, False, backend="torch-recurrent", normalizer_gradient=False)
    for found, reference in zip(cheap, recurrent, strict=True):
        assert float((found - reference).norm()) <= 1e-9 * float(reference.norm()) + 1e-12 * scale


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_cheaper_gradient_holds_constant(backend: str) -> None:
    """The normalizer of the memory as it is, max(|ñᵀq|, 1): no exponent m is in it, which has a gradient of its own."""
    inputs = [x.requires_grad_() for x in mlstm_inputs(8)]
    q, k, v, i, f = (swapped(x) for x in inputs)
    b = torch.nn.functional.logsigmoid(f).cumsum(-1)
    decay = (b[..., :, None] - b[..., None, :] + i[..., None, :]).exp().tril()
    scores = decay * (q @ k.mT) / 4
    h = swapped(scores @ v / scores.sum(-1, keepdim=True).abs().clamp(min=1).detach())
    weights = torch.randn(h.shape, generator=torch.Generator().manual_seed(3), dtype=h.dtype)
    expected = torch.autograd.grad((weights * h).sum(), inputs)
    found = gradients(inputs, False, backend=backend, normalizer_gradient=False)
    for gradient, reference in zip(found, expected, strict=True):
        assert relative_error(gradient, reference) < 1e-10
