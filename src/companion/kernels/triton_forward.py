"""Forward pass of the mLSTM: states from chunk to chunk, then nᵀq and the outputs of all chunks at once.

Notation as in `triton_gates`; the equations are those of `torch_forms.chunkwise` (arXiv 2503.14376).
"""

import triton
import triton.language as tl

from companion.kernels.triton_common import (
    SIZES,
    blocks_of,
    chunks_of,
    load_tile,
    locate,
    operand,
    pair_weight,
    products,
    split,
    store_tile,
    weight,
)


@triton.jit(do_not_specialize=SIZES)
def states(
    k, v, k_strides, v_strides, C_0, n_0, vec_w, sca_decay, sca_m_in, sca_m_out, mat_C, vec_n, C_T, n_T,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, seq_chunk, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, HAS_STATE: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """C and n at the start of every chunk, and after the last. Grid: (d_qk blocks × d_hv blocks × sequences × H,).

    One program carries a block of C in registers from chunk to chunk::

        C ← exp(b_L + m_in − m_out) C + Σ_s exp(w_s − m_out) k_s v_sᵀ
    """
    block_k, block_v, of_head = split(tl.program_id(0), D_QK, BLOCK_K, D_HV, BLOCK_V)
    col_k = block_k * BLOCK_K + tl.arange(0, BLOCK_K)
    col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
    seq, head = of_head // n_heads, (of_head % n_heads).to(tl.int64)
    first, count = chunks_of(seq, chunks_per_seq, seq_chunk, PACKED)
    ok_k = col_k < D_QK
    own_n = block_v + 0 * col_k == 0  # every program has n, one writes it
    state = (seq.to(tl.int64) * n_heads + head) * D_QK
    if HAS_STATE:
        C = load_tile(C_0 + state * D_HV, col_k, D_HV, ok_k, col_v, D_HV, tl.float32)
        n = tl.load(n_0 + state + col_k, mask=ok_k, other=0.0).to(tl.float32)
    else:
        C = tl.zeros((BLOCK_K, BLOCK_V), tl.float32)
        n = tl.zeros((BLOCK_K,), tl.float32)
    for index in range(0, count):
        chunk = first + index
        batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
        at = (chunk * n_heads + head) * D_QK
        store_tile(mat_C + at * D_HV, C, col_k, D_HV, ok_k, col_v, D_HV)
        tl.store(vec_n + at + col_k, n, mask=ok_k & own_n)
        m_in = tl.load(sca_m_in + head * num_chunks + chunk)
        m_out = tl.load(sca_m_out + head * num_chunks + chunk)
        decay = tl.load(sca_decay + head * num_chunks + chunk)
        keep = weight(decay + m_in - m_out)
        C *= keep
        n *= keep
        k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
        v_at = v + batch * v_strides[0] + start * v_strides[1] + head * v_strides[2]
        for begin in range(0, L, BLOCK_T):
            row = begin + tl.arange(0, BLOCK_T)
            ok = start + row < end
            w = tl.load(vec_w + head * num_tokens + token + row, mask=ok, other=float("-inf"))
            write = weight(w - m_out)
            key = load_tile(k_at, row, k_strides[1], ok, col_k, D_QK, DOT).to(tl.float32) * write[:, None]
            value = load_tile(v_at, row, v_strides[1], ok, col_v, D_HV, DOT)
            C = tl.dot(tl.trans(operand(key, DOT, PRECISION)), value, C, input_precision=PRECISION)
            n += tl.sum(key, 0)
    store_tile(C_T + state * D_HV, C, col_k, D_HV, ok_k, col_v, D_HV)
    tl.store(n_T + state + col_k, n, mask=ok_k & own_n)


@triton.jit(do_not_specialize=SIZES)
def normalisers(
    q, q_strides, vec_n, vec_nq,
    T, chunks_per_seq, num_tokens, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, L: tl.constexpr, PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """nᵀq_t with n at the start of the chunk. Grid: (chunks × L / BLOCK_M, H).

    Not part of `outputs`: there a tile of q would feed a product and this sum from one pipelined load, which Triton on
    Hopper gets wrong at times (other numbers on every run; triton-lang/triton issues 6691 and 8554).
    """
    ROWS: tl.constexpr = L // BLOCK_M
    chunk, block = tl.program_id(0) // ROWS, tl.program_id(0) % ROWS
    head = tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = start + row < end
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    n_at = vec_n + (chunk.to(tl.int64) * n_heads + head) * D_QK
    product = tl.zeros((BLOCK_M,), tl.float32)
    for begin in range(0, D_QK, BLOCK_K):
        col = begin + tl.arange(0, BLOCK_K)
        n = tl.load(n_at + col, mask=col < D_QK, other=0.0)
        product += tl.sum(load_tile(q_at, row, q_strides[1], ok, col, D_QK, tl.float32) * n[None, :], 1)
    tl.store(vec_nq + head * num_tokens + token + row, product, mask=ok)


@triton.jit(do_not_specialize=SIZES)
def outputs(
    q, k, v, h, q_strides, k_strides, v_strides, h_strides, vec_b, vec_c, vec_peak, sca_m_in, mat_C, vec_nq,
    vec_scale, vec_signed, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, SIGMOID: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """h of one block of rows and one block of d_hv. Grid: (d_hv blocks × chunks × L / BLOCK_M, H).

    Writes also what the backward pass needs per token: 1/max(|nᵀq|, exp(−m)) in `vec_scale`, and the same with the sign
    of nᵀq where that is the larger of the two, else 0, in `vec_signed`.
    """
    ROWS: tl.constexpr = L // BLOCK_M
    block_v, place = blocks_of(tl.program_id(0), D_HV, BLOCK_V)
    chunk, block = place // ROWS, place % ROWS
    head = tl.program_id(1).to(tl.int64)
    col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = start + row < end
    if start + block * BLOCK_M >= end:
        return
    vector = head * num_tokens + token
    m_in = tl.load(sca_m_in + head * num_chunks + chunk)
    r = tl.maximum(m_in, tl.load(vec_peak + vector + row, mask=ok, other=float("inf")))
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    v_at = v + batch * v_strides[0] + start * v_strides[1] + head * v_strides[2]
    at = (chunk.to(tl.int64) * n_heads + head) * D_QK

    # what the state brings, and the scores of the block on the diagonal: both read q once
    read = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    score = tl.zeros((BLOCK_M, BLOCK_M), tl.float32)
    for begin in range(0, D_QK, BLOCK_K):
        col_k = begin + tl.arange(0, BLOCK_K)
        query = load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, DOT)
        key = load_tile(k_at, row, k_strides[1], ok, col_k, D_QK, DOT)
        C = load_tile(mat_C + at * D_HV, col_k, D_HV, col_k < D_QK, col_v, D_HV, DOT)
        read = tl.dot(query, operand(C, DOT, PRECISION), read, input_precision=PRECISION)
        score = tl.dot(query, tl.trans(key), score, input_precision=PRECISION)
    carried = weight(m_in - r) * scale
    read *= carried[:, None]
    signed = carried * tl.load(vec_nq + vector + row, mask=ok, other=0.0)
    c = tl.load(vec_c + vector + row, mask=ok, other=float("-inf"))
    pairs = pair_weight(tl.where(row[:, None] >= row[None, :], c[None, :] - r[:, None], float("-inf")))
    score *= pairs * scale
    signed += tl.sum(score, 1)
    value = load_tile(v_at, row, v_strides[1], ok, col_v, D_HV, DOT)
    read = tl.dot(operand(score, DOT, PRECISION), value, read, input_precision=PRECISION)

    for earlier in range(0, block * BLOCK_M, BLOCK_M):
        col = earlier + tl.arange(0, BLOCK_M)
        all_ok = start + col < end
        score = products(
            q_at, q_strides[1], row, ok, k_at, k_strides[1], col, all_ok, D_QK, BLOCK_M, BLOCK_K, DOT, PRECISION
        )
        c = tl.load(vec_c + vector + col, mask=all_ok, other=float("-inf"))
        score *= pair_weight(c[None, :] - r[:, None]) * scale
        signed += tl.sum(score, 1)
        value = load_tile(v_at, col, v_strides[1], all_ok, col_v, D_HV, DOT)
        read = tl.dot(operand(score, DOT, PRECISION), value, read, input_precision=PRECISION)

    exponent = tl.load(vec_b + vector + row, mask=ok, other=0.0) + r
    if SIGMOID:
        inverse = tl.where(ok, weight(exponent), 0.0)
        sign = tl.zeros((BLOCK_M,), tl.float32)
    else:
        floor = tl.maximum(weight(-exponent), 1e-37)  # positive also where exp(−m) underflows
        inverse = 1.0 / tl.maximum(tl.abs(signed), floor)
        sign = tl.where(tl.abs(signed) > floor, tl.where(signed > 0, inverse, -inverse), 0.0)
    h_at = h + batch * h_strides[0] + start * h_strides[1] + head * h_strides[2]
    store_tile(h_at, read * inverse[:, None], row, h_strides[1], ok, col_v, D_HV)
    first = block_v + 0 * row == 0
    tl.store(vec_scale + vector + row, inverse, mask=ok & first)
    tl.store(vec_signed + vector + row, sign, mask=ok & first)
