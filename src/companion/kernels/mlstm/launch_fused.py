"""Launches `triton_fused`, states and outputs in one kernel, where a forward pass is one for it."""

from functools import cache
from typing import NamedTuple

import torch

from companion.kernels.common import device
from companion.kernels.common.device import Config
from companion.kernels.common.host import INTERPRETED, cdiv, strides
from companion.kernels.common.replay import with_memory
from companion.kernels.mlstm import configs, triton_fused
from companion.kernels.mlstm.configs import TILE
from companion.kernels.mlstm.problem import Problem

Tensor = torch.Tensor
#: Tiles of a segment at least: fewer take as long as loading the states of the segments before.
LEAST_TILES = 8
#: Bytes that states kept for the backward pass may have, as a share of those of q, k, v and h.
KEPT_SHARE = 1.0
#: d_qk above which they are written through a descriptor: on an H200 that takes a forward pass of 8 heads of 256/512
#: from 1.68 to 1.43 ms, and one of 16 heads of 128/256 from 1.10 to 1.26.
DESCRIBED_ABOVE = 128
#: d_qk up to which tokens are weighed in registers, as they are written. On an H200 that takes `gate_weights`, which
#: then writes no keys, from 0.18 to 0.09 ms at 32 heads of 64/128; at 128/256 a state leaves no registers for it (0.84
#: ms against 0.66 + 0.10).
WEIGHED_UP_TO = 64
#: Arguments of kernels that look their chunk up.
_OF_CHUNKS = ("cu_seqlens", "chunk_seq", "chunk_start", "PACKED")


class Tiles(NamedTuple):
    """What `triton_gates.gate_weights` leaves for a state carried from tile to tile.

    Weights of the state that comes, (H, all tokens), of what a tile keeps of it, (H, all chunks, L / TILE), and those
    with which a token is written, (H, all tokens), or k with these weights, as k.
    """

    carried: Tensor
    keep: Tensor
    update: Tensor | None
    keys: Tensor | None

    @classmethod
    def of(cls, p: Problem, k: Tensor, tile: int) -> "Tiles":
        """Memory for them."""
        carried, keep = p.empty(p.n_heads, p.num_tokens), p.empty(p.n_heads, p.num_chunks, p.chunk_size // tile)
        if p.d_qk <= WEIGHED_UP_TO and _describable(k):
            return cls(carried, keep, p.empty(p.n_heads, p.num_tokens), None)
        return cls(carried, keep, None, torch.empty(k.shape, dtype=k.dtype, device=k.device))


def pays_to_keep(d_qk: int, d_hv: int, context_length: int, chunk_size: int) -> bool:
    """Whether the states at the start of every chunk are few enough to keep them for the backward pass.

    For a token and head they are d_qk·d_hv/L numbers, where q, k, v and h, which autograd keeps or a model does, are
    2·d_qk + 2·d_hv: at most twice the memory, then, for the seventh of the backward pass that computes them again. The
    chunk sizes that are chosen where none is named keep: 1,024 against 1,536 at 256/512, 128 against 384 at 64/128.
    """
    return d_qk * d_hv <= KEPT_SHARE * 2 * (d_qk + d_hv) * min(chunk_size, context_length)


def can_be_one(q: Tensor, v: Tensor, chunk_size: int) -> bool:
    """Whether shapes and dtype are such that states and outputs may be one kernel; fake tensors know no more."""
    sizes = {"d_qk": int(q.shape[3]), "d_hv": int(v.shape[3]), "chunk_size": chunk_size, "dtype": q.dtype}
    return bool(configs.candidates("states_and_outputs", **sizes))


def tile_of(p: Problem, *tensors: Tensor) -> int:
    """`TILE`, or 0 where states and outputs are two kernels.

    One needs the instructions of Hopper, q, v and h (`tensors`) in bfloat16 that a descriptor can describe (16 bytes
    from one token, head and sequence to the next, or a multiple), and a state that fits the registers. Packed sequences
    are for two: a program that walks along the longest of them would be alone at the end. So is every call where a
    candidate of one of the two is asked for.
    """
    if configs.is_forced("outputs") or configs.is_forced("states") or p.table or not all(map(_describable, tensors)):
        return 0
    if not (device.is_hopper(p.device) or INTERPRETED):
        return 0
    sizes = {"d_qk": p.d_qk, "d_hv": p.d_hv, "chunk_size": p.chunk_size, "dtype": p.dtype}
    return TILE if configs.candidates("states_and_outputs", **sizes) else 0


def _describable(x: Tensor) -> bool:
    near = (x.stride(axis) * x.element_size() for axis in range(3))
    return x.data_ptr() % 16 == 0 and x.stride(1) > 0 and not any(size % 16 for size in near)


@cache
def segments(programs: int, slots: int, tiles: int) -> int:
    """Into how many segments to cut every sequence of a number of tiles, so that the slots of a GPU are busy.

    With one segment there are `programs`, which walk along whole sequences. Otherwise the states at the end of every
    segment but the last are found first, which takes half as long per tile. What counts is rounds of programs times
    their length.
    """

    def effort(number: int) -> float:
        before = -(-programs * (number - 1) // slots) / 2
        return (-(-programs * number // slots) + before) / number

    return min(range(1, max(1, min(16, tiles // LEAST_TILES)) + 1), key=effort)


def states_and_outputs(
    p: Problem, q: Tensor, k: Tensor, v: Tensor, C_0: Tensor | None, tiles: Tiles, vec_scale: Tensor, mat_S: Tensor,
    h: Tensor, C_T: Tensor | None, mat_C: Tensor | None,
) -> None:  # fmt: skip
    """Writes h and, where they are wanted, C after the last token of every sequence (B, H, d_qk, d_hv) and at the start
    of every chunk (all chunks, H, d_hv, d_qk).
    """
    num_tiles = cdiv(p.context_length, TILE)
    keys = k if tiles.keys is None else tiles.keys
    places = {name: x for name, x in p.places_of("D_QK", "D_HV").items() if name not in _OF_CHUNKS}

    def attempt(config: Config) -> None:
        programs = cdiv(p.d_hv, config["BLOCK_V"]) * p.num_seqs * p.n_heads
        number = segments(programs, device.multiprocessors(p.device) * 8 // config.num_warps, num_tiles)
        each = cdiv(num_tiles, number)
        number = cdiv(num_tiles, each)
        common = {**places, "num_seqs": p.num_seqs, "tiles_per_segment": each, "TILE": TILE}
        common |= {**p.products, **config.constants}
        seg_C = seg_keep = None
        if number > 1:
            seg_C = p.empty(number - 1, p.num_seqs, p.n_heads, p.d_hv, p.d_qk)
            seg_keep = p.empty(number - 1, p.num_seqs, p.n_heads)
            p.launch(
                triton_fused.segment_states, (programs * (number - 1),), keys, v, *strides(keys, v),
                tiles.update, tiles.keep, seg_C, seg_keep, **common,
            )  # fmt: skip
        p.launch(
            triton_fused.states_and_outputs, (programs * number,), q, keys, v, h, *strides(q, keys, v, h),
            C_0, seg_C, seg_keep, tiles.carried, tiles.update, vec_scale, tiles.keep, mat_S, mat_C, C_T,
            p.d_qk**-0.5, HAS_STATE=C_0 is not None, SEGMENTS=number > 1, DESCRIBED=p.d_qk > DESCRIBED_ABOVE,
            **common,
        )  # fmt: skip

    flags = C_0 is not None, mat_C is not None
    p.run("states_and_outputs", lambda config: with_memory(lambda: attempt(config)), *flags)
