"""Tables of the project's own studies: they are what their records hold, and the records are runs of their design."""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from companion.hardware import get_hardware
from companion.paths import data_dir
from companion.runs.load import load_runs
from companion.study.corpus import open_corpus
from companion.study.sweep import Plan, make_plan, read_design, write_plan
from companion.study.sweep.archive import unpack_records
from companion.study.sweep.collect import collect, write_collected
from companion.study.train import usual_learning_rate

#: Names of the studies, and how near the usual learning rates are to the best of those tried, nats per token.
STUDIES = {"study": 0.03, "study_v1024": 0.01}


def file_of(study: str, rest: str) -> Path:
    return data_dir() / f"{study}_{rest}"


@pytest.fixture(scope="module", params=STUDIES)
def study(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plan(study: str) -> Plan:
    return make_plan(read_design(file_of(study, "design.toml")), get_hardware("h200-sxm"))


@pytest.fixture(scope="module")
def runs(study: str) -> pd.DataFrame:
    return load_runs(file_of(study, "runs.csv"))


@pytest.fixture(scope="module")
def records(study: str) -> list[dict[str, Any]]:
    with gzip.open(file_of(study, "runs_records.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_tables_are_what_the_records_hold(study: str, plan: Plan, tmp_path: Path) -> None:
    """All four files again, bit for bit: with the design and the records anybody can make them."""
    write_plan(plan, tmp_path)
    assert unpack_records(file_of(study, "runs_records.jsonl.gz"), tmp_path) > 50
    written = write_collected(collect(plan, tmp_path), tmp_path / f"{study}_runs.csv")
    assert len(written) == 4
    for path in written:
        ours, again = ((folder / path.name).read_bytes() for folder in (data_dir(), tmp_path))
        if path.suffix == ".gz":
            ours, again = gzip.decompress(ours), gzip.decompress(again)
        assert ours == again, path.name


def test_every_record_says_where_it_comes_from(records: list[dict[str, Any]]) -> None:
    for record in records:
        assert record["device"].startswith("NVIDIA ")
        assert record["launch"] == "graph"
        assert {"torch", "triton", "numpy", "python"} <= set(record["versions"])
        assert len(record["git_commit"].removesuffix("+changes")) == 40
        assert datetime.fromisoformat(record["date"]).tzinfo is not None


def test_no_loss_is_below_the_floor(plan: Plan, runs: pd.DataFrame) -> None:
    corpus = open_corpus(plan.runs[0].recipe.corpus)
    for length, group in runs.groupby("context_length"):
        floor = corpus.loss_floor(int(str(length)))
        assert floor is not None
        assert group["loss_floor"].to_numpy() == pytest.approx(floor[0], abs=1e-5)
        assert group["val_loss"].min() > floor[0]


def test_usual_learning_rates_are_near_the_best(study: str, plan: Plan, runs: pd.DataFrame) -> None:
    """Within what `usual_learning_rate` says of the best of four rates."""
    losses = runs.set_index("run")["val_loss"]
    tried: dict[tuple[str, str], dict[float, float]] = {}
    rated = {run.run_id for run in plan.runs if run.experiment == "learning_rate"}
    beside = {(run.kind, run.size) for run in plan.runs if run.run_id in rated}
    for run in plan.runs:
        recipe = run.recipe
        same = run.isoflop_budget == 6e14 and recipe.context_length == 1024 and (run.kind, run.size) in beside
        if same and run.run_id in losses.index:
            usual = usual_learning_rate(recipe.architecture)
            tried.setdefault((run.kind, run.size), {})[recipe.learning_rate / usual] = losses[run.run_id]
    assert len(tried) == 6
    for cell, found in tried.items():
        factors = sorted(found)
        assert factors == pytest.approx([0.5, 1, 2, 4], rel=1e-5), cell
        assert found[factors[1]] < min(found.values()) + STUDIES[study], cell
