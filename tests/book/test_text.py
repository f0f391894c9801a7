"""Where lines of the pages break, and where they do not: prose, names of code, cards of a narrow table."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from small_book import real_book, source

from companion.book import building as book
from companion.plotting import show_table

pytestmark = pytest.mark.book

TEXT = """# A test

The 95 % level at T = 8192 and *T* = 16
tokens, at most 80 GB ($N$, $D$). It is {glue:text}`said`, of {glue:text}`share` %. `T = 8192` and
`companion.fitting.power_law` are code, $x = y$ is a formula.

```{quiz} How often?
:label: how-often

Of a 7 % share?

- [x] 3 % :: At $N$, 4 %.
- [ ] 5 % :: No.
```

| column | of |
|---|---|
| `multiplicity_in_published_fits` | the 5 % |
"""
CELL = "from myst_nb import glue\nglue('said', \"the law's\", display=False)\nglue('share', '5', display=False)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> BeautifulSoup:
    folder = real_book(tmp_path_factory.mktemp("text"))
    source(folder / "notebooks", CELL, text=TEXT)
    index = book.build(folder / "out", root=folder, progress=False, report=lambda _: None).index
    assert "power_law" in (index.parent / "searchindex.js").read_text(), "search reads names whole"
    return BeautifulSoup((index.parent / "chapters/01_test.html").read_text(), "html.parser")


def test_prose_keeps_numbers_together(page: BeautifulSoup) -> None:
    said = page.select_one("article section > p").get_text()
    assert said.startswith("The 95_% level at T_=_8192 and T_=_16\ntokens, at most 80_GB".replace("_", "\u00a0"))
    assert "It is the law’s, of 5\u00a0%." in said
    assert "T = 8192" in [code.get_text() for code in page.select("code.literal")]
    assert "the 5\u00a0%" in [cell.get_text() for cell in page.select("td")]
    quiz = page.select_one("form.companion-quiz").get_text()
    assert all(f"{number}\u00a0%" in quiz for number in (7, 3, 5, 4))
    assert " %" not in quiz


def test_formulas_keep_their_punctuation(page: BeautifulSoup) -> None:
    kept = [each.get_text() for each in page.select(".companion-together")]
    assert kept == [r"(\(N\),", r"\(D\)).", r"\(N\),"]
    assert page.select_one("article section > p").get_text().count("(") == 4, "no sign is lost or doubled"


def test_names_of_code_break_between_their_parts(page: BeautifulSoup) -> None:
    names = [code.decode_contents() for code in page.select("code.literal .pre")]
    assert "companion.<wbr/>fitting.<wbr/>power_<wbr/>law" in names
    assert "multiplicity_in_<wbr/>published_<wbr/>fits" in names


@pytest.mark.browser
def test_cards_leave_out_empty_cells(browser: Any, tmp_path: Path) -> None:
    """On a phone, and with no name of a column broken where it has no seam."""
    long = {f"a long heading, number {number}": ["", "text of a cell"] for number in range(6)}
    table = pd.DataFrame({"name": ["first_name_of_code", "second_name_of_code"]} | long)
    assets = book.ROOT / "book/_assets"
    head = f'<link rel="stylesheet" href="{assets / "tables.css"}"><script src="{assets / "tables.js"}" defer></script>'
    (tmp_path / "page.html").write_text(f"<!doctype html>{head}<body>{show_table(table, caption='c').markup}</body>")
    view = browser.new_page(viewport={"width": 390, "height": 800})
    view.goto((tmp_path / "page.html").as_uri())
    view.wait_for_selector(".companion-stacked")
    shown = view.eval_on_selector_all("tbody td", "all => all.filter(e => e.offsetHeight).map(e => e.textContent)")
    view.close()
    assert [text for text in shown if not re.search("name", text)] == ["text of a cell"] * 6
