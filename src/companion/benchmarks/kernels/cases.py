"""Inputs on which mLSTM kernels are checked: lengths, head sizes, gate regimes, states, layouts, packed sequences.

All numbers of a case can be stored exactly in bfloat16 as well as in float16, so one float64 reference serves every
dtype (`inputs`). No torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from companion.errors import InputError

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
    cases = all_cases()
    if not names:
        return tuple(case for case in cases if case.group not in ("long", "tiny"))
    known = {case.name for case in cases} | {case.group for case in cases}
    if unknown := [name for name in names if name not in known]:
        groups = ", ".join(dict.fromkeys(case.group for case in cases))
        raise InputError(f"case {', '.join(unknown)} is not known; there are the groups {groups} (see --list)")
    return tuple(case for case in cases if case.name in names or case.group in names)


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
    """Without normalizer the orthogonal upstream gradient is of no interest."""
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
    common = {"group": "tiny", "n_heads": 1, "chunk_sizes": (16,), "orthogonal": True}
    return [
        Case(
            name="tiny",
            context_length=35,
            d_qk=16,
            d_hv=32,
            regime="switching",
            dtypes=("float32",),
            configurations=True,
            **common,  # type: ignore[arg-type]
        ),
        Case(
            name="tiny_state",
            context_length=20,
            d_qk=20,
            d_hv=16,
            regime="switching",
            dtypes=("float16",),
            initial_state=True,
            state_gradient=True,
            **common,  # type: ignore[arg-type]
        ),
    ]


def reference_work(case: Case) -> float:
    """Steps of the float64 recurrence that a reference takes, to share cases out evenly."""
    return case.context_length * math.sqrt(case.d_qk * case.d_hv / 4096)
