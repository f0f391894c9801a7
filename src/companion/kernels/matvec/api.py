"""`matvec`: a linear layer for one token, with the norm before it and the sum after it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.errors import InputError
from companion.kernels.common.device import can_overlap
from companion.kernels.common.host import cdiv

KINDS = ("plain", "norm", "swiglu")
#: Rows of a program and numbers of a row at once: fastest of those tried on an H200 for the matrices of a 7B model.
_WIDE, _SMALL = (4, 2048, 8), (2, 2048, 8)


def matvec(
    x: Tensor,
    weight: Tensor,
    *,
    kind: str = "plain",
    norm: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    epsilon: float = 1e-6,
) -> Tensor:
    """W f(x) (+ bias) (+ residual), of one token or several.

    One token of a CUDA GPU in bfloat16 or float16 without gradient takes one kernel that moves each weight once
    (memory is the limit, so that is all it can do); everything else plain torch.

    Parameters
    ----------
    x
        (B, K); (B, 2·K) for `swiglu`.
    weight
        (N, K)
    kind
        f: `plain`, `norm` (RMSNorm with weights `norm` (K,)), or `swiglu` (silu of the first half, times the second).
    bias, residual
        (N,) and (B, N), added.

    Returns
    -------
    Tensor
        (B, N), in the dtype of x.
    """
    if kind not in KINDS or (kind == "norm") != (norm is not None):
        raise InputError(f"matvec: kind {kind!r} is not one of {', '.join(KINDS)}, and only norm has weights")
    fast = x.is_cuda and x.shape[0] == 1 and x.dtype in (torch.bfloat16, torch.float16) and weight.is_contiguous()
    if fast and not torch.is_grad_enabled():
        return _matvec(x, weight, kind, norm, bias, residual, epsilon)
    if kind == "norm":
        x = F.rms_norm(x, x.shape[-1:], norm, epsilon)
    elif kind == "swiglu":
        gate, up = x.chunk(2, dim=-1)
        x = F.silu(gate) * up
    y = F.linear(x, weight, bias)
    return y if residual is None else residual + y


_library = torch.library.Library("companion", "FRAGMENT")
_library.define(
    "matvec(Tensor x, Tensor weight, str kind, Tensor? norm, Tensor? bias, Tensor? residual, float epsilon) -> Tensor"
)


@torch.library.impl(_library, "matvec", "CUDA")
@torch.library.impl(_library, "matvec", "CPU")  # under Triton's interpreter
def _kernel(
    x: Tensor,
    weight: Tensor,
    kind: str,
    norm: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    epsilon: float,
) -> Tensor:
    from companion.kernels.matvec import triton_matvec

    N, K = weight.shape
    out = x.new_empty(1, N)
    overlap = can_overlap(x.device)
    rows, width, warps = _WIDE if N > 6000 else _SMALL
    triton_matvec.matvec[(cdiv(N, rows),)](
        x.contiguous(), weight, weight if norm is None else norm, weight if bias is None else bias,
        weight if residual is None else residual.contiguous(), out, N, epsilon,
        K=K, KIND=kind, BIAS=bias is not None, RESIDUAL=residual is not None,
        BLOCK_N=rows, BLOCK_K=width, OVERLAP=overlap, num_warps=warps, num_stages=3,
        **({"launch_pdl": True} if overlap else {}),
    )  # fmt: skip
    return out


@torch.library.register_fake("companion::matvec", lib=_library)
def _(
    x: Tensor,
    weight: Tensor,
    kind: str,
    norm: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    epsilon: float,
) -> Tensor:
    return x.new_empty(1, weight.shape[0])


_matvec = torch.ops.companion.matvec.default
