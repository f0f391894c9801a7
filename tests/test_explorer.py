"""The explorer's numbers against direct calls of the package, its data for the page, its settings."""

import itertools
import json
import math
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from foreign import table
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.accounting.inference import count_prefill, count_step
from companion.errors import InputError, NotApplicable
from companion.explorer import CONTROLS, OPTIMAL, Control, Explorer, Setting, link_value
from companion.fitting.fit import fit
from companion.hardware import get_hardware, known_hardware
from companion.inference.runtime_model import paper_runtime_model
from companion.laws import LossSurface, optimum
from companion.runs.load import load_paper_runs, load_runs
from companion.runs.select import subset
from companion.runs.shape_family import FamilyScale, paper_family

ARCHITECTURES = ("transformer", "xlstm")
_QUANTITIES: Any = ("ttft", "step_time")


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer.of(num_resamples=40)


def settings_of_sliders() -> st.SearchStrategy[Setting]:
    """Any stop of every slider, compute-optimal M among them."""
    chosen = {control.name: st.sampled_from(control.steps) for control in CONTROLS}
    for name in ("context_length", "batch_size"):
        chosen[name] = chosen[name].map(int)
    chosen["tokens_per_param"] = st.none() | chosen["tokens_per_param"]
    return st.builds(Setting, **chosen, hardware=st.sampled_from(sorted(known_hardware())))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "setting",
    [
        Setting(),
        Setting(train_flops=6e22, context_length=65536, tokens_per_param=220.0, batch_size=64, hardware="l40s"),
        Setting(train_flops=3e19, context_length=2048, tokens_per_param=None, batch_size=1, hardware="mi300x"),
    ],
)
def test_numbers_are_those_of_the_package(explorer: Explorer, architecture: str, setting: Setting) -> None:
    law = fit(LossSurface, subset(load_paper_runs(), architecture=architecture, context_length=8192)).law
    scale = FamilyScale(family=paper_family(architecture), context_length=setting.context_length)
    best = optimum(law, scale, setting.train_flops)
    if setting.tokens_per_param is None:
        size, tokens = float(best.num_params[0]), float(best.num_tokens[0])
    else:
        size = float(scale.num_params(setting.train_flops, setting.tokens_per_param))
        tokens = setting.tokens_per_param * size
    width = scale.family.width_of(float(best.num_params[0]))
    shapes = paper_family(architecture).at(size)
    place = (shapes, setting.context_length, setting.batch_size)
    prefill, step = count_prefill(*place), count_step(*place)
    times = {q: float(paper_runtime_model(architecture, q).predict(*place, setting.hardware)) for q in _QUANTITIES}
    result = explorer.evaluate(setting)[architecture]
    expected = {
        "num_params": size,
        "num_tokens": tokens,
        "tokens_per_param": tokens / size,
        "loss": law.predict(size, tokens),
        "excess_loss": law.predict(size, tokens) - best.loss[0],
        "optimal_num_params": best.num_params[0],
        "optimal_num_tokens": best.num_tokens[0],
        "optimal_tokens_per_param": best.tokens_per_param[0],
        "optimal_loss": best.loss[0],
        "optimal_flops_per_token": float(scale.family.flops_per_token(width, setting.context_length)),
        "ttft_s": times["ttft"],
        "step_time_s": times["step_time"],
        "ttft_roofline_s": prefill.roofline(setting.hardware).seconds,
        "step_time_roofline_s": step.roofline(setting.hardware).seconds,
        "memory_bytes": max(prefill.memory.total, step.memory.total),
        "weight_bytes": step.memory.weights,
        "cache_bytes": prefill.memory.cache,
    }
    of_hours = {name for name in result["numbers"] if name.startswith("target_")} | {"utilization", "train_gpu_hours"}
    assert result["numbers"].keys() == expected.keys() | of_hours, "test_explorer_hours.py has the rest"
    assert {name: result["numbers"][name] for name in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert result["fits"] == (expected["memory_bytes"] <= get_hardware(setting.hardware).memory_bytes)
    # the budget is spent
    assert scale.train_flops(size, tokens / size) == pytest.approx(setting.train_flops, rel=1e-9)


@lru_cache(maxsize=1)
def _small() -> Explorer:
    return Explorer.of(num_resamples=8)


@settings(max_examples=15)
@given(settings_of_sliders())
def test_every_setting_has_its_numbers(setting: Setting) -> None:
    explorer = _small()
    for result in explorer.evaluate(setting).values():
        numbers, bounds = result["numbers"], result["intervals"]
        assert {name for name, value in numbers.items() if value is None} == result["missing"].keys()
        numbers = {name: value for name, value in numbers.items() if value is not None}
        assert all(math.isfinite(value) and value > 0 for name, value in numbers.items() if name != "excess_loss")
        assert numbers["excess_loss"] >= 0
        assert all(low <= high and math.isfinite(high - low) for low, high in bounds.values())
        assert numbers["optimal_loss"] <= numbers["loss"] * (1 + 1e-12)
        assert numbers["memory_bytes"] > numbers["weight_bytes"]
        for left in result["outside"]:
            assert not left["low"] <= left["value"] <= left["high"]


@pytest.mark.parametrize("quantity", _QUANTITIES)
def test_leaving_the_data_is_told_as_the_runtime_model_tells_it(quantity: Any) -> None:
    for context, batch, flops in itertools.product((256, 8192, 16384, 32768), (1, 64, 1024), (1e19, 1e23)):
        setting = Setting(train_flops=flops, context_length=context, batch_size=batch)
        for name, result in _small().evaluate(setting).items():
            size = result["numbers"]["num_params"]
            told = paper_runtime_model(name, quantity).outside(size, context, batch)
            found = [left for left in result["outside"] if left["of"] == quantity]
            assert len(found) == len(told), (setting, told, found)


def test_inside_and_outside_of_the_runs(explorer: Explorer) -> None:
    assert not any(result["outside"] for result in explorer.evaluate(Setting(train_flops=6e20)).values())
    for result in explorer.evaluate(Setting(train_flops=1e25)).values():
        named = {(left["of"], left["name"]) for left in result["outside"]}
        assert {("loss", "train_flops"), ("loss", "num_params"), ("optimum", "num_params")} <= named
    for result in explorer.evaluate(Setting(context_length=32768)).values():
        assert ("loss", "context_length") in {(left["of"], left["name"]) for left in result["outside"]}


def test_times_that_cannot_be_are_told(explorer: Explorer) -> None:
    far = explorer.evaluate(Setting(train_flops=1e25, context_length=2**20, tokens_per_param=2.0, batch_size=32))
    assert far["transformer"]["below_roofline"] == ["step_time"]
    assert {left["of"] for left in far["transformer"]["outside"]} >= {"step_time"}
    assert not any(result["below_roofline"] for result in explorer.evaluate(Setting()).values())


def test_interval_of_the_loss_is_that_of_the_bootstrap(explorer: Explorer) -> None:
    result = explorer.evaluate(Setting())["xlstm"]
    low, high = explorer.known["xlstm"].bootstrap.confidence_band(
        result["numbers"]["num_params"], result["numbers"]["num_tokens"]
    )
    assert result["intervals"]["loss"] == pytest.approx([low[0], high[0]], rel=1e-12)


def test_model_is_plain_and_finite(explorer: Explorer) -> None:
    model = explorer.model()
    assert json.loads(json.dumps(model, allow_nan=False)) == model
    assert [one["name"] for one in model["architectures"]] == list(ARCHITECTURES)
    for one in model["architectures"]:
        assert {len(values) for values in one["laws"].values()} == {40}
        for quantity in _QUANTITIES:
            runtime = one[quantity]
            assert np.shape(runtime["resamples"]) == (40, len(runtime["terms"]))
            assert len(runtime["scatter"]) == 40
    for control, data in zip(CONTROLS, model["controls"], strict=True):
        assert [step["value"] for step in data["steps"]] == sorted(control.steps)
        assert model["default"][control.name] in control.steps


def test_default_moves_to_the_nearest_steps() -> None:
    wanted = Setting(train_flops=2.3e20, context_length=3000, tokens_per_param=25.0, batch_size=7)
    assert Explorer(known={}, default=wanted).default == wanted
    moved = Explorer.of(default=wanted, num_resamples=2).default
    assert moved == Setting(train_flops=2e20, context_length=4096, tokens_per_param=22.0, batch_size=8)
    assert isinstance(moved.context_length, int)


def test_one_architecture() -> None:
    runs = load_paper_runs()
    one = Explorer.of(runs[runs["architecture"] == "xlstm"], num_resamples=2)
    assert list(one.evaluate()) == ["xlstm"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_flops": 1e30}, "train_flops 1e+30 is not a number from 1e+18 to 1e+25"),
        ({"train_flops": math.nan}, "train_flops nan is not"),
        ({"context_length": 32}, "context_length 32 is not a number from 256"),
        ({"context_length": 1000.5}, "context_length 1000.5 is not a whole number"),
        ({"batch_size": 0}, "batch_size 0 is not"),
        ({"batch_size": "8"}, "batch_size '8' is not"),
        ({"batch_size": None}, "batch_size None is not"),
        ({"tokens_per_param": -1.0}, "tokens_per_param -1.0 is not"),
        ({"hardware": "abacus"}, "hardware 'abacus' is not known; there are a100-sxm"),
    ],
)
def test_bad_setting(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        Setting(**values)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_link() -> None:
    assert Setting().link == "budget=1e21&context=8192&ratio=22&batch=8&hardware=h100-sxm"
    assert "ratio=optimal" in Setting(tokens_per_param=None).link
    assert link_value(2.0**20) == "1048576"
    assert link_value(None) == OPTIMAL
    for control in CONTROLS:
        assert [float(link_value(step)) for step in control.steps] == list(control.steps)


def test_controls() -> None:
    for control in CONTROLS:
        assert list(control.steps) == sorted(set(control.steps))
        assert control.nearest(control.steps[2] * 1.01) == control.steps[2]
        assert len({control.text(step) for step in control.steps}) == len(control.steps)
    by_name: dict[str, Control] = {control.name: control for control in CONTROLS}
    assert by_name["train_flops"].text(6e20) == "6×10²⁰ FLOP"
    assert by_name["context_length"].text(1048576.0) == "1,048,576 tokens"
    assert by_name["batch_size"].text(1.0) == "1 sequence"
    assert by_name["tokens_per_param"].text(2200.0) == "2,200"
    assert set(asdict(Setting())) == {*by_name, "hardware"}
    # what the paper trained is on the sliders
    assert {6e18, 1e19, 3e19, 1e20, 6e20} <= set(by_name["train_flops"].steps)
    assert {22, 44, 110, 220, 550, 1100, 2200} <= set(by_name["tokens_per_param"].steps)


def test_a_table_of_another_context_opens_there() -> None:
    own = Explorer.of(load_runs(table("context_2048")), num_resamples=20)
    assert own.default.context_length == 2048
    assert own.model()["law_context"] == own.model()["architectures"][0]["law_context"] == 2048
    assert ("open", "xlstm: context_length 2048: the only one of context_2048.csv") in own.notes
    asked = Explorer.of(load_runs(table("context_2048")), default=Setting(), num_resamples=2)
    assert asked.default.context_length == 8192
    unknown = Explorer.of(load_runs(table("xlstm_alone")), num_resamples=20).model()
    assert (unknown["law_context"], unknown["default"]["context_length"]) == (None, 8192)
    json.dumps(unknown, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two_sizes", "not identified"),
        ("one_ratio", "not identified"),
        ("two_other_architectures", "gpt, mamba2: two_other_architectures.csv"),
        ("nominal_budget", "no intervals: "),
    ],
)
def test_tables_that_the_page_cannot_show(name: str, words: str) -> None:
    with pytest.raises(NotApplicable) as raised:
        Explorer.of(load_runs(table(name)), num_resamples=20)
    assert words in str(raised.value)


def test_an_architecture_without_a_law_is_left_out_by_name() -> None:
    runs = load_runs(table("xlstm_alone"))
    few = runs.head(5).assign(architecture="transformer")
    page = Explorer.of(pd.concat([runs, few, runs.assign(architecture="gpt")]), num_resamples=20)
    assert list(page.evaluate()) == ["xlstm"]
    assert set(page.left_out) == {"transformer", "gpt"}
    told = [text for kind, text in page.notes if kind == "bad"]
    assert any(text.startswith("transformer: ") and "5 runs for 6 free parameters" in text for text in told)
    assert page.model()["notes"] == page.notes
    assert Explorer.of(num_resamples=2).notes == [], "the paper's tables need none"
