"""Inputs on which mLSTM kernels are checked: lengths, head sizes, gate regimes, states, layouts, packed sequences.

All numbers of a case can be stored exactly in bfloat16 as well as in float16, so one float64 reference serves every
dtype. Needs torch (extra `kernels`); importing this module does not.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from companion.kernels.state import MLSTMState

DTYPES = ("bfloat16", "float16", "float32")
CHUNK_SIZES = (16, 32, 64, 128, 256)
HEAD_SIZES = ((16, 16), (20, 36), (64, 64), (128, 128), (128, 256), (256, 512), (512, 512))
#: Gate pre-activations of a case; see `gates`.
REGIMES = (
    "typical",
    "switching",
    "open",
    "closed",
    "wide",
    "inputs",
    "input_high",
    "input_low",
    "soft_cap",
    "growing",
    "shrinking",
)
#: How a case hands over its tensors: whole, as (B, H, T, d) by strides or by name, or as slices of one tensor.
LAYOUTS = ("bthd", "transposed", "bhtd", "fused")
#: Upstream gradients: any, or orthogonal to h per token and head, which holds up to the rounding of a dtype.
GENERAL, ORTHOGONAL = "general", "orthogonal"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One set of inputs, and what is checked on it.

    Attributes
    ----------
    name, group
        of the case; groups are what `--cases` selects besides names.
    context_length, batch_size, n_heads, d_qk, d_hv
        T, B, H and the widths of a head.
    regime
        of the gates, one of `REGIMES`.
    initial_state, state_gradient
        start from a given memory; the final memory has an upstream gradient too.
    layout
        one of `LAYOUTS`.
    sequences
        lengths of packed sequences (B = 1, T their sum).
    gate
        `exponential`, `sigmoid`, or `forget_only` (sigmoid with the input gate saturated at 1).
    orthogonal
        also check gradients for an upstream gradient orthogonal to h.
    dtypes, chunk_sizes
        that are checked.
    configurations
        also check every candidate configuration of every kernel.
    peers
        also run the peers.
    """

    name: str
    group: str
    context_length: int
    batch_size: int = 1
    n_heads: int = 2
    d_qk: int = 64
    d_hv: int = 64
    regime: str = "typical"
    initial_state: bool = False
    state_gradient: bool = False
    layout: str = "bthd"
    sequences: tuple[int, ...] | None = None
    gate: str = "exponential"
    orthogonal: bool = False
    dtypes: tuple[str, ...] = DTYPES
    chunk_sizes: tuple[int, ...] = (64,)
    configurations: bool = False
    peers: bool = False

    @property
    def num_states(self) -> int:
        """Memories: one per sequence."""
        return len(self.sequences) if self.sequences is not None else self.batch_size

    @property
    def modes(self) -> tuple[str, ...]:
        """Upstream gradients that are needed: any, and an orthogonal one for every dtype."""
        return (GENERAL, *(orthogonal_mode(dtype) for dtype in self.dtypes if self.orthogonal))


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


def orthogonal_mode(dtype: str) -> str:
    """Name of the upstream gradient that is orthogonal to h up to the rounding of a dtype."""
    return f"{ORTHOGONAL} {dtype}"


def all_cases() -> tuple[Case, ...]:
    """Every case, in the order in which they are checked."""
    return (*_lengths(), *_heads(), *_regimes(), *_states(), *_layouts(), *_packed(), *_gates(), *_long(), *_tiny())


def select_cases(names: Sequence[str] | None) -> tuple[Case, ...]:
    """Cases of these names or groups; without names all but `long` and `tiny`, which must be asked for.

    Raises
    ------
    InputError
        if a name is neither a case nor a group.
    """
    from companion.errors import InputError

    cases = all_cases()
    if not names:
        return tuple(case for case in cases if case.group not in ("long", "tiny"))
    known = {case.name for case in cases} | {case.group for case in cases}
    if unknown := [name for name in names if name not in known]:
        groups = ", ".join(dict.fromkeys(case.group for case in cases))
        raise InputError(f"case {', '.join(unknown)} is not known; there are the groups {groups} (see --list)")
    return tuple(case for case in cases if case.name in names or case.group in names)


def make_inputs(case: Case, device: str = "cpu") -> Inputs:
    """The tensors of a case: the same on every machine (drawn on the CPU from a seed made of the name).

    Queries and keys share a direction in all regimes but `switching`, so that nᵀq has a sign. Without it some tokens
    divide by almost nothing, and a relative error then says how near to nothing, not how good a kernel is. In
    `switching` the divisor max(|nᵀq|, exp(−m)) moves between its two sides, and neither is near zero.
    """
    import torch

    from companion.kernels.state import MLSTMState
    from companion.kernels.torch_forms import chunkwise

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
    import torch

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
    import torch

    return x.to(torch.bfloat16).to(torch.float16).to(x.dtype)


def _lengths() -> list[Case]:
    cases = [
        Case(name=f"length_{length}", group="lengths", context_length=length, regime="switching", chunk_sizes=(16, 64))
        for length in (1, 15, 63, 64, 100)
    ]
    cases.append(Case(name="length_1000", group="lengths", context_length=1000, d_qk=128, d_hv=128, regime="inputs"))
    cases.append(Case(name="length_4096", group="lengths", context_length=4096, regime="soft_cap", orthogonal=True))
    return cases


def _heads() -> list[Case]:
    return [
        Case(
            name=f"heads_{d_qk}_{d_hv}",
            group="heads",
            context_length=300,
            d_qk=d_qk,
            d_hv=d_hv,
            regime="switching",
            orthogonal=True,
            initial_state=True,
            state_gradient=True,
            chunk_sizes=CHUNK_SIZES,
            configurations=True,
        )
        for d_qk, d_hv in HEAD_SIZES
    ]


def _regimes() -> list[Case]:
    """512 tokens: several chunks of the sizes at which peers run.

    With closed forget gates h is v but for its sign: for an upstream gradient orthogonal to h, dq and dk are zero, and
    a relative error of them says nothing.
    """
    small = [
        Case(
            name=f"regime_{regime}",
            group="regimes",
            context_length=512,
            regime=regime,
            orthogonal=regime != "closed",
            chunk_sizes=(64, 128, 256),
            peers=True,
        )
        for regime in REGIMES
    ]
    wide = [
        Case(
            name=f"peers_{d_qk}_{d_hv}_{regime}",
            group="regimes",
            context_length=1024,
            n_heads=1,
            d_qk=d_qk,
            d_hv=d_hv,
            regime=regime,
            orthogonal=True,
            dtypes=("bfloat16", "float32"),
            chunk_sizes=(64, 128, 256),
            peers=True,
        )
        for d_qk, d_hv in ((128, 128), (128, 256), (256, 512))
        for regime in ("typical", "growing")
    ]
    return small + wide


def _states() -> list[Case]:
    common = {"group": "states", "context_length": 100, "batch_size": 2, "n_heads": 3, "chunk_sizes": (16, 64)}
    return [
        Case(name="state_initial", initial_state=True, regime="switching", **common),  # type: ignore[arg-type]
        Case(name="state_gradient", state_gradient=True, regime="switching", **common),  # type: ignore[arg-type]
        Case(
            name="state_both",
            initial_state=True,
            state_gradient=True,
            orthogonal=True,
            regime="wide",
            **common,  # type: ignore[arg-type]
        ),
    ]


def _layouts() -> list[Case]:
    return [
        Case(
            name=f"layout_{layout}",
            group="layouts",
            context_length=100,
            batch_size=2,
            n_heads=3,
            d_qk=32,
            d_hv=64,
            regime="switching",
            layout=layout,
        )
        for layout in LAYOUTS[1:]
    ]


def _packed() -> list[Case]:
    lengths = (0, 1, 17, 64, 0, 130, 1, 63)
    return [
        Case(
            name=f"packed{'_state' if state else ''}",
            group="packed",
            context_length=sum(lengths),
            sequences=lengths,
            regime="switching",
            initial_state=state,
            state_gradient=state,
            chunk_sizes=(16, 64),
        )
        for state in (False, True)
    ]


def _gates() -> list[Case]:
    """Without normaliser the orthogonal upstream gradient is of no interest."""
    return [
        Case(
            name=f"{gate}_{d_qk}_{d_hv}",
            group="gates",
            context_length=512,
            d_qk=d_qk,
            d_hv=d_hv,
            gate=gate,
            regime="soft_cap" if gate == "sigmoid" else "typical",
            chunk_sizes=(64, 128, 256),
            peers=True,
        )
        for gate in ("sigmoid", "forget_only")
        for d_qk, d_hv in ((64, 64), (128, 256))
    ]


def _long() -> list[Case]:
    return [Case(name="length_65536", group="long", context_length=65536, regime="soft_cap", chunk_sizes=(64, 256))]


def _tiny() -> list[Case]:
    """Small enough for Triton's interpreter on a CPU, whose bfloat16 arithmetic is wrong."""
    dtypes = ("float16", "float32")
    common = {"group": "tiny", "n_heads": 1, "dtypes": dtypes, "chunk_sizes": (16,), "orthogonal": True}
    return [
        Case(
            name="tiny",
            context_length=35,
            d_qk=16,
            d_hv=32,
            regime="switching",
            configurations=True,
            **common,  # type: ignore[arg-type]
        ),
        Case(
            name="tiny_state",
            context_length=20,
            d_qk=20,
            d_hv=16,
            regime="switching",
            initial_state=True,
            state_gradient=True,
            **common,  # type: ignore[arg-type]
        ),
    ]


def reference_work(case: Case) -> float:
    """Steps of the float64 recurrence that a reference takes, to share cases out evenly."""
    return case.context_length * math.sqrt(case.d_qk * case.d_hv / 4096)
