"""The fitted floor beside the known entropy, and the study that the page trains."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from html_tables import text_of

from companion.chapters import ch15
from companion.chapters.ch15 import far, floor, tiny
from companion.chapters.ch15.floor import FloorFit
from companion.chapters.ch15.study import OwnStudy
from companion.errors import InputError, NotApplicable
from companion.fitting.pareto import fit_front
from companion.runs import load_runs


@pytest.fixture(scope="module")
def fits(whole: OwnStudy) -> list[FloorFit]:
    return ch15.fit_floors(whole)


def test_a_floor_that_is_near_is_found(whole: OwnStudy, fits: list[FloorFit]) -> None:
    assert ch15.floor_of(whole) == 3.0
    assert len(fits) == 6
    squares = [each for each in fits if each.objective == "least squares"]
    assert all(each.held.fixed["E"] == 3.0 for each in fits)
    assert any(each.sees for each in squares)
    for each in squares:
        assert each.held.parameters["alpha"] == pytest.approx(0.3, abs=0.08)
    facts = ch15.floor_facts(whole, fits)
    assert str(facts["c15_finds"]) in ("It does", "Some fits do", "It does not")
    for page in (ch15.show_floors(fits), ch15.show_reducible(whole, 3.0)):
        assert len(text_of(page)) > 100
    held = ch15.held_text(fits, num_resamples=20)
    assert str(held["c15_held_beta"]).startswith("0.4")


def test_verdicts_on_intervals(fits: list[FloorFit]) -> None:
    right = replace(fits[0], low=0.0, high=math.inf)
    wrong = replace(fits[0], low=5.2, high=5.4)
    assert floor.ends_text(right) == "[0, no end]"
    assert floor.sees_verdict([right]).startswith("Every interval contains the entropy")
    assert floor.sees_verdict([right, wrong]).startswith("[5.20, 5.40] (xLSTM, Huber, δ = 0.001) does not contain")
    lost = replace(fits[0].free, status="not identified")
    found = replace(fits[0].free, status="converged")
    assert floor.identified_verdict([replace(right, free=lost)]).startswith("Every fit with E free reports")
    assert floor.identified_verdict([replace(right, free=found)]) == "Every fit with E free is identified"
    both = [replace(right, free=lost), replace(right, free=found)]
    assert floor.identified_verdict(both).startswith("1 of 2 fits")
    assert floor.finds_verdict([replace(right, free=lost)]) == "It does not"
    assert floor.finds_verdict([replace(right, free=found, floor=found.parameters["E"])]) == "It does"


def test_local_exponents_of_a_power_law() -> None:
    flops = np.geomspace(1e13, 1e16, 10)
    front = fit_front(flops, 2.0 * (flops / 1e13) ** -0.05)
    assert floor.local_slopes(front)[1] == pytest.approx([0.05] * 9)
    assert floor.overall_slope(front) == pytest.approx(0.05)
    assert floor.bend_verdict({"xlstm": front}) == "stays for the xLSTM"
    bent = fit_front(flops, 1.0 + (flops / 1e13) ** -0.3)
    assert floor.bend_verdict({"xlstm": bent}) == "falls for the xLSTM"
    assert "too few runs" in floor.bend_verdict({"xlstm": fit_front([1e13, 1e14], [2.0, 1.0])})
    assert math.isnan(floor.overall_slope(fit_front([1e13], [2.0])))


@pytest.mark.parametrize(
    ("fitted", "ends"),
    [([2.9, 2.8, 3.1], "closer: two of the three fitted E are below the entropy"), ([2.9, 3.1, 3.2], "do that")],
)
def test_what_losses_that_fall_ever_faster_do_to_a_fit(fitted: list[float], ends: str) -> None:
    cost = np.geomspace(1e13, 1e16, 7)
    fits: Any = [SimpleNamespace(free=SimpleNamespace(parameters={"E": e}), floor=3.0) for e in fitted]
    rising = fit_front(cost, np.exp(-0.01 * np.log10(cost / 1e12) ** 2))
    straight = fit_front(cost, cost**-0.2)
    falling = fit_front(cost, 0.3 + (cost / 1e13) ** -0.5)
    assert floor.bend_says_verdict({"a": rising}, fits).endswith(ends)
    assert "toward the entropy looks like" in floor.bend_says_verdict({"a": straight}, fits)
    assert "above the entropy describes" in floor.bend_says_verdict({"a": falling}, fits)
    assert floor.bend_says_verdict({"a": rising, "b": straight}, fits).startswith("Where the exponent changes")
    short = fit_front([1e13, 1e14], [2.0, 1.0])
    assert floor.bend_says_verdict({"a": rising, "b": short}, fits).startswith("So these runs do not say")


def test_a_table_that_names_no_entropy_leaves_the_section_out(whole: OwnStudy) -> None:
    for runs in (whole.runs.drop(columns="loss_floor"), whole.runs.assign(loss_floor=np.nan)):
        with pytest.raises(NotApplicable, match="loss_floor"):
            ch15.fit_floors(replace(whole, runs=runs))
    mixed = whole.runs.assign(loss_floor=np.arange(len(whole.runs), dtype=float))
    with pytest.raises(NotApplicable, match="loss_floor"):
        ch15.floor_of(replace(whole, runs=mixed))


def test_simulated_studies_that_reach_further(whole: OwnStudy, fits: list[FloorFit]) -> None:
    seen = ch15.simulate_reach(whole, fits, [0, 2], num_draws=3)
    assert seen[["decades", "times"]].to_numpy().tolist() == [[0, 1], [0, far.TIMES], [2, 1]]
    assert seen["num_runs"].tolist() == [54, 540, 162]
    spans = seen["high"] - seen["low"]
    assert spans.iloc[2] < spans.iloc[0]
    assert seen["train_flops"].iloc[2] == pytest.approx(100 * seen["train_flops"].iloc[0])
    assert "10 times" in text_of(ch15.show_reach(seen, 3.0))
    near, wide = seen.assign(low=2.95, high=3.05), seen.assign(low=0.0, high=9.0)
    assert far.reach_verdict(near[near["times"] == 1], 3.0).startswith("The plan, once it is trained whole")
    assert far.reach_verdict(wide[wide["times"] == 1], 3.0).startswith("Even 2 further decades of compute do not")
    late = near.assign(low=[0.0, 0.0, 2.95])
    assert far.reach_verdict(late[late["times"] == 1], 3.0).startswith("It takes 2 further decades")
    assert ch15.reach_facts(seen, 3.0)["c15_more_runs"]


def test_an_entropy_from_near_and_from_far(study: OwnStudy, earlier: OwnStudy, whole: OwnStudy) -> None:
    fits, far_fits = ch15.fit_floors(study), ch15.fit_floors(earlier)
    page = text_of(ch15.show_two_floors([(study, fits), (earlier, far_fits)]))
    assert "Losses of two studies" in page
    facts = ch15.far_facts(study, earlier)
    assert facts["c15_near_source"] == "source of 128 tokens"
    assert facts["c15_far_source"] == "source of 1,024 tokens"
    near, distant = (one.at_context["val_loss"].min() - ch15.floor_of(one) for one in (study, earlier))
    assert near < 0.25
    assert distant > 1.3
    # whoever is sure of the far floor is wrong about it
    assert not any(each.free.identified and each.sees for each in far_fits)
    own = replace(whole, ours=False)
    assert ch15.far_study(own) is own
    with pytest.raises(NotApplicable, match="two studies of this project"):
        ch15.show_two_floors([(own, fits), (own, fits)])
    assert set(ch15.floor_facts(earlier, far_fits, prefix="c15_far_")) > {"c15_far_floor", "c15_far_sees"}


# ---- the study that the page trains ----------------------------------------------------------------


def test_the_example_is_a_design_that_can_be_planned() -> None:
    from companion.study.sweep import read_design

    folder = ch15.example_folder([1e9, 2e9])
    assert read_design(folder / "design.toml").grids[0].budgets == (1e9, 2e9)
    for wrong in ([], [0.0], [-1e9]):
        with pytest.raises(InputError, match="example_budgets"):
            ch15.example_folder(wrong)


def test_what_is_said_of_the_example(study: OwnStudy, tmp_path: Path) -> None:
    runs = study.runs[(study.runs["experiment"] == "isoflop") & (study.runs["architecture"] != "hybrid")]
    path = tmp_path / "runs.csv"
    runs.to_csv(path, index=False)
    facts = ch15.example_facts(path)
    assert facts["c15_example_runs"] == f"{len(runs)} runs"
    assert "profiles the smallest model is the best" in str(facts["c15_example_shape"])
    smallest = runs.loc[runs.groupby(["architecture", "isoflop_budget"])["num_params"].idxmin()]
    assert tiny.shape_verdict(smallest).startswith("In every profile the smallest model is the best")
    assert len(text_of(ch15.show_example(path))) > 100
    assert len(load_runs(path)) == len(runs)
