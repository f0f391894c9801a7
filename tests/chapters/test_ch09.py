"""Chapter 9: facts equal the plan they describe, verdicts turn with traffic and timings, one architecture is enough."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from companion.chapters import ch09
from companion.chapters.ch09 import facts
from companion.formatting import count
from companion.ledger import load_published
from companion.planner import Knowledge, Plan, Request, learn, plan
from companion.planner.sweeps import choices, interval_shares, sweep
from companion.plotting import Html
from companion.runs import load_paper_runs

REQUEST = Request(train_flops=1e21, prefill_tokens=1e12, generated_tokens=1e11)


@pytest.fixture(scope="module")
def known() -> dict[str, Knowledge]:
    return dict(learn(num_resamples=20))


@pytest.fixture(scope="module")
def planned(known: dict[str, Knowledge]) -> Plan:
    return plan(REQUEST, known)


def rows_of(table: Html) -> list[dict[str, str]]:
    """The rows of a table by its headings."""
    soup = BeautifulSoup(table.markup, "html.parser")
    head = [cell.get_text() for cell in soup.select("thead tr > *")]
    return [dict(zip(head, (td.get_text() for td in row.select("td")), strict=True)) for row in soup.select("tbody tr")]


def test_numbers_of_a_plan(planned: Plan, known: dict[str, Knowledge]) -> None:
    rows = {row[""]: row for row in rows_of(ch09.plan_table(planned))}
    model = planned.models[0]
    assert rows["N"]["Transformer, loss-optimal"].startswith(count(model.numbers["num_params"]))
    assert "[" in rows["loss (nats/token)"]["xLSTM, cost-optimal"]
    parts = rows_of(ch09.parts_table(known))
    assert [row["runs"] for row in parts] == [str(one.fit.num_rows) for one in known.values()]


def test_what_is_said_of_a_plan(planned: Plan, known: dict[str, Knowledge]) -> None:
    said = ch09.plan_facts(planned, known)
    best, cheap = (ch09.numbers_of(planned, objective) for objective in ("loss-optimal", "cost-optimal"))
    assert said["c9_request"].startswith("1×10²¹ FLOP of training, T = 8192, 1.00T prompt and 100B generated tokens")
    assert f"xLSTM {count(best['xlstm']['num_params'])} on" in said["c9_trained"]
    total = cheap["xlstm"]["total_gpu_hours"] / best["xlstm"]["total_gpu_hours"]
    assert f"{total:.2f} of the total cost" in said["c9_owning"]
    assert f"{1 - total:.0%} for the xLSTM" in said["c9_take_owning"]
    assert said["c9_answer_serve"].startswith("Cheapest to own")


def test_nothing_is_served(known: dict[str, Knowledge]) -> None:
    alone = {"xlstm": known["xlstm"]}
    idle = plan(Request(train_flops=1e21), alone)
    said = ch09.plan_facts(idle, alone)
    assert said["c9_answer_serve"].startswith("Nothing is served")
    assert said["c9_take_owning"] == "nothing is served in this plan"
    assert ch09.traffic_verdict(None, idle, alone) == "No traffic, no difference"
    assert "Nothing is served" in ch09.traffic_figure(None, ["xlstm"]).markup
    assert "Nothing is served" in ch09.batches_table(None, 0.0).markup
    assert "differ by" not in ch09.loss_width_words(idle)


@pytest.mark.parametrize(
    ("budget", "words"),
    [({"gpu_hours": 1000.0}, "1.00k GPU-hours of training"), ({"target_loss": 2.5}, "a loss of 2.5")],
)
def test_budgets_in_words(budget: dict[str, float], words: str) -> None:
    assert facts.request_words(Request(**budget)).startswith(words)  # type: ignore[arg-type]


def test_warnings_are_said_once(planned: Plan) -> None:
    far = replace(planned.models[0], warnings=("beyond the runs",), fit_message="does not fit")
    table = ch09.warnings_table(replace(planned, models=(far, replace(far, objective="cost-optimal")), notes=()))
    assert [row["what"] for row in rows_of(table)] == ["beyond the runs", "does not fit"]
    assert rows_of(table)[0]["where"] == "Transformer loss-optimal; Transformer cost-optimal"
    inside = replace(planned.models[0], warnings=(), fit_message="")
    table = ch09.warnings_table(replace(planned, models=(inside,), notes=()))
    assert rows_of(table)[0]["what"] == "inside the range of runs and timings"


def test_traffic_halves_the_size(planned: Plan, known: dict[str, Knowledge]) -> None:
    table = pd.DataFrame(
        {
            "architecture": "xlstm",
            "objective": "cost-optimal",
            "served_tokens": [1e9, 1e11, 1e13],
            "num_params": np.array([1.0, 0.6, 0.4]) * ch09.numbers_of(planned, "loss-optimal")["xlstm"]["num_params"],
            "tokens_per_param": [20.0, 50.0, 100.0],
        }
    )
    alone = replace(planned, models=tuple(m for m in planned.models if m.architecture == "xlstm"))
    assert "half of N* at 1.0T served tokens" in ch09.traffic_verdict(table, alone, known)
    assert "never halves here" in ch09.traffic_verdict(table[:2], alone, known)
    assert "tokens per parameter reach 100" in ch09.traffic_verdict(table, alone, known)


class TestChoiceOfArchitecture:
    PAIR = ("transformer", "xlstm")

    def ratios(self, *values: tuple[float, float]) -> dict[str, pd.DataFrame]:
        return {
            f"way {number}": pd.DataFrame({"context_length": [2048, 8192], "ratio": pair})
            for number, pair in enumerate(values)
        }

    def test_all_ways_agree(self) -> None:
        said = ch09.ratio_facts(self.ratios((1.1, 2.0), (1.2, 1.6), (1.1, 1.3)), self.PAIR, 2.5, 8192)
        assert "T = 8192, the xLSTM is cheaper to own" in said["c9_answer_ratio"]
        assert "way 0: 1.10 at T = 2048 to 2 at T = 8192" in said["c9_context"]
        assert "by a factor of 1.25 at most, grouped heads by 1.1 at least" in said["c9_context"]

    def test_ways_disagree(self) -> None:
        verdict = facts.ratio_verdict(self.ratios((1.1, 2.0), (0.5, 0.8)), self.PAIR, 2.5, 8192)
        assert "which is cheaper depends on the kernels" in verdict

    def test_nowhere_do_both_fit(self) -> None:
        nothing = {"measured times": pd.DataFrame(columns=["context_length", "ratio"])}
        said = ch09.ratio_facts(nothing, self.PAIR, 2.5, 8192)
        assert said["c9_context"] == "No ratio could be formed here"
        assert said["c9_answer_ratio"].startswith("No context was found")
        assert "both fit" in ch09.ratio_figure(nothing, self.PAIR, 2.5, 8).markup


def test_published_sizes(known: dict[str, Knowledge]) -> None:
    rows = load_published()["compute_optimal_table_8192"]["rows"][:2]
    sizes = ch09.published_sizes(rows, {"xlstm": known["xlstm"]})
    assert sizes["published N"].tolist() == [row["num_params"] for row in rows]
    first = plan(Request(train_flops=float(rows[0]["xlstm_train_flops"])), {"xlstm": known["xlstm"]}).models[0]
    assert sizes["ours"].iloc[0] == first.numbers["num_params"]
    words = ch09.published_words(sizes)
    assert f"in {sizes['holds'].sum()} of 2 rows" in words
    assert len(rows_of(ch09.published_table(sizes))) == 2


def test_other_choices(planned: Plan, known: dict[str, Knowledge]) -> None:
    alone = {"xlstm": known["xlstm"]}
    other = choices(REQUEST, load_paper_runs(), alone, num_resamples=2)
    said = ch09.choices_facts(other, ["xlstm"])
    first = other.iloc[0]
    sizes = other.loc[other["objective"] == "loss-optimal", "num_params"]
    assert f"xLSTM loss-optimal {count(sizes.min())} to {count(sizes.max())}" in said["c9_choice_sizes"]
    within = other.groupby("objective", sort=False)[["num_params", "num_params_low", "num_params_high"]].apply(
        lambda part: part["num_params"].between(part["num_params_low"].iloc[0], part["num_params_high"].iloc[0]).sum()
    )
    assert said["c9_choice_outside"] == f"{len(other) - within.sum()} of {len(other)}"
    assert "as planned" in said["c9_choice_hours"]
    assert first["choice"] == rows_of(ch09.choices_table(other))[0]["choice"] == "as planned"
    assert len(rows_of(ch09.shares_table(interval_shares(planned)))) == 4
    assert "the two architectures differ by" in ch09.loss_width_words(planned)


def test_solutions(known: dict[str, Knowledge]) -> None:
    alone = {"xlstm": known["xlstm"]}
    batches = sweep(REQUEST, alone, "batch_size", [1, 8])
    rows = rows_of(ch09.batches_table(batches, 1.1e12))
    costs = [float(row["GPU-hours per 10⁹ tokens"]) for row in rows if row["objective"] == "cost-optimal"]
    assert costs == sorted(costs, reverse=True), "a batch shares the weights"
    devices = sweep(REQUEST, alone, "hardware", ["h100-sxm", "rtx-4090"])
    assert [row["hardware"] for row in rows_of(ch09.devices_table(devices))] == ["h100-sxm", "rtx-4090"]
    plans = {share: plan(Request(gpu_hours=1000, utilization=share), alone) for share in (0.25, 0.5)}
    slow, fast = rows_of(ch09.hours_table(plans))
    assert float(fast["loss"]) < float(slow["loss"])
