"""The printed formulas evaluate to what the code counts."""

import pytest

from companion.accounting import CONVENTIONS, count_flops, count_params
from companion.accounting.symbolic import SYMBOLS, flops_formulas, params_formulas, to_latex
from companion.architectures import ARCHITECTURES, make_architecture
from companion.errors import InputError

# layers and width are multiples of what hybrids divide them by
SHAPES = {"d_model": 384, "n_layers": 8, "n_heads": 4, "d_ff": 130, "d_qk": 7, "d_hv": 24, "vocab_size": 1001}
VALUES = {**SHAPES, "context_length": 64 * 7, "chunk_size": 64, "mlstm_causal_factor": 1}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_parameter_formulas(name: str) -> None:
    counted = count_params(make_architecture(name, **SHAPES))
    for component, formula in params_formulas(name).items():
        assert formula.subs({SYMBOLS[key]: value for key, value in VALUES.items()}) == getattr(counted, component)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_flop_formulas(name: str, convention: str) -> None:
    counted = count_flops(make_architecture(name, **SHAPES), VALUES["context_length"], convention)
    for component, formula in flops_formulas(name, convention).items():
        per_token = float(formula.subs({SYMBOLS[key]: value for key, value in VALUES.items()}))
        assert per_token == pytest.approx(getattr(counted.forward, component) / VALUES["context_length"], rel=1e-13)


def test_latex_uses_the_notation_of_the_book() -> None:
    text = to_latex(flops_formulas("transformer").mixer_core)
    assert "d_{qk}" in text
    assert r"n_{\mathrm{layers}}" in text


def test_unknown_architecture() -> None:
    with pytest.raises(InputError, match="mamba"):
        params_formulas("mamba")
