"""Attention of one token a sequence to a cache: turned and kept, then split over the keys for the whole GPU."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def turn_and_keep(
    qkv, cos, sin, q_norm, k_norm, position, q_out, keys, values, width,
    S, H: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, HALF: tl.constexpr,
    BLOCK_V: tl.constexpr, NORM: tl.constexpr, EPSILON: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Rotary embedding of a head of queries, or of keys, which go with their values into the cache. Grid: (B, H + HK).

    qkv (B, width) holds queries (H·D), keys (HK·D) and values (HK·DV); the slot is position mod S.
    """
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    b, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    j = tl.arange(0, HALF)
    ok = j < D // 2
    x = qkv + b * width + head * D
    first = tl.load(x + j, mask=ok, other=0.0).to(tl.float32)
    second = tl.load(x + D // 2 + j, mask=ok, other=0.0).to(tl.float32)
    if NORM:
        weights = q_norm if head < H else k_norm
        factor = tl.rsqrt((tl.sum(first * first, 0) + tl.sum(second * second, 0)) / D + EPSILON)
        first *= factor * tl.load(weights + j, mask=ok, other=0.0).to(tl.float32)
        second *= factor * tl.load(weights + D // 2 + j, mask=ok, other=0.0).to(tl.float32)
    c, s = tl.load(cos + j, mask=ok, other=0.0), tl.load(sin + j, mask=ok, other=0.0)
    low, high = first * c - second * s, second * c + first * s
    slot = tl.load(position) % S
    if head < H:
        to = q_out + (b * H + head) * D
        tl.store(to + j, low.to(q_out.dtype.element_ty), mask=ok)
        tl.store(to + D // 2 + j, high.to(q_out.dtype.element_ty), mask=ok)
    else:
        at = (b * HK + head - H) * S + slot
        tl.store(keys + at * D + j, low.to(keys.dtype.element_ty), mask=ok)
        tl.store(keys + at * D + D // 2 + j, high.to(keys.dtype.element_ty), mask=ok)
        v = tl.arange(0, BLOCK_V)
        new = tl.load(qkv + b * width + (H + HK) * D + (head - H) * DV + v, mask=v < DV, other=0.0)
        tl.store(values + at * DV + v, new, mask=v < DV)


@triton.jit
def split_keys(
    q, keys, values, position, partial, top, total, scale,
    S, H: tl.constexpr, HK: tl.constexpr, SPLITS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr,
    DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Softmax and weighted sum over a share of the keys, for the query heads of one head of keys. Grid: (B·HK, SPLITS).

    All kept slots are seen: a window drops what it does not see. Exponents are of 2; `scale` has the factor.
    """
    pair, split = tl.program_id(0), tl.program_id(1)
    b, hk = pair // HK, pair % HK
    length = tl.minimum(tl.load(position) + 1, S)  # nobody in front writes the position
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    start = split * share
    end = tl.minimum(start + share, length)
    g, d, v, n = tl.arange(0, GROUP), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V), tl.arange(0, BLOCK)
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    of_group = g < H // HK
    row = b * H + hk * (H // HK) + g
    query = tl.load(q + row[:, None] * D + d[None, :], mask=of_group[:, None] & (d < D)[None, :], other=0.0)
    base = pair.to(tl.int64) * S
    m = tl.full((GROUP,), -float("inf"), tl.float32)
    z = tl.zeros((GROUP,), tl.float32)
    h = tl.zeros((GROUP, BLOCK_V), tl.float32)
    for t in range(start, end, BLOCK):
        inside = t + n < end
        k = tl.load(keys + (base + t + n[:, None]) * D + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
        x = tl.load(
            values + (base + t + n[:, None]) * DV + v[None, :], mask=inside[:, None] & (v < DV)[None, :], other=0.0
        )
        scores = tl.where(inside[None, :], tl.dot(query, tl.trans(k)) * scale, -float("inf"))
        new = tl.maximum(m, tl.max(scores, 1))
        p = tl.exp2(scores - new[:, None])
        keep = tl.exp2(m - new)
        z = z * keep + tl.sum(p, 1)
        h = h * keep[:, None] + tl.dot(p.to(x.dtype), x)
        m = new
    at = row.to(tl.int64) * SPLITS + split
    tl.store(top + at, m, mask=of_group)
    tl.store(total + at, z, mask=of_group)
    tl.store(partial + at[:, None] * DV + v[None, :], h, mask=of_group[:, None] & (v < DV)[None, :])


@triton.jit
def combine(
    partial, top, total, out, SPLITS: tl.constexpr, DV: tl.constexpr, BLOCK_V: tl.constexpr, OVERLAP: tl.constexpr
):  # fmt: skip
    """The softmax over all shares of one head. Grid: (B·H,)."""
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    s, v = tl.arange(0, SPLITS), tl.arange(0, BLOCK_V)
    m, z = tl.load(top + row * SPLITS + s), tl.load(total + row * SPLITS + s)
    weight = tl.where(z > 0, tl.exp2(m - tl.max(m, 0)), 0.0)
    h = tl.load(partial + (row * SPLITS + s[:, None]) * DV + v[None, :], mask=(v < DV)[None, :], other=0.0)
    h = tl.sum(tl.where(weight[:, None] > 0, h, 0.0) * weight[:, None], 0) / tl.sum(weight * z, 0)
    tl.store(out + row * DV + v, h.to(out.dtype.element_ty), mask=v < DV)
