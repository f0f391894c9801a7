"""Launches the Triton kernels of a backward pass."""

from typing import NamedTuple

import torch

from companion.kernels.common.device import Config
from companion.kernels.common.host import cdiv, strides
from companion.kernels.mlstm import triton_backward, triton_gates
from companion.kernels.mlstm.launch import Saved, carry_vectors, gate_warps, states
from companion.kernels.mlstm.problem import Problem

Tensor = torch.Tensor


class _Pairs(NamedTuple):
    """What `triton_backward.pair_gradients` leaves."""

    A: Tensor
    B: Tensor
    rows: Tensor
    cols: Tensor
    diagonal: Tensor
    B_diagonal: Tensor
    A_rows: Tensor


def backward(
    p: Problem,
    dh: Tensor,
    state_gradient: tuple[Tensor, Tensor] | None,
    inputs: tuple[Tensor, ...],
    C_0: Tensor | None,
    saved: Saved,
    kept: Tensor | None,
    normalizer: bool,
    of_inputs: tuple[Tensor, ...],
    of_state: tuple[Tensor, Tensor] | None,
    of_end: Tensor | None,
) -> None:
    """Writes dq, dk, dv, dĩ, df̃ (`of_inputs`) and, where it is wanted, dC and dn of the initial state.

    `state_gradient` is that of C and n of the final state; `normalizer` says whether gradients flow through nᵀq. Where
    neither of the two is there, nothing flows through n, and dn is left as it is. Without `kept`, the states that the
    forward pass left turned, they are computed again. `of_end`: see `triton_gates.gate_gradients`.
    """
    q, k, v, i, f = inputs
    dq, dk, dv, di, df = of_inputs
    dC_0, dn_0 = of_state or (None, None)
    s, scale = saved, p.d_qk**-0.5
    normalizer = normalizer and not p.sigmoid
    with_n = normalizer or state_gradient is not None
    turned = kept is not None
    mat_C = states(p, k, v, C_0, s.vec_write, s.sca_keep) if kept is None else kept
    pairs = _pair_gradients(p, q, k, v, dh, s)
    vec_read, vec_self = _sums(p), _sums(p)
    # pairs with what δ adds to them, and s = t apart
    mat_Z = torch.empty_like(pairs.B) if normalizer else pairs.B
    vec_Z = torch.empty_like(pairs.B_diagonal) if normalizer else pairs.B_diagonal
    vec_slope = torch.empty_like(vec_self) if normalizer else None

    def of_queries(config: Config) -> Tensor:
        # what δ adds to dn: partial sums over blocks of rows
        changes = p.empty(p.chunk_size // config["BLOCK_M"] if normalizer else 0, p.num_chunks, p.n_heads, p.d_qk)
        p.launch(
            triton_backward.query_gradients, (p.rows(config), p.n_heads),
            q, k, dh, dq, *strides(q, k, dh, dq), s.vec_c, s.vec_r, s.vec_carried, s.vec_scale, s.vec_signed,
            mat_C, s.vec_n, pairs.B, pairs.rows, pairs.diagonal, pairs.B_diagonal, pairs.A_rows, vec_read, vec_self,
            mat_Z, vec_Z, vec_slope, changes, scale, NORMALIZER=normalizer, TURNED=turned,
            **p.places, **p.products, **config.constants,
        )  # fmt: skip
        return changes

    def of_keys_and_values(config: Config) -> Tensor:
        blocks = cdiv(p.d_qk, config["BLOCK_K"])
        sums = p.empty(blocks, p.n_heads, p.num_tokens)
        programs = blocks * (p.chunk_size // config["BLOCK_M"])
        programs += cdiv(p.d_hv, config["VALUE_V"]) * (p.chunk_size // config["VALUE_M"])
        p.launch(
            triton_backward.key_value_gradients, (programs * p.num_chunks, p.n_heads),
            q, k, v, dh, dk, dv, *strides(q, k, v, dh, dk, dv), s.vec_write, mat_dC, vec_dn, pairs.A, mat_Z, vec_Z,
            sums, scale, WITH_N=with_n, **p.places, **p.products, **config.constants,
        )  # fmt: skip
        return sums

    # first: δ of every token, which dk and dn need
    changes = p.run("query_gradients", of_queries, normalizer, turned)
    dC_T, dn_T = state_gradient or (None, None)
    mat_dC, sca_pass = _state_gradients(p, q, dh, dC_T, mat_C, turned, s, dC_0)
    vec_dn, passing = None, sca_pass[:0]
    if with_n:
        vec_dn = p.result(p.num_chunks, p.n_heads, p.d_qk)
        passing = carry_vectors(p, changes, dn_T, s.sca_keep, vec_dn, dn_0, s.vec_n)
    vec_write = p.run("key_value_gradients", of_keys_and_values, with_n)
    p.launch(
        triton_gates.gate_gradients, (p.num_chunks, p.n_heads),
        i, f, *strides(i, f), di, df, *strides(di, df), vec_read, vec_self, pairs.cols, pairs.A, vec_slope, vec_write,
        sca_pass, passing, of_end, COLS=pairs.cols.shape[0], NORMALIZER=normalizer, WRITES=vec_write.shape[0],
        PASSES=sca_pass.shape[0], NORMALIZER_PASSES=passing.shape[0], SIGMOID=p.sigmoid,
        num_warps=gate_warps(p), **p.places_of(),
    )  # fmt: skip


def _pair_gradients(p: Problem, q: Tensor, k: Tensor, v: Tensor, dh: Tensor, s: Saved) -> _Pairs:
    A, B = (p.empty(p.n_heads, p.num_tokens, p.chunk_size, dtype=p.state_dtype) for _ in range(2))
    rows, A_rows, diagonal, B_diagonal = _sums(p), _sums(p), _sums(p, 2), p.empty(p.n_heads, p.num_tokens)

    def attempt(config: Config) -> _Pairs:
        cols = _sums(p, p.chunk_size // config["BLOCK_M"])
        p.launch(
            triton_backward.pair_gradients, (p.rows(config), p.n_heads),
            q, k, v, dh, *strides(q, k, v, dh), s.vec_c, s.vec_r, s.vec_scale,
            A, B, rows, cols, diagonal, B_diagonal, A_rows, p.d_qk**-0.5,
            **p.places, **p.products, **config.constants,
        )  # fmt: skip
        return _Pairs(A, B, rows, cols, diagonal, B_diagonal, A_rows)

    found: _Pairs = p.run("pair_gradients", attempt)
    return found


def _sums(p: Problem, *parts: int) -> Tensor:
    """Memory for sums over pairs, of which the gates' gradients are made: as precise as the exponents of the gates."""
    return p.empty(*parts, p.n_heads, p.num_tokens, dtype=p.exponent_dtype)


def _state_gradients(
    p: Problem, q: Tensor, dh: Tensor, dC_T: Tensor | None, mat_C: Tensor, turned: bool, s: Saved, dC_0: Tensor | None
) -> tuple[Tensor, Tensor]:
    mat_dC = p.empty(p.num_chunks, p.n_heads, p.d_qk, p.d_hv, dtype=p.state_dtype)

    def attempt(config: Config) -> Tensor:
        sca_pass = p.empty(p.blocks(config), p.n_heads, p.num_chunks)
        p.launch(
            triton_backward.state_gradients, (p.walkers(config),),
            q, dh, *strides(q, dh), dC_T, s.vec_carried, s.vec_scale, s.sca_keep, mat_C, mat_dC, sca_pass, dC_0,
            p.d_qk**-0.5, HAS_GRADIENT=dC_T is not None, TURNED=turned,
            **p.places_of_sequences, **p.products, **config.constants,
        )  # fmt: skip
        return sca_pass

    sca_pass = p.run("state_gradients", attempt, dC_T is not None, turned, programs=p.walkers)
    return mat_dC, sca_pass
