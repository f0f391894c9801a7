"""The end of an mLSTM layer: a norm over each head, times the output gate."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def gated_head_norm(
    h, gate, weight, out, gate_stride,
    H: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, EPSILON: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """out = sigmoid(gate) · (h − mean) / sqrt(var + ε) · weight of one head. Grid: (B, H)."""
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
    b, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    d = tl.arange(0, BLOCK)
    ok = d < D
    x = tl.load(h + (b * H + head) * D + d, mask=ok, other=0.0).to(tl.float32)
    centered = tl.where(ok, x - tl.sum(x, 0) / D, 0.0)
    normed = centered * tl.rsqrt(tl.sum(centered * centered, 0) / D + EPSILON)
    g = tl.load(gate + b * gate_stride + head * D + d, mask=ok, other=0.0).to(tl.float32)
    y = normed * tl.load(weight + head * D + d, mask=ok, other=0.0).to(tl.float32) / (1.0 + tl.exp(-g))
    tl.store(out + (b * H + head) * D + d, y.to(out.dtype.element_ty), mask=ok)
