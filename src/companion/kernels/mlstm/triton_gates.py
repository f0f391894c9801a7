"""What depends on the gates alone, in a light pass before the products of matrices, and its gradient after them.

With b_t the sum of log f from the start of the chunk to t, c_t = log i_t − b_t (log i = ĩ for the exponential gate)::

    r_t = max(m_in, max_{s ≤ t} c_s),    m_t = b_t + r_t,    m_out = max(b_L + m_in, max_s w_s)

with w_s = log i_s + the sum of log f after s, which is b_L + c_s without its rounding. No weight exceeds 1:
exp(c_s − r_t) for a pair of tokens, exp(m_in − r_t) for what the state brings to t, exp(w_s − m_out) for what s adds to
the state, exp(b_L + m_in − m_out) for what the state keeps.
"""

import triton
import triton.language as tl

from companion.kernels.common.triton_exponents import after, larger, log_sigmoid, sigmoid_of_minus, weight
from companion.kernels.common.triton_tiles import SIZES, chunks_of, load_pairs, load_tile, locate, store_tile


@triton.jit(do_not_specialize=SIZES)
def gate_vectors(
    i, f, i_strides, f_strides, vec_b, vec_c, vec_peak, vec_w, sca_decay, sca_peak,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start,
    L: tl.constexpr, LEAST_LOG_F: tl.constexpr, SIGMOID: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """b, c, the running maximum of c and w for every token; b_L and max w for every chunk. Grid: (chunks, H)."""
    chunk, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    step = tl.arange(0, L)
    ok = start + step < end
    raw_f = tl.load(f + batch * f_strides[0] + (start + step) * f_strides[1] + head * f_strides[2], mask=ok, other=0.0)
    raw_i = tl.load(i + batch * i_strides[0] + (start + step) * i_strides[1] + head * i_strides[2], mask=ok, other=0.0)
    raw_f, raw_i = raw_f.to(tl.float32), raw_i.to(tl.float32)
    # beyond the end: a token that keeps the state and writes nothing
    log_f = tl.where(ok, tl.maximum(log_sigmoid(raw_f), LEAST_LOG_F), 0.0).to(vec_b.dtype.element_ty)
    f_next = f + batch * f_strides[0] + (start + step + 1) * f_strides[1] + head * f_strides[2]
    next_ok = (start + step + 1 < end) & (step + 1 < L)
    raw_next = tl.load(f_next, mask=next_ok, other=0.0).to(tl.float32)
    log_f_next = tl.where(next_ok, tl.maximum(log_sigmoid(raw_next), LEAST_LOG_F), 0.0)
    log_f_next = log_f_next.to(log_f.dtype)
    log_i = tl.where(ok, log_sigmoid(raw_i) if SIGMOID else raw_i, float("-inf")).to(log_f.dtype)
    b = tl.cumsum(log_f, 0)
    c = log_i - b
    peak = tl.associative_scan(c, 0, larger)
    w = log_i + tl.cumsum(log_f_next, 0, reverse=True)
    out = head * num_tokens + token + step
    tl.store(vec_b + out, b, mask=ok)
    tl.store(vec_c + out, c, mask=ok)
    tl.store(vec_peak + out, peak, mask=ok)
    tl.store(vec_w + out, w, mask=ok)
    at = head * num_chunks + chunk
    tl.store(sca_decay + at, tl.sum(log_f, 0), mask=start < end)
    tl.store(sca_peak + at, tl.max(w, 0), mask=start < end)


@triton.jit(do_not_specialize=SIZES)
def state_exponents(
    m_0, sca_decay, sca_peak, sca_m_in, sca_m_out, m_T, chunks_per_seq, num_chunks, seq_chunk, n_heads,
    HAS_STATE: tl.constexpr, BLOCK: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """m before and after every chunk, by an associative scan over chunks. Grid: (sequences × H,)."""
    seq, head = tl.program_id(0) // n_heads, (tl.program_id(0) % n_heads).to(tl.int64)
    first, count = chunks_of(seq, chunks_per_seq, seq_chunk, PACKED)
    if HAS_STATE:
        m = tl.load(m_0 + seq * n_heads + head).to(sca_m_in.dtype.element_ty)
    else:
        m = tl.full((), float("-inf"), sca_m_in.dtype.element_ty)
    at = head * num_chunks + first
    tl.store(sca_m_in + at, m, mask=count > 0)
    for begin in range(0, count, BLOCK):
        chunk = begin + tl.arange(0, BLOCK)
        ok = chunk < count
        decay = tl.load(sca_decay + at + chunk, mask=ok, other=0.0)
        peak = tl.load(sca_peak + at + chunk, mask=ok, other=float("-inf"))
        decay, peak = tl.associative_scan((decay, peak), 0, after)
        m_out = tl.maximum(m + decay, peak)
        tl.store(sca_m_out + at + chunk, m_out, mask=ok)
        tl.store(sca_m_in + at + chunk + 1, m_out, mask=chunk + 1 < count)
        # chunks beyond the end change nothing: the last entry is m after the last real one
        m = tl.max(tl.where(tl.arange(0, BLOCK) == BLOCK - 1, m_out, float("-inf")), 0)
    if m_T is not None:
        tl.store(m_T + seq * n_heads + head, m.to(tl.float32))


@triton.jit(do_not_specialize=SIZES)
def gate_weights(
    k, k_strides, vec_c, vec_peak, vec_w, sca_decay, sca_m_in, sca_m_out, vec_carried, vec_write, sca_keep, vec_keys,
    vec_tile, vec_update, sca_tile, keys, keys_strides,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    D_QK: tl.constexpr, L: tl.constexpr, PACKED: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """What the products need of the exponents: r in place of the running maximum, and three weights. Grid: (chunks, H).

    exp(m_in − r_t), exp(w_s − m_out) and exp(b_L + m_in − m_out), in float32: here once, where every block of every
    product would compute them again. `vec_keys` gets Σ_s exp(w_s − m_out) k_s, what the chunk adds to n.

    With a TILE the same for a state that is carried from tile to tile within the chunk, for `triton_fused`. Within the
    chunk it is kept relative to R, r of the last token so far (m_in before the first, m_out after the last): weights
    exp(R before the tile − r_t) in `vec_tile`, exp(R before − R after) in `sca_tile`, and exp(c_s − R after) in
    `vec_update` or, times k_s, in `keys`, whichever is given.
    """
    chunk, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    step = tl.arange(0, L)
    ok = start + step < end
    at, of_chunk = head * num_tokens + token + step, head * num_chunks + chunk
    m_in = tl.load(sca_m_in + of_chunk, mask=start < end, other=0.0)
    m_out = tl.load(sca_m_out + of_chunk, mask=start < end, other=0.0)
    r = tl.maximum(m_in, tl.load(vec_peak + at, mask=ok, other=0.0))
    decay = tl.load(sca_decay + of_chunk, mask=start < end, other=0.0)
    left = tl.minimum(end - start, L).to(tl.int32)
    vector = head * num_tokens + token
    if TILE > 0:
        # of other tokens: whether `vec_peak` holds the running maximum or r by then, the larger of m_in and it is r
        before = step // TILE * TILE - 1
        r_before = tl.maximum(m_in, tl.load(vec_peak + vector + before, mask=ok & (before >= 0), other=float("-inf")))
        tl.store(vec_tile + at, weight(r_before - r), mask=ok)
        first = tl.arange(0, L // TILE) * TILE
        inside = first < left
        r_first = tl.load(vec_peak + vector + first - 1, mask=inside & (first > 0), other=float("-inf"))
        r_first = tl.maximum(m_in, r_first)
        more = first + TILE < left
        r_last = tl.maximum(m_in, tl.load(vec_peak + vector + first + TILE - 1, mask=more, other=float("-inf")))
        keep = weight(tl.where(more, r_first - r_last, decay + r_first - m_out))
        tl.store(sca_tile + of_chunk * (L // TILE) + first // TILE, keep, mask=inside)
        if vec_update is not None:
            after = step // TILE * TILE + TILE
            within = ok & (after < left)
            r_after = tl.maximum(m_in, tl.load(vec_peak + vector + after - 1, mask=within, other=0.0))
            exponent = tl.load(vec_c + at, mask=within, other=0.0) - r_after
            exponent = tl.where(within, exponent, tl.load(vec_w + at, mask=ok, other=0.0) - m_out)
            tl.store(vec_update + at, weight(exponent), mask=ok)
    tl.store(vec_peak + at, r, mask=ok)
    tl.store(vec_carried + at, weight(m_in - r), mask=ok)
    tl.store(vec_write + at, weight(tl.load(vec_w + at, mask=ok, other=0.0) - m_out), mask=ok)
    tl.store(sca_keep + of_chunk, weight(decay + m_in - m_out), mask=start < end)
    k_at = k + batch * k_strides[0] + start * k_strides[1] + head * k_strides[2]
    if keys is not None:
        keys_at = keys + batch * keys_strides[0] + start * keys_strides[1] + head * keys_strides[2]
    for begin in range(0, D_QK, BLOCK_K):
        col_k = begin + tl.arange(0, BLOCK_K)
        total = tl.zeros((BLOCK_K,), tl.float32)
        for part in range(0, L, BLOCK_T):
            row = part + tl.arange(0, BLOCK_T)
            row_ok = start + row < end
            w = tl.load(vec_w + vector + row, mask=row_ok, other=0.0)
            write = tl.where(row_ok, weight(w - m_out), 0.0)
            key = load_tile(k_at, row, k_strides[1], row_ok, col_k, D_QK, tl.float32)
            total += tl.sum(key * write[:, None], 0)
            if keys is not None:
                after = row // TILE * TILE + TILE
                within = row_ok & (after < left)
                c = tl.load(vec_c + vector + row, mask=within, other=0.0)
                r_after = tl.load(vec_peak + vector + after - 1, mask=within, other=0.0)
                write = tl.where(within, weight(c - tl.maximum(m_in, r_after)), write)
                store_tile(keys_at, key * write[:, None], row, keys_strides[1], row_ok, col_k, D_QK)
        # one comparison: the interpreter of Triton 3.9 takes no mask that is a block & a scalar
        ok_k = col_k < tl.where(start < end, D_QK, 0)
        tl.store(vec_keys + (chunk.to(tl.int64) * n_heads + head) * D_QK + col_k, total, mask=ok_k)


@triton.jit(do_not_specialize=SIZES)
def gate_gradients(
    i, f, i_strides, f_strides, di, df, di_strides, df_strides,
    vec_read, vec_self, vec_col, mat_A, vec_slope, vec_write, sca_pass, sca_pass_n, of_end,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, chunk_seq, chunk_start, n_heads,
    COLS: tl.constexpr, NORMALIZER: tl.constexpr, WRITES: tl.constexpr, PASSES: tl.constexpr,
    NORMALIZER_PASSES: tl.constexpr,
    L: tl.constexpr, SIGMOID: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """dĩ and df̃ from what the kernels of dq, dk and the states left. Grid: (chunks, H).

    log f_t weighs every pair (s before t, read at t or later). Within a chunk these are pairs of its tokens (`vec_read`
    less sums over later t: `vec_col` and, with NORMALIZER, of `vec_slope` A; these summed from t on), tokens at or
    after t that read the incoming state (in `vec_read`), tokens before t that write to the outgoing one (`vec_write`),
    and the state that passes through (`sca_pass` of C, `sca_pass_n` of n). Nothing is summed over chunks, so nothing
    large cancels: a sum of q·dq − k·dk over all later tokens would. Leading dimensions hold partial sums over blocks of
    rows, of d_qk and of d_hv, added in a fixed order.

    `of_end` (sequences, H) gets ⟨dC, C⟩ + dnᵀn at the end of every sequence that has tokens, made of the very numbers
    that dĩ is made of: m takes it from the token that set it, and of a single token nothing may be left.
    """
    ROWS: tl.constexpr = L if L < 32 else 32
    chunk, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    batch, start, end, token = locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L, PACKED)
    step = tl.arange(0, L)
    ok = start + step < end
    at = head * num_tokens + token + step
    part = (head * 0 + n_heads) * num_tokens
    read = tl.load(vec_read + at, mask=ok, other=0.0)
    pair = tl.zeros((L,), vec_read.dtype.element_ty)
    from_i = tl.load(vec_self + at, mask=ok, other=0.0)
    for block in range(COLS):  # rows before a token's own block have no pair with it
        written = ok & (step < (block + 1) * (L // COLS)) & (start + block * (L // COLS) + 0 * step < end)
        pair += tl.load(vec_col + block * part + at, mask=written, other=0.0)
    if NORMALIZER:
        left = tl.minimum(end - start, L).to(tl.int32)
        first = head * num_tokens + token
        for begin in range(0, L, ROWS):
            row = begin + tl.arange(0, ROWS)
            A = load_pairs(mat_A + first * L, row, row < left, step, L, pair.dtype)
            slope = tl.load(vec_slope + first + row, mask=row < left, other=0.0)
            pair += tl.sum(tl.where(row[:, None] > step[None, :], A * slope[:, None], 0.0), 0)
    from_i += pair
    write = tl.zeros((L,), vec_read.dtype.element_ty)
    whole = tl.zeros((L,), vec_read.dtype.element_ty)
    for block in range(WRITES):
        whole += tl.load(vec_write + block * part + at, mask=ok, other=0.0)
        # of the token before: what is written strictly before t, without subtracting a sum from a sum
        write += tl.load(vec_write + block * part + at - 1, mask=ok & (step > 0), other=0.0)
    from_i += whole
    through = tl.zeros((), vec_read.dtype.element_ty)
    for block in range(PASSES):
        through += tl.load(sca_pass + (block * n_heads + head) * num_chunks + chunk, mask=start < end, other=0.0)
    for block in range(NORMALIZER_PASSES):
        through += tl.load(sca_pass_n + (block * n_heads + head) * num_chunks + chunk, mask=start < end, other=0.0)
    if of_end is not None:
        seq = tl.load(chunk_seq + chunk) if PACKED else batch
        last = (start < end) & (start + L >= end)
        tl.store(of_end + seq * n_heads + head, (tl.sum(whole, 0) + through).to(tl.float32), mask=last)
    d_log_f = tl.cumsum(read - pair, 0, reverse=True) + tl.cumsum(write, 0) + through
    raw_f = tl.load(f + batch * f_strides[0] + (start + step) * f_strides[1] + head * f_strides[2], mask=ok, other=0.0)
    d_f = d_log_f * sigmoid_of_minus(raw_f.to(tl.float32))
    if SIGMOID:
        i_at = i + batch * i_strides[0] + (start + step) * i_strides[1] + head * i_strides[2]
        from_i *= sigmoid_of_minus(tl.load(i_at, mask=ok, other=0.0).to(tl.float32))
    di_at = di + batch * di_strides[0] + (start + step) * di_strides[1] + head * di_strides[2]
    df_at = df + batch * df_strides[0] + (start + step) * df_strides[1] + head * df_strides[2]
    tl.store(di_at, from_i.to(tl.float32).to(di.dtype.element_ty), mask=ok)
    tl.store(df_at, d_f.to(tl.float32).to(df.dtype.element_ty), mask=ok)
