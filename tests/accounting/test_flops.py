"""FLOP counts: the paper's runs, known answers from formulas of the sources, and properties."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import architectures

from companion.accounting import (
    CHINCHILLA,
    CONVENTIONS,
    PAPER,
    SIX_ND,
    TFLA,
    Convention,
    count_flops,
    get_convention,
    num_params,
    train_flops,
)
from companion.architectures import ARCHITECTURES, XLSTM, Architecture, Transformer, preset
from companion.errors import InputError
from companion.ledger.sections import SHAPES
from companion.runs.load import load_paper_runs

CONTEXTS = st.integers(64, 200_000)
ALL_CONVENTIONS = st.sampled_from(sorted(CONVENTIONS))


def test_every_run_of_the_paper_within_the_tables_rounding() -> None:
    runs = load_paper_runs()
    for name, rows in runs.groupby("architecture"):
        batch = ARCHITECTURES[name](**{shape: rows[shape].to_numpy() for shape in SHAPES})
        ours = train_flops(batch, rows["context_length"].to_numpy(), rows["num_tokens"].to_numpy())
        # six significant digits: at most half a unit of the sixth, 5e-6 of the smallest mantissa
        np.testing.assert_allclose(ours, rows["train_flops"], rtol=5.0e-6)


def test_attention_under_the_papers_convention() -> None:
    # brief formula of arXiv 2510.02228: T^2 H (d_qk + d_hv + 2.5) per layer and sequence
    counted = count_flops(Transformer(d_model=64, n_layers=3, n_heads=4, d_qk=8, d_hv=16), 128)
    assert counted.forward.mixer_core == 3 * 128**2 * 4 * (8 + 16 + 2.5)


def test_chinchilla_table_of_hoffmann_appendix_f() -> None:
    # Embeddings 2 T V d; attention 2*3*T*d*(k H) + 2 T^2 k H + 3 H T^2 + 2 T^2 k H + 2 T d (k H); logits 2 T d V
    d, heads, key, length, vocabulary, d_ff = 512, 8, 64, 2048, 32000, 2048
    model = Transformer(d_model=d, n_layers=1, n_heads=heads, d_ff=d_ff, vocab_size=vocabulary)
    forward = count_flops(model, length, "chinchilla").forward
    assert forward.embedding == forward.unembedding == 2 * length * vocabulary * d
    assert forward.mixer_projections == 2 * 3 * length * d * key * heads + 2 * length * key * heads * d
    assert forward.mixer_core == 4 * length**2 * key * heads + 3 * heads * length**2
    # theirs is a two-matrix network, 2*T*(d*ffw + d*ffw); SwiGLU has a third matrix
    assert forward.ffn == 2 * length * 3 * d * d_ff


def test_mlstm_chunk_by_hand() -> None:
    # one head, one chunk of 2 tokens, d_qk = 3, d_hv = 4; every term of the paper's list written out
    state = 0.5 * 2 * 3 + 2 * 2 + (5 + 5 * 2) + (2 * 12 + 4 * 2 * 12 + 3 * 2 * 3) + (2 * 3 + 4 * 2 * 3)
    output = 3 + 4 * (10 + 6 + 8) + 4 + (4 + 10 + 2 * 2 * 4)
    model = XLSTM(d_model=4, n_layers=1, n_heads=1, d_qk=3, d_hv=4)
    convention = replace(PAPER, chunk_size=2)
    assert count_flops(model, 2, convention).forward.mixer_core == state + output
    # twice the tokens are two chunks; an odd token at the end is a chunk of its own
    assert count_flops(model, 4, convention).forward.mixer_core == 2 * (state + output)
    tail_state = 1 + 2 + (5 + 5) + (2 * 12 + 4 * 12 + 9) + (6 + 12)
    tail_output = 1 + (10 + 6 + 8) + 2 + (2 + 5 + 8)
    assert count_flops(model, 3, convention).forward.mixer_core == state + output + tail_state + tail_output


def test_tfla_chunk_by_hand() -> None:
    # L = 2, d_qk = 3, d_hv = 4, causal factor 0.5: state, intra, inter, combination as the authors list them
    state = 2 * 2 + 0.5 * 2 * 3 + 4 * 2 + 5 + 2 * 12 + 2 * 2 * 12 + 2 * 3 + 2 * 3 + 2 * 2 * 3
    intra = 0.5 * (5 * 4 + 2 * 2) + 0.5 * (2 * 4 * 7 + 3 * 4) + 0.5 * 2 * 3 + 2 * 2
    inter, combination = 2 * 2 * 12 + 3 * 2 * 3, 2 * 2 * 4 + 4 * 2
    model = XLSTM(d_model=4, n_layers=1, n_heads=1, d_qk=3, d_hv=4)
    counted = count_flops(model, 2, replace(TFLA, chunk_size=2, mlstm_causal_factor=0.5))
    assert counted.forward.mixer_core == state + intra + inter + combination


@given(architectures(), CONTEXTS)
def test_six_nd(architecture: Architecture, length: int) -> None:
    assert count_flops(architecture, length, "6ND").train_flops_per_token == pytest.approx(
        6 * num_params(architecture), rel=1e-14
    )


@given(architectures(), CONTEXTS, ALL_CONVENTIONS)
def test_breakdown_adds_up_exactly(architecture: Architecture, length: int, convention: str) -> None:
    counted = count_flops(architecture, length, convention)
    components = counted.components.as_dict()
    # halves of whole numbers, exact as long as float64 holds them
    rel = 0.0 if counted.components.total < 2**52 else 1e-15
    assert sum(components.values()) == pytest.approx(counted.components.total, rel=rel, abs=0)
    assert counted.forward.total + counted.backward.total == pytest.approx(counted.components.total, rel=rel, abs=0)
    assert counted.backward.total == 2 * counted.forward.total
    assert all(value >= 0 for value in components.values())
    assert sum(counted.share(name) for name in components) == pytest.approx(1)


@given(architectures(), CONTEXTS, ALL_CONVENTIONS)
def test_batched_equals_scalar(architecture: Architecture, length: int, convention: str) -> None:
    shapes = {name: np.array([value, 2 * value]) for name, value in architecture.shapes().items()}
    batch = count_flops(type(architecture)(**shapes), np.array([length, 2 * length]), convention)
    for index, factor in enumerate((1, 2)):
        single = type(architecture)(**{name: factor * value for name, value in architecture.shapes().items()})
        for name, value in count_flops(single, factor * length, convention).components.items():
            assert np.broadcast_to(getattr(batch.components, name), (2,))[index] == value


@given(architectures("transformer"), st.integers(1, 50_000))
def test_attention_grows_with_the_square_of_the_context_and_nothing_else_does(model: Architecture, length: int) -> None:
    short, long = count_flops(model, length).forward, count_flops(model, 2 * length).forward
    for name, value in short.items():
        assert getattr(long, name) == (4 if name == "mixer_core" else 2) * value


@given(architectures("xlstm"), st.integers(1, 500))
def test_mlstm_is_linear_in_the_number_of_chunks(model: Architecture, chunks: int) -> None:
    per_token = count_flops(model, 64).train_flops_per_token
    assert count_flops(model, 64 * chunks).train_flops_per_token == pytest.approx(per_token, rel=1e-14)


@given(architectures("xlstm"), CONTEXTS, st.floats(0, 1), st.floats(0, 1))
def test_tfla_never_counts_more_than_the_papers_convention(
    model: Architecture, length: int, factor: float, other: float
) -> None:
    low, high = sorted((factor, other))
    counts = [
        count_flops(model, length, convention).forward.mixer_core
        for convention in (replace(TFLA, mlstm_causal_factor=low), replace(TFLA, mlstm_causal_factor=high), PAPER)
    ]
    assert counts[0] <= counts[1] <= counts[2]


def test_conventions_differ_only_where_they_say() -> None:
    model = preset("transformer", "7b")
    paper, chinchilla = count_flops(model, 8192).forward, count_flops(model, 8192, CHINCHILLA).forward
    assert chinchilla.mixer_core > 1.9 * paper.mixer_core
    assert (paper.embedding, chinchilla.embedding) == (0, chinchilla.unembedding)
    assert paper.mixer_projections == chinchilla.mixer_projections
    assert count_flops(model, 8192, TFLA).forward == paper


def test_own_convention() -> None:
    kaplan = replace(SIX_ND, name="kaplan", counted_weights=("mixer_projections", "output_gate", "ffn"))
    model = preset("transformer", "160m")
    weights = num_params(model) - 2 * model.vocab_size * model.d_model - (2 * model.n_layers + 1) * model.d_model
    assert count_flops(model, 2048, kaplan).train_flops_per_token == 6 * weights
    assert get_convention(kaplan) is kaplan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_causal_factor": 1.5}, "attention_causal_factor 1.5 is not between 0 and 1"),
        ({"mlstm_causal_factor": float("nan")}, "mlstm_causal_factor nan"),
        ({"attention_softmax_flops": -1}, "attention_softmax_flops -1 is negative"),
        ({"backward_factor": -1}, "backward_factor -1 is negative"),
        ({"rule": "6nd"}, "rule '6nd'"),
        ({"counted_weights": ("attention",)}, "no component attention"),
        ({"chunk_size": 0}, "chunk_size 0 is not a positive whole number"),
    ],
)
def test_wrong_conventions_are_refused(change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(PAPER, name="mine", **change)


def test_unknown_convention_lists_what_there_is() -> None:
    with pytest.raises(InputError, match="there are paper, tfla, chinchilla, 6ND"):
        get_convention("hoffmann")


@pytest.mark.parametrize("length", [0, -1, 1.5, float("nan"), "8192", np.array([8192, 0])])
def test_wrong_contexts_are_refused(length: object) -> None:
    with pytest.raises(InputError, match="context_length"):
        count_flops(preset("transformer", "160m"), length)


def test_context_below_a_chunk_is_refused_for_the_mlstm_only() -> None:
    with pytest.raises(InputError, match="context_length 63 is shorter than one chunk of 64"):
        count_flops(preset("xlstm", "160m"), np.array([64, 63]))
    assert count_flops(preset("transformer", "160m"), 1).train_flops_per_token > 0
    assert count_flops(preset("xlstm", "160m"), 1, "6ND").train_flops_per_token > 0


def test_convention_is_frozen() -> None:
    with pytest.raises(AttributeError):
        PAPER.chunk_size = 128  # type: ignore[misc]
    assert isinstance(PAPER, Convention)
