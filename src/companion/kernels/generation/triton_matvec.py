"""One or two matrices times one vector: every weight is read once, and nothing else takes time."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _inputs(x, norm, k, ok, K: tl.constexpr, KIND: tl.constexpr):
    """Numbers k of what is multiplied, and their squares before the norm's weights."""
    if KIND == "swiglu":
        gate = tl.load(x + k, mask=ok, other=0.0).to(tl.float32)
        value = gate / (1.0 + tl.exp(-gate)) * tl.load(x + K + k, mask=ok, other=0.0).to(tl.float32)
        return value, value
    value = tl.load(x + k, mask=ok, other=0.0).to(tl.float32)
    squares = value * value
    if KIND == "norm":
        value *= tl.load(norm + k, mask=ok, other=0.0).to(tl.float32)
    return value, squares


@triton.jit
def matvec(
    x, weight, norm, residual, out, small, small_bias, small_out, cap,
    N: tl.constexpr, N_SMALL: tl.constexpr, K: tl.constexpr, KIND: tl.constexpr, RESIDUAL: tl.constexpr,
    EPSILON: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """out = W f(x) (+ residual) for BLOCK_N rows of W (N, K). Grid: (rows / BLOCK_N,), of both matrices.

    f is the identity, an RMSNorm with weights `norm`, or SwiGLU of x (2·K). The root mean square of a norm is a factor
    of the whole sum, so the numbers of x are read once. The last programs are for a second, small matrix (N_SMALL, K):
    small_out = cap·tanh((small f(x) + small_bias)/cap), float32. With OVERLAP (Hopper and later: programmatic dependent
    launch) the first weights are on their way before the kernel in front, which writes x, has ended.
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
    if OVERLAP:
        gdc_wait()
    value, squares = _inputs(x, norm, k, k < K, K, KIND)
    products = tile.to(tl.float32) * value[None, :]
    for begin in range(BLOCK_K, K, BLOCK_K):
        ok = begin + k < K
        tile = tl.load(row + begin, mask=inside[:, None] & ok[None, :], other=0.0, eviction_policy="evict_first")
        value, more = _inputs(x, norm, begin + k, ok, K, KIND)
        products += tile.to(tl.float32) * value[None, :]
        squares += more
    y = tl.sum(products, 1)
    if KIND == "norm":
        y *= tl.rsqrt(tl.sum(squares, 0) / K + EPSILON)
    if second:
        y += tl.load(small_bias + n, mask=inside, other=0.0).to(tl.float32)
        t = tl.exp(-2.0 * tl.abs(y) / cap)
        t = (1.0 - t) / (1.0 + t) * cap
        tl.store(small_out + n, tl.where(y < 0, -t, t), mask=inside)
    else:
        if RESIDUAL:
            y += tl.load(residual + n, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + n, y.to(out.dtype.element_ty), mask=inside)
