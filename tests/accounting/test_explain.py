"""The tables that explain a count agree with the count."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import architectures

from companion.accounting import CONVENTIONS, PAPER, SIX_ND, TFLA, count_flops, count_params, explain, num_params
from companion.architectures import ARCHITECTURES, Architecture, preset
from companion.errors import InputError


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_formula_table_names_every_component_that_costs_something(name: str) -> None:
    table = explain.formula_table(name).set_index("component")
    model = preset(name, "160m")
    weights, flops = count_params(model).as_dict(), count_flops(model, 2048).forward.as_dict()
    assert set(table.index) == {c.replace("_", " ") for c in weights if weights[c] or flops[c]}
    assert table.loc["unembedding", "num_params"] == r"\(V \cdot d\)"
    assert table.loc["norms", "forward_flops_per_token"] == r"\(0\)"


@pytest.mark.parametrize("convention", [PAPER, TFLA])
def test_terms_of_the_chunk_add_up(convention: explain.Convention) -> None:
    terms = explain.chunk_terms(convention)
    assert all(term.meaning for term in terms)
    table = explain.chunk_table(preset("xlstm", "7b"), convention)
    assert table["share"].sum() == pytest.approx(1)
    # keys times values, queries times the state, queries times keys, scores times values
    assert table["matrix_product"].sum() == {"paper": 3, "tfla": 4}[convention.name]
    assert table.loc[table["matrix_product"], "share"].sum() > 0.95


def test_terms_that_do_not_add_up_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = explain._TERMS
    monkeypatch.setattr(explain, "_TERMS", {key: terms[:-1] for key, terms in listed.items()})
    with pytest.raises(ArithmeticError, match="'output' do not add up to what paper counts"):
        explain.chunk_terms(PAPER)


def test_counts_without_listed_terms_are_refused() -> None:
    own = replace(PAPER, name="mine", mlstm_chunk=lambda L, qk, hv, F: {"state": L * qk * hv})
    for convention in (SIX_ND, own):
        with pytest.raises(InputError, match=f"convention {convention.name}: the terms"):
            explain.chunk_terms(convention)


@given(architectures("xlstm"), st.sampled_from([PAPER, TFLA]))
def test_core_per_token_is_what_is_counted(model: Architecture, convention: explain.Convention) -> None:
    sizes = [1, 16, 64, 200]
    counted = [
        count_flops(model, 3 * L, replace(convention, chunk_size=L)).components.mixer_core / (3 * L) for L in sizes
    ]
    np.testing.assert_allclose(explain.mlstm_core_per_token(model, sizes, convention), counted, rtol=1e-12)


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


def test_convention_fields() -> None:
    table = explain.convention_fields().set_index("convention")
    assert table.loc["paper"].to_dict() == {
        "attention": "0.5",
        "softmax": "5",
        "mlstm": "paper",
        "embedding": "no",
        "elementwise": "2",
    }
    assert table.loc["6ND", "attention"] == "–"
    assert table.loc["6ND", "embedding"] == "yes"


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
