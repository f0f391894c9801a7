"""Loading and checking runs. Every bad input must give one line that names file, row and column."""

import os
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_table_files import HEADER, OTHER, ROW, failure, table, write

from companion.errors import InputError
from companion.runs import load as module
from companion.runs.load import (
    REQUIRED_COLUMNS,
    RunTableWarning,
    load_paper_runs,
    load_runs,
)


@pytest.fixture(scope="module")
def paper() -> pd.DataFrame:
    return load_paper_runs()


# ---- bad input -----------------------------------------------------------------------------------

CELLS = [  # the bad row is row 3 of the file
    ("xlstm,,2000000000,1.2e18,3.5", "num_params", "the cell is empty"),
    ("xlstm,  ,2000000000,1.2e18,3.5", "num_params", "the cell is empty"),
    (",100000000,2000000000,1.2e18,3.5", "architecture", "the cell is empty"),
    ("NaN,100000000,2000000000,1.2e18,3.5", "architecture", "'NaN' is not a value"),
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
    ("xlstm,100000000,2000000000,1.2e18,nan", "val_loss", "'nan' is not a value"),
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
    ("isoflop_budget", "NaN", "'NaN' is not a value; leave the cell empty"),
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
