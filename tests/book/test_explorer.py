"""The explorer in a real browser: its numbers are the package's, its controls, address, plots and words work."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from explorer_logs import with_floor
from explorer_tab import RELATIVE, Tab, same, settings_of_hours, some_settings

from companion.explorer import CONTROLS, Explorer, Setting
from companion.formatting import power_of_ten
from companion.hardware import get_hardware, known_hardware
from companion.inference.runtime_model import paper_runtime_model
from companion.plotting.explorer_page import COUNT_ROWS, FORMATS, PLOTS, ROWS, between, cell_text
from companion.runs.shape_family import paper_family

pytestmark = [pytest.mark.book, pytest.mark.browser]

PAGE = "chapters/91_explorer.html"
ROW_LIST = [row for group in ROWS.values() for row in group]


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer.of()


@pytest.fixture(scope="module")
def shared_tab(browser: Any, site: str) -> Iterator[Tab]:
    """One page for many tests: loading plotly takes seconds."""
    opened = Tab(browser, site + PAGE, site, permissions=["clipboard-read", "clipboard-write"]).ready()
    yield opened
    opened.context.close()


@pytest.fixture
def tab(shared_tab: Tab, explorer: Explorer) -> Iterator[Tab]:
    """The shared page at its opening setting."""
    shared_tab.open(explorer.default.link)
    assert shared_tab.setting() == asdict(explorer.default)
    yield shared_tab
    assert not shared_tab.complaints
    assert not shared_tab.strangers


def test_numbers_equal_the_package(tab: Tab, explorer: Explorer) -> None:
    chosen = some_settings()
    assert len(chosen) == 40 + 24
    for setting in [*chosen, *settings_of_hours()]:
        same(explorer.evaluate(setting), tab.numbers(setting), setting.link)
        counted = tab.page.evaluate("setting => companionExplorer.count(setting)", asdict(setting))
        assert list(counted) == list(explorer.counted)
        same(explorer.count(setting), counted, setting.link)


def test_page_holds_the_data_of_the_package(tab: Tab, explorer: Explorer) -> None:
    held = json.loads(tab.page.inner_text("#explorer-model") or tab.page.text_content("#explorer-model"))
    same(json.loads(json.dumps(explorer.model())), {key: held[key] for key in explorer.model()}, "model")


def test_texts_are_the_formatted_numbers(tab: Tab) -> None:
    for setting in (None, *some_settings()[:6], *some_settings()[-4:], *settings_of_hours()[:2]):
        if setting is not None:
            tab.open(setting.link)
        result = tab.page.evaluate("companionExplorer.evaluate(companionExplorer.setting())")
        shown = tab.texts()
        assert len(shown) == len(ROW_LIST) * len(result)
        for name, one in result.items():
            for row in ROW_LIST:
                write = FORMATS[row.format]
                value, interval, flag = shown[f"{row.key} {name}"]
                assert value == cell_text(row, one)
                bounds = one["intervals"].get(row.key)
                assert interval == (between(*map(write, bounds)) if bounds else "")
                assert (flag == "extrapolated") == row.extrapolated(one)


def test_counted_architectures_follow_the_setting(tab: Tab, explorer: Explorer) -> None:
    for setting in (explorer.default, some_settings()[3]):
        tab.open(setting.link)
        for name, one in explorer.count(setting).items():
            for row in COUNT_ROWS:
                cell = tab.page.locator(f"td[data-count={row.key}][data-architecture={name}]")
                assert cell.text_content() == FORMATS[row.format](one[row.key])


def test_formats_are_those_of_the_package(tab: Tab) -> None:
    rng = np.random.default_rng(0)
    values = [*np.exp(rng.uniform(np.log(1e-5), np.log(1e13), 400)), 0.99951, 999.6e6, 9.995, 9.9949, 1e3, 1.0]
    for name, write in FORMATS.items():
        script = f"values => values.map(value => companionExplorer.format.{name}(value))"
        assert tab.page.evaluate(script, list(map(float, values))) == [write(value) for value in values]


@pytest.mark.parametrize("setting", [Setting(), some_settings()[0], Setting(tokens_per_param=None, hardware="l40s")])
def test_plots_show_the_numbers_of_the_package(tab: Tab, explorer: Explorer, setting: Setting) -> None:
    tab.open(setting.link)
    traces = "name => document.getElementById('explorer-plot-' + name).data.map(t => ({x: [...t.x], y: [...t.y]}))"
    plots = {name: tab.page.evaluate(traces, name) for name in PLOTS}
    for place, (architecture, knowledge) in enumerate(explorer.known.items()):
        numbers = explorer.evaluate(setting)[architecture]["numbers"]
        family, law = paper_family(architecture), knowledge.fit.law
        dashed, solid, optimum, model = plots["loss"][4 * place : 4 * place + 4]
        size = np.array(dashed["x"])
        price = family.flops_per_token(family.width_of(size), setting.context_length)
        assert dashed["y"] == pytest.approx(law.predict(size, setting.train_flops / price), rel=RELATIVE)
        assert optimum["x"] + optimum["y"] == pytest.approx([numbers["optimal_num_params"], numbers["optimal_loss"]])
        assert model["x"] + model["y"] == pytest.approx([numbers["num_params"], numbers["loss"]], rel=RELATIVE)
        assert all(a is None or a == b for a, b in zip(solid["y"], dashed["y"], strict=True))

        shapes = family.at(numbers["num_params"])
        for name, quantity in (("ttft", "ttft"), ("step", "step_time")):
            dashed, solid, marker = plots[name][3 * place : 3 * place + 3]
            contexts, runtime = np.array(dashed["x"]), paper_runtime_model(architecture, quantity)  # type: ignore[arg-type]
            expected = runtime.predict(shapes, contexts, setting.batch_size, setting.hardware)
            assert dashed["y"] == pytest.approx(np.broadcast_to(expected, len(contexts)), rel=RELATIVE)
            for context, value in zip(contexts, solid["y"], strict=True):
                inside = not runtime.outside(numbers["num_params"], context, setting.batch_size)
                assert inside == (value is not None), (quantity, context)
            assert marker["y"] == pytest.approx([numbers[f"{quantity}_s"]], rel=RELATIVE)
        check_hours(plots["hours"][4 * place : 4 * place + 4], explorer, architecture, setting)
        assert plots["memory"][3 * place + 2]["y"] == pytest.approx([numbers["memory_bytes"] / 2**30], rel=RELATIVE)


def check_hours(traces: list[dict[str, Any]], explorer: Explorer, architecture: str, setting: Setting) -> None:
    """Compute-optimal models at budgets up to a hundred times less and more, and the marks of the setting."""
    dashed, solid, optimum, model = traces
    budgets = np.unique(np.clip(setting.train_flops * 10 ** (np.arange(-20, 21) / 10), 1e18, 1e25))
    points = list(zip(budgets, dashed["x"], dashed["y"], solid["y"], strict=True))
    for flops, hours, loss, drawn in points[::8]:
        best = replace(setting, train_flops=float(flops), tokens_per_param=None)
        one = explorer.evaluate(best)[architecture]
        numbers = one["numbers"]
        assert (hours, loss) == pytest.approx((numbers["train_gpu_hours"], numbers["loss"]), rel=RELATIVE)
        assert (drawn is None) == any(left["of"] in ("optimum", "utilization") for left in one["outside"])
    for mark, ratio in ((optimum, None), (model, setting.tokens_per_param)):
        numbers = explorer.evaluate(replace(setting, tokens_per_param=ratio))[architecture]["numbers"]
        assert mark["x"] + mark["y"] == pytest.approx([numbers["train_gpu_hours"], numbers["loss"]], rel=RELATIVE)


@pytest.mark.parametrize(("floor", "resamples"), [(3.0, slice(None)), (3.0, slice(4)), (3.0, slice(20))])
def test_a_loss_that_laws_never_reach_equals_the_package(
    tab: Tab, explorer: Explorer, floor: float, resamples: slice
) -> None:
    """The page's functions on a model with other laws: of the paper's, all reach all losses."""
    changed = with_floor(explorer, "xlstm", floor, resamples)
    script = "([model, setting]) => companionExplorerModel.create(model).evaluate(setting)"
    theirs = tab.page.evaluate(script, [changed.model(), asdict(changed.default)])
    ours = changed.evaluate()
    same(ours, theirs, "floor")
    assert bool(ours["xlstm"]["missing"]) == (resamples == slice(None))
    assert ("target_gpu_hours" in ours["xlstm"]["intervals"]) == (resamples == slice(4))


def test_without_logs_a_dash_and_the_reason(tab: Tab, explorer: Explorer) -> None:
    alone = {name: replace(each, utilization=None, unlogged="none") for name, each in explorer.known.items()}
    for known in ({**explorer.known, "xlstm": alone["xlstm"]}, {**explorer.known, "transformer": alone["transformer"]}):
        changed = replace(explorer, known=known)
        script = """([model, rows, setting]) => {
            const result = companionExplorerModel.create(model).evaluate(setting);
            const section = document.getElementById("explorer").cloneNode(true);
            companionExplorerFormat.fillTable(section, rows, result);
            const cell = section.querySelector("td[data-key=train_gpu_hours]:is([data-architecture=xlstm])");
            return [result, [...cell.children].map(part => part.textContent)];
        }"""
        rows = [asdict(row) for row in ROW_LIST]
        theirs, cell = tab.page.evaluate(script, [changed.model(), rows, asdict(changed.default)])
        same(changed.evaluate(), theirs, "logs")
        if changed.known["xlstm"].utilization is None:
            assert cell == ["–", "", "no logs"]


DRAWN = "[...document.querySelectorAll('#explorer .scatterlayer path')].map(path => path.getAttribute('d')).join()"


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.key)
def test_sliders_move_by_keyboard(tab: Tab, control: Any) -> None:
    slider = tab.page.locator(f"#explorer-{control.key}")
    slider.focus()
    before, drawn = tab.setting()[control.name], tab.page.evaluate(DRAWN)
    at = control.steps.index(before)
    for key, expected in (("ArrowRight", at + 1), ("ArrowDown", at), ("Home", 0), ("End", len(control.steps) - 1)):
        tab.page.keyboard.press(key)
        tab.rest()
        value = control.steps[expected]
        assert tab.setting()[control.name] == value
        text = control.text(value)
        assert tab.page.inner_text(f"#explorer-{control.key}-value") == text
        assert slider.get_attribute("aria-valuetext") == text
        assert tab.page.evaluate("location.hash") == f"#{Setting(**tab.setting()).link}"
    assert tab.page.evaluate(DRAWN) != drawn, "the plots were drawn again"


def test_checkbox_and_hardware_by_keyboard(tab: Tab, explorer: Explorer) -> None:
    tab.page.locator("#explorer-optimal").focus()
    tab.page.keyboard.press("Space")
    tab.rest()
    assert tab.setting()["tokens_per_param"] is None
    best = explorer.evaluate(Setting(tokens_per_param=None))
    text = ", ".join(FORMATS["ratio"](one["numbers"]["tokens_per_param"]) for one in best.values())
    assert tab.page.inner_text("#explorer-ratio-value") == text
    assert "ratio=optimal" in tab.page.evaluate("location.hash")
    tab.page.locator("#explorer-ratio").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.rest()
    assert not tab.page.is_checked("#explorer-optimal"), "moving M leaves the optimum"
    assert tab.setting()["tokens_per_param"] == 30

    tab.page.locator("#explorer-hardware").focus()
    tab.page.keyboard.press("End")
    tab.rest()
    assert tab.setting()["hardware"] == list(known_hardware())[-1]
    assert "AMD Instinct MI300X" in tab.notes()

    tab.page.locator("#explorer-reset").focus()
    tab.page.keyboard.press("Enter")
    tab.rest()
    assert tab.setting() == asdict(explorer.default)
    assert tab.page.input_value("#explorer-hardware") == explorer.default.hardware


def test_every_control_has_a_name_and_the_order_is_that_of_the_page(tab: Tab) -> None:
    tab.page.locator("#explorer").focus()
    walked = []
    for _ in range(9):
        tab.page.keyboard.press("Tab")
        walked.append(tab.page.evaluate("document.activeElement.id || document.activeElement.className"))
    wanted = ["budget", "context", "ratio", "optimal", "batch", "hardware", "copy", "reset"]
    assert walked == [*(f"explorer-{name}" for name in wanted), "companion-table companion-explorer-table"]
    twice = "() => [...document.querySelectorAll('[id]')].map(e => e.id).filter((id, at, all) => all.indexOf(id) < at)"
    assert not [name for name in tab.page.evaluate(twice) if name.startswith("explorer")]
    tree = tab.page.locator("#explorer form").aria_snapshot()
    for name in ("budget C", "context T", "tokens per parameter M", "batch B"):
        assert f'slider "{name}"' in tree
    for role in ('checkbox "compute-optimal M"', 'combobox "hardware"', 'button "Copy link"', 'button "Reset"'):
        assert role in tree
    assert tab.page.get_by_role("img", name="Step time over the context").count() == 1


def test_a_link_sets_the_page(browser: Any, site: str, explorer: Explorer) -> None:
    setting = Setting(train_flops=6e20, context_length=16384, tokens_per_param=None, batch_size=64, hardware="a100-sxm")
    tab = Tab(browser, f"{site}{PAGE}#{setting.link}", site).ready()
    assert tab.setting() == asdict(setting)
    assert tab.page.is_hidden(".companion-explorer-problem")
    assert tab.page.input_value("#explorer-hardware") == "a100-sxm"
    assert tab.page.is_checked("#explorer-optimal")
    assert tab.texts()["loss xlstm"][0] == f"{explorer.evaluate(setting)['xlstm']['numbers']['loss']:.3f}"
    assert tab.page.evaluate("document.getElementById('explorer').getBoundingClientRect().top") < 300

    other = Setting(train_flops=1e23)
    tab.open(other.link)
    assert tab.setting() == asdict(other)
    tab.page.go_back()
    tab.rest()
    assert tab.setting() == asdict(setting)
    tab.page.go_forward()
    tab.rest()
    assert tab.setting() == asdict(other)
    tab.open("exercises")
    assert tab.setting() == asdict(other), "a heading of the page is no setting"
    assert not tab.complaints
    tab.context.close()


@pytest.mark.parametrize(
    ("link", "changed", "words"),
    [
        ("budget=banana", {}, ["budget=banana is not a budget C", "1×10²¹ FLOP is taken"]),
        ("budget=1e99&batch=4", {"batch_size": 4}, ["budget=1e99", "from 1×10¹⁸ FLOP to 1×10²⁵ FLOP"]),
        ("context=3000", {"context_length": 4096}, ["context=3000 is not a step of context T: 4,096 tokens is taken"]),
        ("ratio=-5", {}, ["ratio=-5"]),
        ("ratio=optimal&hardware=abacus", {"tokens_per_param": None}, ["hardware=abacus is not known", "H100 SXM"]),
        ("color=%3Cb%3Ered&batch=", {}, ["color is nothing that can be set here", "batch="]),
        ("budget=1e22&%zz=%", {"train_flops": 1e22}, ["is nothing that can be set here"]),
    ],
)
def test_a_wrong_link_is_told(
    tab: Tab, explorer: Explorer, link: str, changed: dict[str, Any], words: list[str]
) -> None:
    tab.open(link)
    assert tab.setting() == asdict(explorer.default) | changed
    told = tab.page.inner_text(".companion-explorer-problem")
    assert all(word in told for word in words), told
    tab.page.locator("#explorer-batch").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.rest()
    assert tab.page.is_hidden(".companion-explorer-problem"), "gone once the reader goes on"


def test_copy_link(tab: Tab, site: str) -> None:
    tab.page.locator("#explorer-context").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.page.click("#explorer-copy")
    tab.page.wait_for_function("document.getElementById('explorer-copied').textContent === 'Link copied.'")
    link = Setting(context_length=16384).link
    tab.page.wait_for_function("link => location.hash === '#' + link", arg=link)
    assert tab.page.evaluate("navigator.clipboard.readText()") == f"{site}{PAGE}#{link}"


def test_listed_settings(tab: Tab) -> None:
    links = tab.page.locator("a[data-setting]")
    assert links.count() >= 3
    tab.page.wait_for_function("document.querySelector('a[data-setting]').hash.includes('budget=')")
    for place in range(links.count()):
        link = links.nth(place).get_attribute("data-setting")
        links.nth(place).click()
        tab.rest()
        assert Setting(**tab.setting()).link == link
        assert tab.page.is_hidden(".companion-explorer-problem")


def test_words_on_memory_and_data(tab: Tab, explorer: Explorer) -> None:
    tab.open(Setting(train_flops=6e20).link)
    assert tab.notes().strip() == "", "inside of the data and the logs, and it fits"
    setting = Setting(train_flops=1e25, context_length=2**20, tokens_per_param=2.0, batch_size=32)
    tab.open(setting.link)
    told, result = tab.notes(), explorer.evaluate(setting)
    for label, one in zip(("Transformer", "xLSTM"), result.values(), strict=True):
        needs, has = (
            FORMATS["bytes"](x) for x in (one["numbers"]["memory_bytes"], get_hardware("h100-sxm").memory_bytes)
        )
        assert f"{label} does not fit: it needs {needs}, NVIDIA H100 SXM has {has}." in told
        assert f"{label} is outside the data in N = {FORMATS['count'](one['numbers']['num_params'])} (data: " in told
        high = next(left["high"] for left in one["outside"] if left["name"] == "train_flops")
        assert f"to {power_of_ten(high)})" in told
    assert "Transformer: a step time below the roofline cannot be" in told
    assert "T = 8,192; at T = 1,048,576 only the cost is counted again" in told
    assert "xLSTM: the utilization is that of the nearest logged model, not of N = 912B (logs: " in told
    assert "T = 1,048,576 (logs: 8,192 to 16,384)" in told


def test_words_on_logs(tab: Tab) -> None:
    assert tab.notes().strip() == (
        "Transformer: the utilization is that of the nearest logged model, not of N = 2.50B (logs: 83.6M to 2.33B)."
    )
    tab.open(Setting(train_flops=6e20, hardware="l40s").link)
    assert "GPU-hours on NVIDIA L40S take the utilization that was logged on NVIDIA H100 SXM." in tab.notes()


def test_one_drawing_per_frame_and_one_sentence(tab: Tab) -> None:
    counts = tab.page.evaluate("""async () => {
        const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        await frame();
        const react = Plotly.react, live = document.querySelector(".companion-explorer-live");
        let drawn = 0, said = 0;
        Plotly.react = (...all) => { drawn++; return react(...all); };
        new MutationObserver(() => said++).observe(live, {childList: true});
        const slider = document.getElementById("explorer-context");
        for (let place = 0; place < 10; place++) {
            slider.value = place;
            slider.dispatchEvent(new Event("input", {bubbles: true}));
        }
        await frame();
        const first = drawn;
        await new Promise(done => setTimeout(done, 1400));
        Plotly.react = react;
        return [first, drawn, said, live.textContent];
    }""")
    assert counts[:3] == [5, 5, 1], "five plots once, one sentence"
    assert "Transformer: loss" in counts[3]
    assert "GPU-hours" in counts[3]
