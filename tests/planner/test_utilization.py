"""Utilization in plans: the curves of the logs, hours that become compute, intervals, and logs of one's own."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.hardware import get_hardware
from companion.laws import optimum
from companion.planner import COST_OPTIMAL, LOSS_OPTIMAL, Knowledge, Plan, PlannedModel, Request, learn, plan
from companion.planner.costs import cost_curve
from companion.planner.knowledge import paper_utilization
from companion.planner.utilization import ASSUMED_UTILIZATION, utilization_source
from companion.runs.shape_family import FamilyScale
from companion.training import load_training_logs

PEAK = get_hardware("h100-sxm").peak_flops_per_s
NAMES = ("transformer", "xlstm")


@lru_cache
def known() -> dict[str, Knowledge]:
    return learn(num_resamples=40)


def model(request: Request, name: str, objective: str = LOSS_OPTIMAL) -> PlannedModel:
    planned = plan(request, {name: known()[name]})
    return next(one for one in planned.models if one.objective == objective)


def by_hand(name: str, size: float, context: int) -> float:
    """The quadratic of the logs at one context length, written out."""
    [curve] = [one for one in paper_utilization().curves[name] if one.context_length == context]
    x, (a, b, c) = np.log(size) - curve.center, curve.coefficients
    return float(np.exp(a * x**2 + b * x + c))


# ---- known answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_training_takes_the_compute_over_utilization_times_peak(name: str) -> None:
    numbers = model(Request(train_flops=1e20), name).numbers
    share = by_hand(name, numbers["num_params"], 8192)
    assert numbers["utilization"] == pytest.approx(share, rel=1e-12)
    assert numbers["train_gpu_hours"] == pytest.approx(1e20 / (share * PEAK) / 3600, rel=1e-9)
    between = model(Request(train_flops=1e20, context_length=round(8192 * 2**0.5)), name).numbers
    ends = [by_hand(name, between["num_params"], context) for context in (8192, 16384)]
    assert between["utilization"] == pytest.approx(np.sqrt(ends[0] * ends[1]), rel=1e-4), "half-way in ln T"


@pytest.mark.parametrize("name", NAMES)
def test_the_cheapest_model_is_trained_at_its_own_utilization(name: str) -> None:
    request = Request(train_flops=1e20, prefill_tokens=1e11, generated_tokens=1e10)
    cheap, best = (model(request, name, objective).numbers for objective in (COST_OPTIMAL, LOSS_OPTIMAL))
    assert cheap["utilization"] == pytest.approx(by_hand(name, cheap["num_params"], 8192), rel=1e-12)
    curve = cost_curve(request, known()[name], best["loss"], np.geomspace(300, 4000, 4000))
    inside = curve["num_params"].between(5e8, 2e9)
    shares = [by_hand(name, size, 8192) for size in curve.loc[inside, "num_params"]]
    scale = FamilyScale(family=known()[name].family, context_length=8192)
    flops = scale.train_flops(curve.loc[inside, "num_params"], curve.loc[inside, "tokens_per_param"])
    assert curve.loc[inside, "train_gpu_hours"].to_numpy() == pytest.approx(flops / np.array(shares) / PEAK / 3600)
    assert cheap["total_gpu_hours"] == pytest.approx(curve.loc[curve["fits"], "total_gpu_hours"].min(), rel=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_given_number_is_taken_for_every_model(name: str) -> None:
    request = Request(gpu_hours=1000, utilization=0.3, prefill_tokens=1e11, generated_tokens=1e10)
    for objective in (LOSS_OPTIMAL, COST_OPTIMAL):
        found = model(request, name, objective)
        assert found.numbers["utilization"] == 0.3
        assert found.intervals["utilization"] == (0.3, 0.3)
        assert found.numbers["train_gpu_hours"] == pytest.approx(found.numbers["train_flops"] / (0.3 * PEAK) / 3600)
        assert not any("utilization" in warning for warning in found.warnings)
    best = model(request, name)
    scale = FamilyScale(family=known()[name].family, context_length=8192)
    for law, ends in ((known()[name].fit.law, None), (known()[name].bootstrap.laws, best.intervals)):
        there = optimum(law, scale, np.full(len(law), 1000 * 3600 * 0.3 * PEAK))
        if ends is None:
            assert best.numbers["num_params"] == pytest.approx(float(there.num_params[0]), rel=1e-9)
            assert best.numbers["loss"] == pytest.approx(float(there.loss[0]), rel=1e-12)
        else:
            assert ends["num_params"] == pytest.approx(np.quantile(there.num_params, [0.025, 0.975]), rel=1e-6)
            assert ends["train_flops"] == pytest.approx((1000 * 3600 * 0.3 * PEAK,) * 2, rel=1e-9)


# ---- budgets of hours ----------------------------------------------------------------------------

HOURS, CONTEXTS = st.floats(2, 2e5), st.sampled_from([2048, 8192, 11000, 16384, 65536])


@settings(max_examples=15, deadline=None)
@given(HOURS, CONTEXTS, st.sampled_from(NAMES))
def test_hours_to_a_loss_and_back(hours: float, context: int, name: str) -> None:
    request = Request(gpu_hours=hours, context_length=context)
    there = model(request, name).numbers
    assert there["train_gpu_hours"] == pytest.approx(hours, rel=1e-12)
    back = model(replace(request, gpu_hours=None, target_loss=there["loss"]), name).numbers
    assert back["train_gpu_hours"] == pytest.approx(hours, rel=1e-8)
    assert back["num_params"] == pytest.approx(there["num_params"], rel=1e-7)
    compute = model(replace(request, gpu_hours=None, train_flops=there["train_flops"]), name).numbers
    assert compute["loss"] == pytest.approx(there["loss"], rel=1e-12), "the least loss at its FLOPs"


@settings(max_examples=15, deadline=None)
@given(HOURS, st.floats(1.001, 30), CONTEXTS, st.sampled_from(NAMES))
def test_more_hours_never_give_more_loss(hours: float, factor: float, context: int, name: str) -> None:
    less, more = (model(Request(gpu_hours=h, context_length=context), name) for h in (hours, hours * factor))
    assert more.numbers["loss"] < less.numbers["loss"]
    assert more.numbers["train_flops"] > less.numbers["train_flops"]
    for end in (0, 1):
        assert more.intervals["train_flops"][end] >= less.intervals["train_flops"][end]


@pytest.mark.parametrize("name", NAMES)
def test_with_hours_fixed_the_scatter_of_the_utilization_moves_the_compute(name: str) -> None:
    hours = model(Request(train_flops=1e20), name).numbers["train_gpu_hours"]
    fixed, compute = model(Request(gpu_hours=hours), name), model(Request(train_flops=1e20), name)
    assert fixed.numbers == pytest.approx(compute.numbers)
    assert fixed.intervals["train_gpu_hours"] == pytest.approx((hours, hours))
    assert compute.intervals["train_flops"] == pytest.approx((1e20, 1e20))
    low, high = compute.intervals["train_gpu_hours"]
    assert high / low == pytest.approx(np.divide(*fixed.intervals["train_flops"][::-1]), rel=0.05), "the same scatter"
    # of both: the law moves the size, and with it the utilization, only a little
    bounds = paper_utilization().at(name, compute.numbers["num_params"], 8192)
    assert compute.intervals["utilization"] == pytest.approx((float(bounds.low), float(bounds.high)), rel=0.03)


def test_costs_carry_the_scatter_of_the_utilization() -> None:
    request = Request(target_loss=2.8, prefill_tokens=1e9, price_per_gpu_hour=2.0)
    for name in NAMES:
        free, given_share = (model(replace(request, utilization=share), name) for share in (None, 0.3))
        for number in ("train_gpu_hours", "total_gpu_hours", "total_price"):
            low, high = free.intervals[number]
            narrow = given_share.intervals[number]
            assert high / low > narrow[1] / narrow[0], number
        for number in ("num_params", "loss", "train_flops"):
            assert free.intervals[number] == pytest.approx(given_share.intervals[number]), number


# ---- both architectures --------------------------------------------------------------------------


def test_hours_to_a_loss_for_both_architectures() -> None:
    planned = plan(Request(target_loss=2.8), known())
    best = {one.architecture: one for one in planned.models}
    [ratio] = planned.gpu_hours_ratios
    assert (ratio.first, ratio.second) == ("xlstm", "transformer")
    hours = {name: best[name].numbers["train_gpu_hours"] for name in NAMES}
    assert ratio.ratio == pytest.approx(hours["transformer"] / hours["xlstm"])
    low, high = ratio.interval
    assert low < ratio.ratio < high
    # both are drawn independently: squares of widths in the logarithm add up
    width = [np.log(np.divide(*best[name].intervals["train_gpu_hours"][::-1])) for name in NAMES]
    assert np.log(high / low) == pytest.approx(np.hypot(*width), rel=0.15)
    assert plan(Request(target_loss=2.8), known()).gpu_hours_ratios == planned.gpu_hours_ratios
    assert plan(Request(train_flops=1e20), known()).gpu_hours_ratios == ()
    assert plan(Request(target_loss=2.8), {"xlstm": known()["xlstm"]}).gpu_hours_ratios == ()


def test_without_intervals_the_ratio_has_none() -> None:
    [ratio] = plan(Request(target_loss=2.8), learn(num_resamples=2)).gpu_hours_ratios
    assert ratio.ratio > 1
    assert np.isnan(ratio.interval).all()


# ---- other logs, and beyond them -----------------------------------------------------------------


def warned(request: Request, name: str = "xlstm", of: dict[str, Knowledge] | None = None) -> list[str]:
    planned: Plan = plan(request, {name: (of or known())[name]})
    return [text for text in planned.models[0].warnings if text.startswith("utilization")]


def test_what_lies_outside_of_the_logs_is_said() -> None:
    assert warned(Request(train_flops=1e20)) == []
    [size] = warned(Request(train_flops=1e21, context_length=16384))
    assert "parameters is outside the logs' 9.011e+07 to 1.877e+09 at T = 16384; that of the nearest size" in size
    [length] = warned(Request(train_flops=1e20, context_length=2048))
    assert length == "utilization: T = 2048 is outside the logs' 8192 to 16384; that of the nearest T is taken"
    assert warned(Request(train_flops=1e20, context_length=2048), "transformer") == []
    [between] = warned(Request(train_flops=1e19, context_length=12000))
    assert "outside the logs' 4.069e+08 to 1.877e+09 at T = 8192 and 16384" in between
    [device] = warned(Request(train_flops=1e20, hardware="h200-sxm"))
    assert device.startswith(
        "utilization: measured on NVIDIA H100 SXM; the same share of the peak is assumed for NVIDIA"
    )
    assert warned(Request(train_flops=1e21, context_length=2048, hardware="h200-sxm", utilization=0.3)) == []


def own(*contexts: int, architecture: str = "transformer") -> pd.DataFrame:
    logs = load_training_logs()
    chosen = logs[(logs["architecture"] == architecture) & logs["context_length"].isin(contexts)]
    chosen.attrs["source"] = "some/where/mine.csv"
    return chosen


def test_an_architecture_that_the_logs_lack_has_an_assumed_utilization() -> None:
    learned = learn(logs=own(8192), num_resamples=20)
    found = {one.architecture: one for one in plan(Request(train_flops=1e20), learned).models}
    assert found["xlstm"].numbers["utilization"] == ASSUMED_UTILIZATION
    assert found["xlstm"].intervals["utilization"] == (ASSUMED_UTILIZATION, ASSUMED_UTILIZATION)
    [said] = warned(Request(train_flops=1e20), "xlstm", learned)
    assert (
        said
        == "utilization: 40 % is assumed; mine.csv has too few finished runs of xlstm; it has enough of transformer"
    )
    assert warned(Request(train_flops=1e20), "transformer", learned) == []
    assert utilization_source(Request(train_flops=1e20), learned["xlstm"]) == "40 %, assumed"
    assert utilization_source(Request(train_flops=1e20), learned["transformer"]) == (
        "measured at T = 8192 (mine.csv): runs on NVIDIA H100 SXM, with their kernels and GPU counts"
    )


def test_logs_of_one_context_serve_every_context_with_a_warning() -> None:
    learned = learn(architectures=["transformer"], logs=own(2048), num_resamples=2)
    here, there = (
        plan(Request(target_loss=2.9, context_length=context), learned).models[0] for context in (2048, 16384)
    )
    assert here.numbers["utilization"] == pytest.approx(by_hand("transformer", here.numbers["num_params"], 2048))
    assert there.numbers["utilization"] == pytest.approx(by_hand("transformer", there.numbers["num_params"], 2048))
    assert "utilization: T = 16384 is outside the logs' 2048; that of the nearest T is taken" in there.warnings
    assert not any(text.startswith("utilization") for text in here.warnings)


def test_a_step_time_is_a_share_of_the_peak_of_the_logs_hardware() -> None:
    slow = own(2048).assign(step_time_s=lambda logs: logs["step_time_s"] * 5)
    h100, a100 = (
        learn(architectures=["transformer"], logs=slow, logs_hardware=name, num_resamples=2)
        for name in ("h100-sxm", "a100-sxm")
    )
    request = Request(train_flops=1e19, context_length=2048, hardware="a100-sxm")
    shares = [plan(request, learned).models[0].numbers["utilization"] for learned in (h100, a100)]
    assert shares[1] / shares[0] == pytest.approx(PEAK / get_hardware("a100-sxm").peak_flops_per_s)
    assert "measured on NVIDIA H100 SXM" in warned(request, "transformer", h100)[0]
    assert warned(request, "transformer", a100) == []
    with pytest.raises(
        InputError, match=r"^some/where/mine.csv: run '.*' would use 1\.\d+ times the peak of NVIDIA A100 SXM"
    ):
        learn(logs=own(2048), logs_hardware="a100-sxm", num_resamples=2)
