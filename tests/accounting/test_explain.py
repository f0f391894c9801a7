"""Conventions side by side and the gap of 6·N·D agree with the count."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import architectures

from companion.accounting import CONVENTIONS, PAPER, count_flops, count_params, explain, num_params
from companion.architectures import Architecture, preset
from companion.errors import InputError


def test_convention_table() -> None:
    model = preset("transformer", "7b")
    table = explain.convention_table(model, 8192).set_index("convention")
    assert list(table.index) == list(CONVENTIONS)
    assert table.loc["paper", "ratio"] == 1
    assert table.loc["6ND", "train_flops_per_token"] == pytest.approx(6 * num_params(model))
    assert table.loc["6ND", "core_share"] == 0
    mine = replace(PAPER, name="mine", attention_causal_factor=1.0)
    own = explain.convention_table(model, 8192, ["paper", mine]).set_index("convention")
    share = own.loc["paper", "core_share"]
    assert own.loc["mine", "ratio"] == pytest.approx(1 + share)  # the core once more


@given(architectures(), st.integers(64, 100_000), st.sampled_from(sorted(CONVENTIONS)))
def test_gap_of_six_nd_adds_up(model: Architecture, length: int, convention: str) -> None:
    gap = explain.six_nd_gap(model, length, convention)
    ratio = count_flops(model, length, convention).train_flops_per_token / (6 * num_params(model))
    assert math.isclose(sum(gap.values()), ratio - 1, rel_tol=1e-9, abs_tol=1e-12)


def test_gap_of_six_nd_blames_the_embedding_and_the_core() -> None:
    gap = explain.six_nd_gap(preset("transformer", "160m"), 8192)
    assert gap["embedding"] == pytest.approx(-50304 * 768 / num_params(preset("transformer", "160m")))
    assert gap["mixer_core"] > 0
    assert gap["mixer_projections"] == gap["unembedding"] == 0


@given(architectures("transformer") | architectures("xlstm"), st.integers(64, 10_000), st.floats(0, 10))
def test_norms_cost_what_a_convention_says(model: Architecture, length: int, flops: float) -> None:
    convention = replace(PAPER, name="with norms", norm_flops=flops)
    counted, plain = count_flops(model, length, convention), count_flops(model, length)
    # every weight of a norm scales one element per token, where heads share none
    assert counted.forward.norms == pytest.approx(flops * length * count_params(model).norms)
    assert counted.forward.total == pytest.approx(plain.forward.total + counted.forward.norms)


def test_negative_price_of_norms_is_refused() -> None:
    with pytest.raises(InputError, match="norm_flops -1 is negative"):
        replace(PAPER, norm_flops=-1)
