"""One or two matrices times one vector: every weight is read once, and nothing else takes time."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def matvec(
    x, weight, norm, residual, out, small, small_bias, small_out, cap,
    N: tl.constexpr, N_SMALL: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, SWIGLU: tl.constexpr,
    RESIDUAL: tl.constexpr, EPSILON: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """out = W f(x) (+ residual) for BLOCK_N rows of W (N, K). Grid: (rows / BLOCK_N,), of both matrices.

    f is the identity or an RMSNorm with weights `norm`: the root mean square is a factor of the whole sum, so x is read
    once. With SWIGLU, W has 2·N rows: out = silu(first half) · second half. The last programs are for a second, small
    matrix (N_SMALL, K): small_out = cap·tanh((small f(x) + small_bias)/cap), float32. With OVERLAP (Hopper and later:
    programmatic dependent launch) the first weights are on their way before the kernel in front, which writes x, ends.
    """
    FIRST: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    second = tl.program_id(0) >= FIRST
    n = (tl.program_id(0) - (FIRST if second else 0)) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < (N_SMALL if second else N)
    matrix = small if second else weight
    k = tl.arange(0, BLOCK_K)
    row = matrix + n.to(tl.int64)[:, None] * K + k[None, :]
    if OVERLAP:
        gdc_launch_dependents()
    tile = tl.load(row, mask=inside[:, None] & (k < K)[None, :], other=0.0, eviction_policy="evict_first")
    if SWIGLU:
        up = tl.load(row + N * K, mask=inside[:, None] & (k < K)[None, :], other=0.0, eviction_policy="evict_first")
    if OVERLAP:
        gdc_wait()
    value = tl.load(x + k, mask=k < K, other=0.0).to(tl.float32)
    squares = value * value
    if NORM:
        value *= tl.load(norm + k, mask=k < K, other=0.0).to(tl.float32)
    products = tile.to(tl.float32) * value[None, :]
    if SWIGLU:
        up_products = up.to(tl.float32) * value[None, :]
    for begin in range(BLOCK_K, K, BLOCK_K):
        ok = begin + k < K
        tile = tl.load(row + begin, mask=inside[:, None] & ok[None, :], other=0.0, eviction_policy="evict_first")
        value = tl.load(x + begin + k, mask=ok, other=0.0).to(tl.float32)
        squares += value * value
        if NORM:
            value *= tl.load(norm + begin + k, mask=ok, other=0.0).to(tl.float32)
        products += tile.to(tl.float32) * value[None, :]
        if SWIGLU:
            more = row + N * K + begin
            up = tl.load(more, mask=inside[:, None] & ok[None, :], other=0.0, eviction_policy="evict_first")
            up_products += up.to(tl.float32) * value[None, :]
    factor = tl.rsqrt(tl.sum(squares, 0) / K + EPSILON) if NORM else 1.0
    y = tl.sum(products, 1) * factor
    if SWIGLU:
        y = y / (1.0 + tl.exp(-y)) * (tl.sum(up_products, 1) * factor)
    if second:
        y += tl.load(small_bias + n, mask=inside, other=0.0).to(tl.float32)
        t = tl.exp(-2.0 * tl.abs(y) / cap)
        t = (1.0 - t) / (1.0 + t) * cap
        tl.store(small_out + n, tl.where(y < 0, -t, t), mask=inside)
    else:
        if RESIDUAL:
            y += tl.load(residual + n, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + n, y.to(out.dtype.element_ty), mask=inside)
