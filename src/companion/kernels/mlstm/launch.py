"""Launches the Triton kernels of a forward pass and of a step: allocates what they write, picks configurations."""

import math
from typing import Any, NamedTuple

import torch

from companion.kernels.common import device
from companion.kernels.common.device import Config
from companion.kernels.common.host import cdiv, power_of_2, strides
from companion.kernels.common.replay import LINE, Launch, launch_now
from companion.kernels.mlstm import configs, launch_fused, triton_forward, triton_gates, triton_normalizer, triton_step
from companion.kernels.mlstm.problem import Problem, exponent_dtype
from companion.kernels.mlstm.state import LEAST_LOG_F, LEAST_NORMALIZER

Tensor = torch.Tensor
#: Bytes of C that a step brings into the L2 cache before the kernel in front of it has ended (what memory moves in the
#: microseconds in between; far more drives out what is still needed), where C has at least so many: a smaller one is
#: read faster by its own programs (8 MB in 8 µs, fetched in 19).
FETCHED, LEAST_TO_FETCH = 10 * 2**20, 2**26
_LEAST_NORMALIZER = LEAST_NORMALIZER[torch.float32]


class Saved(NamedTuple):
    """What the forward pass keeps for the backward pass beside its inputs.

    One number per token and head, (H, all tokens), or per chunk and head, (H, all chunks), and `vec_n` at the start of
    every chunk, (all chunks, H, d_qk). All of it lies in one tensor of bytes (`saved_bytes`, `saved_views`): eight
    allocations, and as many tensors for autograd to keep, take longer than two launches.
    """

    vec_c: Tensor
    vec_r: Tensor
    vec_carried: Tensor
    vec_write: Tensor
    vec_scale: Tensor
    vec_signed: Tensor
    sca_keep: Tensor
    vec_n: Tensor


def saved_bytes(num_tokens: int, num_chunks: int, n_heads: int, d_qk: int, dtype: torch.dtype) -> int:
    """Bytes of `Saved` for q of a dtype."""
    exponents, rest = n_heads * num_tokens * exponent_dtype(dtype).itemsize, 4 * n_heads * num_tokens
    of_chunks = 4 * n_heads * num_chunks
    return 2 * _lines(exponents) + 4 * _lines(rest) + _lines(of_chunks) + _lines(of_chunks * d_qk)


def saved_views(p: Problem, memory: Tensor) -> Saved:
    """The parts of `memory`, of as many bytes as `saved_bytes` says."""
    of_tokens, of_chunks = (p.n_heads, p.num_tokens), (p.n_heads, p.num_chunks)
    shapes = [*[of_tokens] * 6, of_chunks, (p.num_chunks, p.n_heads, p.d_qk)]
    views, at = [], 0
    for shape, dtype in zip(shapes, [p.exponent_dtype] * 2 + [torch.float32] * 6, strict=True):
        used = math.prod(shape) * dtype.itemsize
        views.append(memory[at : at + used].view(dtype).view(shape))
        at += _lines(used)
    return Saved(*views)


def _lines(num_bytes: int) -> int:
    """Rounded up, so that what follows begins at a multiple of `LINE`."""
    return (num_bytes + LINE - 1) // LINE * LINE


def forward(
    p: Problem,
    inputs: tuple[Tensor, ...],
    state: tuple[Tensor, Tensor, Tensor] | None,
    h: Tensor,
    final: tuple[Tensor, Tensor, Tensor] | None,
    saved: Saved,
    kept: Tensor | None = None,
) -> None:
    """Writes h, the final state where it is wanted, and what the backward pass needs.

    `inputs` are q, k, v, ĩ, f̃; `h` is laid out in any way, as is v. `kept` (all chunks, H, d_hv, d_qk) gets the states
    at the start of every chunk.
    """
    q, k, v, i, f = inputs
    C_0, n_0, m_0 = state or (None, None, None)
    C_T, n_T, m_T = final or (None, None, None)
    tile = launch_fused.tile_of(p, q, v, h)
    gates = _gates(p, k, i, f, m_0, m_T, saved, tile)
    carry_vectors(p, gates.keys[None], n_0, saved.sca_keep, saved.vec_n, n_T)
    mat_S = p.empty(p.n_heads, p.num_tokens, tile or p.chunk_size, dtype=p.state_dtype)

    def of_pairs(config: Config) -> None:
        p.launch(
            triton_forward.scores, (p.rows(config), p.n_heads), q, k, *strides(q, k), gates.b, saved.vec_c, saved.vec_r,
            saved.vec_carried, saved.vec_n, mat_S, saved.vec_scale, saved.vec_signed, p.d_qk**-0.5,
            SIGMOID=p.sigmoid, TILE=tile, LEAST_NORMALIZER=_LEAST_NORMALIZER,
            **p.places_of("D_QK"), **p.products, **config.constants,
        )  # fmt: skip

    p.run("scores", of_pairs, tile > 0)
    if gates.tiles is not None:
        launch_fused.states_and_outputs(p, q, k, v, C_0, gates.tiles, saved.vec_scale, mat_S, h, C_T, kept)
    else:
        mat_C = states(p, k, v, C_0, saved.vec_write, saved.sca_keep, C_T, kept)
        _outputs(p, q, v, h, saved.vec_carried, mat_C, mat_S, saved.vec_scale, kept is not None)


def _outputs(
    p: Problem, q: Tensor, v: Tensor, h: Tensor, vec_carried: Tensor, mat_C: Tensor, mat_S: Tensor, vec_scale: Tensor,
    turned: bool,
) -> None:  # fmt: skip
    def attempt(config: Config) -> None:
        grid = (cdiv(p.d_hv, config["BLOCK_V"]) * p.rows(config), p.n_heads)
        p.launch(
            triton_forward.outputs, grid, q, v, h, *strides(q, v, h), vec_carried, mat_C, mat_S, vec_scale,
            p.d_qk**-0.5, TURNED=turned, **p.places, **p.products, **config.constants,
        )  # fmt: skip

    p.run("outputs", attempt, turned)


def step(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, C: Tensor, n: Tensor, m: Tensor, h: Tensor, sigmoid: bool,
    launch: Launch = launch_now,
) -> None:  # fmt: skip
    """Writes h (B, H, d_hv) of one token; C (B, H, d_qk, d_hv), n (B, H, d_qk), m (B, H) are updated, contiguous."""
    batch_size, n_heads, d_qk = q.shape
    d_hv = v.shape[-1]
    heads = batch_size * n_heads
    scalars = torch.empty(heads, 3, dtype=torch.float32, device=q.device)
    overlap = device.can_overlap(q.device)
    early = {"launch_pdl": True} if overlap else {}
    lines = FETCHED // triton_step.LINE.value if C.numel() * C.element_size() >= LEAST_TO_FETCH else 0
    launch(
        triton_step.step_scalars, (heads,), q, k, i, f, *strides(q, k, i, f, axes=2), C, n, m, scalars, d_qk**-0.5,
        n_heads, lines, D_QK=d_qk, D_HV=d_hv, BLOCK=power_of_2(d_qk), LEAST_NORMALIZER=_LEAST_NORMALIZER,
        SIGMOID=sigmoid, OVERLAP=overlap, num_warps=2, **early,
    )  # fmt: skip

    def programs(config: Config) -> int:
        # 8 warps pay (3 % at 2,048 programs) where every multiprocessor runs many of them, and cost 5 % at 512
        return cdiv(d_hv, config["BLOCK_V"]) * heads // (1 if config.num_warps < 8 else 16)

    def attempt(config: Config) -> None:
        launch(
            triton_step.step_matrix, (cdiv(d_hv, config["BLOCK_V"]) * heads,), q, k, v, h,
            *strides(q, k, v, axes=2), C, scalars, n_heads, D_QK=d_qk, D_HV=d_hv, OVERLAP=overlap,
            **early, **config.constants,
        )  # fmt: skip

    configs.run(
        "step",
        attempt,
        d_qk=d_qk,
        d_hv=d_hv,
        chunk_size=1,
        dtype=q.dtype,
        device=q.device,
        programs=programs,
        size=heads,
    )


def gate_warps(p: Problem) -> int:
    """Warps of a kernel that sums along the tokens of a chunk: one, which needs no shared memory and waits for none.

    `gate_gradients` takes 0.049 ms on an H200 where 4 warps take 0.118 (8 heads, 65,536 tokens), 0.09 against 0.22 at
    16 heads, 0.14 against 0.29 at 32 with L = 64. Longer chunks, and sums in float64, do not fit the registers of one.
    """
    return 1 if p.chunk_size * p.exponent_dtype.itemsize <= 512 else 2


class _Gates(NamedTuple):
    b: Tensor
    keys: Tensor
    tiles: launch_fused.Tiles | None


def _gates(
    p: Problem, k: Tensor, i: Tensor, f: Tensor, m_0: Tensor | None, m_T: Tensor | None, s: Saved, tile: int
) -> _Gates:
    b, w = (p.result(p.n_heads, p.num_tokens, dtype=p.exponent_dtype) for _ in range(2))
    decay, peak, m_in, m_out = (p.result(p.n_heads, p.num_chunks, dtype=p.exponent_dtype) for _ in range(4))
    places = {name: value for name, value in p.places_of().items() if name != "n_heads"}
    # Four warps, not those of `gate_warps`: with one, which sums log f in another order, n was off by 1.33 times what
    # one case of the checks allows, and with four by 0.73.
    p.launch(
        triton_gates.gate_vectors, (p.num_chunks, p.n_heads), i, f, *strides(i, f), b, s.vec_c, s.vec_r, w, decay, peak,
        LEAST_LOG_F=LEAST_LOG_F[p.exponent_dtype], SIGMOID=p.sigmoid, **places,
    )  # fmt: skip
    most = cdiv(p.context_length, p.chunk_size)
    p.launch(
        triton_gates.state_exponents, (p.num_seqs * p.n_heads,), m_0, decay, peak, m_in, m_out, m_T, most, p.num_chunks,
        p.seq_chunk, p.n_heads,
        HAS_STATE=m_0 is not None, BLOCK=min(1024, power_of_2(most, 16)), PACKED=bool(p.table),
    )  # fmt: skip
    keys = p.empty(p.num_chunks, p.n_heads, p.d_qk)
    tiles = launch_fused.Tiles.of(p, k, tile) if tile else None
    of_tiles: tuple[Any, ...] = (None,) * 5
    if tiles is not None:
        of_tiles = (
            tiles.carried,
            tiles.update,
            tiles.keep,
            tiles.keys,
            *strides(k if tiles.keys is None else tiles.keys),
        )
    p.launch(
        triton_gates.gate_weights, (p.num_chunks, p.n_heads), k, *strides(k), s.vec_c, s.vec_r, w, decay, m_in, m_out,
        s.vec_carried, s.vec_write, s.sca_keep, keys, *of_tiles, **p.places_of("D_QK"),
        BLOCK_K=min(64, power_of_2(p.d_qk)), BLOCK_T=min(128, p.chunk_size), TILE=tile,
        # one, as in `gate_warps`, has the registers for 64 × 64 keys
        num_warps=1 if p.d_qk <= 64 and p.chunk_size <= 64 else 4,
    )  # fmt: skip
    return _Gates(b, keys, tiles)


def states(
    p: Problem,
    k: Tensor,
    v: Tensor,
    C_0: Tensor | None,
    vec_write: Tensor,
    sca_keep: Tensor,
    C_T: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """C at the start of every chunk (all chunks, H, d_qk, d_hv), or turned in `kept`; writes C_T where it is wanted."""
    turned = kept is not None
    mat_C = p.empty(p.num_chunks, p.n_heads, p.d_qk, p.d_hv, dtype=p.state_dtype) if kept is None else kept

    def attempt(config: Config) -> None:
        p.launch(
            triton_forward.states, (p.walkers(config),), k, v, *strides(k, v), C_0, vec_write, sca_keep, mat_C, C_T,
            HAS_STATE=C_0 is not None, TURNED=turned, **p.places_of_sequences, **p.products, **config.constants,
        )  # fmt: skip

    p.run("states", attempt, C_0 is not None, turned, programs=p.walkers)
    return mat_C


def carry_vectors(
    p: Problem,
    changes: Tensor,
    start: Tensor | None,
    sca_keep: Tensor,
    vec_x: Tensor,
    x_T: Tensor | None,
    vec_n: Tensor | None = None,
) -> Tensor:
    """Writes n at the start of every chunk to `vec_x`, as `Saved.vec_n`, and after the last of every sequence to `x_T`.

    With `vec_n` backwards: dn at the end of every chunk and at the start of all, and returns partial sums of what
    passes through (blocks of d_qk, H, all chunks), else empty. `changes` (parts, all chunks, H, d_qk) are partial sums.
    """
    backwards, width = vec_n is not None, min(16, power_of_2(p.d_qk))
    blocks = cdiv(p.d_qk, width)
    sca_pass = p.empty(blocks if backwards else 0, p.n_heads, p.num_chunks)
    places = {name: value for name, value in p.places_of_sequences.items() if name != "D_HV"}
    most = cdiv(p.context_length, p.chunk_size)
    p.launch(
        triton_normalizer.carry_vectors, (blocks * p.num_seqs * p.n_heads,),
        changes, start, sca_keep, vec_x, x_T, vec_n, sca_pass, **places,
        PARTS=changes.shape[0], HAS_START=start is not None, BACKWARDS=backwards,
        BLOCK_K=width, BLOCK=min(64, power_of_2(most, 16)),
    )  # fmt: skip
    return sca_pass
