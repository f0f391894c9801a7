"""Which runs belong to what, what is trained of the plan, and what the page says of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from html_tables import text_of

from companion.benchmarks.records import append_record, new_record
from companion.chapters import ch15
from companion.chapters.ch15 import design
from companion.chapters.ch15.study import OwnStudy, planned, step_times, the
from companion.errors import InputError, NotApplicable
from companion.paths import data_dir


def test_the_recorded_study_is_a_part_of_its_plan(study: OwnStudy) -> None:
    assert study.plan is not None
    assert study.pair == ("xlstm", "transformer")
    assert int(study.plan["trained"].sum()) == len(study.runs)
    assert set(study.at_context["experiment"]) <= {"isoflop", "tokenparam"}
    assert study.contexts == sorted(study.runs["context_length"].unique())
    facts = ch15.plan_facts(study)
    assert facts["c15_num_planned"] == f"{len(study.plan):,}"
    assert facts["c15_num_trained"] == f"{len(study.runs):,}"
    assert "Token/" in text_of(ch15.show_plan(study))


def test_a_plan_that_is_trained_whole_has_nothing_missing(study: OwnStudy, whole: OwnStudy) -> None:
    assert ch15.plan_facts(whole)["c15_left"] == "Every planned run is trained"
    assert "none" in text_of(ch15.show_missing(whole))
    assert study.plan is not None
    one_left = study.plan.assign(trained=np.arange(len(study.plan)) > 0)
    facts = ch15.plan_facts(replace(study, plan=one_left))
    assert str(facts["c15_left"]).startswith("1 planned run is not trained yet: ")
    page = text_of(ch15.show_missing(replace(study, plan=one_left)))
    assert str(one_left["size"].iloc[0]) in page


def test_runs_are_matched_by_their_identity(study: OwnStudy) -> None:
    design_file = data_dir() / "study_design.toml"
    assert planned(design_file, study.runs.head(3))["trained"].sum() == 3
    assert not planned(design_file, study.runs.drop(columns="run"))["trained"].any()


def test_a_table_without_a_plan_or_logs_leaves_these_sections_out(study: OwnStudy) -> None:
    bare = replace(study, plan=None, logs=None, curves=None, steps=None)
    for function in (ch15.show_plan, ch15.plan_facts, ch15.log_facts, ch15.show_curves, ch15.show_steps):
        with pytest.raises(NotApplicable):
            function(bare)
    assert ch15.load_study(data_dir() / "runs.csv").plan is None
    with pytest.raises(InputError, match="context_length 77"):
        ch15.load_study(context_length=77)


def test_logs_say_who_diverged(study: OwnStudy) -> None:
    assert study.logs is not None
    facts = ch15.log_facts(study)
    hours = (study.logs["step_time_s"] * study.logs["train_steps"]).sum() / 3600
    assert float(str(facts["c15_process_hours"])) == pytest.approx(hours, rel=0.01)
    assert design.diverged_verdict(0, 108) == "None of the 108 runs diverged"
    assert design.diverged_verdict(2, 110).startswith("2 runs of 110 diverged")


def test_steps_alone_on_the_gpu(study: OwnStudy, steps: pd.DataFrame, tmp_path: Path) -> None:
    timed = replace(study, steps=steps)
    page = text_of(ch15.show_steps(timed))
    assert "graph" in page
    assert "eager" not in page, "the fastest launch alone"
    facts = ch15.step_facts(timed)
    assert facts["c15_largest_utilization"] == "14 %"
    assert [facts[f"c15_{which}_computing"] for which in ("smallest", "largest")] == ["10 %", "85 %"]
    assert step_times(tmp_path / "study.jsonl") is None
    recorded = steps.drop(columns=["vocab_size", "computing", "moving", "latency"])
    rows = recorded.assign(part="step", deterministic=[True, True, False, False]).to_dict("records")
    results: list[dict[str, Any]] = [
        {"part": "draw", "seconds": 1.0},
        *({str(k): v for k, v in row.items()} for row in rows),
    ]
    for device, known in (("NVIDIA H200", True), ("A GPU", False)):
        parameters = {"device": device, "vocab_size": 1024}
        append_record(tmp_path / "study.jsonl", new_record("study", "a command", parameters, results))
        found = step_times(tmp_path / "study.jsonl")
        assert found is not None
        assert len(found) == 2
        assert (found[["computing", "moving", "latency"]] > 0).all(axis=None) == known
        assert ("–" in text_of(ch15.show_steps(replace(study, steps=found)))) != known


def test_names_in_sentences() -> None:
    assert [the(name) for name in ("hybrid", "xlstm", "gpt")] == ["the hybrid", "the xLSTM", "gpt"]


def test_curves_of_one_budget(study: OwnStudy) -> None:
    facts = ch15.curve_facts(study)
    low, high = (float(text.replace("−", "-")) for text in str(facts["c15_overfit"]).split(" to "))
    gap = study.runs["val_loss"] - study.runs["train_loss"]
    assert (low, high) == pytest.approx((gap.min(), gap.max()), abs=6e-4)
    assert str(facts["c15_curve_runs"]).endswith("runs")
    assert "Training loss of the runs" in text_of(ch15.show_curves(study))
