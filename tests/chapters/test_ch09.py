"""Chapter 9: facts equal the plan they describe, verdicts turn with traffic and timings, one architecture is enough."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from html_tables import rows_of

from companion.chapters import ch09
from companion.chapters.ch09 import facts, utilization
from companion.errors import InputError
from companion.formatting import count, percent, significant
from companion.inference.timings import load_paper_inference
from companion.ledger import build_ledger, load_published, to_frame
from companion.planner import HoursRatio, Knowledge, Plan, Request, learn, plan
from companion.planner.sweeps import choices, interval_shares, sweep
from companion.runs import load_paper_runs
from companion.training import finished, load_training_logs

REQUEST = Request(train_flops=1e21, prefill_tokens=1e12, generated_tokens=1e11)


@pytest.fixture(scope="module")
def known() -> dict[str, Knowledge]:
    return dict(learn(num_resamples=20))


@pytest.fixture(scope="module")
def planned(known: dict[str, Knowledge]) -> Plan:
    return plan(REQUEST, known)


def test_numbers_of_a_plan(planned: Plan, known: dict[str, Knowledge]) -> None:
    rows = {row[""]: row for row in rows_of(ch09.plan_table(planned))}
    model = planned.models[0]
    assert rows["N"]["Transformer, loss-optimal"].startswith(count(model.numbers["num_params"]))
    assert "[" in rows["loss (nats/token)"]["xLSTM, cost-optimal"]
    share = rows["utilization in training"]["Transformer, loss-optimal"]
    assert share.startswith(f"{percent(model.numbers['utilization'])} [")
    parts = rows_of(ch09.parts_table(known, planned.request))
    assert len(parts) == 8
    assert len(rows_of(ch09.parts_table(known, replace(planned.request, utilization=0.3)))) == 6
    logs = [row for row in parts if row["part"] == "utilization in training"]
    whole = finished(load_training_logs(), group=None)
    counts = {label: len(whole[whole["architecture"] == label.lower()]) for label in ("Transformer", "xLSTM")}
    assert [row["fitted to"] for row in logs] == [f"{counts[row['architecture']]} logs" for row in logs]
    assert [row["rms residual"] for row in logs] == [f"{known[n].utilization.residuals(n)[1]:.4f}" for n in known]
    laws = [row["fitted to"] for row in parts if row["part"] == "loss law"]
    assert laws == [f"{one.fit.num_rows} runs" for one in known.values()]
    steps = [row["rms residual"] for row in parts if row["part"] == "step time"]
    assert steps == [f"{one.times[1].rms_log_error:.4f}" for one in known.values()]
    answer = rows_of(ch09.answer_table(planned))
    assert [row["model"] for row in answer] == ["loss-optimal", "cost-optimal"] * 2
    assert answer[0]["total (GPU-hours)"] == count(model.numbers["total_gpu_hours"])


def test_what_is_said_of_a_plan(planned: Plan, known: dict[str, Knowledge]) -> None:
    said = ch09.plan_facts(planned, known)
    best, cheap = (ch09.numbers_of(planned, objective) for objective in ("loss-optimal", "cost-optimal"))
    words = facts.request_words(planned.request)
    assert words.startswith(
        "1×10²¹ FLOP of training, T = 8192, 1T prompt and 100B generated tokens, batches of 8 on NVIDIA"
    )
    assert words.replace("T = ", "T\u00a0=\u00a0") in ch09.answer_table(planned).markup
    assert said["c9_first"] == "The laws come from the runs at T\u00a0=\u00a08192"
    sizes = [cheap[name]["num_params"] / best[name]["num_params"] for name in cheap]
    assert f"has at most {max(sizes):.2f} times the parameters" in said["c9_answer_size"]
    total = cheap["xlstm"]["total_gpu_hours"] / best["xlstm"]["total_gpu_hours"]
    assert f"and {total:.2f} (xLSTM) times as much in total" in said["c9_owning"]
    assert f"and {100 * (1 - total):.0f} % (xLSTM) of the device time" in said["c9_take_owning"]


def test_nothing_is_served(known: dict[str, Knowledge]) -> None:
    alone = {"xlstm": known["xlstm"]}
    idle = plan(Request(train_flops=1e21), alone)
    said = ch09.plan_facts(idle, alone)
    assert said["c9_answer_size"].startswith("Nothing is served")
    assert said["c9_owning"].startswith("Nothing is served")
    assert said["c9_take_owning"].startswith("Nothing is served")
    assert ch09.traffic_verdict(None, idle, alone) == "Without traffic both models are the same"
    assert "Nothing is served" in ch09.traffic_figure(None).markup
    assert "Nothing is served" in ch09.batches_table(None, 0.0).markup
    assert "differ by" not in ch09.loss_width_words(idle)


def test_a_loss_without_intervals(planned: Plan) -> None:
    none = replace(planned.models[0], intervals={"loss": (float("nan"), float("nan"))})
    assert ch09.loss_width_words(replace(planned, models=(none,))) == "The loss has no interval"
    other = planned.models[-1]
    assert (none.architecture, other.architecture) == ("transformer", "xlstm")
    said = ch09.loss_width_words(replace(planned, models=(none, other)))
    assert "nan" not in said
    assert "; there is no interval for Transformer" in said


@pytest.mark.parametrize(
    ("budget", "words"),
    [({"gpu_hours": 1000.0}, "1k GPU-hours of training"), ({"target_loss": 2.5}, "a loss of 2.5 nats per token")],
)
def test_budgets_in_words(budget: dict[str, float], words: str) -> None:
    assert facts.request_words(Request(**budget)).startswith(words)  # type: ignore[arg-type]


def test_warnings_are_said_once(planned: Plan) -> None:
    far = replace(planned.models[0], warnings=("beyond the runs",), fit_message="does not fit")
    table = ch09.warnings_table(replace(planned, models=(far, replace(far, objective="cost-optimal")), notes=()))
    assert [row["warning"] for row in rows_of(table)] == ["beyond the runs", "does not fit"]
    assert rows_of(table)[0]["models"] == "Transformer loss-optimal; Transformer cost-optimal"
    inside = replace(planned.models[0], warnings=(), fit_message="")
    table = ch09.warnings_table(replace(planned, models=(inside,), notes=()))
    assert rows_of(table)[0]["warning"] == "none: inside the range of runs and timings"


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
    assert "half of the loss-optimal one at 1.0T (xLSTM) served tokens" in ch09.traffic_verdict(table, alone, known)
    never = ch09.traffic_verdict(table[:2], alone, known)
    assert never.startswith("The cost-optimal size never falls to half of the loss-optimal one for xLSTM. Tokens")
    assert "Tokens per parameter reach 100 in the figure" in ch09.traffic_verdict(table, alone, known)
    none = "No traffic has a cost-optimal model for xLSTM"  # no size that reaches the loss fits
    assert ch09.traffic_verdict(table[:0], alone, known) == none
    assert f"{none}. Tokens" in ch09.traffic_verdict(table.assign(architecture="transformer"), alone, known)


class TestChoiceOfArchitecture:
    PAIR = ("transformer", "xlstm")

    def ratios(self, *values: tuple[float, float]) -> dict[str, pd.DataFrame]:
        return {
            f"way {number}": pd.DataFrame({"context_length": [2048, 8192], "ratio": pair})
            for number, pair in enumerate(values)
        }

    def test_all_ways_agree(self) -> None:
        said = ch09.ratio_facts(self.ratios((1.1, 2.0), (1.2, 1.6), (1.1, 1.3)), self.PAIR, 2.5, 8192)
        assert said["c9_answer_ratio"] == (
            "At equal loss the xLSTM is cheaper to own: the Transformer takes 2 times its device time with the timed "
            "kernels, and 1.3 times with grouped heads on ideal kernels"
        )
        assert "by a factor of at most 1.25. Grouped heads divide it by at least 1.1" in said["c9_context"]

    def test_the_first_is_cheaper(self) -> None:
        ratios = self.ratios((1.1, 0.5), (1.2, 0.8), (1.1, 0.4))
        verdict = facts.ratio_verdict(ratios, self.PAIR, 8192)
        assert verdict.startswith("At equal loss the Transformer is cheaper to own: the xLSTM takes 2 times its")
        assert "2.5 times with grouped heads" in verdict

    def test_ratios_in_a_table(self) -> None:
        ratios = self.ratios((1.1, 2.0), (1.2, 1.6)) | {
            "short": pd.DataFrame({"context_length": [2048], "ratio": [3.0]})
        }
        rows = rows_of(ch09.ratio_table(ratios, self.PAIR))
        assert [row["T = 8192"].strip() for row in rows] == ["2.00", "1.60", "–"]
        assert rows[2]["T = 2048"] == "3.00"

    def test_ways_disagree(self) -> None:
        verdict = facts.ratio_verdict(self.ratios((1.1, 2.0), (0.5, 0.8)), self.PAIR, 8192)
        assert verdict.startswith("Which is cheaper to own at equal loss depends on kernels and heads")
        assert "takes 2 times" in verdict
        assert "and 0.8 times with grouped heads" in verdict

    def test_nowhere_do_both_fit(self) -> None:
        nothing = {"measured times": pd.DataFrame(columns=["context_length", "ratio"])}
        said = ch09.ratio_facts(nothing, self.PAIR, 2.5, 8192)
        assert said["c9_context"].startswith("There is no context")
        assert said["c9_answer_ratio"].startswith("There is no context")
        assert "both architectures fit" in ch09.ratio_table(nothing, self.PAIR).markup
        assert "both fit" in ch09.ratio_figure(nothing, self.PAIR, 2.5, 8).markup


def test_published_sizes(known: dict[str, Knowledge]) -> None:
    rows = load_published()["compute_optimal_table_8192"]["rows"][:2]
    sizes = ch09.published_sizes(rows, {"xlstm": known["xlstm"]})
    assert sizes["published N"].tolist() == [row["num_params"] for row in rows]
    first = plan(Request(train_flops=float(rows[0]["xlstm_train_flops"])), {"xlstm": known["xlstm"]}).models[0]
    assert sizes["ours"].iloc[0] == first.numbers["num_params"]
    ledger = to_frame(build_ledger(sections=["compute_optimal_table_8192"]))
    said = ch09.published_facts(sizes, ledger)
    assert "of the two rows (xLSTM)" in said["c9_published"]
    assert said["c9_published_numbers"] == said["c9_published_again"] == "44"
    assert said["c9_published_dependent"] == f"{(~ledger['independent'].astype(bool)).sum()}"
    assert rows_of(ch09.published_table(sizes))[0]["our N"].startswith(f"{count(sizes['ours'].iloc[0])} [")


def test_other_choices(planned: Plan, known: dict[str, Knowledge]) -> None:
    alone = {"xlstm": known["xlstm"]}
    other = choices(REQUEST, load_paper_runs(), alone, num_resamples=2)
    said = ch09.choices_facts(other)
    first = other.iloc[0]
    sizes = other.loc[other["objective"] == "loss-optimal", "num_params"]
    [ranges] = rows_of(ch09.ranges_table(other))
    assert ranges["N, loss-optimal"] == f"{count(sizes.min())} to {count(sizes.max())}"
    hours = other.loc[other["choice"] == "utilization 25 %", "total_gpu_hours"].iloc[-1]
    assert count(hours, 2) in ranges["total: utilization"]
    within = other.groupby("objective", sort=False)[["num_params", "num_params_low", "num_params_high"]].apply(
        lambda part: part["num_params"].between(part["num_params_low"].iloc[0], part["num_params_high"].iloc[0]).sum()
    )
    assert said["c9_choice_outside"] == f"{len(other) - within.sum()} of the {len(other)}"
    assert "law of the Token/Param runs" in {row["choice"] for row in rows_of(ch09.choices_table(other))}
    assert first["choice"] == rows_of(ch09.choices_table(other))[0]["choice"] == "as planned (measured utilization)"
    assert len(rows_of(ch09.shares_table(interval_shares(planned)))) == 4
    assert "the losses of the two architectures differ by" in ch09.loss_width_words(planned)


@pytest.fixture(scope="module")
def plans(known: dict[str, Knowledge]) -> tuple[Plan, Plan]:
    measured, assumed = (plan(Request(target_loss=2.8, utilization=share), known) for share in (None, 0.4))
    return measured, assumed


class TestHoursToALoss:
    def test_what_is_said(self, plans: tuple[Plan, Plan]) -> None:
        said = ch09.loss_hours_facts(*plans)["c9_loss_hours"]
        hours = {name: values["train_gpu_hours"] for name, values in ch09.numbers_of(plans[0], "loss-optimal").items()}
        assert said.startswith(
            f"A loss of 2.800 takes {count(hours['transformer'])} (Transformer) and {count(hours['xlstm'])} (xLSTM) "
            f"GPU-hours of training. So the Transformer needs {significant(hours['transformer'] / hours['xlstm'])} ["
        )
        flops = {name: values["train_flops"] for name, values in ch09.numbers_of(plans[1], "loss-optimal").items()}
        assert f"it would be {significant(flops['transformer'] / flops['xlstm'])} [" in said, "that of the FLOPs"

    def test_rows(self, plans: tuple[Plan, Plan]) -> None:
        first, second, ratio = rows_of(ch09.loss_hours_table(*plans))
        assert (first[""], second[""], ratio[""]) == ("Transformer", "xLSTM", "Transformer / xLSTM")
        numbers = plans[0].models[0].numbers
        assert (first["N"], first["u"]) == (count(numbers["num_params"]), percent(numbers["utilization"]))
        assert first["GPU-hours"].startswith(f"{count(numbers['train_gpu_hours'])} [")
        other = plans[1].models[0].numbers["train_gpu_hours"]
        assert first["GPU-hours at u = 40 %"].startswith(f"{count(other)} [")
        assert ratio["GPU-hours"] != ratio["GPU-hours at u = 40 %"]

    def test_ratios_at_other_losses_and_contexts(self, plans: tuple[Plan, Plan], known: dict[str, Knowledge]) -> None:
        ratios = ch09.ratios_elsewhere(plans[0], known)
        assert len(ratios) == 6, "three losses at both contexts that all logs have"
        assert set(ratios["context_length"]) == {8192, 16384}
        own = ratios[(ratios["loss"] == 2.8) & (ratios["context_length"] == 8192)]
        assert own["ratio"].item() == pytest.approx(plans[0].gpu_hours_ratios[0].ratio)
        for loss in sorted(ratios["loss"])[:2]:
            again = plan(Request(target_loss=loss, context_length=16384), known).gpu_hours_ratios[0].ratio
            there = ratios[(ratios["loss"] == loss) & (ratios["context_length"] == 16384)]["ratio"].iloc[0]
            assert there == pytest.approx(again)
        spent = ch09.numbers_of(plans[0], "loss-optimal")["xlstm"]["train_flops"]
        tenth = plan(Request(train_flops=spent / 10), known).models
        assert next(one for one in tenth if one.architecture == "xlstm").numbers["loss"] in set(ratios["loss"])
        rows = rows_of(ch09.elsewhere_table(ratios, plans[0]))
        assert [row[""] for row in rows] == ["T = 8192", "T = 16384"]
        assert rows[0]["loss 2.800"].startswith(f"{significant(own['ratio'].item())} [")
        said = ch09.elsewhere_facts(ratios)["c9_ratio_moves"]
        assert significant(ratios["ratio"].min()) in said
        assert said.endswith("T\u00a0=\u00a016384)")

    def test_budgets_that_no_width_has_give_no_column(self, known: dict[str, Knowledge]) -> None:
        least = plan(Request(train_flops=1e16), known)
        loss = max(model.numbers["loss"] for model in least.models)
        with pytest.raises(InputError):
            plan(Request(train_flops=1e14), known)
        ratios = ch09.ratios_elsewhere(plan(Request(target_loss=loss), known), known)
        assert loss in set(ratios["loss"])
        assert ratios["loss"].nunique() < 3

    def test_of_one_architecture_there_is_no_ratio(self, known: dict[str, Knowledge]) -> None:
        alone = plan(Request(target_loss=2.8, utilization=0.4), {"xlstm": known["xlstm"]})
        hours = count(alone.models[0].numbers["train_gpu_hours"])
        assert ch09.loss_hours_facts(alone, alone) == {
            "c9_loss_hours": f"A loss of 2.800 takes {hours} (xLSTM) GPU-hours of training"
        }
        assert len(rows_of(ch09.loss_hours_table(alone, alone))) == 1

    def test_a_ratio_the_other_way_round(self, plans: tuple[Plan, Plan]) -> None:
        ratio = HoursRatio(first="transformer", second="xlstm", ratio=2.0, interval=(1.6, 2.5))
        turned = replace(plans[0], gpu_hours_ratios=(ratio,))
        found = utilization.ratio_between(turned, "xlstm", "transformer")
        assert (found.ratio, found.interval) == (0.5, (0.4, 0.625))
        assert utilization.ratio_between(turned, "transformer", "xlstm") is ratio
        assert utilization.ratio_words(replace(ratio, interval=(np.nan, np.nan))) == "2.00"


def test_where_the_utilization_comes_from(planned: Plan, known: dict[str, Knowledge]) -> None:
    said = ch09.utilization_facts(planned, known)
    best = ch09.numbers_of(planned, "loss-optimal")
    assert said["c9_utilization"].startswith(f"{percent(best['transformer']['utilization'])} (Transformer) and ")
    assert said["c9_utilization_source"].startswith(
        "It comes from the authors' training logs: T\u00a0=\u00a02048, 8192 and 16384 (Transformer) and "
        "T\u00a0=\u00a08192 and 16384 (xLSTM), on NVIDIA H100 SXM, with their kernels, GPU counts and full "
    )
    given = utilization.source_words(replace(planned.request, utilization=0.3), known)
    assert given == "It is 30 % for every model of this plan, as given"
    one = replace(known["xlstm"], utilization=None)
    assert utilization.source_words(planned.request, {"xlstm": one}) == "The logs lack xLSTM, so 40 % is assumed there"
    own = replace(known["transformer"].utilization, source="mine.csv", hardware="a100-sxm")
    both = utilization.source_words(
        planned.request, {"transformer": replace(known["transformer"], utilization=own), "xlstm": one}
    )
    assert both == (
        "It comes from the training logs: T\u00a0=\u00a02048, 8192 and 16384 (Transformer), on NVIDIA A100 SXM "
        "80 GB, with their kernels and GPU counts. The logs lack xLSTM, so 40 % is assumed there"
    )


def test_solutions(known: dict[str, Knowledge]) -> None:
    alone = {"xlstm": known["xlstm"]}
    batches = sweep(REQUEST, alone, "batch_size", [1, 8])
    rows = rows_of(ch09.batches_table(batches, 1.1e12))
    costs = [float(row["GPU-hours per 10⁹ tokens"]) for row in rows if row["model"] == "cost-optimal"]
    assert costs == sorted(costs, reverse=True), "a batch shares the weights"
    devices = sweep(REQUEST, alone, "hardware", ["h100-sxm", "rtx-4090"])
    shown = rows_of(ch09.devices_table(devices))
    assert [row["hardware"] for row in shown] == ["NVIDIA H100 SXM", "NVIDIA GeForce RTX 4090"]
    assert {row["architecture"] for row in shown} == {"xLSTM"}
    plans = {share: plan(Request(gpu_hours=1000, utilization=share), alone) for share in (0.25, 0.5)}
    slow, fast = rows_of(ch09.hours_table(plans))
    assert float(fast["loss (nats/token)"]) < float(slow["loss (nats/token)"])


def test_tables_of_a_reader(tmp_path: Path) -> None:
    runs, timings, logs = ch09.load_tables(None, None, None)
    assert timings is None
    assert logs is None
    load_training_logs().head(40).to_csv(tmp_path / "logs.csv", index=False)
    runs.head(30).to_csv(tmp_path / "runs.csv", index=False)
    load_paper_inference().to_csv(tmp_path / "timings.csv", index=False)
    runs, timings, logs = ch09.load_tables(*(tmp_path / f"{name}.csv" for name in ("runs", "timings", "logs")))
    assert len(runs) == 30
    assert logs is not None
    assert len(logs) == 40
    assert timings is not None
    assert len(timings) == len(load_paper_inference())
