"""The examples in the docstrings of what `companion.kernels` exports run as they stand."""

import doctest

import pytest

pytest.importorskip("torch")

from companion import kernels


@pytest.mark.parametrize("name", kernels.__all__)
def test_examples(name: str) -> None:
    (found,) = [t for t in doctest.DocTestFinder(recurse=False).find(getattr(kernels, name), name) if t.examples]
    results = doctest.DocTestRunner().run(found)
    assert (results.failed, results.attempted > 0) == (0, True)
