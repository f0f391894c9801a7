"""The small explorers in a real browser: their numbers are the package's, their link keeps the setting."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
import pytest
from explorer_tab import Tab, same

from companion.explorer import CONTROLS, Explorer, Setting
from companion.plotting.explorer_page import FORMATS, between
from companion.plotting.explorer_widget import WIDGETS

pytestmark = [pytest.mark.book, pytest.mark.browser]

PAGES = {"context": "07_context_length", "ratio": "05_overtraining", "budget": "09_planning"}
#: Resampled laws come with the precision of float32.
RELATIVE = 1e-5


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer.of()


@pytest.fixture(scope="module")
def tabs(browser: Any, site: str) -> Iterator[dict[str, Tab]]:
    opened = {name: Tab(browser, f"{site}chapters/{page}.html", site) for name, page in PAGES.items()}
    yield opened
    for tab in opened.values():
        tab.context.close()


@pytest.fixture(params=PAGES)
def widget(request: pytest.FixtureRequest, tabs: dict[str, Tab]) -> Iterator[tuple[str, Tab]]:
    tab = tabs[request.param]
    yield request.param, tab
    assert not tab.complaints
    assert not tab.strangers


def setting_of(name: str, tab: Tab) -> Setting:
    return Setting(**tab.page.evaluate(f"document.getElementById('explorer-{name}').companionWidget.setting()"))


def move(name: str, tab: Tab, place: int, key: str) -> Setting:
    """Press a key on a slider; the setting then."""
    control = next(one for one in CONTROLS if one.name == WIDGETS[name].controls[place])
    tab.page.locator(f"#explorer-{name}-{control.key}").focus()
    tab.page.keyboard.press(key)
    tab.rest()
    setting = setting_of(name, tab)
    text = control.text(getattr(setting, control.name))
    assert tab.page.inner_text(f"#explorer-{name}-{control.key}-value") == text
    assert tab.page.get_attribute(f"#explorer-{name}-{control.key}", "aria-valuetext") == text
    return setting


def check_numbers(name: str, tab: Tab, explorer: Explorer, setting: Setting) -> None:
    script = f"setting => document.getElementById('explorer-{name}').companionWidget.evaluate(setting)"
    theirs, ours = tab.page.evaluate(script, asdict(setting)), explorer.evaluate(setting)
    assert theirs.keys() == ours.keys()
    for architecture, one in theirs.items():
        whole = ours[architecture]
        same({key: whole["numbers"][key] for key in one["numbers"]}, one["numbers"], setting.link)
        assert {"loss", "excess_loss", "optimal_loss", "optimal_num_params"} <= one["intervals"].keys()
        for key, bounds in one["intervals"].items():
            assert bounds == pytest.approx(whole["intervals"][key], rel=RELATIVE, abs=1e-7), key
        known = {"loss", "optimum"} | {row.of for row in WIDGETS[name].rows}
        same([left for left in whole["outside"] if left["of"] in known], one["outside"], setting.link)
        assert ("train_gpu_hours" in one["intervals"]) == ("utilization" in known)
        for row in WIDGETS[name].rows:
            cell = f"#explorer-{name} td[data-key={row.key}][data-architecture={architecture}]"
            value, interval, flag = tab.page.evaluate(
                "cell => [...document.querySelector(cell).children].map(part => part.textContent)", cell
            )
            write = FORMATS[row.format]
            assert value == write(whole["numbers"][row.key])
            expected = one["intervals"].get(row.key)
            assert interval == (between(*map(write, expected)) if expected else "")
            assert (flag == "extrapolated") == any(left["of"] == row.of for left in whole["outside"])


def test_numbers_equal_the_package(widget: tuple[str, Tab], explorer: Explorer) -> None:
    name, tab = widget
    first = setting_of(name, tab)
    check_numbers(name, tab, explorer, first)
    drawn = tab.page.inner_html(f"#explorer-{name} .companion-widget-drawing")
    moved = move(name, tab, 0, "End")
    moved = move(name, tab, 1, "ArrowLeft")
    assert moved != first
    check_numbers(name, tab, explorer, moved)
    assert tab.page.inner_html(f"#explorer-{name} .companion-widget-drawing") != drawn, "drawn again"
    assert "extrapolated" in tab.page.inner_text(f"#explorer-{name} .companion-widget-numbers")


def test_plot_is_solid_within_the_data(widget: tuple[str, Tab], explorer: Explorer) -> None:
    name, tab = widget
    axis = WIDGETS[name].controls[0]
    of = next(row.of for row in WIDGETS[name].rows if row.key == WIDGETS[name].plotted)
    paths = f"[...document.querySelectorAll('#explorer-{name} path[stroke-width]')].map(p => p.getAttribute('d'))"
    drawn, setting = tab.page.evaluate(paths), setting_of(name, tab)
    steps = next(control.steps for control in CONTROLS if control.name == axis)
    settings = [replace(setting, **{axis: type(getattr(setting, axis))(step)}) for step in steps]
    each = [explorer.evaluate(one) for one in settings]
    for place, architecture in enumerate(explorer.known):
        dashed, solid = drawn[2 * place], drawn[2 * place + 1]
        inside = [not any(left["of"] == of for left in one[architecture]["outside"]) for one in each]
        assert len(dashed.replace("L", "M").split("M")) - 1 == len(steps)
        assert len(solid.replace("L", "M").split("M")) - 1 == sum(inside)


def test_link_carries_the_setting(widget: tuple[str, Tab]) -> None:
    name, tab = widget
    setting = move(name, tab, 1, "ArrowRight")
    link = tab.page.locator(f"#explorer-{name} .companion-widget-link")
    assert link.get_attribute("href") == f"91_explorer.html#{setting.link}"


def test_link_opens_the_explorer_with_the_same_numbers(tabs: dict[str, Tab], browser: Any, site: str) -> None:
    tab = tabs["context"]
    setting, link = setting_of("context", tab), tab.page.locator("#explorer-context .companion-widget-link")
    whole = Tab(browser, f"{site}chapters/{link.get_attribute('href')}", site)
    assert whole.setting() == asdict(setting)
    for key in ("optimal_loss", "optimal_num_params"):
        for architecture in ("transformer", "xlstm"):
            cell = f"td[data-key={key}][data-architecture={architecture}] b"
            assert whole.page.inner_text(f"#explorer {cell}") == tab.page.inner_text(f"#explorer-context {cell}")
    whole.context.close()


def test_names_focus_and_one_spoken_sentence(widget: tuple[str, Tab]) -> None:
    name, tab = widget
    tree = tab.page.locator(f"#explorer-{name}").aria_snapshot()
    for control in (one for one in CONTROLS if one.name in WIDGETS[name].controls):
        assert f'slider "{control.label}"' in tree
    assert tab.page.locator(f"#explorer-{name}").get_by_role("img").count() == 1
    said = tab.page.evaluate(f"""async () => {{
        const section = document.getElementById("explorer-{name}");
        const live = section.querySelectorAll("[aria-live=polite]");
        let changes = 0;
        new MutationObserver(() => changes++).observe(live[0], {{childList: true}});
        const slider = section.querySelector("input");
        for (const place of [3, 4, 5, 6]) {{
            slider.value = place;
            slider.dispatchEvent(new Event("input", {{bubbles: true}}));
        }}
        await new Promise(done => setTimeout(done, 1300));
        return [live.length, changes, live[0].textContent];
    }}""")
    assert said[:2] == [1, 1]
    assert said[2].startswith("Transformer: ")
    tab.page.locator(f"#explorer-{name} input").first.focus()
    tab.page.keyboard.press("Tab")
    outline = (
        "(e => [e.type, getComputedStyle(e).outlineStyle, getComputedStyle(e).outlineWidth])(document.activeElement)"
    )
    assert tab.page.evaluate(outline) == ["range", "solid", "2px"]


def test_on_paper_the_table_stands_in(widget: tuple[str, Tab]) -> None:
    name, tab = widget
    live, still = (tab.page.locator(f"#explorer-{name} .companion-widget-{part}") for part in ("live", "still"))
    assert (live.is_visible(), still.is_visible()) == (True, False)
    tab.page.emulate_media(media="print")
    assert (live.is_visible(), still.is_visible()) == (False, True)
    tab.page.emulate_media(media="screen")


def test_without_scripts_the_table_stands_in(browser: Any, site: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for name, chapter in PAGES.items():
        page.goto(f"{site}chapters/{chapter}.html")
        assert page.is_hidden(f"#explorer-{name} .companion-widget-live")
        rows = page.locator(f"#explorer-{name} .companion-widget-still tbody tr")
        assert rows.count() == 2 * len(WIDGETS[name].still)
        assert rows.first.is_visible()
    context.close()


def test_phone(widget: tuple[str, Tab]) -> None:
    name, tab = widget
    tab.page.set_viewport_size({"width": 390, "height": 844})
    tab.rest()
    edges, heights = tab.page.evaluate(f"""(() => {{
        const section = document.getElementById("explorer-{name}");
        const boxes = [...section.querySelectorAll(".companion-widget-live *")].map(e => e.getBoundingClientRect());
        return [boxes.filter(box => box.width > 1).map(box => box.right),
                [...section.querySelectorAll("input")].map(e => e.offsetHeight)];
    }})()""")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert max(edges) <= 390
    assert min(heights) >= 24, "large enough for a finger"
    tab.page.set_viewport_size({"width": 1280, "height": 900})
    tab.rest()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe(widget: tuple[str, Tab], scheme: str) -> None:
    name, tab = widget
    tab.page.emulate_media(color_scheme=scheme)
    tab.page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
    tab.page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    check = """async section => {
        const result = await axe.run(section, {preload: false});
        const [wrong, right] = [result.violations, result.passes];
        return [wrong.map(rule => rule.id + " " + rule.nodes[0].target), right.map(rule => rule.id)];
    }"""
    violations, passes = tab.page.evaluate(check, f"#explorer-{name}")
    assert not violations
    assert {"color-contrast", "label"} <= set(passes)


def test_opens_from_a_folder(browser: Any, built_book: Path) -> None:
    address = (built_book / f"chapters/{PAGES['budget']}.html").as_uri()
    tab = Tab(browser, address, "file://")
    before = tab.page.inner_text("#explorer-budget .companion-widget-numbers")
    move("budget", tab, 0, "Home")
    assert tab.page.inner_text("#explorer-budget .companion-widget-numbers") != before
    assert not tab.complaints + tab.strangers
    tab.context.close()


def test_downloaded_notebook_has_the_table(built_book: Path) -> None:
    for name, chapter in PAGES.items():
        notebook = nbformat.read(built_book / "_sources" / "chapters" / f"{chapter}.ipynb", 4)
        outputs = [
            "".join(o.get("data", {}).get("text/html", "")) for c in notebook.cells for o in c.get("outputs", [])
        ]
        (shown,) = [text for text in outputs if f'id="explorer-{name}"' in text]
        assert "companion-widget-still" in shown
        assert "src=" not in shown
        assert "Sliders work in the html of the book only" in notebook.cells[0].source
