"""States and outputs of the mLSTM in one kernel: between the first token and the last states stay in registers.

The state is carried in registers from tile to tile of 32 tokens, turned, so that it is the operand that a product of
matrices on Hopper takes from registers; q, k, v and the pairs of a tile arrive through descriptors of tensors (TMA),
two tiles ahead. A program has a block of d_hv of one head; a sequence may be cut into segments, whose states at their
end `segment_states` finds first, from zero. Notation as in `triton_gates`.
"""

import triton
import triton.language as tl

from companion.kernels.common.triton_tiles import SIZES, rows_of, segment_of


@triton.jit(do_not_specialize=(*SIZES, "num_seqs", "tiles_per_segment"))
def segment_states(
    keys, v, keys_strides, v_strides, vec_update, sca_tile, seg_C, seg_keep,
    T, chunks_per_seq, num_tokens, num_chunks, n_heads, num_seqs, tiles_per_segment,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, TILE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """C at the end of segments, all but the last, if it were zero at their start. Grid: (d_hv × H × B × segments,).

    `seg_C` (segments, B, H, d_hv, d_qk) is turned; `seg_keep` (segments, B, H) gets what is kept of the C that comes.
    """
    at_v, batch, head, segment, first, last = segment_of(
        tl.program_id(0), T, n_heads, num_seqs, tiles_per_segment, D_HV, BLOCK_V, TILE
    )
    rows_k = rows_of(keys, keys_strides, batch, head, T, D_QK, TILE, BLOCK_K)
    rows_v = rows_of(v, v_strides, batch, head, T, D_HV, TILE, BLOCK_V)
    keep_at = sca_tile + (head * num_chunks + batch * chunks_per_seq) * (L // TILE)
    C = tl.zeros((BLOCK_V, BLOCK_K), tl.float32)
    kept = tl.full((), 1.0, tl.float32)
    for tile in range(first, last):
        keep = tl.load(keep_at + tile)
        value = rows_v.load([tile * TILE, at_v]).to(DOT)
        key = rows_k.load([tile * TILE, 0]).to(DOT)
        value = tl.trans(value)
        if vec_update is not None:
            row = tile * TILE + tl.arange(0, TILE)
            value = _weighted(value, vec_update + head * num_tokens + batch * T, row, T)
        C = tl.dot(value, key, C * keep, input_precision=PRECISION)
        kept *= keep
    of_head = (segment * num_seqs + batch) * n_heads + head
    col_k, col_v = tl.arange(0, BLOCK_K)[None, :], (at_v + tl.arange(0, BLOCK_V))[:, None]
    tl.store(seg_C + (of_head * D_HV + col_v) * D_QK + col_k, C, mask=(col_v < D_HV) & (col_k < D_QK))
    tl.store(seg_keep + of_head, kept)


@triton.jit(do_not_specialize=(*SIZES, "num_seqs", "tiles_per_segment"))
def states_and_outputs(
    q, keys, v, h, q_strides, keys_strides, v_strides, h_strides, C_0, seg_C, seg_keep, vec_tile, vec_update, vec_scale,
    sca_tile, mat_S, mat_C, C_T, scale,
    T, chunks_per_seq, num_tokens, num_chunks, n_heads, num_seqs, tiles_per_segment,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, TILE: tl.constexpr,
    HAS_STATE: tl.constexpr, SEGMENTS: tl.constexpr, DESCRIBED: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """h of one block of d_hv, and C after the last token if C_T is given. Grid: (d_hv blocks × H × B × segments,).

    With C relative to R before the tile, for the tokens t of a tile, and then the C of the next::

        h_t = (exp(R before − r_t) Cᵀq_t/√d_qk + Σ_s S_ts v_s) / max(|nᵀq|, exp(−m))
        C ← exp(R before − R after) C + Σ_s exp(c_s − R after) k_s v_sᵀ

    `keys` are k with their weights, or k if `vec_update` has these: then v gets them, in registers.

    With `mat_C` (all chunks, H, d_hv, d_qk) the C at the start of every chunk, relative to m_in, is written for the
    backward pass, as it is multiplied here; if DESCRIBED through a descriptor.
    """
    at_v, batch, head, segment, first, last = segment_of(
        tl.program_id(0), T, n_heads, num_seqs, tiles_per_segment, D_HV, BLOCK_V, TILE
    )
    col_k, col_v = tl.arange(0, BLOCK_K)[None, :], (at_v + tl.arange(0, BLOCK_V))[:, None]
    ok = (col_v < D_HV) & (col_k < D_QK)
    of_head = batch * n_heads + head
    turned = col_k * D_HV + col_v
    if HAS_STATE:
        C = tl.load(C_0 + of_head * D_QK * D_HV + turned, mask=ok, other=0.0)
    else:
        C = tl.zeros((BLOCK_V, BLOCK_K), tl.float32)
    if SEGMENTS:
        for earlier in tl.range(0, segment, num_stages=1):  # not loaded ahead: there is no room for a second state
            of_segment = earlier * num_seqs * n_heads + of_head
            found = tl.load(seg_C + (of_segment * D_HV + col_v) * D_QK + col_k, mask=ok, other=0.0)
            C = C * tl.load(seg_keep + of_segment) + found
    rows_q = rows_of(q, q_strides, batch, head, T, D_QK, TILE, BLOCK_K)
    rows_k = rows_of(keys, keys_strides, batch, head, T, D_QK, TILE, BLOCK_K)
    rows_v = rows_of(v, v_strides, batch, head, T, D_HV, TILE, BLOCK_V)
    rows_h = rows_of(h, h_strides, batch, head, T, D_HV, TILE, BLOCK_V)
    vector = head * num_tokens + batch * T
    rows_S = tl.make_tensor_descriptor(mat_S + vector * TILE, [T, TILE], [TILE, 1], [TILE, TILE])
    keep_at = sca_tile + (head * num_chunks + batch * chunks_per_seq) * (L // TILE)
    C_at = mat_C
    if mat_C is not None:
        C_at += (batch * chunks_per_seq * n_heads + head) * D_HV * D_QK
        if DESCRIBED:
            shape = [chunks_per_seq, D_HV, D_QK]
            all_C = tl.make_tensor_descriptor(C_at, shape, [n_heads * D_HV * D_QK, D_QK, 1], [1, BLOCK_V, BLOCK_K])
    for tile in range(first, last):
        begin = tile * TILE
        row = begin + tl.arange(0, TILE)
        keep = tl.load(keep_at + tile)
        carried = tl.load(vec_tile + vector + row, mask=row < T, other=0.0) * scale
        inverse = tl.load(vec_scale + vector + row, mask=row < T, other=0.0)
        # one after the other, with nothing between them: one barrier for all four
        query = rows_q.load([begin, 0]).to(DOT)
        score = rows_S.load([begin, 0]).to(DOT)
        value = rows_v.load([begin, at_v]).to(DOT)
        key = rows_k.load([begin, 0]).to(DOT)
        old = C.to(DOT)
        if mat_C is not None:  # noqa: SIM102
            if tile % (L // TILE) == 0:
                chunk = tile // (L // TILE)
                if DESCRIBED:
                    all_C.store([chunk, at_v, 0], old.to(mat_C.dtype.element_ty).reshape(1, BLOCK_V, BLOCK_K))
                else:
                    place = C_at + chunk.to(tl.int64) * n_heads * D_HV * D_QK + col_v * D_QK + col_k
                    tl.store(place, old.to(mat_C.dtype.element_ty), mask=ok)
        C *= keep
        read = tl.dot(old, tl.trans(query), input_precision=PRECISION) * carried[None, :]
        value = tl.trans(value)
        read = tl.dot(value, tl.trans(score), read, input_precision=PRECISION)
        rows_h.store([begin, at_v], tl.trans((read * inverse[None, :]).to(h.dtype.element_ty)))
        if vec_update is not None:
            value = _weighted(value, vec_update + vector, row, T)
        C = tl.dot(value, key, C, input_precision=PRECISION)
    if C_T is not None:  # noqa: SIM102 (the compiler joins no condition of its own with one of the GPU)
        if last * TILE >= T:
            tl.store(C_T + of_head * D_QK * D_HV + turned, C, mask=ok)


@triton.jit
def _weighted(value, weights, row, T):
    """Values of the tokens of a tile, (d_hv, tokens), times the weights with which they are written."""
    weight = tl.load(weights + row, mask=row < T, other=0.0)
    return (value.to(tl.float32) * weight[None, :]).to(value.dtype)
