"""The plain-torch forms against the float64 oracle: outputs, states, gradients, in every dtype and regime of gates."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlstm_inputs import REGIMES, mlstm_inputs, mlstm_state, relative_error

from companion.kernels import MLSTMState
from companion.kernels.mlstm.oracle import mlstm_oracle
from companion.kernels.mlstm.torch_forms import chunkwise, parallel, recurrent, recurrent_step

FORMS = {
    "parallel": parallel,
    "recurrent": recurrent,
    **{f"chunkwise {size}": partial(chunkwise, chunk_size=size) for size in (1, 16, 64, 200)},
}
LENGTHS = (1, 15, 63, 64, 100)
OUTPUTS = ("h", "C", "n", "m")
GRADIENTS = ("dq", "dk", "dv", "di", "df", "dC", "dn", "dm")


def upstream(context_length: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Gradients that come from above to h, C and n."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((2, context_length, 2, 24), (2, 2, 16, 24), (2, 2, 16))
    h, C, n = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [h.to(dtype).double(), C, n]


def evaluate(
    form: Callable[..., Any],
    inputs: Sequence[torch.Tensor],
    state: Sequence[torch.Tensor],
    above: Sequence[torch.Tensor],
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Outputs, final state, and the gradients of what comes from above in inputs and initial state; in float64."""
    leaves = [x.detach().clone().requires_grad_() for x in (*inputs, *state)]
    h, last = form(*leaves[:5], initial_state=MLSTMState(*leaves[5:]), **options)
    loss = sum((x.double() * g).sum() for x, g in zip((h, last.C, last.n), above, strict=True))
    gradients = torch.autograd.grad(loss, leaves)
    return {name: x.detach().double() for name, x in zip((*OUTPUTS, *GRADIENTS), (h, *last, *gradients), strict=True)}


def scale(results: dict[str, torch.Tensor], name: str) -> float:
    """What rounding errors are relative to.

    Outputs: their own norm, at least one per element for m, whose absolute error is the relative one of the memory.
    Gradients: the norm of all together, since one can be the small difference of large terms (that of a closed forget
    gate, or of q where the normalizer cancels it).
    """
    names = GRADIENTS if name in GRADIENTS else (name,)
    norm = float(torch.cat([results[other].flatten() for other in names]).norm())
    return max(norm, results[name].numel() ** 0.5) if name == "m" else norm


@cache
def exactly(regime: str, context_length: int, gate: str) -> dict[str, torch.Tensor]:
    """What the oracle finds for the inputs of `test_the_formulas_in_float64`."""
    inputs = mlstm_inputs(context_length, regime=regime)
    return evaluate(mlstm_oracle, inputs, mlstm_state(), upstream(context_length), gate=gate)


@pytest.mark.parametrize("gate", ["exponential", "sigmoid"])
@pytest.mark.parametrize("form", FORMS)
def test_the_formulas_in_float64(form: str, gate: str) -> None:
    """To rounding: the forms differ from the oracle in the order of operations only."""
    for regime in REGIMES:
        for context_length in LENGTHS:
            inputs, state, above = mlstm_inputs(context_length, regime=regime), mlstm_state(), upstream(context_length)
            expected = exactly(regime, context_length, gate)
            found = evaluate(FORMS[form], inputs, state, above, gate=gate)
            for name, reference in expected.items():
                error = float((found[name] - reference).norm())
                # soft cap and extreme: normalizers that nearly cancel lose some of float64's 16 digits in every form
                bound = 1e-9 * float(reference.norm()) + 1e-13 * scale(expected, name)
                assert error <= bound, (regime, context_length, name, error, bound)


def rounded_once_more(
    inputs: Sequence[torch.Tensor],
    state: Sequence[torch.Tensor],
    above: Sequence[torch.Tensor],
    dtype: torch.dtype,
    generator: torch.Generator,
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """The same problem with everything moved by one unit of rounding, up or down at random.

    q, k, v, C and the gradient of h by one of `dtype`, in which they are multiplied. Sums of log f over a chunk, at
    most 64·|f̃| here, are rounded in float32 and subtracted from ĩ: both gates move by as much.
    """

    def signs(x: torch.Tensor) -> torch.Tensor:
        return 2.0 * torch.randint(0, 2, x.shape, generator=generator) - 1

    q, k, v, i, f = inputs
    unit, fine = torch.finfo(dtype).eps, torch.finfo(torch.float32).eps
    q, k, v, C, h = (x * (1 + unit * signs(x)) for x in (q, k, v, state[0], above[0]))
    step = fine * 64 * f.abs().max()
    return [q, k, v, i + step * signs(i), f + step * signs(f)], [C, *state[1:]], [h, *above[1:]]


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_no_less_exact_than_the_inputs(dtype: torch.dtype, regime: str) -> None:
    """An error of at most four times what rounding the inputs once more does to the exact result.

    That is as good as it gets, and needs no tolerance picked by hand: where h is ill-conditioned (a normalizer that
    nearly cancels while exp(−m) is small, at the soft cap) any computation in that dtype errs, and the bound says how
    much.
    """
    for context_length in LENGTHS:
        inputs = mlstm_inputs(context_length, regime=regime, dtype=dtype, gate_dtype=torch.float32)
        state, above = mlstm_state(dtype=torch.float32), upstream(context_length, dtype)
        expected, *moved = _exact_and_moved(inputs, state, above, dtype)
        # near the soft cap the gradients of q and k themselves pass float16's largest number
        names = OUTPUTS if (dtype, regime) == (torch.float16, "soft cap") else (*OUTPUTS, *GRADIENTS)
        for form in ("chunkwise 64", "parallel", "recurrent"):
            found = evaluate(FORMS[form], inputs, state, above)
            for name in names:
                assert found[name].isfinite().all(), (form, context_length, name)
                error = float((found[name] - expected[name]).norm())
                noise = max(float((other[name] - expected[name]).norm()) for other in moved)
                bound = 4 * (noise + torch.finfo(dtype).eps * scale(expected, name))
                assert error <= bound, (form, context_length, name, error, bound)


def _exact_and_moved(
    inputs: Sequence[torch.Tensor], state: Sequence[torch.Tensor], above: Sequence[torch.Tensor], dtype: torch.dtype
) -> list[dict[str, torch.Tensor]]:
    """The exact results, and those of three problems moved by rounding, from one call with four times the batch."""
    exact = [x.double() for x in inputs], [x.double() for x in state], list(above)
    generator = torch.Generator().manual_seed(0)
    problems = [exact, *(rounded_once_more(*exact, dtype, generator) for _ in range(3))]
    stacked = [[torch.cat(x) for x in zip(*group, strict=True)] for group in zip(*problems, strict=True)]
    results = evaluate(mlstm_oracle, *stacked)
    return [{name: x.chunk(4)[number] for name, x in results.items()} for number in range(4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_dtypes_of_outputs_and_states(dtype: torch.dtype) -> None:
    inputs, high = mlstm_inputs(20, dtype=dtype), torch.promote_types(dtype, torch.float32)
    for form in FORMS.values():
        h, state = form(*inputs)
        assert h.dtype == dtype
        assert {x.dtype for x in state} == {high}
    before = mlstm_state(dtype=torch.float32)._replace(C=mlstm_state().C.bfloat16())
    h, state = recurrent_step(*(x[:, 0] for x in inputs), before)
    assert (h.dtype, state.C.dtype, state.n.dtype) == (dtype, torch.bfloat16, torch.float32)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=5)
@given(data=st.data())
def test_a_sequence_in_two_parts(form: str, data: st.DataObject) -> None:
    """Any split, the state passed on: the same outputs, final state and gradients."""
    context_length = data.draw(st.integers(2, 90))
    split = data.draw(st.integers(1, context_length - 1))
    inputs = mlstm_inputs(context_length, regime=data.draw(st.sampled_from(["usual", "open", "closed"])))

    def in_two(*x: torch.Tensor, initial_state: MLSTMState) -> tuple[torch.Tensor, MLSTMState]:
        first, between = FORMS[form](*(part[:, :split] for part in x), initial_state=initial_state)
        second, last = FORMS[form](*(part[:, split:] for part in x), initial_state=between)
        return torch.cat([first, second], dim=1), last

    state, above = mlstm_state(), upstream(context_length)
    whole, parts = (evaluate(f, inputs, state, above) for f in (FORMS[form], in_two))
    for name, expected in whole.items():
        assert float((parts[name] - expected).norm()) <= 1e-9 * float(expected.norm()) + 1e-13 * scale(whole, name), (
            name
        )


@settings(max_examples=25)
@given(
    context_length=st.integers(1, 70),
    chunk_size=st.integers(1, 80),
    d_qk=st.integers(1, 20),
    d_hv=st.integers(1, 20),
    n_heads=st.integers(1, 3),
    batch_size=st.integers(1, 3),
)
def test_any_shape(context_length: int, chunk_size: int, d_qk: int, d_hv: int, n_heads: int, batch_size: int) -> None:
    sizes = {"batch_size": batch_size, "n_heads": n_heads, "d_qk": d_qk, "d_hv": d_hv}
    inputs = mlstm_inputs(context_length, **sizes)
    expected, expected_state = mlstm_oracle(*inputs)
    h, state = chunkwise(*inputs, chunk_size=chunk_size)
    assert h.shape == (batch_size, context_length, n_heads, d_hv)
    assert relative_error(h, expected) < 1e-9
    for found, reference in zip(state, expected_state, strict=True):
        assert found.shape == reference.shape
        assert relative_error(found, reference) < 1e-10


def test_no_token_sees_a_later_one() -> None:
    """Outputs up to a token are the same, to the bit, whatever comes after: NaN included."""
    inputs = mlstm_inputs(50)
    later = [x.clone() for x in inputs]
    for x in later[:3]:
        x[:, 32:] = torch.nan
    for form in ("recurrent", "chunkwise 1", "chunkwise 16"):
        h, spoiled = FORMS[form](*inputs)[0], FORMS[form](*later)[0]
        assert torch.equal(h[:, :32], spoiled[:, :32]), form
        assert spoiled[:, 32:].isnan().all(), form
