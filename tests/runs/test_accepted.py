"""Run tables that load: types, notes, exact numbers, and tables in memory."""

import warnings
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_table_files import HEADER, OTHER, ROW, failure, table, write

from companion.errors import InputError
from companion.runs.load import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    RUN_SCHEMA,
    RunTableWarning,
    check_runs,
    load_paper_runs,
    load_runs,
)


@pytest.fixture(scope="module")
def paper() -> pd.DataFrame:
    return load_paper_runs()


# ---- what is accepted ----------------------------------------------------------------------------


def test_types_and_spelling_of_a_readers_table(tmp_path: Path) -> None:
    content = f"\ufeff{HEADER},context_length,d_model\r\n Mamba ,1.2e8,2e9,1.4e18,3.5,8192,\r\n{OTHER},2048,512\r\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = load_runs(write(tmp_path, content), strict=True)
    assert runs["architecture"].tolist() == ["mamba", "transformer"]
    assert [str(runs[name].dtype) for name in ("num_params", "num_tokens", "context_length")] == ["int64"] * 3
    assert runs["num_params"].tolist() == [120_000_000, 200_000_000]
    assert runs["d_model"].tolist() == pytest.approx([np.nan, 512], nan_ok=True)
    assert runs.index.tolist() == [0, 1]
    assert runs.attrs["source"].endswith("table.csv")


def test_fractions_of_parameters_and_tokens_are_rounded_with_a_note(tmp_path: Path) -> None:
    """digitised_fractions.csv was made for this project: N and D as read off a plot."""
    with pytest.warns(RunTableWarning) as caught:
        runs = load_runs(foreign.table("digitised_fractions"))
    assert len(caught) == 2
    assert caught[0].filename == __file__
    assert "column 'num_params': 15 fractions rounded, rows 2, 3, 4," in str(caught[0].message)
    assert "(first 73050884.586)" in str(caught[0].message)
    text = pd.read_csv(foreign.table("digitised_fractions"))
    for name in ("num_params", "num_tokens"):
        assert runs[name].dtype == np.int64
        assert runs[name].tolist() == text[name].round().tolist()
    row = ROW.replace("100000000", "100000000.25")
    with pytest.warns(RunTableWarning, match=r"1 fraction rounded, row 3 \(first 100000000.25\)"):
        assert load_runs(write(tmp_path, table(row)))["num_params"].tolist() == [200_000_000, 100_000_000]
    bad = table(f"{ROW},12.5", f"{HEADER},n_layers")
    assert failure(write(tmp_path, bad)) == "row 3, column 'n_layers': 12.5 is not a whole number"


@given(st.lists(st.floats(1e5, 1e15), min_size=1, max_size=6))
def test_fractions_in_memory(values: list[float]) -> None:
    runs = pd.DataFrame({"architecture": "gpt", "num_params": values, "num_tokens": 10**9, "val_loss": 3.0})
    runs = runs.assign(train_flops=6e9 * runs["num_params"], seed=range(len(runs)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checked = check_runs(runs)
    assert checked["num_params"].dtype == np.int64
    assert checked["num_params"].tolist() == np.rint(values).astype(np.int64).tolist()
    rounded = sum(abs(value - round(value)) > 1e-6 for value in values)
    assert len(caught) == (rounded > 0)
    assert not rounded or f"{rounded} fraction" in str(caught[0].message)
    assert runs["num_params"].tolist() == values  # the table itself stays as it is


def test_whole_floats_in_memory_are_counts(paper: pd.DataFrame) -> None:
    floats = paper.assign(num_params=paper["num_params"].astype(float), num_tokens=paper["num_tokens"].astype(object))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked = check_runs(floats)
    pd.testing.assert_frame_equal(checked, paper)
    for bad, problem in ((np.nan, "has no value"), (np.inf, "must be finite|fails"), (0.3, "write all digits")):
        with pytest.raises(InputError, match=rf"^mine: row 5, column 'num_params': .*({problem})"):
            check_runs(floats.assign(num_params=floats["num_params"].where(floats.index != 5, bad)), "mine")


def test_overflow_is_an_error_where_the_value_cannot_stand(tmp_path: Path) -> None:
    n, d = 3_000_000_000, 100_000_000_000
    with np.errstate(over="ignore"):
        negative = int((6 * np.array([n]) * np.array([d]))[0])
    assert negative < 0
    message = failure(write(tmp_path, table(f"xlstm,{n},{d},{negative},3.5")))
    assert message.endswith("must be positive: the product overflowed 64-bit integers, the right value is 1.8e+21")
    small = (6 * n * d) % 2**32
    message = failure(write(tmp_path, table(f"xlstm,{n},{d},{small},3.5")))
    assert f"{small} is 6 N D overflowed in 32-bit integers; the right value is 1.8e+21" in message
    header = f"{HEADER},batch_size_seqs,context_length,train_steps"
    tokens = 256 * 8192 * 3000 - 2**32
    row = f"xlstm,100000000,{tokens},{6e8 * tokens},3.5,256,8192,3000"
    assert "6291456000 (32-bit integers overflowed)" in failure(write(tmp_path, f"{header}\n{row}\n"))


def test_whole_numbers_are_exact_up_to_2_63(tmp_path: Path) -> None:
    large = 2**63 - 1
    row = f"xlstm,1,{large},{6.0 * large:.17g},3.5"
    runs = load_runs(write(tmp_path, f"{HEADER}\nxlstm,3,{2**53 + 1},{18.0 * 2**53},3\n{row}\n"))
    assert runs["num_tokens"].tolist() == [2**53 + 1, large]


def test_seeds_of_one_configuration_are_fine(tmp_path: Path) -> None:
    assert len(load_runs(write(tmp_path, f"{HEADER}\n{ROW}\n{ROW.replace('3.5', '3.51')}\n"))) == 2


def test_unknown_columns_are_kept_and_reported_once(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEADER},node,cluster\n{ROW},1,a\n{OTHER},,b\n")
    with pytest.warns(RunTableWarning, match="'node', 'cluster'") as caught:
        runs = load_runs(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert runs["node"].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert runs["cluster"].tolist() == ["a", "b"]
    assert failure(path, strict=True).startswith("row 1, column 'node' is not known; known columns: architecture")


def test_a_column_without_any_value_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEADER},isoflop_budget\n{ROW},\n")
    with pytest.warns(RunTableWarning, match="no value in any row: column 'isoflop_budget'"):
        assert load_runs(path)["isoflop_budget"].isna().all()
    assert failure(path, strict=True) == "row 1, column 'isoflop_budget': has no value in any row"


_RUN = st.fixed_dictionaries(
    {
        "architecture": st.sampled_from(["xlstm", "transformer", "mamba", "größe"]),
        "num_params": st.integers(1, 10**12),
        "num_tokens": st.integers(1, 10**14),
        "ratio": st.floats(0.06, 49),
        "val_loss": st.floats(1e-3, 19.9),
        "experiment": st.sampled_from(["isoflop", "tokenparam", 'with "quotes", and comma']),
        "context_length": st.one_of(st.none(), st.sampled_from([2048, 8192])),
        "isoflop_budget": st.one_of(st.none(), st.floats(1e10, 1e25)),
        "learning_rate": st.floats(1e-7, 1),
        "n_heads": st.integers(1, 64),
    }
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_RUN, min_size=1, max_size=8), bom=st.booleans())
def test_a_valid_table_comes_back_as_it_was_written(tmp_path: Path, rows: list[dict[str, Any]], bom: bool) -> None:
    frame = pd.DataFrame(rows).drop_duplicates(ignore_index=True)
    for name in ("context_length", "isoflop_budget"):
        frame[name] = frame[name].astype(float)
    if not frame["context_length"].isna().any():
        frame["context_length"] = frame["context_length"].astype(np.int64)
    flops = 6.0 * frame["num_params"].astype(float) * frame["num_tokens"].astype(float) * frame.pop("ratio")
    frame.insert(3, "train_flops", flops)
    frame = frame.drop_duplicates(ignore_index=True)
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False, encoding="utf-8-sig" if bom else "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunTableWarning)  # a column may be empty throughout
        back = load_runs(path)
    pd.testing.assert_frame_equal(back, frame, check_exact=True)


def test_the_papers_table_comes_back_as_it_was_written(tmp_path: Path, paper: pd.DataFrame) -> None:
    paper.to_csv(tmp_path / "copy.csv", index=False)
    pd.testing.assert_frame_equal(load_runs(tmp_path / "copy.csv", strict=True), paper, check_exact=True)


# ---- tables in memory ----------------------------------------------------------------------------


def test_the_schema_describes_every_column() -> None:
    assert list(RUN_SCHEMA.columns) == list(COLUMNS)
    assert set(REQUIRED_COLUMNS) | set(OPTIONAL_COLUMNS) == set(COLUMNS)
    assert all(column.required == (name in REQUIRED_COLUMNS) for name, column in RUN_SCHEMA.columns.items())
    assert all(column.description for column in RUN_SCHEMA.columns.values())


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("val_loss", -1.0, "row 5, column 'val_loss': -1 must be positive"),
        ("val_loss", np.nan, "row 5, column 'val_loss': has no value"),
        ("isoflop_budget", np.inf, "row 5, column 'isoflop_budget': inf must be finite"),
        ("num_tokens", 14680064001, "row 5, column 'num_tokens': 14680064001 is not batch_size_seqs"),
        ("architecture", None, "row 5, column 'architecture': has no value"),
    ],
)
def test_check_runs_names_row_and_column(paper: pd.DataFrame, column: str, value: Any, problem: str) -> None:
    assert check_runs(paper) is paper
    bad = paper.copy()
    bad[column] = bad[column].where(bad.index != 5, value)
    with pytest.raises(InputError) as caught:
        check_runs(bad, "mine")
    assert str(caught.value).startswith(f"mine: {problem}")


def test_check_runs_on_wrong_types_and_index(paper: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"^mine: column 'val_loss' is missing$"):
        check_runs(paper.drop(columns="val_loss"), "mine")
    with pytest.raises(InputError, match=r"^mine: row 0, column 'num_params': '\d+' is not a number$"):
        check_runs(paper.assign(num_params=paper["num_params"].astype(str)), "mine")
    with pytest.raises(InputError, match=r"^mine: row 0, column 'n_layers': 12.5 is not a whole number$"):
        check_runs(paper.assign(n_layers=12.5), "mine")
    with pytest.raises(InputError, match="reset_index"):
        check_runs(pd.concat([paper, paper]), "mine")
