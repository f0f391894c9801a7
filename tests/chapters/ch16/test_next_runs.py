"""The next runs of a table: which runs are taken, what is drawn, and verdicts that can flip."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from foreign import table as foreign_table
from html_tables import rows_of

from companion import LossSurface, fit
from companion.chapters.ch16 import designs
from companion.errors import NotApplicable
from companion.study.next_runs import Advice, advise, default_candidates, parse_quantity, pricing_of

BUDGET = 1e20


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return designs.runs_to_extend()


@pytest.fixture(scope="module")
def candidates(runs: pd.DataFrame) -> pd.DataFrame:
    return default_candidates(runs, pricing_of(runs), BUDGET)


@pytest.fixture(scope="module", params=["loss@2e10,4e11", "exponent", "optimum@1e23"])
def advice(request: pytest.FixtureRequest, runs: pd.DataFrame, candidates: pd.DataFrame) -> Advice:
    pricing = pricing_of(runs)
    quantity = parse_quantity(request.param, pricing.cost)
    return advise(fit(LossSurface, runs, gamma=1), quantity, candidates, pricing, BUDGET, max_runs=3)


def test_whose_runs() -> None:
    assert set(designs.runs_to_extend()["architecture"]) == {"xlstm"}
    assert set(designs.runs_to_extend(None, "transformer")["architecture"]) == {"transformer"}
    assert set(designs.runs_to_extend(foreign_table("two_other_architectures"))["architecture"]) == {"gpt"}
    with pytest.raises(NotApplicable, match="6 different runs"):
        designs.runs_to_extend(foreign_table("six_runs"))
    with pytest.raises(NotApplicable, match="not identified"):
        designs.runs_to_extend(foreign_table("two_sizes"))


def test_what_is_drawn(runs: pd.DataFrame, candidates: pd.DataFrame, advice: Advice) -> None:
    figure = designs.design_panel(runs, advice, advice, candidates, BUDGET)
    drawn = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert np.asarray(drawn["V-optimal"].get_xdata()).tolist() == advice.runs["num_params"].to_list()
    assert len(np.asarray(drawn["trained"].get_xdata())) == len(runs)
    assert ("target" in drawn) == advice.quantity.label.startswith("loss")
    assert rows_of(designs.compared_table(advice))[0]["design"] == "V-optimal"
    chosen = rows_of(designs.chosen_table(advice))
    assert [row["run"] for row in chosen] == ["1", "2", "3"]
    others = rows_of(designs.others_table(advice))
    assert [row["true law"] for row in others] == ["one with γ free", "a product of powers"]
    assert designs.design_figure(runs, advice, advice, candidates, BUDGET).markup.count("<svg") == 2


def test_half_widths(runs: pd.DataFrame, advice: Advice) -> None:
    facts = designs.design_facts(runs, fit(LossSurface, runs, gamma=1), advice, advice)
    row = rows_of(designs.compared_table(advice))[0]
    assert facts["c16_design_half_after"] == row["half width"]
    assert facts["c16_design_half_after"].endswith("%") == advice.quantity.in_logs
    assert facts["c16_design_runs"] == f"{len(runs)}"


class TestVerdicts:
    def test_another_law(self, advice: Advice) -> None:
        one = advice.alternatives.assign(law="gamma free", shift_in_half_widths=[-4.0, np.nan])
        assert designs.off_verdict(replace(advice, alternatives=one)).startswith("If the true law is one with γ free")
        small = one.assign(shift_in_half_widths=[0.5, np.nan])
        assert designs.off_verdict(replace(advice, alternatives=small)).startswith("Even if")
        none = one.assign(shift_in_half_widths=np.nan)
        assert designs.off_verdict(replace(advice, alternatives=none)).startswith("No other law")

    def test_repeated_runs(self, runs: pd.DataFrame, advice: Advice) -> None:
        assert "too few" in designs.repeats_verdict(runs, advice)
        again = runs.assign(val_loss=runs["val_loss"] * 1.001)
        words = designs.repeats_verdict(pd.concat([runs, again]), advice)
        ratio = advice.linear.noise.sd / (np.log(1.001) / np.sqrt(2))
        assert words == f"That is {ratio:.0f} times the scatter of repeated runs"

    def test_corners(self, advice: Advice) -> None:
        inside = pd.DataFrame({"num_params": [1.0, 2, 2, 2, 3], "tokens_per_param": [1.0, 2, 2, 2, 3]})
        middle = replace(advice, runs=inside)
        assert designs.corner_verdict(middle, middle).startswith("some of them (40 %)")
        ends = replace(advice, runs=inside.iloc[[0, 4]])
        assert designs.corner_verdict(ends, ends).startswith("nearly all of them (100 %)")
