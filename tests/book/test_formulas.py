"""Formulas on a phone: one that does not fit shows that it goes on, and scrolls by keyboard; the others do not bother.

The pages here have boxes in place of what MathJax draws, with our style sheet and script.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from companion.book.notebooks import ROOT

pytestmark = [pytest.mark.book, pytest.mark.browser]

ASSETS = ROOT / "book" / "_assets"
FORMULA = """<div class="math" id="{name}"><span class="eqno">(1.1)</span>
<mjx-container display="true" style="font-size: 119%"><span class="box" style="width: {width}"></span></mjx-container>
</div>"""
PAGE = """<!doctype html><html lang="en"><head><title>Formulas</title><style>
:root {{ --pst-color-background: #fff; --pst-color-primary: #00f; --companion-shadow: #0004; }}
body {{ margin: 16px; font-size: 16px; }}
div.math {{ display: flex; flex-direction: row-reverse; }}
.box {{ display: inline-block; height: 20px; }}
mjx-container {{ display: block; max-width: 100%; overflow-x: auto; }}
{style}</style><script>{script}</script></head><body>{body}</body></html>"""
STATE = """id => {
  const formula = document.querySelector(`#${id} mjx-container`);
  return {tabindex: formula.getAttribute("tabindex"), role: formula.getAttribute("role"),
          name: formula.getAttribute("aria-label"), left: formula.scrollLeft};
}"""
FREE = {"tabindex": None, "role": None, "name": None, "left": 0}
HELD = {"tabindex": "0", "role": "group", "name": "Formula, scrolls sideways", "left": 0}


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    style, script = ((ASSETS / name).read_text("utf-8") for name in ("formulas.css", "companion.js"))
    long, short, folded = (
        FORMULA.format(name=name, width=width) for name, width in (("a", "40em"), ("b", "16em"), ("c", "40em"))
    )
    page = browser.new_page(viewport={"width": 390, "height": 700})
    page.set_content(
        PAGE.format(style=style, script=script, body=f"{long}{short}<details><summary>more</summary>{folded}</details>")
    )
    page.wait_for_function("document.querySelector('#a mjx-container').hasAttribute('tabindex')")
    yield page
    page.close()


def test_a_long_formula_scrolls_by_keyboard(page: Any) -> None:
    assert page.evaluate(STATE, "a") == HELD
    assert page.evaluate(STATE, "b") == FREE
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#a mjx-container').scrollLeft > 0")


def test_its_edge_is_seen(page: Any) -> None:
    gradients = "getComputedStyle(document.querySelector('#a mjx-container')).backgroundImage.split('linear').length"
    assert page.evaluate(gradients) == 5, "two covers, two shadows"
    page.emulate_media(media="print")
    assert page.evaluate(gradients) == 1


def test_one_in_a_fold_is_marked_when_it_opens(page: Any) -> None:
    assert page.evaluate(STATE, "c") == FREE
    page.locator("summary").click()
    page.wait_for_function("document.querySelector('#c mjx-container').getAttribute('tabindex') === '0'")
    page.set_viewport_size({"width": 1280, "height": 700})
    page.wait_for_function("!document.querySelector('#c mjx-container').hasAttribute('tabindex')")
    assert page.evaluate(STATE, "c") == FREE


def test_the_number_takes_no_width_on_a_phone(page: Any) -> None:
    boxes = """() => ['.eqno', 'mjx-container'].map(part => {
      const box = document.querySelector(`#b ${part}`).getBoundingClientRect();
      return [box.top, box.bottom, box.width];
    })"""
    number, formula = page.evaluate(boxes)
    assert number[1] <= formula[0]
    assert formula[2] == 390 - 2 * 16
    page.set_viewport_size({"width": 1280, "height": 700})
    number, formula = page.evaluate(boxes)
    assert number[0] < formula[1]
    assert formula[0] < number[1], "side by side"
