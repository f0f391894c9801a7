"""Slides: what a deck takes from a chapter's page, and how it behaves in a browser without a network."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from companion.book.notebooks import ROOT
from companion.book.slides import GENERATOR, slides_of, write_slides
from companion.cli import main
from companion.errors import InputError

pytestmark = pytest.mark.book

FIGURE = (
    '<figure class="companion-figure" id="fig-{0}"><div class="companion-figure-scroll" tabindex="0">'
    '<svg viewBox="0 0 100 50" style="width:100%;max-width:200px"><text x="9" y="9">{0}</text></svg></div>'
    "<figcaption>Caption of {0}: L &lt; 3.</figcaption></figure>"
)
PAGE = f"""<html><head><link rel="stylesheet" href="../_static/look.css"></head><body><article class="bd-article">
<section><h1><span>3. </span>Sizes &amp; budgets<a class="headerlink" href="#x">#</a></h1>
<p><strong>Which size?</strong></p><p>See <a href="../intro.html">here</a>: 7B.</p><ul><li>One more.</li></ul>
<p>What you will learn:</p><ul><li>No answer.</li></ul>
<section><h2><span>3.1. </span>The valley</h2><p>Text.</p><div>{FIGURE.format("one")}</div>
<section><h3>3.1.1. Deeper</h3>{FIGURE.format("two")}</section></section>
<section><h2>3.2. What to take away</h2><ul><li>Remember.</li></ul><form>Quiz</form></section>
</section></article></body></html>"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The html of a book with one chapter, and one page without figures."""
    html = tmp_path / "html"
    (html / "chapters").mkdir(parents=True)
    (html / "_static" / "mathjax").mkdir(parents=True)
    for name in ("slides.css", "slides.js"):
        shutil.copy(ROOT / "book" / "_assets" / name, html / "_static")
    (html / "_static" / "look.css").write_text(".companion-figure { color: teal }")
    (html / "_static" / "mathjax" / "tex-svg-full.js").write_text("window.drawn = true")
    (html / "chapters" / "03_sizes.html").write_text(PAGE, encoding="utf-8")
    (html / "chapters" / "90_ledger.html").write_text("<body><h1>No figures</h1><p>Text.</p></body>")
    return html


def test_slides_of_a_chapter() -> None:
    slides = slides_of(PAGE)
    assert [slide.heading for slide in slides] == ["3. Sizes & budgets", "The valley", "Deeper", "What to take away"]
    assert slides[0].content == "<p><strong>Which size?</strong></p><p>See here: 7B.</p><ul><li>One more.</li></ul>"
    assert [slide.note for slide in slides] == ["", "Caption of one: L &lt; 3.", "Caption of two: L &lt; 3.", ""]
    assert "figcaption" not in slides[1].content
    assert "tabindex" not in slides[1].content
    assert slides[3].content == "<ul><li>Remember.</li></ul>"


def test_command_writes_decks(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slides", "--html", str(built)]) == 0
    folder = built.parent / "slides"
    written = [folder / "03_sizes.html", folder / "index.html"]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert "color: teal" in written[0].read_text(encoding="utf-8")
    assert 'href="03_sizes.html"' in written[1].read_text(encoding="utf-8")
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["slides", "--html", str(built)]) == 0
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("note", "drawn"), [("Caption", False), (r"of \(N\)", True)])
def test_formulas_get_their_script(built: Path, note: str, drawn: bool) -> None:
    page = built / "chapters" / "03_sizes.html"
    page.write_text(PAGE.replace("Caption", note), encoding="utf-8")
    path = write_slides(built, built.parent / "decks")[0]
    assert ('src="tex-svg-full.js"' in path.read_text(encoding="utf-8")) == drawn
    assert (path.parent / "tex-svg-full.js").is_file()


def test_refusals_are_one_line(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slides", "--html", str(tmp_path)]) == 2
    assert "no built book there; run `companion book` first" in capsys.readouterr().err
    mine = tmp_path / "mine" / "index.html"
    mine.parent.mkdir()
    mine.write_text("my page")
    with pytest.raises(InputError, match="not made by `companion slides`, so not replaced"):
        write_slides(built, mine.parent)
    assert [path.name for path in mine.parent.iterdir()] == ["index.html"]
    assert mine.read_text() == "my page"


def test_decks_of_the_book(built_book: Path, tmp_path: Path) -> None:
    for deck in write_slides(built_book, tmp_path / "decks"):
        soup = BeautifulSoup(deck.read_text(encoding="utf-8"), "html.parser")
        assert not soup.select('[src^="http"], link, [href^=".."]'), deck.name
        if deck.name != "index.html":
            page = (built_book / "chapters" / deck.name).read_text(encoding="utf-8")
            assert len(soup.select(".slide figure")) == page.count('<figure class="companion-figure"') > 0, deck.name
            assert soup.select_one("#slide-1 .content").get_text(strip=True), deck.name


@pytest.fixture
def deck(browser: Any, built: Path) -> Iterator[Any]:
    path = write_slides(built, built.parent / "decks")[0]
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if request.url[:5] != "file:" else None)
    page.goto(path.as_uri())
    yield page
    assert not problems
    page.close()


def test_deck_moves_by_keyboard_and_button(deck: Any) -> None:
    def shown() -> list[str]:
        headings = deck.locator(".slide > :is(h1, h2)")
        return [heading.inner_text() for heading in headings.all() if heading.is_visible()]

    status = deck.locator("[role=status]")
    assert (shown(), status.inner_text()) == (["3. Sizes & budgets"], "1 of 4")
    assert deck.get_by_role("button", name="Previous").is_disabled()
    deck.keyboard.press("ArrowRight")
    assert shown() == ["The valley"]
    assert deck.locator("#slide-2 svg").bounding_box()["width"] > 900  # as wide as the screen allows
    assert not deck.locator("#slide-2 .note").is_visible()
    deck.keyboard.press("n")
    assert deck.locator("#slide-2 .note").inner_text() == "Caption of one: L < 3."
    deck.get_by_role("button", name="Next").click()
    assert (shown(), status.inner_text()) == (["Deeper"], "3 of 4")
    assert deck.url.endswith("#slide-3")
    deck.keyboard.press("End")
    assert shown() == ["What to take away"]
    deck.reload()
    assert shown() == ["What to take away"]
    deck.keyboard.press("Home")
    assert status.inner_text() == "1 of 4"


def test_deck_prints_every_slide_with_its_note(deck: Any) -> None:
    pages = deck.pdf(prefer_css_page_size=True)
    assert re.findall(rb"/Count (\d+)", pages)[0] == b"4"
    deck.emulate_media(media="print")
    assert all(slide.is_visible() for slide in deck.locator(".slide").all())
    assert deck.locator("#slide-3 .note").is_visible()
    assert not deck.locator(".controls").is_visible()


def test_deck_reads_without_scripts(browser: Any, built: Path) -> None:
    path = write_slides(built, built.parent / "decks")[0]
    assert GENERATOR in path.read_text(encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.get_by_text("Caption of two").is_visible()
    assert page.get_by_text("Remember.").is_visible()
    assert not page.get_by_role("button", name="Next").is_visible()
    context.close()
