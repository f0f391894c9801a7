"""The explorer's markup: controls that are labeled, the opening numbers, data that cannot end its element."""

import json
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from companion.explorer import CONTROLS, Explorer, Setting
from companion.hardware import known_hardware
from companion.plotting.explorer_page import FORMATS, PLOTS, ROWS, between, duration, explorer_page, setting_links


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer.of(num_resamples=4, default=Setting(tokens_per_param=None))


@pytest.fixture(scope="module")
def soup(explorer: Explorer) -> BeautifulSoup:
    return BeautifulSoup(explorer_page(explorer)._repr_html_(), "html.parser")


def test_every_control_has_a_label(soup: BeautifulSoup) -> None:
    controls = soup.select("form input, form select")
    assert len(controls) == len(CONTROLS) + 2
    for control in controls:
        label = soup.find("label", attrs={"for": control["id"]})
        assert label is not None, control
        assert label.get_text(strip=True)
    for control in CONTROLS:
        slider = soup.find(id=f"explorer-{control.key}")
        assert int(slider["max"]) == len(control.steps) - 1
        assert soup.find("output", attrs={"for": slider["id"]}).get_text() == slider["aria-valuetext"]
    assert [option["value"] for option in soup.select("option")] == list(known_hardware())


def test_table_opens_with_the_numbers(explorer: Explorer, soup: BeautifulSoup) -> None:
    shown = explorer.evaluate()
    rows = [row for group in ROWS.values() for row in group]
    for name, result in shown.items():
        for row in rows:
            cell = soup.select_one(f'td[data-key="{row.key}"][data-architecture="{name}"]')
            assert cell.b.get_text() == FORMATS[row.format](result["numbers"][row.key])
            assert bool(cell.small.get_text()) == (row.key in result["intervals"])
    assert set(next(iter(shown.values()))["numbers"]) == {row.key for row in rows}


def test_without_logs_a_dash_and_no_plot(explorer: Explorer) -> None:
    bare = {name: replace(each, utilization=None, unlogged="none") for name, each in explorer.known.items()}
    for known in (bare, {**explorer.known, "xlstm": bare["xlstm"]}):
        soup = BeautifulSoup(explorer_page(replace(explorer, known=known))._repr_html_(), "html.parser")
        cell = soup.select_one('td[data-key="train_gpu_hours"][data-architecture="xlstm"]')
        assert [part.get_text() for part in cell.children] == ["–", "", "no logs"]
        assert (soup.find(id="explorer-plot-hours") is None) == (known is bare)


def test_parts_of_the_table_name_the_first_architecture(soup: BeautifulSoup) -> None:
    titles = [title.get_text() for title in soup.select("th[scope=rowgroup]")]
    assert titles[-1] == "The cheapest training that reaches the loss of the Transformer above"
    assert not any("{" in title.get_text() for title in soup.select("th"))


def test_plots_have_names(soup: BeautifulSoup) -> None:
    for name in PLOTS:
        place = soup.find(id=f"explorer-plot-{name}")
        assert place["role"] == "img"
        assert place["aria-label"]


def test_data_are_whole(explorer: Explorer, soup: BeautifulSoup) -> None:
    data = json.loads(soup.find(id="explorer-model").string)
    assert {key: data[key] for key in explorer.model()} == explorer.model()
    assert data["look"]["xlstm"]["symbol"] == "circle"
    assert soup.find(id="explorer-optimal").has_attr("checked")


def test_links() -> None:
    shown = setting_links([(Setting(), "One & two", "a < b")])._repr_html_()
    assert 'data-setting="budget=1e21&amp;context=8192&amp;ratio=22&amp;batch=8&amp;hardware=h100-sxm"' in shown
    assert "One &amp; two</a>: a &lt; b" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0083, "8.30 ms"), (0.99999, "1.00 s"), (0.999, "999 ms"), (2.5, "2.50 s"), (4320, "1.20 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_between() -> None:
    assert between("21.3 ms", "31.0 ms") == "21.3 to 31.0 ms"
    assert between("939 ms", "1.05 s") == "939 ms to 1.05 s"
    assert between("2.19B", "3.03B") == "2.19B to 3.03B"
