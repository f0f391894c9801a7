"""Plans: against brute force, against the laws they rest on, and on bad input."""

import json
import math
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.hardware import get_hardware
from companion.laws import optimum
from companion.planner.costs import (
    SEARCHED_WIDTHS,
    _serving_seconds,
    cheapest_in_total,
    coefficients_of,
    cost_curve,
    needed_bytes,
    numbers_of,
    probabilities_of,
    served_shapes,
)
from companion.planner.planning import COST_OPTIMAL, LOSS_OPTIMAL, Knowledge, PlannedModel, Request, learn, plan
from companion.planner.ranges import no_intervals, off_center
from companion.planner.utilization import training_seconds
from companion.runs.load import load_paper_runs
from companion.runs.shape_family import FamilyScale

REQUEST = Request(train_flops=1e21, prefill_tokens=1e12, generated_tokens=1e11)


@lru_cache
def known() -> dict[str, Knowledge]:
    return learn(num_resamples=40)


def models(request: Request, architecture: str) -> dict[str, PlannedModel]:
    planned = plan(request, {architecture: known()[architecture]})
    return {model.objective: model for model in planned.models}


@pytest.mark.parametrize("architecture", ["transformer", "xlstm"])
def test_the_loss_optimal_model_spends_the_budget_best(architecture: str) -> None:
    model = models(REQUEST, architecture)[LOSS_OPTIMAL]
    law, scale = known()[architecture].fit.law, FamilyScale(family=known()[architecture].family, context_length=8192)
    assert model.numbers["train_flops"] == pytest.approx(1e21, rel=1e-9)
    sizes = model.numbers["num_params"] * np.geomspace(0.5, 2, 201)
    width = scale.family.width_of(sizes)
    tokens = 1e21 / scale.family.flops_per_token(width, 8192)
    losses = law.predict(sizes, tokens)
    assert model.numbers["loss"] <= losses.min() * (1 + 1e-12)
    assert np.argmin(losses) == 100


@pytest.mark.parametrize("architecture", ["transformer", "xlstm"])
def test_the_cost_optimal_model_is_the_cheapest_of_its_loss(architecture: str) -> None:
    both = models(REQUEST, architecture)
    cheap, best = both[COST_OPTIMAL].numbers, both[LOSS_OPTIMAL].numbers
    assert cheap["loss"] == pytest.approx(best["loss"], rel=1e-9)
    law = known()[architecture].fit.law
    assert law.predict(cheap["num_params"], cheap["num_tokens"]) == pytest.approx(best["loss"], rel=1e-6)
    curve = cost_curve(REQUEST, known()[architecture], best["loss"], np.geomspace(300, 6000, 5000))
    least = curve.loc[curve["fits"], "total_gpu_hours"].min()
    assert cheap["total_gpu_hours"] == pytest.approx(least, rel=2e-3)
    assert cheap["total_gpu_hours"] < best["total_gpu_hours"]
    assert cheap["num_params"] < best["num_params"]
    assert cheap["train_gpu_hours"] > best["train_gpu_hours"]


@pytest.mark.parametrize(("timing", "resampled"), [("measured", False), ("measured", True), ("roofline", True)])
def test_no_width_beside_the_cheapest_costs_less(timing: Any, resampled: bool) -> None:
    """Where the cost is smooth, the width is that of the minimum, not that of a parabola through three widths."""
    request, knowledge = replace(REQUEST, train_flops=1e20, context_length=8192, timing=timing), known()["xlstm"]
    laws = knowledge.bootstrap.laws if resampled else knowledge.fit.law
    scale = FamilyScale(family=knowledge.family, context_length=8192)
    loss = np.full(len(laws), 2.8)
    found = cheapest_in_total(request, knowledge, scale, laws, loss, resampled)
    smooth = ~np.isin(found["d_model"], SEARCHED_WIDTHS)
    assert smooth.any()

    def hours(factor: float) -> Any:
        width = found["d_model"] * factor
        tokens = laws.tokens_for(loss, knowledge.family.num_params(width))
        rows = coefficients_of(request, knowledge, len(laws), resampled)
        serve = _serving_seconds(request, knowledge, served_shapes(request, knowledge, width), rows)
        chances = probabilities_of(len(laws), resampled)
        return (training_seconds(request, knowledge, scale, width, tokens, chances) + serve) / 3600

    for factor in (1 - 2e-5, 1 + 2e-5):
        assert (hours(factor)[smooth] > hours(1.0)[smooth]).all()


def test_costs_add_up_and_follow_their_units() -> None:
    numbers = models(replace(REQUEST, utilization=0.4), "xlstm")[LOSS_OPTIMAL].numbers
    peak = get_hardware("h100-sxm").peak_flops_per_s
    assert numbers["train_gpu_hours"] == pytest.approx(1e21 / (0.4 * peak) / 3600)
    assert numbers["total_gpu_hours"] == pytest.approx(numbers["train_gpu_hours"] + numbers["serve_gpu_hours"])
    prompts = 1e12 / REQUEST.prompt / 8 * numbers["ttft_s"]
    # the state of an xLSTM does not grow, so its step takes as long at any context
    steps = 1e11 / 8 * numbers["step_time_s"]
    assert numbers["serve_gpu_hours"] == pytest.approx((prompts + steps) / 3600)
    doubled = models(replace(REQUEST, utilization=0.4, prefill_tokens=2e12, generated_tokens=2e11), "xlstm")[
        LOSS_OPTIMAL
    ].numbers
    assert doubled["serve_gpu_hours"] == pytest.approx(2 * numbers["serve_gpu_hours"])
    priced = models(replace(REQUEST, utilization=0.4, price_per_gpu_hour=2.5), "xlstm")[LOSS_OPTIMAL].numbers
    assert priced["total_price"] == pytest.approx(2.5 * numbers["total_gpu_hours"])


def test_budgets_say_the_same_in_three_ways() -> None:
    by_flops = models(Request(train_flops=1e21), "transformer")[LOSS_OPTIMAL].numbers
    hours = by_flops["train_gpu_hours"]
    by_hours = models(Request(gpu_hours=hours), "transformer")[LOSS_OPTIMAL].numbers
    by_loss = models(Request(target_loss=by_flops["loss"]), "transformer")[LOSS_OPTIMAL].numbers
    for name in ("num_params", "num_tokens", "loss", "train_flops"):
        assert by_hours[name] == pytest.approx(by_flops[name], rel=1e-9)
        assert by_loss[name] == pytest.approx(by_flops[name], rel=1e-6)
    assert set(models(Request(train_flops=1e21), "transformer")) == {LOSS_OPTIMAL}, "nothing is served"


def test_intervals_hold_their_number() -> None:
    for architecture in ("transformer", "xlstm"):
        for model in models(REQUEST, architecture).values():
            for name, value in model.numbers.items():
                low, high = model.intervals[name]
                assert low <= value * (1 + 1e-9), name
                assert high >= value * (1 - 1e-9), name
            low, high = model.intervals["num_params"]
            assert 1.05 < high / low < 3


@settings(max_examples=15)
@given(st.floats(1e10, 1e14), st.floats(1.5, 30))
def test_more_traffic_never_makes_the_model_larger(served: float, factor: float) -> None:
    one, two = (
        models(replace(REQUEST, prefill_tokens=tokens, generated_tokens=tokens / 10), "xlstm")[COST_OPTIMAL].numbers
        for tokens in (served, served * factor)
    )
    assert two["num_params"] <= one["num_params"] * (1 + 1e-2)
    assert two["total_gpu_hours"] > one["total_gpu_hours"]


def test_grouped_heads_shrink_the_cache_only() -> None:
    grouped = replace(REQUEST, kv_groups=8, timing="roofline")
    plain = replace(grouped, kv_groups=1)
    one, two = (models(request, "transformer")[LOSS_OPTIMAL].numbers for request in (grouped, plain))
    assert one["num_params"] == two["num_params"]
    assert one["memory_bytes"] < 0.6 * two["memory_bytes"]
    assert one["step_time_roofline_s"] < two["step_time_roofline_s"]
    assert one["step_time_s"] == one["step_time_roofline_s"]
    xlstm = [models(request, "xlstm")[LOSS_OPTIMAL].numbers for request in (grouped, plain)]
    assert xlstm[0] == xlstm[1]


def test_what_does_not_fit_says_so_and_what_it_needs() -> None:
    large = Request(train_flops=1e23, prefill_tokens=1e12, batch_size=64, hardware="rtx-4090")
    planned = plan(large, known())
    assert all(not model.fits for model in planned.models)
    needed = planned.models[0].numbers["memory_bytes"] / 2**30
    assert f"does not fit, needs {needed:.1f} GiB" in planned.models[0].fit_message
    assert any("no size that reaches the loss fits" in note and "GiB" in note for note in planned.notes)
    fitting = models(replace(large, hardware="h200-sxm", train_flops=1e20), "transformer")[COST_OPTIMAL]
    assert fitting.fits
    shapes = served_shapes(REQUEST, known()["xlstm"], SEARCHED_WIDTHS)
    assert (np.diff(needed_bytes(REQUEST, shapes)) > 0).all()


def warned(request: Request, architecture: str = "xlstm") -> str:
    return " ".join(models(request, architecture)[LOSS_OPTIMAL].warnings)


def test_warnings_say_what_leaves_the_data() -> None:
    assert warned(Request(train_flops=1e20)) == ""
    assert "num_params" in warned(Request(train_flops=1e24))
    assert "train_flops" in warned(Request(train_flops=1e24))
    assert "context_length: 131072 is outside the trained 2048 to 16384" in warned(
        Request(train_flops=1e20, context_length=131072)
    )
    assert "the law is that of T = 8192" in warned(Request(train_flops=1e20, context_length=4096))
    assert "batch_size 2048" in warned(Request(train_flops=1e20, batch_size=2048)).replace(",", "")
    assert "NVIDIA H200 SXM" in warned(Request(train_flops=1e20, hardware="h200-sxm"))


def test_a_plan_is_plain_json() -> None:
    planned = plan(REQUEST, known())
    text = json.dumps([model.as_dict() for model in planned.models], allow_nan=False)
    first = json.loads(text)[0]
    assert first["architecture"] == "transformer"
    assert first["intervals"]["loss"][0] < first["loss"] < first["intervals"]["loss"][1]
    assert first["model"]["d_model"] % first["model"]["n_heads"] == 0
    table = planned.table()
    assert len(table) == 4
    assert (table["loss_low"] < table["loss"]).all()


def test_a_law_of_ones_own_runs() -> None:
    runs = load_paper_runs()
    columns = ["architecture", "num_params", "num_tokens", "train_flops", "val_loss"]
    own = runs.loc[(runs["architecture"] == "xlstm") & (runs["context_length"] == 8192), columns]
    learned = learn(own, None, ["xlstm"], num_resamples=10)
    [model] = plan(Request(train_flops=1e21), learned).models
    assert model.numbers["num_params"] == pytest.approx(
        models(Request(train_flops=1e21), "xlstm")[LOSS_OPTIMAL].numbers["num_params"], rel=1e-6
    )
    laws = learned["xlstm"].bootstrap.laws
    scale = FamilyScale(family=learned["xlstm"].family, context_length=8192)
    assert np.isfinite(optimum(laws, scale, 1e21).num_params).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give one of train_flops, gpu_hours, target_loss; given: none"),
        ({"train_flops": 1e21, "gpu_hours": 5}, "given: train_flops, gpu_hours"),
        ({"train_flops": -1.0}, "train_flops -1.0 is not a positive number"),
        ({"train_flops": math.nan}, "train_flops nan"),
        ({"train_flops": 1e21, "batch_size": 0}, "batch_size: 0 is not a positive whole number"),
        ({"train_flops": 1e21, "batch_size": 2.5}, "batch_size: 2.5 is not a positive whole number"),
        ({"train_flops": 1e21, "context_length": 0}, "context_length 0 is not a positive whole number"),
        ({"train_flops": 1e21, "hardware": "abacus"}, "hardware 'abacus' is not known; there are a100-sxm"),
        ({"train_flops": 1e21, "utilization": 1.5}, "utilization 1.5 is not between 0 and 1"),
        (
            {"train_flops": 1e21, "prompt_length": 9000, "context_length": 8192},
            "prompt_length 9000 exceeds the context of 8192",
        ),
        ({"train_flops": 1e21, "prefill_tokens": -1.0}, "prefill_tokens -1.0 is not a number of at least 0"),
        ({"train_flops": 1e21, "timing": "guessed"}, "timing 'guessed' is not one of measured, roofline"),
        ({"train_flops": 1e21, "price_per_gpu_hour": 0.0}, "price_per_gpu_hour 0.0 is not a positive number"),
    ],
)
def test_a_request_that_cannot_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as raised:
        Request(**arguments)
    assert words in str(raised.value)


def test_plans_that_cannot_be_made() -> None:
    with pytest.raises(InputError, match=r"xlstm: context_length 32 is shorter than one chunk of 64 tokens"):
        plan(Request(train_flops=1e21, context_length=32), {"xlstm": known()["xlstm"]})
    with pytest.raises(InputError, match=r"xlstm: prompt_length 10 is shorter than one chunk"):
        plan(Request(train_flops=1e21, prompt_length=10), {"xlstm": known()["xlstm"]})
    with pytest.raises(InputError, match=r"loss 1 is never reached, the law's floor E is 1\.\d+"):
        plan(Request(target_loss=1.0), known())
    partly = plan(Request(train_flops=1e21, context_length=32), known())
    assert [model.architecture for model in partly.models] == ["transformer"]
    assert partly.notes[0].startswith("xlstm: context_length 32")


def test_the_larger_pass_says_what_is_needed() -> None:
    request = Request(train_flops=1e23, prompt_length=2048, prefill_tokens=1e12, generated_tokens=1e11, batch_size=40)
    [model] = [
        m for m in plan(request, known()).models if m.architecture == "transformer" and m.objective == LOSS_OPTIMAL
    ]
    assert f"needs {model.numbers['memory_bytes'] / 2**30:.1f} GiB in a step" in model.fit_message


def test_laws_that_never_reach_the_loss_are_told() -> None:
    floors = known()["xlstm"].bootstrap.samples["E"]
    loss = float(np.quantile(floors, 0.8))
    planned = plan(Request(target_loss=loss), {"xlstm": known()["xlstm"]})
    [share] = [int(found[1]) for note in planned.notes if (found := re.search(r"(\d+) % of the resampled laws", note))]
    assert 20 <= share < 60, "a fifth has its floor above, and some more would need a model of no size"


def test_groups_of_heads_can_be_built() -> None:
    for groups in (8, 1000):
        model = models(replace(REQUEST, kv_groups=groups), "transformer")[LOSS_OPTIMAL]
        assert model.model.n_heads % model.model.n_kv_heads == 0
        assert model.model.n_kv_heads < model.model.n_heads
        one_head = 2 * model.model.n_layers * (model.model.d_qk + model.model.d_hv) * 8192 * 8
        assert model.numbers["memory_bytes"] > 2 * model.numbers["num_params"] * 0.8 + 0.5 * one_head


def test_cheap_models_of_high_losses_and_times_below_the_roofline() -> None:
    high = models(Request(target_loss=5.5, prefill_tokens=1e13, generated_tokens=1e12), "transformer")
    assert high[COST_OPTIMAL].numbers["total_gpu_hours"] <= high[LOSS_OPTIMAL].numbers["total_gpu_hours"]
    slow = models(replace(REQUEST, hardware="l40s"), "transformer")[COST_OPTIMAL]
    assert slow.numbers["step_time_s"] < slow.numbers["step_time_roofline_s"]
    assert any("below the roofline" in warning for warning in slow.warnings)


def test_the_seed_reaches_the_timings() -> None:
    one, two = (learn(architectures=["xlstm"], num_resamples=5, seed=seed)["xlstm"] for seed in (0, 1))
    assert not np.array_equal(one.ttft.resamples, two.ttft.resamples)
    assert not np.array_equal(one.bootstrap.theta, two.bootstrap.theta)


def test_a_table_without_contexts_has_a_law_of_no_context() -> None:
    runs = load_paper_runs().drop(columns="context_length")
    learned = learn(runs[runs["architecture"] == "xlstm"], None, ["xlstm"], num_resamples=5)
    [model] = plan(Request(train_flops=1e20, context_length=4096), learned).models
    assert not any("T = 8192" in warning for warning in model.warnings)


def test_resamples_too_few_for_an_interval_give_none() -> None:
    learned = learn(architectures=["xlstm"], num_resamples=1)
    one = learned["xlstm"]
    for model in plan(REQUEST, learned).models:
        assert all(math.isnan(low) and math.isnan(high) for low, high in model.intervals.values())
        assert "no intervals: 1 resample, at least 20 are needed at 95 %" in model.warnings
    scale = FamilyScale(family=one.family, context_length=8192)
    found = {"d_model": np.array([2048.0]), "num_tokens": np.array([1e10]), "loss": np.array([2.5])}
    values = numbers_of(REQUEST, one, scale, found, scattered=True)
    [seconds] = one.ttft.samples(one.family.shapes(2048.0), REQUEST.prompt, REQUEST.batch_size)
    assert values["ttft_s"][0] == pytest.approx(seconds, rel=1e-9), "its coefficients, its scatter"
    half = plan(REQUEST, learned, level=0.5).models[0].warnings
    assert any("at least 2 are needed at 50 %" in warning for warning in half)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Options of a plan up to what floats and whole numbers hold."""
    extreme: dict[str, list[Any]] = {
        "context_length": [None, 1, 64, 2048, 10**6, 10**15],
        "prompt_length": [None, 1, 64, 5000, 10**15],
        "batch_size": [0, 1, 64, 10**9, 10**30],
        "kv_groups": [1, 8, 65536, 10**9],
        "utilization": [None, 1e-300, 1e-5, 0.4, 1.0, 2.0],
        "prefill_tokens": [0.0, 1.0, 1e12, 1e300],
        "generated_tokens": [0.0, 1e12, 1e300],
        "price_per_gpu_hour": [None, 1e-300, 2.0, 1e300],
        "hardware": ["h100-sxm", "rtx-4090", "abacus"],
        "timing": ["measured", "roofline"],
    }
    budgets: dict[str, list[float]] = {
        "train_flops": [1e-300, 1e10, 1e21, 1e26, 1e300],
        "gpu_hours": [1e-9, 100.0, 1e300],
        "target_loss": [1e-300, 1.7, 1.85, 2.5, 6.0, 1e6],
    }
    name = draw(st.sampled_from(sorted(budgets)))
    chosen = {name: draw(st.sampled_from(budgets[name]))}
    for option in draw(st.lists(st.sampled_from(sorted(extreme)), max_size=4, unique=True)):
        chosen[option] = draw(st.sampled_from(extreme[option]))
    return chosen


@settings(max_examples=40, deadline=None)
@given(options())
def test_any_options_give_a_plan_or_one_line(chosen: dict[str, Any]) -> None:
    found, said = (), ""
    try:
        found = plan(Request(**chosen), known()).models
    except InputError as error:
        said = str(error)
    assert bool(found) != bool(said)
    assert "\n" not in said
    for model in found:
        assert all(math.isfinite(value) and value >= 0 for value in model.numbers.values())
        explained = any("outside of its own interval" in warning for warning in model.warnings)
        withheld = any("no intervals" in warning for warning in model.warnings)
        for name, (low, high) in model.intervals.items():
            assert withheld == math.isnan(low)
            assert withheld or explained or low * (1 - 1e-9) <= model.numbers[name] <= high * (1 + 1e-9), name


def test_more_groups_than_heads_are_said() -> None:
    many = models(replace(REQUEST, kv_groups=1000), "transformer")[LOSS_OPTIMAL]
    assert any("kv_groups 1000: the model has" in warning for warning in many.warnings)
    with pytest.raises(InputError, match="kv_groups 1000000000 is too large; the largest is 65536"):
        replace(REQUEST, kv_groups=10**9)


def test_a_value_outside_its_own_interval_is_explained() -> None:
    assert off_center({"loss": 2.0, "num_params": 1e9}, {"loss": (2.1, 2.2), "num_params": (9e8, 2e9)}) == [
        "outside of its own interval: loss; refits to resampled runs lie to one side of the fit"
    ]
    assert off_center({"loss": 2.0}, {"loss": (math.nan, math.nan)}) == []
    widths = np.full(40, 1024.0)
    assert no_intervals(widths, 40, 0.95) == "all resamples end at the same model"
    widths[:30] = np.nan
    assert no_intervals(widths, 40, 0.95) == "75 % of the resamples have no such model"
    assert no_intervals(np.geomspace(500, 600, 40), 40, 0.95) == ""
