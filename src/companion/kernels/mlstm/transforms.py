"""What keeps the Triton kernels from running under a transform of torch: they go through backward passes only.

Left alone, torch would be wrong or unclear: it takes the forward-mode derivative of the kernels for zero, runs them
once per example under vmap, and stops in torch.func.grad with a line about autograd functions.

Of the names of torch used here only `torch.autograd.forward_ad.unpack_dual` is public. The others are the same from
torch 2.6 to 2.13; where one is absent, what it would find is left to torch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

Tensor = torch.Tensor

FORWARD_MODE = "kernels have no forward-mode derivative (torch.func.jvp, torch.autograd.forward_ad)"
VMAP = "kernels do not run under torch.func.vmap"
REVERSE_MODE = "kernels do not run under torch.func.grad, vjp or jacrev (torch.autograd.grad and backward() work)"
_BY_NAME = {"Vmap": VMAP, "Grad": REVERSE_MODE, "Jvp": FORWARD_MODE}
_functorch: Any = getattr(torch._C, "_functorch", None)
_innermost = getattr(_functorch, "peek_interpreter_stack", lambda: None)
_is_wrapped, _is_batched, _is_tracked, _unwrapped = (
    getattr(_functorch, name, lambda x: False)
    for name in ("is_functorch_wrapped_tensor", "is_batchedtensor", "is_gradtrackingtensor", "get_unwrapped")
)


def transform_obstacle(tensors: Sequence[Tensor]) -> str | None:
    """Why the kernels cannot take these tensors under the transforms that are active; None if they can.

    Outside of all transforms that costs the host 0.2 µs. A transform of other tensors is no obstacle, but while a graph
    is compiled tensors do not show which they are.
    """
    # read here: a compiled graph is then traced anew where another level is active
    forward = getattr(forward_ad, "_current_level", 0) >= 0
    active = FORWARD_MODE if forward else _innermost_obstacle()
    if active is None:
        return None
    if torch.compiler.is_compiling():
        return active or None
    for x in tensors:
        if forward_ad.unpack_dual(x).tangent is not None:
            return FORWARD_MODE
        inner: Any = x
        while _is_wrapped(inner):
            if _is_batched(inner):
                return VMAP
            if _is_tracked(inner):
                return REVERSE_MODE
            inner = _unwrapped(inner)
    # not even a gradient of its own survives within a transform of others
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return active or None if recorded and _innermost() is not None else None


@torch.compiler.assume_constant_result
def _innermost_obstacle() -> str | None:
    """What the innermost transform of torch.func is an obstacle for; empty if for nothing, None outside of all.

    A compiled graph asks while it is traced, and torch traces it anew where other transforms are active.
    """
    top = _innermost()
    return None if top is None else _BY_NAME.get(top.key().name, "")
