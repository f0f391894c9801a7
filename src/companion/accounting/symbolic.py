"""The formulas of the accounting, printed from the code that counts.

The counting functions run on sympy symbols instead of numbers, so a formula in the book cannot drift from the code.
Needs sympy (extra `book`).
"""

from types import SimpleNamespace
from typing import Any

import sympy

from companion.accounting.breakdown import Breakdown
from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.accounting.flops import forward_flops
from companion.accounting.params import count_params
from companion.architectures import Architecture, architecture_class

#: Symbols of the shapes, by their names in code.
SYMBOLS: dict[str, sympy.Symbol] = {
    name: sympy.Symbol(latex, positive=True, integer=True)
    for name, latex in {
        "d_model": "d",
        "n_layers": "n_layers",
        "n_heads": "H",
        "n_kv_heads": "H_kv",
        "d_ff": "d_ff",
        "d_qk": "d_qk",
        "d_hv": "d_hv",
        "vocab_size": "V",
        "context_length": "T",
        "chunk_size": "L",
        "mlstm_causal_factor": "F",
    }.items()
}
_LATEX_NAMES = {
    SYMBOLS["n_layers"]: r"n_{\mathrm{layers}}",
    SYMBOLS["d_ff"]: r"d_{\mathrm{ff}}",
    SYMBOLS["d_qk"]: r"d_{qk}",
    SYMBOLS["d_hv"]: r"d_{hv}",
}


def params_formulas(architecture: str) -> Breakdown:
    """Parameters of every component as sympy expressions in the shapes."""
    return _simplified(count_params(symbolic_architecture(architecture)))


def flops_formulas(architecture: str, convention: str | Convention = PAPER) -> Breakdown:
    """FLOPs of the forward pass *per token*, by component, as sympy expressions in the shapes, T, and L.

    For the mLSTM the chunk size stays a symbol and the context is taken to be a multiple of it.
    """
    convention = get_convention(convention)
    # T as a whole number of chunks: the tail chunk then vanishes by itself
    chunks = sympy.Symbol("n_chunks", positive=True, integer=True)
    symbolic = SimpleNamespace(**{**vars(convention), "chunk_size": SYMBOLS["chunk_size"]})
    if convention.name == "tfla":  # the one whose causal factor readers vary
        symbolic.mlstm_causal_factor = SYMBOLS["mlstm_causal_factor"]
    length = chunks * SYMBOLS["chunk_size"]
    per_sequence: Any = forward_flops(symbolic_architecture(architecture), length, symbolic)  # type: ignore[arg-type]
    per_token = per_sequence / length
    return _simplified(per_token, {chunks: SYMBOLS["context_length"] / SYMBOLS["chunk_size"]})


def to_latex(expression: Any) -> str:
    """LaTeX of an expression, with the symbols of the notation page."""
    return sympy.latex(expression, symbol_names=_LATEX_NAMES)


def symbolic_architecture(architecture: str, **shapes: Any) -> Architecture:
    """The architecture with a symbol for every shape that is not given.

    Keys and values for every head, no shared embedding, no norm of queries, as in the paper's models.

    Raises
    ------
    InputError
        if the architecture is not known.
    """
    usual = {"tied_embeddings": 0, "qk_norm": 0}
    names = ("d_model", "n_layers", "n_heads", "d_ff", "d_qk", "d_hv", "vocab_size")
    return architecture_class(architecture).unchecked(**{**{n: SYMBOLS[n] for n in names}, **usual, **shapes})


def _simplified(breakdown: Breakdown, substitutions: dict[Any, Any] | None = None) -> Breakdown:
    """Every component expanded, floats turned into exact numbers, and factored where that shortens it."""

    def tidy(value: Any) -> Any:
        exact = sympy.nsimplify(sympy.sympify(value), rational=True).subs(substitutions or {})
        return min((sympy.factor(exact), sympy.expand(exact)), key=sympy.count_ops)

    return Breakdown(**{name: tidy(value) for name, value in breakdown.items()})
