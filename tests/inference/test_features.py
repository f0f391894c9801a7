"""Sizes of the terms: those of the accounting, waves that jump where the multiprocessors are full, arrays."""

import numpy as np
import pytest

from companion.accounting.inference import count_step
from companion.architectures import preset
from companion.hardware import get_hardware
from companion.inference.features import features
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
