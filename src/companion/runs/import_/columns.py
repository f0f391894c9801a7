"""Which column of a file is which column of a run table, and its cells as values."""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.runs.import_.files import KEY
from companion.runs.import_.values import ALIASES, PARTS, header_unit, plain_name, read_number
from companion.runs.load import COLUMNS

_NO_VALUE = {"nan", "null", "none", "na", "n/a", "#n/a", "-", "--", "?"}
_DIVERGED = {"inf", "+inf", "infinity", "-inf", "diverged", "div"}
#: What a mapping may name: columns of a run table, and the parts from which one follows.
TARGETS = (*COLUMNS, *PARTS)
_NAMED = tuple(name for name in ALIASES if name in COLUMNS)


def find_columns(cells: pd.DataFrame, given: Mapping[str, str], source: str, skip: Sequence[str]) -> dict[str, str]:
    """Column of a run table -> column or expression of the file, in the order of the schema."""
    if unknown := [name for name in given if name not in TARGETS]:
        raise InputError(
            f"--map {unknown[0]}=...: {unknown[0]!r} is not a column of a run table ({', '.join(TARGETS)})"
        )
    found = dict(given)
    taken = set(given.values())
    for target in (*_NAMED, *PARTS):
        if target in found or target in skip:
            continue
        candidates = [name for name in _candidates(cells, target) if name not in taken]
        if not candidates:
            continue
        if len(candidates) > 1 and target == "val_loss":
            listed = ", ".join(candidates[:6]) + (" ..." if len(candidates) > 6 else "")
            raise InputError(f"{source}: several columns may be the loss ({listed}): choose with --map val_loss=NAME")
        if len(candidates) == 1:
            found[target] = candidates[0]
            taken.add(candidates[0])
    for name in COLUMNS:
        if name in cells.columns and name not in found and name not in skip and name not in taken:
            found[name] = name
    if "isoflop_budget" not in found and KEY in cells.columns and KEY not in taken and _budgets(cells[KEY]):
        found["isoflop_budget"] = KEY
    return {name: found[name] for name in TARGETS if name in found}


def _candidates(cells: pd.DataFrame, target: str) -> list[str]:
    """Columns that have a usual name of the target and hold values that fit, the best kind of name only."""
    text = target in ("architecture", "experiment", "source")
    for ending in (False, True):  # whole names before the last part of nested ones
        plain = {name: plain_name(re.split(r"[./]", name)[-1] if ending else name) for name in cells.columns}
        for alias in {**ALIASES, **PARTS}[target]:
            if ending and len(alias) == 1:
                continue
            named = [name for name, short in plain.items() if short == alias]
            if alias == "model":
                named = [name for name in named if _names_families(cells[name])]
            fitting = [name for name in named if text or is_numeric(cells[name])]
            if fitting:
                return fitting
    return []


def is_numeric(column: pd.Series) -> bool:
    """Whether all cells are numbers, flags, or empty, and one is not empty."""
    filled = [text for text in column if text is not None and text.lower() not in _NO_VALUE | _DIVERGED]
    if not filled:
        return False
    try:
        for text in filled:
            if text.lower() not in ("true", "false"):
                read_number(text, True)
    except InputError:
        return False
    return True


def _names_families(column: pd.Series) -> bool:
    """Whether a column `model` holds architectures rather than sizes such as 160m or single runs."""
    names = [str(text) for text in column.dropna()]
    return len(set(names)) < max(2, len(names)) and not any(re.search(r"\d+[kmbKMB]\b", name) for name in names)


def _budgets(column: pd.Series) -> bool:
    """Whether keys are FLOPs: numbers so large that they count nothing else."""
    return is_numeric(column) and all(text is not None and read_number(text).value > 1e12 for text in column)


# ---- cells to values -----------------------------------------------------------------------------


def values_of(cells: pd.DataFrame, target: str, name: str, source: str) -> tuple[pd.Series, str]:
    """Values of one column of a run table, and in words what they were read from."""
    spec = COLUMNS.get(target)
    if spec is not None and spec.kind == "text":
        if name not in cells.columns:
            raise InputError(f"{source}: no column {name!r}; there are {listed(cells)}")
        return cells[name].astype(object), f"column {name!r}"
    if name not in cells.columns:
        return _expression(cells, name, source), f"{name}"
    header = header_unit(name)
    unit_seen = False
    numbers: list[float | int | None] = []
    for row, text in cells[name].items():
        if text is None or text.lower() in _NO_VALUE | _DIVERGED:
            numbers.append(None)
            continue
        if text.lower() in ("true", "false"):
            numbers.append(int(text.lower() == "true"))
            continue
        try:
            number = read_number(text, bool(cells.attrs.get("decimal_comma")))
        except InputError as error:
            raise InputError(f"{source}: row {row}, column {name!r}: {error}") from None
        unit_seen |= number.with_unit
        numbers.append(number.value if number.with_unit or header is None else number.value * header)
    said = f"column {name!r}"
    if header is not None:
        said += f", times {header:g} as its name says"
    elif unit_seen:
        said += ", with the units in its cells"
    return pd.Series(numbers, index=cells.index, dtype=object), said


def _expression(cells: pd.DataFrame, text: str, source: str) -> pd.Series:
    """An arithmetic expression of columns and numbers, never executed: parsed and walked."""
    names: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        names[f"_quoted_{len(names)}"] = match[1]
        return f"_quoted_{len(names) - 1}"

    def refuse(problem: str) -> InputError:
        return InputError(f"{source}: --map ...={text}: {problem}")

    def column(name: str) -> Any:
        if name not in cells.columns:
            raise refuse(f"no column {name!r}; there are {listed(cells)}")
        return np.array([number(name, row, cell) for row, cell in cells[name].items()]) * (header_unit(name) or 1.0)

    def number(name: str, row: Any, cell: str | None) -> float:
        if cell is None or cell.lower() in _NO_VALUE | _DIVERGED:
            return float("nan")
        try:
            return float(read_number(cell, bool(cells.attrs.get("decimal_comma"))).value)
        except InputError as error:
            raise InputError(f"{source}: row {row}, column {name!r}: {error}") from None

    def evaluate(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as value):
                return float(value)
            case ast.Name(id=name):
                return column(names.get(name, name))
            case ast.Attribute():
                return column(ast.unparse(node))  # a name with dots, which a column has only in backquotes
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -evaluate(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                with np.errstate(all="ignore"):
                    return _ARITHMETIC[type(op)](evaluate(left), evaluate(right))
        raise refuse("write columns and numbers with + - * / and parentheses; backquotes around other names")

    quoted = re.sub(r"`([^`]+)`", stand_in, text)
    try:
        values = evaluate(ast.parse(quoted.strip(), mode="eval").body)
    except InputError:
        raise  # it is a ValueError too, and names its column
    except (SyntaxError, ValueError, RecursionError):
        raise refuse(f"is neither a column nor an expression; there are {listed(cells)}") from None
    filled = pd.Series(values, index=cells.index).astype(float)
    return filled.astype(object).where(np.isfinite(filled), None)


_ARITHMETIC = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide}


def listed(cells: pd.DataFrame) -> str:
    names = list(map(str, cells.columns))
    return ", ".join(names[:25]) + (f" and {len(names) - 25} more" if len(names) > 25 else "")
