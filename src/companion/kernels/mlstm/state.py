"""What the mLSTM remembers between tokens."""

from typing import NamedTuple

import torch

#: The chunkwise forms take no log f below this, by the dtype of their exponents: sums of larger numbers over a chunk
#: would lose the digits of all other gates, and f̃ of −1e9 is a usual way to reset. Such a gate forgets everything
#: unless ĩ of later tokens lies nearly as far below what is remembered.
LEAST_LOG_F = {torch.float32: -1e3, torch.float64: -1e6}
#: Least normalizer by the dtype of the arithmetic: it stands in for exp(−m) where that underflows, so that a token
#: whose nᵀq is 0 too (zero queries or keys) has h = 0, as the equations say, and finite gradients.
LEAST_NORMALIZER = {torch.float32: 1e-30, torch.float64: 1e-200}


class MLSTMState(NamedTuple):
    """State of the mLSTM after some tokens: matrix memory, normalizer, and the exponent that scales both.

    The unscaled memory is exp(m)·C and exp(m)·n; m only keeps the stored numbers in range (arXiv 2405.04517,
    equations 19 to 27). An empty memory has C = 0, n = 0, m = −inf.

    Attributes
    ----------
    C
        (B, H, d_qk, d_hv)
    n
        (B, H, d_qk)
    m
        (B, H)

    Examples
    --------
    >>> state = MLSTMState.empty(batch_size=1, n_heads=2, d_qk=16, d_hv=32)
    >>> state.C.shape, state.m.tolist()
    (torch.Size([1, 2, 16, 32]), [[-inf, -inf]])
    """

    C: torch.Tensor
    n: torch.Tensor
    m: torch.Tensor

    @classmethod
    def empty(
        cls,
        batch_size: int,
        n_heads: int,
        d_qk: int,
        d_hv: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> "MLSTMState":
        """The state before the first token: C and n of `dtype`, m in float32 (float64 if that is `dtype`)."""
        exponent = torch.promote_types(dtype, torch.float32)
        return cls(
            torch.zeros(batch_size, n_heads, d_qk, d_hv, dtype=dtype, device=device),
            torch.zeros(batch_size, n_heads, d_qk, dtype=exponent, device=device),
            torch.full((batch_size, n_heads), -torch.inf, dtype=exponent, device=device),
        )
