"""What each GPU kernel of the mLSTM costs: FLOPs, bytes, and the roofline's seconds; and the same for attention.

The chunkwise cell is a chain of kernels, one after another, so the least time of a pass is the sum of the kernels'
least times, not the larger of summed FLOPs and summed bytes as in `companion.accounting.mlstm_forms`. Only products of
matrices are counted: they run on the units whose peak a `Hardware` states. Forward FLOPs are thus the matrix products
of the convention `tfla`, forward bytes those of `chunkwise_per_token`, q and k once more (pairs and normalizer have
kernels of their own) and the pairs, written and read; tests hold them equal. Where one kernel carries the state from
tile to tile (`carried_tile`), no state is moved forward and only pairs within tiles are; in training it may write those
at the start of every chunk, which the backward pass then has no need to compute again (`keep_states`).
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
from companion.accounting.kernel_table import kernels_of_cell
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
#: Bytes that states kept for the backward pass may have, as a share of those of q, k, v and h:
#: `kernels.mlstm.launch_fused.KEPT_SHARE`.
KEPT_SHARE = 1.0
#: The largest d_qk for which one kernel can carry the state: the widest block of it in `kernels.mlstm.configs`.
WIDEST_CARRIED = 256
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


def cell_kernel_costs(
    shape: CellShape,
    *,
    tile: int | None = None,
    carried_tile: int | None = None,
    keep_states: bool = False,
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
        tokens of a tile from which the state is carried to the next: the forward pass is that of
        `kernel_table.FUSED`, and reads no state from memory (the one written at the end is not counted). By default
        states and outputs are two kernels.
    keep_states
        whether the forward pass is one of training that keeps the state at the start of every chunk for the backward
        pass, as the kernels do where `keeps_states` says so. By default the backward pass computes them again by the
        kernel `states`. A forward pass without a gradient keeps none.
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
    if carried_tile is not None:
        _check_divides("carried_tile", carried_tile, L)
    in_tile = carried_tile or 0
    scores, weighted, state = share * 2 * L**2 * qk, share * 2 * L**2 * hv, 2 * L * qk * hv
    costs = []
    for each in kernels_of_cell(qk, carried=carried_tile is not None, keep_states=keep_states):
        flops: float = each.scores * scores + each.weighted * weighted + each.states * state
        flops += each.tile_weighted * 2 * L * in_tile * hv
        numbers: float = each.qk_vectors * qk + each.hv_vectors * hv + each.gates
        numbers += each.chunk_pairs * moved_share * L + each.tile_pairs * in_tile
        moved = shape.num_tokens * numbers * precision.bytes_per_activation
        moved += shape.num_chunks * each.chunk_states * (qk * hv + qk + 1) * precision.bytes_per_state
        total = float(shape.n_heads * shape.num_chunks * flops)
        costs.append(KernelCost(kernel=each.kernel, stage=each.stage, flops=total, bytes=shape.n_heads * moved))
    return tuple(costs)


def keeps_states(shape: CellShape) -> bool:
    """Whether the kernels keep the states of a forward pass with a gradient for the backward pass.

    They do where these take no more memory than q, k, v and h, and the shape is one for a state carried from tile to
    tile (in bfloat16; not for packed sequences).
    """
    fits = shape.d_qk <= WIDEST_CARRIED and not (shape.d_qk % 8 or shape.d_hv % 8 or shape.chunk_size % CARRIED_TILE)
    tokens = min(shape.chunk_size, shape.context_length)
    return fits and shape.d_qk * shape.d_hv <= KEPT_SHARE * 2 * (shape.d_qk + shape.d_hv) * tokens


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
    keep_states: bool = False,
    precision: Precision = KERNEL_PRECISION,
) -> pd.DataFrame:
    """Roofline seconds of every kernel over the chunk length.

    Parameters
    ----------
    tile
        as in `cell_kernel_costs`; a chunk that it does not divide is computed whole.
    carried_tile
        as there; a chunk that it does not divide is computed with states and outputs in two kernels.
    keep_states
        as there, but only for the chunk lengths at which the kernels keep them (`keeps_states`).

    Returns
    -------
    DataFrame with `chunk_size`, and the columns of `cost_table`.
    """
    tables = []
    for size in chunk_sizes:
        fitting, carried = (each if each and size % each == 0 else None for each in (tile, carried_tile))
        one = replace(shape, chunk_size=int(size))
        kept = keep_states and keeps_states(one)
        costs = cell_kernel_costs(one, tile=fitting, carried_tile=carried, keep_states=kept, precision=precision)
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
    keep_states: bool = False,
    precision: Precision = KERNEL_PRECISION,
) -> float:
    """Tokens from which attention costs more than the cell: FLOPs, or with `hardware` roofline seconds.

    Per token the cell costs the same at any context and attention ever more. `context_length` of the shapes does not
    matter; batches are taken as one sequence. Tiles and `keep_states` as in `cell_kernel_costs`.

    Returns
    -------
    T, not rounded (of the order of 1 where attention is dearer from the start, but never below 1).

    Raises
    ------
    InputError
        for an unknown pass, or a tile that does not divide the chunk.
    """
    one_chunk = replace(cell, batch_size=1, context_length=cell.chunk_size)
    costs = cell_kernel_costs(
        one_chunk, tile=tile, carried_tile=carried_tile, keep_states=keep_states, precision=precision
    )

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
