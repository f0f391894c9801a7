"""On a CUDA GPU: replayed launches give the bits of ordinary ones, call after call."""

import threading

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

from companion.kernels import mlstm
from companion.kernels.common import driver, replay
from companion.kernels.mlstm import configs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def inputs(batch_size: int, length: int, n_heads: int, d_qk: int, d_hv: int, seed: int) -> list[torch.Tensor]:
    random = torch.Generator("cuda").manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(batch_size, length, n_heads, *shape, generator=random, device="cuda")

    qkv = [draw(d).bfloat16() for d in (d_qk, d_qk, d_hv)]
    return [x.requires_grad_() for x in (*qkv, draw(), draw() + 3)]


def both_passes(given: list[torch.Tensor]) -> list[torch.Tensor]:
    h = mlstm(*given, backend="triton")
    return [h, *torch.autograd.grad(h.float().square().sum(), given)]


@pytest.mark.parametrize("shape", [(2, 333, 4, 64, 128), (2, 1024, 8, 128, 256), (1, 512, 4, 256, 512)], ids=str)
def test_replays_are_ordinary_launches(shape: tuple[int, ...]) -> None:
    replay.forget()
    for seed in range(3):
        given = inputs(*shape, seed=seed)
        replayed = both_passes(given)
        with configs.forced(key_value_gradients=0):  # what is forced is never replayed
            ordinary = both_passes(given)
        assert all(torch.equal(one, other) for one, other in zip(replayed, ordinary, strict=True))
    assert len(replay._plans) == 2, "one for each pass"
    if driver.library() is not None:
        assert all(plan.by_driver is not None for plan in replay._plans.values())


def test_threads_replay_at_once() -> None:
    """Each on a stream of its own, with the same plans."""
    replay.forget()
    given = [inputs(2, 333, 4, 64, 128, seed=seed) for seed in range(2)]
    expected = [both_passes(x) for x in given]
    wrong: list[int] = []

    def work(own: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(20):
                found = both_passes(given[own])
                if not all(torch.equal(one, other) for one, other in zip(found, expected[own], strict=True)):
                    wrong.append(own)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(own,)) for own in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(replay._plans) == 2
