"""Shapes: defaults against the paper's runs, presets, and what is refused."""

import numpy as np
import pytest

from companion.accounting import num_params
from companion.architectures import (
    PAPER_ARCHITECTURES,
    PRESET_SIZES,
    VOCAB_SIZE,
    XLSTM,
    Transformer,
    make_architecture,
    preset,
)
from companion.errors import InputError
from companion.runs.load import load_paper_runs


def test_default_shapes_are_those_of_the_papers_runs() -> None:
    runs = load_paper_runs()
    for run in runs.drop_duplicates(["architecture", "d_model", "n_heads"]).itertuples():
        architecture = make_architecture(run.architecture, d_model=run.d_model, n_layers=1, n_heads=run.n_heads)
        assert (architecture.d_ff, architecture.d_qk, architecture.d_hv) == (run.d_ff, run.d_qk, run.d_hv)


@pytest.mark.parametrize("name", sorted(PAPER_ARCHITECTURES))
def test_presets_are_models_of_the_token_param_runs(name: str) -> None:
    runs = load_paper_runs()
    trained = set(runs.loc[(runs["experiment"] == "tokenparam") & (runs["architecture"] == name), "num_params"])
    assert {num_params(preset(name, size)) for size in PRESET_SIZES} == trained


def test_arrays_stand_for_many_architectures() -> None:
    many = XLSTM(d_model=np.array([512, 1024]), n_layers=np.array([10, 24]), n_heads=4)
    singles = [XLSTM(d_model=512, n_layers=10, n_heads=4), XLSTM(d_model=1024, n_layers=24, n_heads=4)]
    for field in ("d_ff", "d_qk", "d_hv"):
        assert getattr(many, field).tolist() == [getattr(single, field) for single in singles]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"d_model": 100, "n_heads": 3}, "d_model 100 is not divisible by n_heads 3"),
        (
            {"d_model": np.array([128, 100]), "n_heads": 3 + np.array([1, 0])},
            "d_model 100 is not divisible by n_heads 3",
        ),
        ({"n_layers": 0}, "n_layers: 0 is not a positive whole number"),
        ({"n_layers": -2}, "n_layers: -2"),
        ({"d_model": 512.5}, "d_model: 512.5"),
        ({"d_model": float("nan")}, "d_model: nan"),
        ({"d_ff": float("inf")}, "d_ff: inf"),
        ({"d_qk": 0}, "d_qk: 0"),
        ({"n_heads": "8"}, "n_heads: '8' is not a number"),
        ({"n_heads": True}, "n_heads: True is not a number"),
        ({"vocab_size": np.array([50304, 0])}, "vocab_size: 0"),
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 8"),
        ({"n_heads": np.array([8, 6]), "d_hv": 64, "n_kv_heads": 4}, "n_kv_heads 4 does not divide n_heads 6"),
        ({"tied_embeddings": 2}, "tied_embeddings: 2 is neither true nor false"),
        ({"qk_norm": "maybe"}, "qk_norm: 'maybe' is neither true nor false"),
        ({"tied_embeddings": np.array([0.0, np.nan])}, "tied_embeddings: .* is neither"),
    ],
)
def test_wrong_shapes_are_named(shapes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("'", ".")):
        Transformer(**{"d_model": 512, "n_layers": 10, "n_heads": 8, **shapes})


def test_heads_need_not_divide_the_width_when_their_widths_are_given() -> None:
    model = make_architecture("transformer", d_model=2560, n_layers=2, n_heads=48, d_qk=64, d_hv=64, d_ff=64)
    # q, k, v and the output projection are 2560 x (48 * 64) each
    assert num_params(model) == 2 * (4 * 2560 * 48 * 64 + 3 * 2560 * 64 + 2 * 2560) + 2560 + 2 * VOCAB_SIZE * 2560
    with pytest.raises(InputError, match="2560 is not divisible by n_heads 48: give d_qk and d_hv"):
        make_architecture("xlstm", d_model=2560, n_layers=2, n_heads=48)


def test_odd_heads_of_an_xlstm_need_d_qk() -> None:
    with pytest.raises(InputError, match="give d_qk"):
        XLSTM(d_model=9, n_layers=1, n_heads=3)
    assert XLSTM(d_model=9, n_layers=1, n_heads=3, d_qk=2).d_qk == 2


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(InputError, match="there are transformer, xlstm, gated_deltanet"):
        make_architecture("mamba", d_model=64, n_layers=1, n_heads=1)
    with pytest.raises(InputError, match="160m, 400m"):
        preset("xlstm", "70b")


def test_whole_floats_become_integers() -> None:
    assert isinstance(Transformer(d_model=512.0, n_layers=2, n_heads=8).d_model, int)
