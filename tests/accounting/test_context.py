"""Context lengths of the crossings: at each of them both sides cost the same."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import architectures

from companion.accounting import PAPER, TFLA, Convention, count_flops
from companion.accounting.context import context_of_core_share, context_of_equal_cores, context_of_equal_cost
from companion.accounting.flops import forward_flops
from companion.architectures import PRESET_SIZES, Architecture, Transformer, preset
from companion.errors import InputError

CONVENTIONS = st.sampled_from([PAPER, TFLA, replace(PAPER, attention_causal_factor=1.0)])


def core_share(model: Architecture, length: float, convention: Convention) -> float:
    forward = forward_flops(model, length, convention)  # takes lengths that are not whole
    return forward.mixer_core / forward.total


@given(architectures("transformer"), st.floats(0.01, 0.99), CONVENTIONS)
def test_share_of_attention_at_the_crossing(model: Architecture, share: float, convention: Convention) -> None:
    length = context_of_core_share(model, share, convention)
    assert core_share(model, length, convention) == pytest.approx(share)


def test_by_hand() -> None:
    # one layer, one head: core T (2*4 + 2*4 + 5) / 2 = 10.5 T; the rest 64 + 64 + 6*4*6 + 2*6 + 2*4*10 = 364
    model = Transformer(d_model=4, n_layers=1, n_heads=1, d_ff=6, vocab_size=10)
    assert context_of_core_share(model) == pytest.approx(364 / 10.5)
    assert context_of_core_share(model, 0.75) == pytest.approx(3 * 364 / 10.5)


@pytest.mark.parametrize("size", PRESET_SIZES)
@pytest.mark.parametrize("convention", [PAPER, TFLA])
def test_both_architectures_cost_the_same_at_the_crossing(size: str, convention: Convention) -> None:
    transformer, xlstm = preset("transformer", size), preset("xlstm", size)
    length = context_of_equal_cores(transformer, xlstm, convention)
    xlstm_core = count_flops(xlstm, 64, convention).forward.mixer_core / 64
    assert forward_flops(transformer, length, convention).mixer_core / length == pytest.approx(xlstm_core)
    length = context_of_equal_cost(transformer, xlstm, convention)
    per_token = count_flops(xlstm, 64, convention).forward.total / 64
    assert forward_flops(transformer, length, convention).total / length == pytest.approx(per_token)


def test_no_crossing() -> None:
    transformer, xlstm = preset("transformer", "160m"), preset("xlstm", "160m")
    assert np.isnan(context_of_core_share(xlstm))
    assert np.isnan(context_of_core_share(transformer, 0.5, "6ND"))
    assert np.isnan(context_of_equal_cores(transformer, xlstm, "6ND"))
    assert np.isnan(context_of_equal_cost(transformer, xlstm, "6ND"))
    assert context_of_equal_cost(preset("transformer", "7b"), xlstm) == 0.0


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_wrong_share(share: float) -> None:
    with pytest.raises(InputError, match="is not between 0 and 1"):
        context_of_core_share(preset("transformer", "160m"), share)
