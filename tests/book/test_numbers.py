"""Numbers of figures, tables and formulas: unit tests of the extension, and what a small book shows."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from bs4 import BeautifulSoup
from small_book import real_book, source
from sphinx_external_toc.parsing import parse_toc_yaml

from companion.book import building as book

FIGURE = '<figure class="companion-figure" id="fig-{0}"><svg></svg><figcaption>What {0} shows.</figcaption></figure>'
TABLE = '<div class="companion-table-block"{0}><p class="companion-caption">Rows.</p></div>'


@pytest.fixture(scope="module")
def numbers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("companion_numbers", book.ROOT / "book/_ext/companion_numbers.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_chapters_have_the_number_of_the_file_and_reference_pages_letters(numbers: ModuleType) -> None:
    pages = ["intro", "chapters/00_start", "chapters/03_isoflop", "chapters/91_explorer", "sheet", "chapters/90_ledger"]
    assert numbers.prefixes(pages) == dict(zip([pages[i] for i in (1, 2, 3, 5)], ["0", "3", "A", "B"], strict=True))


def test_letters_follow_the_contents_of_the_book(numbers: ModuleType) -> None:
    """The pages of `_toc.yml`, however it lists them, and not those that are missing."""
    site_map = parse_toc_yaml(book.ROOT / "book/_toc.yml")
    found = {f"chapters/{name}" for name in ("90_ledger", "91_explorer", "92_kernel_log", "02_b", "01_a")} | {"intro"}
    pages = list(numbers.pages_in_order(site_map, found))
    assert pages[:3] == ["intro", "chapters/01_a", "chapters/02_b"]
    assert numbers.prefixes(pages)[pages[3]] == "A"
    assert "chapters/90_ledger" not in numbers.prefixes(
        numbers.pages_in_order(site_map, found - {"chapters/90_ledger"})
    )


def test_figures_and_tables_count_apart_and_in_order(numbers: ModuleType) -> None:
    markups = [FIGURE.format("a"), TABLE.format(""), FIGURE.format("b") + TABLE.format(' id="tbl-t"'), "<p>no</p>"]
    numbered, anchors = numbers.number_outputs(markups, "3.")
    assert anchors == {"fig-a": "Figure 3.1", "fig-b": "Figure 3.2", "tbl-t": "Table 3.2"}
    assert '<figcaption><span class="companion-number">Figure 3.1.</span> What a shows.' in numbered[0]
    assert '<span class="companion-number">Table 3.1.</span> Rows.' in numbered[1]
    assert numbered[3] == "<p>no</p>"


@pytest.mark.book
def test_a_book_numbers_and_refers(tmp_path: Path) -> None:
    folder = real_book(tmp_path / "root", "# Title\n\nSee {see}`fig-drawn` and {see}`fig-nowhere`.\n")
    cell = """from companion.plotting import show, show_table, subplots
import pandas as pd
show(subplots()[0], name="drawn", alt="Axes.", caption="Empty.")"""
    table = 'show_table(pd.DataFrame({"loss": [1.5]}), caption="A loss.", name="loss")'
    text = "# A test\n\n{see}`tbl-loss` ({ref}`c7-one`) follows from {eq}`second`.\n\n$$a$$\n\n$$b$$ (second)"
    text += "\n\n```{exercise} One\n:label: c7-one\n:level: recall\n\nDo it.\n```"
    source(folder / "notebooks", cell, table, name="07_test", text=text)
    letters = "# B\n\n```{exercise} Two\n:label: c92-one\n:level: recall\n\nDo it.\n```\n\n$$c$$"
    source(folder / "notebooks", name="92_test", text=letters)
    index = book.build(tmp_path / "out", root=folder, progress=False, report=lambda _: None).index
    page = BeautifulSoup((index.parent / "chapters/07_test.html").read_text(), "html.parser")
    first = BeautifulSoup((index.parent / "index.html").read_text(), "html.parser")

    assert page.select_one("#fig-drawn figcaption").get_text() == "Figure 7.1. Empty."
    assert page.select_one("#tbl-loss p").get_text() == "Table 7.1. A loss."
    assert page.select_one("a[href='#tbl-loss']").get_text() == "Table 7.1"
    assert first.select_one("a[href='chapters/07_test.html#fig-drawn']").get_text() == "Figure 7.1"
    assert first.select_one(".companion-see-missing").get_text() == "a figure (left out)"
    assert [eqno.get_text().strip("#") for eqno in page.select(".eqno")] == ["(7.1)", "(7.2)"]
    assert "(7.2)" in page.select_one("a[href='#equation-second']").get_text()
    assert "Exercise 7.1" in page.select_one("#c7-one").get_text()
    assert page.select_one("a[href='#c7-one']").get_text() == "Exercise 7.1"
    other = BeautifulSoup((index.parent / "chapters/92_test.html").read_text(), "html.parser")
    assert "Exercise A.1" in other.select_one("#c92-one").get_text()
    assert other.select_one(".eqno").get_text().startswith("(A.1)")
