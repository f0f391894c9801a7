"""What the page of search results shows under each hit."""

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.book, pytest.mark.browser]

PAGE = """<html><body><div role="main"><article>
<section id="a.b"><h2>Heading<a class="headerlink" href="#">#</a></h2>
<p>Loss is <span class="math">\\(\\frac{a}{b}\\)</span> in nats.</p></section>
<details class="hide"><summary>Show code cell source</summary><pre>hidden = 1</pre></details>
<figure class="companion-figure"><figcaption>An exponent \\(\\alpha\\) here.</figcaption></figure>
<table><tr><td>one</td><td>two</td></tr></table><button>Copy</button>
</article></div></body></html>"""


def text_of(browser: Any, site: str, anchor: str | None) -> str:
    """What Sphinx's search takes a summary from."""
    page = browser.new_page()
    page.goto(f"{site}search.html")
    text = page.evaluate("([html, anchor]) => Search.htmlToText(html, anchor)", [PAGE, anchor])
    page.close()
    return str(text)


def test_text_is_what_a_reader_sees(browser: Any, site: str) -> None:
    assert text_of(browser, site, None) == "Heading Loss is … in nats. An exponent … here. one two"


def test_an_anchor_with_dots_is_found(browser: Any, site: str) -> None:
    assert text_of(browser, site, "#a.b") == "Heading Loss is … in nats."


def test_excerpts_on_the_page(browser: Any, site: str) -> None:
    page = browser.new_page()
    for query in ("parabola", "huber", "gate"):
        page.goto(f"{site}search.html?q={query}")
        page.wait_for_selector("#search-results p.context")
        excerpts = page.eval_on_selector_all("#search-results p.context", "all => all.map(each => each.textContent)")
        assert excerpts
        for excerpt in excerpts:
            assert not re.search(r"\\[a-zA-Z]|\\\(|Show code|Copy to clipboard", excerpt), excerpt
    page.close()


def test_index_is_small(built_book: Path) -> None:
    assert (built_book / "searchindex.js").stat().st_size < 1e6


@pytest.mark.parametrize("address", ["search.html?q=companion", "genindex.html", "py-modindex.html"])
def test_long_names_leave_a_margin_on_a_phone(browser: Any, site: str, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{site}{address}")
    page.wait_for_selector(".bd-main :is(ul.search li, .indextable a)")
    margins = page.evaluate("""() => {
        const what = ".bd-main :is(h1, ul.search, ul.search a, .indextable, .indextable a)";
        const shown = [...document.querySelectorAll(what)];
        const boxes = shown.filter(each => each.offsetWidth).map(each => each.getBoundingClientRect());
        return [Math.min(...boxes.map(box => box.left)), innerWidth - Math.max(...boxes.map(box => box.right))];
    }""")
    page.close()
    assert min(margins) >= 12, margins
