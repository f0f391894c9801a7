"""Small tables: types, and one line for every fault."""

import os
from pathlib import Path

import numpy as np
import pandera.pandas as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion import tables
from companion.errors import InputError
from companion.tables import read_table

SCHEMA = pa.DataFrameSchema(
    {
        "name": pa.Column(object, unique=True),
        "size": pa.Column(int, pa.Check.gt(0, error="must be positive")),
        "time": pa.Column(float, nullable=True, required=False),
    }
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def test_types_and_empty_cells(path: Path) -> None:
    path.write_text("﻿name, size ,time,note\n a ,1,0.5,x\n\nb,2e3,,\n", encoding="utf-8")
    table = read_table(path, SCHEMA)
    assert list(table["name"]) == ["a", "b"]
    assert table["size"].dtype == np.int64
    assert list(table["size"]) == [1, 2000]
    assert np.isnan(table["time"].iloc[1])
    assert list(table["note"]) == ["x", None]


def test_a_column_that_need_not_be_there(path: Path) -> None:
    path.write_text("name,size\na,1\n")
    assert list(read_table(path, SCHEMA).columns) == ["name", "size"]


@given(st.lists(st.integers(1, 2**53), min_size=1, max_size=20))
def test_whole_numbers_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("whole") / "table.csv"
    path.write_text("name,size\n" + "".join(f"row{i},{size}\n" for i, size in enumerate(sizes)))
    assert list(read_table(path, SCHEMA)["size"]) == sizes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("name,size\n", "has a header but no rows"),
        ("name,name\na,b\n", "row 1, column 'name': appears twice"),
        ("name,size\na,1\nb\n", "row 3: has 1 cell, the header has 2 columns"),
        ("name,length\na,1\n", "column 'size' is missing; the table has name, length"),
        ("name,size\na,1\n\nb,two\n", "row 4, column 'size': 'two' is not a number"),
        ("name,size\na,nan\n", "row 2, column 'size': 'nan' is not a number"),
        ("name,size\na,inf\n", "row 2, column 'size': 'inf' is not a number"),
        ("name,size\na,1.5\n", "row 2, column 'size': '1.5' is not a whole number"),
        ("name,size\na,1e30\n", "row 2, column 'size': '1e30' is not a whole number of at most 2^53"),
        ("name,size\na,\n", "row 2, column 'size': the cell is empty"),
        ("name,size\na,0\nb,-1\n", "row 2, column 'size': 0 must be positive"),
        ("name,size\na,1\na,2\n", "column 'name': 'a' appears twice"),
        ('name,size\n"a,1\n', "row 2: is not CSV: a quotation mark is never closed"),
    ],
)
def test_faults_are_one_line_that_says_where(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_table(path, SCHEMA)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


def test_files_that_cannot_be_read(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_table(path, SCHEMA)
    with pytest.raises(InputError, match="is a folder, not a CSV file"):
        read_table(tmp_path, SCHEMA)
    path.write_bytes(b"name,size\n\xff,1\n")
    with pytest.raises(InputError, match="row 2: byte 0xff is not UTF-8"):
        read_table(path, SCHEMA)
    path.write_bytes("name,size\na,1\n".encode("utf-16"))
    with pytest.raises(InputError, match="row 1: the text is UTF-16"):
        read_table(path, SCHEMA)
    path.write_bytes(b"name,size\n\0,1\n")
    with pytest.raises(InputError, match="row 2: holds NUL bytes"):
        read_table(path, SCHEMA)
    path.write_text("name;size\na;1\n")
    with pytest.raises(InputError, match="row 1: columns are separated by semicolons"):
        read_table(path, SCHEMA)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="is not a regular file"):
            read_table(special, SCHEMA)
    with pytest.raises(InputError, match=r"^'a\\x00b': cannot be read: embedded null byte"):
        read_table("a\0b", SCHEMA)
    path.write_text("name,size\na,1\n")
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 10)
    with pytest.raises(InputError, match="too large"):
        read_table(path, SCHEMA)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe without a writer would wait for ever, a device would never end."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=r"pipe.csv: is not a regular file"):
        read_table(pipe, SCHEMA)
    with pytest.raises(InputError, match="/dev/zero: is not a regular file"):
        read_table("/dev/zero", SCHEMA)
    with pytest.raises(InputError, match="is a folder, not a CSV file"):
        read_table(tmp_path, SCHEMA)
    with pytest.raises(InputError, match="embedded null byte"):
        read_table("a\0b.csv", SCHEMA)
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="no such file"):
        read_table(link, SCHEMA)
