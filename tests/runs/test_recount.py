"""Models of a run table: optional shapes in every count, and shapes that no model can have."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from foreign import table

from companion.accounting import CONVENTIONS, count_flops, num_params
from companion.architectures import Transformer, preset
from companion.errors import InputError
from companion.runs.conventions import check_counts
from companion.runs.load import load_runs
from companion.runs.recount import models_of, recount


def grouped_model(**options: object) -> Transformer:
    shapes = {"d_model": 512, "n_layers": 4, "n_heads": 8, "d_qk": 64, "d_hv": 64, "d_ff": 1408}
    return Transformer(**shapes, vocab_size=32000, n_kv_heads=2, **options)


def run_of(model: Transformer, context_length: int = 1024, num_tokens: int = 2**30, **more: object) -> dict:
    shapes = {name: value for name, value in model.shapes().items() if name not in more}
    return {
        "architecture": model.name,
        "context_length": context_length,
        "num_params": num_params(model),
        "num_tokens": num_tokens,
        "train_flops": count_flops(model, context_length).train_flops(num_tokens),
        "val_loss": 3.0,
        **shapes,
        **more,
    }


def test_vocabularies_of_a_table_are_counted() -> None:
    """Shapes with 32,000, 50,304 and 128,256 rows of embedding, made from the formulas of arXiv 2510.02228."""
    runs = load_runs(table("vocab"))
    np.testing.assert_array_equal(num_params(models_of(runs)), runs["num_params"])
    np.testing.assert_allclose(recount(runs, "paper") / runs["train_flops"], 1, rtol=1e-9)
    check = check_counts(runs)
    assert check["num_params_equal"].sum() == check["train_flops_equal"].sum() == len(runs) == 6


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_every_optional_shape_reaches_every_count(convention: str) -> None:
    models = [grouped_model(), grouped_model(tied_embeddings=True), grouped_model(qk_norm=True)]
    runs = pd.DataFrame([run_of(model) for model in models])
    expected = [count_flops(model, 1024, convention).train_flops(2**30) for model in models]
    np.testing.assert_allclose(recount(runs, convention), expected, rtol=1e-12)
    assert num_params(models_of(runs)).tolist() == [num_params(model) for model in models]


def test_empty_cells_take_the_defaults() -> None:
    plain = preset("transformer", "160m")
    empty = run_of(plain, vocab_size=None, n_kv_heads=None, tied_embeddings=None, qk_norm=None)
    runs = pd.DataFrame([empty, run_of(grouped_model())])
    assert num_params(models_of(runs)).tolist() == [num_params(plain), num_params(grouped_model())]


def test_flags_may_be_words(tmp_path: Path) -> None:
    frame = pd.DataFrame([run_of(grouped_model(tied_embeddings=True)), run_of(grouped_model())])
    for true, false in ((True, False), ("yes", "no"), (1, 0)):
        frame["tied_embeddings"] = [true, false]
        frame.astype({"tied_embeddings": str}).to_csv(tmp_path / "runs.csv", index=False)
        runs = load_runs(tmp_path / "runs.csv")
        assert runs["tied_embeddings"].tolist() == [1, 0]
        np.testing.assert_array_equal(num_params(models_of(runs)), runs["num_params"])
    frame["tied_embeddings"] = ["maybe", "no"]
    frame.to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError, match=r"row 2, column 'tied_embeddings': 'maybe' is not a number"):
        load_runs(tmp_path / "runs.csv")


def test_repeated_runs_differ_by_their_seed(tmp_path: Path) -> None:
    frame = pd.DataFrame([run_of(grouped_model(), seed=seed) for seed in (0, 1)])
    frame.to_csv(tmp_path / "runs.csv", index=False)
    assert load_runs(tmp_path / "runs.csv")["seed"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n_kv_heads": 3}, "row 3: n_kv_heads 3 does not divide n_heads 8"),
        (
            {"architecture": "xlstm", "d_qk": 32},
            "row 3: n_kv_heads: this xlstm has no attention; leave empty",
        ),
    ],
)
def test_a_wrong_shape_names_file_and_row(wrong: dict, words: str, tmp_path: Path) -> None:
    frame = pd.DataFrame([run_of(grouped_model()), run_of(grouped_model(), **wrong)])
    frame.to_csv(tmp_path / "runs.csv", index=False)
    runs = load_runs(tmp_path / "runs.csv")
    with pytest.raises(InputError, match=rf"runs\.csv: {words}"):
        recount(runs, "paper")


# ---- windows and hybrids -------------------------------------------------------------------------

HYBRIDS = [
    preset("xlstm", "160m"),
    preset("xlstm", "160m", attention_every=4),
    preset("xlstm", "160m", attention_every=8, window=512, n_kv_heads=2, attention_heads=12),
    preset("gated_deltanet", "160m"),
    preset("gated_deltanet", "160m", attention_every=4, qk_norm=True),
    preset("gated_deltanet_7to1", "160m"),
    preset("transformer", "160m"),
    preset("transformer", "160m", window=256),
    preset("transformer", "160m", window=256, attention_every=4),
    preset("transformer", "160m", d_ff=0),
]


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_windows_and_hybrids_of_a_table_are_counted(convention: str, tmp_path: Path) -> None:
    """Rows of one architecture may be hybrids or not, with or without a window: an empty cell is neither."""
    pd.DataFrame([run_of(model, 2048) for model in HYBRIDS]).to_csv(tmp_path / "runs.csv", index=False)
    runs = load_runs(tmp_path / "runs.csv")
    expected = [count_flops(model, 2048, convention).train_flops(2**30) for model in HYBRIDS]
    np.testing.assert_allclose(recount(runs, convention), expected, rtol=1e-12)
    check = check_counts(runs)
    assert check["num_params_equal"].sum() == check["train_flops_equal"].sum() == len(HYBRIDS)


def test_a_named_hybrid_with_an_empty_cell_keeps_its_pattern() -> None:
    named = preset("gated_deltanet_7to1", "160m")
    every = preset("gated_deltanet_7to1", "160m", attention_every=2)
    empty = {"attention_every": None, "attention_heads": None, "n_kv_heads": None}
    runs = pd.DataFrame([run_of(named, **empty), run_of(every), run_of(named, attention_every=0)])
    plain = preset("gated_deltanet", "160m")
    assert num_params(models_of(runs)).tolist() == [num_params(model) for model in (named, every, plain)]


def test_a_window_changes_the_count() -> None:
    full, local = preset("transformer", "160m"), preset("transformer", "160m", window=256)
    runs = pd.DataFrame([run_of(full, 8192), run_of(full, 8192, window=256), run_of(full, 8192, window=0)])
    counted = recount(runs, "paper").tolist()
    assert counted[0] == counted[2] == count_flops(full, 8192).train_flops(2**30)
    assert counted[1] == count_flops(local, 8192).train_flops(2**30) < counted[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"attention_every": 1}, "row 3: attention_every: 1 leaves no other layer"),
        ({"window": 10}, "row 3: window: this xlstm has no attention"),
        (
            {"attention_every": 4, "attention_heads": 5},
            "row 3: d_model 768 is not divisible by the 5 heads of attention",
        ),
    ],
)
def test_wrong_hybrids_name_file_and_row(wrong: dict, words: str, tmp_path: Path) -> None:
    plain = preset("xlstm", "160m")
    pd.DataFrame([run_of(plain), run_of(plain, **wrong)]).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError, match=rf"runs\.csv: {words}"):
        recount(load_runs(tmp_path / "runs.csv"), "paper")
