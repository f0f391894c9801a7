import torch, triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

@triton.jit
def _inputs(x, norm_weight, b, k, ok, K, MODE: tl.constexpr):
    """Numbers k of the vector of batch b: as they are, times a norm's weight, or silu(first half)*second half."""
    if MODE == 2:
        g = tl.load(x + b * 2 * K + k, mask=ok, other=0.0).to(tl.float32)
        u = tl.load(x + b * 2 * K + K + k, mask=ok, other=0.0).to(tl.float32)
        return g / (1.0 + tl.exp(-g)) * u
    value = tl.load(x + b * K + k, mask=ok, other=0.0).to(tl.float32)
    return value

@triton.jit
def matvec(x, w, out, norm_weight, residual, N, K: tl.constexpr, B: tl.constexpr, MODE: tl.constexpr, RESIDUAL: tl.constexpr,
           BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr, PDL: tl.constexpr):
    """out[b, n] = sum_k w[n, k] f(x[b])[k] (+ residual). MODE 1: f = RMS norm. MODE 2: SwiGLU."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    okn = n < N
    row = w + n.to(tl.int64)[:, None] * K
    if PDL:
        gdc_launch_dependents()
    okk = k < K
    first = tl.load(row + k[None, :], mask=okn[:, None] & okk[None, :], other=0.0, eviction_policy="evict_first")
    if PDL:
        gdc_wait()
    for b in tl.static_range(B):
        tile = first
        acc = tl.zeros((BN, BK), tl.float32)
        squares = tl.zeros((BK,), tl.float32)
        v = _inputs(x, norm_weight, b, k, okk, K, MODE)
        if MODE == 1:
            squares += v * v
            v = v * tl.load(norm_weight + k, mask=okk, other=0.0).to(tl.float32)
        acc += tile.to(tl.float32) * v[None, :]
        for begin in tl.range(BK, K, BK):
            kk = begin + k
            ok = kk < K
            if EVEN:
                tile = tl.load(row + kk[None, :], mask=okn[:, None], other=0.0, eviction_policy="evict_first")
            else:
                tile = tl.load(row + kk[None, :], mask=okn[:, None] & ok[None, :], other=0.0, eviction_policy="evict_first")
            v = _inputs(x, norm_weight, b, kk, ok, K, MODE)
            if MODE == 1:
                squares += v * v
                v = v * tl.load(norm_weight + kk, mask=ok, other=0.0).to(tl.float32)
            acc += tile.to(tl.float32) * v[None, :]
        y = tl.sum(acc, 1)
        if MODE == 1:
            y = y / tl.sqrt(tl.sum(squares, 0) / K + 1e-6)
        if RESIDUAL:
            y += tl.load(residual + b * N + n, mask=okn, other=0.0).to(tl.float32)
        tl.store(out + b * N + n, y.to(out.dtype.element_ty), mask=okn)

def run(x, w, mode=0, norm=None, residual=None, BN=8, BK=1024, warps=4, stages=3, pdl=True):
    N, K = w.shape; B = x.shape[0]
    out = torch.empty(B, N, dtype=x.dtype, device=x.device)
    extra = {"launch_pdl": True} if pdl else {}
    matvec[(triton.cdiv(N, BN),)](x, w, out, norm if norm is not None else w, residual if residual is not None else w, N, K, B, mode,
        residual is not None, BN, BK, K % BK == 0, pdl, num_warps=warps, num_stages=stages, **extra)
    return out
