"""What each GPU kernel of the mLSTM costs: FLOPs, bytes, and the roofline's seconds; and the same for attention.

The chunkwise cell is a chain of kernels, one after another, so the least time of a pass is the sum of the kernels'
least times, not the larger of summed FLOPs and summed bytes as in `companion.accounting.mlstm_forms`. Only products of
matrices are counted: they run on the units whose peak a `Hardware` states. Forward FLOPs are thus the matrix products
of the convention `tfla`, forward bytes those of `chunkwise_per_token`, q and k once more (pairs and normalizer have
kernels of their own) and the pairs, written and read; tests hold them equal. Where one kernel carries the state from
tile to tile (`carried_tile`), no state is moved forward and only pairs within tiles are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from companion.accounting.conventions import PAPER
from companion.accounting.flops import attention_core_flops
from companion.accounting.inference import BF16, Precision, Roofline
from companion.accounting.mlstm_forms import recurrent_per_token
from companion.architectures import XLSTM
from companion.errors import InputError
from companion.hardware import Hardware, get_hardware
from companion.numeric import Numeric

Pass = Literal["forward", "forward+backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward+backward")
#: Chunk lengths that the Triton kernels take.
CHUNK_SIZES = (16, 32, 64, 128, 256)
#: Tokens of a tile from which the fused forward pass carries the state to the next: `kernels.mlstm.configs.TILE`.
CARRIED_TILE = 32
#: Rows of pairs are moved up to the diagonal in stretches of this many tokens (`triton_tiles.store_pairs`).
_STRETCH = 16
#: The kernels keep the states between them in the two bytes of their inputs, and carry them in four.
KERNEL_PRECISION = replace(BF16, bytes_per_state=2.0)
#: Stages of each pass.
_PASS_OF = {"forward": ("forward",), "forward+backward": ("forward", "backward")}


@dataclass(frozen=True, kw_only=True)
class CellShape:
    """One sequence mixer on a batch: B sequences of T tokens, H heads of d_qk and d_hv, chunks of L tokens.

    Raises
    ------
    InputError
        if one is not a positive whole number.
    """

    batch_size: int
    context_length: int
    n_heads: int
    d_qk: int
    d_hv: int
    chunk_size: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{field.name}: {value!r} is not a positive whole number")

    @property
    def num_tokens(self) -> int:
        """B·T."""
        return self.batch_size * self.context_length

    @property
    def num_chunks(self) -> int:
        """Chunks of all sequences; the last of a sequence may be shorter, and is computed in full."""
        return self.batch_size * -(-self.context_length // self.chunk_size)


@dataclass(frozen=True, kw_only=True)
class KernelCost:
    """One kernel on a whole batch: `flops` (products of matrices) and `bytes` moved."""

    kernel: str
    stage: Literal["forward", "backward"]
    flops: float
    bytes: float

    def roofline(self, hardware: str | Hardware) -> Roofline:
        """Least seconds on a hardware entry."""
        peaks = get_hardware(hardware)
        return Roofline(
            compute_seconds=self.flops / peaks.peak_flops_per_s, memory_seconds=self.bytes / peaks.peak_bytes_per_s
        )


@dataclass(frozen=True, kw_only=True)
class _Kernel:
    """What a kernel does per head: products of each kind per chunk, and vectors, gates and states that it moves."""

    kernel: str
    stage: Literal["forward", "backward"]
    #: products of 2·L²·d_qk FLOP (causal share of it): queries times keys, gradients of pairs times keys or queries.
    scores: int = 0
    #: products of 2·L²·d_hv FLOP (causal share of it): weights times values, and their gradients.
    weighted: int = 0
    #: products of 2·L·d_qk·d_hv FLOP: keys times values into a state, queries times a state, and their gradients.
    states: int = 0
    #: products of 2·L·carried_tile·d_hv FLOP: weights times values within tiles, computed whole.
    tile_weighted: int = 0
    #: vectors of d_qk and of d_hv numbers read or written per token, and gates.
    qk_vectors: int
    hv_vectors: int
    gates: int = 2
    #: states read or written per chunk.
    chunk_states: int = 1
    #: matrices of L × L numbers per chunk, for pairs of its tokens, read or written.
    chunk_pairs: int = 0
    #: rows of carried_tile numbers per token, for pairs within tiles, read or written.
    tile_pairs: int = 0


#: Kernels of `companion.kernels` by name: those of whole vectors or pairs, not those of gates and of n alone.
KERNELS = (
    # sums of keys for the normalizer's state
    _Kernel(kernel="gate_weights", stage="forward", qk_vectors=1, hv_vectors=0, gates=0, chunk_states=0),
    _Kernel(kernel="states", stage="forward", states=1, qk_vectors=1, hv_vectors=1),
    _Kernel(kernel="scores", stage="forward", scores=1, qk_vectors=2, hv_vectors=0, chunk_states=0, chunk_pairs=1),
    _Kernel(
        kernel="outputs", stage="forward", weighted=1, states=1, qk_vectors=1, hv_vectors=2, gates=0, chunk_pairs=1,
    ),
    # recomputed rather than kept: states are the largest tensors by far
    _Kernel(kernel="states", stage="backward", states=1, qk_vectors=1, hv_vectors=1),
    _Kernel(
        kernel="pair_gradients", stage="backward", scores=1, weighted=1, qk_vectors=2, hv_vectors=2,
        chunk_states=0, chunk_pairs=2,
    ),
    _Kernel(
        kernel="query_gradients", stage="backward", scores=1, states=1, qk_vectors=3, hv_vectors=1, chunk_pairs=2,
    ),
    _Kernel(kernel="state_gradients", stage="backward", states=1, qk_vectors=1, hv_vectors=1, chunk_states=2),
    # dk and dv at the same time: what both read comes from memory once
    _Kernel(
        kernel="key_value_gradients", stage="backward", scores=1, weighted=1, states=2, qk_vectors=3, hv_vectors=3,
        chunk_pairs=2,
    ),
    # sums over the columns of the pairs
    _Kernel(
        kernel="gate_gradients", stage="backward", qk_vectors=0, hv_vectors=0, gates=4, chunk_states=0, chunk_pairs=1,
    ),
)  # fmt: skip

#: The forward kernels where one carries the state from tile to tile: they take the place of those of `KERNELS`.
FUSED = (
    # keys once more, written with their weights
    _Kernel(kernel="gate_weights", stage="forward", qk_vectors=2, hv_vectors=0, gates=0, chunk_states=0),
    # all pairs computed, for the normalizer's sums; those within tiles written
    _Kernel(kernel="scores", stage="forward", scores=1, qk_vectors=2, hv_vectors=0, chunk_states=0, tile_pairs=1),
    _Kernel(
        kernel="states_and_outputs", stage="forward", states=2, tile_weighted=1, qk_vectors=2, hv_vectors=2,
        chunk_states=0, tile_pairs=1,
    ),
)  # fmt: skip


def cell_kernel_costs(
    shape: CellShape,
    *,
    tile: int | None = None,
    carried_tile: int | None = None,
    precision: Precision = KERNEL_PRECISION,
) -> tuple[KernelCost, ...]:
    """Every kernel of forward and backward pass, whole batch.

    Parameters
    ----------
    shape
        batch, heads and chunk.
    tile
        side of the square tiles of pairs (tokens): those above the diagonal are skipped, and pairs are moved up to it
        in stretches of 16 tokens, or of a shorter tile. By default all L² pairs are computed and moved.
    carried_tile
        tokens of a tile from which the state is carried to the next: the forward pass is that of `FUSED`, without
        states in memory (that at the end is not counted). By default states and outputs are two kernels.
    precision
        bytes per number of vectors, gates and pairs (`bytes_per_activation`) and of states (`bytes_per_state`). What a
        second block reads again is taken to come from the cache.

    Raises
    ------
    InputError
        if a tile of either kind does not divide the chunk.
    """
    L, qk, hv = shape.chunk_size, shape.d_qk, shape.d_hv
    share = causal_share(L, tile)
    moved_share = 1.0 if tile is None else (1 + min(tile, _STRETCH) / L) / 2
    kernels: tuple[_Kernel, ...] = KERNELS
    if carried_tile is not None:
        _check_divides("carried_tile", carried_tile, L)
        kernels = (*FUSED, *(each for each in KERNELS if each.stage == "backward"))
    in_tile = carried_tile or 0
    scores, weighted, state = share * 2 * L**2 * qk, share * 2 * L**2 * hv, 2 * L * qk * hv
    costs = []
    for each in kernels:
        flops: float = each.scores * scores + each.weighted * weighted + each.states * state
        flops += each.tile_weighted * 2 * L * in_tile * hv
        numbers: float = each.qk_vectors * qk + each.hv_vectors * hv + each.gates
        numbers += each.chunk_pairs * moved_share * L + each.tile_pairs * in_tile
        moved = shape.num_tokens * numbers * precision.bytes_per_activation
        moved += shape.num_chunks * each.chunk_states * (qk * hv + qk + 1) * precision.bytes_per_state
        total = float(shape.n_heads * shape.num_chunks * flops)
        costs.append(KernelCost(kernel=each.kernel, stage=each.stage, flops=total, bytes=shape.n_heads * moved))
    return tuple(costs)


def causal_share(chunk_size: int, tile: int | None = None) -> float:
    """Share of the L × L pairs that is computed if square tiles above the diagonal are skipped: (1 + tile/L)/2.

    Raises
    ------
    InputError
        if the tile is not a positive whole number that divides the chunk.
    """
    if tile is None:
        return 1.0
    _check_divides("tile", tile, chunk_size)
    return (1 + tile / chunk_size) / 2


def step_cost(shape: CellShape, *, precision: Precision = BF16) -> KernelCost:
    """One generated token for each of B sequences: every state is read and written (`recurrent_per_token`).

    `context_length` and `chunk_size` of the shape do not matter.
    """
    layer = XLSTM(
        d_model=shape.n_heads * shape.d_hv, n_layers=1, n_heads=shape.n_heads, d_qk=shape.d_qk, d_hv=shape.d_hv
    )
    each = recurrent_per_token(layer, precision=precision)
    moved, flops = (shape.batch_size * each[name] for name in ("bytes_per_token", "flops_per_token"))
    return KernelCost(kernel="step", stage="forward", flops=flops, bytes=moved)


def attention_kernel_costs(shape: CellShape, *, precision: Precision = KERNEL_PRECISION) -> tuple[KernelCost, ...]:
    """Causal attention of the same shape as two kernels that keep scores on the chip: forward, backward.

    Products as in `attention_core_flops`, the causal half of them: two forward, five backward, where the scores are
    computed again (arXiv 2307.08691). Bytes: q, k, v and h once, their gradients once; `chunk_size` does not matter.
    """
    products = replace(PAPER, attention_softmax_flops=0.0)
    T = float(shape.context_length)
    forward = shape.batch_size * attention_core_flops(shape.n_heads, shape.d_qk, shape.d_hv, T, products)
    vectors = shape.num_tokens * shape.n_heads * 2 * (shape.d_qk + shape.d_hv) * precision.bytes_per_activation
    # backward reads q, k, v, h and dh, and writes dq, dk, dv: twice the forward's vectors
    return (
        KernelCost(kernel="attention", stage="forward", flops=forward, bytes=vectors),
        KernelCost(kernel="gradients of attention", stage="backward", flops=2.5 * forward, bytes=2 * vectors),
    )


def pass_seconds(costs: Sequence[KernelCost], hardware: str | Hardware, passes: Pass = "forward") -> float:
    """Roofline seconds of kernels one after another: the sum of their own least times.

    Raises
    ------
    InputError
        for an unknown pass.
    """
    return sum(float(cost.roofline(hardware).seconds) for cost in _of_pass(costs, passes))


def pass_flops(costs: Sequence[KernelCost], passes: Pass = "forward") -> float:
    """FLOPs of those kernels; errors as in `pass_seconds`."""
    return sum(cost.flops for cost in _of_pass(costs, passes))


def pass_bytes(costs: Sequence[KernelCost], passes: Pass = "forward") -> float:
    """Bytes of those kernels; errors as in `pass_seconds`."""
    return sum(cost.bytes for cost in _of_pass(costs, passes))


def cost_table(costs: Sequence[KernelCost], hardware: str | Hardware) -> pd.DataFrame:
    """Kernels as a table: `kernel`, `stage`, `flops`, `bytes`, `arithmetic_intensity`, `seconds`, `compute_bound`."""
    rows = []
    for cost in costs:
        roof = cost.roofline(hardware)
        row: dict[str, Numeric | str] = {
            "kernel": cost.kernel,
            "stage": cost.stage,
            "flops": cost.flops,
            "bytes": cost.bytes,
        }
        row |= {"arithmetic_intensity": cost.flops / cost.bytes, "seconds": float(roof.seconds)}
        rows.append(row | {"compute_bound": bool(roof.compute_bound)})
    return pd.DataFrame(rows)


def chunk_size_scan(
    shape: CellShape,
    hardware: str | Hardware,
    *,
    chunk_sizes: Sequence[int] = CHUNK_SIZES,
    tile: int | None = None,
    carried_tile: int | None = None,
    precision: Precision = KERNEL_PRECISION,
) -> pd.DataFrame:
    """Roofline seconds of every kernel over the chunk length.

    Parameters
    ----------
    tile
        as in `cell_kernel_costs`; a chunk that it does not divide is computed whole.
    carried_tile
        as there; a chunk that it does not divide is computed with states and outputs in two kernels.

    Returns
    -------
    DataFrame with `chunk_size`, and the columns of `cost_table`.
    """
    tables = []
    for size in chunk_sizes:
        fitting, carried = (each if each and size % each == 0 else None for each in (tile, carried_tile))
        one = replace(shape, chunk_size=int(size))
        costs = cell_kernel_costs(one, tile=fitting, carried_tile=carried, precision=precision)
        tables.append(cost_table(costs, hardware).assign(chunk_size=int(size)))
    return pd.concat(tables, ignore_index=True)


def best_kernel_chunk(scan: pd.DataFrame, passes: Pass = "forward") -> int:
    """The chunk length of least seconds in a `chunk_size_scan`; the shortest of equals.

    Raises
    ------
    InputError
        for an unknown pass.
    """
    if passes not in _PASS_OF:
        raise InputError(f"pass {passes!r}: there are {', '.join(PASSES)}")
    seconds = scan[scan["stage"].isin(_PASS_OF[passes])].groupby("chunk_size")["seconds"].sum()
    return int(seconds.index[int(seconds.argmin())])


def crossing_context(
    attention: CellShape,
    cell: CellShape,
    *,
    passes: Pass = "forward",
    hardware: str | Hardware | None = None,
    tile: int | None = None,
    carried_tile: int | None = None,
    precision: Precision = KERNEL_PRECISION,
) -> float:
    """Tokens from which attention costs more than the cell: FLOPs, or with `hardware` roofline seconds.

    Per token the cell costs the same at any context and attention ever more. `context_length` of the shapes does not
    matter; batches are taken as one sequence. Tiles as in `cell_kernel_costs`.

    Returns
    -------
    T, not rounded (of the order of 1 where attention is dearer from the start, but never below 1).

    Raises
    ------
    InputError
        for an unknown pass, or a tile that does not divide the chunk.
    """
    one_chunk = replace(cell, batch_size=1, context_length=cell.chunk_size)
    costs = cell_kernel_costs(one_chunk, tile=tile, carried_tile=carried_tile, precision=precision)

    def measure(kernels: Sequence[KernelCost]) -> float:
        return pass_flops(kernels, passes) if hardware is None else pass_seconds(kernels, hardware, passes)

    per_token = measure(costs) / cell.chunk_size
    one = attention_kernel_costs(replace(attention, batch_size=1, context_length=1), precision=precision)

    def excess(log_context: float) -> float:
        """Attention at T, from its counts at one token: FLOPs grow with T², bytes with T."""
        T = float(np.exp(log_context))
        grown = [replace(kernel, flops=kernel.flops * T**2, bytes=kernel.bytes * T) for kernel in one]
        return measure(grown) / T / per_token - 1

    if excess(0.0) >= 0:
        return 1.0
    return float(np.exp(brentq(excess, 0.0, np.log(1e12))))


def _check_divides(name: str, tile: int, chunk_size: int) -> None:
    if tile < 1 or chunk_size % tile:
        raise InputError(f"{name}: {tile} tokens do not divide the chunk of {chunk_size}")


def _of_pass(costs: Sequence[KernelCost], passes: Pass) -> list[KernelCost]:
    if passes not in _PASS_OF:
        raise InputError(f"pass {passes!r}: there are {', '.join(PASSES)}")
    return [cost for cost in costs if cost.stage in _PASS_OF[passes]]
