"""The formulas that chapter 1 prints agree with the count."""

from dataclasses import replace

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from strategies import architectures

from companion.accounting import CHINCHILLA, PAPER, SIX_ND, TFLA, Convention, count_flops, count_params
from companion.accounting.symbolic import SYMBOLS, flops_formulas
from companion.architectures import PAPER_ARCHITECTURES, Architecture, preset
from companion.chapters.ch01 import formulas
from companion.chapters.ch01.words import component_word
from companion.errors import InputError


@pytest.mark.parametrize("name", sorted(PAPER_ARCHITECTURES))
def test_formula_table_names_every_component_that_costs_something(name: str) -> None:
    table = formulas.formula_table(name).set_index("component")
    model = preset(name, "160m")
    weights, flops = count_params(model).as_dict(), count_flops(model, 2048).forward.as_dict()
    assert set(table.index) == {component_word(c) for c in weights if weights[c] or flops[c]}
    assert table.loc["unembedding", "num_params"] == r"\(V d\)"
    assert table.loc["norms", "forward_flops_per_token"] == r"\(0\)"


@pytest.mark.parametrize("convention", [PAPER, TFLA, CHINCHILLA])
def test_the_core_in_chunks_is_the_core(convention: Convention) -> None:
    core = flops_formulas("xlstm", convention).mixer_core
    short = formulas.in_chunks(core, convention)
    assert short.has(formulas.CHUNK)
    assert not short.has(SYMBOLS["d_qk"])
    chunk = sum(term.flops for term in formulas.chunk_terms(convention))
    assert sympy.simplify(short.subs(formulas.CHUNK, chunk) - core) == 0
    for other in (flops_formulas("transformer", convention).mixer_core, sympy.Integer(0)):
        assert formulas.in_chunks(other, convention) == other


def test_aligned_has_a_line_per_term() -> None:
    x, y = sympy.symbols("x y")
    text = formulas.aligned(s=x * y, r=x + y)
    assert text == r"\begin{aligned}s &= x y \\ r &= x \\ &+ y\end{aligned}"


@pytest.mark.parametrize("convention", [PAPER, TFLA])
def test_terms_of_the_chunk_add_up(convention: Convention) -> None:
    terms = formulas.chunk_terms(convention)
    assert all(term.meaning for term in terms)
    table = formulas.chunk_table(preset("xlstm", "7b"), convention)
    assert table["share"].sum() == pytest.approx(1)
    # keys times values, queries times the state, queries times keys, scores times values
    assert table["matrix_product"].sum() == {"paper": 3, "tfla": 4}[convention.name]
    assert table.loc[table["matrix_product"], "share"].sum() > 0.95


def test_terms_that_do_not_add_up_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = formulas._TERMS
    monkeypatch.setattr(formulas, "_TERMS", {key: terms[:-1] for key, terms in listed.items()})
    with pytest.raises(ArithmeticError, match="'output' do not add up to what paper counts"):
        formulas.chunk_terms(PAPER)


def test_counts_without_listed_terms_are_refused() -> None:
    own = replace(PAPER, name="mine", mlstm_chunk=lambda L, qk, hv, F: {"state": L * qk * hv})
    for convention in (SIX_ND, own):
        with pytest.raises(InputError, match=f"convention {convention.name}: the terms"):
            formulas.chunk_terms(convention)


@given(architectures("xlstm"), st.sampled_from([PAPER, TFLA]))
def test_core_per_token_is_what_is_counted(model: Architecture, convention: Convention) -> None:
    sizes = [1, 16, 64, 200]
    counted = [
        count_flops(model, 3 * L, replace(convention, chunk_size=L)).components.mixer_core / (3 * L) for L in sizes
    ]
    np.testing.assert_allclose(formulas.mlstm_core_per_token(model, sizes, convention), counted, rtol=1e-12)


def test_convention_fields() -> None:
    table = formulas.convention_fields().set_index("convention")
    assert table.loc["paper"].to_dict() == {
        "attention": "0.5",
        "softmax": "5",
        "mlstm": "paper",
        "embedding": "no",
        "elementwise": "2",
    }
    assert table.loc["6ND", "attention"] == "–"
    assert table.loc["6ND", "embedding"] == "yes"
