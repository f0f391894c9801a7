"""axe-core over the pages: no violation of its rules on any, no contrast too low on a page of each kind.

Contrast takes ten times as long as all other rules together, so that one page of each kind stands for those that share
its style.

Figures are emptied first (one image each to a screen reader, tens of thousands of nodes to axe), formulas too.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.book, pytest.mark.browser]

CHECK = """async (options) => {
  for (const drawing of document.querySelectorAll(".companion-figure svg, mjx-container")) drawing.replaceChildren();
  const result = await axe.run(document, {resultTypes: ["violations"], ...options});
  return result.violations.map(rule => `${rule.id}: ${rule.nodes.length}, first ${rule.nodes[0].target} `
    + (rule.nodes[0].any[0] ?? rule.nodes[0].all[0] ?? rule.nodes[0].none[0])?.message);
}"""

#: One page of each kind, for contrast: small ones where there are several.
KINDS = ("intro.html", "chapters/09_planning.html", "chapters/91_explorer.html", "bibliography.html", "search.html")


API = ("api/fitting.html", "api/cli.html")

#: Code is one text to a screen reader, and thousands of colored spans to axe.
PLAIN_CODE = "document.querySelectorAll('pre').forEach(code => { code.textContent = code.textContent })"


def pages_of(book: Path) -> list[str]:
    """Pages that a reader sees: not those that only lead elsewhere."""
    names = [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]
    return [
        str(p.relative_to(book)) for p in names if 'http-equiv="refresh"' not in p.read_text(encoding="utf-8").lower()
    ]


def violations(
    browser: Any, site: str, names: list[str], scheme: str, rules: dict[str, Any], first: str = ""
) -> dict[str, list[str]]:
    """What axe finds wrong, by page; `first` is a script that runs before."""
    script = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    found = {}
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    for name in names:
        page = context.new_page()
        page.goto(site + name)
        page.evaluate(script)
        page.evaluate(first)
        if wrong := page.evaluate(CHECK, rules):
            found[name] = wrong
        page.close()
    context.close()
    return found


def test_structure_of_every_page(browser: Any, site: str, built_book: Path) -> None:
    # pages of the API reference come from one machine: two stand for all
    names = [name for name in pages_of(built_book) if not name.startswith("api/") or name in API]
    assert len(names) > 25
    assert not violations(browser, site, names, "light", {"rules": {"color-contrast": {"enabled": False}}}, PLAIN_CODE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_every_kind_of_page(browser: Any, site: str, built_book: Path, scheme: str) -> None:
    only = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
    assert set(KINDS) <= set(pages_of(built_book))
    assert not violations(browser, site, list(KINDS), scheme, only)


def test_axe_finds_what_is_wrong(browser: Any, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}intro.html")
    page.evaluate(
        "document.querySelector('article').insertAdjacentHTML('beforeend', '<img src=\"\"><button></button>')"
    )
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = " ".join(page.evaluate(CHECK, {"rules": {"color-contrast": {"enabled": False}}}))
    assert "image-alt" in found
    assert "button-name" in found
    page.close()
