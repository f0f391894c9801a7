"""Parameter counts: a hand count, the paper's runs, and properties."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from strategies import architectures

from companion.accounting import COMPONENTS, count_params, num_params
from companion.architectures import ARCHITECTURES, XLSTM, Architecture, Transformer
from companion.ledger.sections import SHAPES
from companion.runs.load import load_paper_runs


def test_every_run_of_the_paper_has_exactly_the_parameters_of_its_shapes() -> None:
    runs = load_paper_runs()
    for name, rows in runs.groupby("architecture"):
        batch = ARCHITECTURES[name](**{shape: rows[shape].to_numpy() for shape in SHAPES})
        np.testing.assert_array_equal(num_params(batch), rows["num_params"])


def test_hand_count_of_a_tiny_transformer() -> None:
    # d = 4, two heads of width 2: q, k, v, o are 4 x 4; SwiGLU has three 4 x 6; two norms of 4; vocabulary of 10
    counted = count_params(Transformer(d_model=4, n_layers=3, n_heads=2, d_ff=6, vocab_size=10))
    assert counted.as_dict() == {
        "embedding": 40,
        "mixer_projections": 3 * 64,
        "mixer_core": 0,
        "output_gate": 0,
        "ffn": 3 * 72,
        "norms": 3 * 8 + 4,
        "unembedding": 40,
    }


def test_hand_count_of_a_tiny_xlstm() -> None:
    # q and k are 4 x 2 in all, v and o 4 x 4, two gates 4 x 2 with 2 biases each; output gate 4 x 4; three norms of 4
    counted = count_params(XLSTM(d_model=4, n_layers=1, n_heads=2, d_ff=6, vocab_size=10))
    assert counted.mixer_projections == 8 + 8 + 16 + 16 + 2 * (8 + 2)
    assert counted.output_gate == 16
    assert counted.norms == 12 + 4


def test_llama_3_8b() -> None:
    # arXiv 2407.21783, table 3 (shapes); 8,030,261,248 parameters in the released checkpoint
    model = Transformer(d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, d_ff=14336, vocab_size=128256)
    assert num_params(model) == 8_030_261_248


def test_qwen3_0_6b() -> None:
    # arXiv 2505.09388, table 1 (shapes, tied embeddings, norm of queries and keys); 596,049,920 in the checkpoint
    model = Transformer(
        **{"d_model": 1024, "n_layers": 28, "n_heads": 16, "n_kv_heads": 8, "d_qk": 128, "d_hv": 128, "d_ff": 3072},
        **{"vocab_size": 151936, "tied_embeddings": True, "qk_norm": True},
    )
    assert num_params(model) == 596_049_920
    assert count_params(model).embedding == 0


@given(architectures())
def test_a_shared_embedding_saves_one_matrix(architecture: Architecture) -> None:
    tied = replace(architecture, tied_embeddings=True)
    assert num_params(architecture) - num_params(tied) == architecture.vocab_size * architecture.d_model
    assert count_params(tied).unembedding == count_params(architecture).unembedding


@given(architectures())
def test_breakdown_adds_up_exactly(architecture: Architecture) -> None:
    counted = count_params(architecture)
    assert tuple(counted.as_dict()) == COMPONENTS
    assert sum(counted.as_dict().values()) == counted.total == num_params(architecture)
    assert all(value >= 0 for value in counted.as_dict().values())


@given(architectures())
def test_layers_add_the_same_each(architecture: Architecture) -> None:
    def with_layers(number: int) -> int:
        return num_params(type(architecture)(**{**architecture.shapes(), "n_layers": number}))

    assert with_layers(5) - with_layers(4) == with_layers(2) - with_layers(1) > 0
