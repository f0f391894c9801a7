"""Pickles as data: a reader that calls nothing.

A pickle is a program: it may import any function and call it. Here every name that a pickle asks for is looked up in a
short list, and what it gets is an inert `Node` that only remembers its arguments: no constructor of numpy or pandas,
and no function at all, is called while a file is read. Numbers, arrays and tables are made from these nodes
afterwards, with checks of their own.
"""

import io
import pickle
import pickletools
import re
from typing import Any, ClassVar, NoReturn

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.formatting import cut

#: Runs of the authors' logs: records of fields, of which the class itself is never imported.
RECORD = "WandBRunData"
_INDEX, _BLOCK = "pandas index", "pandas block"
#: Names that a pickle may ask for, by what they stand for. Everything else is refused.
_ADMITTED: dict[str, tuple[str, ...]] = {
    "ndarray": ("numpy.ndarray",),
    "dtype": ("numpy.dtype",),
    "reconstruct": ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"),
    "scalar": ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"),
    "frombuffer": ("numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer"),
    "slice": ("builtins.slice", "__builtin__.slice"),
    "encode": ("_codecs.encode",),  # how protocols 0 to 2 write bytes
    "frame": ("pandas.core.frame.DataFrame", "pandas.DataFrame"),
    "manager": ("pandas.core.internals.managers.BlockManager",),
    _BLOCK: ("pandas._libs.internals._unpickle_block", "pandas.core.internals.blocks.new_block"),
    "new_index": ("pandas.core.indexes.base._new_Index",),
    _INDEX: (
        "pandas.core.indexes.base.Index",
        "pandas.Index",
        "pandas.core.indexes.numeric.Int64Index",
        "pandas.core.indexes.numeric.Float64Index",
    ),
    "range_index": ("pandas.core.indexes.range.RangeIndex", "pandas.RangeIndex"),
    "record": tuple(f"{name}_scaling_laws.common.wandb_run_data.{RECORD}" for name in ("mlstm", "xlstm")),
}  # fmt: skip
_DTYPE = re.compile(r"[biufc][1248]|[biufc]16|[SU][0-9]{1,4}|O8?|[?]|b1")
_PLAIN = (str, int, float, bool, bytes, complex, type(None))
_CUT_OFF = re.compile(r"truncated|exhausted|Ran out|expected \d+ bytes|not enough data|no newline found")
#: Elements of one array, and how deep lists may nest.
_MOST_ELEMENTS = 10**7


class Node:
    """What a pickle gets for an admitted name: it keeps arguments and state, and does nothing.

    A pickle cannot change the class: the operation that sets attributes (BUILD) finds `__setstate__` first.
    """

    __slots__ = ("args", "state")
    stands_for: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "Node":
        node = super().__new__(cls)
        node.args, node.state = args, None
        return node

    def __setstate__(self, state: Any) -> None:
        self.state = state


_NODES: dict[str, Any] = {
    name: type("Node", (Node,), {"__slots__": (), "stands_for": kind})
    for kind, names in _ADMITTED.items()
    for name in names
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _NODES.get(f"{module}.{name}")
        if found is None:
            raise InputError(f"asks for {cut(f'{module}.{name}', 120)}, which is neither a number nor a table; refused")
        return found

    def persistent_load(self, key: Any) -> NoReturn:
        what = cut(repr(key)) if isinstance(key, _PLAIN) else "an object"
        raise InputError(f"asks for something outside the file ({what}); refused")


def load_data(data: bytes, source: str) -> Any:
    """The numbers, text, lists, mappings, arrays and data frames of a pickle.

    Parameters
    ----------
    data
        the bytes of the file; data frames in protocols 2 to 5, other data in all.
    source
        what messages call it.

    Returns
    -------
    object
        made of None, bool, int, float, str, bytes, list, tuple, dict, numpy scalars and arrays, DataFrames. A run of
        the authors' logs is a dict of its fields.

    Raises
    ------
    InputError
        one line: the pickle asks for a name that is not admitted (the line names it), is cut off, or is malformed.
        Nothing of it has been called.
    """
    try:
        _check_memo(data)
        return _Builder().build(_Reader(io.BytesIO(data)).load())
    except InputError as error:
        raise InputError(f"{source}: the pickle {error}") from None
    except RecursionError:
        raise InputError(f"{source}: the pickle is nested too deeply") from None
    except MemoryError:
        raise InputError(f"{source}: the pickle needs more memory than there is") from None
    # what a malformed pickle raises is not one class: the documentation of pickle names these "and more"
    except Exception as error:
        reason = cut(str(error), 120)
        if isinstance(error, EOFError) or _CUT_OFF.search(reason):
            raise InputError(f"{source}: the pickle is cut off after {len(data):,} bytes: copy it again") from None
        raise InputError(f"{source}: is not a pickle of numbers and tables: {reason}") from None


def _check_memo(data: bytes) -> None:
    """Walk over the operations without performing any: a place in the memo beyond the file would fill the memory."""
    for operation, argument, _ in pickletools.genops(data):
        place: Any = argument
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= place <= len(data):
            raise InputError(f"writes to place {argument} of a memo that cannot be so long; refused")


class _Builder:
    """Data from nodes. What a node's arguments must be is checked before anything is made of them."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.open: set[int] = set()

    def build(self, value: Any) -> Any:
        """The value that a pickle holds; each object once."""
        if isinstance(value, _PLAIN):
            return value
        key = id(value)
        if key in self.done:
            return self.done[key]
        if key in self.open:
            raise InputError("holds an object that contains itself; refused")
        self.open.add(key)
        self.done[key] = built = self._make(value)
        self.open.discard(key)
        return built

    def _make(self, value: Any) -> Any:
        if type(value) is dict:
            keys = [self.build(key) for key in value]
            if not all(isinstance(key, _PLAIN) for key in keys):
                raise InputError("has a key of a mapping that is neither text nor a number; refused")
            return dict(zip(keys, (self.build(entry) for entry in value.values()), strict=True))
        if type(value) in (list, tuple):
            return type(value)(self.build(entry) for entry in value)
        if type(value) is bytearray:
            return bytes(value)
        if isinstance(value, Node):
            make = getattr(self, f"_{value.stands_for}".replace("pandas ", "pandas_"), None)
            if make is not None:
                return make(value)
            raise InputError(f"uses {value.stands_for} where data should be; refused")
        if isinstance(value, type) and issubclass(value, Node):
            raise InputError(f"holds the name of {value.stands_for} where data should be; refused")
        raise InputError(f"holds a {type(value).__name__}, which is neither a number nor a table; refused")

    # ---- numpy -----------------------------------------------------------------------------------

    def _dtype(self, node: Node) -> np.dtype:
        code = node.args[0] if node.args else None
        code = "b1" if code == "?" else code
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise InputError(f"has an array of type {cut(repr(code)) if isinstance(code, _PLAIN) else '?'}; refused")
        order: Any = "|"
        if node.state is not None:
            state = self.build(node.state)
            if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
                raise InputError("has an array of records; refused")
            order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise InputError("has an array with an unknown order of bytes; refused")
        return np.dtype(code) if order in "|=" or code[0] in "OS" else np.dtype(code).newbyteorder(order)

    def _array(self, data: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
        if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n <= _MOST_ELEMENTS for n in shape):
            raise InputError("has an array without a valid shape; refused")
        size = int(np.prod([float(n) for n in shape]))
        if dtype.kind == "O":
            if not isinstance(data, list) or len(data) != size or not all(_is_plain(entry) for entry in data):
                raise InputError("has an array of objects that are neither numbers nor text; refused")
            flat = np.empty(size, dtype=object)
            flat[:] = data
        else:
            if not isinstance(data, bytes) or len(data) != size * dtype.itemsize:
                raise InputError("has an array whose bytes do not fill its shape; refused")
            flat = np.frombuffer(data, dtype=dtype)
        return flat.reshape(shape, order="F" if order == "F" else "C")

    def _reconstruct(self, node: Node) -> np.ndarray:
        kinds = node.args[0] if node.args else None
        if not (isinstance(kinds, type) and issubclass(kinds, Node) and kinds.stands_for == "ndarray"):
            raise InputError("makes an array of a class that is not numpy's; refused")
        state = self.build(node.state)
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], np.dtype):
            raise InputError("has an array without data; refused")
        data = state[4].encode("latin-1") if isinstance(state[4], str) else state[4]
        return self._array(data, state[2], state[1], "F" if state[3] else "C")

    def _frombuffer(self, node: Node) -> np.ndarray:
        arguments = [self.build(argument) for argument in node.args]
        if len(arguments) < 4 or not isinstance(arguments[1], np.dtype) or any(a is not None for a in arguments[4:]):
            raise InputError("has an array in an unknown form; refused")
        return self._array(*arguments[:4])

    def _scalar(self, node: Node) -> Any:
        arguments = [self.build(argument) for argument in node.args]
        if len(arguments) != 2 or not isinstance(arguments[0], np.dtype):
            raise InputError("has a number in an unknown form; refused")
        dtype, data = arguments
        return self._array(data if dtype.kind != "O" else [data], dtype, (1,), "C")[0]

    def _encode(self, node: Node) -> bytes:
        text, codec = (*node.args, None, None)[:2]
        if len(node.args) != 2 or not isinstance(text, str) or codec not in ("latin1", "latin-1"):
            raise InputError("encodes something that is not bytes; refused")
        return text.encode("latin-1")

    def _slice(self, node: Node) -> slice:
        parts = [self.build(argument) for argument in node.args]
        if not 1 <= len(parts) <= 3 or not all(part is None or type(part) is int for part in parts):
            raise InputError("has a slice that is not of whole numbers; refused")
        return slice(*parts)

    # ---- pandas ----------------------------------------------------------------------------------

    def _new_index(self, node: Node) -> np.ndarray:
        kind, fields = (*node.args, None, None)[:2]
        fields = self.build(fields)
        if not (isinstance(kind, type) and issubclass(kind, Node)) or not isinstance(fields, dict):
            raise InputError("has an index in an unknown form; refused")
        if kind.stands_for == "range_index":
            bounds: list[Any] = [fields.get(name) for name in ("start", "stop", "step")]
            if not all(type(bound) is int for bound in bounds) or len(range(*bounds)) > _MOST_ELEMENTS:
                raise InputError("has an index that is not of whole numbers; refused")
            return np.arange(*bounds)
        if kind.stands_for != _INDEX or not isinstance(fields.get("data"), np.ndarray):
            raise InputError("has an index in an unknown form; refused")
        return fields["data"]

    def _pandas_block(self, node: Node) -> tuple[np.ndarray, Any]:
        arguments = [self.build(argument) for argument in node.args]
        if len(arguments) < 2 or not isinstance(arguments[0], np.ndarray) or arguments[0].ndim != 2:
            raise InputError("has a data frame with a block in an unknown form; refused")
        return arguments[0], arguments[1]

    def _manager(self, node: Node) -> tuple[Any, ...]:
        arguments = [self.build(argument) for argument in node.args]
        if len(arguments) < 2 or not all(isinstance(argument, list | tuple) for argument in arguments[:2]):
            raise InputError("has a data frame in an unknown form; refused")
        return tuple(arguments[:2])

    def _frame(self, node: Node) -> pd.DataFrame:
        state = self.build(node.state)
        blocks: Any
        axes: Any
        blocks, axes = state.get("_mgr", ((), ())) if isinstance(state, dict) else ((), ())
        if len(axes) != 2 or not all(isinstance(axis, np.ndarray) and axis.ndim == 1 for axis in axes):
            raise InputError("has a data frame without its two axes; refused")
        names, rows = axes
        columns: dict[int, np.ndarray] = {}
        for values, placement in blocks:
            places = np.arange(len(names))[placement]
            if values.shape != (len(places), len(rows)):
                raise InputError("has a data frame whose blocks do not fit its axes; refused")
            columns |= dict(zip(places.tolist(), values, strict=True))
        if len(columns) != len(names):
            raise InputError("has a data frame with columns that no block holds; refused")
        series = {n: pd.Series(columns[n], index=rows, dtype=columns[n].dtype) for n in range(len(names))}
        frame = pd.DataFrame(series, index=rows)
        frame.columns = pd.Index(names, dtype=object)
        return frame

    def _record(self, node: Node) -> dict[str, Any]:
        state = self.build(node.state)
        if not isinstance(state, dict):
            raise InputError("has a run without fields; refused")
        return state


def _is_plain(entry: Any) -> bool:
    return isinstance(entry, (*_PLAIN, np.number, np.bool_))
