"""Counts as polynomials: the same numbers as the functions that count, for every architecture."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.accounting import PAPER, count_flops, count_params
from companion.accounting.inference import BF16, activations_per_token, count_prefill, count_step, live_per_token
from companion.accounting.polynomials import Polynomial, cost_polynomials
from companion.architectures import ARCHITECTURES, make_architecture
from companion.errors import InputError

SHAPES = {"d_model": 256, "n_layers": 8, "n_heads": 4, "d_qk": 24, "d_hv": 40, "d_ff": 300, "vocab_size": 1001}
COUNTS = {name: cost_polynomials(name) for name in ARCHITECTURES}


def value(polynomials: list[Polynomial], variables: dict[str, float]) -> float:
    sums = []
    for terms in polynomials:
        total = 0.0
        for coefficient, powers in terms:
            product: Any = coefficient
            for name, power in powers.items():
                product *= variables[name] ** power
            total += product
        sums.append(total)
    return max(sums)


@settings(max_examples=60)
@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(64, 5000))
def test_polynomials_are_the_counts(name: str, T: int) -> None:
    model, tail = make_architecture(name, **SHAPES), T % 64
    context = {"context_length": T, "full_chunks": T // 64, "tail": tail, "has_tail": tail > 0, "chunks": -(-T // 64)}
    variables = {**SHAPES, **context}
    forward, weights = count_flops(model, T, PAPER).forward, count_params(model)
    prefill, step = count_prefill(model, T), count_step(model, T)
    expected = {
        "num_params": weights.total,
        "embedding": weights.embedding,
        "products": forward.total - forward.mixer_core - forward.unembedding,
        "core": forward.mixer_core,
        "unembedding": forward.unembedding,
        "step_core": step.flops.mixer_core,
        "cache": step.memory.cache,
        "prefill_cache": prefill.traffic.cache,
        "step_cache": step.traffic.cache,
        "activations": activations_per_token(model),
        "live": live_per_token(model),
    }
    assert {count: value(sums, variables) for count, sums in COUNTS[name].items()} == pytest.approx(expected, rel=1e-12)
    assert BF16.bytes_per_cache == 2


def test_shapes_may_be_numbers() -> None:
    counts = cost_polynomials("xlstm", {"attention_every": 2, "d_ff": 0})
    model = make_architecture("xlstm", **{**SHAPES, "d_ff": 0}, attention_every=2)
    assert value(counts["num_params"], SHAPES) == pytest.approx(count_params(model).total)
    with pytest.raises(InputError, match="architecture 'mamba' is not known"):
        cost_polynomials("mamba")
