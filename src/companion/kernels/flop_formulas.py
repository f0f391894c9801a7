"""Products of matrices in our operators, for `torch.utils.flop_counter`, which otherwise takes them for nothing.

Importing this module tells it. Products that a backward pass computes again, to keep less, do not count: they are a
choice of the kernels, not work that the model needs.
"""

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

import companion.kernels.generation.api  # both define the operators
import companion.kernels.mlstm.ops  # noqa: F401
from companion.accounting.conventions import PRODUCTS, mlstm_chunk_products
from companion.architectures.mixer import over_chunks
from companion.architectures.mlstm import mlstm_recurrent_flops

#: Shape of a tensor, as the counter hands it over.
Shape = tuple[int, ...]


def mlstm_flops(q: Shape, v: Shape, chunk_size: int) -> int:
    """FLOPs of the forward pass: q (B, T, H, d_qk), v (B, T, H, d_hv), chunks of `chunk_size` tokens."""
    batch_size, length, n_heads, d_qk = q

    def one_chunk(tokens: Any) -> Any:
        return sum(mlstm_chunk_products(tokens, d_qk, v[-1], PRODUCTS.mlstm_causal_factor).values())

    return int(batch_size * n_heads * over_chunks(one_chunk, length, chunk_size))


@register_flop_formula(torch.ops.companion.mlstm_forward)
def _forward(
    q: Shape, k: Shape, v: Shape, i: Shape, f: Shape, C: Any, n: Any, m: Any, ends: Any, chunk_size: int,
    *rest: Any, out_shape: Any = None, **more: Any,
) -> int:  # fmt: skip
    return mlstm_flops(q, v, chunk_size)


@register_flop_formula(torch.ops.companion.mlstm_backward)
def _backward(*shapes: Any, out_shape: Any = None, **more: Any) -> int:
    *_, q, _k, v, _i, _f, _C, _n, _m, _ends, chunk_size, _sigmoid, _gradient = shapes
    return 2 * mlstm_flops(q, v, chunk_size)


@register_flop_formula(torch.ops.companion.mlstm_step)
def _step(q: Shape, k: Shape, v: Shape, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    """No products of matrices, but all that a step does (arXiv 2510.02228, appendix)."""
    batch_size, n_heads, d_qk = q
    return int(batch_size * n_heads * mlstm_recurrent_flops(d_qk, v[-1]))


@register_flop_formula(torch.ops.companion.matvec)
def _matvec(x: Shape, weight: Shape, norm: Any, swiglu: bool, residual: Any, small: Shape | None, *rest: Any,
            out_shape: Any = None, **more: Any) -> int:  # fmt: skip
    rows = weight[0] + (0 if small is None else small[0])
    return 2 * rows * weight[1]


@register_flop_formula(torch.ops.companion.attend_step)
def _attend(
    qkv: Shape, cos: Shape, sin: Shape, position: Shape, keys: Shape, values: Shape, *rest: Any,
    out_shape: Any = None, **more: Any,
) -> int:  # fmt: skip
    """As if every slot of the cache were full: how many are is known on the device only."""
    batch_size, _, slots, d_qk = keys
    n_heads = rest[2]
    return 2 * batch_size * n_heads * slots * (d_qk + values[-1])
