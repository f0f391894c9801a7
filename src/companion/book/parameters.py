"""Parameters of notebooks: what they are by default, and new values read from text."""

import ast
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from companion.book.notebooks import read
from companion.errors import InputError

_WORDS = {"none": None, "null": None, "true": True, "false": False}
_OPENING, _CLOSING = "[{\"'", "]}\"'"


def parameters_of(source: Path) -> set[str]:
    """Names that the `parameters` cell of a notebook assigns: what `execute` can change.

    Raises
    ------
    InputError
        as `defaults_of`.

    Examples
    --------
    >>> sorted(parameters_of(Path("notebooks/90_ledger.md")))
    ['box_height', 'published_file']
    """
    return set(defaults_of(source))


def defaults_of(source: Path) -> dict[str, Any]:
    """Names that the `parameters` cell of a notebook assigns, each with its default.

    A default that is not a literal is an empty list if it is written as a list, else None.

    Raises
    ------
    InputError
        no code cell carries the tag `parameters`, or it does not parse.
    """
    cells = [c for c in read(source).cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"{source.name}: {len(cells) or 'no'} code cells tagged `parameters`; there must be one")
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise InputError(f"{source.name}: the `parameters` cell does not parse: {error.msg}") from error
    defaults: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value = _default(statement.value)
            defaults |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return defaults


def choose(given: Mapping[str, Any], known: Mapping[Path, Mapping[str, Any]]) -> dict[Path, dict[str, Any]]:
    """New values for each notebook: those that its `parameters` cell names, in the kind of the default.

    Raises
    ------
    InputError
        no notebook has a parameter of that name, or a value is of another kind than the default.
    """
    names = sorted({name for defaults in known.values() for name in defaults})
    if unknown := sorted(set(given) - set(names)):
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"parameters: {', '.join(names)}"
        raise InputError(f"no notebook has a parameter called {', '.join(unknown)}; {hint}")
    return {
        source: {name: adapt(name, given[name], default) for name, default in defaults.items() if name in given}
        for source, defaults in known.items()
    }


def read_parameters(texts: Iterable[str]) -> dict[str, Any]:
    """Values by name, from texts such as `train_flops=1e22`.

    Raises
    ------
    InputError
        a text is not NAME=VALUE, a name comes twice, or a value cannot be read.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise InputError(f"--parameters {text!r}: write NAME=VALUE")
        if name in given:
            raise InputError(f"--parameters {text!r}: {name} is given twice")
        try:
            given[name] = read_value(value)
        except InputError as error:
            raise InputError(f"--parameters {text!r}: {error}") from None
    return given


def read_value(text: str) -> Any:
    """The value that a text stands for: a number, true or false, None, a list, a dictionary, else the text itself.

    Numbers are read as all options of the command read them, so `010` is 10, `1e22` a number and `1_000` a thousand;
    a number written without a point and without an exponent is whole. What is in quotes stays text.

    >>> read_value("1e22"), read_value("010"), read_value("[1e18, inf, xlstm]"), read_value("2024-01-01")
    (1e+22, 10, [1e+18, inf, 'xlstm'], '2024-01-01')

    Raises
    ------
    InputError
        an open bracket or quote, or a number beyond 1.8e308.
    """
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[:1] and text[0] in _OPENING:
        return _read_compound(text)
    try:
        return int(text)
    except ValueError:
        pass  # not a whole number; perhaps another one
    try:
        number = float(text)
    except ValueError:
        return text
    if math.isinf(number) and "inf" not in text.lower():
        raise InputError(f"{text} is too large for a number")
    return number


def adapt(name: str, value: Any, default: Any) -> Any:
    """The value in the kind of a parameter's default: 8e3 is a whole number where the default is one.

    Where the default is a list, a single value becomes a list, and a text is split at its commas.

    Raises
    ------
    InputError
        text where the default is a number, or anything but true and false where it is one of these.
    """
    if value is None or default is None:
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"parameter {name}: {value!r} is neither true nor false")
        return value
    if isinstance(default, int | float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"parameter {name}: {value!r} is not a number")
        whole = isinstance(default, int) and float(value).is_integer()
        return int(value) if whole else float(value)
    if isinstance(default, str):
        return str(value) if isinstance(value, int | float) else value
    if isinstance(default, list):
        if isinstance(value, str):
            value = [read_value(part) for part in value.split(",")]
        values = list(value) if isinstance(value, list | tuple) else [value]
        kinds = {type(entry) for entry in default}
        kind = default[0] if len(kinds) == 1 else None  # mixed lists have no kind of their own
        return [adapt(name, entry, kind) for entry in values]
    if isinstance(default, dict):
        if not isinstance(value, dict):
            raise InputError(f"parameter {name}: {value!r} is not of the form {json.dumps(default)}")
        return {key: adapt(f"{name}, {key}", entry, default.get(key)) for key, entry in value.items()}
    return value


def _read_compound(text: str) -> Any:
    """A quoted text, a list or a dictionary, as in JSON or Python; words and numbers in it as outside."""
    opening, closing = text[0], _CLOSING[_OPENING.index(text[0])]
    if len(text) < 2 or text[-1] != closing:
        raise InputError(f"an opening {opening} without its {closing}")
    if opening in "\"'":
        inner = text[1:-1]
        if opening in inner:
            raise InputError(f"{text} has a {opening} inside")
        return inner
    parts = _split(text[1:-1])
    if opening == "[":
        return [read_value(part) for part in parts]
    pairs = [_partition(part) for part in parts]
    return {str(read_value(key)): read_value(value) for key, value in pairs}


def _partition(text: str) -> tuple[str, str]:
    """Key and value of an entry of a dictionary."""
    pieces = _split(text, at=":")
    if len(pieces) != 2:
        raise InputError(f"{text.strip()!r} is not KEY: VALUE")
    return pieces[0], pieces[1]


def _split(text: str, at: str = ",") -> list[str]:
    """Parts between separators that stand outside brackets and quotes; no part behind the last separator."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if character == at and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
    return parts if parts[-1].strip() else parts[:-1]


def _default(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:  # an expression, such as float("inf") or 2**20
        return [] if isinstance(node, ast.List | ast.ListComp) else None
