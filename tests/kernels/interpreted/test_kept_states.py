"""States that the forward pass keeps: which, how they lie, and that gradients are those of states computed again."""

from typing import Any

import pytest
import torch
from mlstm_inputs import mlstm_inputs, mlstm_state, relative_error

from companion.kernels import mlstm
from companion.kernels.mlstm import configs, launch, launch_backward, launch_fused, operators
from companion.kernels.mlstm.problem import Problem

HIGH, BRAIN = torch.float32, torch.bfloat16
#: Blocks of neither width are full, the last chunk of a sequence is not either, one of three tiles has one token.
SIZES = {"batch_size": 2, "n_heads": 2, "d_qk": 40, "d_hv": 72}
LENGTH, CHUNK, CHUNKS = 65, 32, 6
ROUNDING = 2.0**-7


def operands(with_state: bool = True, dtype: torch.dtype = BRAIN) -> tuple[Any, ...]:
    """q, k, v, i, f and the initial state, or none."""
    inputs = mlstm_inputs(LENGTH, dtype=dtype, gate_dtype=HIGH, **SIZES)
    return (*inputs, *(mlstm_state(dtype=HIGH, **SIZES) if with_state else (None,) * 3))


def forward(*given: Any, keep: bool = True, bounds: torch.Tensor | None = None) -> operators.Results:
    with torch.no_grad():
        found = torch.ops.companion.mlstm_forward(*given, bounds, CHUNK, False, True, True, keep)
    return operators.Results.of(found, return_state=True)


def recomputed(*given: Any) -> torch.Tensor:
    """States at the start of every chunk as the backward pass computes them, turned."""
    q, k, v, _, _, C_0, _, _ = given
    p = Problem.of(q, v, None, CHUNK, False)
    saved = launch.saved_views(p, forward(*given).saved)
    return launch.states(p, k, v, C_0, saved.vec_write, saved.sca_keep).transpose(-1, -2)


def gradients(given: tuple[Any, ...], states: torch.Tensor | None, saved: torch.Tensor, dh: torch.Tensor) -> Any:
    with torch.no_grad():
        return torch.ops.companion.mlstm_backward(dh, None, None, saved, states, *given, None, CHUNK, False, True)


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("described", [False, True], ids=["stores", "descriptor"])
@pytest.mark.parametrize("weighed", ["k", "v"])
def test_states_of_one_kernel(
    with_state: bool, pieces: int, described: bool, weighed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the other kernels but for rounding; the first of every sequence is the initial state."""
    monkeypatch.setattr(launch_fused, "segments", lambda *sizes: pieces)
    monkeypatch.setattr(launch_fused, "DESCRIBED_ABOVE", 0 if described else 512)
    monkeypatch.setattr(launch_fused, "WEIGHED_UP_TO", 0 if weighed == "k" else 512)
    given = operands(with_state)
    states = forward(*given).states
    assert states is not None
    assert (states.shape, states.dtype) == ((CHUNKS, 2, 72, 40), BRAIN)
    assert relative_error(states, recomputed(*given)) < ROUNDING
    first = torch.zeros(2, 2, 40, 72) if given[5] is None else given[5]
    assert relative_error(states[:: CHUNKS // 2], first.transpose(-1, -2)) <= (ROUNDING if with_state else 0)


def test_states_of_two_kernels() -> None:
    """The same numbers as those computed again, in the other layout, and so the same gradients, bit by bit."""
    given = operands()
    with configs.forced(outputs=0):
        h, saved, _, states = forward(*given)
        other, _, _, none = forward(*given, keep=False)
    assert torch.equal(states, recomputed(*given))
    assert torch.equal(h, other)
    assert none is None
    dh = torch.randn(h.shape, generator=torch.Generator().manual_seed(1)).to(BRAIN)
    kept, again = (gradients(given, x, saved, dh) for x in (states, none))
    for found, expected in zip(kept, again, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("upstream", ["h", "C"])
def test_gradients_with_and_without(upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [x.requires_grad_() for x in operands()[:5]]
    computed = []
    monkeypatch.setattr(
        launch_backward, "states", lambda *arguments: computed.append(launch.states(*arguments)) or computed[-1]
    )
    results = []
    for share in (1.0, 0.0):
        monkeypatch.setattr(launch_fused, "KEPT_SHARE", share)
        h, state = mlstm(*given, chunk_size=CHUNK, backend="triton", return_state=True)
        results.append(torch.autograd.grad((h if upstream == "h" else state.C).float().square().sum(), given))
        assert len(computed) == (share == 0), "states are computed again only where none are kept"
    for name, found, expected in zip("qkvif", *results, strict=True):
        assert relative_error(found, expected) < 2 * ROUNDING, name
        assert found.norm() > 0 or (upstream == "C" and name == "q")


def watch(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor | None]:
    """The states of every forward pass from now on."""
    kept: list[torch.Tensor | None] = []
    new = operators._new_results

    def watched(*arguments: Any) -> list[torch.Tensor]:
        results = new(*arguments)
        kept.append(operators.Results.of(results, return_state=False).states)
        return results

    monkeypatch.setattr(operators, "_new_results", watched)
    return kept


@pytest.mark.parametrize("reason", ["no gradient", "packed", "float32", "short chunks"])
def test_where_none_are_kept(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = watch(monkeypatch)
    given = operands(with_state=False, dtype=HIGH if reason == "float32" else BRAIN)[:5]
    q, *rest = [x[:1] for x in given]
    size = 16 if reason == "short chunks" else CHUNK
    bounds = torch.tensor([0, 20, LENGTH]) if reason == "packed" else None
    mlstm(q, *rest, chunk_size=size, backend="triton", cu_seqlens=bounds)
    q.requires_grad_(reason != "no gradient")
    mlstm(q, *rest, chunk_size=size, backend="triton", cu_seqlens=bounds)
    with torch.no_grad():
        mlstm(q, *rest, chunk_size=size, backend="triton", cu_seqlens=bounds)
    assert kept == [None] * 3


def test_where_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as one of the inputs needs a gradient, be it the initial state alone."""
    kept = watch(monkeypatch)
    *inputs, _, _, _ = operands()
    state = mlstm_state(dtype=HIGH, **SIZES)
    mlstm(*inputs, chunk_size=CHUNK, backend="triton", initial_state=state._replace(C=state.C.requires_grad_()))
    assert [x if x is None else x.shape for x in kept] == [(CHUNKS, 2, 72, 40)]
