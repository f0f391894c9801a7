"""Pickles as data: what is read, and that nothing in a file is ever called."""

import functools
import io
import os
import pickle
import pickletools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.training.import_.unpickle import Node, load_data


class Calls:
    """An object that calls a function with arguments when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def frame() -> pd.DataFrame:
    table = pd.DataFrame({0: [50, 100, 150], 1: [3.5, np.nan, 3.25], 2: ["a", None, "NaN"]})
    table[2] = table[2].astype(object)
    table.columns = pd.Index(["_step", "train/.loss", "text"], dtype=object)
    return table


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        load_data(data, "log.pkl")
    line = str(caught.value)
    assert line.startswith("log.pkl: ")
    assert "\n" not in line
    return line


# ---- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numbers_arrays_and_tables_come_back(protocol: int) -> None:
    value = {
        "plain": [1, 2.5, "text", None, True, b"bytes", (1, "a"), 2**70],
        "arrays": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(["x", "yz"])],
        "big endian": np.arange(3, dtype=">i4"),
        "scalars": [np.float64(1.5), np.int64(7), np.bool_(True)],
        "frame": frame(),
    }
    read = load_data(pickle.dumps(value, protocol), "log.pkl")
    assert read["plain"] == value["plain"]
    for mine, theirs in zip(read["arrays"], value["arrays"], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(read["big endian"], [0, 1, 2])
    assert read["scalars"] == [1.5, 7, True]
    pd.testing.assert_frame_equal(read["frame"], value["frame"], check_column_type=False)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_plain_data_of_any_shape_comes_back(value: Any, protocol: int) -> None:
    assert load_data(pickle.dumps(value, protocol), "log.pkl") == value


# ---- what is refused -----------------------------------------------------------------------------


def unicode(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def by_stack(module: str, name: str, argument: str, kept: bool = False) -> bytes:
    """Protocol 4: a name that is put together on the stack, called with text."""
    parts = unicode(module) + unicode(name) + b"\x93"
    if kept:  # both texts come from the memo
        parts = unicode(module) + b"\x940" + unicode(name) + b"\x940h\x00h\x01\x93"
    return b"\x80\x04" + parts + unicode(argument) + b"\x85R."


def hostile(target: Path) -> dict[str, bytes]:
    """Pickles that would make a file, and what else has been tried on readers like this one."""
    touch = f"touch {target}"
    code = f"open({str(target)!r}, 'w').close()"
    system, evaluate = Calls(os.system, touch), Calls(eval, code)
    names = np.empty(2, dtype=object)
    names[:] = [1.0, system]
    functions = np.empty(1, dtype=object)
    functions[:] = [os.system]
    table = frame()
    table.attrs["hidden"] = evaluate
    lists = np.empty(1, dtype=object)
    lists[:] = [{"a": 1}]
    odd = frame().astype(object)
    odd.iloc[0, 0] = evaluate
    short = f"(S'{touch}'\n".encode()
    return {
        "os.system": pickle.dumps(system),
        "os.system, protocol 0": pickle.dumps(system, 0),
        "builtins.eval": pickle.dumps(evaluate),
        "exec in a nested reduce": pickle.dumps({"runs": [{"config": (1, [Calls(exec, code)])}]}),
        "reduce of a reduce": pickle.dumps(Calls(functools.partial(os.system, touch))),
        "object array with a call": pickle.dumps(names),
        "object array with a function": pickle.dumps(functions),
        "object array with a mapping": pickle.dumps(lists),
        "attributes of a data frame": pickle.dumps(table),
        "a cell of a data frame": pickle.dumps(odd),
        "getattr": b"c__builtin__\ngetattr\n(cos\nsystem\nS'x'\ntR.",
        "import": b"c__builtin__\n__import__\n(S'os'\ntR.",
        "INST": short + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nS'" + touch.encode() + b"'\n\x85\x81.",
        "STACK_GLOBAL": by_stack("posix", "system", touch),
        "STACK_GLOBAL from the memo": by_stack("posix", "system", touch, kept=True),
        "STACK_GLOBAL with dots": by_stack("numpy", "ndarray.__class__.__base__", touch),
        "STACK_GLOBAL through an admitted module": by_stack("numpy", "os.system", touch),
        "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
        "module with a null byte": b"\x80\x04" + unicode("os\0") + unicode("system") + b"\x93.",
        "EXT1": b"\x80\x02\x82\x01.",
        "persistent id": b"Pwhatever\n.",
        "numpy.load": b"cnumpy\nload\n(S'x'\ntR.",
        "pandas.read_pickle": b"cpandas\nread_pickle\n(S'x'\ntR.",
        "pandas.eval": b"cpandas\neval\n(S'1'\ntR.",
        "copyreg": b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
        "the class of a frame as a value": b"cpandas.core.frame\nDataFrame\n.",
        "an admitted name in a list": b"(lcnumpy\nndarray\na.",
        "a slice with a name in it": b"cbuiltins\nslice\n(cnumpy\nndarray\ntR]R.",
        "state of a class": b"cpandas.core.frame\nDataFrame\n}S'__setstate__'\ncnumpy\nndarray\nsb.",
        "slots of a class": b"cpandas.core.frame\nDataFrame\n(N}S'__new__'\ncnumpy\nndarray\nstb.",
        "an array of another class":
            b"cnumpy._core.multiarray\n_reconstruct\n(cpandas.core.frame\nDataFrame\n(I0\ntS'b'\ntR.",
        "a dtype by expression": b"cnumpy\ndtype\n(S'O,(2,)f8'\nI00\nI01\ntR.",
        "codec": b"c_codecs\nencode\n(S'touch'\nS'rot13'\ntR.",
    }  # fmt: skip


NAMES = tuple(hostile(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_pickle_runs_nothing(name: str, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    before = set(sys.modules)
    refused(hostile(target)[name])
    assert not target.exists()
    assert set(sys.modules) == before


def test_the_hostile_pickles_do_run_elsewhere(tmp_path: Path) -> None:
    """Otherwise the test above could not fail."""
    target = tmp_path / "ran"
    for name in ("os.system", "builtins.eval", "INST", "STACK_GLOBAL from the memo", "object array with a call"):
        pickle.loads(hostile(target)[name])
        assert target.exists(), name
        target.unlink()


@pytest.mark.parametrize(
    ("name", "asked"),
    [("os.system", f"{os.name}.system"), ("builtins.eval", "builtins.eval"), ("numpy.load", "numpy.load")],
)
def test_the_line_names_what_was_asked_for(name: str, asked: str) -> None:
    line = refused(hostile(Path("x"))[name])
    assert line == f"log.pkl: the pickle asks for {asked}, which is neither a number nor a table; refused"


def test_a_class_that_was_poked_at_still_reads() -> None:
    for name in ("state of a class", "slots of a class"):
        before = [dict(vars(kind)) for kind in (Node, *Node.__subclasses__())]
        refused(hostile(Path("x"))[name])
        assert [dict(vars(kind)) for kind in (Node, *Node.__subclasses__())] == before
    assert len(load_data(pickle.dumps(frame()), "log.pkl")) == 3


def test_a_pickle_that_is_cut_off_anywhere_is_one_line() -> None:
    data = pickle.dumps([frame(), {"a": np.arange(3)}], 4)
    for end in range(0, len(data), 7):
        assert "cut off" in refused(data[:end]) or end < 12


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_pickle_is_data_or_one_line(draws: st.DataObject) -> None:
    data = bytearray(pickle.dumps({"a": frame(), "b": [np.float64(1), "x"]}, draws.draw(st.sampled_from([2, 4, 5]))))
    for _ in range(draws.draw(st.integers(1, 4))):
        data[draws.draw(st.integers(0, len(data) - 1))] = draws.draw(st.integers(0, 255))
    lines = [""]
    try:
        load_data(bytes(data), "log.pkl")
    except InputError as error:
        lines = str(error).splitlines()
    assert len(lines) == 1


def test_tricks_on_memory_and_depth() -> None:
    assert "memo" in refused(b"\x80\x02Nr\xff\xff\xff\x7f.")
    assert "contains itself" in refused(b"\x80\x02]q\x00h\x00a.")
    refused(b"]" * 100_000 + b"a" * 99_999 + b".")
    laughs: Any = ["ha"]
    for _ in range(200):  # 2^200 entries if it were written out
        laughs = [laughs, laughs]
    assert len(load_data(pickle.dumps(laughs), "log.pkl")) == 2
    huge = pickle.dumps(np.zeros(3))
    assert any(operation.name == "TUPLE1" for operation, *_ in pickletools.genops(huge))
    wide = io.BytesIO(huge.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85")).getvalue()
    assert "shape" in refused(wide) or "fill" in refused(wide)
