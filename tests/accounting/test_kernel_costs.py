"""Costs of kernels: equal to the counts of the book, to what torch counts, to brute force."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_shapes import shapes

from companion.accounting import PAPER, TFLA
from companion.accounting.flops import attention_core_flops
from companion.accounting.inference import BF16, Precision, mlstm_recurrent_flops
from companion.accounting.kernel_costs import (
    CARRIED_TILE,
    CHUNK_SIZES,
    KEPT_SHARE,
    KERNEL_PRECISION,
    PASSES,
    CellShape,
    KernelCost,
    Pass,
    attention_kernel_costs,
    best_kernel_chunk,
    causal_share,
    cell_kernel_costs,
    chunk_size_scan,
    cost_table,
    crossing_context,
    pass_bytes,
    pass_flops,
    pass_seconds,
    step_cost,
)
from companion.accounting.kernel_table import FUSED, FUSED_NARROW, KERNELS, WEIGHED_UP_TO
from companion.accounting.mlstm_forms import chunkwise_per_token
from companion.accounting.symbolic import SYMBOLS
from companion.architectures import XLSTM
from companion.chapters.ch01.formulas import chunk_terms
from companion.errors import InputError
from companion.hardware import Hardware, get_hardware

SHAPE = CellShape(batch_size=8, context_length=8192, n_heads=8, d_qk=256, d_hv=512, chunk_size=64)
ATTENTION = CellShape(batch_size=8, context_length=8192, n_heads=32, d_qk=128, d_hv=128)
H200 = get_hardware("h200-sxm")


def layer(shape: CellShape) -> XLSTM:
    return XLSTM(
        d_model=shape.n_heads * shape.d_hv, n_layers=1, n_heads=shape.n_heads, d_qk=shape.d_qk, d_hv=shape.d_hv
    )


@settings(max_examples=40)
@given(shapes(), st.floats(1, 8), st.floats(1, 8))
def test_forward_bytes_are_those_of_the_chunkwise_form(shape: CellShape, vectors: float, states: float) -> None:
    precision = Precision(bytes_per_activation=vectors, bytes_per_state=states)
    if shape.chunk_size > shape.context_length:
        shape = replace(shape, context_length=shape.chunk_size)
    known = chunkwise_per_token(layer(shape), shape.context_length, shape.chunk_size, precision=precision)
    found = {
        cost.kernel: cost.bytes for cost in cell_kernel_costs(shape, precision=precision) if cost.stage == "forward"
    }
    heads = shape.num_tokens * shape.n_heads * vectors
    again = heads * (2 * shape.d_qk + 2 * shape.chunk_size)  # q and k once more, the pairs written and read
    assert sum(found.values()) - again == pytest.approx(known["bytes_per_token"] * shape.num_tokens, rel=1e-9)


@settings(max_examples=20)
@given(shapes())
def test_forward_flops_are_the_matrix_products_of_tfla(shape: CellShape) -> None:
    values = {
        SYMBOLS["chunk_size"]: shape.chunk_size,
        SYMBOLS["d_qk"]: shape.d_qk,
        SYMBOLS["d_hv"]: shape.d_hv,
        SYMBOLS["mlstm_causal_factor"]: 1,
    }
    products = (
        "keys times values into the state",
        "queries times keys",
        "scores times values",
        "queries times the state",
    )
    one = sum(float(term.flops.subs(values)) for term in chunk_terms(TFLA) if term.meaning in products)
    assert pass_flops(cell_kernel_costs(shape)) == pytest.approx(one * shape.num_chunks * shape.n_heads, rel=1e-12)


def test_torch_counts_the_same() -> None:
    """FLOPs of the plain-torch chunkwise form, counted by torch; it keeps states and scores for its backward pass."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from companion.kernels.mlstm.torch_forms import chunkwise

    shape = CellShape(batch_size=2, context_length=96, n_heads=3, d_qk=8, d_hv=20, chunk_size=32)
    B, T, H, L = shape.batch_size, shape.context_length, shape.n_heads, shape.chunk_size
    leaves = [torch.randn(B, T, H, *width, requires_grad=True) for width in ((8,), (8,), (20,), (), ())]
    with FlopCounterMode(display=False) as counter:
        h, _ = chunkwise(*leaves, chunk_size=L)
    normalizer = 2 * B * H * T * shape.d_qk  # a product with a vector, not of matrices
    costs = cell_kernel_costs(shape)
    assert counter.get_total_flops() - normalizer == pass_flops(costs)
    with FlopCounterMode(display=False) as counter:
        h.sum().backward()
    # products with the last chunk's state, which nothing reads, have no gradient: B·H of them, twice
    unread = 2 * B * H * 2 * L * shape.d_qk * shape.d_hv
    scores, states = B * H * T * 2 * L * shape.d_qk, B * H * T * 2 * shape.d_qk * shape.d_hv
    for keep, again in ((False, scores + states), (True, scores)):
        costs = cell_kernel_costs(shape, keep_states=keep)
        ours = pass_flops(costs, "forward+backward") - pass_flops(costs)
        assert counter.get_total_flops() - 2 * normalizer + unread == ours - again


def test_states_between_kernels_take_two_bytes() -> None:
    narrow, wide = (pass_bytes(cell_kernel_costs(SHAPE, precision=p)) for p in (KERNEL_PRECISION, BF16))
    assert narrow == pass_bytes(cell_kernel_costs(SHAPE))
    assert wide - narrow == 2 * 2 * SHAPE.num_chunks * SHAPE.n_heads * (256 * 512 + 256 + 1)
    problem = pytest.importorskip("companion.kernels.mlstm.problem")
    torch = pytest.importorskip("torch")
    v = torch.empty(1, 8, 1, 16, dtype=torch.bfloat16)
    assert problem.Problem.of(v, v, None, 16, False).state_dtype.itemsize == KERNEL_PRECISION.bytes_per_state


def test_kernels_are_those_that_run() -> None:
    configs = pytest.importorskip("companion.kernels.mlstm.configs")
    counted = {kernel.kernel for kernel in (*KERNELS, *FUSED)}
    assert counted == {*configs.KERNELS, "gate_weights", "gate_gradients"} - {"step"}
    assert configs.TILE == CARRIED_TILE
    assert [kernel.kernel for kernel in FUSED_NARROW] == [kernel.kernel for kernel in FUSED]
    fused = pytest.importorskip("companion.kernels.mlstm.launch_fused")
    assert (fused.KEPT_SHARE, fused.WEIGHED_UP_TO) == (KEPT_SHARE, WEIGHED_UP_TO)


def test_fused_forward_by_hand() -> None:
    """Two heads of 72 and 16, two chunks of 64 tokens: 128 tokens in all, tiles of 32."""
    shape = CellShape(batch_size=1, context_length=128, n_heads=2, d_qk=72, d_hv=16, chunk_size=64)
    costs = cell_kernel_costs(shape, carried_tile=32)
    # numbers per token: k read and written; q, k, two gates, a row of a tile; q, keys, v, h, two weights, the row
    numbers = [72 + 72, 72 + 72 + 2 + 32, 72 + 72 + 16 + 16 + 2 + 32]
    assert [cost.bytes for cost in costs if cost.stage == "forward"] == [2 * 128 * 2 * number for number in numbers]


def test_narrow_fused_forward_by_hand() -> None:
    """Two heads of 8 and 16: v is weighed where it is multiplied, so that no keys are written."""
    shape = CellShape(batch_size=1, context_length=128, n_heads=2, d_qk=8, d_hv=16, chunk_size=64)
    costs = cell_kernel_costs(shape, carried_tile=32)
    forward = {cost.kernel: cost for cost in costs if cost.stage == "forward"}
    assert list(forward) == ["gate_weights", "scores", "states_and_outputs"]
    pairs, state, within = 2 * 64 * 64 * 8, 2 * 128 * 8 * 16, 2 * 128 * 32 * 16
    assert [cost.flops for cost in forward.values()] == [0, 2 * 2 * pairs, 2 * (2 * state + within)]
    # numbers per token: k and a weight; q, k, two gates, a row of a tile; q, k, v, h, three weights, the row
    numbers = [8 + 1, 8 + 8 + 2 + 32, 8 + 8 + 16 + 16 + 3 + 32]
    assert [cost.bytes for cost in forward.values()] == [2 * 128 * 2 * number for number in numbers]
    tiled = cell_kernel_costs(shape, tile=16, carried_tile=32)
    assert pass_flops(costs) - pass_flops(tiled) == 2 * 2 * pairs * 0.375, "10 of 16 tiles"
    assert pass_bytes(tiled) == pass_bytes(costs), "pairs within tiles are moved whole"
    two = cell_kernel_costs(shape)
    assert [x for x in costs if x.stage == "backward"] == [x for x in two if x.stage == "backward"]


@pytest.mark.parametrize("tile", [None, 64])
def test_fused_forward_moves_less(tile: int | None) -> None:
    shape = replace(SHAPE, chunk_size=128)
    one, two = (cell_kernel_costs(shape, tile=tile, carried_tile=carried) for carried in (CARRIED_TILE, None))
    assert pass_bytes(one) < pass_bytes(two)
    states = 2 * shape.num_chunks * shape.n_heads * (256 * 512 + 256 + 1) * 2  # written and read
    # v once less, k once more (written with its weights); two rows of 128 pairs, or up to the diagonal, for two of 32
    row = 128 if tile is None else 72
    rest = shape.num_tokens * shape.n_heads * 2 * (512 - 256 + 2 * row - 2 * 32)
    assert pass_bytes(two) - pass_bytes(one) == states + rest


@settings(max_examples=40)
@given(shapes(), st.integers(1, 4), st.sampled_from([None, 16]))
def test_fused_forward_does_not_depend_on_the_chunk(shape: CellShape, times: int, tile: int | None) -> None:
    shape = replace(shape, context_length=256 * times)  # whole chunks of every length
    found = []
    for size in (32, 64, 128, 256):
        costs = cell_kernel_costs(replace(shape, chunk_size=size), tile=tile, carried_tile=32)
        (fused,) = (cost for cost in costs if cost.kernel == "states_and_outputs")
        found.append((pass_bytes(costs), fused.flops, fused.bytes))
    assert len(set(found)) == 1


def test_a_carried_tile_divides_the_chunk() -> None:
    for tile in (100, 0, -32, 512):
        with pytest.raises(InputError, match=f"carried_tile: {tile} tokens do not divide the chunk of 64"):
            cell_kernel_costs(SHAPE, carried_tile=tile)
    with pytest.raises(InputError, match="carried_tile: 128 tokens do not divide the chunk of 64"):
        crossing_context(ATTENTION, SHAPE, carried_tile=128)
    scan = chunk_size_scan(SHAPE, H200, chunk_sizes=(16, 128), carried_tile=32)
    for size, carried in ((16, None), (128, 32)):
        costs = cell_kernel_costs(replace(SHAPE, chunk_size=size), carried_tile=carried)
        one = scan[scan["chunk_size"] == size].drop(columns="chunk_size").reset_index(drop=True)
        assert one.equals(cost_table(costs, H200)), "a chunk below the tile takes two kernels"


@given(st.sampled_from(CHUNK_SIZES), st.sampled_from(CHUNK_SIZES))
def test_share_of_tiles_by_brute_force(chunk: int, tile: int) -> None:
    if tile > chunk:
        with pytest.raises(InputError, match=f"{tile} tokens do not divide the chunk of {chunk}"):
            causal_share(chunk, tile)
        return
    computed = sum(
        tile * tile for row in range(0, chunk, tile) for column in range(0, chunk, tile) if column <= row
    )  # fmt: skip
    assert causal_share(chunk, tile) == computed / chunk**2
    assert causal_share(chunk) == 1


def test_tiles_above_the_diagonal_are_skipped() -> None:
    shape = replace(SHAPE, chunk_size=256)
    whole, tiled = (
        {(cost.kernel, cost.stage): cost for cost in cell_kernel_costs(shape, tile=tile)} for tile in (None, 64)
    )
    assert whole["states", "backward"] == tiled["states", "backward"]
    pairs = shape.num_chunks * shape.n_heads * 2 * 256**2
    state = shape.num_chunks * shape.n_heads * 2 * 256 * 256 * 512
    for costs, share in ((whole, 1.0), (tiled, 0.625)):  # 10 of 16 tiles
        assert costs["scores", "forward"].flops == share * pairs * 256
        assert costs["outputs", "forward"].flops == share * pairs * 512 + state
        assert costs["pair_gradients", "backward"].flops == share * pairs * (256 + 512)
        assert costs["query_gradients", "backward"].flops == share * pairs * 256 + state
        assert costs["key_value_gradients", "backward"].flops == share * pairs * (256 + 512) + 2 * state
    # pairs are moved in stretches of 16 tokens, whatever the tile: 136 of 256 blocks of 16 × 16
    matrix = 256 * 2 * shape.num_tokens * shape.n_heads
    for (kernel, stage), matrices in {
        ("scores", "forward"): 1,
        ("outputs", "forward"): 1,
        ("pair_gradients", "backward"): 2,
        ("gate_gradients", "backward"): 1,
    }.items():
        less = whole[kernel, stage].bytes - tiled[kernel, stage].bytes
        assert less == matrices * (1 - 136 / 256) * matrix
    small = {(cost.kernel, cost.stage): cost for cost in cell_kernel_costs(shape, tile=8)}
    less = whole["outputs", "forward"].bytes - small["outputs", "forward"].bytes
    assert less == (1 - causal_share(256, 8)) * matrix, "or of the tile, if it is shorter"
    with pytest.raises(InputError, match="100 tokens do not divide the chunk of 256"):
        cell_kernel_costs(shape, tile=100)


@settings(max_examples=20)
@given(shapes())
def test_a_pass_is_the_sum_of_its_kernels(shape: CellShape) -> None:
    costs = cell_kernel_costs(shape)
    table = cost_table(costs, H200)
    np.testing.assert_allclose(table["seconds"], np.maximum(table["flops"] / 9.895e14, table["bytes"] / 4.8e12))
    forward = table[table["stage"] == "forward"]
    assert pass_seconds(costs, H200) == pytest.approx(forward["seconds"].sum())
    assert pass_seconds(costs, H200, "forward+backward") == pytest.approx(table["seconds"].sum())
    joint = max(pass_flops(costs) / H200.peak_flops_per_s, pass_bytes(costs) / H200.peak_bytes_per_s)
    assert pass_seconds(costs, H200) >= joint * (1 - 1e-12), "one after another is never faster than all at once"


def test_step_reads_and_writes_the_state() -> None:
    shape = replace(SHAPE, batch_size=64)
    cost = step_cost(shape)
    assert cost.flops == 64 * 8 * mlstm_recurrent_flops(256, 512)
    state = 2 * 4 * (256 * 512 + 256 + 1)
    assert cost.bytes == 64 * 8 * (state + 2 * (2 * 256 + 2 * 512 + 2))
    assert not cost.roofline(H200).compute_bound
    half = step_cost(shape, precision=replace(BF16, bytes_per_state=2.0))
    assert half.bytes == cost.bytes - 64 * 8 * state / 2


def test_attention() -> None:
    forward, backward = attention_kernel_costs(ATTENTION)
    products = attention_core_flops(32, 128, 128, 8192.0, replace(PAPER, attention_softmax_flops=0.0))
    assert forward.flops == 8 * products == 8 * 32 * 8192**2 * 256
    assert backward.flops == 2.5 * forward.flops
    assert forward.bytes == 8 * 8192 * 32 * 4 * 128 * 2
    assert backward.bytes == 2 * forward.bytes


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("hardware", [None, H200])
@pytest.mark.parametrize("chunk", [64, 256])
@pytest.mark.parametrize(
    "ways", [{}, {"carried_tile": CARRIED_TILE}, {"carried_tile": CARRIED_TILE, "keep_states": True}]
)
def test_crossing(passes: Pass, hardware: Hardware | None, chunk: int, ways: dict[str, Any]) -> None:
    cell = replace(SHAPE, batch_size=1, chunk_size=chunk)
    T = crossing_context(ATTENTION, cell, passes=passes, hardware=hardware, **ways)

    def measure(costs: tuple[KernelCost, ...]) -> float:
        return pass_flops(costs, passes) if hardware is None else pass_seconds(costs, hardware, passes)

    sides = []
    for context in (int(0.9 * T) // chunk * chunk, -(-int(1.1 * T) // chunk) * chunk):
        one = replace(ATTENTION, batch_size=1, context_length=context)
        other = replace(cell, context_length=context)
        sides.append(measure(attention_kernel_costs(one)) < measure(cell_kernel_costs(other, **ways)))
    assert sides == [True, False]


def test_crossing_from_the_start() -> None:
    """Attention that is dearer at one token already: the cell's chunk is one token and its state tiny."""
    cell = CellShape(batch_size=1, context_length=1, n_heads=1, d_qk=1, d_hv=1, chunk_size=1)
    assert crossing_context(replace(ATTENTION, n_heads=64), cell) == 1.0


def test_best_chunk_by_brute_force() -> None:
    scan = chunk_size_scan(SHAPE, H200, chunk_sizes=(16, 64, 100, 1024, 4096))
    for passes in PASSES:
        seconds = {
            size: pass_seconds(cell_kernel_costs(replace(SHAPE, chunk_size=size)), H200, passes)
            for size in (16, 64, 100, 1024, 4096)
        }
        assert best_kernel_chunk(scan, passes) == min(seconds, key=lambda size: seconds[size])
    assert best_kernel_chunk(scan) not in (16, 4096), "states weigh in short chunks, pairs in long ones"
    tiled = chunk_size_scan(SHAPE, H200, chunk_sizes=(32, 256), tile=64)
    by_size = tiled[tiled["kernel"] == "outputs"].set_index("chunk_size")["flops"]
    (whole,) = (cost for cost in cell_kernel_costs(replace(SHAPE, chunk_size=32)) if cost.kernel == "outputs")
    assert by_size[32] == whole.flops, "a chunk below the tile is computed whole"


def test_bad_input() -> None:
    for value in (0, -1, 2.5, True, "64"):
        with pytest.raises(InputError, match=r"d_qk: .* is not a positive whole number"):
            replace(SHAPE, d_qk=value)
    costs = cell_kernel_costs(SHAPE)
    for function in (lambda: pass_flops(costs, "backward"), lambda: pass_seconds(costs, H200, "backward")):  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"pass 'backward': there are forward, forward\+backward"):
            function()
    with pytest.raises(InputError, match="pass 'x'"):
        best_kernel_chunk(chunk_size_scan(SHAPE, H200), "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="hardware 'abacus' is not known"):
        cost_table(costs, "abacus")
