"""Backward pass of the mLSTM: pairs of tokens of every chunk, then what comes through the states, for dq, dk and dv.

h_t = Σ_s W_ts v_s / N_t with N_t = max(|Σ_s W_ts|, exp(−m_t)), in which m cancels, so that it needs no gradient. With
g_t = 1/N_t (`vec_scale`) and δ_t the gradient of the signed sum, −g_t (dh_tᵀh_t) times its sign where it is the larger
(by `query_gradients`), a pair s ≤ t of weight E_ts = exp(c_s − r_t) has Z_ts = E_ts (g_t dh_tᵀv_s + δ_t)::

    dq_t = Σ_s Z_ts k_s/√d_qk + ...,   dk_s = Σ_t Z_ts q_t/√d_qk + ...,   dv_s = Σ_t A_ts dh_t + ...
    A_ts = E_ts g_t q_tᵀk_s/√d_qk,     B_ts = E_ts g_t dh_tᵀv_s,          Z_ts = B_ts + δ_t E_ts

where the dots stand for what comes through the states. `pair_gradients` computes A and B once; δ needs what the state
brings to h, so `query_gradients` adds it to Z. Row sums of Z_ts q_tᵀk_s/√d_qk are q·dq, column sums k·dk, and dĩ_s =
k_sᵀdk_s. The gradient of log f is put together in `triton_gates.gate_gradients` from these sums, kept apart by whether
they come through a state; pairs with s = t never decay and are left out of it.
"""

import triton
import triton.language as tl

from companion.kernels.common.triton_exponents import pair_weight, weight
from companion.kernels.common.triton_tiles import (
    SIZES,
    blocks_of,
    chunks_of,
    load_pairs,
    load_pairs_turned,
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
def state_gradients(
    q, dh, q_strides, dh_strides, dC_T, vec_carried, vec_scale, sca_keep, mat_C, mat_dC, sca_pass, dC_0, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, seq_chunk, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, HAS_GRADIENT: tl.constexpr, TURNED: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dC at the end of every chunk, and at the start of all if dC_0 is given. Grid: (d_qk × d_hv blocks × B × H,).

    Backwards over chunks, with a block of dC in registers::

        dC ← exp(b_L + m_in − m_out) dC + Σ_t exp(m_in − r_t) g_t q_t/√d_qk dh_tᵀ

    `sca_pass` gets what the gates of the chunk do to the C that passes through: keep · ⟨dC, C⟩. With TURNED `mat_C` is
    (all chunks, H, d_hv, d_qk).
    """
    NUM_V: tl.constexpr = (D_HV + BLOCK_V - 1) // BLOCK_V
    block_k, block_v, of_head = split(tl.program_id(0), D_QK, BLOCK_K, D_HV, BLOCK_V)
    col_k = block_k * BLOCK_K + tl.arange(0, BLOCK_K)
    col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
    seq, head = of_head // n_heads, (of_head % n_heads).to(tl.int64)
    first, count = chunks_of(seq, chunks_per_seq, seq_chunk, PACKED)
    ok_k = col_k < D_QK
    state = (seq.to(tl.int64) * n_heads + head) * D_QK * D_HV
    part = ((block_k * NUM_V + block_v) * n_heads + head) * num_chunks
    if HAS_GRADIENT:
        dC = load_tile(dC_T + state, col_k, D_HV, ok_k, col_v, D_HV, tl.float32)
    else:
        dC = tl.zeros((BLOCK_K, BLOCK_V), tl.float32)
    batch, begin, end, first_token = sequence_of(seq, T, cu_seqlens, PACKED)
    keep_at = sca_keep + head * num_chunks + first
    C_at = mat_C + (first * n_heads + head) * D_QK * D_HV
    # of the last chunk, and in the loop of the chunk before: loaded ahead of time
    keep = tl.load(keep_at + count - 1, mask=count > 0, other=0.0)
    some = col_k < tl.where(count > 0, D_QK, 0)  # one comparison: Triton 3.9 interprets no mask of a block & a scalar
    C = load_state(C_at + (count - 1) * n_heads * D_QK * D_HV, col_k, some, col_v, D_QK, D_HV, TURNED, DOT)
    for index in range(0, count):
        number = count - 1 - index
        chunk, start, token = first + number, begin + number * L, first_token + number * L
        store_tile(mat_dC + (chunk * n_heads + head) * D_QK * D_HV, dC, col_k, D_HV, ok_k, col_v, D_HV)
        dC *= keep
        tl.store(sca_pass + part + chunk, tl.sum(tl.sum(dC * C.to(tl.float32), 1), 0))
        keep = tl.load(keep_at + number - 1, mask=number > 0, other=0.0)
        some = col_k < tl.where(number > 0, D_QK, 0)
        C = load_state(C_at + (number - 1) * n_heads * D_QK * D_HV, col_k, some, col_v, D_QK, D_HV, TURNED, DOT)
        left = tl.minimum(end - start, L).to(tl.int32)
        q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
        dh_at = dh + batch * dh_strides[0] + start * dh_strides[1] + head * dh_strides[2]
        for part_of in tl.static_range(0, L, BLOCK_T):  # unrolled: the loop over chunks is the one that loads ahead
            row = part_of + tl.arange(0, BLOCK_T)
            ok = row < left
            vector = head * num_tokens + token + row
            read = tl.load(vec_carried + vector, mask=ok, other=0.0) * scale
            read *= tl.load(vec_scale + vector, mask=ok, other=0.0)
            query = load_turned(q_at, row, q_strides[1], ok, col_k, D_QK, DOT).to(tl.float32) * read[None, :]
            grad = load_tile(dh_at, row, dh_strides[1], ok, col_v, D_HV, DOT)
            dC = tl.dot(operand(query, DOT, PRECISION), grad, dC, input_precision=PRECISION)
    if dC_0 is not None:
        store_tile(dC_0 + state, dC, col_k, D_HV, ok_k, col_v, D_HV)


@triton.jit(do_not_specialize=SIZES)
def pair_gradients(
    q, k, v, dh, q_strides, k_strides, v_strides, dh_strides, vec_c, vec_r, vec_scale,
    mat_A, mat_B, vec_row, vec_col, vec_diagonal, vec_B, vec_A, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A and B of one block of rows t, s ≤ t, and their sums. Grid: (chunks × L / BLOCK_M, H).

    The diagonal of B is kept in float32 (`vec_B`), and zero in `mat_B`: with closed gates it is all there is. Sums of
    A_ts dh_tᵀv_s before anything is rounded: over s < t in `vec_row`, over t > s in `vec_col` (one partial sum per
    block of rows). `vec_diagonal` has A and that product at s = t, `vec_A` the sum over s < t of A as it is stored:
    `triton_gates.gate_gradients` sums its columns, and what rows and columns have in common must cancel. So must B and
    δ in Z, which are summed apart: their sums are in float64 where more than the digits of bfloat16 are asked for.
    """
    SUM: tl.constexpr = vec_row.dtype.element_ty
    ROWS: tl.constexpr = L // BLOCK_M
    chunk, block = tl.program_id(0) // ROWS, tl.program_id(0) % ROWS
    head = tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    left = tl.minimum(end - start, L).to(tl.int32)
    if block * BLOCK_M >= left:
        return
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = row < left
    vector = head * num_tokens + token
    every = n_heads.to(tl.int64) * num_tokens
    r = tl.load(vec_r + vector + row, mask=ok, other=float("inf"))
    g = tl.load(vec_scale + vector + row, mask=ok, other=0.0)
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    v_at = v + batch * v_strides[0] + start * v_strides[1] + head * v_strides[2]
    dh_at = dh + batch * dh_strides[0] + start * dh_strides[1] + head * dh_strides[2]
    of_rows = tl.zeros((BLOCK_M,), SUM)
    of_A = tl.zeros((BLOCK_M,), SUM)
    for begin in range(0, (block + 1) * BLOCK_M, BLOCK_M):
        col = begin + tl.arange(0, BLOCK_M)
        col_ok = col < left
        c = tl.load(vec_c + vector + col, mask=col_ok, other=float("-inf"))
        A = products(
            q_at, q_strides[1], row, ok, k_at, k_strides[1], col, col_ok, D_QK, BLOCK_M, BLOCK_K, DOT, PRECISION
        )
        B = products(
            dh_at, dh_strides[1], row, ok, v_at, v_strides[1], col, col_ok, D_HV, BLOCK_M, BLOCK_V, DOT, PRECISION
        )
        exponent = tl.where(row[:, None] >= col[None, :], c[None, :] - r[:, None], float("-inf"))
        decay = pair_weight(exponent) * g[:, None]
        A *= decay * scale
        both = A.to(SUM) * B.to(SUM)
        B *= decay
        stored = A.to(mat_A.dtype.element_ty)
        store_pairs(mat_A + vector * L, stored, row, ok, col, L)
        same = row[:, None] == col[None, :]
        if begin == block * BLOCK_M:
            tl.store(vec_diagonal + vector + row, tl.sum(tl.where(same, A, 0.0), 1).to(SUM), mask=ok)
            tl.store(vec_diagonal + every + vector + row, tl.sum(tl.where(same, both, 0.0), 1), mask=ok)
            tl.store(vec_B + vector + row, tl.sum(tl.where(same, B, 0.0), 1), mask=ok)
        of_A += tl.sum(tl.where(same, 0.0, stored.to(SUM)), 1)
        both = tl.where(same, 0.0, both)
        store_pairs(mat_B + vector * L, tl.where(same, 0.0, B), row, ok, col, L)
        of_rows += tl.sum(both, 1)
        tl.store(vec_col + block * every + vector + col, tl.sum(both, 0), mask=col_ok)
    tl.store(vec_row + vector + row, of_rows, mask=ok)
    tl.store(vec_A + vector + row, of_A, mask=ok)


@triton.jit(do_not_specialize=SIZES)
def query_gradients(
    q, k, dh, dq, q_strides, k_strides, dh_strides, dq_strides, vec_c, vec_r, vec_carried, vec_scale, vec_signed,
    mat_C, vec_n, mat_B, vec_row, vec_diagonal, vec_B, vec_A, vec_read, vec_self, mat_Z, vec_Z, vec_slope, vec_queries,
    scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, NORMALIZER: tl.constexpr, TURNED: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_V: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of one block of rows, all of d_qk at once (BLOCK_Q), and with NORMALIZER Z. Grid: (chunks × L / BLOCK_M, H).

    δ_t = −g_t dh_tᵀh_t / (g_t nᵀq), or 0 where exp(−m) is the larger, with dhᵀh and nᵀq as the sums of the very
    products that dq is made of, and of A as it is stored. Where the normalizer divides, g nᵀq is 1 or −1 and q·dq zero:
    two parts cancel, and h rounded to bfloat16, or a sum in another order, would leave its rounding in dq, dĩ and df̃.

    For the gates, sums of Z_ts q_tᵀk_s/√d_qk: over s < t and what comes through the state in `vec_read`, s = t in
    `vec_self`, and in `vec_slope` δ_t/g_t, by which A_ts comes into sums over t. `vec_queries` gets what the block adds
    to dn, Σ_t δ_t exp(m_in − r_t) q_t/√d_qk; `mat_Z` and its diagonal `vec_Z`, kept as those of B, are for dk.
    """
    ROWS: tl.constexpr = L // BLOCK_M
    chunk, block = tl.program_id(0) // ROWS, tl.program_id(0) % ROWS
    head = tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    left = tl.minimum(end - start, L).to(tl.int32)
    if block * BLOCK_M >= left:
        return
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    ok = row < left
    col_k = tl.arange(0, BLOCK_Q)
    ok_k = col_k < D_QK
    vector = head * num_tokens + token
    every = n_heads.to(tl.int64) * num_tokens
    q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    dh_at = dh + batch * dh_strides[0] + start * dh_strides[1] + head * dh_strides[2]
    at = (chunk.to(tl.int64) * n_heads + head) * D_QK
    # first what is needed between the products: it arrives while they run
    r = tl.load(vec_r + vector + row, mask=ok, other=float("inf"))
    g = tl.load(vec_scale + vector + row, mask=ok, other=0.0)
    carried = tl.load(vec_carried + vector + row, mask=ok, other=0.0)
    of_rows = tl.load(vec_row + vector + row, mask=ok, other=0.0)
    itself = tl.load(vec_diagonal + every + vector + row, mask=ok, other=0.0)
    diagonal = tl.load(vec_B + vector + row, mask=ok, other=0.0)
    if NORMALIZER:
        c = tl.load(vec_c + vector + row, mask=ok, other=float("-inf"))
        signed = tl.load(vec_signed + vector + row, mask=ok, other=0.0)
        of_A = tl.load(vec_A + vector + row, mask=ok, other=0.0)
        own_A = tl.load(vec_diagonal + vector + row, mask=ok, other=0.0)
        n = tl.load(vec_n + at + col_k, mask=ok_k, other=0.0)
    q_tile = load_tile(q_at, row, q_strides[1], ok, col_k, D_QK, DOT)

    total = tl.zeros((BLOCK_M, BLOCK_Q), tl.float32)
    for begin in range(0, D_HV, BLOCK_V):
        col_v = begin + tl.arange(0, BLOCK_V)
        grad = load_tile(dh_at, row, dh_strides[1], ok, col_v, D_HV, DOT)
        if TURNED:  # (all chunks, H, d_hv, d_qk): the operand as it lies
            C = load_tile(mat_C + at * D_HV, col_v, D_QK, col_v < D_HV, col_k, D_QK, DOT)
            total = tl.dot(grad, operand(C, DOT, PRECISION), total, input_precision=PRECISION)
        else:
            C = load_tile(mat_C + at * D_HV, col_k, D_HV, ok_k, col_v, D_HV, DOT)
            total = tl.dot(grad, tl.trans(operand(C, DOT, PRECISION)), total, input_precision=PRECISION)
    total *= (g * carried)[:, None]
    query = q_tile.to(tl.float32)
    along_state = tl.sum(query * total, 1) * scale
    read = of_rows + along_state
    delta = tl.zeros((BLOCK_M,), tl.float32)
    if NORMALIZER:
        along_n = g * carried * scale * tl.sum(query * n[None, :], 1)
        of_all = along_n + of_A + own_A  # 1 or −1 but for rounding
        slope = tl.where(signed == 0, 0.0, -(read + itself) / tl.where(signed == 0, 1.0, of_all))
        delta = slope.to(tl.float32) * g
        through = delta * carried
        total += through[:, None] * n[None, :]
        read += slope * (along_n + of_A)
        itself += slope * own_A
        diagonal += delta * weight(c - r)
        tl.store(vec_Z + vector + row, diagonal, mask=ok)
        tl.store(vec_slope + vector + row, slope, mask=ok)
        part = (block * num_chunks + chunk).to(tl.int64) * n_heads + head
        tl.store(vec_queries + part * D_QK + col_k, tl.sum(query * (through * scale)[:, None], 0), mask=ok_k)
    tl.store(vec_read + vector + row, read, mask=ok)
    tl.store(vec_self + vector + row, itself, mask=ok)

    for begin in range(0, (block + 1) * BLOCK_M, BLOCK_S):
        col = begin + tl.arange(0, BLOCK_S)
        col_ok = col < left
        Z = load_pairs(mat_B + vector * L, row, ok, col, L, DOT)
        key = load_tile(k_at, col, k_strides[1], col_ok, col_k, D_QK, DOT)
        if NORMALIZER:
            c_col = tl.load(vec_c + vector + col, mask=col_ok, other=float("-inf"))
            earlier = row[:, None] > col[None, :]
            decay = delta[:, None] * pair_weight(tl.where(earlier, c_col[None, :] - r[:, None], float("-inf")))
            Z = Z.to(tl.float32) + decay
            store_pairs(mat_Z + vector * L, Z, row, ok, col, L)
        total = tl.dot(operand(Z, DOT, PRECISION), key, total, input_precision=PRECISION)
    own_key = load_tile(k_at, row, k_strides[1], ok, col_k, D_QK, tl.float32)
    total = (total + diagonal[:, None] * own_key) * scale
    dq_at = dq + batch * dq_strides[0] + start * dq_strides[1] + head * dq_strides[2]
    store_tile(dq_at, total, row, dq_strides[1], ok, col_k, D_QK)


@triton.jit(do_not_specialize=SIZES)
def key_value_gradients(
    q, k, v, dh, dk, dv, q_strides, k_strides, v_strides, dh_strides, dk_strides, dv_strides,
    vec_weight, mat_dC, vec_dn, mat_A, mat_Z, vec_Z, vec_write, scale,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, WITH_N: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_V: tl.constexpr,
    VALUE_M: tl.constexpr, VALUE_K: tl.constexpr, VALUE_V: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk of one block of tokens and of d_qk, or dv of one block of tokens and of d_hv. Grid: (chunks × blocks, H).

    In one launch because both read dC: programs of a chunk that run at the same time find it in the L2 cache.
    """
    KEYS: tl.constexpr = (D_QK + BLOCK_K - 1) // BLOCK_K * (L // BLOCK_M)
    VALUES: tl.constexpr = (D_HV + VALUE_V - 1) // VALUE_V * (L // VALUE_M)
    chunk, part = tl.program_id(0) // (KEYS + VALUES), tl.program_id(0) % (KEYS + VALUES)
    head = tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    left = tl.minimum(end - start, L).to(tl.int32)
    vector = head * num_tokens + token
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    at = (chunk.to(tl.int64) * n_heads + head) * D_QK
    if part < KEYS:
        q_at = q + batch * q_strides[0] + start * q_strides[1] + head * q_strides[2]
        v_at = v + batch * v_strides[0] + start * v_strides[1] + head * v_strides[2]
        dk_at = dk + batch * dk_strides[0] + start * dk_strides[1] + head * dk_strides[2]
        every = n_heads.to(tl.int64) * num_tokens
        _key_gradients(
            q_at, k_at, v_at, dk_at, q_strides[1], k_strides[1], v_strides[1], dk_strides[1], vec_weight + vector,
            mat_dC + at * D_HV, vec_dn + at if WITH_N else vec_dn, mat_Z + vector * L, vec_Z + vector,
            vec_write + vector, scale, part, left, every,
            D_QK, D_HV, L, WITH_N, BLOCK_M, BLOCK_K, BLOCK_S, BLOCK_V, DOT, PRECISION,
        )  # fmt: skip
    else:
        dh_at = dh + batch * dh_strides[0] + start * dh_strides[1] + head * dh_strides[2]
        dv_at = dv + batch * dv_strides[0] + start * dv_strides[1] + head * dv_strides[2]
        _value_gradients(
            k_at, dh_at, dv_at, k_strides[1], dh_strides[1], dv_strides[1], vec_weight + vector, mat_dC + at * D_HV,
            mat_A + vector * L, part - KEYS, left,
            D_QK, D_HV, L, VALUE_M, VALUE_K, BLOCK_S, VALUE_V, DOT, PRECISION,
        )  # fmt: skip


@triton.jit
def _key_gradients(
    q, k, v, dk, q_stride, k_stride, v_stride, dk_stride, vec_weight, mat_dC, vec_dn, mat_Z, vec_Z, vec_write, scale,
    program, left, every,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr, WITH_N: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_V: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk of one block of tokens and one block of d_qk; everything is of one chunk and head.

    WITH_N: the final state's n, or the normalizer, sends a gradient. `vec_write` gets what k·dk has through the
    outgoing state, one partial sum per block of d_qk.
    """
    tl.static_assert(BLOCK_M % BLOCK_S == 0)
    block_k, block = blocks_of(program, D_QK, BLOCK_K)
    if block * BLOCK_M < left:
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        ok = row < left
        col_k = block_k * BLOCK_K + tl.arange(0, BLOCK_K)
        ok_k = col_k < D_QK
        # first what is needed between the products: it arrives while they run
        write = tl.load(vec_weight + row, mask=ok, other=0.0)
        diagonal = tl.load(vec_Z + row, mask=ok, other=0.0)
        if WITH_N:
            dn = tl.load(vec_dn + col_k, mask=ok_k, other=0.0)
        key = load_tile(k, row, k_stride, ok, col_k, D_QK, DOT)

        total = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
        for begin in range(0, D_HV, BLOCK_V):
            col_v = begin + tl.arange(0, BLOCK_V)
            value = load_tile(v, row, v_stride, ok, col_v, D_HV, DOT)
            dC = load_tile(mat_dC, col_k, D_HV, ok_k, col_v, D_HV, DOT)
            total = tl.dot(value, tl.trans(operand(dC, DOT, PRECISION)), total, input_precision=PRECISION)
        if WITH_N:
            total += dn[None, :]
        total *= write[:, None]
        tl.store(vec_write + block_k * every + row, tl.sum(key.to(tl.float32) * total, 1), mask=ok)

        total *= 1.0 / scale  # one accumulator for both parts
        own_query = load_tile(q, row, q_stride, ok, col_k, D_QK, DOT)
        for begin in range(block * BLOCK_M, L, BLOCK_S):
            col = begin + tl.arange(0, BLOCK_S)
            col_ok = col < left
            Z = load_pairs_turned(mat_Z, col, col_ok, row, L, DOT)
            query = load_tile(q, col, q_stride, col_ok, col_k, D_QK, DOT)
            total = tl.dot(operand(Z, DOT, PRECISION), query, total, input_precision=PRECISION)
        total = (total + diagonal[:, None] * own_query.to(tl.float32)) * scale
        store_tile(dk, total, row, dk_stride, ok, col_k, D_QK)


@triton.jit
def _value_gradients(
    k, dh, dv, k_stride, dh_stride, dv_stride, vec_weight, mat_dC, mat_A, program, left,
    D_QK: tl.constexpr, D_HV: tl.constexpr, L: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_V: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dv of one block of tokens and one block of d_hv; everything is of one chunk and head."""
    tl.static_assert(BLOCK_M % BLOCK_S == 0)
    block_v, block = blocks_of(program, D_HV, BLOCK_V)
    if block * BLOCK_M < left:
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        ok = row < left
        col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
        write = tl.load(vec_weight + row, mask=ok, other=0.0)  # arrives while the products run

        total = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
        for begin in range(0, D_QK, BLOCK_K):
            col_k = begin + tl.arange(0, BLOCK_K)
            key = load_tile(k, row, k_stride, ok, col_k, D_QK, DOT)
            dC = load_tile(mat_dC, col_k, D_HV, col_k < D_QK, col_v, D_HV, DOT)
            total = tl.dot(key, operand(dC, DOT, PRECISION), total, input_precision=PRECISION)
        total *= write[:, None]
        for begin in range(block * BLOCK_M, L, BLOCK_S):
            col = begin + tl.arange(0, BLOCK_S)
            col_ok = col < left
            A = load_pairs_turned(mat_A, col, col_ok, row, L, DOT)
            grad = load_tile(dh, col, dh_stride, col_ok, col_v, D_HV, DOT)
            total = tl.dot(operand(A, DOT, PRECISION), grad, total, input_precision=PRECISION)
        store_tile(dv, total, row, dv_stride, ok, col_v, D_HV)
