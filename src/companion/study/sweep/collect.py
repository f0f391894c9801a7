"""Records of a study as tables: runs, logs and curves, in the form that every command of the package reads."""

import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from companion.errors import InputError
from companion.formatting import plural
from companion.paths import check_target, write_whole
from companion.study.sweep.archive import packed_records
from companion.study.sweep.plan import Plan, PlannedRun
from companion.study.sweep.status import RunState, run_states
from companion.study.train.recipe import architecture_from_dict

#: Shapes of the model that a run table has columns for.
SHAPES = (
    "d_model", "n_layers", "n_heads", "d_qk", "d_hv", "d_ff", "vocab_size", "attention_every", "attention_heads",
)  # fmt: skip
#: Decimals of losses, and significant digits of what else is measured.
LOSS_DECIMALS, DIGITS = 6, 6


@dataclass(frozen=True)
class Collected:
    """What a study has found so far.

    Attributes
    ----------
    runs
        a run table: one row per finished run. The last columns are `run`, its identity, and `loss_floor`, the lowest
        loss that the corpus allows, nats per token.
    logs
        a table of training logs: finished and diverged runs, with `status`.
    curves
        points of all curves: `run`, `step`, `train_loss`, `grad_norm`, `val_loss`.
    records
        the records themselves.
    notes
        what is left out of these and why, a line each.
    """

    runs: pd.DataFrame
    logs: pd.DataFrame
    curves: pd.DataFrame
    records: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def collect(plan: Plan, folder: Path) -> Collected:
    """The records of the runs of a plan as tables, in the order of the plan.

    Raises
    ------
    InputError
        if no run has a record.
    """
    states = run_states(plan, folder)
    done = [each for each in states if each.record is not None]
    if not done:
        raise InputError(f"{folder}: no run of its plan has a record yet; `companion study run` trains them")
    finished = [each for each in done if each.state == "finished"]
    return Collected(
        runs=_filled([_run_row(each.run, _record(each)) for each in finished]),
        logs=pd.DataFrame([_log_row(each.run, _record(each)) for each in done]),
        curves=pd.concat([_points(_record(each)) for each in done], ignore_index=True),
        records=tuple(_record(each) for each in done),
        notes=tuple(_notes(states)),
    )


def write_collected(found: Collected, runs: Path) -> list[Path]:
    """Write the run table, and beside it `NAME_logs.csv`, `NAME_curves.csv.gz` and `NAME_records.jsonl.gz`.

    The records are all that another machine needs to go on with the study (`archive.unpack_records`).

    Parameters
    ----------
    runs
        file of the run table.

    Raises
    ------
    InputError
        if a file cannot be written; then none is, as long as all can be opened.
    """
    stem = runs.with_suffix("")
    ends = ("_logs.csv", "_curves.csv.gz", "_records.jsonl.gz")
    logs, curves, records = (stem.with_name(stem.name + end) for end in ends)
    for path in (runs, logs, curves, records):
        check_target(path)
    write_whole(runs, found.runs.to_csv(index=False))
    write_whole(logs, found.logs.to_csv(index=False))
    packed = gzip.compress(found.curves.to_csv(index=False).encode(), mtime=0)  # no date: equal tables give equal files
    write_whole(curves, packed)
    write_whole(records, packed_records(found.records))
    return [runs, logs, curves, records]


def _filled(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table without the columns that none has a value for."""
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def _record(state: RunState) -> Mapping[str, Any]:
    assert state.record is not None
    return state.record


def _shapes(record: Mapping[str, Any]) -> dict[str, Any]:
    shapes = architecture_from_dict(record["recipe"]["architecture"]).shapes()
    return {name: shapes.get(name) for name in SHAPES}  # always in this order, whichever run is the first


def _shared(run: PlannedRun, record: Mapping[str, Any]) -> dict[str, Any]:
    recipe = record["recipe"]
    return {
        "architecture": run.kind,
        "context_length": recipe["context_length"],
        "num_params": record["num_params"],
        "num_tokens": record["num_tokens"],
        "train_flops": record["train_flops"],
    }


def _run_row(run: PlannedRun, record: Mapping[str, Any]) -> dict[str, Any]:
    recipe = record["recipe"]
    return {
        **_shared(run, record),
        "experiment": run.experiment,
        "isoflop_budget": run.isoflop_budget,
        "val_loss": round(record["val_loss"], LOSS_DECIMALS),
        "train_loss": round(record["train_loss"], LOSS_DECIMALS),
        **_shapes(record),
        "seed": recipe["seed"],
        "batch_size_seqs": recipe["batch_size_seqs"],
        "train_steps": recipe["train_steps"],
        "learning_rate": recipe["learning_rate"],
        "source": "trained",
        "run": record["run_id"],
        "loss_floor": _rounded(record["loss_floor"]),
    }


def _log_row(run: PlannedRun, record: Mapping[str, Any]) -> dict[str, Any]:
    recipe, steps = record["recipe"], record["step"]
    return {
        "run": record["run_id"],
        **_shared(run, record),
        # of a run that diverged, what was planned: tokens are steps times batch
        "num_tokens": recipe["batch_size_seqs"] * recipe["context_length"] * recipe["train_steps"],
        "train_flops": run.recipe.train_flops,
        "batch_size_seqs": recipe["batch_size_seqs"],
        "train_steps": recipe["train_steps"],
        "last_logged_step": steps,
        "learning_rate": recipe["learning_rate"],
        "warmup_steps": recipe["warmup_steps"],
        "num_gpus": record["num_gpus"] or None,  # 0: a CPU trained
        "step_time_s": _rounded(record["seconds"] / steps if record["seconds"] else None),
        "train_loss": None if record["train_loss"] is None else round(record["train_loss"], LOSS_DECIMALS),
        "val_loss": None if record["val_loss"] is None else round(record["val_loss"], LOSS_DECIMALS),
        **{name: value for name, value in _shapes(record).items() if name in SHAPES[:6]},
        "group": run.experiment,
        "status": record["status"],
        "utilization": _rounded(record["utilization"]),
        "processes_per_gpu": record.get("processes_per_gpu"),
        "device": record["device"],
    }


def _points(record: Mapping[str, Any]) -> pd.DataFrame:
    curve = record["curve"]
    points = pd.DataFrame(
        {"step": curve["step"], "train_loss": curve["loss"], "grad_norm": curve["grad_norm"]}, dtype=float
    )
    evaluations = pd.DataFrame(record["evaluations"], columns=["step", "val_loss"], dtype=float)
    joined = points.merge(evaluations, how="outer", on="step").sort_values("step", kind="stable")
    joined["step"] = joined["step"].astype(int)
    joined[["train_loss", "val_loss"]] = joined[["train_loss", "val_loss"]].round(LOSS_DECIMALS)
    joined["grad_norm"] = joined["grad_norm"].map(_rounded)
    return pd.concat([pd.Series(record["run_id"], index=joined.index, name="run"), joined], axis="columns")


def _rounded(value: Any, digits: int = DIGITS) -> float | None:
    """A number with so many significant digits; None stays."""
    return None if value is None or pd.isna(value) else float(f"{value:.{digits}g}")


def _notes(states: Iterable[RunState]) -> Iterable[str]:
    states = list(states)
    counts = {state: sum(each.state == state for each in states) for state in ("planned", "running", "diverged")}
    if number := counts["planned"] + counts["running"]:
        yield f"{plural(number, 'run')} of the plan {'is' if number == 1 else 'are'} not trained yet"
    if number := counts["diverged"]:
        yield f"{plural(number, 'run')} diverged: in logs and curves, not in the run table, which needs a loss"
    for each in states:
        if each.state == "damaged":
            yield f"{each.reason}: left out, and trained again by `companion study run`"
