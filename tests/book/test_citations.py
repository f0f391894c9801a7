"""Citations that would read the same get a letter behind the year."""

import importlib.util
from types import ModuleType

import pytest

from companion import book

pybtex = pytest.importorskip("pybtex.database")


@pytest.fixture(scope="module")
def extension() -> ModuleType:
    path = book.ROOT / "book" / "_ext" / "companion_page.py"
    spec = importlib.util.spec_from_file_location("companion_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_letters(extension: ModuleType) -> None:
    works = {"one": "Doe, A and Roe, B", "two": "Roe, B", "three": "Doe, A and Roe, B", "four": "Doe, A and Poe, C"}
    text = "".join(f"@misc{{{key}, author = {{{names}}}, year = 2025}}\n" for key, names in works.items())
    entries = pybtex.parse_string(text, "bibtex").entries
    assert extension.lettered_years(entries) == {"one": "2025a", "three": "2025b"}


def test_our_references(extension: ModuleType) -> None:
    path = book.ROOT / "book" / "references.bib"
    entries = pybtex.parse_file(str(path), "bibtex").entries
    assert set(extension.lettered_years(entries)) == {"beck2025xlstm7b", "beck2025tfla"}
    assert all(entry.persons.get("author") for entry in entries.values())
