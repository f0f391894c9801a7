"""Cases of the kernel checks: what they cover, that every dtype holds their numbers, and their float64 references."""

from dataclasses import replace

import pytest
import torch

from companion.benchmarks.kernels.cases import (
    CHUNK_SIZES,
    DTYPES,
    GENERAL,
    HEAD_SIZES,
    LAYOUTS,
    REGIMES,
    Case,
    all_cases,
    orthogonal_mode,
    select_cases,
)
from companion.benchmarks.kernels.inputs import gates, make_inputs
from companion.benchmarks.kernels.references import references, same_shape
from companion.errors import InputError
from companion.kernels.mlstm.oracle import mlstm_oracle
from companion.kernels.mlstm.state import MLSTMState

SMALL = [case for case in all_cases() if case.context_length * case.d_qk * case.d_hv <= 600 * 64 * 64]


def test_every_length_head_regime_layout_and_chunk_is_covered() -> None:
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert {1, 15, 63, 64, 100, 1000, 4096, 65536} <= {case.context_length for case in cases}
    assert set(HEAD_SIZES) <= {(case.d_qk, case.d_hv) for case in cases if case.configurations}
    assert set(REGIMES) == {case.regime for case in cases if case.peers and case.name.startswith("regime_")}
    assert set(LAYOUTS) == {case.layout for case in cases}
    assert {size for case in cases for size in case.chunk_sizes} == set(CHUNK_SIZES)
    packed = [case for case in cases if case.sequences]
    assert all({0, 1} <= set(case.sequences or ()) for case in packed)
    assert {case.initial_state for case in packed} == {True, False}
    assert any(case.state_gradient and not case.initial_state for case in cases)


def test_selection() -> None:
    everything = select_cases(None)
    assert not {"long", "tiny"} & {case.group for case in everything}
    assert [case.name for case in select_cases(["length_65536"])] == ["length_65536"]
    assert {case.group for case in select_cases(["packed", "tiny"])} == {"packed", "tiny"}
    with pytest.raises(InputError, match="case lenghts is not known; there are the groups lengths"):
        select_cases(["lenghts"])


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_half_precision_holds_the_inputs_exactly(case: Case) -> None:
    inputs = make_inputs(case)
    for x in (*inputs[:5], inputs.upstream[GENERAL]):
        for dtype in DTYPES:
            assert torch.equal(x.to(getattr(torch, dtype)).double(), x)
    for state in filter(None, (inputs.initial_state, inputs.state_upstream)):
        assert all(torch.equal(x.float().double(), x) for x in state)
    again = make_inputs(case)
    assert all(torch.equal(x, y) for x, y in zip(inputs[:5], again[:5], strict=True))


def test_regimes_are_what_they_say() -> None:
    def drawn(regime: str) -> tuple[torch.Tensor, torch.Tensor]:
        return gates(regime, (2, 400, 3), torch.Generator().manual_seed(0))

    found = {regime: drawn(regime) for regime in REGIMES}
    assert found["open"][1].min() > 20
    assert found["closed"][1].max() < -20
    assert found["wide"][1].min() < -29
    assert found["wide"][1].max() > 29
    assert found["inputs"][0].min() < -39
    assert found["inputs"][0].max() > 39
    assert found["input_high"][0].min() > 38
    assert found["input_low"][0].max() < -38
    for x in found["soft_cap"]:
        assert x.abs().max() > 14.99
        assert x.abs().max() <= 15
    assert found["growing"][0][:, -1].mean() > 15 > -15 > found["growing"][0][:, 0].mean()
    with pytest.raises(ValueError, match="no regime"):
        drawn("other")


def test_switching_uses_both_sides_of_the_divisor() -> None:
    case = Case(name="x", group="x", context_length=200, regime="switching")
    inputs = make_inputs(case)
    _, unit = mlstm_oracle(inputs.q, inputs.k, torch.ones_like(inputs.v[..., :1]), inputs.i, inputs.f)
    assert torch.isfinite(unit.C).all()
    sides = []
    for t in (20, 60, 120, 200):
        _, state = mlstm_oracle(*(x[:, :t] for x in inputs[:5]))
        signed = (state.n * inputs.q[:, t - 1]).sum(-1) / 64**0.5
        sides += (signed.abs() > torch.exp(-state.m)).flatten().tolist()
    assert {True, False} == set(sides)


def test_orthogonal_upstream_gradients_are_orthogonal_up_to_their_dtype() -> None:
    case = Case(name="x", group="x", context_length=40, d_hv=128, orthogonal=True)
    inputs, reference = references((case,), "cpu")["x"]
    for name in DTYPES:
        upstream = inputs.upstream[orthogonal_mode(name)]
        h = reference.outputs["h"]
        cosine = (upstream * h).sum(-1) / (upstream.norm(dim=-1) * h.norm(dim=-1))
        assert cosine.abs().max() < torch.finfo(getattr(torch, name)).eps


def test_one_batch_serves_several_cases_and_upstream_gradients() -> None:
    first = Case(name="a", group="x", context_length=150, d_qk=8, d_hv=4, orthogonal=True, initial_state=True)
    second = replace(first, name="b", regime="wide", batch_size=2, initial_state=False, state_gradient=True)
    other = replace(first, name="c", n_heads=1)
    assert [[case.name for case in group] for group in same_shape((first, other, second))] == [["a", "b"], ["c"]]
    together = references((first, second), "cpu")
    for case in (first, second):
        inputs, reference = together[case.name]
        for mode in case.modes:
            leaves = [x.clone().requires_grad_() for x in inputs[:5]]
            h, final = mlstm_oracle(*leaves, initial_state=inputs.initial_state, normalizer_gradient=mode == GENERAL)
            loss = (h * inputs.upstream[mode]).sum()
            if inputs.state_upstream is not None:
                loss = loss + sum((x * y).sum() for x, y in zip(final, inputs.state_upstream, strict=True))
            found = torch.autograd.grad(loss, leaves)
            for name, gradient in zip(("dq", "dk", "dv", "di", "df"), found, strict=True):
                torch.testing.assert_close(reference.gradients[mode][name], gradient)
            torch.testing.assert_close(reference.outputs["h"], h)
        assert ("dC0" in reference.gradients[GENERAL]) == case.initial_state


def test_packed_reference_is_one_sequence_after_another() -> None:
    case = Case(name="p", group="x", context_length=7, sequences=(3, 0, 4), d_qk=4, d_hv=2, initial_state=True)
    case = replace(case, state_gradient=True)
    inputs, reference = references((case,), "cpu")["p"]
    assert inputs.initial_state is not None
    assert inputs.state_upstream is not None
    for number, piece in ((0, slice(0, 3)), (2, slice(3, 7))):
        leaves = [x[number : number + 1].clone().requires_grad_() for x in inputs.initial_state]
        h, final = mlstm_oracle(*(x[:, piece] for x in inputs[:5]), initial_state=MLSTMState(*leaves))
        torch.testing.assert_close(reference.outputs["h"][:, piece], h)
        torch.testing.assert_close(reference.outputs["C"][number : number + 1], final.C)
        loss = (h * inputs.upstream[GENERAL][:, piece]).sum()
        loss = loss + sum((x * y[number]).sum() for x, y in zip(final, inputs.state_upstream, strict=True))
        for name, gradient in zip(("dC0", "dn0", "dm0"), torch.autograd.grad(loss, leaves), strict=True):
            torch.testing.assert_close(reference.gradients[GENERAL][name][number : number + 1], gradient)
    # nothing happens to a memory without tokens
    assert torch.equal(reference.outputs["C"][1], inputs.initial_state.C[1])
    assert torch.equal(reference.gradients[GENERAL]["dm0"][1], inputs.state_upstream.m[1])
