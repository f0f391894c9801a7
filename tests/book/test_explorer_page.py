"""The explorer's page in a real browser: light and dark, on a phone, from a folder, without scripts, by keyboard."""

from pathlib import Path
from typing import Any

import pytest
from explorer_tab import Tab, some_settings

from companion.explorer import CONTROLS, Explorer, Setting
from companion.plotting.explorer_page import FORMATS

pytestmark = [pytest.mark.book, pytest.mark.browser]

PAGE = "chapters/91_explorer.html"


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer.of()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser: Any, site: str, scheme: str) -> None:
    tab = Tab(browser, site + PAGE, site, color_scheme=scheme).ready()
    look = """() => [
        document.documentElement.dataset.theme,
        getComputedStyle(document.getElementById("explorer")).color,
        getComputedStyle(document.querySelector("#explorer .xtick text")).fill,
    ]"""
    theme, ink, ticks = tab.page.evaluate(look)
    assert theme == scheme
    assert ink == ticks
    for _ in range(3):
        tab.page.locator(".theme-switch-button").locator("visible=true").first.click()
        tab.rest()
        other, new_ink, new_ticks = tab.page.evaluate(look)
        assert new_ink == new_ticks, "drawn again in the new ink"
        assert (other == scheme) == (new_ink == ink)
    assert not tab.complaints
    tab.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_name_of_the_memory_lies_on_no_curve(browser: Any, site: str, width: int) -> None:
    tab = Tab(browser, site + PAGE, site).ready()
    tab.page.set_viewport_size({"width": width, "height": 900})
    links = ["", "#batch=64&context=65536", "#budget=1e22&hardware=l40s", *(each.link for each in some_settings()[:6])]
    for link in links:
        tab.open(link)
        crossed = tab.page.evaluate("""() => {
            const plot = document.getElementById("explorer-plot-memory");
            const label = plot.querySelector(".annotation-text").getBoundingClientRect();
            const on = ({x, y}) => x > label.left && x < label.right && y > label.top && y < label.bottom;
            return [...plot.querySelectorAll(".scatterlayer .js-line")].filter(path => {
                const toPage = path.getScreenCTM(), length = path.getTotalLength();
                const at = share => path.getPointAtLength(share * length).matrixTransform(toPage);
                return Array.from({length: 400}, (_, i) => at(i / 399)).some(on);
            }).length;
        }""")
        assert crossed == 0, (link, width)
    tab.context.close()


def test_phone(browser: Any, site: str) -> None:
    tab = Tab(browser, site + PAGE, site, has_touch=True).ready()
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.rest()
    edge = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    for link in ("", *(setting.link for setting in some_settings()[-6:])):
        tab.open(link)
        assert tab.page.evaluate(edge) <= 390, link
    left = "[...document.querySelectorAll('.companion-explorer-plot')].map(plot => plot.getBoundingClientRect().left)"
    assert len(set(tab.page.evaluate(left))) == 1, "one column"
    for width in tab.page.evaluate("[...document.querySelectorAll('#explorer .main-svg')].map(svg => svg.clientWidth)"):
        assert 200 < width <= 390
    heights = (
        "[...document.querySelectorAll('#explorer :is(input[type=range], select, button)')].map(e => e.offsetHeight)"
    )
    assert min(tab.page.evaluate(heights)) >= 24, "large enough for a finger"
    tab.context.close()


def test_opens_from_a_folder(browser: Any, built_book: Path) -> None:
    tab = Tab(browser, f"{(built_book / PAGE).as_uri()}#budget=1e22&batch=32", "file://").ready()
    assert tab.setting()["train_flops"] == 1e22
    tab.page.locator("#explorer-batch").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.rest()
    assert "batch=64" in tab.page.evaluate("location.hash")
    assert not tab.complaints
    assert not tab.strangers
    tab.context.close()


def test_without_the_plotting_library(browser: Any, site: str, explorer: Explorer) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.route("**/plotly.min.js", lambda route: route.abort())
    page.goto(f"{site}{PAGE}#batch=64", wait_until="load")
    assert "could not be loaded" in page.inner_text(".companion-explorer-missing")
    shown = page.inner_text("td[data-key=ttft_s][data-architecture=xlstm] b")
    assert shown == FORMATS["duration"](explorer.evaluate(Setting(batch_size=64))["xlstm"]["numbers"]["ttft_s"])
    context.close()


def test_without_scripts(browser: Any, site: str, explorer: Explorer) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site + PAGE)
    assert "need JavaScript" in page.inner_text("#explorer noscript")
    shown = page.inner_text("td[data-key=loss][data-architecture=xlstm] b")
    assert shown == f"{explorer.evaluate()['xlstm']['numbers']['loss']:.3f}"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_skip_link(browser: Any, site: str, scheme: str) -> None:
    tab = Tab(browser, site + PAGE, site, color_scheme=scheme).ready()
    hidden = "document.querySelector('.companion-skip').getBoundingClientRect().bottom"
    assert tab.page.evaluate(hidden) <= 0
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Skip to main content"
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Skip to the explorer's sliders"
    tab.page.wait_for_function(
        f"{hidden} > 20 && document.querySelector('.companion-skip').getBoundingClientRect().top >= 0"
    )
    look = """() => {
        const link = document.activeElement, style = getComputedStyle(link);
        return [style.color, getComputedStyle(link.parentElement).backgroundColor, style.outlineStyle];
    }"""
    ink, ground, outline = tab.page.evaluate(look)
    assert ink != ground
    assert outline == "solid"
    tab.page.evaluate("history.replaceState(null, '', '#budget=1e22')")
    address = tab.page.url
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == f"explorer-{CONTROLS[0].key}"
    assert tab.page.url == address, "the setting in the address stays"
    top = "document.getElementById('explorer').getBoundingClientRect().top"
    tab.page.wait_for_function(f"{top} > 0 && {top} < 200")
    tab.context.close()
