"""Conditions on the columns of a run table, such as `num_tokens / num_params > 100 and source != 'figure'`.

A condition is parsed and walked, never executed: nothing in it can call, import or reach an attribute.
"""

import ast
import keyword
import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.formatting import cut, quoted


def table_name(runs: pd.DataFrame, source: str | None = None) -> str:
    """What messages call a table: `source` if given, else the file it was loaded from."""
    return source if source is not None else str(runs.attrs.get("source", "the run table"))


def why_missing(runs: pd.DataFrame, column: str) -> str:
    """Why a column cannot be used, for messages: it is missing, or empty in every row. Empty text if it has values.

    A column without a value is treated like a missing one, but a reader who sees it needs another message.
    """
    if column not in runs.columns:
        return f"no column {quoted(column)}"
    return "" if runs[column].notna().any() else f"column {quoted(column)} is empty"


_COMPARE = {ast.Eq: "equal", ast.NotEq: "not_equal", ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater"}
_COMPARE |= {ast.GtE: "greater_equal"}
_ARITHMETIC = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "true_divide"}


def where_mask(runs: pd.DataFrame, where: str, source: str | None = None) -> NDArray[np.bool_]:
    """Rows (n,) for which a condition holds.

    Supported: column names, numbers, text in quotes, + - * /, comparisons (chains too), `in` and `not in` a list,
    `and`, `or`, `not`. A name with spaces or other signs goes between backquotes, as in `pandas.DataFrame.query`.
    Numbers are compared in float64, so num_params * num_tokens does not overflow. A comparison with a missing value is
    false, except `!=` and `not in`. Examples::

        num_tokens / num_params > 100 and source != 'figure'
        isoflop_budget in [6e18, 1e19, 3e19]
        `C4 Eval Loss` < 4

    Raises
    ------
    InputError
        one line that says which part is not supported, or which column is unknown or empty.
    """
    label = table_name(runs, source)

    def refuse(problem: str) -> InputError:
        return InputError(f"{label}: where {quoted(where)}: {problem}")

    backticked: dict[str, str] = {}

    def number(value: Any) -> Any:
        if isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype == np.float64):
            return value
        raise refuse("text or a condition is used where a number is needed")

    def condition(value: Any) -> NDArray[np.bool_]:
        if isinstance(value, np.ndarray) and value.dtype == np.bool_:
            return value
        raise refuse("a comparison that names a column is needed")

    def is_text(value: Any) -> bool:
        return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype == object)

    def compare(operator: ast.cmpop, left: Any, node: ast.expr) -> Any:
        if isinstance(operator, (ast.In, ast.NotIn)):
            if not isinstance(node, (ast.List, ast.Tuple, ast.Set)):
                raise refuse("'in' needs a list, such as [1, 2]")
            found = np.zeros(len(runs), dtype=bool)
            for item in node.elts:
                found |= compare(ast.Eq(), left, item)
            return ~found if isinstance(operator, ast.NotIn) else found
        name, right = _COMPARE.get(type(operator)), evaluate(node)
        if name is None:
            raise refuse("'is' is not supported; use ==")
        if is_text(left) != is_text(right):
            raise refuse("text is compared with a number")
        if not is_text(left):
            return getattr(np, name)(number(left), number(right))
        if name not in ("equal", "not_equal"):
            raise refuse("text is compared by == and != only")
        same = np.asarray(left, dtype=object) == np.asarray(right, dtype=object)
        return np.asarray(same if name == "equal" else ~np.asarray(same, dtype=bool), dtype=bool)

    def evaluate(node: ast.expr) -> Any:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [condition(evaluate(value)) for value in values]
                return np.logical_and.reduce(parts) if isinstance(op, ast.And) else np.logical_or.reduce(parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~condition(evaluate(operand))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                value = number(evaluate(operand))
                return -value if isinstance(op, ast.USub) else value
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                with np.errstate(all="ignore"):
                    value = getattr(np, _ARITHMETIC[type(op)])(number(evaluate(left)), number(evaluate(right)))
                return value if isinstance(value, np.ndarray) else float(value)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                result: Any = True
                for operator, comparator in zip(ops, comparators, strict=True):
                    result = np.logical_and(result, compare(operator, evaluate(left), comparator))
                    left = comparator
                return result
            case ast.Name(id=name):
                name = backticked.get(name, name)
                if problem := why_missing(runs, name):
                    there = "" if name in runs.columns else f"; the table has {_list_columns(runs)}"
                    raise refuse(problem + there)
                column = runs[name]
                return column.to_numpy(np.float64 if pd.api.types.is_numeric_dtype(column) else object)
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return float(value)
            case ast.Constant(value=str() as value):
                return value
        text = ast.unparse(node)
        for placeholder, name in backticked.items():
            text = text.replace(placeholder, f"`{name}`")
        raise refuse(f"{quoted(text)} is not supported; write columns, constants, comparisons, and, or, not, in")

    if len(where) > 1000:
        raise refuse("longer than 1000 characters")
    try:
        tree = ast.parse(_without_backquotes(where.strip(), backticked), mode="eval")
        return condition(evaluate(tree.body))
    except InputError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        hint = "not a condition such as num_params > 1e9 and source == 'pickle'"
        spaced = [name for name in map(str, runs.columns) if not _is_plain(name) and name in where]
        if spaced and not backticked:
            hint = f"write {', '.join(f'`{name}`' for name in spaced[:3])} in backquotes, or rename the column"
        raise refuse(hint) from None


_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`([^`]*)`""")


def _without_backquotes(where: str, names: dict[str, str]) -> str:
    """The condition with every `name` outside of text replaced by a placeholder, which `names` maps back to it."""
    prefix = "column_"
    while prefix in where:
        prefix += "_"

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return match.group(0)
        placeholder = f"{prefix}{len(names)}_"
        names[placeholder] = name
        return f" {placeholder} "

    return _QUOTED.sub(replace, where).strip()


def _is_plain(name: str) -> bool:
    """Whether a condition reaches a column by its bare name."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def quote_column(name: str) -> str:
    """The name of a column as a condition names it: between backquotes if it holds spaces or other signs."""
    return name if _is_plain(name) else f"`{name}`"


def _list_columns(runs: pd.DataFrame) -> str:
    """The columns of a table as a condition names them."""
    return cut(", ".join(quote_column(str(name)) for name in runs.columns), 500)
