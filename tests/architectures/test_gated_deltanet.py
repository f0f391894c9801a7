"""Gated DeltaNet: the parameters that its authors state, counts by hand, presets, hybrids."""

import pytest

from companion.accounting import PAPER, SIX_ND, count_flops, count_params, num_params
from companion.accounting.inference import BF16, cache_bytes, cache_numbers, count_step
from companion.architectures import PRESET_SIZES, make_architecture, preset
from companion.architectures.gated_deltanet import CONV_SIZE, GATE_FLOPS, GatedDeltaNet
from companion.errors import InputError


def test_parameters_of_a_layer_are_those_that_the_authors_state() -> None:
    """6·d² in five matrices: flash-linear-attention's layer at its defaults, d = 2048 and 6 heads of 256."""
    d, H, qk, hv = 2048, 6, 256, 512
    model = GatedDeltaNet(d_model=d, n_layers=1, n_heads=H, d_ff=0, vocab_size=1)
    assert (model.d_qk, model.d_hv) == (qk, hv)
    counted = count_params(model)
    q = k = 0.75 * d * d
    v = gate = output = 1.5 * d * d
    small = 2 * d * H  # decay and rate
    assert counted.output_gate == gate
    assert counted.mixer_projections == q + k + v + output + small
    assert q + k + v + gate + output == 6 * d * d
    # short convolutions of width 4 without bias, A_log and dt_bias, norm of a head
    assert counted.mixer_core == 4 * (2 * H * qk + H * hv) + 2 * H
    assert counted.norms == d + hv + d
    others = counted.total - 6 * d * d - 2 * d - 2 * d
    assert others / (6 * d * d) < 0.003, "others are ignorably small, as the authors say"


def test_sizes_match_those_of_the_paper() -> None:
    for size in PRESET_SIZES:
        ours, paper = num_params(preset("gated_deltanet", size)), num_params(preset("transformer", size))
        assert ours == pytest.approx(paper, rel=0.04)
    assert preset("gated_deltanet", "1.4b").n_layers == 21  # 12/14 of 24


def test_step_and_state_by_hand() -> None:
    model = GatedDeltaNet(d_model=4, n_layers=2, n_heads=1, d_qk=2, d_hv=6, d_ff=8, vocab_size=10)
    step = count_step(model, 100)
    conv = (2 * CONV_SIZE + 1) * (2 + 2 + 6)
    assert step.flops.mixer_core == 2 * (7 * 2 * 6 + 2 * 6 + GATE_FLOPS + conv)
    state = 2 * (2 * 6 + (CONV_SIZE - 1) * (2 + 2 + 6))
    assert cache_numbers(model, 100) == cache_numbers(model, 10_000) == state
    assert step.traffic.cache == 2 * state * BF16.bytes_per_state
    assert count_step(model, 100, convention=SIX_ND).flops.mixer_core == 0


def test_products_of_a_chunk_by_hand() -> None:
    """One chunk of the published shapes: its products of matrices are nearly all of it."""
    L, H, qk, hv = 64, 6, 256, 512
    model = GatedDeltaNet(d_model=2048, n_layers=1, n_heads=H, d_ff=0, vocab_size=1)
    core = count_flops(model, L, PAPER).forward.mixer_core
    within = 2 * L * L * (qk + qk + hv) + 2 * L * L * (qk + hv)  # keys·keys, queries·keys, ·values; W and U
    state = 3 * 2 * L * qk * hv  # keys, values and queries with the state
    inverse = L * (L - 1) * (L - 2) / 3
    products = H * (within + state + inverse)
    assert products < core < 1.1 * products
    # whole chunks cost in proportion; a shorter chunk costs less than a whole one
    assert count_flops(model, 10 * L).forward.mixer_core == 10 * core
    assert core < count_flops(model, L + 1).forward.mixer_core < 2 * core


@pytest.mark.parametrize(("name", "every"), [("gated_deltanet_3to1", 4), ("gated_deltanet_7to1", 8)])
def test_hybrids_by_name_and_by_pattern(name: str, every: int) -> None:
    named = preset(name, "1.4b")
    pattern = make_architecture("gated_deltanet", **named.shapes())
    assert [layer.number for layer in named.layers] == [21 - 21 // every, 21 // every]
    assert num_params(named) == num_params(pattern)
    assert count_flops(named, 8192).components == count_flops(pattern, 8192).components
    assert named.keeps == "state, keys and values"
    pure, full = preset("gated_deltanet", "1.4b"), preset("transformer", "1.4b")
    assert cache_bytes(pure, 65536) < cache_bytes(named, 65536) < cache_bytes(full, 65536)


def test_widths_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"1\.5 \* d_model is not a multiple of n_heads: give d_qk and d_hv"):
        GatedDeltaNet(d_model=64, n_layers=1, n_heads=5)
    with pytest.raises(InputError, match="d_hv is odd: give d_qk"):
        GatedDeltaNet(d_model=6, n_layers=1, n_heads=1)
    with pytest.raises(InputError, match="shorter than one chunk of 64 tokens"):
        count_flops(preset("gated_deltanet", "160m"), 63)
