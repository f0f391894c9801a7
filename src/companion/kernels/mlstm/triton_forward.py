"""Forward pass of the mLSTM: states from chunk to chunk, then pairs and outputs of all chunks at once.

Notation as in `triton_gates`; the equations are those of `torch_forms.chunkwise` (arXiv 2503.14376).
"""

import triton
import triton.language as tl

from companion.kernels.common.triton_exponents import pair_weight, weight
from companion.kernels.common.triton_tiles import (
    SIZES,
    blocks_of,
    chunks_of,
    load_pairs,
    load_state,
    load_tile,
    load_turned,
    locate,
    operand,
    products,
    sequence_of,
    split,
    store_pairs,
    store_tile,
)


@triton.jit(do_not_specialize=SIZES)
def states(
    k, v, k_strides, v_strides, C_0, vec_write, sca_keep, mat_C, C_T,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, seq_chunk, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, HAS_STATE: tl.constexpr, TURNED: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """C at the start of every chunk, and after the last if C_T is given. Grid: (d_qk × d_hv blocks × sequences × H,).

    `mat_C` is written turned where the backward pass is to find it as `triton_fused` leaves it. One program carries a
    block of C in registers from chunk to chunk::

        C ← exp(b_L + m_in − m_out) C + Σ_s exp(w_s − m_out) k_s v_sᵀ
    """
    block_k, block_v, of_head = split(tl.program_id(0), D_QK, BLOCK_K, D_HV, BLOCK_V)
    col_k = block_k * BLOCK_K + tl.arange(0, BLOCK_K)
    col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
    seq, head = of_head // n_heads, (of_head % n_heads).to(tl.int64)
    first, count = chunks_of(seq, chunks_per_seq, seq_chunk, PACKED)
    ok_k = col_k < D_QK
    state = (seq.to(tl.int64) * n_heads + head) * D_QK
    if HAS_STATE:
        C = load_tile(C_0 + state * D_HV, col_k, D_HV, ok_k, col_v, D_HV, tl.float32)
    else:
        C = tl.zeros((BLOCK_K, BLOCK_V), tl.float32)
    batch, begin, end, first_token = sequence_of(seq, T, cu_seqlens, PACKED)
    keep_at = sca_keep + head * num_chunks + first
    keep = tl.load(keep_at, mask=count > 0, other=0.0)
    for index in range(0, count):
        chunk, start, token = first + index, begin + index * L, first_token + index * L
        at = (chunk * n_heads + head) * D_QK
        if TURNED:
            store_tile(mat_C + at * D_HV, tl.trans(C), col_v, D_QK, col_v < D_HV, col_k, D_QK)
        else:
            store_tile(mat_C + at * D_HV, C, col_k, D_HV, ok_k, col_v, D_HV)
        C *= keep
        keep = tl.load(keep_at + index + 1, mask=index + 1 < count, other=0.0)  # of the next chunk, ahead of time
        left = tl.minimum(end - start, L).to(tl.int32)
        k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
        v_at = v + batch * v_strides[0] + start * v_strides[1] + head * v_strides[2]
        for part in tl.static_range(0, L, BLOCK_T):  # unrolled: the loop over chunks is the one that loads ahead
            row = part + tl.arange(0, BLOCK_T)
            ok = row < left
            write = tl.load(vec_write + head * num_tokens + token + row, mask=ok, other=0.0)
            key = load_turned(k_at, row, k_strides[1], ok, col_k, D_QK, DOT).to(tl.float32) * write[None, :]
            value = load_tile(v_at, row, v_strides[1], ok, col_v, D_HV, DOT)
            C = tl.dot(operand(key, DOT, PRECISION), value, C, input_precision=PRECISION)
    if C_T is not None:
        store_tile(C_T + state * D_HV, C, col_k, D_HV, ok_k, col_v, D_HV)


@triton.jit(do_not_specialize=SIZES)
def scores(
    q, k, q_strides, k_strides, vec_b, vec_c, vec_r, vec_carried, vec_n, mat_S, vec_scale, vec_signed, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, L: tl.constexpr, SIGMOID: tl.constexpr, PACKED: tl.constexpr, TILE: tl.constexpr,
    LEAST_NORMALIZER: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """S_ts = exp(c_s − r_t) q_tᵀk_s/√d_qk of one block of rows t, s ≤ t. Grid: (chunks × L / BLOCK_M, H).

    A kernel of its own because every block of d_hv needs them. With a TILE only pairs within a tile are written, TILE
    numbers for every token: the others come through the state that `triton_fused` carries. Writes also what divides and
    what the backward pass needs per token: 1/max(|nᵀq|, exp(−m)) in `vec_scale`, and the same with the sign of nᵀq
    where that is the larger of the two, else 0, in `vec_signed`.

    q is read a second time for its product with n: a tile that feeds a product of matrices and this sum from one
    pipelined load Triton on Hopper gets wrong at times (other numbers on every run; triton-lang/triton issues 6691 and
    8554).
    """
    ROWS: tl.constexpr = L // BLOCK_M
    chunk, block = tl.program_id(0) // ROWS, tl.program_id(0) % ROWS
    head = tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    left = tl.minimum(end - start, L).to(tl.int32)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = row < left
    if block * BLOCK_M >= left:
        return
    vector = head * num_tokens + token
    r = tl.load(vec_r + vector + row, mask=ok, other=float("inf"))
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    n_at = vec_n + (chunk.to(tl.int64) * n_heads + head) * D_QK
    carried = tl.load(vec_carried + vector + row, mask=ok, other=0.0) * scale
    b = tl.load(vec_b + vector + row, mask=ok, other=0.0)
    signed = tl.zeros((BLOCK_M,), tl.float32)
    for part in tl.static_range(0, D_QK, BLOCK_K):
        col_k = part + tl.arange(0, BLOCK_K)
        n = tl.load(n_at + col_k, mask=col_k < D_QK, other=0.0)
        signed += tl.sum(load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, tl.float32) * n[None, :], 1)
    signed *= carried
    for begin in range(0, (block + 1) * BLOCK_M, BLOCK_M):
        col = begin + tl.arange(0, BLOCK_M)
        col_ok = col < left
        c = tl.load(vec_c + vector + col, mask=col_ok, other=float("-inf"))
        score = products(
            q_at, q_strides[1], row, ok, k_at, k_strides[1], col, col_ok, D_QK, BLOCK_M, BLOCK_K, DOT, PRECISION
        )
        exponent = tl.where(row[:, None] >= col[None, :], c[None, :] - r[:, None], float("-inf"))
        score *= pair_weight(exponent) * scale
        signed += tl.sum(score, 1)
        if TILE == 0:
            store_pairs(mat_S + vector * L, score, row, ok, col, L)
        elif begin == block * BLOCK_M:
            near = ok[:, None] & (row[:, None] // TILE == col[None, :] // TILE)
            place = mat_S + (vector + row)[:, None] * TILE + (col % TILE)[None, :]
            tl.store(place, score.to(mat_S.dtype.element_ty), mask=near)

    exponent = b + r
    if SIGMOID:
        inverse = tl.where(ok, weight(exponent), 0.0)
        sign = tl.zeros((BLOCK_M,), tl.float32)
    else:
        floor = tl.maximum(weight(-exponent), LEAST_NORMALIZER)  # positive also where exp(−m) underflows
        inverse = 1.0 / tl.maximum(tl.abs(signed), floor)
        sign = tl.where(tl.abs(signed) > floor, tl.where(signed > 0, inverse, -inverse), 0.0)
    tl.store(vec_scale + vector + row, inverse, mask=ok)
    tl.store(vec_signed + vector + row, sign, mask=ok)


@triton.jit(do_not_specialize=SIZES)
def outputs(
    q, v, h, q_strides, v_strides, h_strides, vec_carried, mat_C, mat_S, vec_scale, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, TURNED: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_V: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """h of one block of rows and one block of d_hv. Grid: (d_hv blocks × chunks × L / BLOCK_M, H).

    Two products one after the other, of rows of q with the state and of rows of S with v::

        h_t = (exp(m_in − r_t) Cᵀq_t/√d_qk + Σ_s S_ts v_s) / max(|nᵀq|, exp(−m))
    """
    tl.static_assert(BLOCK_M % BLOCK_S == 0)
    ROWS: tl.constexpr = L // BLOCK_M
    block_v, place = blocks_of(tl.program_id(0), D_HV, BLOCK_V)
    chunk, block = place // ROWS, place % ROWS
    head = tl.program_id(1).to(tl.int64)
    col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    left = tl.minimum(end - start, L).to(tl.int32)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = row < left
    if block * BLOCK_M >= left:
        return
    vector = head * num_tokens + token
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    v_at = v + batch * v_strides[0] + start * v_strides[1] + head * v_strides[2]
    at = (chunk.to(tl.int64) * n_heads + head) * D_QK
    # vectors first: they arrive while the products run
    carried = tl.load(vec_carried + vector + row, mask=ok, other=0.0) * scale
    inverse = tl.load(vec_scale + vector + row, mask=ok, other=0.0)

    read = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    for begin in range(0, D_QK, BLOCK_K):
        col_k = begin + tl.arange(0, BLOCK_K)
        query = load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, DOT)
        C = load_state(mat_C + at * D_HV, col_k, col_k < D_QK, col_v, D_QK, D_HV, TURNED, DOT)
        read = tl.dot(query, operand(C, DOT, PRECISION), read, input_precision=PRECISION)
    read *= carried[:, None]
    for begin in range(0, (block + 1) * BLOCK_M, BLOCK_S):
        col = begin + tl.arange(0, BLOCK_S)
        score = load_pairs(mat_S + vector * L, row, ok, col, L, DOT)
        value = load_tile(v_at, col, v_strides[1], col < left, col_v, D_HV, DOT)
        read = tl.dot(operand(score, DOT, PRECISION), value, read, input_precision=PRECISION)
    h_at = h + batch * h_strides[0] + start * h_strides[1] + head * h_strides[2]
    store_tile(h_at, read * inverse[:, None], row, h_strides[1], ok, col_v, D_HV)
