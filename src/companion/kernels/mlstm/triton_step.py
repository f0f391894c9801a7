"""One token per sequence, for generation: read the state, update it in place, write the output."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from companion.kernels.common.triton_exponents import log_sigmoid
from companion.kernels.common.triton_tiles import SIZES, blocks_of, state_block

#: Bytes of a line of the L2 cache.
LINE = tl.constexpr(128)


@triton.jit
def _fetch(C, lines, HEAD: tl.constexpr, WIDTH: tl.constexpr):
    """Bring this program's share of `lines` of C into the L2 cache: of the first heads the first quarter of each.

    A quarter, so that all programs that begin with `step_matrix` find something there. Nothing waits for the lines, and
    whoever writes them meanwhile writes to that cache as well. HEAD are the bytes of a head.
    """
    QUARTER: tl.constexpr = (HEAD + 4 * LINE - 1) // (4 * LINE)
    share = tl.cdiv(lines, tl.num_programs(0))
    first = tl.program_id(0) * share
    end = tl.minimum(first + share, lines)
    for begin in range(first, end, WIDTH):
        line = tl.minimum(begin + tl.arange(0, WIDTH), end - 1)
        address = C.to(tl.int64) + (line // QUARTER).to(tl.int64) * HEAD + line % QUARTER * LINE
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit(do_not_specialize=(*SIZES, "lines"))
def step_scalars(
    q, k, i, f, q_strides, k_strides, i_strides, f_strides, C, n, m, scalars, scale, n_heads, lines,
    D_QK: tl.constexpr, D_HV: tl.constexpr, BLOCK: tl.constexpr, LEAST_NORMALIZER: tl.constexpr,
    SIGMOID: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """n and m of one head updated in place; what `step_matrix` needs of them. Grid: (B × H,).

    A kernel of its own because every block of C needs the old n and m, which are overwritten here. With OVERLAP (Hopper
    and later: programmatic dependent launch) it is launched before the kernel in front has ended, for whose results it
    waits; only then may `step_matrix` begin and load C, which the kernel in front may have written. Until then `lines`
    of C are brought into the L2 cache: memory has work while one kernel ends and the next begins.
    """
    if OVERLAP:
        _fetch(C, lines, D_QK * D_HV * C.dtype.element_ty.primitive_bitwidth // 8, 64)
        gdc_wait()
        gdc_launch_dependents()
    batch, head = (tl.program_id(0) // n_heads).to(tl.int64), (tl.program_id(0) % n_heads).to(tl.int64)
    col = tl.arange(0, BLOCK)
    ok = col < D_QK
    log_f = log_sigmoid(tl.load(f + batch * f_strides[0] + head * f_strides[1]).to(tl.float32))
    log_i = tl.load(i + batch * i_strides[0] + head * i_strides[1]).to(tl.float32)
    if SIGMOID:
        log_i = log_sigmoid(log_i)
    at = batch * n_heads + head
    m_old = tl.load(m + at)
    m_new = tl.maximum(log_f + m_old, log_i)
    keep, write = tl.exp(log_f + m_old - m_new), tl.exp(log_i - m_new)
    key = tl.load(k + batch * k_strides[0] + head * k_strides[1] + col, mask=ok, other=0.0).to(tl.float32)
    query = tl.load(q + batch * q_strides[0] + head * q_strides[1] + col, mask=ok, other=0.0).to(tl.float32)
    n_new = keep * tl.load(n + at * D_QK + col, mask=ok, other=0.0) + write * key
    if SIGMOID:
        inverse = tl.exp(m_new)
    else:
        inverse = 1.0 / tl.maximum(
            tl.abs(tl.sum(n_new * query, 0) * scale), tl.maximum(tl.exp(-m_new), LEAST_NORMALIZER)
        )
    tl.store(n + at * D_QK + col, n_new, mask=ok)
    tl.store(m + at, m_new)
    tl.store(scalars + 3 * at, keep)
    tl.store(scalars + 3 * at + 1, write)
    tl.store(scalars + 3 * at + 2, inverse * scale)


@triton.jit(do_not_specialize=SIZES)
def step_matrix(
    q, k, v, h, q_strides, k_strides, v_strides, C, scalars, n_heads,
    D_QK: tl.constexpr, D_HV: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """C of one head and one block of d_hv updated in place, and its part of h. Grid: (d_hv blocks × B × H,).

    With OVERLAP the step that follows (of the next layer) may be launched once all programs have begun. C passes
    through the caches once: it is marked as the first to leave them.
    """
    if OVERLAP:
        gdc_launch_dependents()
    block_v, of_head = blocks_of(tl.program_id(0), D_HV, BLOCK_V)
    batch, head = (of_head // n_heads).to(tl.int64), (of_head % n_heads).to(tl.int64)
    at = batch * n_heads + head
    col_v = block_v * BLOCK_V + tl.arange(0, BLOCK_V)
    ok_v = col_v < D_HV
    value = tl.load(v + batch * v_strides[0] + head * v_strides[1] + col_v, mask=ok_v, other=0.0).to(tl.float32)
    q_at, k_at = q + batch * q_strides[0] + head * q_strides[1], k + batch * k_strides[0] + head * k_strides[1]
    read = tl.zeros((BLOCK_V,), tl.float32)
    if BLOCK_K >= D_QK:  # one block: on its way before the scalars are known
        tile, ok, key, query = state_block(C + at * D_QK * D_HV, q_at, k_at, 0, col_v, ok_v, D_QK, D_HV, BLOCK_K)
        old = tl.load(tile, mask=ok, other=0.0, eviction_policy="evict_first").to(tl.float32)
        if OVERLAP:
            gdc_wait()
        keep, write, inverse = tl.load(scalars + 3 * at), tl.load(scalars + 3 * at + 1), tl.load(scalars + 3 * at + 2)
        new = keep * old + (key * write)[:, None] * value[None, :]
        tl.store(tile, new.to(C.dtype.element_ty), mask=ok, cache_modifier=".cs")
        read = tl.sum(new * query[:, None], 0)
    else:
        if OVERLAP:
            gdc_wait()
        keep, write, inverse = tl.load(scalars + 3 * at), tl.load(scalars + 3 * at + 1), tl.load(scalars + 3 * at + 2)
        for begin in range(0, D_QK, BLOCK_K):
            tile, ok, key, query = state_block(
                C + at * D_QK * D_HV, q_at, k_at, begin, col_v, ok_v, D_QK, D_HV, BLOCK_K
            )
            old = tl.load(tile, mask=ok, other=0.0, eviction_policy="evict_first").to(tl.float32)
            new = keep * old + (key * write)[:, None] * value[None, :]
            tl.store(tile, new.to(C.dtype.element_ty), mask=ok, cache_modifier=".cs")
            read += tl.sum(new * query[:, None], 0)
    tl.store(h + at * D_HV + col_v, (read * inverse).to(h.dtype.element_ty), mask=ok_v)
