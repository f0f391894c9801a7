"""The house has layers: a module imports only from its own layer or a lower one, and no modules import in a circle."""

import ast
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "companion"

#: Lowest first. A module is named by its first part below `companion`.
LAYERS = (
    ("errors", "formatting", "numeric", "paths", "tables", "hardware"),
    ("architectures",),
    ("accounting",),
    ("laws",),
    ("runs",),
    ("fitting",),
    ("inference", "training"),
    ("kernels",),
    ("models",),
    ("benchmarks",),
    ("study",),
    ("ledger", "planner", "explorer"),
    ("plotting",),
    ("chapters",),
    ("book",),
    ("new_study",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
#: The face of the whole package: it shows names of all layers, and loads them when they are asked for.
FACE = "companion"


def modules() -> dict[str, Path]:
    """All modules of the package by their dotted names."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("companion", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name: str, source: str, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a module imports, at its top or inside a function; a face that lends names counts."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            if node.module in known:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {target if target in known else node.module for target in full}
    return found - {name}


def height_of(name: str) -> int:
    """Layer of a module; an error for one that belongs to none."""
    part = name.split(".")[1]
    assert part in HEIGHT, f"{name} belongs to no layer: tests/test_layers.py names them"
    return HEIGHT[part]


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each module imports; read when a test asks, not when tests are collected."""
    return {name: imports_of(name, path.read_text("utf-8"), MODULES) for name, path in MODULES.items()}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {FACE}))
def test_imports_point_downwards(name: str) -> None:
    above = [other for other in sorted(imports()[name] - {FACE}) if height_of(other) > height_of(name)]
    assert not above, f"{name} imports {', '.join(above)} from a higher layer"


def circle_in(found: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, the first one again at the end; empty if there is none."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circles() -> None:
    assert not circle_in(imports())


def test_only_chapters_and_above_know_chapters() -> None:
    users = {name for name in MODULES if any(other.startswith("companion.chapters") for other in imports()[name])}
    assert all(name.split(".")[1] in ("chapters", "book", "cli") for name in users)


def test_arrows_upwards_and_circles_are_seen() -> None:
    known = {"companion.laws.base": Path(), "companion.fitting": Path(), "companion.fitting.fit": Path()}
    late = "def plot():\n    from companion.fitting.fit import Fit\n    import companion.fitting\n"
    assert imports_of("companion.laws.base", late, known) == {"companion.fitting.fit", "companion.fitting"}
    assert height_of("companion.fitting.fit") > height_of("companion.laws.base")
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()})


@pytest.mark.parametrize("part", ["architectures", "accounting", "laws", "runs", "fitting", "inference", "planner"])
def test_layers_of_numbers_need_no_torch(part: str) -> None:
    for name in (name for name in MODULES if name.split(".")[1:2] == [part]):
        tops = {node for node in ast.parse(MODULES[name].read_text("utf-8")).body if isinstance(node, ast.Import)}
        names = {alias.name.split(".")[0] for node in tops for alias in node.names}
        assert not names & {"torch", "triton", "matplotlib", "seaborn"}, name
