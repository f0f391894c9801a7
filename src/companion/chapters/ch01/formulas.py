"""Formulas of chapter 1: of the components, of one chunk of the mLSTM, and what the conventions count, in words.

The functions that count make the formulas, so a formula cannot differ from the count. Needs sympy (extra `book`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import sympy

from companion.accounting.conventions import (
    CONVENTIONS,
    PAPER,
    Convention,
    get_convention,
    mlstm_chunk_paper,
    mlstm_chunk_tfla,
)
from companion.accounting.symbolic import SYMBOLS, flops_formulas, params_formulas, to_latex
from companion.architectures import Architecture
from companion.chapters.ch01.words import component_word
from companion.errors import InputError

#: FLOPs of one head over one chunk, c(L), as the sum of the terms in `chunk_terms`.
CHUNK = sympy.Symbol("c(L)", positive=True)
_L, _QK, _HV, _F = (SYMBOLS[name] for name in ("chunk_size", "d_qk", "d_hv", "mlstm_causal_factor"))


def formula_table(architecture: str, convention: str | Convention = PAPER) -> pd.DataFrame:
    """Parameters and forward FLOPs per token of every component that has any, as inline LaTeX.

    The core of the mLSTM is written with c(L), the FLOPs of one head over one chunk: `chunk_terms` has its terms.

    Returns
    -------
    DataFrame with `component`, `num_params` and `forward_flops_per_token`; formulas in `\\\\( \\\\)`.

    Raises
    ------
    InputError
        if the architecture or the convention is not known.
    """
    flops = flops_formulas(architecture, convention).as_dict()
    return pd.DataFrame(
        [
            {
                "component": component_word(name),
                "num_params": _inline(weights),
                "forward_flops_per_token": _inline(in_chunks(flops[name], convention)),
            }
            for name, weights in params_formulas(architecture).items()
            if weights != 0 or flops[name] != 0
        ]
    )


def in_chunks(formula: Any, convention: str | Convention = PAPER) -> Any:
    """A formula that is a multiple of the FLOPs of one chunk over L, written with `CHUNK`; any other as it is."""
    convention = get_convention(convention)
    factor = _F if convention.name == "tfla" else sympy.nsimplify(convention.mlstm_causal_factor)
    chunk = sympy.nsimplify(sum(convention.mlstm_chunk(_L, _QK, _HV, factor).values()))
    ratio = sympy.cancel(formula * _L / chunk)
    return formula if ratio.has(_L, _QK, _HV) or ratio == 0 else ratio * CHUNK / _L


def aligned(**formulas: Any) -> str:
    """Formulas below each other as LaTeX, each by the symbol on its left; a long sum has a line per term."""
    lines = []
    for symbol, formula in formulas.items():
        terms = [to_latex(term) for term in sympy.Add.make_args(formula)]
        lines.append(f"{symbol} &= {terms[0]}")
        lines += [f"&+ {term}" for term in terms[1:]]
    return r"\begin{aligned}" + r" \\ ".join(lines) + r"\end{aligned}"


# ---- one chunk of the mLSTM, term by term --------------------------------------------------------


@dataclass(frozen=True)
class ChunkTerm:
    """One term in the FLOPs of one head over one chunk: where it belongs, what it is, and its formula (sympy)."""

    part: str
    meaning: str
    flops: Any


_GATES = ("forget gates: sigmoid, log, cumulative sums", _L * (_L + 1) / 2 + 2 * _L)
_TERMS: dict[Any, tuple[tuple[str, str, Any], ...]] = {
    mlstm_chunk_paper: (
        ("state", *_GATES),
        ("state", "decay and key weights: maximum, exp", 5 + 5 * _L),
        ("state", "decay the old state matrix and add the new one", 2 * _QK * _HV),
        ("state", "keys times values, and queries times state, 2 each", 4 * _L * _QK * _HV),
        ("state", "weight and scale keys and queries", 3 * _L * _QK),
        ("state", "decay the old normalizer and add the new one", 2 * _QK),
        ("state", "keys into the normalizer, and queries times it, 2 each", 4 * _L * _QK),
        ("output", *_GATES),
        ("output", "queries times keys", 2 * _L**2 * _QK),
        ("output", "gate matrix and its product with the scores", 10 * _L**2),
        ("output", "scores times values", 2 * _L**2 * _HV),
        ("output", "denominator: absolute value, maximum, exp", 7 * _L),
        ("output", "add both outputs and divide", 2 * _L * _HV),
    ),
    mlstm_chunk_tfla: (
        ("state", *_GATES),
        ("state", "decay and key weights: maximum, exp", 5 + 4 * _L),
        ("state", "decay the old state matrix and add the new one", 2 * _QK * _HV),
        ("state", "keys times values into the state", 2 * _L * _QK * _HV),
        ("state", "weight the keys", _L * _QK),
        ("state", "decay the old normalizer and add the new one", 2 * _QK),
        ("state", "keys into the normalizer", 2 * _L * _QK),
        ("intra", *_GATES),
        ("intra", "queries times keys", _F * 2 * _L**2 * _QK),
        ("intra", "gate matrix and its product with the scores", _F * 8 * _L**2),
        ("intra", "maxima of the rows", _F * 2 * _L),
        ("intra", "scores times values", _F * 2 * _L**2 * _HV),
        ("inter", "queries times the state", 2 * _L * _QK * _HV),
        ("inter", "scaled queries times the normalizer", 3 * _L * _QK),
        ("combination", "add both outputs and divide", 2 * _L * _HV),
        ("combination", "denominator: absolute value, maximum, exp", 4 * _L),
    ),
}


def chunk_terms(convention: str | Convention = PAPER) -> list[ChunkTerm]:
    """The terms of one head over one chunk, checked against the function that counts.

    The terms are the authors' (arXiv 2510.02228); the words beside the smaller ones are our reading of them.

    Raises
    ------
    InputError
        if the convention counts the chunk by a function that is not explained here, or not by layers.
    ArithmeticError
        if the terms do not add up to what the code counts.
    """
    convention = get_convention(convention)
    if convention.rule != "layers" or convention.mlstm_chunk not in _TERMS:
        raise InputError(f"convention {convention.name}: the terms of its mLSTM chunk are not listed")
    terms = [ChunkTerm(*term) for term in _TERMS[convention.mlstm_chunk]]
    counted = convention.mlstm_chunk(_L, _QK, _HV, _F)
    for part in sorted({term.part for term in terms} | set(counted)):
        listed = sum((term.flops for term in terms if term.part == part), sympy.Integer(0))
        if sympy.expand(listed - counted.get(part, 0)) != 0:
            raise ArithmeticError(f"the terms of part {part!r} do not add up to what {convention.name} counts")
    return terms


def chunk_table(architecture: Architecture, convention: str | Convention = PAPER) -> pd.DataFrame:
    """The terms of one chunk with their share for one configuration.

    Returns
    -------
    DataFrame with `part`, `formula` (inline LaTeX), `share` (between 0 and 1, of one full chunk), `meaning`, and
    `matrix_product`: whether the term is a product of two matrices over the whole chunk.

    Raises
    ------
    InputError
        see `chunk_terms`.
    """
    convention = get_convention(convention)
    terms = chunk_terms(convention)
    shapes = (convention.chunk_size, architecture.d_qk, architecture.d_hv, convention.mlstm_causal_factor)
    values = dict(zip((_L, _QK, _HV, _F), shapes, strict=True))
    total = sum(convention.mlstm_chunk(*shapes).values())
    return pd.DataFrame(
        [
            {
                "part": term.part,
                "formula": _inline(term.flops),
                "share": float(term.flops.subs(values)) / total,
                "meaning": term.meaning,
                "matrix_product": sympy.Poly(term.flops, _L, _QK, _HV).total_degree() == 3,
            }
            for term in terms
        ]
    )


def mlstm_core_per_token(architecture: Architecture, chunk_sizes: Any, convention: str | Convention = PAPER) -> Any:
    """FLOPs of training per token in the mLSTM core of all layers, for whole chunks of each size (any shape)."""
    convention, sizes = get_convention(convention), np.asarray(chunk_sizes, dtype=float)
    shapes = (architecture.d_qk, architecture.d_hv, convention.mlstm_causal_factor)
    one_chunk = sum(convention.mlstm_chunk(sizes, *shapes).values())
    return (1 + convention.backward_factor) * architecture.n_layers * architecture.n_heads * one_chunk / sizes


def convention_fields(conventions: Sequence[str | Convention] = tuple(CONVENTIONS)) -> pd.DataFrame:
    """What conventions count, field by field, in words; a dash where a field plays no part.

    Returns
    -------
    DataFrame with `convention`, `attention` (share of the T × T matrix), `softmax` (FLOP per score), `mlstm` (the count
    of a chunk), `embedding` (whether the look-up is priced as a product) and `elementwise` (FLOP per inner unit of
    SwiGLU).
    """
    rows = []
    for convention in map(get_convention, conventions):
        fields = {
            "attention": f"{convention.attention_causal_factor:g}",
            "softmax": f"{convention.attention_softmax_flops:g}",
            "mlstm": convention.mlstm_chunk.__name__.removeprefix("mlstm_chunk_"),
            "embedding": "yes" if convention.count_embedding else "no",
            "elementwise": f"{convention.ffn_elementwise_flops:g}",
        }
        if convention.rule == "6ND":
            fields = dict.fromkeys(fields, "–")
            fields["embedding"] = "yes" if "embedding" in convention.counted_weights else "no"
        rows.append({"convention": convention.name, **fields})
    return pd.DataFrame(rows)


def _inline(formula: Any) -> str:
    return rf"\({to_latex(formula)}\)".replace(r"\frac", r"\dfrac")
