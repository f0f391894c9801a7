"""Inputs of the mLSTM for tests, in regimes of its gates, and the error measure they share."""

import torch

from companion.kernels import MLSTMState

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
#: Ranges of the gates' pre-activations, (input, forget): from what training shows to what can only just be computed.
REGIMES = {
    "usual": ((-3.0, 3.0), (0.0, 6.0)),
    "open": ((-2.0, 2.0), (20.0, 30.0)),
    "closed": ((-2.0, 2.0), (-30.0, -20.0)),
    "silent": ((-40.0, -30.0), (-8.0, 6.0)),
    "soft cap": ((14.0, 15.0), (-15.0, 15.0)),
    "extreme": ((-40.0, 40.0), (-30.0, 30.0)),
}


def mlstm_inputs(
    context_length: int,
    *,
    batch_size: int = 2,
    n_heads: int = 2,
    d_qk: int = 16,
    d_hv: int = 24,
    regime: str = "usual",
    dtype: torch.dtype = torch.float64,
    gate_dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Inputs:
    """q, k, v, i, f of layout (B, T, H, d); q, k, v normal, gates uniform in the ranges of the regime."""
    generator = torch.Generator().manual_seed(seed)
    leading = (batch_size, context_length, n_heads)
    q, k, v = (
        torch.randn(*leading, width, generator=generator, dtype=torch.float64).to(dtype) for width in (d_qk, d_qk, d_hv)
    )
    i, f = (
        torch.empty(leading, dtype=torch.float64).uniform_(*bounds, generator=generator).to(gate_dtype or dtype)
        for bounds in REGIMES[regime]
    )
    return q, k, v, i, f


def mlstm_state(
    batch_size: int = 2,
    n_heads: int = 2,
    d_qk: int = 16,
    d_hv: int = 24,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 1,
) -> MLSTMState:
    """A state as some earlier tokens could have left it."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch_size, n_heads, d_qk, d_hv), (batch_size, n_heads, d_qk), (batch_size, n_heads))
    return MLSTMState(*(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes))


def relative_error(found: torch.Tensor, reference: torch.Tensor) -> float:
    """‖found − reference‖ / ‖reference‖ in float64; absolute where the reference is zero."""
    reference = reference.double()
    norm = float(reference.norm())
    return float((found.double() - reference).norm()) / (norm or 1.0)
