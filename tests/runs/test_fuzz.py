"""Files of any content: they load, or they end in one line that begins with the path. Nothing else."""

import csv
import io
import warnings
from pathlib import Path

import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.runs.findings import find_all
from companion.runs.load import COLUMNS, REQUIRED_COLUMNS, check_runs, load_runs
from companion.tables import read_table

SCHEMA = pa.DataFrameSchema(
    {"name": pa.Column(object), "size": pa.Column(int, pa.Check.gt(0, error="must be positive"))}
)
#: A table that loads, with a cell of every kind.
GOOD = (
    "architecture,context_length,num_params,num_tokens,train_flops,val_loss,note\n"
    "xlstm,8192,100000000,2000000000,1.2e18,3.5,a\n"
    'transformer,,200000000,2000000000,2.4e18,3.25,"b, c"\n'
)
CELLS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "nan",
            "inf",
            "-1",
            "0",
            "1e400",
            "1_000",
            "1,5",
            "1,234,567",
            "2.5",
            "1e19",
            "9223372036854775808",
            "412M",
            "true",
            "٣",
            "0x10",
            '"',
            "'",
            "1e18",
            "100000000.5",
            "1" * 400,
            "\x1c3",
            "a\nb",
            "\r",
            "−1",
        ]
    ),
    st.text(max_size=8),
    st.floats().map(str),
    st.integers(-(2**70), 2**70).map(str),
)


def loads_or_one_line(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (load_runs, lambda path: read_table(path, SCHEMA)):
            try:
                table = read(path)
            except InputError as error:
                message = str(error)
                assert message.startswith(f"{path}: ")
                assert message.isprintable()
                assert "np." not in message
                assert len(message) < 1200
            else:
                assert len(table) > 0
                if "val_loss" in table:
                    find_all(table)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "table.csv"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
)
def test_any_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    loads_or_one_line(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOOD) - 1), length=st.integers(0, 3), put=st.binary(max_size=4))
def test_a_good_table_with_some_bytes_exchanged(path: Path, at: int, length: int, put: bytes) -> None:
    content = GOOD.encode()
    path.write_bytes(content[:at] + put + content[at + length :])
    loads_or_one_line(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.one_of(st.sampled_from(list(COLUMNS)), st.text(max_size=5)), max_size=4),
    cells=st.lists(st.lists(CELLS, min_size=9, max_size=9), min_size=1, max_size=4),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    separator=st.sampled_from([",", ",", ",", ";", "\t"]),
)
def test_tables_of_odd_cells(
    path: Path, names: list[str], cells: list[list[str]], encoding: str, ends: str, separator: str
) -> None:
    header = [*REQUIRED_COLUMNS, *names]
    good = ["gpt", "100000000", "2000000000", "1.2e18", "3.5", "1", "1", "1", "1"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ends, delimiter=separator)
    writer.writerow(header)
    writer.writerow(good[: len(header)])
    for line in cells:  # one odd cell among good ones, at a place that the cells themselves choose
        place = sum(map(len, line)) % len(header)
        writer.writerow([line[i] if i == place else good[i] for i in range(len(header))])
    path.write_bytes(text.getvalue().encode(encoding, "replace"))
    loads_or_one_line(path)


@settings(max_examples=100)
@given(
    column=st.sampled_from([*COLUMNS, "note"]),
    values=st.lists(
        st.one_of(st.none(), st.floats(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=3), st.booleans()),
        min_size=2,
        max_size=2,
    ),
)
def test_a_column_of_anything_in_memory(column: str, values: list[object]) -> None:
    runs = pd.DataFrame(
        {
            "architecture": "gpt",
            "num_params": [100000000, 200000000],
            "num_tokens": 2000000000,
            "train_flops": [1.2e18, 2.4e18],
            "val_loss": [3.5, 3.25],
        }
    )
    runs[column] = pd.Series(values, dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_runs(runs, "mine")
        except InputError as error:
            message = str(error)
        else:
            message = "mine: loads"
    assert message.startswith("mine: ")
    assert "\n" not in message
