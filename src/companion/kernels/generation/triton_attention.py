"""Attention of one token a sequence to a cache: one kernel, split over the keys so that the whole GPU works."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _turned(x, rows, d, ok, cos, sin, norm, D: tl.constexpr, NORM: tl.constexpr, EPSILON: tl.constexpr):
    """Rows (of x, at offsets `rows`) of D numbers after an RMSNorm and the rotary embedding, float32."""
    HALF: tl.constexpr = D // 2
    other = tl.where(d < HALF, d + HALF, d - HALF)
    own = tl.load(x + rows[:, None] + d[None, :], mask=ok, other=0.0).to(tl.float32)
    pair = tl.load(x + rows[:, None] + other[None, :], mask=ok, other=0.0).to(tl.float32)
    inside = d < D
    if NORM:
        factor = tl.rsqrt(tl.sum(own * own, 1) / D + EPSILON)[:, None]
        own *= factor * tl.load(norm + d, mask=inside, other=0.0).to(tl.float32)[None, :]
        pair *= factor * tl.load(norm + other, mask=inside, other=0.0).to(tl.float32)[None, :]
    angle = tl.where(d < HALF, d, d - HALF)
    c = tl.load(cos + angle, mask=inside, other=0.0)[None, :]
    s = tl.load(sin + angle, mask=inside, other=0.0)[None, :]
    return own * c + tl.where(d < HALF, -1.0, 1.0)[None, :] * pair * s


@triton.jit
def attend(
    qkv, width, cos, sin, q_norm, k_norm, position, keys, values, partial, tops, totals, counters, out, scale,
    H: tl.constexpr, HK: tl.constexpr, S: tl.constexpr, SPLITS: tl.constexpr, GROUP: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK: tl.constexpr,
    NORM: tl.constexpr, EPSILON: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Keep the token's key and value, and attend to all that is kept. Grid: (B·HK, SPLITS).

    qkv (B, width) holds queries (H·D), keys (HK·D) and values (HK·DV) of the token. A program has one share of the
    slots, for the query heads that share their keys; the last program of these heads to end adds all shares up. All
    kept slots are seen: a window drops what it does not see. Exponents are of 2; `scale` has the factor.
    """
    pair, split = tl.program_id(0), tl.program_id(1)
    b, hk = pair // HK, pair % HK
    SHARED: tl.constexpr = H // HK
    now = tl.load(position)  # nobody in front writes it
    slot = now % S
    length = tl.minimum(now + 1, S)
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    start = split * share
    end = tl.minimum(start + share, length)
    g, d, v, n = tl.arange(0, GROUP), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V), tl.arange(0, BLOCK)
    of_group = g < SHARED
    base = pair.to(tl.int64) * S
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    token = qkv + b.to(tl.int64) * width
    head = hk * SHARED + g
    query = _turned(
        token, head * D, d, of_group[:, None] & (d < D)[None, :], cos, sin, q_norm, D, NORM, EPSILON
    ).to(keys.dtype.element_ty)  # fmt: skip
    one = tl.arange(0, 1)
    key = _turned(token, H * D + hk * D + one, d, (d < D)[None, :], cos, sin, k_norm, D, NORM, EPSILON)
    key = key.to(keys.dtype.element_ty)
    value = tl.load(token + (H + HK) * D + hk * DV + v, mask=v < DV, other=0.0)[None, :]
    if (slot >= start) & (slot < end):
        tl.store(keys + (base + slot) * D + d[None, :] + 0 * one[:, None], key, mask=(d < D)[None, :])
        tl.store(values + (base + slot) * DV + v[None, :], value, mask=(v < DV)[None, :])
    m = tl.full((GROUP,), -float("inf"), tl.float32)
    z = tl.zeros((GROUP,), tl.float32)
    h = tl.zeros((GROUP, BLOCK_V), tl.float32)
    if (slot >= start) & (slot < end):  # the token itself, from what is at hand: the stores above may not be there yet
        m = tl.where(of_group, tl.sum(query.to(tl.float32) * key.to(tl.float32), 1) * scale, m)
        z += 1.0
        h += value.to(tl.float32)
    for t in range(start, end, BLOCK):
        inside = t + n < end
        k = tl.load(keys + (base + t + n[:, None]) * D + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
        x = tl.load(
            values + (base + t + n[:, None]) * DV + v[None, :], mask=inside[:, None] & (v < DV)[None, :], other=0.0
        )
        scores = tl.dot(query, tl.trans(k)) * scale
        scores = tl.where((inside & (t + n != slot))[None, :], scores, -float("inf"))
        top = tl.maximum(m, tl.max(scores, 1))
        some = top > -float("inf")  # no slot of a share may be left when its only one is the token's
        p = tl.exp2(tl.where(some[:, None], scores - top[:, None], -float("inf")))
        keep = tl.where(some, tl.exp2(m - top), 0.0)
        z = z * keep + tl.sum(p, 1)
        h = h * keep[:, None] + tl.dot(p.to(x.dtype), x)
        m = top
    row = (b * H + head).to(tl.int64)
    at = row * SPLITS + split
    tl.store(tops + at, m, mask=of_group)
    tl.store(totals + at, z, mask=of_group)
    tl.store(partial + at[:, None] * DV + v[None, :], h, mask=of_group[:, None] & (v < DV)[None, :])
    tl.debug_barrier()  # all warps have stored before one says so
    if tl.atomic_add(counters + pair, 1, sem="acq_rel") == SPLITS - 1:
        tl.store(counters + pair, 0)  # for the next step
        s = tl.arange(0, SPLITS)
        for i in range(SHARED):
            of = (b * H + hk * SHARED + i).to(tl.int64) * SPLITS + s
            m_all = tl.load(tops + of, cache_modifier=".cg")
            z_all = tl.load(totals + of, cache_modifier=".cg")
            weight = tl.where(z_all > 0, tl.exp2(m_all - tl.max(m_all, 0)), 0.0)
            h_all = tl.load(
                partial + of[:, None] * DV + v[None, :], mask=(v < DV)[None, :], other=0.0, cache_modifier=".cg"
            )
            total = tl.sum(weight * z_all, 0)
            y = tl.sum(tl.where(weight[:, None] > 0, h_all, 0.0) * weight[:, None], 0) / total
            to = out + (b * H + hk * SHARED + i).to(tl.int64) * DV + v
            tl.store(to, y.to(out.dtype.element_ty), mask=v < DV)
