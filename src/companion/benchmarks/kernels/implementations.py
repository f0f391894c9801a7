"""What is checked and timed: this package, plain torch, and peers, which are optional and listed as absent if missing.

Every implementation takes q, k, v and gates in its own layout (no transpose is timed) and says which computation it
does: only those of the same computation are comparable number by number.

* `exponential`: the mLSTM of this package (equations of `companion.kernels.mlstm`).
* `sigmoid`: its sigmoid-gate variant without a normalizer.
* `forget_only`: linear attention with a forget gate, no input gate, no normalizer (simple_gla).
* `attention`: causal softmax attention, what the mLSTM replaces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any

#: Widths and number of heads of attention in a model of d_model 4096: what stands where the mLSTM has 8 heads.
ATTENTION_HEADS, ATTENTION_WIDTH = 32, 128
#: Distribution and module of every library.
LIBRARIES = {
    "companion": ("xlstm-scaling-companion", "companion"),
    "torch": ("torch", "torch"),
    "mlstm_kernels": ("mlstm-kernels", "mlstm_kernels"),
    "fla": ("fla-core", "fla"),
}
#: Small number that peers add to the normalizer; theirs is 1e-6, zero is the mLSTM's definition.
PEER_EPSILON = 0.0
#: Of the peers that are checked, those that are timed: the lengths of chunks their authors chose.
TIMED_PEERS = (
    "mlstm_kernels limit_chunk, chunk 64",
    "mlstm_kernels xl_chunk, chunk 128",
    "mlstm_kernels xl_chunk, chunk 256",
    "mlstm_kernels xl_chunk sigmoid, chunk 128",
    "simple_gla, chunk 64",
)


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One way to compute whole sequences.

    Attributes
    ----------
    name
        in records.
    library
        key of `LIBRARIES`.
    computation
        see the module.
    layout
        `bthd` or `bhtd`.
    call
        `call(q, k, v, i, f, state, return_state) -> (h, state or None)`; states are tuples (C, n, m) of (B, H, …).
    chunk_size
        L; None: the library's choice.
    normalizer_gradient
        False where the backward leaves the normalizer out: right only if the upstream gradient is orthogonal to h.
    has_state
        takes an initial state and returns the final one.
    multiple
        T must be a multiple of this.
    """

    name: str
    library: str
    computation: str
    layout: str
    call: Callable[..., Any]
    chunk_size: int | None = None
    normalizer_gradient: bool = True
    has_state: bool = True
    multiple: int = 1

    @property
    def is_peer(self) -> bool:
        """Not of this package, and not its baseline."""
        return self.library not in ("companion", "torch")

    def refusal(self, context_length: int, d_qk: int, d_hv: int) -> str | None:
        """Why it cannot run a shape, by its own documentation; None if it can."""
        if context_length % self.multiple:
            return f"context_length {context_length} is not a multiple of {self.multiple}"
        if self.library == "mlstm_kernels" and (d_qk % 16 or d_hv % 16):
            return f"head sizes {d_qk}, {d_hv} are not multiples of 16"
        return None


@dataclass(frozen=True, kw_only=True)
class StepImplementation:
    """One way to compute a single token: `call(q, k, v, i, f, state) -> (h, state)`; vectors (B, H, d)."""

    name: str
    library: str
    state_dtype: str
    call: Callable[..., Any]


def absent(library: str) -> str | None:
    """Why a library cannot be used here; None if it can."""
    if library == "companion":
        return None if find_spec("triton") else "triton is not installed"
    module = LIBRARIES[library][1]
    return None if find_spec(module) else f"{module} is not installed"


def versions() -> dict[str, str | None]:
    """Version of every library and of Triton; None if absent."""
    found: dict[str, str | None] = {}
    for name in ("torch", "triton", "mlstm-kernels", "flash-linear-attention", "fla-core"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def ours(chunk_size: int | None, *, normalizer_gradient: bool = True, gate: str = "exponential") -> Implementation:
    """The Triton kernels of this package."""
    detached = "" if normalizer_gradient else ", detached normaliser"
    name = f"companion{detached}{_sizes(chunk_size)}{'' if gate == 'exponential' else ', sigmoid'}"
    call = partial(_companion, backend="triton", chunk_size=chunk_size, gate=gate, detached=not normalizer_gradient)
    return Implementation(
        name=name,
        library="companion",
        computation=gate,
        layout="bthd",
        call=call,
        chunk_size=chunk_size,
        normalizer_gradient=normalizer_gradient,
    )


def plain_torch(
    chunk_size: int | None, *, normalizer_gradient: bool = True, gate: str = "exponential"
) -> Implementation:
    """The chunkwise form in plain torch, which errors are compared with."""
    detached = "" if normalizer_gradient else ", detached normaliser"
    call = partial(_companion, backend="torch", chunk_size=chunk_size, gate=gate, detached=not normalizer_gradient)
    return Implementation(
        name=f"torch chunkwise{detached}{_sizes(chunk_size)}{'' if gate == 'exponential' else ', sigmoid'}",
        library="torch",
        computation=gate,
        layout="bthd",
        call=call,
        chunk_size=chunk_size,
        normalizer_gradient=normalizer_gradient,
    )


def peers() -> tuple[Implementation, ...]:
    """mlstm_kernels at chunk lengths 64, 128, 256 (exponential and sigmoid gate) and simple_gla."""
    found = []
    for form, module in (("limit_chunk", "triton_limit_chunk"), ("xl_chunk", "triton_xl_chunk")):
        for size in (64, 128, 256):
            found.append(_mlstm_kernels(f"mlstm_kernels {form}, chunk {size}", module, size, "exponential"))
    for size in (64, 128, 256):
        name = f"mlstm_kernels xl_chunk sigmoid, chunk {size}"
        found.append(_mlstm_kernels(name, "triton_xl_chunk_siging", size, "sigmoid"))
    found.append(
        Implementation(
            name="simple_gla, chunk 64",
            library="fla",
            computation="forget_only",
            layout="bthd",
            call=_simple_gla,
            chunk_size=64,
            has_state=False,
        )
    )
    return tuple(found)


def attention() -> tuple[Implementation, ...]:
    """Scaled dot-product attention of torch, causal, with its cuDNN and its flash backend."""
    return tuple(
        Implementation(
            name=f"attention, {label}",
            library="torch",
            computation="attention",
            layout="bhtd",
            call=partial(_attention, backend=backend),
            has_state=False,
        )
        for label, backend in (("cuDNN", "CUDNN_ATTENTION"), ("flash", "FLASH_ATTENTION"))
    )


def timed() -> tuple[Implementation, ...]:
    """What the benchmark times for whole sequences, in the order of its tables."""
    timed_peers = [peer for peer in peers() if peer.name in TIMED_PEERS]
    return (
        ours(None),
        ours(None, normalizer_gradient=False),
        ours(None, gate="sigmoid"),
        plain_torch(64),
        *timed_peers,
        *attention(),
    )


def timed_steps() -> tuple[StepImplementation, ...]:
    """What the benchmark times for single tokens."""
    return (
        StepImplementation(name="companion step", library="companion", state_dtype="float32", call=_companion_step),
        StepImplementation(
            name="companion step, bfloat16 state", library="companion", state_dtype="bfloat16", call=_companion_step
        ),
        StepImplementation(
            name="torch step", library="torch", state_dtype="float32", call=partial(_companion_step, backend="torch")
        ),
        StepImplementation(
            name="mlstm_kernels step", library="mlstm_kernels", state_dtype="float32", call=_mlstm_kernels_step
        ),
    )


def _sizes(chunk_size: int | None) -> str:
    return f", chunk {chunk_size}" if chunk_size else ""


def _companion(
    q: Any,
    k: Any,
    v: Any,
    i: Any,
    f: Any,
    state: Any = None,
    return_state: bool = False,
    *,
    backend: str,
    chunk_size: int | None,
    gate: str,
    detached: bool,
    **options: Any,
) -> Any:
    from companion.kernels.mlstm.api import mlstm
    from companion.kernels.mlstm.state import MLSTMState

    found = mlstm(
        q,
        k,
        v,
        i,
        f,
        initial_state=None if state is None else MLSTMState(*state),
        return_state=True,
        chunk_size=chunk_size,
        backend=backend,
        gate=gate,
        normalizer_gradient=not detached,
        **options,
    )
    return found if return_state else (found[0], None)


def _companion_step(q: Any, k: Any, v: Any, i: Any, f: Any, state: Any, *, backend: str = "triton") -> Any:
    from companion.kernels.mlstm.api import mlstm_step

    return mlstm_step(q, k, v, i, f, state, backend=backend)


def _mlstm_kernels(name: str, module: str, chunk_size: int, computation: str) -> Implementation:
    return Implementation(
        name=name,
        library="mlstm_kernels",
        computation=computation,
        layout="bhtd",
        call=partial(_run_mlstm_kernels, module=module, chunk_size=chunk_size),
        chunk_size=chunk_size,
        normalizer_gradient=computation == "sigmoid",
        has_state=computation == "exponential",
        multiple=chunk_size,
    )


def _run_mlstm_kernels(
    q: Any,
    k: Any,
    v: Any,
    i: Any,
    f: Any,
    state: Any = None,
    return_state: bool = False,
    *,
    module: str,
    chunk_size: int,
) -> Any:
    import torch
    from mlstm_kernels.torch.chunkwise import registry

    # its gates are compiled per shape; at the default limit a long run would fall back to slow code without a word
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 4096
    initial = {}
    if state is not None:
        C, n, m = state
        initial = {"c_initial": C, "n_initial": n, "m_initial": m[..., None]}
    extra = {"normalize": False} if module.endswith("siging") else {}
    found = registry[module](
        q,
        k,
        v,
        i,
        f,
        **initial,
        return_last_states=return_state,
        eps=PEER_EPSILON,
        chunk_size=chunk_size,
        autocast_kernel_dtype=q.dtype,
        **extra,
    )
    if not return_state:
        return found, None
    h, (C, n, m) = found
    return h, (C, n, m.reshape(m.shape[:2]))


def _mlstm_kernels_step(q: Any, k: Any, v: Any, i: Any, f: Any, state: Any) -> Any:
    from mlstm_kernels.torch.recurrent import registry_step

    C, n, m = state
    h, (C, n, m) = registry_step["triton"](
        q, k, v, i[..., None], f[..., None], C, n, m[..., None], eps=PEER_EPSILON, dtype_state=C.dtype
    )
    return h, (C, n, m.reshape(m.shape[:2]))


def _simple_gla(q: Any, k: Any, v: Any, i: Any, f: Any, state: Any = None, return_state: bool = False) -> Any:
    """`i` is not used: there is no input gate."""
    import torch
    from fla.ops.simple_gla import chunk_simple_gla

    return chunk_simple_gla(q, k, v, torch.nn.functional.logsigmoid(f.float()))[0], None


def _attention(
    q: Any, k: Any, v: Any, i: Any, f: Any, state: Any = None, return_state: bool = False, *, backend: str
) -> Any:
    """`i` and `f` are not used."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, backend)):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True), None
