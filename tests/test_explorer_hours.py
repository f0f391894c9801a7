"""GPU-hours of the explorer: by hand, against the laws and the logs, outside of both, and without any."""

import itertools
import json
import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_logs import flat, with_curves, with_floor
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.explorer import CONTROLS, Explorer, Setting
from companion.explorer.hours import gpu_hours, scatter
from companion.fitting.bootstrap import percentile_interval
from companion.hardware import get_hardware, known_hardware
from companion.laws import optimum
from companion.runs.shape_family import FamilyScale
from companion.training import load_training_logs

HOURS = ("train_gpu_hours", "target_gpu_hours")


@lru_cache(maxsize=1)
def known() -> Explorer:
    return Explorer.of(num_resamples=40)


def left_of(result: dict[str, Any], of: str) -> set[str]:
    return {entry["name"] for entry in result["outside"] if entry["of"] == of}


def test_by_hand() -> None:
    own = with_curves(known(), transformer=(flat(0.4, 4096, 0.1), flat(0.1, 16384, 0.1)), xlstm=(flat(0.25, 8192),))
    result = own.evaluate(Setting(train_flops=1e21, context_length=8192))
    # 8192 is half way between 4096 and 16384 on a logarithmic scale: sqrt(0.4 · 0.1) = 0.2 of 989.5e12 FLOP/s
    one = result["transformer"]
    assert one["numbers"]["utilization"] == pytest.approx(0.2)
    assert one["numbers"]["train_gpu_hours"] == pytest.approx(1e21 / (0.2 * 989.5e12) / 3600)
    assert one["numbers"]["train_gpu_hours"] == pytest.approx(1403.6, rel=1e-4)
    # 1.96 standard deviations of 0.1, mixed in equal parts
    assert one["intervals"]["utilization"] == pytest.approx([0.2 * math.exp(-0.196), 0.2 * math.exp(0.196)], rel=1e-4)
    hours = one["numbers"]["train_gpu_hours"]
    assert one["intervals"]["train_gpu_hours"] == pytest.approx(
        [hours * math.exp(-0.196), hours * math.exp(0.196)], rel=1e-4
    )
    assert result["xlstm"]["numbers"]["train_gpu_hours"] == pytest.approx(1e21 / (0.25 * 989.5e12) / 3600)
    assert result["xlstm"]["intervals"]["utilization"] == pytest.approx([0.25, 0.25])
    ratio = result["xlstm"]["numbers"]["target_train_flops"] / result["transformer"]["numbers"]["target_train_flops"]
    assert result["xlstm"]["numbers"]["target_gpu_hours_ratio"] == pytest.approx(ratio * 0.2 / 0.25)


@pytest.mark.parametrize(
    "setting",
    [
        Setting(),
        Setting(train_flops=6e19, context_length=16384, tokens_per_param=550.0, hardware="a100-sxm"),
        Setting(train_flops=1e22, context_length=3000, tokens_per_param=None),
    ],
)
def test_the_target_is_the_loss_of_the_first_at_its_least_compute(setting: Setting) -> None:
    result = known().evaluate(setting)
    loss = result["transformer"]["numbers"]["loss"]
    for name, one in result.items():
        numbers, knowledge = one["numbers"], known().known[name]
        scale = FamilyScale(family=knowledge.family, context_length=setting.context_length)
        best = optimum(knowledge.fit.law, scale, numbers["target_train_flops"])
        assert numbers["target_loss"] == loss == pytest.approx(float(best.loss[0]), rel=1e-9)
        assert numbers["target_num_params"] == pytest.approx(float(best.num_params[0]), rel=1e-6)
        assert knowledge.utilization is not None
        share = knowledge.utilization.at(name, numbers["target_num_params"], setting.context_length).value
        assert numbers["target_gpu_hours"] == pytest.approx(
            float(gpu_hours(numbers["target_train_flops"], share, setting.hardware))
        )
    first = result["transformer"]["numbers"]
    assert first["target_train_flops"] <= setting.train_flops * (1 + 1e-9)
    if setting.tokens_per_param is None:
        assert first["target_gpu_hours"] == pytest.approx(first["train_gpu_hours"])
    assert first["target_gpu_hours_ratio"] == 1
    assert "target_gpu_hours_ratio" not in result["transformer"]["intervals"]
    low, high = result["xlstm"]["intervals"]["target_gpu_hours_ratio"]
    assert low < result["xlstm"]["numbers"]["target_gpu_hours_ratio"] < high


def test_scatter_alone_gives_the_interval_of_the_logs() -> None:
    """Where all resampled laws are one, an interval of GPU-hours is that of a further run."""
    own, name = known(), "transformer"
    knowledge = own.known[name]
    theta = np.repeat(np.asarray(knowledge.fit.theta)[None], 4000, axis=0)
    same = replace(knowledge, bootstrap=replace(knowledge.bootstrap, theta=theta))
    one = replace(own, known={name: same}).evaluate(Setting(tokens_per_param=None))[name]
    assert one["intervals"]["target_gpu_hours"] == pytest.approx(one["intervals"]["train_gpu_hours"], rel=2e-3)
    drawn = [scatter(same, index, 0.95) for index in range(2)]
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.05, "architectures have their own order"
    np.testing.assert_array_equal(np.sort(drawn[0]), np.sort(drawn[1]))
    assert percentile_interval(drawn[0]) == pytest.approx((-1, 1), abs=2e-3)


def settings_of_sliders() -> st.SearchStrategy[Setting]:
    chosen: dict[str, Any] = {control.name: st.sampled_from(control.steps) for control in CONTROLS}
    chosen |= {name: chosen[name].map(int) for name in ("context_length", "batch_size")}
    chosen["tokens_per_param"] = st.none() | chosen["tokens_per_param"]
    return st.builds(Setting, **chosen, hardware=st.sampled_from(sorted(known_hardware())))


@settings(max_examples=15)
@given(settings_of_sliders())
def test_any_setting(setting: Setting) -> None:
    result = known().evaluate(setting)
    reference = known().evaluate(replace(setting, hardware="h100-sxm"))
    slower = get_hardware("h100-sxm").peak_flops_per_s / get_hardware(setting.hardware).peak_flops_per_s
    for name, one in result.items():
        numbers, bounds = one["numbers"], one["intervals"]
        assert 0 < numbers["utilization"] < 1
        for key in ("utilization", "train_gpu_hours"):
            low, high = bounds[key]
            assert low < numbers[key] < high
        for key in HOURS:
            assert numbers[key] is None or 0 < numbers[key] < math.inf
            if numbers[key] is not None:
                assert numbers[key] == pytest.approx(reference[name]["numbers"][key] * slower)
        assert numbers["utilization"] == reference[name]["numbers"]["utilization"]
        assert ("hardware" in left_of(one, "utilization")) == (setting.hardware != "h100-sxm")


@pytest.mark.parametrize(
    ("changed", "outside"),
    [
        ({}, set()),
        ({"context_length": 2048}, {"logged_context"}),
        ({"context_length": 32768}, {"logged_context"}),
        ({"context_length": 12000}, set()),
        ({"train_flops": 1e19}, {"logged_params"}),
        ({"train_flops": 1e23, "context_length": 65536}, {"logged_params", "logged_context"}),
        ({"hardware": "h100-pcie"}, {"hardware"}),
    ],
)
def test_outside_of_the_logs(changed: dict[str, Any], outside: set[str]) -> None:
    own = known().known["xlstm"].utilization
    assert own is not None
    assert own.context_lengths("xlstm") == (8192, 16384)
    setting = replace(Setting(train_flops=3e20), **changed)
    one = known().evaluate(setting)["xlstm"]
    assert left_of(one, "utilization") == outside
    for entry in one["outside"]:
        if (entry["of"], entry["name"]) == ("utilization", "logged_context"):
            assert (entry["low"], entry["high"]) == (8192, 16384)
    told = own.at("xlstm", one["numbers"]["num_params"], setting.context_length).outside
    assert bool(told) == bool(outside - {"hardware"})


def test_a_ratio_is_outside_where_one_of_its_two_is() -> None:
    # the opening Transformer is larger than any log at its context, the xLSTM that reaches its loss is not
    result = known().evaluate()
    assert left_of(result["transformer"], "target_logs") == {"logged_params"}
    assert not left_of(result["xlstm"], "target_logs")
    assert left_of(result["xlstm"], "ratio") == {"logged_params"}
    assert not left_of(result["transformer"], "ratio"), "1 whatever the logs say"


@pytest.mark.parametrize(("logged", "other"), [("transformer", "xlstm"), ("xlstm", "transformer")])
def test_an_architecture_without_logs(logged: str, other: str) -> None:
    logs = load_training_logs()
    page = Explorer.of(logs=logs[logs["architecture"] == logged], num_resamples=2)
    result = page.evaluate()
    assert result[logged]["numbers"] == {
        **known().evaluate()[logged]["numbers"],
        "target_gpu_hours_ratio": 1.0 if logged == "transformer" else None,
    }
    missing = result[other]["missing"]
    assert missing == dict.fromkeys(("utilization", *HOURS, "target_gpu_hours_ratio"), "no logs")
    assert all(result[other]["numbers"][name] is None for name in missing)
    assert result[other]["numbers"]["target_train_flops"] > 0, "compute needs no logs"
    reason = f"training_logs.csv has too few finished runs of {other}; it has enough of {logged}"
    assert page.notes == [("open", f"{other}: no GPU-hours: {reason}")]
    json.dumps(page.model(), allow_nan=False)


def test_logs_that_say_too_little_leave_the_page_without_hours() -> None:
    page = Explorer.of(logs=load_training_logs().head(5), num_resamples=2)
    assert {name for one in page.evaluate().values() for name in one["missing"]} >= set(HOURS)
    ((kind, text),) = page.notes
    assert (kind, text.split(": ")[:3]) == ("open", ["transformer, xlstm", "no GPU-hours", "training_logs.csv"])


def test_logs_of_other_hardware() -> None:
    logs: pd.DataFrame = load_training_logs()
    page = Explorer.of(logs=logs, logs_hardware="mi300x", default=Setting(hardware="mi300x"), num_resamples=2)
    assert page.model()["logs_hardware"] == "mi300x"
    for name, one in page.evaluate().items():
        own = known().evaluate()[name]["numbers"]
        assert one["numbers"]["train_gpu_hours"] == pytest.approx(own["train_gpu_hours"]), (
            "the same runs, the same time"
        )
        assert one["numbers"]["utilization"] == pytest.approx(own["utilization"] * 9.895e14 / 1.3074e15)
        assert "hardware" not in left_of(one, "utilization")


def test_a_loss_below_the_floor_of_a_law() -> None:
    own = with_floor(known(), "xlstm", 3.0)
    one = own.evaluate()["xlstm"]
    names = ("target_num_params", "target_train_flops", "target_gpu_hours", "target_gpu_hours_ratio")
    assert one["missing"] == dict.fromkeys(names, "not reached")
    assert all(one["numbers"][name] is None and name not in one["intervals"] for name in names)
    assert not left_of(one, "target")
    assert one["numbers"]["train_gpu_hours"] > 0


def test_resampled_laws_that_never_get_there_widen_the_interval_or_end_it() -> None:
    def interval(lost: int) -> list[float] | None:
        one = with_floor(known(), "xlstm", 3.0, slice(lost)).evaluate()["xlstm"]
        assert one["numbers"]["target_gpu_hours"] == known().evaluate()["xlstm"]["numbers"]["target_gpu_hours"]
        return one["intervals"].get("target_gpu_hours")

    whole, some = interval(0), interval(1)
    assert whole is not None
    assert some is not None
    assert some[1] - some[0] > 0.9 * (whole[1] - whole[0])
    assert interval(2) is None, "one in twenty is lost: the interval of 95 % has no end"


def test_data_of_the_script_are_those_of_the_logs() -> None:
    for index, (name, data) in enumerate(zip(known().known, known().model()["architectures"], strict=True)):
        knowledge = known().known[name]
        assert knowledge.utilization is not None
        assert len(data["utilization"]["scatter"]) == len(knowledge.bootstrap.laws)
        assert data["utilization"]["scatter"] == scatter(knowledge, index, 0.95).tolist()
        lengths = [curve["context_length"] for curve in data["utilization"]["curves"]]
        assert lengths == list(knowledge.utilization.context_lengths(name))
        assert all(low < high for low, high in itertools.pairwise(lengths))
