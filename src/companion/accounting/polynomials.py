"""The counts of an architecture as polynomials of its shapes, made by the functions that count: a table for a script.

The explorer computes in a page without Python. It gets every formula from here, as monomials with numbers for
coefficients, so that no formula is written twice. Needs sympy (extra `book`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import sympy

from companion.accounting.conventions import PAPER, Convention
from companion.accounting.flops import forward_flops
from companion.accounting.inference import BF16, Precision, activations_per_token, cache_bytes, live_widths
from companion.accounting.params import count_params, over_layers
from companion.accounting.symbolic import SYMBOLS, symbolic_architecture
from companion.architectures import Architecture, Mixer
from companion.errors import InputError

#: Coefficient and powers of variables by name, for every monomial.
Polynomial = list[list[Any]]

#: Tokens of the context, its whole chunks, the tokens of the last shorter one (and 1 if there is one), all chunks.
_T, _FULL, _TAIL, _HAS_TAIL, _CHUNKS = sympy.symbols("context_length full_chunks tail has_tail chunks", positive=True)
_NAMES = {symbol: name for name, symbol in SYMBOLS.items() if name != "context_length"}
_NAMES |= {symbol: symbol.name for symbol in (_T, _FULL, _TAIL, _HAS_TAIL, _CHUNKS)}


def cost_polynomials(
    architecture: str,
    shapes: Mapping[str, Any] | None = None,
    *,
    convention: Convention = PAPER,
    precision: Precision = BF16,
) -> dict[str, list[Polynomial]]:
    """Counts of one sequence by name, each a sum of monomials (or several, of which the largest counts).

    Parameters
    ----------
    architecture
        its name.
    shapes
        those that are numbers, such as `attention_every`, or expressions of `companion.accounting.symbolic.SYMBOLS`.
    convention
        what counts as a FLOP; its chunk size and factors become numbers.
    precision
        bytes per number of cache and state.

    Returns
    -------
    dict[str, list[Polynomial]]
        with `num_params`, `embedding` (parameters); `products`, `core`, `unembedding` (FLOPs of a forward pass
        over T tokens) and `step_core` (FLOPs of a step at T); `cache`, `prefill_cache`, `step_cache` (bytes held, and
        moved by a prefill and a step); `activations` and `live` (numbers per token; `live` has several polynomials).
        Variables are the shapes, `context_length`, `full_chunks`, `tail`, `has_tail` and `chunks`.

    Raises
    ------
    InputError
        if the architecture is not known, or a count is not a polynomial.
    """
    a = symbolic_architecture(architecture, **(shapes or {}))
    weights, forward = count_params(a), forward_flops(a, _T, convention)
    counts: dict[str, list[Any]] = {
        "num_params": [weights.total],
        "embedding": [weights.embedding],
        "products": [forward.total - forward.mixer_core - forward.unembedding],
        "core": [_summed(a, lambda mixer: mixer.core_flops(_T, convention))],
        "unembedding": [forward.unembedding],
        "step_core": [_summed(a, lambda mixer: mixer.step_core_flops(_T, convention))],
        "cache": [cache_bytes(a, _T, precision)],
        "prefill_cache": [
            _summed(a, lambda mixer: mixer.prefill_cache_traffic(_T, convention) * precision.kept(mixer))
        ],
        "step_cache": [_summed(a, lambda mixer: mixer.step_cache_traffic(_T) * precision.kept(mixer))],
        "activations": [activations_per_token(a)],
        "live": live_widths(a),
    }
    return {name: [_monomials(name, value) for value in values] for name, values in counts.items()}


def _summed(architecture: Architecture, part: Callable[[Mixer], Any]) -> Any:
    return over_layers(architecture, lambda mixer, number: number * _in_chunks(part(mixer)))


def _in_chunks(count: Any) -> Any:
    """A count of one mixer with variables for whole chunks and the last one, in place of divisions with a remainder."""
    found = sympy.sympify(count).replace(
        lambda part: isinstance(part, sympy.floor),
        lambda part: -_CHUNKS if part.args[0].could_extract_minus_sign() else _FULL,
    )
    found = sympy.expand(found.replace(lambda part: isinstance(part, sympy.Mod), lambda part: _TAIL))
    if not found.has(_TAIL):
        return found
    # what depends neither on T nor on whole chunks is the count of the last chunk, and 0 without one
    last = sum(term for term in found.as_ordered_terms() if not term.has(_T, _FULL))
    return found - last + _HAS_TAIL * last


def _monomials(name: str, expression: Any) -> Polynomial:
    expanded = sympy.expand(expression)
    try:
        terms = sympy.Poly(expanded, *sorted(expanded.free_symbols, key=str)).terms()
        variables = [_NAMES[symbol] for symbol in sorted(expanded.free_symbols, key=str)]
    except (sympy.PolynomialError, KeyError) as error:
        raise InputError(f"count {name}: {expanded} is not a polynomial of the shapes") from error
    return [
        [float(coefficient), {variable: int(power) for variable, power in zip(variables, powers, strict=True) if power}]
        for powers, coefficient in terms
        if coefficient != 0
    ]
