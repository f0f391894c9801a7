"""States that a forward pass keeps for the backward pass: where kernels keep them, and what that costs and saves."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_shapes import shapes

from companion.accounting.kernel_costs import (
    CHUNK_SIZES,
    CellShape,
    Pass,
    cell_kernel_costs,
    chunk_size_scan,
    keeps_states,
    pass_bytes,
    pass_flops,
    pass_seconds,
)
from companion.hardware import get_hardware

SHAPE = CellShape(batch_size=8, context_length=8192, n_heads=8, d_qk=256, d_hv=512, chunk_size=64)
H200 = get_hardware("h200-sxm")


@settings(max_examples=300)
@given(
    st.sampled_from((16, 20, 64, 128, 256, 264, 512)) | st.integers(1, 40).map(lambda n: 8 * n),
    st.sampled_from((16, 20, 64, 128, 256, 264, 512)) | st.integers(1, 80).map(lambda n: 8 * n),
    st.integers(1, 300),
    st.sampled_from(CHUNK_SIZES),
)
def test_states_are_kept_where_the_kernels_keep_them(d_qk: int, d_hv: int, context: int, chunk: int) -> None:
    torch = pytest.importorskip("torch")
    fused = pytest.importorskip("companion.kernels.mlstm.launch_fused")
    shape = CellShape(batch_size=1, context_length=context, n_heads=1, d_qk=d_qk, d_hv=d_hv, chunk_size=chunk)
    q, v = (torch.empty(1, 1, 1, width, dtype=torch.bfloat16, device="meta") for width in (d_qk, d_hv))
    theirs = fused.pays_to_keep(d_qk, d_hv, context, chunk) and fused.can_be_one(q, v, chunk)
    assert keeps_states(shape) == theirs


@pytest.mark.parametrize(("chunk", "kept"), [(128, True), (64, False)])
def test_kept_states_by_hand(chunk: int, kept: bool) -> None:
    """Heads of 256 and 512: a state has 131,072 numbers, q, k, v and h of a chunk 1,536 a token."""
    shape = CellShape(batch_size=1, context_length=256, n_heads=2, d_qk=256, d_hv=512, chunk_size=chunk)
    assert keeps_states(shape) == kept == (1536 * chunk >= 256 * 512)
    assert not keeps_states(replace(shape, context_length=64)), "of a short context the one state is the larger part"
    costs = cell_kernel_costs(shape, carried_tile=32, keep_states=kept)
    backward = [cost.kernel for cost in costs if cost.stage == "backward"]
    rest = ["pair_gradients", "query_gradients", "state_gradients", "key_value_gradients", "gate_gradients"]
    assert backward == (rest if kept else ["states", *rest])
    (fused,) = (cost for cost in costs if cost.kernel == "states_and_outputs")
    # q, weighted keys, v, h, two weights and a row of a tile per token; a state of two bytes a number per chunk
    states = 256 // chunk * (256 * 512 + 256 + 1) * 2 if kept else 0
    assert fused.bytes == 2 * (256 * 2 * (2 * 256 + 2 * 512 + 2 + 32) + states)


@settings(max_examples=60)
@given(shapes(), st.sampled_from([None, 16]), st.sampled_from([None, 16]))
def test_keeping_costs_one_write_and_saves_a_kernel(shape: CellShape, tile: int | None, carried: int | None) -> None:
    """So it always moves less, by k and v and two gates; and the forward pass never fewer bytes, nor other FLOPs."""
    again, kept = (
        cell_kernel_costs(shape, tile=tile, carried_tile=carried, keep_states=keep) for keep in (False, True)
    )
    (states,) = (cost for cost in again if cost.kernel == "states" and cost.stage == "backward")
    state = shape.d_qk * shape.d_hv + shape.d_qk + 1
    written = shape.num_chunks * shape.n_heads * state * 2 if carried else 0  # two kernels write them in any case
    assert pass_bytes(kept) - pass_bytes(again) == written
    assert pass_flops(kept) == pass_flops(again)
    both: Pass = "forward+backward"
    assert pass_bytes(again, both) - pass_bytes(kept, both) == states.bytes - written
    assert pass_flops(again, both) - pass_flops(kept, both) == states.flops
    vectors = shape.num_tokens * shape.n_heads * (shape.d_qk + shape.d_hv + 2) * 2
    assert states.bytes - written == (vectors if carried else states.bytes) > 0
    assert pass_seconds(kept, H200, both) < pass_seconds(again, H200, both)
    assert set(again) - set(kept) <= {states, *(cost for cost in again if cost.kernel == "states_and_outputs")}


def test_scan_keeps_states_at_the_chunks_of_the_kernels() -> None:
    for carried in (None, 32):
        scan = chunk_size_scan(SHAPE, H200, chunk_sizes=(16, 64, 128, 256), carried_tile=carried, keep_states=True)
        again = scan[(scan["kernel"] == "states") & (scan["stage"] == "backward")]["chunk_size"]
        assert again.tolist() == [16, 64], "128 tokens and more have as many numbers as a state of 256 × 512"
