"""Every function on a face of the package shows how it is called, and what it shows is true."""

import doctest
from importlib import import_module
from inspect import isfunction
from pathlib import Path

import pytest

#: Packages whose face (`__all__`) is for users; a package joins by its name.
FACES = (
    "companion",
    "companion.architectures",
    "companion.accounting",
    "companion.benchmarks.records",
    "companion.book",
    "companion.cli",
    "companion.laws",
    "companion.runs",
    "companion.explorer",
    "companion.fitting",
    "companion.fitting.context",
    "companion.fitting.isoflop",
    "companion.fitting.overtraining",
    "companion.inference",
    "companion.ledger",
    "companion.planner",
    "companion.plotting",
    "companion.study.claims",
    "companion.study.corpus",
    "companion.study.laboratory",
    "companion.study.next_runs",
    "companion.study.sweep",
    "companion.study.train",
)
ROOT = Path(__file__).resolve().parents[1]


def examples_of(name: str, shown: object) -> list[doctest.DocTest]:
    """The doctests of a function or class and its methods."""
    module = import_module(getattr(shown, "__module__", "builtins"))
    return [test for test in doctest.DocTestFinder().find(shown, name, module=module) if test.examples]


EXPORTED = sorted({(f"{face}.{name}", face, name) for face in FACES for name in import_module(face).__all__})


@pytest.mark.parametrize(("label", "face", "name"), EXPORTED, ids=[label for label, _, _ in EXPORTED])
def test_examples(label: str, face: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = getattr(import_module(face), name)
    tests = examples_of(label, shown)
    assert tests or not isfunction(shown), f"{label} has no example in its docstring"
    for test in tests:
        failures: list[str] = []
        result = doctest.DocTestRunner(verbose=False).run(test, out=failures.append)
        assert not result.failed, "".join(failures)


def test_a_function_without_an_example_is_seen() -> None:
    def silent() -> None:
        """Say nothing."""

    def wrong() -> None:
        """
        >>> 1 + 1
        3
        """

    assert not examples_of("silent", silent)
    (test,) = examples_of("wrong", wrong)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed == 1
