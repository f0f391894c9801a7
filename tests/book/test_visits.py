"""Every page once in a real browser, every other host out of reach: what it does, how it looks, what axe-core finds."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.book, pytest.mark.browser]

WIDTHS = (390, 1440)

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


#: What axe-core finds. Emptied first are figures (one image each to a screen reader, tens of thousands of nodes to axe)
#: and formulas; and, unless it is about contrast alone, the colored spans of code.
AXE = """async (options) => {
  for (const drawing of document.querySelectorAll(".companion-figure svg, mjx-container")) drawing.replaceChildren();
  if (!options.runOnly) for (const code of document.querySelectorAll("pre")) code.textContent = code.textContent;
  const result = await axe.run(document, {resultTypes: ["violations"], preload: false, ...options});
  return result.violations.map(rule => `${rule.id}: ${rule.nodes.length}, first ${rule.nodes[0].target} `
    + (rule.nodes[0].any[0] ?? rule.nodes[0].all[0] ?? rule.nodes[0].none[0])?.message);
}"""
#: All rules but contrast, which takes ten times as long as the others together.
STRUCTURE = {"rules": {"color-contrast": {"enabled": False}}}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}

#: Pages of the API reference come from one machine: two stand for all.
API = ("api/fitting.html", "api/cli.html")

#: One page of each kind, for contrast: small ones where there are several.
KINDS = ("intro.html", "chapters/09_planning.html", "chapters/91_explorer.html", "bibliography.html", "search.html")


@dataclass
class Visit:
    """What one page did, and at each width what it looked like."""

    page: str
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    violations: list[str] | None = None  # None: axe was not asked


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


def violations(page: Any, options: dict[str, Any]) -> list[str]:
    """What axe finds wrong on an open page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    return list(page.evaluate(AXE, options))


def pages_of(book: Path) -> list[str]:
    """Pages that a reader sees: not those that only lead elsewhere, as index.html to the preface."""
    paths = [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]
    names = [path for path in paths if 'http-equiv="refresh"' not in path.read_text(encoding="utf-8").lower()]
    return [str(path.relative_to(book)) for path in names]


@pytest.fixture(scope="module")
def visits(browser: Any, site: str, built_book: Path) -> list[Visit]:
    """Every page at every width, some pages at a time, as most of it is waiting; then axe."""
    names = pages_of(built_book)
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
            if not visit.page.startswith("api/") or visit.page in API:
                visit.violations = violations(page, STRUCTURE)
            page.close()
            done.append(visit)
    context.close()
    return done


def test_no_script_error(visits: list[Visit]) -> None:
    assert not {visit.page: visit.complaints for visit in visits if visit.complaints}


def test_no_request_to_another_host(visits: list[Visit]) -> None:
    assert not {visit.page: visit.strangers for visit in visits if visit.strangers}


def test_formulas_are_typeset(visits: list[Visit]) -> None:
    assert not found(visits, "raw")
    assert not found(visits, "errors")
    assert not found(visits, "untypeset")
    assert any(facts["typeset"] for visit in visits for facts in visit.facts.values())


def test_no_image_is_missing(visits: list[Visit]) -> None:
    assert not found(visits, "missing")


def test_no_page_scrolls_sideways(visits: list[Visit]) -> None:
    assert not found(visits, "overflow")


def test_wide_parts_scroll_by_themselves(visits: list[Visit]) -> None:
    assert not found(visits, "trapped")


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


def test_structure(visits: list[Visit]) -> None:
    assert sum(visit.violations is not None for visit in visits) > 25
    assert not {visit.page: visit.violations for visit in visits if visit.violations}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_every_kind_of_page(browser: Any, site: str, built_book: Path, scheme: str) -> None:
    assert set(KINDS) <= set(pages_of(built_book))
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    found = {}
    for name in KINDS:
        page = context.new_page()
        page.goto(site + name)
        if wrong := violations(page, CONTRAST):
            found[name] = wrong
        page.close()
    context.close()
    assert not found


def test_axe_finds_what_is_wrong(browser: Any, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}intro.html")
    page.evaluate(
        "document.querySelector('article').insertAdjacentHTML('beforeend', '<img src=\"\"><button></button>')"
    )
    found = " ".join(violations(page, STRUCTURE))
    assert "image-alt" in found
    assert "button-name" in found
    page.close()
