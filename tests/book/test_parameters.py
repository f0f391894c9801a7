"""Values of parameters: read from text as everywhere else, and in the kind of the notebook's default."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_book import source, texts

from companion.book import building as book
from companion.book.parameters import adapt, choose, defaults_of, read_parameters, read_value
from companion.errors import InputError

VALUES: dict[str, Any] = {
    # whole numbers, in decimal however many zeros stand in front
    "0": 0,
    "8192": 8192,
    "010": 10,
    "-3": -3,
    "+7": 7,
    "1_000": 1000,
    " 12 ": 12,
    # other numbers; YAML 1.1 takes 1e22 for text
    "1e22": 1e22,
    "8e3": 8e3,
    "8192.0": 8192.0,
    ".5": 0.5,
    "5.": 5.0,
    "inf": math.inf,
    "-inf": -math.inf,
    "1E21": 1e21,
    # words
    "None": None,
    "null": None,
    "true": True,
    "False": False,
    # text that YAML 1.1 takes for something else
    "yes": "yes",
    "no": "no",
    "on": "on",
    "off": "off",
    "1:30": "1:30",
    "2024-01-01": "2024-01-01",
    "0x10": "0x10",
    "~": "~",
    "": "",
    "6ND": "6ND",
    "160m": "160m",
    "h100-sxm": "h100-sxm",
    "/data/my runs: one.csv": "/data/my runs: one.csv",
    "a = b": "a = b",
    '"1e22"': "1e22",
    "'none'": "none",
    # lists and dictionaries
    "[]": [],
    "[1e18, 2e18]": [1e18, 2e18],
    "[1e18,2e18,]": [1e18, 2e18],
    "[22, 010, inf]": [22, 10, math.inf],
    "[xlstm, 'mamba2', \"a, b\", null]": ["xlstm", "mamba2", "a, b", None],
    "[[1, 2], [3]]": [[1, 2], [3]],
    "(old) runs.csv": "(old) runs.csv",
    "{num_params: 7e9, 'num_tokens': 2e12}": {"num_params": 7e9, "num_tokens": 2e12},
    '{"E": 1.69, "parts": [1, 2]}': {"E": 1.69, "parts": [1, 2]},
}


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_values(text: str, value: Any) -> None:
    found = read_value(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(read_value("nan"))


@given(st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none())
def test_what_python_prints_is_read_back(value: Any) -> None:
    found = read_value(str(value))
    assert found == value
    assert type(found) is type(value)
    assert read_value(f"[{value}, {value}]") == [value, value]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x=[1, 2", "without its ]"),
        ("x='open", "without its '"),
        ("x={a}", "KEY: VALUE"),
        ("x=1e999", "too large"),
        ("=1", "write NAME=VALUE"),
        ("two words=1", "write NAME=VALUE"),
        ("x", "write NAME=VALUE"),
    ],
)
def test_unreadable(text: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        read_parameters([text])
    assert words in str(raised.value)
    assert repr(text) in str(raised.value)


def test_names_once() -> None:
    assert read_parameters(["a=1", "b=x=y"]) == {"a": 1, "b": "x=y"}
    with pytest.raises(InputError, match="a is given twice"):
        read_parameters(["a=1", "a=2"])


ADAPTED: list[tuple[Any, Any, Any]] = [  # value, default, what arrives
    (8192.0, 4096, 8192),
    (8e3, 4096, 8000),
    (22.5, 22, 22.5),
    (10**22, 1e21, 1e22),
    (None, 4096, None),
    (8192.0, None, 8192.0),
    ([16.0, 8.0], [1, 16], [16, 8]),
    (16.0, [1, 16], [16]),
    ("1,2e1", [1, 16], [1, 20]),
    ("xlstm, mamba2", ["transformer"], ["xlstm", "mamba2"]),
    ("mamba2", ["transformer"], ["mamba2"]),
    (2, [1e-2, 1e-3], [2.0]),
    ([], [1], []),
    (1, "1.4b", "1"),
    (True, False, True),
    ({"num_params": 7}, {"num_params": 1e9, "num_tokens": 1e12}, {"num_params": 7.0}),
]


@pytest.mark.parametrize(("value", "default", "arrives"), ADAPTED)
def test_kind_of_the_default(value: Any, default: Any, arrives: Any) -> None:
    found = adapt("x", value, default)
    assert found == arrives
    assert repr(found) == repr(arrives), "whole numbers are whole"


@pytest.mark.parametrize(
    ("value", "default", "words"),
    [
        ("8k", 4096, "parameter x: '8k' is not a number"),
        (True, 4096, "parameter x: True is not a number"),
        ("yes", True, "parameter x: 'yes' is neither true nor false"),
        (1, True, "parameter x: 1 is neither true nor false"),
        (["a"], [1, 2], "parameter x: 'a' is not a number"),
        (3, {"E": 1.69}, 'parameter x: 3 is not of the form {"E": 1.69}'),
        ([1, 2], 4096, r"parameter x: [1, 2] is not a number"),
    ],
)
def test_another_kind_than_the_default(value: Any, default: Any, words: str) -> None:
    with pytest.raises(InputError) as raised:
        adapt("x", value, default)
    assert str(raised.value) == words


def test_unknown_names_are_refused_with_the_nearest() -> None:
    known = {Path("01.md"): {"context_length": 8192, "seed": 0}, Path("02.md"): {"runs_file": None}}
    with pytest.raises(InputError, match="called contxt_length; did you mean 'context_length'"):
        choose({"contxt_length": 1, "seed": 1}, known)
    with pytest.raises(InputError, match="called zzz; parameters: context_length, runs_file, seed"):
        choose({"zzz": 1}, known)
    assert choose({"seed": 1.0}, known) == {Path("01.md"): {"seed": 1}, Path("02.md"): {}}


def test_defaults_of_a_cell(tmp_path: Path) -> None:
    cell = (
        "a: int = 1\nb, c = 2, 3\nd = [2**k for k in range(3)]\ne = float('inf')\nf = g = 'x'\nh = [1.0, float('inf')]"
    )
    defaults = defaults_of(source(tmp_path, parameters=cell))
    assert defaults == {"a": 1, "d": [], "e": None, "f": "x", "g": "x", "h": []}
    for chapter in book.sources(book.ROOT / "notebooks"):
        assert book.parameters_of(chapter), chapter.name


def test_in_the_kernel(tmp_path: Path) -> None:
    """Across papermill, which writes the values as Python."""
    cell = "whole = 1\nreal = 1.0\ntext = 'a'\nlisted = [1]\nflag = True\nnothing = 2\nfar = 1.0"
    path = source(tmp_path, "print(whole, real, text, listed, flag, nothing, far)", parameters=cell)
    given = ["whole=8e3", "real=1e22", "text='010'", "listed=1e1,2", "flag=false", "nothing=null", "far=inf"]
    (executed,) = book.execute([path], tmp_path / "out", read_parameters(given))
    assert texts(executed) == "8000 1e+22 010 [10, 2] False None inf\n"
