"""What is compiled ahead of time is what calls launch later; nothing is compiled here."""

from collections.abc import Hashable, Iterable
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

import torch

from companion.errors import InputError
from companion.kernels.common import replay
from companion.kernels.mlstm import warm_up as work
from companion.kernels.mlstm.ops import mlstm_step_triton, mlstm_triton
from companion.kernels.mlstm.state import MLSTMState
from companion.kernels.mlstm.warm_up import Heads, warm_up

CPU = torch.device("cpu")
GATES = {"gate_vectors", "state_exponents", "gate_weights", "carry_vectors"}
FORWARD = GATES | {"scores", "states", "outputs"}
BACKWARD = {
    "pair_gradients",
    "state_gradients",
    "query_gradients",
    "key_value_gradients",
    "carry_vectors",
    "gate_gradients",
}
STEP = {"step_scalars", "step_matrix"}


class Noted:
    """In place of `replay.compile_first`: kernels that would be compiled."""

    def __init__(self) -> None:
        self.jobs: dict[Hashable, Any] = {}

    def __call__(self, calls: Iterable[work.Call], device: torch.device, report: Any = None) -> list[str]:
        self.jobs |= replay._jobs(calls, device)
        return [job.kernel.__name__ for job in self.jobs.values()]


def noted(heads: Heads, **options: Any) -> Noted:
    found = Noted()
    warm_up([heads], device=CPU, compile_first=found, **options)
    return found


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Noted:
    """Kernels that the operators would launch."""
    found = Noted()
    monkeypatch.setattr(replay, "call", lambda key, kind, device, outside, launches, *_: found([launches], device))
    return found


@pytest.mark.parametrize(
    ("passes", "names"),
    [(["forward"], FORWARD), (["backward"], BACKWARD), (["step"], STEP), (work.PASSES, FORWARD | BACKWARD | STEP)],
)
def test_passes(passes: list[str], names: set[str]) -> None:
    found = noted(Heads(2, 64, 128), passes=passes, batch_sizes=[1], context_lengths=[256])
    assert {job.kernel.__name__ for job in found.jobs.values()} == names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("together", [False, True], ids=["gates apart", "gates together"])
@pytest.mark.parametrize("start", [False, True], ids=["from nothing", "from a state"])
def test_calls_launch_what_was_compiled(dtype: torch.dtype, together: bool, start: bool, launched: Noted) -> None:
    found = noted(Heads(4, 64, 128, dtype), context_lengths=[256, 1024], batch_sizes=[1, 2], initial_state=start)
    q, k = (torch.zeros(2, 256, 4, 64, dtype=dtype, requires_grad=True) for _ in range(2))
    v = torch.zeros(2, 256, 4, 128, dtype=dtype, requires_grad=True)

    def gates(*tokens: int) -> Iterable[torch.Tensor]:
        both = torch.zeros(*tokens, 8) if together else torch.zeros(*tokens, 8, dtype=dtype)
        return both.chunk(2, -1) if together else [x.contiguous() for x in both.chunk(2, -1)]

    memory = MLSTMState(torch.zeros(2, 4, 64, 128), torch.zeros(2, 4, 64), torch.zeros(2, 4))
    state = memory if start else None
    for normalizer in (True, False):
        h, _ = mlstm_triton(q, k, v, *gates(2, 256), state, normalizer_gradient=normalizer, return_state=False)
        h.sum().backward()
    mlstm_triton(q, k, v, *gates(2, 256), state, return_state=True)
    with torch.no_grad():
        mlstm_step_triton(*(x[:, 0].contiguous() for x in (q, k, v)), *gates(2), memory)
    names = {job.kernel.__name__ for job in launched.jobs.values()}
    assert names == FORWARD | BACKWARD | STEP
    assert [launched.jobs[name] for name in launched.jobs.keys() - found.jobs.keys()] == []


def test_sizes_need_no_memory() -> None:
    found = noted(Heads(8, 512, 512), batch_sizes=[2**10], context_lengths=[2**20])
    assert len(found.jobs) > 15


def test_bad_shapes_and_passes() -> None:
    for values, words in (
        ((0, 64, 64), "n_heads: 0"),
        ((4, 8, 64), "d_qk: 8 is not from 16 to 512"),
        ((4, 64, 1024), "d_hv: 1024"),
        ((4, 64, 64, torch.float64), "float64"),
        ((4, 64, 64, torch.float32, 48), "chunk_size: 48"),
    ):
        with pytest.raises(InputError, match=words):
            Heads(*values)
    with pytest.raises(InputError, match="passes: sideways: there are forward"):
        noted(Heads(2, 64, 64), passes=["sideways"])


def test_a_gpu_for_the_kernels_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"compute capability 8\.0 or later; here torch finds none"):
        warm_up([Heads(2, 64, 64)], compile_first=Noted())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(InputError, match=r"Old GPU has 7\.5"):
        work.usable_gpu()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert work.usable_gpu() == torch.device("cuda", 1)
    monkeypatch.setattr(work, "INTERPRETED", True)
    with pytest.raises(InputError, match="TRITON_INTERPRET=1"):
        work.usable_gpu()
