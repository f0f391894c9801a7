"""The three forms of the mLSTM cell side by side: recurrent, chunkwise, parallel; and the best chunk length.

All three compute the same outputs (arXiv 2405.04517, 2503.14376). The recurrent form touches the whole state for every
token, the parallel form every pair of tokens; chunks of length L do both in part.
"""

from typing import Any, Literal

import numpy as np
import pandas as pd

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import check_context_length
from companion.accounting.inference import BF16, Precision
from companion.architectures import MLSTM, Architecture
from companion.architectures.mlstm import mlstm_core_flops, mlstm_recurrent_flops
from companion.errors import InputError
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware
from companion.numeric import Numeric

Measure = Literal["flops", "bytes", "seconds"]
MEASURES: tuple[Measure, ...] = ("flops", "bytes", "seconds")
#: Parts of a chunk's count that only exist because there are several chunks.
_BETWEEN_CHUNKS = ("state", "inter")


def mlstm_form_table(
    architecture: Architecture,
    context_length: int,
    *,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    precision: Precision = BF16,
    convention: str | Convention = PAPER,
) -> pd.DataFrame:
    """Recurrent, chunkwise and parallel form of the cell, forward, all layers, per token.

    Parameters
    ----------
    architecture
        an `XLSTM`.
    context_length
        T in tokens, at least one chunk.
    hardware
        whose peaks give the roofline time.

    Returns
    -------
    DataFrame
        with `form`, `chunk_size` (tokens; 1 and T for the recurrent and the parallel form), `flops_per_token` (FLOP),
        `bytes_per_token`, `arithmetic_intensity` (FLOP per byte) and `seconds_per_token` (the roofline's). Chunkwise
        rows: the convention's chunk, and the chunk that minimizes each of the three measures.

    Raises
    ------
    InputError
        if the architecture has no mLSTM, or the context is below one chunk.
    """
    convention, peaks = get_convention(convention), get_hardware(hardware)
    sizes = {f"chunkwise, L = {convention.chunk_size}": convention.chunk_size}
    for by in MEASURES:
        sizes[f"chunkwise, least {by}"] = best_chunk_size(
            architecture, context_length, by, hardware=peaks, precision=precision, convention=convention
        )
    rows: list[dict[str, Numeric | str]] = [
        {"form": "recurrent", "chunk_size": 1, **recurrent_per_token(architecture, precision=precision)}
    ]
    for form, size in sizes.items():
        counts = chunkwise_per_token(architecture, context_length, size, precision=precision, convention=convention)
        rows.append({"form": form, "chunk_size": size, **counts})
    rows.append({"form": "parallel", "chunk_size": context_length})
    rows[-1] |= _parallel(architecture, context_length, precision, convention)
    table = pd.DataFrame(rows)
    table["arithmetic_intensity"] = table["flops_per_token"] / table["bytes_per_token"]
    table["seconds_per_token"] = np.maximum(
        table["flops_per_token"] / peaks.peak_flops_per_s, table["bytes_per_token"] / peaks.peak_bytes_per_s
    )
    return table


def chunkwise_per_token(
    architecture: Architecture,
    context_length: Numeric,
    chunk_size: Numeric,
    *,
    precision: Precision = BF16,
    convention: str | Convention = PAPER,
) -> dict[str, Numeric]:
    """`flops_per_token` and `bytes_per_token` of the chunkwise cell, forward, all layers; arrays broadcast.

    Bytes: q, k, v once for the outputs, k and v once more for the states, h written; every chunk's state written and
    read. A last, shorter chunk counts as itself.
    """
    _check(architecture)
    a, T = architecture, np.asarray(context_length, dtype=float)
    size = np.asarray(chunk_size, dtype=float)
    if np.any((size < 1) | (size > T)):
        raise InputError(f"chunk_size {chunk_size} is not between 1 and the context of {context_length} tokens")
    chosen = _with_chunk(get_convention(convention), size)
    flops = a.n_layers * mlstm_core_flops(a.n_heads, a.d_qk, a.d_hv, T, chosen) / T
    states = np.ceil(T / size) / T
    state = a.d_qk * a.d_hv + a.d_qk + 1
    vectors = a.n_heads * (3 * a.d_qk + 3 * a.d_hv + 4) * precision.bytes_per_activation
    moved = a.n_layers * (vectors + 2 * a.n_heads * state * precision.bytes_per_state * states)
    return {"flops_per_token": flops[()], "bytes_per_token": moved[()]}


def best_chunk_size(
    architecture: Architecture,
    context_length: int,
    by: Measure = "flops",
    *,
    hardware: str | Hardware = REFERENCE_HARDWARE,
    precision: Precision = BF16,
    convention: str | Convention = PAPER,
) -> int:
    """The chunk length of least FLOPs, bytes or roofline seconds; the shortest of equals.

    FLOPs per token are about c₀/L + c₁ + c₂·L: states are spread over longer chunks, pairs within a chunk grow. Bytes
    only fall with L, so their best chunk is the whole context; the roofline lies between.

    Raises
    ------
    InputError
        for an unknown measure, an architecture without mLSTM, or a context that is not a positive whole number.
    """
    if by not in MEASURES:
        raise InputError(f"best chunk by {by!r}: there are {', '.join(MEASURES)}")
    check_context_length(context_length)
    peaks = get_hardware(hardware)
    sizes = np.arange(1, int(context_length) + 1)
    counts = chunkwise_per_token(architecture, context_length, sizes, precision=precision, convention=convention)
    flops, moved = counts["flops_per_token"], counts["bytes_per_token"]
    seconds = np.maximum(flops / peaks.peak_flops_per_s, moved / peaks.peak_bytes_per_s)
    values = {"flops": flops, "bytes": moved, "seconds": seconds}[by]
    return int(sizes[np.argmin(values)])


def recurrent_per_token(architecture: Architecture, *, precision: Precision = BF16) -> dict[str, Numeric]:
    """`flops_per_token` and `bytes_per_token` of the recurrent cell, all layers: a state read and written per token."""
    _check(architecture)
    a = architecture
    state = a.d_qk * a.d_hv + a.d_qk + 1
    vectors = (2 * a.d_qk + 2 * a.d_hv + 2) * precision.bytes_per_activation
    return {
        "flops_per_token": float(a.n_layers * a.n_heads * mlstm_recurrent_flops(a.d_qk, a.d_hv)),
        "bytes_per_token": float(a.n_layers * a.n_heads * (2 * state * precision.bytes_per_state + vectors)),
    }


def _parallel(
    architecture: Architecture, context_length: int, precision: Precision, convention: Convention
) -> dict[str, Numeric]:
    """One chunk of T tokens: no state, every pair of tokens."""
    a, T = architecture, float(context_length)
    parts = convention.mlstm_chunk(T, a.d_qk, a.d_hv, convention.mlstm_causal_factor)
    pairs = sum(value for part, value in parts.items() if part not in _BETWEEN_CHUNKS)
    vectors = (2 * a.d_qk + 2 * a.d_hv + 2) * precision.bytes_per_activation
    return {
        "flops_per_token": float(a.n_layers * a.n_heads * pairs / T),
        "bytes_per_token": float(a.n_layers * a.n_heads * vectors),
    }


def _check(architecture: Architecture) -> None:
    if not all(isinstance(mixer, MLSTM) for mixer, _ in architecture.layers):
        raise InputError(f"forms of the mLSTM: a {architecture.name} has none")


def _with_chunk(convention: Convention, chunk_size: Numeric) -> Any:
    """The convention with an array of chunk sizes, which `Convention` itself does not take."""
    from types import SimpleNamespace

    return SimpleNamespace(**{**vars(convention), "chunk_size": chunk_size})
