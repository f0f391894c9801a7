"""How far a study is: which runs of its plan have a record, which are being trained, and which wait. Needs torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from companion.study.sweep.plan import Plan, PlannedRun
from companion.study.train.records import DamagedRecord, read_record, record_path
from companion.study.train.setting import is_locked

#: States of a planned run, in the order in which they are shown.
STATES = ("finished", "diverged", "running", "damaged", "planned")


@dataclass(frozen=True)
class RunState:
    """A planned run, its state of `STATES`, its record if it has one, and why this cannot be read."""

    run: PlannedRun
    state: str
    record: dict[str, Any] | None = None
    reason: str = ""


def run_states(plan: Plan, folder: Path) -> list[RunState]:
    """The state of every run of a plan, in its order.

    A record that was cut short or changed is `damaged`: its run is trained again.
    """
    return list(_states(plan, folder))


def summary(states: list[RunState]) -> pd.DataFrame:
    """How many runs are in which state: a row per experiment, architecture and context length.

    The last columns are the FLOPs of these runs, the share that is trained, and the predicted seconds that are left.
    """
    rows = [
        {
            "experiment": each.run.experiment,
            "architecture": each.run.kind,
            "context_length": each.run.recipe.context_length,
            **{state: int(each.state == state) for state in STATES},
            "train_flops": each.run.recipe.train_flops,
            "done": each.run.recipe.train_flops if each.record is not None else 0.0,
            "seconds_left": 0.0 if each.record is not None else each.run.seconds,
        }
        for each in states
    ]
    frame = pd.DataFrame(rows)
    table = frame.groupby(["experiment", "architecture", "context_length"], as_index=False, sort=False).sum()
    table["done"] = table["done"] / table["train_flops"]
    return table


def seconds_left(states: list[RunState]) -> float:
    """Predicted seconds of what is not trained, corrected by what finished runs took compared with their prediction.

    Runs that shared a GPU count with their part of the time. Where a record does not say how many shared it, it does
    not count.
    """
    done, measured = [], 0.0
    for each in states:
        record = each.record or {}
        if record.get("seconds") and record.get("processes_per_gpu"):
            done.append(each)
            seconds = float(record["seconds"]) + float(record["seconds_compile"])
            measured += seconds / int(record["processes_per_gpu"])
    predicted = sum(each.run.seconds for each in done)
    left = sum(each.run.seconds for each in states if each.record is None)
    return left * measured / predicted if predicted else left


def _states(plan: Plan, folder: Path) -> Iterator[RunState]:
    for run in plan.runs:
        path = record_path(folder, run.run_id)
        if path.exists():
            try:
                record = read_record(path)
            except DamagedRecord as error:
                yield RunState(run, "damaged", reason=str(error))
                continue
            yield RunState(run, str(record["status"]), record)
        else:
            yield RunState(run, "running" if is_locked(folder, run.run_id) else "planned")
