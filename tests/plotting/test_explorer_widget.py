"""Small explorers as markup: labeled sliders, their data, the table without scripts; what does not apply is refused."""

import base64
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from bs4 import BeautifulSoup
from foreign import table

from companion.errors import NotApplicable
from companion.explorer import Explorer, Setting, training_model
from companion.planner import learn
from companion.plotting.explorer_page import FORMATS
from companion.plotting.explorer_widget import WIDGETS, explorer_widget
from companion.runs import load_runs


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer.of(num_resamples=200)  # as many as the pages have: it is about their size


def soup_of(name: str, explorer: Explorer, **opening: float | None) -> BeautifulSoup:
    return BeautifulSoup(explorer_widget(name, explorer, **opening).markup, "html.parser")


@pytest.mark.parametrize("name", WIDGETS)
def test_sliders_are_labeled_and_open_at_the_setting(name: str, explorer: Explorer) -> None:
    soup = soup_of(name, explorer, train_flops=2.1e20)
    data = json.loads(soup.find("script", type="application/json").string)
    assert len(soup.select("input")) == 2
    for control in data["controls"]:
        slider = soup.find(id=f"explorer-{name}-{control['key']}")
        step = control["steps"][int(slider["value"])]
        assert step["value"] == data["default"][control["name"]]
        assert slider["aria-valuetext"] == step["text"] == soup.find("output", attrs={"for": slider["id"]}).get_text()
        assert soup.find("label", attrs={"for": slider["id"]}).get_text()
    assert data["default"]["train_flops"] == 2e20
    assert "&".join(f"{key}={value}" for key, value in data["link"].items()) == Setting(**data["default"]).link
    assert soup.select_one(".companion-widget-live").has_attr("hidden"), "shown by the script"


@pytest.mark.parametrize("name", WIDGETS)
def test_it_is_small(name: str, explorer: Explorer) -> None:
    assert len(explorer_widget(name, explorer).markup.encode()) < 30_000


@pytest.mark.parametrize("name", WIDGETS)
def test_without_scripts_some_settings_are_a_table(name: str, explorer: Explorer) -> None:
    widget = WIDGETS[name]
    soup = soup_of(name, explorer)
    opened = json.loads(soup.find("script", type="application/json").string)["default"]
    rows = soup.select(".companion-widget-still tbody tr")
    assert len(rows) == len(widget.still) * 2
    last = opened | {widget.controls[0]: widget.still[-1]}
    for row, one in zip(rows[-2:], explorer.evaluate(Setting(**last)).values(), strict=True):
        text = row.get_text(" ")
        for each in widget.rows:
            assert FORMATS[each.format](one["numbers"][each.key]) in text
    assert {row.select("td")[-1].get_text() for row in rows} == {"inside", "outside"}, "at the ends beyond the runs"


def test_data_are_those_of_the_page_without_serving(explorer: Explorer) -> None:
    model, small = explorer.model(), training_model(explorer, explorer.default, ("train_flops",))
    assert json.loads(json.dumps(small, allow_nan=False)) == small
    assert small["default"] == asdict(explorer.default)
    assert [control["name"] for control in small["controls"]] == ["train_flops"]
    for one, whole in zip(small["architectures"], model["architectures"], strict=True):
        assert one["law"] == whole["law"]
        assert "step_time" not in one
        packed = np.frombuffer(base64.b64decode(one["laws"]["samples"]), dtype="<f4").reshape(200, -1)
        laws = dict(zip(one["laws"]["names"], packed.T, strict=True))
        for name, values in whole["laws"].items():
            np.testing.assert_allclose(laws[name], values, rtol=1e-7)


def test_gpu_hours_are_in_the_widget_of_the_budget_alone(explorer: Explorer) -> None:
    for name in WIDGETS:
        soup = soup_of(name, explorer)
        data = json.loads(soup.find("script", type="application/json").string)
        hours = name == "budget"
        assert [entry["name"] for entry in data["hardware"]] == ["h100-sxm"] * hours
        for one in data["architectures"]:
            assert ("utilization" in one) == hours
        assert ("11_training_cost.html" in str(soup.select_one(".companion-widget-more"))) == hours
    bare = {name: replace(each, utilization=None, unlogged="none") for name, each in explorer.known.items()}
    soup = soup_of("budget", replace(explorer, known=bare))
    assert {row.select("td")[-2].get_text() for row in soup.select(".companion-widget-still tbody tr")} == {"–"}


def test_loss_above_the_optimum(explorer: Explorer) -> None:
    for one in explorer.evaluate(Setting(tokens_per_param=220.0)).values():
        numbers, bounds = one["numbers"], one["intervals"]["excess_loss"]
        assert numbers["excess_loss"] == pytest.approx(numbers["loss"] - numbers["optimal_loss"], abs=1e-12)
        assert 0 < bounds[0] < numbers["excess_loss"] < bounds[1]
    best = explorer.evaluate(Setting(tokens_per_param=None))
    assert [one["numbers"]["excess_loss"] for one in best.values()] == [0.0, 0.0]


def test_opening_values_of_none_leave_the_default(explorer: Explorer) -> None:
    same = explorer_widget("context", explorer, train_flops=None, context_length=None).markup
    assert same == explorer_widget("context", explorer).markup


def test_one_architecture_is_enough_and_an_unknown_one_is_not() -> None:
    alone = Explorer.of(load_runs(table("xlstm_alone")), num_resamples=20)
    soup = soup_of("budget", alone)
    assert len(soup.select(".companion-widget-numbers thead th")) == 1
    assert len(soup.select(".companion-widget-still tbody tr")) == len(WIDGETS["budget"].still)
    with pytest.raises(NotApplicable, match="gpt"):
        Explorer.of(load_runs(table("two_other_architectures")), num_resamples=2)


def test_what_a_plan_has_learned_is_enough() -> None:
    known = learn(num_resamples=4)
    assert Explorer.of_known(known).evaluate() == Explorer.of(num_resamples=4).evaluate()
