"""When states and outputs are one kernel, and into how many segments it cuts a sequence."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed (extra 'kernels', on Linux)")

import triton

from companion.kernels.common import device, replay
from companion.kernels.mlstm import configs, launch_fused
from companion.kernels.mlstm.ops import default_chunk_size
from companion.kernels.mlstm.problem import Problem


@given(programs=st.integers(1, 3_000), slots=st.sampled_from([4, 132, 264]), tiles=st.integers(1, 4_096))
def test_segments(programs: int, slots: int, tiles: int) -> None:
    number = launch_fused.segments(programs, slots, tiles)
    assert 1 <= number <= 16
    assert number == 1 or tiles // number >= launch_fused.LEAST_TILES
    if programs >= 2 * slots:
        assert number == 1, "there is enough to do"
    if 16 * programs <= slots:
        assert number == max(1, min(16, tiles // launch_fused.LEAST_TILES)), "as many as there may be"


def test_segments_of_the_book() -> None:
    """One sequence of 65,536 tokens on an H100: 32 programs of 8 warps, or 32 of 4 warps, two per multiprocessor."""
    assert launch_fused.segments(32, 132, 2_048) == 4
    assert launch_fused.segments(32, 264, 2_048) == 8
    assert launch_fused.segments(1_024, 132, 64) == launch_fused.segments(256, 132, 256) == 1


def tile(monkeypatch: pytest.MonkeyPatch, hopper: bool = True, **changes: Any) -> int:
    """`tile_of` for q of (2, 96, 3, d_qk) and v, made by `of` (which may lay them out in other ways)."""
    wanted = {"d_qk": 128, "d_hv": 256, "chunk_size": 64, "dtype": torch.bfloat16, "of": torch.zeros, "bounds": None}
    wanted |= changes
    monkeypatch.setattr(device, "is_hopper", lambda _: hopper)
    q, v = (wanted["of"](2, 96, 3, wanted[name], dtype=wanted["dtype"]) for name in ("d_qk", "d_hv"))
    p = Problem.of(q, v, wanted["bounds"], wanted["chunk_size"], False)
    return launch_fused.tile_of(p, q, v, torch.empty_like(v))


def sliced(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(*shape[:-1], shape[-1] + 4, dtype=dtype)[..., :-4]


def shifted(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(2 * 96 * 3 * shape[-1] + 1, dtype=dtype)[1:].view(shape)


def repeated(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(shape[0], 1, *shape[2:], dtype=dtype).expand(shape)


def heads_first(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(shape[0], shape[2], shape[1], shape[3], dtype=dtype).transpose(1, 2)


def test_where_it_is_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tile(monkeypatch) == tile(monkeypatch, of=heads_first) == launch_fused.TILE
    assert tile(monkeypatch, d_qk=256, d_hv=512, chunk_size=128) == launch_fused.TILE
    assert tile(monkeypatch, d_qk=40, d_hv=24) == launch_fused.TILE


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": torch.float32},
        {"dtype": torch.float16},
        {"d_qk": 512},
        {"chunk_size": 16},
        {"d_hv": 36},
        {"of": sliced},
        {"of": shifted},
        {"of": repeated},
        {"bounds": torch.tensor([0, 50, 192])},
    ],
    ids=["float32", "float16", "wide keys", "short chunks", "odd values", "sliced", "shifted", "repeated", "packed"],
)
def test_where_it_is_two(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    assert tile(monkeypatch, **changes) == 0


def test_states_are_kept_where_they_take_no_more_than_tokens() -> None:
    """With the chunk sizes that are chosen where none is named, unless the context is shorter; not with short ones."""
    pays = launch_fused.pays_to_keep
    for d_qk, d_hv in ((64, 128), (128, 128), (128, 256), (256, 512)):
        assert pays(d_qk, d_hv, 8_192, default_chunk_size(d_qk, torch.bfloat16))
    assert not pays(256, 512, 8_192, 64)
    assert not pays(256, 512, 64, 128)
    assert pays(512, 512, 8_192, 128) == (512 * 512 <= 128 * 2 * (512 + 512))  # as many bytes as q, k, v and h


def test_two_on_other_gpus_and_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_fused, "INTERPRETED", False)
    assert tile(monkeypatch, hopper=False) == 0
    for kernel in ("states", "outputs"):
        with configs.forced(**{kernel: 0}):
            assert tile(monkeypatch) == 0
    assert tile(monkeypatch) == launch_fused.TILE


def test_the_callers_allocator_stays() -> None:
    allocation = pytest.importorskip("triton.runtime._allocation")
    mine = lambda size, alignment, stream: None  # noqa: E731
    before = allocation._allocator.get()
    seen = []
    triton.set_allocator(mine)
    try:
        replay.with_memory(lambda: seen.append(allocation._allocator.get()))
        assert allocation._allocator.get() is mine
    finally:
        triton.set_allocator(before)
    assert seen == [replay._allocate]
