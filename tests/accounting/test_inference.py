"""What a prefill and a step cost: by hand for a tiny model, and by properties that any count must have."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import architectures

from companion.accounting import PAPER, count_flops, count_params
from companion.accounting.inference import (
    BF16,
    RECURRENT_GATE_FLOPS,
    Precision,
    activations_per_token,
    cache_numbers,
    check_batch_size,
    context_of_equal_cache,
    count_prefill,
    count_step,
    mlstm_recurrent_flops,
)
from companion.architectures import XLSTM, Architecture, Transformer, preset
from companion.errors import InputError
from companion.hardware import get_hardware
from companion.runs.shape_family import paper_family

CONTEXTS = st.integers(64, 5000)
BATCHES = st.integers(1, 512)


class TestByHand:
    """d = 4, 1 layer, 1 head of width 4, d_ff = 8, V = 10; T = 3 (chunks of 1), B = 2."""

    tiny = Transformer(d_model=4, n_layers=1, n_heads=1, d_ff=8, vocab_size=10)
    cell = XLSTM(d_model=4, n_layers=1, n_heads=1, d_ff=8, vocab_size=10)

    def test_prefill_flops_of_a_transformer(self) -> None:
        counted = count_prefill(self.tiny, 3, 2).flops
        assert counted.mixer_projections == 2 * 3 * (2 * 4 * 12 + 2 * 4 * 4)
        assert counted.ffn == 2 * 3 * (6 * 4 * 8 + 2 * 8)
        assert counted.mixer_core == 2 * 9 * (4 + 4 + 2.5)
        assert counted.unembedding == 2 * 2 * 4 * 10, "logits of the last token only"

    def test_step_flops(self) -> None:
        assert count_step(self.tiny, 3, 2).flops.mixer_core == 2 * 3 * (2 * 4 + 2 * 4 + 5)
        step = count_step(self.cell, 3, 2).flops
        assert step.mixer_core == 2 * (6 * 2 * 4 + 7 * 2 + 4 + RECURRENT_GATE_FLOPS)
        assert step.output_gate == 2 * (2 * 4 * 4 + 4)

    def test_bytes_of_a_step(self) -> None:
        step = count_step(self.tiny, 3, 2)
        weights = 10 * 4 + (4 * 12 + 4 * 4) + 3 * 4 * 8 + 3 * 4  # unembedding, mixer, feed-forward, norms
        assert step.traffic.weights == 2 * weights
        assert step.memory.weights == 2 * (weights + 10 * 4), "the embedding is held, but hardly read"
        assert step.memory.cache == 2 * 2 * 3 * 8
        assert step.traffic.cache == 2 * 2 * 4 * 8, "three tokens read, one written"

    def test_bytes_of_the_state(self) -> None:
        step = count_step(self.cell, 3, 2)
        state = 2 * 4 * (2 * 4 + 2 + 1)  # two sequences, 4 bytes
        assert (step.memory.cache, step.traffic.cache) == (state, 2 * state)
        prefill = count_prefill(self.cell, 3, 2, convention=replace(PAPER, chunk_size=2))
        assert (prefill.memory.cache, prefill.traffic.cache) == (state, 2 * 2 * state), "two chunks, the last shorter"

    def test_activations(self) -> None:
        # read and written, by layer: two norms, qkv, core, output, two residuals, gate and up, product, down; the rest
        parts = [2 * 8, 4 + 12, 12 + 4, 4 + 4, 2 * 12, 4 + 16, 16 + 8, 8 + 4, 16]
        assert activations_per_token(self.tiny) == sum(parts)
        gates, output_gate, head_norm, product = 4, 4 + 4, 8, 12
        qkv = 2 * 2 + 4
        parts = [2 * 8, 4 + qkv, qkv + 4, 4 + 4, 2 * 12, 4 + 16, 16 + 8, 8 + 4, 16]
        assert activations_per_token(self.cell) == sum(parts) + gates + output_gate + head_norm + product


def test_keys_and_values_of_the_paper_s_7b() -> None:
    """Two vectors of 4096 numbers in each of 32 layers, 2 bytes each: 512 KiB per token (arXiv 2302.13971's shapes)."""
    model = preset("transformer", "7b")
    assert cache_numbers(model, 1) * BF16.bytes_per_cache == 2 * 2 * 32 * 4096 == 512 * 1024
    grouped = replace(model, n_kv_heads=8)
    assert cache_numbers(grouped, 1000) * 4 == cache_numbers(model, 1000)
    assert count_step(grouped, 1000).flops.mixer_core == count_step(model, 1000).flops.mixer_core


def test_state_of_the_paper_s_7b() -> None:
    """xLSTM 7B: 8 heads of 256 × 512 in 32 layers (arXiv 2503.13427): bytes of 257 tokens of keys and values."""
    state = cache_numbers(preset("xlstm", "7b"), 1)
    assert state == 32 * 8 * (256 * 512 + 256 + 1)
    equal = context_of_equal_cache(preset("transformer", "7b"), preset("xlstm", "7b"))
    assert equal == pytest.approx(4 * state / (2 * 2 * 32 * 4096), rel=1e-12)
    assert 256 < equal < 257


@given(architectures("transformer"), st.integers(1, 300), BATCHES)
def test_attention_of_all_steps_is_the_causal_prefill(model: Architecture, context: int, batch: int) -> None:
    steps = count_step(model, np.arange(1, context + 1), batch).flops.mixer_core.sum()
    prefill = count_prefill(model, context, batch).flops.mixer_core
    assert steps == pytest.approx(prefill * (context + 1) / context, rel=1e-12)


@given(architectures(), CONTEXTS)
def test_prefill_is_the_forward_pass_of_training_with_one_row_of_logits(model: Architecture, context: int) -> None:
    prefill, training = count_prefill(model, context).flops.as_dict(), count_flops(model, context).forward.as_dict()
    assert prefill.pop("unembedding") * context == pytest.approx(training.pop("unembedding"), rel=1e-12)
    assert prefill == training


@given(architectures(), CONTEXTS, BATCHES)
def test_batch_multiplies_all_but_the_weights(model: Architecture, context: int, batch: int) -> None:
    for counted in (count_prefill, count_step):
        one, many = counted(model, context), counted(model, context, batch)
        assert many.flops.total == pytest.approx(batch * one.flops.total, rel=1e-12)
        for kind in ("traffic", "memory"):
            first, all_of_them = getattr(one, kind), getattr(many, kind)
            assert all_of_them.weights == first.weights, "weights are read once for the whole batch"
            assert all_of_them.cache == pytest.approx(batch * first.cache, rel=1e-12)
            assert all_of_them.activations == pytest.approx(batch * first.activations, rel=1e-12)
            parts = all_of_them.weights + all_of_them.cache + all_of_them.activations
            assert all_of_them.total == pytest.approx(parts, rel=1e-12)
        assert many.arithmetic_intensity >= one.arithmetic_intensity * (1 - 1e-12)


@given(architectures("xlstm"), CONTEXTS, CONTEXTS)
def test_a_step_of_an_xlstm_does_not_know_its_context(model: Architecture, first: int, second: int) -> None:
    assert count_step(model, first).flops == count_step(model, second).flops
    assert count_step(model, first).traffic == count_step(model, second).traffic
    assert count_step(model, first).memory == count_step(model, second).memory


@given(architectures("transformer"), architectures("xlstm"))
def test_cache_and_state_are_equal_where_they_are_said_to_be(transformer: Architecture, xlstm: Architecture) -> None:
    context = context_of_equal_cache(transformer, xlstm)
    keys = cache_numbers(transformer, context) * BF16.bytes_per_cache
    assert keys == pytest.approx(cache_numbers(xlstm, context) * BF16.bytes_per_state, rel=1e-12)


@given(architectures(), CONTEXTS)
def test_weights_are_those_of_the_model(model: Architecture, context: int) -> None:
    weights = count_params(model)
    wide = Precision(bytes_per_weight=4)
    for counted in (count_prefill, count_step):
        assert counted(model, context).memory.weights == 2 * weights.total
        assert counted(model, context, precision=wide).memory.weights == 4 * weights.total
        assert counted(model, context).traffic.weights == 2 * (weights.total - weights.embedding)


def test_precision_acts_on_its_own_part_only() -> None:
    model = preset("transformer", "400m")
    base = count_step(model, 100, 4)
    other = count_step(model, 100, 4, precision=Precision(bytes_per_cache=1))
    assert other.traffic.cache == base.traffic.cache / 2
    assert (other.traffic.weights, other.traffic.activations) == (base.traffic.weights, base.traffic.activations)
    state = count_step(preset("xlstm", "400m"), 100, 4)
    assert count_step(preset("xlstm", "400m"), 100, 4, precision=Precision(bytes_per_state=2)).memory.cache * 2 == (
        state.memory.cache
    )


def test_conventions() -> None:
    model = preset("transformer", "160m")
    weights = count_params(model).total
    six = count_step(model, 1000, 2, convention="6ND").flops
    assert six.mixer_core == 0
    assert six.total == pytest.approx(2 * 2 * weights)
    assert count_step(model, 1000, convention="chinchilla").flops.mixer_core == 12 * 12 * 1000 * (4 * 64 + 3)


def test_arrays_are_many_passes() -> None:
    contexts, batches = np.array([64, 1000, 4096])[:, None], np.array([1, 8])
    for name in ("transformer", "xlstm"):
        model = preset(name, "160m")
        for counted in (count_prefill, count_step):
            table = counted(model, contexts, batches)
            for i, j in ((0, 0), (2, 1), (1, 0)):
                one = counted(model, int(contexts[i, 0]), int(batches[j]))
                assert np.broadcast_to(table.flops.total, (3, 2))[i, j] == one.flops.total
                assert np.broadcast_to(table.traffic.total, (3, 2))[i, j] == one.traffic.total
                assert np.broadcast_to(table.memory.total, (3, 2))[i, j] == one.memory.total


def test_shapes_of_a_family_count_like_a_model() -> None:
    family = paper_family("transformer")
    shapes = family.shapes(2048.0)
    built = Transformer(d_model=2048, n_layers=24, n_heads=16)
    ratio = count_step(shapes, 1000).traffic.total / count_step(built, 1000).traffic.total
    assert 0.7 < ratio < 1.4


class TestRoofline:
    def test_the_larger_time_wins(self) -> None:
        peaks = get_hardware("h100-sxm")
        prefill = count_prefill(preset("xlstm", "7b"), 8192).roofline(peaks)
        step = count_step(preset("xlstm", "7b"), 8192).roofline("h100-sxm")
        assert prefill.compute_bound
        assert not step.compute_bound
        assert prefill.seconds == prefill.compute_seconds > prefill.memory_seconds
        assert step.seconds == step.memory_seconds

    def test_bound_changes_at_the_ridge(self) -> None:
        peaks = get_hardware("a100-sxm")
        model = preset("transformer", "1.4b")
        for batch in (1, 64, 1024):
            for counted in (count_step(model, 200, batch), count_prefill(model, 200, batch)):
                assert counted.roofline(peaks).compute_bound == (counted.arithmetic_intensity >= peaks.ridge)

    def test_what_does_not_fit_says_how_much_it_needs(self) -> None:
        step = count_step(preset("transformer", "7b"), 131072, 8)
        needed = step.memory.total / 2**30
        message = step.fit_message("h100-sxm")
        assert "does not fit, needs" in message
        assert f"{needed:.1f} GiB" in message
        assert "74.5 GiB" in message, "80e9 bytes"
        assert count_step(preset("transformer", "7b"), 128, 8).fit_message("h100-sxm") == ""


@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), float("inf"), "8", True, [4, 0]])
def test_batches_that_cannot_be(value: Any) -> None:
    with pytest.raises(InputError, match=r"batch_size: .* is not a positive whole number"):
        check_batch_size(value)


def test_bad_input() -> None:
    model = preset("xlstm", "160m")
    with pytest.raises(InputError, match="context_length 63 is shorter than one chunk of 64 tokens"):
        count_prefill(model, 63)
    assert count_step(model, 1).flops.total > 0, "a step needs no chunk"
    for counted in (count_prefill, count_step):
        with pytest.raises(InputError, match="context_length: 0 is not a positive whole number"):
            counted(model, 0)
        with pytest.raises(InputError, match="convention 'mine' is not known"):
            counted(model, 64, convention="mine")
        with pytest.raises(InputError, match="batch_size"):
            counted(model, 64, 0)
    with pytest.raises(InputError, match="bytes_per_state 0 is not a positive, finite number"):
        Precision(bytes_per_state=0)
    with pytest.raises(InputError, match="hardware 'tpu' is not known; there are a100-sxm"):
        count_step(model, 64).roofline("tpu")


def test_recurrent_flops_are_those_of_the_paper() -> None:
    """6·d_qk·d_hv + 7·d_qk + d_hv and about ten for the gates (arXiv 2510.02228, appendix)."""
    assert mlstm_recurrent_flops(256, 512) - (6 * 256 * 512 + 7 * 256 + 512) == RECURRENT_GATE_FLOPS
    assert 8 <= RECURRENT_GATE_FLOPS <= 15
