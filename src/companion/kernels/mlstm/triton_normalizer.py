"""The normalizer's state n along a sequence, and its gradient backwards: a scan over chunks, with no product.

n is one vector where C is a matrix. Carried by the programs that carry blocks of C, every one of them would sum the
rows of its keys at every chunk, which took longer than the products: their sums come from elsewhere, once per chunk.
"""

import triton
import triton.language as tl

from companion.kernels.common.triton_exponents import one_then_other
from companion.kernels.common.triton_tiles import SIZES, blocks_of, chunks_of, sequence_of


@triton.jit(do_not_specialize=SIZES)
def carry_vectors(
    changes, x_0, sca_keep, vec_x, x_T, vec_n, sca_pass,
    T, chunks_per_seq, num_tokens, num_chunks, cu_seqlens, seq_chunk, n_heads,
    D_QK: tl.constexpr, L: tl.constexpr, PARTS: tl.constexpr, HAS_START: tl.constexpr, BACKWARDS: tl.constexpr,
    PACKED: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x before every chunk and after the last of x ← exp(b_L + m_in − m_out) x + change. Grid: (d_qk × sequences × H,).

    Forwards x is n, and `changes` are Σ_s exp(w_s − m_out) k_s. BACKWARDS, from the last chunk to the first, x is dn
    at the end of a chunk, and `sca_pass` gets what the gates of the chunk do to the n that passes through,
    keep · dnᵀn, one partial sum per block of d_qk. `changes` may come in PARTS, partial sums over equal blocks of the
    chunk's tokens; those of blocks beyond the end of the sequence are not read.
    """
    block_k, of_head = blocks_of(tl.program_id(0), D_QK, BLOCK_K)
    col = block_k * BLOCK_K + tl.arange(0, BLOCK_K)
    ok_k = col < D_QK
    seq, head = of_head // n_heads, (of_head % n_heads).to(tl.int64)
    first, count = chunks_of(seq, chunks_per_seq, seq_chunk, PACKED)
    _, begin, end, _ = sequence_of(seq, T, cu_seqlens, PACKED)
    state = (seq.to(tl.int64) * n_heads + head) * D_QK + col
    x = tl.zeros((BLOCK_K,), tl.float32)
    if HAS_START:
        x = tl.load(x_0 + state, mask=ok_k, other=0.0).to(tl.float32)
    place = tl.arange(0, BLOCK)
    for done in range(0, count, BLOCK):
        # the chunk before this one; the first of a block has x as it came
        before = (place > 0) & (done + place <= count)
        past = count - (done + place) if BACKWARDS else done + place - 1
        keep = tl.load(sca_keep + head * num_chunks + first + past, mask=before, other=1.0)
        change = tl.zeros((BLOCK, BLOCK_K), tl.float32)
        for part in tl.static_range(PARTS):
            written = before & (part * (L // PARTS) < end - begin - past * L)
            at = ((part * num_chunks + first + past) * n_heads + head) * D_QK
            ok = written[:, None] & ok_k[None, :]
            change += tl.load(changes + at[:, None] + col[None, :], mask=ok, other=0.0)
        keeps, added = tl.associative_scan((tl.broadcast_to(keep[:, None], change.shape), change), 0, one_then_other)
        found = keeps * x[None, :] + added

        number = count - 1 - (done + place) if BACKWARDS else done + place
        real = done + place < count
        at = ((first + number) * n_heads + head) * D_QK
        ok = real[:, None] & ok_k[None, :]
        tl.store(vec_x + at[:, None] + col[None, :], found, mask=ok)
        keep = tl.load(sca_keep + head * num_chunks + first + number, mask=real, other=1.0)
        if BACKWARDS:
            n = tl.load(vec_n + at[:, None] + col[None, :], mask=ok, other=0.0)
            out = sca_pass + (block_k * n_heads + head) * num_chunks + first + number
            tl.store(out, keep * tl.sum(found * n, 1), mask=real)
        # the last chunk of the block; beyond the end nothing changes any more
        last = place == BLOCK - 1
        x = tl.sum(tl.where(last[:, None], keep[:, None] * found, 0.0), 0)
        number = count - done - BLOCK if BACKWARDS else done + BLOCK - 1
        for part in tl.static_range(PARTS):
            written = (done + BLOCK <= count) & (part * (L // PARTS) < end - begin - number * L)
            at = ((part * num_chunks + first + number) * n_heads + head) * D_QK
            x += tl.load(changes + at + col, mask=col < tl.where(written, D_QK, 0), other=0.0)
    if x_T is not None:
        tl.store(x_T + state, x, mask=ok_k)
