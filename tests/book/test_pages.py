"""The built pages, from their files and in a real browser with every other host out of reach."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

from companion.book import building as book

pytestmark = pytest.mark.book

WIDTHS = (390, 1440)
CHAPTERS = [path.stem for path in book.sources(book.ROOT / "notebooks")]

FACTS = r"""() => {
  const raw = [];
  const walker = document.createTreeWalker(document.querySelector("main") ?? document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("pre, code, script, style, mjx-container")) continue;
    if (/\\\(|\\\[|\$[^$]+\$|\\[a-zA-Z]{2,}|\{[a-z:]+\}`/.test(node.data)) raw.push(node.data.trim().slice(0, 80));
  }
  const edge = document.documentElement.clientWidth;
  return {
    raw,
    errors: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map(e => e.textContent.slice(0, 80)),
    untypeset: [...document.querySelectorAll(".math")].filter(e => !e.querySelector("mjx-container")).length,
    typeset: document.querySelectorAll("mjx-container").length,
    missing: [...document.images].filter(e => e.complete && !e.naturalWidth).map(e => e.src),
    overflow: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - edge,
    trapped: [...document.querySelectorAll(
        ".companion-table, .companion-figure-scroll, pre, div.math, mjx-container[display='true']")]
      .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
      .filter(e => !["auto", "scroll"].includes(getComputedStyle(e).overflowX) || !e.closest("[tabindex='0']"))
      .map(e => e.className || e.tagName),
  };
}"""


@dataclass
class Visit:
    """What one page did, and at each width what it looked like."""

    page: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)


def found(visits: list[Visit], fact: str) -> dict[str, Any]:
    """Where a fact that should be empty or zero is not."""
    return {f"{v.page} at {w} px": facts[fact] for v in visits for w, facts in v.facts.items() if facts[fact]}


def watch(page: Any, visit: Visit, home: str) -> None:
    """Note errors and requests to other hosts, which are refused."""
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: visit.complaints.append(message.text) if message.type in {"error", "warning"} else None,
    )

    def gate(route: Any) -> None:
        url = route.request.url
        if url.startswith((home, "data:", "blob:")):
            route.continue_()
        else:
            visit.strangers.append(url)
            route.abort()

    page.route("**/*", gate)


def settle(page: Any) -> None:
    """Wait until MathJax, where the page has it, is done."""
    page.evaluate("async () => { if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise; }")


@pytest.fixture(scope="module")
def soups(built_book: Path) -> dict[str, BeautifulSoup]:
    paths = [path for path in sorted(built_book.rglob("*.html")) if "_static" not in path.parts]
    return {
        str(path.relative_to(built_book)): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in paths
    }


@pytest.fixture(scope="module")
def visits(browser: Any, site: str, soups: dict[str, BeautifulSoup]) -> list[Visit]:
    """Every page at every width, some pages at a time, as most of it is waiting."""
    refresh = {"http-equiv": re.compile("refresh", re.IGNORECASE)}  # index.html only leads to the preface
    names = [name for name, soup in soups.items() if not soup.find("meta", attrs=refresh)]
    done = []
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900})
    for begin in range(0, len(names), 6):
        opened = [(context.new_page(), Visit(name)) for name in names[begin : begin + 6]]
        for page, visit in opened:
            watch(page, visit, site)
            page.goto(site + visit.page, wait_until="load")
        for page, _ in opened:
            settle(page)
        for width in WIDTHS:
            for page, _ in opened:
                page.set_viewport_size({"width": width, "height": 900})
            opened[0][0].wait_for_timeout(450)  # the theme's sidebar moves, and looks for what scrolls 300 ms later
            for page, visit in opened:
                visit.facts[width] = page.evaluate(FACTS)
        for page, visit in opened:
            page.close()
            done.append(visit)
    context.close()
    return done


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
def test_no_script_error(visits: list[Visit]) -> None:
    assert not {visit.page: visit.complaints for visit in visits if visit.complaints}


@pytest.mark.browser
def test_no_request_to_another_host(visits: list[Visit]) -> None:
    assert not {visit.page: visit.strangers for visit in visits if visit.strangers}


@pytest.mark.browser
def test_formulas_are_typeset(visits: list[Visit]) -> None:
    assert not found(visits, "raw")
    assert not found(visits, "errors")
    assert not found(visits, "untypeset")
    assert any(facts["typeset"] for visit in visits for facts in visit.facts.values())


@pytest.mark.browser
def test_no_image_is_missing(visits: list[Visit]) -> None:
    assert not found(visits, "missing")


@pytest.mark.browser
def test_no_page_scrolls_sideways(visits: list[Visit]) -> None:
    assert not found(visits, "overflow")


@pytest.mark.browser
def test_wide_parts_scroll_by_themselves(visits: list[Visit]) -> None:
    assert not found(visits, "trapped")


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
def test_copy_button(browser: Any, site: str) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{site}how_to_use.html")
    block = page.locator("div.highlight:has(button.copybtn)", has_text="make book").first
    block.hover()
    block.locator("button.copybtn").click()
    assert "\nmake book\n" in page.evaluate("navigator.clipboard.readText()")
    context.close()


@pytest.mark.browser
def test_opens_from_a_folder(browser: Any, built_book: Path) -> None:
    page = browser.new_page()
    visit = Visit("notation.html")
    watch(page, visit, "file://")
    page.goto((built_book / "notation.html").as_uri())
    settle(page)
    facts = page.evaluate(FACTS)
    assert not visit.complaints + visit.strangers
    assert facts["typeset"]
    assert not facts["untypeset"]
    page.close()
