"""Citations that would read the same get a letter behind the year."""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from companion.book import building as book

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


def test_citations_on_a_page(tmp_path: Path) -> None:
    sphinx = pytest.importorskip("sphinx.application")
    docutils = pytest.importorskip("sphinx.util.docutils")
    pytest.importorskip("sphinxcontrib.bibtex")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(book.ROOT / "book" / "references.bib", source)
    (source / "index.rst").write_text(
        "Page\n====\n\n:cite:`beck2025xlstm7b` and :cite:`beck2025tfla` and :cite:`williams2009roofline`.\n\n"
        ".. bibliography::\n",
        encoding="utf-8",
    )
    settings = {
        # companion_page first: its hook must still come after that of the bibliography
        "extensions": ["sphinx.ext.autodoc", "companion_page", "sphinxcontrib.bibtex"],
        "bibtex_bibfiles": ["references.bib"],
        "bibtex_reference_style": "author_year",
    }
    extensions = str(book.ROOT / "book" / "_ext")
    sys.path.insert(0, extensions)
    try:
        with docutils.docutils_namespace():  # what Sphinx registers is gone for the tests that come after this one
            sphinx.Sphinx(
                str(source), None, str(tmp_path / "out"), str(tmp_path / "trees"), "text", settings, status=None
            ).build()
    finally:
        sys.path.remove(extensions)
    page = " ".join((tmp_path / "out" / "index.txt").read_text(encoding="utf-8").split())
    assert "[Beck et al., 2025a] and [Beck et al., 2025b] and [Williams et al., 2009]" in page.replace("*", "")
