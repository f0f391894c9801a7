"""The step for generation; the operators as torch sees them: schema, fake tensors, autograd, compiled graphs."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mlstm_comparison import TOLERANCE, kernels
from mlstm_inputs import mlstm_inputs, mlstm_state, relative_error

from companion.kernels import MLSTMState, mlstm, mlstm_step
from companion.kernels.mlstm import configs, operators, ops
from companion.kernels.mlstm.oracle import mlstm_oracle

HIGH = torch.float32
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def steps(inputs: Any, state: MLSTMState, gate: str) -> torch.Tensor:
    """One token after another, as views of the whole; the state is that of the caller, updated."""
    outputs = []
    for t in range(inputs[0].shape[1]):
        h, after = mlstm_step(*(x[:, t] for x in inputs), state, backend="triton", gate=gate)
        assert all(new is old for new, old in zip(after, state, strict=True))
        outputs.append(h)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("gate", ["exponential", "sigmoid"])
@pytest.mark.parametrize(("dtype", "d_qk", "d_hv"), [(HIGH, 20, 36), (torch.float16, 64, 16)])
@pytest.mark.parametrize("with_state", [False, True])
def test_steps_are_the_sequence(dtype: torch.dtype, d_qk: int, d_hv: int, gate: str, with_state: bool) -> None:
    sizes = {"d_qk": d_qk, "d_hv": d_hv}
    inputs = mlstm_inputs(6, dtype=dtype, gate_dtype=HIGH, **sizes)
    before = mlstm_state(dtype=HIGH, **sizes) if with_state else MLSTMState.empty(2, 2, d_qk, d_hv)
    expected, expected_state = mlstm_oracle(*inputs, initial_state=before, gate=gate)
    whole, last = kernels(*inputs, initial_state=before, chunk_size=16, gate=gate)
    found = steps(inputs, before, gate)
    assert found.dtype == dtype
    assert relative_error(found, expected) < TOLERANCE[dtype]
    assert relative_error(found, whole) < 2 * TOLERANCE[dtype]
    for new, reference, of_sequence in zip(before, expected_state, last, strict=True):
        assert relative_error(new, reference) < TOLERANCE[HIGH]
        # the sequence rounds what it multiplies, for a single token nothing is multiplied in another dtype
        assert relative_error(new, of_sequence) < TOLERANCE[dtype]


@pytest.mark.parametrize("regime", ["open", "closed", "silent", "extreme"])
def test_steps_with_extreme_gates(regime: str) -> None:
    inputs, state = mlstm_inputs(8, batch_size=1, regime=regime, dtype=HIGH), mlstm_state(1, dtype=HIGH)
    expected, expected_state = mlstm_oracle(*inputs, initial_state=state)
    assert relative_error(steps(inputs, state, "exponential"), expected) < TOLERANCE[HIGH]
    for found, reference in zip(state, expected_state, strict=True):
        assert relative_error(found, reference) < TOLERANCE[HIGH]


def test_a_memory_in_bfloat16() -> None:
    """C is stored with 8 bits, here cut off (a GPU rounds), at each of 6 tokens; n and m are as in float32."""
    inputs = mlstm_inputs(6, dtype=HIGH)
    state = MLSTMState.empty(2, 2, 16, 24, dtype=torch.bfloat16)
    expected, expected_state = mlstm_oracle(*inputs)
    found = steps(inputs, state, "exponential")
    assert (state.C.dtype, state.n.dtype) == (torch.bfloat16, HIGH)
    assert 1e-5 < relative_error(found, expected) < 6 * 2**-7
    assert relative_error(state.C, expected_state.C) < 6 * 2**-7
    assert relative_error(state.n, expected_state.n) < TOLERANCE[HIGH]


@pytest.mark.parametrize("dtype", [HIGH, torch.float16, torch.bfloat16], ids=str)
def test_every_configuration_of_the_step(dtype: torch.dtype) -> None:
    token = [x[:, 0] for x in mlstm_inputs(1, d_qk=128, d_hv=128, dtype=dtype, gate_dtype=HIGH)]
    before = mlstm_state(d_qk=128, d_hv=128, dtype=HIGH)
    expected, _ = mlstm_oracle(*(x[:, None] for x in token), initial_state=before)
    choices = configs.candidates("step", d_qk=128, d_hv=128, chunk_size=1, dtype=dtype)
    for number in range(len(choices)):
        state = MLSTMState(*(x.clone() for x in before))
        with configs.forced(step=number):
            h, _ = mlstm_step(*token, state, backend="triton")
        assert relative_error(h, expected[:, 0]) < TOLERANCE[dtype]


@pytest.fixture
def filled_memory() -> Iterator[None]:
    """What is kept for the backward pass has gaps that nothing writes, and opcheck compares all of it."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def forward_arguments(*, packed: bool, with_state: bool, sigmoid: bool, keep: bool = False) -> tuple[Any, ...]:
    dtype = torch.bfloat16 if keep else HIGH
    inputs = [x.requires_grad_() for x in mlstm_inputs(20, batch_size=1, n_heads=1, dtype=dtype, gate_dtype=HIGH)]
    before = [x.requires_grad_() for x in mlstm_state(2 if packed else 1, n_heads=1, dtype=HIGH)]
    places = torch.tensor([0, 5, 20]) if packed else None
    return (*inputs, *(before if with_state else (None,) * 3), places, 32, sigmoid, True, with_state, keep)


@pytest.mark.parametrize(
    ("packed", "with_state", "sigmoid", "keep"),
    [(False, True, False, False), (True, False, True, False), (False, True, False, True)],
)
@pytest.mark.usefixtures("filled_memory")
def test_operator_of_the_forward_pass(packed: bool, with_state: bool, sigmoid: bool, keep: bool) -> None:
    arguments = forward_arguments(packed=packed, with_state=with_state, sigmoid=sigmoid, keep=keep)
    torch.library.opcheck(torch.ops.companion.mlstm_forward.list, arguments, test_utils=CHECKS)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.usefixtures("filled_memory")
def test_operator_of_the_backward_pass(keep: bool) -> None:
    arguments = forward_arguments(packed=False, with_state=True, sigmoid=False, keep=keep)
    with torch.no_grad():
        found = torch.ops.companion.mlstm_forward(*arguments)
        h, saved, (C, n, _), states = operators.Results.of(found, return_state=True)
        assert (states is not None) == keep
        *inputs, C_0, n_0, m_0 = (x.detach() for x in arguments[:8])
        backward = (torch.ones_like(h), C, n, saved, states, *inputs, C_0, n_0, m_0, None, *arguments[9:12])
        torch.library.opcheck(torch.ops.companion.mlstm_backward.list, backward, test_utils=CHECKS)


def test_a_second_derivative_is_refused() -> None:
    inputs = [x.requires_grad_() for x in mlstm_inputs(20, batch_size=1, n_heads=1, dtype=HIGH)]
    h = mlstm(*inputs, backend="triton", chunk_size=16)
    (dq,) = torch.autograd.grad(h.sum(), inputs[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"no second derivative; use backend='torch'"):
        dq.sum().backward()


@pytest.mark.parametrize("of_memory", [HIGH, torch.bfloat16], ids=str)
def test_operator_of_the_step(of_memory: torch.dtype) -> None:
    token, (C, n, m) = [x[:, 0] for x in mlstm_inputs(1, dtype=HIGH)], mlstm_state(dtype=HIGH)
    arguments = (*token, C.to(of_memory), n, m, False)
    torch.library.opcheck(torch.ops.companion.mlstm_step.default, arguments, test_utils=CHECKS)


@pytest.mark.parametrize("dtype", [HIGH, torch.bfloat16], ids=str)
def test_fake_tensors_have_the_shapes_and_strides_of_real_ones(dtype: torch.dtype) -> None:
    """Of inputs with strides as well: a compiled graph relies on them."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    given = mlstm_inputs(40, dtype=dtype, gate_dtype=HIGH)
    inputs = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in given]
    options = (None, None, None, None, 32, False, True, True, True)
    real = torch.ops.companion.mlstm_forward(*inputs, *options)
    with FakeTensorMode() as mode:
        copies = [mode.from_tensor(x) for x in inputs]
        fake = torch.ops.companion.mlstm_forward(*copies, *options)
    assert len(real) == (6 if dtype == torch.bfloat16 else 5)
    assert [(x.shape, x.stride(), x.dtype) for x in fake] == [(x.shape, x.stride(), x.dtype) for x in real]


@pytest.mark.parametrize(("dtype", "size"), [(HIGH, 16), (torch.bfloat16, 32)], ids=["float32", "kept states"])
def test_one_graph_of_sequences(dtype: torch.dtype, size: int) -> None:
    """No break; forward and backward as without compiling, layouts and state included."""
    given = mlstm_inputs(20, batch_size=1, n_heads=1, dtype=dtype, gate_dtype=HIGH)
    inputs, before = [x.requires_grad_() for x in given], mlstm_state(1, 1, dtype=HIGH)

    def model(*x: torch.Tensor) -> torch.Tensor:
        h, state = mlstm(*x, initial_state=before, return_state=True, backend="triton", chunk_size=size)
        heads_first = [y.transpose(1, 2) for y in x]
        other = mlstm(*heads_first, layout="bhtd", backend="triton", chunk_size=size, gate="sigmoid")
        return (2 * h + other.transpose(1, 2)).square().mean() + state.C.square().mean() + state.n.mean()

    results = []
    for call in (torch.compile(model, backend="aot_eager", fullgraph=True), model):
        loss = call(*inputs)
        results.append((loss.detach(), *torch.autograd.grad(loss, inputs)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_one_graph_of_packed_sequences() -> None:
    """As above; lengths stay on the device."""
    inputs = [x.requires_grad_() for x in mlstm_inputs(20, batch_size=1, n_heads=1, dtype=HIGH)]

    def model(places: torch.Tensor, *x: torch.Tensor) -> torch.Tensor:
        return mlstm(*x, backend="triton", chunk_size=16, cu_seqlens=places).square().mean()

    results = []
    places = torch.tensor([0, 1, 20])
    for call in (torch.compile(model, backend="aot_eager", fullgraph=True), model):
        results.append(torch.autograd.grad(call(places, *inputs), inputs))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_graph_of_a_step(backend: str) -> None:
    token, state, other = (
        [x[:, 0] for x in mlstm_inputs(1, dtype=HIGH)],
        mlstm_state(dtype=HIGH),
        mlstm_state(dtype=HIGH),
    )

    def generate(*x: torch.Tensor) -> torch.Tensor:
        h, _ = mlstm_step(*x, state, backend="triton")
        return 2 * h

    h = torch.compile(generate, backend=backend, fullgraph=True)(*token)
    expected, _ = mlstm_step(*token, other, backend="triton")
    torch.testing.assert_close(h, 2 * expected)
    for found, reference in zip(state, other, strict=True):
        torch.testing.assert_close(found, reference)
        assert not torch.equal(found, torch.zeros_like(found))


def test_a_step_on_a_state_that_a_backward_pass_needs_is_noticed() -> None:
    inputs = [x.requires_grad_() for x in mlstm_inputs(5, dtype=HIGH)]
    h, state = mlstm(*inputs, return_state=True, backend="triton", chunk_size=16)
    with torch.no_grad():
        mlstm_step(*(x[:, 0] for x in inputs), MLSTMState(*(x.detach() for x in state)), backend="triton")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.sum().backward()


def test_a_chunk_size_that_is_not_named() -> None:
    inputs = mlstm_inputs(70, batch_size=1, n_heads=1, dtype=HIGH)
    size = ops.default_chunk_size(16, HIGH)
    assert torch.equal(mlstm(*inputs, backend="triton"), mlstm(*inputs, backend="triton", chunk_size=size))
