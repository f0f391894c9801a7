"""Attention of one token to a cache, split over the keys so that all multiprocessors work (prototype)."""
import torch, triton
import triton.language as tl
from torch import Tensor


@triton.jit
def split_keys(Q, K, V, LENGTH, O, M, L, scale, H: tl.constexpr, HK: tl.constexpr, S: tl.constexpr, NS: tl.constexpr,
               G: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK: tl.constexpr):
    pair, split = tl.program_id(0), tl.program_id(1)
    b, hk = pair // HK, pair % HK
    length = tl.minimum(tl.load(LENGTH) + 1, S)
    share = tl.cdiv(tl.cdiv(length, NS), BLOCK) * BLOCK
    start = split * share
    end = tl.minimum(start + share, length)
    g, d, dv, n = tl.arange(0, G), tl.arange(0, D), tl.arange(0, DV), tl.arange(0, BLOCK)
    GROUP: tl.constexpr = H // HK
    q = tl.load(Q + (b * H + hk * GROUP + g[:, None]) * D + d[None, :], mask=g[:, None] < GROUP, other=0.0)
    base = pair.to(tl.int64) * S
    m = tl.full((G,), -float("inf"), tl.float32)
    l = tl.zeros((G,), tl.float32)
    acc = tl.zeros((G, DV), tl.float32)
    for t in range(start, end, BLOCK):
        inside = t + n < end
        k = tl.load(K + (base + t + n[:, None]) * D + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(V + (base + t + n[:, None]) * DV + dv[None, :], mask=inside[:, None], other=0.0)
        s = tl.dot(q, tl.trans(k)) * scale
        s = tl.where(inside[None, :], s, -float("inf"))
        new = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        keep = tl.exp2(m - new)
        l = l * keep + tl.sum(p, 1)
        acc = acc * keep[:, None] + tl.dot(p.to(v.dtype), v)
        m = new
    at = (b * H + hk * GROUP + g) * NS + split
    tl.store(M + at, m, mask=g < GROUP)
    tl.store(L + at, l, mask=g < GROUP)
    tl.store(O + at[:, None] * DV + dv[None, :], acc, mask=g[:, None] < GROUP)


@triton.jit
def combine(O, M, L, OUT, NS: tl.constexpr, DV: tl.constexpr):
    row = tl.program_id(0)
    s, dv = tl.arange(0, NS), tl.arange(0, DV)
    m = tl.load(M + row * NS + s)
    l = tl.load(L + row * NS + s)
    top = tl.max(m, 0)
    w = tl.where(l > 0, tl.exp2(m - top), 0.0)
    o = tl.load(O + (row * NS + s[:, None]) * DV + dv[None, :])
    out = tl.sum(tl.where(w[:, None] > 0, o, 0.0) * w[:, None], 0) / tl.sum(w * l, 0)
    tl.store(OUT + row * DV + dv, out.to(OUT.dtype.element_ty))


def attend_cache(q: Tensor, keys: Tensor, values: Tensor, position: Tensor) -> Tensor:
    if q.is_cuda:
        return attend_cache_op(q, keys, values, position)
    seen = torch.arange(keys.shape[2], device=q.device) <= position
    h = torch.nn.functional.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=seen[None], enable_gqa=keys.shape[1] != q.shape[1])
    return h[:, :, 0]


@torch.library.custom_op("companion::attend_cache", mutates_args=())
def attend_cache_op(q: Tensor, keys: Tensor, values: Tensor, length: Tensor) -> Tensor:
    """q (B, H, d), keys (B, HK, S, d), values (B, HK, S, dv), length () before the token: (B, H, dv)."""
    b, h, d = q.shape
    hk, s, dv = keys.shape[1], keys.shape[2], values.shape[3]
    q = q.contiguous()
    ns = 1
    while b * hk * ns < 512 and ns < 64 and s > ns * 256:
        ns *= 2
    o = torch.empty(b, h, ns, dv, dtype=torch.float32, device=q.device)
    m = torch.empty(b, h, ns, dtype=torch.float32, device=q.device)
    l = torch.empty_like(m)
    g = max(16, triton.next_power_of_2(h // hk))
    split_keys[(b * hk, ns)](q, keys, values, length, o, m, l, d**-0.5 * 1.4426950408889634, h, hk, s, ns, g, d, dv, 64,
                             num_warps=4, num_stages=4)
    out = torch.empty(b, h, dv, dtype=q.dtype, device=q.device)
    combine[(b * h,)](o, m, l, out, ns, dv, num_warps=4)
    return out


@attend_cache_op.register_fake
def _(q: Tensor, keys: Tensor, values: Tensor, length: Tensor) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[1], values.shape[3])
