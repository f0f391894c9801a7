"""Backward pass of the mLSTM: gradients of the states from the last chunk to the first, then dq, dk, dv of all chunks.

h_t = Σ_s W_ts v_s / N_t with N_t = max(|Σ_s W_ts|, exp(−m_t)), in which m cancels, so that it needs no gradient. With
g_t = 1/N_t (`vec_scale`) and δ_t the gradient of the signed sum, −g_t (dh_tᵀh_t) times its sign where it is the larger
(`vec_delta`, by `query_gradients`), a pair s ≤ t of weight E_ts = exp(c_s − r_t) has Z_ts = E_ts (g_t dh_tᵀv_s + δ_t)::

    dq_t = Σ_s Z_ts k_s/√d_qk + ...,   dk_s = Σ_t Z_ts q_t/√d_qk + ...,   dv_s = Σ_t E_ts g_t (q_tᵀk_s/√d_qk) dh_t + ...

where the dots stand for what comes through the states. Row sums of Z_ts q_tᵀk_s/√d_qk are q·dq, column sums k·dk, and
dĩ_s = k_sᵀdk_s. The gradient of log f is put together in `triton_gates.gate_gradients` from these sums, kept apart by
whether they come through a state; pairs with s = t never decay and are left out of it.
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
def state_gradients(
    q, dh, q_strides, dh_strides, dC_T, dn_T, vec_peak, vec_scale, vec_delta, sca_decay, sca_m_in, sca_m_out,
    mat_C, vec_n, mat_dC, vec_dn, sca_pass, dC_0, dn_0, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, seq_chunk, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, HAS_GRADIENT: tl.constexpr, NORMALISER: tl.constexpr,
    PACKED: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dC and dn at the end of every chunk, and at the start of all. Grid: (d_qk × d_hv blocks × sequences × H,).

    Backwards over chunks, with a block of dC in registers::

        dC ← exp(b_L + m_in − m_out) dC + Σ_t exp(m_in − r_t) g_t q_t/√d_qk dh_tᵀ

    `sca_pass` gets what the gates of the chunk do to the state that passes through: keep · (⟨dC, C⟩ + ⟨dn, n⟩).
    """
    NUM_V: tl.constexpr = (D_HV + BLOCK_V - 1) // BLOCK_V
    block_k, block_v, of_head = split(tl.program_id(0), D_QK, BLOCK_K, D_HV, BLOCK_V)
    col_k = block_k * BLOCK_K + tl.arange(0, BLOCK_K)
    col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
    seq, head = of_head // n_heads, (of_head % n_heads).to(tl.int64)
    first, count = chunks_of(seq, chunks_per_seq, seq_chunk, PACKED)
    ok_k = col_k < D_QK
    own_n = block_v + 0 * col_k == 0
    state = (seq.to(tl.int64) * n_heads + head) * D_QK
    part = ((block_k * NUM_V + block_v) * n_heads + head) * num_chunks
    if HAS_GRADIENT:
        dC = load_tile(dC_T + state * D_HV, col_k, D_HV, ok_k, col_v, D_HV, tl.float32)
        dn = tl.load(dn_T + state + col_k, mask=ok_k, other=0.0)
    else:
        dC = tl.zeros((BLOCK_K, BLOCK_V), tl.float32)
        dn = tl.zeros((BLOCK_K,), tl.float32)
    for index in range(0, count):
        chunk = first + count - 1 - index
        batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
        at = (chunk * n_heads + head) * D_QK
        store_tile(mat_dC + at * D_HV, dC, col_k, D_HV, ok_k, col_v, D_HV)
        tl.store(vec_dn + at + col_k, dn, mask=ok_k & own_n)
        m_in = tl.load(sca_m_in + head * num_chunks + chunk)
        m_out = tl.load(sca_m_out + head * num_chunks + chunk)
        keep = weight(tl.load(sca_decay + head * num_chunks + chunk) + m_in - m_out)
        C = load_tile(mat_C + at * D_HV, col_k, D_HV, ok_k, col_v, D_HV, tl.float32)
        n = tl.load(vec_n + at + col_k, mask=ok_k & own_n, other=0.0)
        dC *= keep
        dn *= keep
        tl.store(sca_pass + part + chunk, tl.sum(tl.sum(dC * C, 1) + dn * n, 0))
        q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
        dh_at = dh + batch * dh_strides[0] + start * dh_strides[1] + head * dh_strides[2]
        for begin in range(0, L, BLOCK_T):
            row = begin + tl.arange(0, BLOCK_T)
            ok = start + row < end
            vector = head * num_tokens + token + row
            r = tl.maximum(m_in, tl.load(vec_peak + vector, mask=ok, other=float("inf")))
            read = weight(m_in - r) * scale
            g = tl.load(vec_scale + vector, mask=ok, other=0.0)
            query = load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, DOT).to(tl.float32) * read[:, None]
            grad = load_tile(dh_at, row, dh_strides[1], ok, col_v, D_HV, DOT)
            weighted = operand(query * g[:, None], DOT, PRECISION)
            dC = tl.dot(tl.trans(weighted), grad, dC, input_precision=PRECISION)
            if NORMALISER:
                dn += tl.sum(query * tl.load(vec_delta + vector, mask=ok, other=0.0)[:, None], 0)
    store_tile(dC_0 + state * D_HV, dC, col_k, D_HV, ok_k, col_v, D_HV)
    tl.store(dn_0 + state + col_k, dn, mask=ok_k & own_n)


@triton.jit(do_not_specialize=SIZES)
def query_gradients(
    q, k, v, dh, dq, q_strides, k_strides, v_strides, dh_strides, dq_strides,
    vec_c, vec_peak, vec_scale, vec_signed, vec_delta, sca_m_in, mat_C, vec_n, vec_read, vec_self, vec_pair, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, NORMALISER: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_V: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of one block of rows, all of d_qk at once (BLOCK_Q), and δ of its tokens. Grid: (chunks × L / BLOCK_M, H).

    δ_t = −(dh_tᵀh_t) (sign of nᵀq)/|nᵀq|, or 0 where exp(−m) is the larger, with dhᵀh as the sum of the very products
    that dq is made of. Where the normaliser divides, q·dq is zero: two parts cancel, and h as it was stored, rounded to
    bfloat16, would leave its rounding in dq, dĩ and df̃.

    For the gates, sums of Z_ts q_tᵀk_s/√d_qk in float32, before Z is rounded for the product: over s < t and what comes
    through the state in `vec_read`, over t > s in `vec_pair` (one partial sum per block of rows), s = t in `vec_self`.
    """
    ROWS: tl.constexpr = L // BLOCK_M
    chunk, block = tl.program_id(0) // ROWS, tl.program_id(0) % ROWS
    head = tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    if start + block * BLOCK_M >= end:
        return
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = start + row < end
    col_k = tl.arange(0, BLOCK_Q)
    ok_k = col_k < D_QK
    vector = head * num_tokens + token
    m_in = tl.load(sca_m_in + head * num_chunks + chunk)
    r = tl.maximum(m_in, tl.load(vec_peak + vector + row, mask=ok, other=float("inf")))
    g = tl.load(vec_scale + vector + row, mask=ok, other=0.0)
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    v_at = v + batch * v_strides[0] + start * v_strides[1] + head * v_strides[2]
    dh_at = dh + batch * dh_strides[0] + start * dh_strides[1] + head * dh_strides[2]
    at = (chunk.to(tl.int64) * n_heads + head) * D_QK

    total = tl.zeros((BLOCK_M, BLOCK_Q), tl.float32)
    pair = tl.zeros((BLOCK_M, BLOCK_M), tl.float32)
    for begin in range(0, D_HV, BLOCK_V):
        col_v = begin + tl.arange(0, BLOCK_V)
        grad = load_tile(dh_at, row, dh_strides[1], ok, col_v, D_HV, DOT)
        C = load_tile(mat_C + at * D_HV, col_k, D_HV, ok_k, col_v, D_HV, DOT)
        value = load_tile(v_at, row, v_strides[1], ok, col_v, D_HV, DOT)
        total = tl.dot(grad, tl.trans(operand(C, DOT, PRECISION)), total, input_precision=PRECISION)
        pair = tl.dot(grad, tl.trans(value), pair, input_precision=PRECISION)
    score = products(q_at, q_strides[1], row, ok, k_at, k_strides[1], row, ok, D_QK, BLOCK_M, BLOCK_S, DOT, PRECISION)
    carried = weight(m_in - r)
    total *= (g * carried)[:, None]
    c = tl.load(vec_c + vector + row, mask=ok, other=float("-inf"))
    decay = pair_weight(tl.where(row[:, None] >= row[None, :], c[None, :] - r[:, None], float("-inf")))
    query = load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, tl.float32)
    delta = tl.zeros((BLOCK_M,), tl.float32)
    if NORMALISER:
        along_h = tl.sum(query * total, 1) + tl.sum(score * pair * decay, 1) * g
        for earlier in range(0, block * BLOCK_M, BLOCK_M):
            col = earlier + tl.arange(0, BLOCK_M)
            col_ok = start + col < end
            before = products(
                q_at, q_strides[1], row, ok, k_at, k_strides[1], col, col_ok, D_QK, BLOCK_M, BLOCK_S, DOT, PRECISION
            )
            before *= products(
                dh_at, dh_strides[1], row, ok, v_at, v_strides[1], col, col_ok, D_HV, BLOCK_M, BLOCK_V, DOT, PRECISION
            )
            c = tl.load(vec_c + vector + col, mask=col_ok, other=float("-inf"))
            along_h += tl.sum(before * pair_weight(c[None, :] - r[:, None]), 1) * g
        delta = -along_h * scale * tl.load(vec_signed + vector + row, mask=ok, other=0.0)
        tl.store(vec_delta + vector + row, delta, mask=ok)
        n = tl.load(vec_n + at + col_k, mask=ok_k, other=0.0)
        total += (delta * carried)[:, None] * n[None, :]
    read = tl.sum(query * total, 1)
    pair = (pair * g[:, None] + delta[:, None]) * decay
    same = row[:, None] == row[None, :]
    itself = tl.sum(tl.where(same, pair, 0.0), 1)
    tl.store(vec_self + vector + row, tl.sum(tl.where(same, pair * score, 0.0), 1) * scale, mask=ok)
    pair = tl.where(same, 0.0, pair)
    score *= pair
    read += tl.sum(score, 1)
    part = (block * n_heads).to(tl.int64) * num_tokens + vector
    tl.store(vec_pair + part + row, tl.sum(score, 0) * scale, mask=ok)
    key = load_tile(k_at, row, k_strides[1], ok, col_k, D_QK, DOT)
    total = tl.dot(operand(pair, DOT, PRECISION), key, total, input_precision=PRECISION)

    for earlier in range(0, block * BLOCK_M, BLOCK_M):
        col = earlier + tl.arange(0, BLOCK_M)
        col_ok = start + col < end
        pair = products(
            dh_at, dh_strides[1], row, ok, v_at, v_strides[1], col, col_ok, D_HV, BLOCK_M, BLOCK_V, DOT, PRECISION
        )
        score = products(
            q_at, q_strides[1], row, ok, k_at, k_strides[1], col, col_ok, D_QK, BLOCK_M, BLOCK_S, DOT, PRECISION
        )
        c = tl.load(vec_c + vector + col, mask=col_ok, other=float("-inf"))
        pair = (pair * g[:, None] + delta[:, None]) * pair_weight(c[None, :] - r[:, None])
        score *= pair
        read += tl.sum(score, 1)
        tl.store(vec_pair + part + col, tl.sum(score, 0) * scale, mask=col_ok)
        earlier_key = load_tile(k_at, col, k_strides[1], col_ok, col_k, D_QK, DOT)
        total = tl.dot(operand(pair, DOT, PRECISION), earlier_key, total, input_precision=PRECISION)

    tl.store(vec_read + vector + row, read * scale, mask=ok)
    own_key = load_tile(k_at, row, k_strides[1], ok, col_k, D_QK, tl.float32)
    total = (total + itself[:, None] * own_key) * scale
    dq_at = dq + batch * dq_strides[0] + start * dq_strides[1] + head * dq_strides[2]
    store_tile(dq_at, total, row, dq_strides[1], ok, col_k, D_QK)


@triton.jit(do_not_specialize=SIZES)
def key_gradients(
    q, k, v, dh, dk, q_strides, k_strides, v_strides, dh_strides, dk_strides,
    vec_c, vec_peak, vec_w, vec_scale, vec_delta, sca_m_in, sca_m_out, mat_dC, vec_dn,
    vec_write, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, NORMALISER: tl.constexpr, WITH_N: tl.constexpr,
    PACKED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk of one block of tokens and one block of d_qk. Grid: (d_qk blocks × chunks × L / BLOCK_M, H).

    WITH_N: the final state's n, or the normaliser, sends a gradient. `vec_write` gets what k·dk has through the
    outgoing state, one partial sum per block of d_qk.
    """
    ROWS: tl.constexpr = L // BLOCK_M
    block_k, place = blocks_of(tl.program_id(0), D_QK, BLOCK_K)
    chunk, block = place // ROWS, place % ROWS
    head = tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    if start + block * BLOCK_M >= end:
        return
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = start + row < end
    col_k = block_k * BLOCK_K + tl.arange(0, BLOCK_K)
    ok_k = col_k < D_QK
    vector = head * num_tokens + token
    m_in = tl.load(sca_m_in + head * num_chunks + chunk)
    m_out = tl.load(sca_m_out + head * num_chunks + chunk)
    w = tl.load(vec_w + vector + row, mask=ok, other=float("-inf"))
    c = tl.load(vec_c + vector + row, mask=ok, other=float("-inf"))
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    v_at = v + batch * v_strides[0] + start * v_strides[1] + head * v_strides[2]
    dh_at = dh + batch * dh_strides[0] + start * dh_strides[1] + head * dh_strides[2]
    at = (chunk.to(tl.int64) * n_heads + head) * D_QK

    total = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    pair = tl.zeros((BLOCK_M, BLOCK_M), tl.float32)  # rows are s, columns t
    for begin in range(0, D_HV, BLOCK_V):
        col_v = begin + tl.arange(0, BLOCK_V)
        value = load_tile(v_at, row, v_strides[1], ok, col_v, D_HV, DOT)
        dC = load_tile(mat_dC + at * D_HV, col_k, D_HV, ok_k, col_v, D_HV, DOT)
        grad = load_tile(dh_at, row, dh_strides[1], ok, col_v, D_HV, DOT)
        total = tl.dot(value, tl.trans(operand(dC, DOT, PRECISION)), total, input_precision=PRECISION)
        pair = tl.dot(value, tl.trans(grad), pair, input_precision=PRECISION)
    if WITH_N:
        total += tl.load(vec_dn + at + col_k, mask=ok_k, other=0.0)[None, :]
    total *= weight(w - m_out)[:, None]
    key = load_tile(k_at, row, k_strides[1], ok, col_k, D_QK, tl.float32)
    part = (block_k * n_heads).to(tl.int64) * num_tokens + vector + row
    tl.store(vec_write + part, tl.sum(key * total, 1), mask=ok)

    r = tl.maximum(m_in, tl.load(vec_peak + vector + row, mask=ok, other=float("inf")))
    g = tl.load(vec_scale + vector + row, mask=ok, other=0.0)
    delta = tl.zeros((BLOCK_M,), tl.float32)
    if NORMALISER:
        delta = tl.load(vec_delta + vector + row, mask=ok, other=0.0)
    decay = pair_weight(tl.where(row[:, None] <= row[None, :], c[:, None] - r[None, :], float("-inf")))
    pair = (pair * g[None, :] + delta[None, :]) * decay
    same = row[:, None] == row[None, :]
    itself = tl.sum(tl.where(same, pair, 0.0), 1) * scale
    query = load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, DOT)
    later = tl.dot(operand(tl.where(same, 0.0, pair), DOT, PRECISION), query, input_precision=PRECISION)

    for begin_t in range((block + 1) * BLOCK_M, L, BLOCK_M):
        col = begin_t + tl.arange(0, BLOCK_M)
        col_ok = start + col < end
        pair = products(
            v_at, v_strides[1], row, ok, dh_at, dh_strides[1], col, col_ok, D_HV, BLOCK_M, BLOCK_V, DOT, PRECISION
        )
        r = tl.maximum(m_in, tl.load(vec_peak + vector + col, mask=col_ok, other=float("inf")))
        g = tl.load(vec_scale + vector + col, mask=col_ok, other=0.0)
        delta = tl.zeros((BLOCK_M,), tl.float32)
        if NORMALISER:
            delta = tl.load(vec_delta + vector + col, mask=col_ok, other=0.0)
        pair = (pair * g[None, :] + delta[None, :]) * pair_weight(c[:, None] - r[None, :])
        later_query = load_tile(q_at, col, q_strides[1], col_ok, col_k, D_QK, DOT)
        later = tl.dot(operand(pair, DOT, PRECISION), later_query, later, input_precision=PRECISION)
    later *= scale
    from_itself = itself[:, None] * load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, tl.float32)

    dk_at = dk + batch * dk_strides[0] + start * dk_strides[1] + head * dk_strides[2]
    store_tile(dk_at, total + later + from_itself, row, dk_strides[1], ok, col_k, D_QK)


@triton.jit(do_not_specialize=SIZES)
def value_gradients(
    q, k, dh, dv, q_strides, k_strides, dh_strides, dv_strides,
    vec_c, vec_peak, vec_w, vec_scale, sca_m_in, sca_m_out, mat_dC, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dv of one block of tokens and one block of d_hv. Grid: (d_hv blocks × chunks × L / BLOCK_M, H)."""
    ROWS: tl.constexpr = L // BLOCK_M
    block_v, place = blocks_of(tl.program_id(0), D_HV, BLOCK_V)
    chunk, block = place // ROWS, place % ROWS
    head = tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    if start + block * BLOCK_M >= end:
        return
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = start + row < end
    col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
    vector = head * num_tokens + token
    m_in = tl.load(sca_m_in + head * num_chunks + chunk)
    m_out = tl.load(sca_m_out + head * num_chunks + chunk)
    w = tl.load(vec_w + vector + row, mask=ok, other=float("-inf"))
    c = tl.load(vec_c + vector + row, mask=ok, other=float("-inf"))
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    dh_at = dh + batch * dh_strides[0] + start * dh_strides[1] + head * dh_strides[2]
    at = (chunk.to(tl.int64) * n_heads + head) * D_QK

    total = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
    score = tl.zeros((BLOCK_M, BLOCK_M), tl.float32)  # rows are s, columns t
    for begin in range(0, D_QK, BLOCK_K):
        col_k = begin + tl.arange(0, BLOCK_K)
        key = load_tile(k_at, row, k_strides[1], ok, col_k, D_QK, DOT)
        query = load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, DOT)
        dC = load_tile(mat_dC + at * D_HV, col_k, D_HV, col_k < D_QK, col_v, D_HV, DOT)
        total = tl.dot(key, operand(dC, DOT, PRECISION), total, input_precision=PRECISION)
        score = tl.dot(key, tl.trans(query), score, input_precision=PRECISION)
    total *= weight(w - m_out)[:, None]
    r = tl.maximum(m_in, tl.load(vec_peak + vector + row, mask=ok, other=float("inf")))
    score *= pair_weight(tl.where(row[:, None] <= row[None, :], c[:, None] - r[None, :], float("-inf")))
    score *= tl.load(vec_scale + vector + row, mask=ok, other=0.0)[None, :] * scale
    grad = load_tile(dh_at, row, dh_strides[1], ok, col_v, D_HV, DOT)
    total = tl.dot(operand(score, DOT, PRECISION), grad, total, input_precision=PRECISION)

    for begin_t in range((block + 1) * BLOCK_M, L, BLOCK_M):
        col = begin_t + tl.arange(0, BLOCK_M)
        col_ok = start + col < end
        score = products(
            k_at, k_strides[1], row, ok, q_at, q_strides[1], col, col_ok, D_QK, BLOCK_M, BLOCK_K, DOT, PRECISION
        )
        r = tl.maximum(m_in, tl.load(vec_peak + vector + col, mask=col_ok, other=float("inf")))
        score *= pair_weight(c[:, None] - r[None, :])
        score *= tl.load(vec_scale + vector + col, mask=col_ok, other=0.0)[None, :] * scale
        grad = load_tile(dh_at, col, dh_strides[1], col_ok, col_v, D_HV, DOT)
        total = tl.dot(operand(score, DOT, PRECISION), grad, total, input_precision=PRECISION)

    dv_at = dv + batch * dv_strides[0] + start * dv_strides[1] + head * dv_strides[2]
    store_tile(dv_at, total, row, dv_strides[1], ok, col_v, D_HV)
