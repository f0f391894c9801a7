"""The tensors of a kernel case: drawn from a seed made of its name, the same on every machine. Needs torch."""

import zlib
from typing import NamedTuple

import torch

from companion.benchmarks.kernels.cases import DTYPES, GENERAL, Case, orthogonal_mode
from companion.kernels.mlstm.state import MLSTMState
from companion.kernels.mlstm.torch_forms import chunkwise


class Inputs(NamedTuple):
    """Tensors of a case in float64: (B, T, H, d), gates (B, T, H), states and their upstream gradients."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    i: torch.Tensor
    f: torch.Tensor
    initial_state: MLSTMState | None
    upstream: dict[str, torch.Tensor]
    state_upstream: MLSTMState | None


def make_inputs(case: Case, device: str = "cpu") -> Inputs:
    """The tensors of a case: the same on every machine (drawn on the CPU from a seed made of the name).

    Queries and keys share a direction in all regimes but `switching`, so that nᵀq has a sign. Without it some tokens
    divide by almost nothing, and a relative error then says how near to nothing, not how good a kernel is. In
    `switching` the divisor max(|nᵀq|, exp(−m)) moves between its two sides, and neither is near zero.
    """
    random = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    shape = (case.batch_size, case.context_length, case.n_heads)
    direction = torch.where(normal(case.n_heads, case.d_qk) > 0, 1.0, -1.0).double()
    shared = 0.0 if case.regime == "switching" else (2.0 if case.d_qk < 64 else 1.0)
    q, k = (normal(*shape, case.d_qk) + shared * direction for _ in range(2))
    v = normal(*shape, case.d_hv)
    i, f = gates(case.regime, shape, random)
    if case.gate == "forget_only":
        i = torch.full_like(i, 64.0)
    q, k, v, i, f = (to_half(x) for x in (q, k, v, i, f))
    state = state_upstream = None
    memory = (case.num_states, case.n_heads)
    if case.initial_state:
        n = (normal(*memory, case.d_qk) / 4 + direction).float()
        C = normal(*memory, case.d_qk, case.d_hv).float() / 4 + n[..., None] / 2
        state = MLSTMState(C.double(), n.double(), normal(*memory).float().double())
    if case.state_gradient:
        widths = ((case.d_qk, case.d_hv), (case.d_qk,), ())
        state_upstream = MLSTMState(*((normal(*memory, *width) / 8).float().double() for width in widths))
    upstream = {GENERAL: to_half(normal(*shape, case.d_hv))}
    if case.orthogonal:
        gate = "exponential" if case.gate == "exponential" else "sigmoid"
        h = chunkwise(q, k, v, i, f, initial_state=state, gate=gate)[0]
        raw = normal(*shape, case.d_hv)
        raw = raw - h * (raw * h).sum(-1, keepdim=True) / (h * h).sum(-1, keepdim=True).clamp_min(1e-300)
        upstream |= {orthogonal_mode(name): raw.to(getattr(torch, name)).double() for name in DTYPES}
    upstream = {mode: upstream[mode].to(device) for mode in case.modes}
    q, k, v, i, f = (x.to(device) for x in (q, k, v, i, f))
    initial, final = (
        MLSTMState(*(x.to(device) for x in memory)) if memory is not None else None
        for memory in (state, state_upstream)
    )
    return Inputs(q, k, v, i, f, initial, upstream, final)


def gates(regime: str, shape: tuple[int, int, int], random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pre-activations ĩ and f̃ of a regime, shape (B, T, H), float64.

    `typical` is an xLSTM at the start of training (input-gate bias −10); `switching` keeps |nᵀq| near exp(−m); `open`
    and `closed` forget nothing or everything; `wide` takes f̃ from −30 to 30; `inputs` takes ĩ from −40 to 40, and
    `input_high`, `input_low` stay at either end; `soft_cap` has both gates at the edges ±15 of 15·tanh(x/15);
    `growing` and `shrinking` move ĩ along the sequence, so that m follows it or lags behind.
    """

    def normal() -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random, dtype=torch.float64)

    ramp = torch.linspace(-1, 1, shape[1], dtype=torch.float64)[None, :, None].expand(shape)
    match regime:
        case "typical":
            return normal() - 10, uniform(3, 6)
        case "switching":
            return normal() - 2.3, uniform(3, 6)
        case "open":
            return normal(), 30 + normal()
        case "closed":
            return normal(), -30 + normal()
        case "wide":
            return normal(), uniform(-30, 30)
        case "inputs":
            return uniform(-40, 40), uniform(0, 6)
        case "input_high":
            return 40 + normal() / 4, uniform(3, 6)
        case "input_low":
            return -40 + normal() / 4, uniform(3, 6)
        case "soft_cap":
            return 15 * torch.tanh(4 * normal()), 15 * torch.tanh(4 * normal())
        case "growing":
            return 20 * ramp + normal(), uniform(3, 6)
        case "shrinking":
            return -20 * ramp + normal(), uniform(3, 6)
    raise ValueError(f"no regime {regime!r}")


def to_half(x: torch.Tensor) -> torch.Tensor:
    """The nearest numbers that bfloat16 and float16 both hold exactly, in the dtype of `x`."""
    return x.to(torch.bfloat16).to(torch.float16).to(x.dtype)
