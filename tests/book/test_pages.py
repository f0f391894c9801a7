"""The built pages from their files; search, colors and buttons in a real browser."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

from companion.book import building as book

pytestmark = pytest.mark.book

CHAPTERS = [path.stem for path in book.sources(book.ROOT / "notebooks")]


@pytest.fixture(scope="module")
def soups(built_book: Path) -> dict[str, BeautifulSoup]:
    paths = [path for path in sorted(built_book.rglob("*.html")) if "_static" not in path.parts]
    return {
        str(path.relative_to(built_book)): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in paths
    }


def test_every_chapter_has_a_page(soups: dict[str, BeautifulSoup]) -> None:
    assert {f"chapters/{stem}.html" for stem in CHAPTERS} <= set(soups)
    assert {"intro.html", "how_to_use.html", "notation.html", "api.html", "bibliography.html", "search.html"} <= set(
        soups
    )


def test_promised_addresses_exist(built_book: Path) -> None:
    """Others link to them: an address that is to go needs a page that leads on."""
    promised = (Path(__file__).parent / "promised_pages.txt").read_text(encoding="utf-8").split()
    assert promised == sorted(set(promised))
    assert not [address for address in promised if not (built_book / address).is_file()]


def test_internal_links_and_files_resolve(built_book: Path, soups: dict[str, BeautifulSoup]) -> None:
    anchors = {name: {tag["id"] for tag in soup.find_all(id=True)} for name, soup in soups.items()}
    broken = []
    for name, soup in soups.items():
        for tag in soup.find_all(["a", "link", "script", "img", "source", "iframe", "object", "use"]):
            reference = tag.get("href") or tag.get("src") or tag.get("data")
            if not reference or urlsplit(reference).scheme:
                continue
            parts = urlsplit(reference)
            target = (built_book / name).parent / unquote(parts.path) if parts.path else built_book / name
            relative = str(target.resolve().relative_to(built_book.resolve()))
            lost = parts.fragment and relative in anchors and unquote(parts.fragment) not in anchors[relative]
            if not target.is_file() or (lost and reference != "#"):
                broken.append(f"{name}: {reference}")
    assert not broken


def test_nothing_is_loaded_from_elsewhere(built_book: Path, soups: dict[str, BeautifulSoup]) -> None:
    for name, soup in soups.items():
        for tag in soup.select("link:not([rel=canonical]), script, img, iframe, source"):
            reference = str(tag.get("href") or tag.get("src") or "")
            assert urlsplit(reference).scheme in {"", "data"}, f"{name}: {reference}"
        assert "thebe" not in str(soup).lower(), name
    for path in built_book.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import\s+['\"]https?:", path.read_text(encoding="utf-8")), path.name


def test_images_and_figures_say_what_they_show(soups: dict[str, BeautifulSoup]) -> None:
    for name, soup in soups.items():
        for image in soup.find_all("img"):
            assert image.get("alt"), f"{name}: {image.get('src')}"
        for figure in soup.select("figure.companion-figure"):
            where = f"{name}: figure {figure.get('id')}"
            assert figure.get("id"), where
            assert figure.find("figcaption").get_text(strip=True), where
            drawing = figure.find(["svg", "img"])
            assert drawing.get("aria-label") or drawing.get("aria-labelledby") or drawing.get("alt"), where
            assert drawing.name == "img" or drawing.get("role") == "img", where


def test_tables_scroll_by_keyboard(soups: dict[str, BeautifulSoup]) -> None:
    for name, soup in soups.items():
        for table in soup.select(".companion-table"):
            assert table.get("tabindex") == "0", name
            assert table.get("role") == "region", name
            assert table.get("aria-label") or table.get("aria-labelledby"), name


@pytest.mark.parametrize("stem", CHAPTERS)
def test_notebook_can_be_downloaded(built_book: Path, soups: dict[str, BeautifulSoup], stem: str) -> None:
    button = soups[f"chapters/{stem}.html"].select_one("a.btn-download-source-button")
    assert button is not None
    assert button["title"] == "Download this notebook"
    path = built_book / "chapters" / str(button["href"])
    assert path.name == f"{stem}.ipynb"
    nbformat.validate(nbformat.from_dict(json.loads(path.read_text(encoding="utf-8"))))


@pytest.mark.browser
def test_search(browser: Any, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}intro.html")
    page.locator(".search-button-field, .search-button").locator("visible=true").first.click()
    page.locator("input[type=search]").locator("visible=true").fill("cross-entropy validation")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results ul.search li a")
    found = page.eval_on_selector_all("#search-results ul.search li a", "links => links.map(a => a.href)")
    assert any("notation.html" in address for address in found)
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser: Any, site: str, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{site}notation.html")
    look = "() => [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]"
    theme, ground = page.evaluate(look)
    assert theme == scheme, "the system's preference decides first"
    seen = {theme: ground}
    for _ in range(3):
        page.locator(".theme-switch-button").locator("visible=true").first.click()
        seen.update([page.evaluate(look)])
    assert set(seen) == {"light", "dark"}
    assert seen["light"] != seen["dark"]
    context.close()


@pytest.mark.browser
def test_a_link_into_a_fold_leads_to_its_target(browser: Any, site: str) -> None:
    """On a phone the table above it takes the form of cards only once the fold is open."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{site}chapters/04_loss_surface.html")
    fold = page.locator("details:has(#tbl-surface-exponents)").first
    assert fold.evaluate("fold => !fold.open && fold.querySelectorAll('.companion-table').length > 1")
    page.locator('a[href="#tbl-surface-exponents"]').locator("visible=true").first.click()
    page.wait_for_function(
        """() => {
          const top = document.getElementById("tbl-surface-exponents").getBoundingClientRect().top;
          return top >= 0 && top < innerHeight / 2;
        }"""
    )
    page.close()


@pytest.mark.browser
def test_paper_shows_what_is_folded_and_figures_as_drawn(browser: Any, site: str) -> None:
    page = browser.new_page(viewport={"width": 650, "height": 900})  # as wide as a sheet without its margins
    page.goto(f"{site}chapters/04_loss_surface.html")
    seen = """() => {
      const seen = name => [...document.querySelectorAll(`article ${name}`)].filter(e => e.checkVisibility()).length;
      return [seen(".companion-table"), seen("details.hide .cell_input"), seen("details.hide > summary"),
        seen(".companion-figure-wide"), seen(".companion-figure-narrow"), seen("details[open]")];
    }"""
    tables = page.locator("article .companion-table").count()
    figures = page.locator("article .companion-figure-wide").count()
    solutions = page.locator("article details.companion-solution").count()
    before = page.evaluate(seen)
    assert before[0] < tables
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    shown = page.evaluate(seen)
    assert shown[:5] == [tables, 0, 0, figures, 0]
    assert shown[5] > solutions > 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.evaluate(seen) == before
    page.close()


@pytest.mark.browser
def test_paper_shows_tables_whole(browser: Any, site: str) -> None:
    """On a screen a section of the ledger scrolls in a box."""
    page = browser.new_page(viewport={"width": 650, "height": 900})
    page.goto(f"{site}chapters/90_ledger.html")
    cut = """() => [...document.querySelectorAll(".companion-table")]
      .filter(box => box.scrollHeight > box.clientHeight + 1 || box.clientHeight < box.firstElementChild.offsetHeight)
      .length"""
    assert page.evaluate(cut) > 0
    page.emulate_media(media="print")
    assert page.evaluate(cut) == 0
    page.close()


@pytest.mark.browser
def test_copy_button(browser: Any, site: str) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{site}how_to_use.html")
    block = page.locator("div.highlight:has(button.copybtn)", has_text="make book").first
    block.hover()
    block.locator("button.copybtn").click()
    assert "\nmake book\n" in page.evaluate("navigator.clipboard.readText()")
    context.close()
