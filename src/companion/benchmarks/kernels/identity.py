"""Which code a kernel record belongs to: one identity for each operator, and one for the harness that measures it.

An identity is a hash over the top-level definitions of the files that count, without comments, docstrings and imports,
in no order: to tidy, to move a function to another file, or to add an operator makes no record stale. A constant of a
kernel does. Python 3.11 to 3.13 find the same identity, because the syntax tree is written out here and not by
`ast.dump`, whose text depends on the version.

Names that an import binds are written as what they stand for. A name of another library keeps its library
(`tl.load` is `triton.language.load`, however it was imported); a name of this package is its last part, so that a
module can be renamed.

`data/benchmarks/kernel_identities.json` holds identities of the same code under an earlier rule or with other names.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from companion.errors import InputError
from companion.paths import data_dir

#: Folders below `companion/kernels` that hold the code of an operator; none for one that is timed for orientation only,
#: whose kernels are another library's.
OPERATORS: dict[str, tuple[str, ...]] = {"mlstm": ("mlstm", "common"), "gated_delta_rule": ()}
#: Modules of this package that decide what is measured of an operator and how. Those that choose cells and keep records
#: do not count.
HARNESSES = {
    "mlstm": (
        "cases",
        "checks",
        "evaluation",
        "gate",
        "host",
        "implementations",
        "inputs",
        "references",
        "shapes",
        "step_checks",
        "suites",
        "timing",
        "tuning",
    ),
    "gated_delta_rule": ("gate", "orientation", "other_cells", "references", "shapes", "suites", "timing"),
}
TABLE = "kernel_identities.json"
PACKAGE = Path(__file__).resolve().parents[2]
#: Fields of a syntax tree that say nothing about what the code does, or that some versions of Python lack.
_IGNORED = {"ctx", "kind", "type_comment", "type_ignores"}


class Identity(NamedTuple):
    """Which code made a record: the operator, the hash of its kernels, and the hash of the harness."""

    operator: str
    code: str
    harness: str


@cache
def identity_today(operator: str = "mlstm") -> Identity:
    """The identity of the code of this package.

    Raises
    ------
    InputError
        for an operator that is not one of `OPERATORS`.
    """
    return Identity(operator, operator_identity(operator), harness_identity(operator))


def operator_identity(operator: str, package: Path = PACKAGE) -> str:
    """16 hexadecimal digits for the code of an operator.

    Parameters
    ----------
    package
        folder of `companion`.

    Raises
    ------
    InputError
        for an operator that is not one of `OPERATORS`.
    """
    _check(operator)
    folders = [package / "kernels" / name for name in OPERATORS[operator]]
    return _digest([file for folder in folders for file in sorted(folder.glob("**/*.py"))], package)


def harness_identity(operator: str, package: Path = PACKAGE) -> str:
    """16 hexadecimal digits for the code that makes inputs of an operator, judges its results and takes times.

    Parameters and errors as for `operator_identity`.
    """
    _check(operator)
    return _digest([package / "benchmarks" / "kernels" / f"{name}.py" for name in HARNESSES[operator]], package)


def identity_of(parameters: dict[str, Any]) -> Identity:
    """The identity that the parameters of a record name, by today's rule and names where the table knows them.

    Records from before operators had identities name one hash for all code; where the table does not know it, that
    hash is both identities.
    """
    code = str(parameters.get("code"))
    harness = str(parameters.get("harness", _known().get(code, {}).get("harness", code)))
    return Identity(str(parameters.get("operator", "mlstm")), _latest(code, "code"), _latest(harness, "harness"))


def definitions(source: str, package: Path = PACKAGE) -> set[str]:
    """The top-level statements of a module as text, without comments, docstrings, imports and `__all__`."""
    tree = ast.parse(source)
    names = dict(_imported(tree, package))
    return {text for node in tree.body if (text := _statement(node, names)) is not None and not _is_docstring(node)}


@cache
def _known() -> dict[str, dict[str, str]]:
    path = data_dir() / "benchmarks" / TABLE
    try:
        table: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return table


def _latest(found: str, kind: str) -> str:
    """Follow the table from an earlier identity to the latest of the same code."""
    seen = {found}
    while (following := _known().get(found, {}).get(kind, found)) not in seen:
        seen.add(found := following)
    return found


def _check(operator: str) -> None:
    if operator not in OPERATORS:
        raise InputError(f"operator {operator!r}: there are {', '.join(OPERATORS)}")


def _digest(files: list[Path], package: Path) -> str:
    found = {text for file in files for text in definitions(file.read_text(encoding="utf-8"), package)}
    return hashlib.sha256("\0".join(sorted(found)).encode()).hexdigest()[:16]


def _imported(tree: ast.Module, package: Path) -> Iterator[tuple[str, str]]:
    """Names that imports bind anywhere in a module, and what they stand for; empty for a module of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds a, `import a.b as c` binds c to a.b
                full = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or full, _meaning(full, package)
        elif isinstance(node, ast.ImportFrom):
            where = package.name if node.level else node.module
            for alias in node.names:
                yield alias.asname or alias.name, _meaning(f"{where}.{alias.name}", package)


def _meaning(full: str, package: Path) -> str:
    first, *rest = full.split(".")
    if first != package.name:
        return full
    path = package.joinpath(*rest)
    return "" if path.is_dir() or path.with_suffix(".py").exists() else rest[-1]


def _statement(node: ast.AST, names: dict[str, str]) -> str | None:
    """A statement as text; None for imports and `__all__`."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return None
    if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
        return None
    return _text(node, names)


def _text(node: Any, names: dict[str, str]) -> str:
    """A syntax tree as text that does not depend on the version of Python."""
    if isinstance(node, list):
        return "[" + ", ".join(_text(each, names) for each in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Name | ast.Attribute) and (name := _dotted(node, names)) is not None:
        return f"Name({name})"
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({_f_string(node, names)})"
    fields = []
    for name, value in ast.iter_fields(node):
        if name in _IGNORED:
            continue
        if name == "body" and isinstance(value, list):
            value = [each for each in value if not _is_docstring(each)]
            parts = [text for each in value if (text := _statement(each, names)) is not None]
            fields.append(f"body=[{', '.join(parts)}]")
        elif value not in (None, []):
            fields.append(f"{name}={_text(value, names)}")
    return f"{type(node).__name__}({', '.join(fields)})"


def _dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """A name with its attributes, imported names as what they stand for; None for other expressions."""
    if isinstance(node, ast.Name):
        return names.get(node.id) or node.id
    if not isinstance(node, ast.Attribute):
        return None
    if isinstance(node.value, ast.Name) and names.get(node.value.id) == "":
        return node.attr  # of a module of this package
    before = _dotted(node.value, names)
    return None if before is None else f"{before}.{node.attr}"


def _f_string(node: ast.JoinedStr, names: dict[str, str]) -> str:
    """Parts of an f-string; text is joined and empty text left out, which versions of Python do differently."""
    parts: list[str] = []
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        parts += [repr(text)] if text else []
        parts, text = [*parts, _text(part, names)], ""
    return ", ".join([*parts, repr(text)] if text else parts)


def _is_docstring(node: ast.AST) -> bool:
    """Whether a statement is a string alone: it does nothing, wherever it is."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
