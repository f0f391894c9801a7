"""Packed sequences, memory layouts, sequences in parts, states in another scale."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlstm_comparison import OUTPUTS, TOLERANCE, Tensors, check, kernels, outcome
from mlstm_inputs import mlstm_inputs, mlstm_state, relative_error

from companion.errors import InputError
from companion.kernels import MLSTMState, mlstm
from companion.kernels.mlstm.oracle import mlstm_oracle

HIGH = torch.float32
LIMIT = TOLERANCE[HIGH]


def packed_oracle(*inputs: torch.Tensor, bounds: list[int], **options: object) -> tuple[torch.Tensor, MLSTMState]:
    """One sequence after another, each with its own state."""
    outputs, states = [], []
    before = options.pop("initial_state", None)
    for number, (start, end) in enumerate(pairwise(bounds)):
        own = None if before is None else MLSTMState(*(x[number : number + 1] for x in before))
        if start == end:
            own = own or MLSTMState.empty(1, 2, inputs[0].shape[-1], inputs[2].shape[-1])
            states.append(MLSTMState(*(x.double() for x in own)))
            continue
        h, state = mlstm_oracle(*(x[:, start:end] for x in inputs), initial_state=own, **options)
        outputs.append(h)
        states.append(state)
    return torch.cat(outputs, 1), MLSTMState(*(torch.cat(parts) for parts in zip(*states, strict=True)))


@pytest.mark.parametrize(
    ("bounds", "gate", "with_state", "upstream"),
    [
        ([0, 0, 1, 1, 17, 50], "exponential", True, OUTPUTS),
        ([0, 33, 34, 50, 50, 50], "sigmoid", True, ("C", "n", "m")),
        ([0, 16, 32, 40], "exponential", False, ("h", "C")),
        ([0, 1], "exponential", True, OUTPUTS),
    ],
)
def test_packed_sequences(bounds: list[int], gate: str, with_state: bool, upstream: tuple[str, ...]) -> None:
    """Sequences of no token, one token, a full chunk, more; outputs, final states and all gradients."""
    inputs = mlstm_inputs(bounds[-1], batch_size=1, dtype=HIGH)
    before = mlstm_state(len(bounds) - 1, dtype=HIGH) if with_state else None
    places = torch.tensor(bounds, dtype=torch.int32)
    found = outcome(kernels, inputs, before, upstream, chunk_size=16, gate=gate, cu_seqlens=places)
    expected = outcome(packed_oracle, inputs, before, upstream, bounds=bounds, gate=gate)
    check(found, expected, LIMIT)
    if before is not None:
        empty = [number for number, (start, end) in enumerate(pairwise(bounds)) if start == end]
        assert all(torch.equal(found[name][empty], x[empty]) for name, x in zip("Cnm", before, strict=True))


def test_a_packed_sequence_without_tokens_or_state_stays_empty() -> None:
    inputs = mlstm_inputs(20, batch_size=1, dtype=HIGH)
    _, state = kernels(*inputs, chunk_size=16, cu_seqlens=torch.tensor([0, 0, 20, 20]))
    for found, empty in zip(state, MLSTMState.empty(1, 2, 16, 24), strict=True):
        assert torch.equal(found[0], empty[0])
        assert torch.equal(found[2], empty[0])
        assert found[1].isfinite().all()


def test_bounds_on_the_cpu_are_checked() -> None:
    inputs = mlstm_inputs(20, batch_size=1, dtype=HIGH)
    with pytest.raises(InputError, match=r"^cu_seqlens: ends at 19"):
        kernels(*inputs, cu_seqlens=torch.tensor([0, 19]))


def with_strides(x: torch.Tensor, kind: str) -> torch.Tensor:
    """The same numbers laid out otherwise."""
    if kind == "heads first":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if kind == "batch last":
        return x.movedim(0, -1).contiguous().movedim(-1, 0)  # the last dimension is not contiguous
    if kind == "every other":
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan, dtype=x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    # rows of a larger tensor, not at its start, whose other numbers are not to be read
    wide = torch.full((x.shape[0] + 1, x.shape[1] + 2, x.shape[2] + 1, *(size + 3 for size in x.shape[3:])), torch.nan)
    view = wide.to(x.dtype)[(slice(1, None), slice(1, -1), slice(1, None), *(slice(2, -1) for _ in x.shape[3:]))]
    view.copy_(x)
    return view


@pytest.fixture(scope="module")
def contiguous() -> Tensors:
    return outcome(kernels, mlstm_inputs(20, dtype=HIGH), mlstm_state(dtype=HIGH), chunk_size=16)


@pytest.mark.parametrize("kind", ["heads first", "batch last", "every other", "slices"])
def test_layouts_change_no_bit(kind: str, contiguous: Tensors) -> None:
    inputs, before = mlstm_inputs(20, dtype=HIGH), mlstm_state(dtype=HIGH)
    arranged = [with_strides(x, kind) for x in inputs]
    found = outcome(kernels, arranged, before, chunk_size=16)
    assert all(torch.equal(found[name], x) for name, x in contiguous.items())


def test_a_fused_projection() -> None:
    """q, k, v as views of one tensor; the layout with heads first; h and its gradient of layout of v."""
    q, k, v, i, f = inputs = mlstm_inputs(20, batch_size=1, dtype=HIGH)
    fused = torch.cat([q, k, v], -1).requires_grad_()
    expected = outcome(kernels, inputs, upstream=("h",), chunk_size=16)
    views = fused.split([16, 16, 24], -1)
    h = mlstm(*views, i, f, chunk_size=16, backend="triton")
    assert torch.equal(h, expected["h"])
    heads_first = [x.transpose(1, 2) for x in (*views, i, f)]
    swapped = mlstm(*heads_first, chunk_size=16, backend="triton", layout="bhtd")
    assert torch.equal(swapped.transpose(1, 2), h)
    weights = torch.randn(h.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * h.double()).sum(), fused)
    assert torch.equal(gradient, torch.cat([expected[name] for name in ("dq", "dk", "dv")], -1))


def test_expanded_tensors() -> None:
    """k and v shared by all heads, and the gradient of a sum: strides of zero."""
    q, k, v, i, f = (x.requires_grad_() for x in mlstm_inputs(20, dtype=HIGH))
    shared = [q, k[:, :, :1].expand_as(k), v[:, :, :1].expand_as(v), i, f]
    h = mlstm(*shared, chunk_size=16, backend="triton")
    expected, _ = mlstm_oracle(*shared)
    assert relative_error(h.detach(), expected.detach()) < LIMIT
    results = [torch.autograd.grad(x.sum(), (q, k, v, i, f)) for x in (h, expected)]
    for found, reference in zip(*results, strict=True):
        assert relative_error(found, reference) < LIMIT


@settings(max_examples=4)
@given(
    context_length=st.integers(2, 40),
    share=st.floats(0.01, 0.99),
    regime=st.sampled_from(["usual", "extreme", "soft cap"]),
    gate=st.sampled_from(["exponential", "sigmoid"]),
    seed=st.integers(0, 99),
)
def test_a_sequence_in_two_parts(context_length: int, share: float, regime: str, gate: str, seed: int) -> None:
    inputs = mlstm_inputs(context_length, batch_size=1, n_heads=1, regime=regime, dtype=HIGH, seed=seed)
    options = {"chunk_size": 16, "gate": gate}
    whole, last = kernels(*inputs, **options)
    split = min(context_length - 1, max(1, round(share * context_length)))
    first, state = kernels(*(x[:, :split] for x in inputs), **options)
    second, after = kernels(*(x[:, split:] for x in inputs), initial_state=state, **options)
    # chunks begin elsewhere: float32 rounds otherwise
    assert relative_error(torch.cat([first, second], 1), whole) < LIMIT
    for found, expected in zip(after, last, strict=True):
        assert relative_error(found, expected) < LIMIT


@settings(max_examples=4)
@given(shift=st.floats(-20, 20), gate=st.sampled_from(["exponential", "sigmoid"]), seed=st.integers(0, 99))
def test_only_the_unscaled_state_matters(shift: float, gate: str, seed: int) -> None:
    """exp(m)·C and exp(m)·n are the memory: m larger and C, n smaller by the same factor change nothing."""
    inputs = mlstm_inputs(20, batch_size=1, n_heads=1, dtype=HIGH, seed=seed)
    C, n, m = mlstm_state(1, 1, dtype=HIGH, seed=seed)
    factor = torch.tensor(-shift).exp()
    results = [
        kernels(*inputs, initial_state=state, chunk_size=16, gate=gate)
        for state in (MLSTMState(C, n, m), MLSTMState(factor * C, factor * n, m + shift))
    ]
    (h, state), (shifted_h, shifted) = results
    assert relative_error(shifted_h, h) < LIMIT
    scale = (shifted.m - state.m).exp()
    assert relative_error(scale[..., None, None] * shifted.C, state.C) < LIMIT
    assert relative_error(scale[..., None] * shifted.n, state.n) < LIMIT
