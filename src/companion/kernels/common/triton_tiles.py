"""What all Triton kernels share: where a chunk lies, how a tile is loaded, how products are computed.

Conventions of the kernels. A sequence has chunks of L tokens. `chunk` counts all chunks of all sequences, `seq` the
sequences, `head` the heads. Vectors with one number per token and head are stored as (H, all tokens), those with one
per chunk and head as (H, all chunks), states at the start (or end) of each chunk as (all chunks, H, d_qk, d_hv), or
turned: (all chunks, H, d_hv, d_qk).
Strides of q, k, v, h and their gradients come as tuples (batch, token, head); the last dimension is contiguous.
"""

import triton
import triton.language as tl

#: Sizes that change from call to call: kernels are not compiled anew for a size of 1 or a multiple of 16.
SIZES = ("T", "chunks_per_seq", "num_tokens", "num_chunks", "n_heads")


@triton.jit
def locate(chunk, T, chunks_per_seq, cu_seqlens, chunk_seq, chunk_start, L: tl.constexpr, PACKED: tl.constexpr):
    """Where a chunk lies: batch entry, first token in it, end of the sequence, first token of all; end 0 if unused."""
    if PACKED:
        seq = tl.load(chunk_seq + chunk)
        batch = seq * 0
        start = tl.load(chunk_start + chunk)
        end = tl.load(cu_seqlens + seq + 1, mask=seq >= 0, other=0)
        token = start
    else:
        batch = (chunk // chunks_per_seq).to(tl.int64)
        start = (chunk % chunks_per_seq).to(tl.int64) * L
        end = tl.full((), 0, tl.int64) + T
        token = batch * T + start
    return batch.to(tl.int64), start.to(tl.int64), end.to(tl.int64), token.to(tl.int64)


@triton.jit
def chunks_of(seq, chunks_per_seq, seq_chunk, PACKED: tl.constexpr):
    """First chunk of a sequence and how many it has."""
    if PACKED:
        first = tl.load(seq_chunk + seq).to(tl.int64)
        count = tl.load(seq_chunk + seq + 1).to(tl.int64) - first
    else:
        first = seq.to(tl.int64) * chunks_per_seq
        count = tl.full((), 0, tl.int64) + chunks_per_seq
    return first, count


@triton.jit
def sequence_of(seq, T, cu_seqlens, PACKED: tl.constexpr):
    """Where a sequence lies: batch entry, first token and end in it, first token of all."""
    if PACKED:
        batch = seq.to(tl.int64) * 0
        start = tl.load(cu_seqlens + seq).to(tl.int64)
        end = tl.load(cu_seqlens + seq + 1).to(tl.int64)
        token = start
    else:
        batch = seq.to(tl.int64)
        start = batch * 0
        end = start + T
        token = batch * T
    return batch, start, end, token


@triton.jit
def blocks_of(program, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Block of a width, running fastest so that neighbours read the same rows, and what the rest of the number counts.

    Both are on the first axis of the grid, the only one that may exceed 65,535.
    """
    NUM: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    return program % NUM, program // NUM


@triton.jit
def split(program, D_QK: tl.constexpr, BLOCK_K: tl.constexpr, D_HV: tl.constexpr, BLOCK_V: tl.constexpr):
    """Block of d_qk, block of d_hv, and the rest."""
    block_k, rest = blocks_of(program, D_QK, BLOCK_K)
    block_v, rest = blocks_of(rest, D_HV, BLOCK_V)
    return block_k, block_v, rest


@triton.jit
def segment_of(
    program, T, n_heads, num_seqs, tiles_per_segment, D_HV: tl.constexpr, BLOCK_V: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """First column of a block of d_hv, batch entry, head, segment, its first tile and the first after it."""
    block_v, rest = blocks_of(program, D_HV, BLOCK_V)
    head, rest = (rest % n_heads).to(tl.int64), rest // n_heads
    batch, segment = (rest % num_seqs).to(tl.int64), rest // num_seqs
    first = segment * tiles_per_segment
    last = tl.minimum(first + tiles_per_segment, (T + TILE - 1) // TILE)
    return block_v * BLOCK_V, batch, head, segment, first, last


@triton.jit
def rows_of(x, strides, batch, head, T, WIDTH: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Descriptor of the tokens of a sequence and head, by tiles; zero beyond its end and width."""
    base = x + batch * strides[0] + head * strides[2]
    return tl.make_tensor_descriptor(base, [T, WIDTH], [strides[1], 1], [TILE, BLOCK])


@triton.jit
def load_tile(base, rows, row_stride, rows_ok, cols, NUM_COLS: tl.constexpr, DOT: tl.constexpr):
    """Rows × columns of a matrix with contiguous columns, zero outside it, in the dtype in which tl.dot multiplies."""
    ok = rows_ok[:, None] & (cols < NUM_COLS)[None, :]
    return tl.load(base + rows[:, None] * row_stride + cols[None, :], mask=ok, other=0.0).to(DOT)


@triton.jit
def load_turned(base, rows, row_stride, rows_ok, cols, NUM_COLS: tl.constexpr, DOT: tl.constexpr):
    """The transpose of `load_tile`, columns × rows, with nothing to turn around afterwards."""
    ok = (cols < NUM_COLS)[:, None] & rows_ok[None, :]
    return tl.load(base + cols[:, None] + rows[None, :] * row_stride, mask=ok, other=0.0).to(DOT)


@triton.jit
def store_tile(base, tile, rows, row_stride, rows_ok, cols, NUM_COLS: tl.constexpr):
    """The counterpart of `load_tile`, in the dtype of the matrix."""
    ok = rows_ok[:, None] & (cols < NUM_COLS)[None, :]
    tl.store(base + rows[:, None] * row_stride + cols[None, :], tile.to(base.dtype.element_ty), mask=ok)


@triton.jit
def load_state(
    base, col_k, ok_k, col_v, D_QK: tl.constexpr, D_HV: tl.constexpr, TURNED: tl.constexpr, DOT: tl.constexpr
):  # fmt: skip
    """A block (d_qk, d_hv) of the state of a chunk and head, however it lies in memory; of d_qk what is in `ok_k`."""
    STRIDE_K: tl.constexpr = 1 if TURNED else D_HV
    STRIDE_V: tl.constexpr = D_QK if TURNED else 1
    ok = ok_k[:, None] & (col_v < D_HV)[None, :]
    return tl.load(base + col_k[:, None] * STRIDE_K + col_v[None, :] * STRIDE_V, mask=ok, other=0.0).to(DOT)


@triton.jit
def load_pairs(base, t, t_ok, s, L: tl.constexpr, DOT: tl.constexpr):
    """Tokens t × tokens s of a matrix of pairs, zero for s > t, where nothing is read; see `store_pairs`."""
    ok = t_ok[:, None] & (t[:, None] >= (s // 16 * 16)[None, :])
    return tl.load(base + t[:, None] * L + s[None, :], mask=ok, other=0.0).to(DOT)


@triton.jit
def load_pairs_turned(base, t, t_ok, s, L: tl.constexpr, DOT: tl.constexpr):
    """The transpose of `load_pairs`, tokens s × tokens t."""
    ok = t_ok[None, :] & (t[None, :] >= (s // 16 * 16)[:, None])
    return tl.load(base + t[None, :] * L + s[:, None], mask=ok, other=0.0).to(DOT)


@triton.jit
def store_pairs(base, tile, t, t_ok, s, L: tl.constexpr):
    """The counterpart of `load_pairs`: of a matrix that is zero for s > t nearly half is neither written nor read.

    The edge runs in steps of 16 tokens s: a sector of memory, and a multiple of what a thread moves at once; a mask by
    element would split every access. Within a step the tile must be zero for s > t.
    """
    ok = t_ok[:, None] & (t[:, None] >= (s // 16 * 16)[None, :])
    tl.store(base + t[:, None] * L + s[None, :], tile.to(base.dtype.element_ty), mask=ok)


@triton.jit
def operand(x, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """Numbers that were computed, or read in float32, as tl.dot should multiply them.

    For tf32 products rounded to the nearest number of its 10 bits: the hardware drops the others, twice the error of
    rounding and all of one sign. Numbers of q, k, v in float16 need no rounding.
    """
    x = x.to(DOT)
    if PRECISION == "tf32" and DOT == tl.float32:  # noqa: SIM300
        bits = x.to(tl.int32, bitcast=True)
        x = tl.where(x == x, ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True), x)
    return x


@triton.jit
def products(
    a, a_stride, a_rows, a_ok, b, b_stride, b_rows, b_ok,
    NUM_COLS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Products of BLOCK_M rows of a with BLOCK_M rows of b, a·bᵀ, summed over their columns in blocks."""
    found = tl.zeros((BLOCK_M, BLOCK_M), tl.float32)
    for begin in range(0, NUM_COLS, BLOCK):
        col = begin + tl.arange(0, BLOCK)
        one = load_tile(a, a_rows, a_stride, a_ok, col, NUM_COLS, DOT)
        other = load_tile(b, b_rows, b_stride, b_ok, col, NUM_COLS, DOT)
        found = tl.dot(one, tl.trans(other), found, input_precision=PRECISION)
    return found


@triton.jit
def state_block(C, q, k, begin, col_v, ok_v, D_QK: tl.constexpr, D_HV: tl.constexpr, BLOCK_K: tl.constexpr):
    """Pointers to a block of the state of a head and their mask, and its keys and queries."""
    col_k = begin + tl.arange(0, BLOCK_K)
    ok_k = col_k < D_QK
    key = tl.load(k + col_k, mask=ok_k, other=0.0).to(tl.float32)
    query = tl.load(q + col_k, mask=ok_k, other=0.0).to(tl.float32)
    return C + col_k[:, None] * D_HV + col_v[None, :], ok_k[:, None] & ok_v[None, :], key, query
