"""Kernels against the recurrence in float64: outputs, state, all gradients; lengths, chunks, heads, dtypes, gates."""

from typing import NamedTuple

import pytest
import torch
from mlstm_comparison import GRADIENTS, OUTPUTS, TOLERANCE, check, check_against_oracle, kernels, outcome
from mlstm_inputs import Inputs, mlstm_inputs, mlstm_state, relative_error

from companion.kernels import MLSTMState
from companion.kernels.mlstm import configs, launch_fused
from companion.kernels.mlstm.oracle import mlstm_oracle
from companion.kernels.mlstm.torch_forms import chunkwise

HIGH, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16


class Case(NamedTuple):
    """A shape, and where the gradient comes from. One head unless it says so: each takes as long again."""

    context_length: int
    chunk_size: int
    d_qk: int
    d_hv: int
    gate: str = "exponential"
    with_state: bool = False
    upstream: tuple[str, ...] = OUTPUTS
    batch_size: int = 1
    n_heads: int = 1

    def inputs(self, dtype: torch.dtype, **options: str) -> tuple[Inputs, MLSTMState | None]:
        """q, k, v, i, f with gates in float32, and the initial state."""
        sizes = {"batch_size": self.batch_size, "n_heads": self.n_heads, "d_qk": self.d_qk, "d_hv": self.d_hv}
        inputs = mlstm_inputs(self.context_length, dtype=dtype, gate_dtype=torch.float32, **sizes, **options)
        return inputs, mlstm_state(dtype=torch.float32, **sizes) if self.with_state else None


CASES = (
    Case(1, 16, 16, 16, with_state=True, n_heads=2),
    Case(1, 64, 20, 36, "sigmoid", upstream=("h",), batch_size=3),
    Case(15, 16, 64, 64, with_state=True, upstream=("C", "n", "m")),
    Case(15, 64, 16, 20, "sigmoid", with_state=True, upstream=("h", "n")),
    Case(16, 16, 16, 24, upstream=("h",)),
    Case(16, 32, 36, 20, with_state=True, upstream=("C",), n_heads=2),
    Case(33, 16, 20, 36, with_state=True, batch_size=2, n_heads=2),
    Case(33, 32, 64, 16, "sigmoid", with_state=True),
    Case(33, 64, 64, 64, upstream=("m",)),
    Case(100, 16, 36, 20, with_state=True, upstream=("h",)),
    Case(100, 32, 20, 36),
    Case(100, 64, 16, 64, "sigmoid", upstream=("C", "n", "m")),
    Case(100, 64, 64, 20, with_state=True, upstream=("h", "m"), n_heads=3),
)
IN_ALL_DTYPES = (CASES[0], CASES[6], CASES[7], CASES[10])


@pytest.mark.parametrize(
    ("dtype", "case"),
    [*((HIGH, case) for case in CASES), *((dtype, case) for dtype in (HALF, BRAIN) for case in IN_ALL_DTYPES)],
    ids=str,
)
def test_outputs_states_and_gradients(dtype: torch.dtype, case: Case) -> None:
    inputs, before = case.inputs(dtype)
    options = {"chunk_size": case.chunk_size, "gate": case.gate}
    found = check_against_oracle(inputs, before, case.upstream, **options)
    assert [found[name].dtype for name in OUTPUTS] == [dtype, HIGH, HIGH, HIGH]
    assert [found[name].dtype for name in GRADIENTS[:5]] == [dtype] * 3 + [HIGH] * 2


def test_gates_of_another_dtype_than_q() -> None:
    """Gates in bfloat16 beside float32 tokens, and the other way round; gradients in the dtype of each."""
    inputs = mlstm_inputs(20, batch_size=1, dtype=HIGH, gate_dtype=BRAIN)
    found = outcome(kernels, inputs, chunk_size=16)
    expected = outcome(mlstm_oracle, inputs)
    assert found["di"].dtype == found["df"].dtype == BRAIN
    for name in (*OUTPUTS, "dq", "dk", "dv"):
        assert relative_error(found[name], expected[name]) < TOLERANCE[HIGH]
    for name in ("di", "df"):
        assert relative_error(found[name], expected[name]) < TOLERANCE[BRAIN]


@pytest.mark.parametrize("regime", ["open", "closed", "silent", "soft cap", "extreme"])
def test_extreme_gates(regime: str) -> None:
    """Forget gates from −30 to 30, input gates to ±40: finite and right."""
    inputs, before = Case(50, 16, 16, 24, with_state=True, n_heads=2).inputs(HIGH, regime=regime)
    check_against_oracle(inputs, before, chunk_size=16)


def test_gradient_of_closed_forget_gates() -> None:
    """df̃ of −30 < f̃ < −20 is e⁻²⁰ to e⁻³⁰ times the rest: right to 1e-6 all the same, and for most tokens singly.

    The form in common use, a sum of q·dq − k·dk over all later tokens, leaves nothing of it in float32.
    """
    inputs, _ = Case(64, 16, 16, 24).inputs(HIGH, regime="closed")
    found = outcome(kernels, inputs, None, ("h",), chunk_size=16)
    expected = outcome(mlstm_oracle, inputs, None, ("h",))
    assert 0 < float(expected["df"].abs().max()) < 1e-7
    assert relative_error(found["df"], expected["df"]) < 2e-6
    error = (found["df"].double() - expected["df"]).abs()[:, 1:] / expected["df"].abs()[:, 1:]  # the first has none
    assert float(error.quantile(0.75)) < 1e-3
    q, k, *_, f = inputs
    row_sums, column_sums = ((x * found[name]).sum(-1) for x, name in ((q, "dq"), (k, "dk")))
    summed = (row_sums - column_sums).flip(1).cumsum(1).flip(1) * torch.sigmoid(-f)
    assert relative_error(summed, expected["df"]) > 1


def test_open_forget_gates_over_many_chunks() -> None:
    """1 − σ(f̃) is 1e-9 to 1e-13 here: the decay of many tokens and its gradient must not be lost in 1."""
    inputs, before = Case(200, 64, 16, 16, with_state=True).inputs(HIGH, regime="open")
    check_against_oracle(inputs, before, chunk_size=64)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_zeros_give_finite_results(name: str) -> None:
    inputs, before = Case(20, 16, 16, 16, with_state=True).inputs(HIGH)
    zeroed = [torch.zeros_like(x) if label == name else x for label, x in zip("qkvif", inputs, strict=True)]
    found = check_against_oracle(zeroed, before, chunk_size=16)
    assert bool((found["h"] == 0).all()) == (name == "q")


def test_an_empty_state_is_no_state() -> None:
    inputs, _ = Case(20, 16, 16, 24).inputs(HIGH)
    found = outcome(kernels, inputs, MLSTMState.empty(1, 1, 16, 24), chunk_size=16)
    for name, expected in outcome(kernels, inputs, chunk_size=16).items():
        assert torch.equal(found[name], expected), name
    assert all(found[name].isfinite().all() for name in ("dC0", "dn0", "dm0"))


@pytest.mark.parametrize("upstream", [("h",), OUTPUTS])
def test_a_constant_normalizer(upstream: tuple[str, ...]) -> None:
    """`normalizer_gradient=False` against the same in plain torch in float64; far from the full gradient."""
    inputs, before = Case(40, 16, 20, 36, with_state=True).inputs(HIGH)
    found = outcome(kernels, inputs, before, upstream, chunk_size=16, normalizer_gradient=False)
    exact = [x.double() for x in inputs], MLSTMState(*(x.double() for x in before or ()))
    expected = outcome(chunkwise, *exact, upstream, chunk_size=16, normalizer_gradient=False)
    check(found, expected, TOLERANCE[HIGH])
    assert relative_error(found["dq"], outcome(mlstm_oracle, *exact, upstream)["dq"]) > 0.01


def test_the_same_call_gives_the_same_bits() -> None:
    inputs, before = Case(40, 16, 20, 36, with_state=True).inputs(HALF)
    first, second = (outcome(kernels, inputs, before, chunk_size=16) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("context_length", [150, 192])
@pytest.mark.parametrize("with_state", [False, True])
def test_a_sequence_in_segments(context_length: int, with_state: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """States and outputs in one kernel: three segments of two tiles, the last one shorter or not."""
    wanted: list[int] = []
    monkeypatch.setattr(launch_fused, "segments", lambda *sizes: wanted.append(sizes[-1]) or 3)
    inputs, before = Case(context_length, 64, 16, 24, with_state=with_state, batch_size=2).inputs(BRAIN)
    with torch.no_grad():  # the backward pass knows no segments
        found, expected = (
            kernels(*inputs, initial_state=before, chunk_size=64),
            mlstm_oracle(*inputs, initial_state=before),
        )
    assert wanted == [-(-context_length // 32)]
    check(*({"h": h, **state._asdict()} for h, state in (found, expected)), TOLERANCE[BRAIN] / 2)


@pytest.mark.parametrize("dtype", [HIGH, HALF, BRAIN], ids=str)
def test_every_configuration(dtype: torch.dtype) -> None:
    """Heads so wide that no block is cut to the shape's need; pipeline stages do not exist here."""
    width = 256 if dtype == BRAIN else 64
    case = Case(70, 64, 64 if dtype != BRAIN else 128, width, with_state=True)
    inputs, before = case.inputs(dtype)
    expected = outcome(mlstm_oracle, inputs, before)
    sizes = {"d_qk": case.d_qk, "d_hv": case.d_hv, "chunk_size": case.chunk_size}
    choices = {name: configs.candidates(name, dtype=dtype, **sizes) for name in configs.KERNELS if name != "step"}
    # numbers of one candidate per block size, for every kernel; as many runs as the longest list has
    numbers = {name: list({x.blocks: at for at, x in enumerate(found)}.values()) for name, found in choices.items()}
    for turn in range(max(map(len, numbers.values()))):
        chosen = {name: own[turn % len(own)] for name, own in numbers.items() if own}
        assert ("states_and_outputs" in chosen) == (dtype == BRAIN)
        with configs.forced(**chosen):
            found = outcome(kernels, inputs, before, chunk_size=case.chunk_size)
        check(found, expected, TOLERANCE[dtype])
        if dtype == BRAIN:  # states and outputs in one kernel; the backward pass is the one above
            with configs.forced(**{name: at for name, at in chosen.items() if name not in ("states", "outputs")}):
                variables = [x.detach().requires_grad_() for x in inputs]
                h, after = kernels(*variables, initial_state=before, chunk_size=case.chunk_size)
            found = {name: x.detach() for name, x in zip(OUTPUTS, (h, *after), strict=True)}
            check(found, {name: expected[name] for name in OUTPUTS}, TOLERANCE[dtype])
