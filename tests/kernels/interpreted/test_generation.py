"""Operators of one generated token against plain torch: every kind, heads that share keys, windows, odd sizes."""

import pytest
import torch

from companion.kernels.generation import api
from companion.kernels.generation.api import Gates, attend_step, gated_head_norm, linear_step


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(37, 2100), (5, 96), (3, 6100)])
def test_one_vector(normed: bool, swiglu: bool, rows: int, columns: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, columns), torch.randn(rows * (1 + swiglu), columns) / columns**0.5
    norm = torch.rand(columns) if normed else None
    gates = None if swiglu else Gates(20 * torch.randn(6, columns) / columns**0.5, torch.randn(6), 15.0)
    residual = torch.randn(1, rows)
    want, want_gates = linear_step(x, weight, norm=norm, swiglu=swiglu, residual=residual, gates=gates)
    got, got_gates = api._matvec(x, weight, norm, swiglu, residual, *(gates or (None, None, 1.0)), 1e-6)
    close(got, want)
    close(got_gates, torch.empty(1, 0) if want_gates is None else want_gates)
    alone, none = api._matvec(x, weight, norm, swiglu, None, None, None, 1.0, 1e-6)
    close(alone, want - residual)
    assert none.numel() == 0


@pytest.mark.parametrize(
    ("heads", "kv_heads", "slots", "d_qk", "d_hv", "position", "normed"),
    [
        (4, 2, 300, 32, 24, 170, True),
        (3, 3, 64, 16, 16, 500, False),
        (4, 1, 700, 48, 64, 3, False),
        (2, 2, 9, 6, 5, 0, True),
    ],
)
def test_one_token_attends(
    heads: int, kv_heads: int, slots: int, d_qk: int, d_hv: int, position: int, normed: bool
) -> None:
    """The last case is the first token of all: only itself is seen."""
    torch.manual_seed(0)
    qkv = torch.randn(2, heads * d_qk + kv_heads * (d_qk + d_hv))
    keys, values = torch.randn(2, kv_heads, slots, d_qk), torch.randn(2, kv_heads, slots, d_hv)
    turn = 6 * torch.rand(1, d_qk // 2)
    norms = (torch.rand(d_qk), torch.rand(d_qk)) if normed else None
    at = torch.tensor(position)
    kept = keys.clone(), values.clone()
    want = attend_step(qkv, (turn.cos(), turn.sin()), at, keys, values, norms)
    none = (None, None)
    got = api._attend(qkv, turn.cos(), turn.sin(), at, *kept, *(norms or none), heads, 1e-6)
    close(got, want)
    close(kept[0], keys)
    close(kept[1], values)


def test_gated_head_norm() -> None:
    torch.manual_seed(0)
    h, gate, weight = torch.randn(2, 3, 40), torch.randn(2, 300)[:, 100:220], torch.rand(120)
    close(api._gated_norm(h, gate, weight, 1e-6), gated_head_norm(h, gate, weight))
