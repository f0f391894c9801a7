"""Sizes of the terms: those of the accounting, waves that jump where the multiprocessors are full, arrays."""

import numpy as np
import pytest

from companion.accounting.inference import count_step
from companion.architectures import preset
from companion.errors import NotApplicable
from companion.hardware import get_hardware
from companion.inference.features import features, split_terms
from companion.runs.shape_family import paper_family

H100 = get_hardware("h100-sxm")


def test_step_terms_are_the_accounting_s() -> None:
    model = preset("xlstm", "400m")
    step, found = count_step(model, 1000, 8), features("step_time", model, 1000, 8)
    assert found["weight_bytes"] == step.traffic.weights
    assert found["state_bytes"] == step.traffic.cache
    assert found["activation_bytes"] == step.traffic.activations
    assert (found["layers"], found["batched_layers"]) == (24, 24)
    assert features("step_time", model, 1000, 1)["batched_layers"] == 0


def test_waves_jump_where_the_multiprocessors_are_full() -> None:
    model = preset("transformer", "400m")  # 16 heads
    waves = features("step_time", model, 1000, np.array([1, 8, 9, 16, 17]), H100)["cache_waves"] / (24 * 1000)
    assert waves.tolist() == [1, 1, 2, 2, 3], "132 multiprocessors: 8.25 sequences"
    assert features("step_time", model, 1000, 9, "mi300x")["cache_waves"] == 24 * 1000


def test_prefill_terms_add_up() -> None:
    found = features("ttft", preset("transformer", "7b"), 4096, 2)
    assert found["product_flops"] + found["attention_flops"] == pytest.approx(found["flops"])
    assert found["token_layers"] == 2 * 4096 * 32


def test_families_and_arrays_broadcast() -> None:
    shapes = paper_family("transformer").shapes(np.array([1024.0, 4096.0])[:, None])
    for quantity in ("ttft", "step_time"):
        found = features(quantity, shapes, np.array([128, 256, 512]), 4)
        assert {np.shape(value) for value in found.values()} == {(2, 3)}


class TestSplitCaches:
    """Kernels that split a cache over the device: bytes in place of waves, and hybrids."""

    HYBRID = preset("xlstm", "400m", attention_every=8, attention_heads=16, n_kv_heads=4)

    def test_a_hybrid_has_terms_of_both_kinds(self) -> None:
        names = [term.name for term in split_terms(self.HYBRID, "step_time")]
        assert names == ["weight_bytes", "cache_bytes", "state_bytes", "activation_bytes", "layers", "batched_layers"]
        assert "attention_flops" in [term.name for term in split_terms(self.HYBRID, "ttft")]
        with pytest.raises(NotApplicable, match="hybrid"):
            features("step_time", self.HYBRID, 1000, 8)

    def test_bytes_add_up(self) -> None:
        step = count_step(self.HYBRID, 1000, 8)
        found = features("step_time", self.HYBRID, 1000, 8, split_cache=True)
        # 3 of 24 layers: 4 heads of 64 keys and 64 values, 2 bytes each; 1000 tokens read, one written
        assert found["cache_bytes"] == 8 * 3 * 4 * 128 * 2 * 1001
        assert found["cache_bytes"] + found["state_bytes"] == step.traffic.cache

    def test_flops_add_up(self) -> None:
        found = features("ttft", self.HYBRID, 4096, 2, split_cache=True)
        assert found["attention_flops"] == 2 * 3 * 4096**2 * 16 * (64 + 64 + 2.5)
        assert found["product_flops"] + found["attention_flops"] == pytest.approx(found["flops"])

    @pytest.mark.parametrize("name", ["transformer", "xlstm"])
    def test_only_the_cache_differs_for_one_kind_of_layers(self, name: str) -> None:
        model = preset(name, "400m")
        waves, split = (features("step_time", model, 1000, 8, split_cache=each) for each in (False, True))
        assert {key: split[key] for key in set(waves) & set(split)} == {
            key: waves[key] * (name == "xlstm" or key != "state_bytes") for key in set(waves) & set(split)
        }
        assert split["cache_bytes" if name == "transformer" else "state_bytes"] == waves["state_bytes"]
