"""Loading and checking runs. Every bad input must give one line that names file, row and column."""

import os
import stat
import warnings
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion import runs as module
from companion.errors import InputError
from companion.runs import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    RUN_SCHEMA,
    RunTableWarning,
    check_runs,
    load_paper_runs,
    load_runs,
)

HEADER = "architecture,num_params,num_tokens,train_flops,val_loss"
ROW = "xlstm,100000000,2000000000,1.2e18,3.5"
OTHER = "transformer,200000000,2000000000,2.4e18,3.25"


def write(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def failure(path: Path, strict: bool = False) -> str:
    """The message of loading `path`, less the path it must begin with."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            load_runs(path, strict=strict)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def table(row: str, header: str = HEADER) -> str:
    return f"{header}\n{OTHER}{',1' * (header.count(',') - HEADER.count(','))}\n{row}\n"


@pytest.fixture(scope="module")
def paper() -> pd.DataFrame:
    return load_paper_runs()


# ---- bad input -----------------------------------------------------------------------------------

CELLS = [  # the bad row is row 3 of the file
    ("xlstm,,2000000000,1.2e18,3.5", "num_params", "the cell is empty"),
    ("xlstm,  ,2000000000,1.2e18,3.5", "num_params", "the cell is empty"),
    (",100000000,2000000000,1.2e18,3.5", "architecture", "the cell is empty"),
    ("NaN,100000000,2000000000,1.2e18,3.5", "architecture", "'NaN' is no value"),
    ("xlstm,100000000,2000000000,1.2e18,", "val_loss", "the cell is empty"),
    ("xlstm,100000000,2000000000,1.2e18,low", "val_loss", "'low' is not a number"),
    ("xlstm,100000000,2000000000,1.2e18,3_5", "val_loss", "'3_5' is not a number"),
    ("xlstm,100000000,2000000000,1.2e18,٣", "val_loss", "'٣' is not a number"),
    ("xlstm,100000000,2000000000,1.2e18,0x3", "val_loss", "'0x3' is not a number"),
    ('xlstm,100000000,2000000000,1.2e18,"3,5"', "val_loss", "'3,5' is not a number"),
    ('xlstm,100000000,2000000000,1.2e18,"3\n5"', "val_loss", r"'3\n5' is not a number"),
    ("xlstm,100000000,2000000000,1.2e18,-3.5", "val_loss", "-3.5 must be positive"),
    ("xlstm,100000000,2000000000,1.2e18,0", "val_loss", "0 must be positive"),
    ("xlstm,100000000,2000000000,1.2e18,20", "val_loss", "20 must be below 20"),
    ("xlstm,100000000,2000000000,1.2e18,nan", "val_loss", "'nan' is no value"),
    ("xlstm,100000000,2000000000,1.2e18,inf", "val_loss", "'inf' is infinite"),
    ("xlstm,100000000,2000000000,-Infinity,3.5", "train_flops", "'-Infinity' is infinite"),
    ("xlstm,100000000,2000000000,1e999,3.5", "train_flops", "'1e999' is infinite"),
    ("xlstm,100000000,2000000000,-1.2e18,3.5", "train_flops", "-1.2e+18 must be positive"),
    ("xlstm,-100000000,2000000000,1.2e18,3.5", "num_params", "-100000000 must be positive"),
    ("xlstm,0,2000000000,1.2e18,3.5", "num_params", "0 must be positive"),
    ("xlstm,0.41,2000000000,1.2e18,3.5", "num_params", "0.41 is not a whole number; write all digits, not millions"),
    ("xlstm,100000000,2.5,1.2e18,3.5", "num_tokens", "2.5 is not a whole number; write all digits, not millions"),
    ("xlstm,100000000,9223372036854775808,1.2e18,3.5", "num_tokens", "9223372036854775808 is beyond 2^63"),
    ("xlstm,100000000,1e19,1.2e18,3.5", "num_tokens", "1e19 is beyond 2^63"),
    ("xlstm,100000000,2000000000,1.2e15,3.5", "train_flops", "1.2e+15 is 0.001 times 6 N D, outside 0.005 to 200"),
    ("xlstm,100,2000000000,1.2e18,3.5", "train_flops", "1.2e+18 is 1e+06 times 6 N D, outside 0.005 to 200"),
]


@pytest.mark.parametrize(("row", "column", "problem"), CELLS)
def test_a_bad_cell_is_named_by_row_column_and_value(tmp_path: Path, row: str, column: str, problem: str) -> None:
    assert failure(write(tmp_path, table(row))).startswith(f"row 3, column '{column}': {problem}")


OPTIONAL_CELLS = [
    ("context_length", "-8192", "-8192 must be positive"),
    ("context_length", "8192.5", "8192.5 is not a whole number"),
    ("isoflop_budget", "inf", "'inf' is infinite"),
    ("isoflop_budget", "NaN", "'NaN' is no value; leave the cell empty"),
    ("isoflop_budget", "6e18 FLOP", "'6e18 FLOP' is not a number"),
    ("d_model", "0", "0 must be positive"),
    ("n_heads", "eight", "'eight' is not a number"),
    ("train_loss", "25", "25 must be below 20"),
    ("multiplicity_in_published_fits", "0", "0 must be positive"),
    ("loss_uncertainty", "-1e-5", "-1e-05 must be positive"),
    ("imposed_published_fit", "2", "2 must be below 2"),
    ("imposed_published_fit", "-1", "-1 must not be negative"),
]


@pytest.mark.parametrize(("column", "cell", "problem"), OPTIONAL_CELLS)
def test_a_bad_cell_of_an_optional_column(tmp_path: Path, column: str, cell: str, problem: str) -> None:
    message = failure(write(tmp_path, table(f"{ROW},{cell}", f"{HEADER},{column}")))
    assert message.startswith(f"row 3, column '{column}': {problem}")


HEADERS = [
    (HEADER.replace("num_params", "num_param"), "'num_params' is missing; did you mean 'num_param'?"),
    (HEADER.replace("val_loss", "Val Loss"), "'val_loss' is missing; did you mean 'Val Loss'?"),
    (HEADER.replace("val_loss", "loss"), "'val_loss' is missing; did you mean 'loss'?"),
    (HEADER.replace("num_params", "N"), "'num_params' is missing; did you mean 'N'?"),
    (HEADER.replace("train_flops", "x"), "'train_flops' is missing; the table has 'architecture', 'num_params'"),
    (f"{HEADER},val_loss", "'val_loss': appears twice (columns 5 and 6)"),
    (f"{HEADER},isoflop_budgets", "'isoflop_budgets' is not known; did you mean 'isoflop_budget'?"),
    (f"{HEADER},Context_Length", "'Context_Length' is not known; did you mean 'context_length'?"),
    (f"{HEADER},d_v", "'d_v' is not known; did you mean 'd_hv'?"),
    (f"{HEADER},n_head", "'n_head' is not known; did you mean 'n_heads'?"),
    (f"{HEADER},", "6: has no name"),
    ('{"a": 1}', "'architecture' is missing, and so are all others of a run table"),
]


@pytest.mark.parametrize(("header", "problem"), HEADERS)
def test_a_bad_header_names_the_column(tmp_path: Path, header: str, problem: str) -> None:
    row = ROW + ",1" * (header.count(",") - 4)
    assert failure(write(tmp_path, f"{header}\n{row}\n")).startswith(f"row 1, column {problem}")


@pytest.mark.parametrize("column", REQUIRED_COLUMNS)
def test_each_required_column_is_required(tmp_path: Path, paper: pd.DataFrame, column: str) -> None:
    path = tmp_path / "table.csv"
    paper[list(REQUIRED_COLUMNS)].drop(columns=column).to_csv(path, index=False)
    assert failure(path).startswith(f"row 1, column '{column}' is missing")


FILES = [
    (b"", "the file is empty"),
    (b"\n \n", "the file is empty"),
    (b"\xef\xbb\xbf", "the file is empty"),
    (HEADER, "has a header but no runs"),
    (f"{HEADER}\n\n", "has a header but no runs"),
    (table(ROW + ",1"), "row 3: has 6 cells, the header has 5 columns"),
    (table(ROW.replace("3.5", "3,5")), "row 3: has 6 cells, the header has 5 columns; a comma inside a number"),
    (table("xlstm,1"), "row 3: has 2 cells, the header has 5 columns"),
    (f"{HEADER}\n{OTHER}\n\n\nxlstm,1\n", "row 5: has 2 cells, the header has 5 columns"),
    (table(ROW).replace(",", ";"), "row 1: columns are separated by semicolons"),
    (f"{HEADER.replace(',', ';')}\nxlstm;1;2;3;3,5\n", "row 1: columns are separated by semicolons"),
    (table(ROW).replace(",", "\t"), "row 1: columns are separated by tabs"),
    (b"\x89PNG\r\n\x1a\n\x00\x00", "row 1: byte 0x89 is not UTF-8; a binary file, or text"),
    (f"{HEADER}\n".encode() + b"ab\0cd\n", "row 2: holds NUL bytes; this is a binary file"),
    (table(ROW).encode("utf-16"), "row 1: the text is UTF-16"),
    (table(ROW.replace("xlstm", "é")).encode("latin-1"), "row 3: byte 0xe9 is not UTF-8"),
    (table(ROW).replace("\n", "\r"), "row 1: is not CSV: lines end in a lone carriage return"),
    (table('"' + ROW), "row 3: is not CSV: a quotation mark is never closed"),
    (f"{HEADER}\n{'x' * 200_000}\n", "row 2: is not CSV: field larger than field limit"),
    (f"{HEADER}\n{ROW}\n{OTHER}\n{ROW}\n", "row 4, every column: the same as row 2"),
]


@pytest.mark.parametrize(("content", "problem"), FILES)
def test_a_bad_file_is_told_in_one_line(tmp_path: Path, content: str | bytes, problem: str) -> None:
    assert failure(write(tmp_path, content)).startswith(problem)


def test_the_first_of_several_bad_rows_is_named(tmp_path: Path) -> None:
    bad = [ROW.replace("3.5", "30"), ROW.replace("100000000", "-1"), ROW.replace("3.5", "-30")]
    message = failure(write(tmp_path, "\n".join([HEADER, OTHER, *bad])))
    assert message.startswith("row 3, column 'val_loss': 30 must be below 20; a perplexity?")
    message = failure(write(tmp_path, "\n".join([HEADER, OTHER, bad[1].replace("3.5", "30"), *bad])))
    assert message == "row 3, column 'num_params': -1 must be positive"


def test_the_row_of_a_bad_cell_counts_blank_rows(tmp_path: Path) -> None:
    message = failure(write(tmp_path, f"\n{HEADER}\n{OTHER}\n\n{ROW.replace('3.5', 'x')}\n"))
    assert message.startswith("row 5, column 'val_loss'")
    message = failure(write(tmp_path, f"\n{HEADER}\n{OTHER}\n\n{ROW.replace('3.5', '-1')}\n"))
    assert message.startswith("row 5, column 'val_loss'")


def test_the_row_of_a_bad_cell_is_right_in_a_later_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_ROWS", 2)
    rows = [f"xlstm,{100 + i}000000,2000000000,1.2e18,3.5" for i in range(7)]
    assert len(load_runs(write(tmp_path, "\n".join([HEADER, *rows])))) == 7
    rows[5] = rows[5].replace("3.5", "x")
    assert failure(write(tmp_path, "\n".join([HEADER, *rows]))).startswith("row 7, column 'val_loss': 'x'")


def test_tokens_must_be_batch_times_context_times_steps(tmp_path: Path) -> None:
    header = f"{HEADER},batch_size_seqs,context_length,train_steps"
    good = "xlstm,100000000,2097152000,1.3e18,3.5,128,8192,2000"
    assert len(load_runs(write(tmp_path, f"{header}\n{good}\n"))) == 1
    assert len(load_runs(write(tmp_path, f"{header}\n{good}\n{ROW},128,8192,\n"))) == 2  # steps not known: no check
    message = failure(write(tmp_path, f"{header}\n{good}\n{good.replace(',2000', ',2001')}\n"))
    assert message.startswith(
        "row 3, column 'num_tokens': 2097152000 is not batch_size_seqs * context_length * train_steps = 2098200576"
    )


def test_what_is_not_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure(tmp_path) == "is a folder, not a CSV file"
    assert failure(tmp_path / "none.csv") == "no such file"
    os.mkfifo(tmp_path / "pipe")
    assert failure(tmp_path / "pipe") == "is not a regular file"
    path = write(tmp_path, table(ROW))
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    assert failure(path).startswith("the file is too large")
    monkeypatch.undo()

    def refused(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    message = failure(path)
    monkeypatch.undo()
    assert message == "cannot be read: Permission denied"
    with pytest.raises(InputError, match=r"^'a\\nb': no such file$"):
        load_runs("a\nb")


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path, table(ROW))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    assert stat.S_IMODE(path.stat().st_mode) == 0
    assert failure(path).startswith("cannot be read")


def test_a_hint_names_a_column_only_if_its_values_fit(tmp_path: Path) -> None:
    """`model` of columns_with_spaces.csv (hadasah/scaling_laws) holds names of sizes such as misfitting_12m."""
    header = HEADER.replace("architecture", "model")
    for names, offered in (
        (["misfitting_12m", "misfitting_12m"], False),
        (["llama2-7b", "llama2-13b"], False),
        (["run1", "run2", "run3", "run4"], False),
        (["1", "1"], False),
        (["gpt", "mamba2"], True),
    ):
        lines = [f"{name},{i + 1}00000000,2000000000,{1.2 * (i + 1)}e18,3.5" for i, name in enumerate(names)]
        message = failure(write(tmp_path, "\n".join([header, *lines])))
        assert message.startswith("row 1, column 'architecture' is missing")
        assert ("did you mean 'model'?" in message) == offered, names
        assert ("add it, with one name of your own" in message) != offered
    fits = write(tmp_path, f"{HEADER},n_head\n{ROW},8\n")
    assert failure(fits) == "row 1, column 'n_head' is not known; did you mean 'n_heads'?"
    with pytest.warns(RunTableWarning, match="'n_head', 'N'"):
        load_runs(write(tmp_path, f"{HEADER},n_head,N\n{ROW},eight,1\n"))
    text = write(tmp_path, f"{HEADER.replace('num_params', 'params')}\n{ROW.replace('100000000', 'large')}\n")
    assert "did you mean" not in failure(text)


def test_read_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure(Path("/dev/zero")) == "is not a regular file"
    memory = Path("/proc/self/mem")
    if memory.exists():
        assert failure(memory) == "cannot be read: Input/output error"
    path = write(tmp_path, table(ROW))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_check_encoding", lambda path, source: None)
        path.write_bytes(table(ROW).encode() + b"\xff")
        assert failure(path) == "changed while it was read"


def test_a_cell_says_how_to_write_the_number(tmp_path: Path) -> None:
    for cell, words in (
        ('"100,000,000"', "remove the separators of thousands"),
        ('"1,25"', "write the decimal point, 1.25"),
        ("412M", "write the number out, without a letter"),
    ):
        message = failure(write(tmp_path, table(ROW.replace("100000000", cell))))
        assert message.startswith("row 3, column 'num_params'")
        assert words in message
    assert len(failure(write(tmp_path, table(ROW.replace("2000000000", "1" * 300))))) < 200


def test_a_table_of_many_columns(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(300)]
    path = write(tmp_path, f"{HEADER},{','.join(names)}\n{ROW}{',1' * 300}\n")
    with pytest.warns(RunTableWarning, match="'c9' and more"):
        assert load_runs(path).shape == (1, 305)
    assert len(failure(write(tmp_path, ",".join(names) + "\n" + ",".join(names)))) < 500
    assert len(failure(write(tmp_path, ",".join(["architecture", *names]) + "\n" + ",".join(["a", *names])))) < 600


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
    assert failure(path, strict=True).startswith("row 1, column 'node' is not known; known are architecture")


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
