"""Tables of timings: every fault is one line, unusual shapes are read, and a row's model is the one it names."""

from pathlib import Path

import pandas as pd
import pytest

from companion.accounting import num_params
from companion.architectures import ARCHITECTURES
from companion.errors import InputError
from companion.inference.timings import by_model, load_inference, load_paper_inference, measured, model_of
from companion.paths import data_dir


@pytest.fixture(scope="module")
def timings() -> pd.DataFrame:
    return load_paper_inference()


def test_models_are_those_of_the_table(timings: pd.DataFrame) -> None:
    """To 1.2 %: in five sizes the stored d_ff is 64 away from what their N says (see the ledger)."""
    for _, row in timings.drop_duplicates(["architecture", "model_size"]).iterrows():
        assert num_params(model_of(row)) == pytest.approx(row["num_params"], rel=0.012)


def row_of(text: str, **values: str) -> str:
    """A table of one row, the first of the project's, with some cells changed."""
    header, first, *_ = text.splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | values
    return f"{header}\n{','.join(cells.values())}\n"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"architecture": "mamba"}, f"row 2, column 'architecture': mamba is not one of {', '.join(ARCHITECTURES)}"),
        ({"batch_size": "0"}, "row 2, column 'batch_size': 0 must be positive"),
        ({"prefill_length": "-1"}, "row 2, column 'prefill_length': -1 must not be negative"),
        ({"ttft_s": "-0.1"}, "row 2, column 'ttft_s': -0.1 is not a time in seconds (1e-9 to 3e7)"),
        ({"step_time_s": "1e-320"}, "row 2, column 'step_time_s': 1e-320 is not a time in seconds (1e-9 to 3e7)"),
        ({"step_time_s": "slow"}, "row 2, column 'step_time_s': 'slow' is not a number"),
        ({"n_heads": "7"}, "xlstm 160m: d_model 768 is not divisible by n_heads 7: give d_qk and d_hv"),
        ({"generation_length": ""}, "row 2, column 'generation_length': the cell is empty"),
    ],
)
def test_faults_of_a_table(tmp_path: Path, values: dict[str, str], words: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(row_of((data_dir() / "inference.csv").read_text(), **values))
    with pytest.raises(InputError) as raised:
        load_inference(path)
    assert str(raised.value) == f"{path}: {words}"


def test_shapes_that_deviate(tmp_path: Path, timings: pd.DataFrame) -> None:
    """Grouped heads, tied embeddings, a vocabulary and widths of one's own; empty cells stand for the usual."""
    row = timings[(timings["architecture"] == "transformer") & (timings["prefill_length"] == 128)].iloc[[0]]
    path = tmp_path / "mine.csv"
    several = pd.concat([row.assign(n_kv_heads=4, vocab_size=32000, tied_embeddings=1, qk_norm=1), row])
    several.to_csv(path, index=False)
    (first, one), (usual, other) = by_model(load_inference(path))
    assert (one.tolist(), other.tolist()) == ([0], [1])
    assert (first.n_kv_heads, first.vocab_size, bool(first.tied_embeddings), bool(first.qk_norm)) == (
        4,
        32000,
        True,
        True,
    )
    assert usual == model_of(row.iloc[0])
    assert num_params(first) < num_params(usual)
    # heads that do not divide the width, with widths of their own
    row.assign(n_heads=7, d_qk=64, d_hv=64).to_csv(path, index=False)
    assert by_model(load_inference(path))[0][0].d_qk == 64
    for values, words in (
        (
            {"architecture": "xlstm", "n_kv_heads": 2},
            "xlstm 160m: n_kv_heads: this xlstm has no attention",
        ),
        ({"n_kv_heads": 5}, "n_kv_heads 5 does not divide n_heads 12"),
        ({"vocab_size": 0.5}, "vocab_size: 0.5 is not a positive whole number"),
        ({"tied_embeddings": 2}, "tied_embeddings: .* is neither true nor false"),
    ):
        row.assign(**values).to_csv(path, index=False)
        with pytest.raises(InputError, match=words):
            load_inference(path)
    row.assign(architecture="xlstm", n_kv_heads=12, qk_norm=0).to_csv(path, index=False)
    assert by_model(load_inference(path))[0][0].name == "xlstm"


def test_tables_without_times(tmp_path: Path, timings: pd.DataFrame) -> None:
    path = tmp_path / "mine.csv"
    timings.drop(columns=["ttft_s", "step_time_s"]).to_csv(path, index=False)
    with pytest.raises(InputError, match="columns 'ttft_s' and 'step_time_s' are both missing"):
        load_inference(path)
    timings.drop(columns="ttft_s").to_csv(path, index=False)
    with pytest.raises(InputError, match="no column 'ttft_s'"):
        measured(load_inference(path), "xlstm", "ttft")
    assert len(measured(load_inference(path), "xlstm", "step_time")) == 391
