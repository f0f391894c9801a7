"""What the Triton kernels share."""

import numpy as np
import torch
import triton
import triton.language as tl

from companion.kernels.common.triton_tiles import operand


@triton.jit
def rounded(x, out, PRECISION: tl.constexpr):
    at = tl.arange(0, 64)
    tl.store(out + at, operand(tl.load(x + at), tl.float32, PRECISION))


def as_operand(x: torch.Tensor, precision: str) -> torch.Tensor:
    out = torch.empty_like(x)
    rounded[(1,)](x, out, precision)
    return out


def test_operands_of_tf32_products_are_rounded_to_the_nearest() -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(0)) * 100
    x[:6] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 1 + 2.0**-11, -(1 + 3 * 2.0**-11)])
    found = as_operand(x, "tf32")
    assert torch.equal(found[:4].view(torch.int32)[1:], x[:4].view(torch.int32)[1:])
    assert found[0].isnan()
    assert found[4:6].tolist() == [1 + 2.0**-10, -(1 + 2.0**-9)]  # halves away from zero
    ten_bits = np.float32(2) ** (np.floor(np.log2(np.abs(x[6:].numpy()))) - 10)
    assert np.array_equal(found[6:].numpy() / ten_bits, np.round(x[6:].numpy() / ten_bits))
    assert torch.equal(as_operand(x[3:].repeat(2)[:64], "tf32x3"), x[3:].repeat(2)[:64])
