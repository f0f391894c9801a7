"""From the logs of runs to the two tables: one row a run, and curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.formatting import plural, quoted
from companion.runs.import_.derive import derive
from companion.training.import_.run_log import RunLog, attempts
from companion.training.logs import CURVE_SCHEMA, LOG_SCHEMA, last_attempt

#: Steps at the beginning that the step time leaves out: compilation and warm-up of caches.
SKIPPED_STEPS = 200
#: Records of a run that its curve keeps.
POINTS = 100
#: Restarts of one run beyond which the records are out of order.
_MOST_RESTARTS = 50
#: A run whose loss ends this far above its lowest has diverged, nats per token.
_USELESS = 1.0
#: Median gradient norm, before clipping, of the last tenth of a run in which nothing is learned. Usual is about 1.
_USELESS_NORM = 1e4
#: Beyond it float64 no longer tells whole numbers apart.
_LARGEST_COUNT = 2**53
#: Digits of times, norms and losses.
_DIGITS = {"step_time_s": 6, "step_time_q25_s": 6, "step_time_q75_s": 6, "grad_norm": 4}
_NEEDED = ("context_length", "num_params", "num_tokens", "train_flops", "train_steps")


@dataclass
class Row:
    """What one run's log comes to: `cells` by column, its `curve`, and `notes`."""

    cells: dict[str, Any]
    curve: pd.DataFrame
    notes: list[str]


def summarize(log: RunLog, skipped_steps: int = SKIPPED_STEPS, points: int | None = POINTS) -> Row:
    """The row and the curve of one run.

    Parameters
    ----------
    log
        its records in the order in which they were written. Where the steps go back, the run was restarted: of a step
        that was repeated the later record counts, and the curve keeps both.
    skipped_steps
        steps at the beginning of the run, of whose times the median takes no notice.
    points
        records of the curve; None for all.

    Raises
    ------
    InputError
        one line: the log has no steps, or the records are out of order.
    """
    history, notes = _records(log)
    final = last_attempt(history)
    values: dict[str, Any] = {"run": log.run, **log.settings}
    last = int(final["step"].iloc[-1])
    if pd.isna(values.get("train_steps", np.nan)):
        values["train_steps"] = _steps_of(values) or last
        if values["train_steps"] == last:
            notes.append(f"train_steps = {last}, the last logged step")
    if last > float(values["train_steps"]):
        notes.append(f"logged up to step {last}, beyond train_steps = {values['train_steps']:g}: train_steps is {last}")
        values["train_steps"] = last
    values["last_logged_step"] = last
    values |= _times(final, history, skipped_steps, notes)
    for name in ("train_loss", "val_loss"):
        logged = final.loc[final[name].notna(), name]
        values[name] = float(logged.iloc[-1]) if len(logged) else np.nan
        if lost := int(np.isinf(history[name]).sum()):
            notes.append(f"{name}: {plural(lost, 'record')} not finite, an empty cell each")
    values["status"] = _status(final, values, notes)
    if values["status"] == "stopped":
        values["val_loss"] = np.nan  # a loss before the end is not the loss of this many tokens
    if pd.isna(values.get("num_gpus", np.nan)):
        notes.append("no GPU count: the cell is empty, and there is no throughput (--map num_gpus=8 sets it)")
    for name in ("train_loss", "val_loss", "grad_norm"):
        values[name] = values[name] if np.isfinite(values.get(name, np.nan)) else np.nan
    return Row(
        values, _curve(history, log.run, points), [f"run {quoted(log.run)}: {note}" for note in (*log.notes, *notes)]
    )


def table_of(
    rows: Sequence[Row], source: str, architecture: str | None = None, convention: str | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """The table of logs with sizes, tokens and FLOPs filled in where they follow, and how, in words.

    Raises
    ------
    InputError
        one line that names the run and the column that neither is given nor follows.
    """
    logged = pd.DataFrame([row.cells for row in rows])
    values = logged.dropna(axis=1, how="all")
    if architecture is not None:
        values["architecture"] = architecture
    losses = values.get("val_loss", np.nan)
    derived = derive(values.drop(columns="val_loss", errors="ignore"), source, convention)
    table = derived.table.assign(val_loss=losses)
    if "train_loss" in logged:
        table["train_loss"] = logged["train_loss"]
    for name in _NEEDED:
        missing = table[name].isna() if name in table else pd.Series(True, index=table.index)
        if missing.any():
            run = table["run"].to_numpy()[missing.to_numpy().argmax()]
            raise InputError(
                f"{source}: run {quoted(run)} has no {name}, and it does not follow from other columns: give it with "
                f"--map {name}=NAME-OR-NUMBER, or with a table of settings (--settings FILE)"
            )
    for name in ("context_length", "num_params", "num_tokens", "train_steps"):
        table[name] = _whole(pd.to_numeric(table[name]).astype(float).round(), table["run"], source)
    for name, column in LOG_SCHEMA.columns.items():
        if name not in table and column.required:
            table[name] = np.nan
    table["train_flops"] = [float(f"{value:.6g}") for value in table["train_flops"]]
    for name, digits in _DIGITS.items():
        if name in table:
            table[name] = [float(f"{value:.{digits}g}") for value in table[name].astype(float)]
    for name in ("train_loss", "val_loss"):
        if name in table:
            table[name] = table[name].astype(float).round(5)
    notes = [f"derived: {note}" for note in derived.notes]
    return table[[name for name in LOG_SCHEMA.columns if name in table]], notes


def _whole(values: pd.Series, runs: pd.Series, source: str) -> pd.Series:
    """Counts as integers, as long as float64 can tell them apart."""
    if (wrong := values.abs() > _LARGEST_COUNT).any():
        row: Any = wrong.idxmax()
        raise InputError(
            f"{source}: run {quoted(runs[row])}: {values.name} {values[row]:.6g} is larger than 2^53: another unit?"
        )
    return values.astype(np.int64)


def _records(log: RunLog) -> tuple[pd.DataFrame, list[str]]:
    """The history with one record a step and attempt, steps counted from 1."""
    history, notes = log.history, list[str]()
    history = history[history.drop(columns=["step", "elapsed_s"]).notna().any(axis=1)]
    if history.empty:
        raise InputError(f"{log.where}: run {quoted(log.run)} logged no loss and no time")
    if (wrong := ~history["step"].between(0, _LARGEST_COUNT) | (history["step"] % 1 != 0)).any():
        row: Any = wrong.idxmax()
        raise InputError(
            f"{log.where}: row {row}, column 'step': {history['step'][row]:g} is not a whole number of steps, "
            "at most 2^53"
        )
    again = history.eq(history.shift()) | (history.isna() & history.shift().isna())
    history = history[~again.all(axis=1)]  # a record written twice
    attempt = attempts(history)
    if attempt[-1] > _MOST_RESTARTS:
        raise InputError(
            f"{log.where}: run {quoted(log.run)}: the steps go back {attempt[-1]} times: sort the records by time, or "
            "name the column that tells runs apart (--map run=NAME)"
        )
    if attempt[-1]:
        notes.append(f"restarted {plural(int(attempt[-1]), 'time')}: of a repeated step the later record counts")
    table = history.assign(attempt=attempt).groupby(["attempt", "step"], as_index=False).last()
    zero = table["step"] == 0
    if zero.any() and table.loc[zero, ["train_loss", "step_time_s", "grad_norm"]].notna().any(axis=None):
        notes.append("steps are counted from 0 in the log, from 1 in the tables")
        table["step"] += 1
    elif zero.any():
        notes.append("a validation before the first step is left out")
        table = table[~zero]
    if table.empty:
        raise InputError(f"{log.where}: run {quoted(log.run)} logged nothing after step 0")
    return table.reset_index(drop=True), notes


def _steps_of(values: dict[str, Any]) -> float | None:
    """Steps that follow from tokens, batch and context; None if they do not."""
    batch, length = values.get("batch_size_seqs"), values.get("context_length")
    if not batch or not length or not values.get("num_tokens"):
        return None
    steps = values["num_tokens"] / (batch * length)
    return steps if steps == round(steps) else None


def _times(final: pd.DataFrame, history: pd.DataFrame, skipped: int, notes: list[str]) -> dict[str, float]:
    """Median and quartiles of the step time, seconds, over the steps after the first ones."""
    times = final.loc[final["step_time_s"].gt(0) & np.isfinite(final["step_time_s"]), ["step", "step_time_s"]]
    if times.empty and history["elapsed_s"].notna().sum() > 2:
        known = history[history["elapsed_s"].notna()]
        each = known["elapsed_s"].diff() / known["step"].diff()
        times = known.assign(step_time_s=each)[["step", "step_time_s"]]
        times = times[np.isfinite(each) & (each > 0) & (known["step"].diff() > 0)]
        if len(times):
            notes.append("step_time_s from differences of wall time between records, validation included")
    if times.empty:
        notes.append("no step times: the cell is empty, and there is no throughput")
        return {"step_time_s": np.nan}
    steady = times.loc[times["step"] > skipped, "step_time_s"]
    if steady.empty:
        steady = times["step_time_s"].iloc[1:] if len(times) > 1 else times["step_time_s"]
        notes.append(f"no step time after step {skipped}: the median is of {plural(len(steady), 'record')} before it")
    elif times["step_time_s"].iloc[0] > 5 * steady.median() and times["step"].iloc[0] <= skipped:
        first, usual = times["step_time_s"].iloc[0], steady.median()
        notes.append(f"the first step took {first:.3g} s, later ones {usual:.3g} s: the first {skipped} are left out")
    low, middle, high = np.quantile(steady, [0.25, 0.5, 0.75])
    return {"step_time_s": middle, "step_time_q25_s": low, "step_time_q75_s": high}


def _status(final: pd.DataFrame, values: dict[str, Any], notes: list[str]) -> str:
    """`stopped` if more than one record is missing at the end, `diverged` if the loss is useless there."""
    state = str(values.pop("state", "")).lower()
    if values.get("status") in ("finished", "diverged", "stopped"):
        return values["status"]
    steps = final["step"]
    gap = float(steps.diff().median()) if len(steps) > 1 else 1.0
    missing = float(values["train_steps"]) - values["last_logged_step"]
    if missing >= max(gap, 1.0):
        notes.append(f"cut off at step {values['last_logged_step']} of {float(values['train_steps']):.0f}: stopped")
        return "stopped"
    if state in ("crashed", "failed", "killed"):
        notes.append(f"stopped: its state is {state}")
        return "stopped"
    for name in ("val_loss", "train_loss"):
        logged = final.loc[final[name].notna(), name]
        if len(logged) and (not np.isfinite(logged.iloc[-1]) or logged.iloc[-1] > logged.min() + _USELESS):
            notes.append(f"diverged: {name} ends at {logged.iloc[-1]:.4g}, its lowest is {logged.min():.4g}")
            return "diverged"
    norms = final["grad_norm"].dropna()
    if len(norms) and norms.iloc[-max(len(norms) // 10, 1) :].median() > _USELESS_NORM:
        notes.append(f"diverged: the gradient norm ends at {norms.iloc[-1]:.3g}")
        return "diverged"
    return "finished"


def _curve(history: pd.DataFrame, run: str, points: int | None) -> pd.DataFrame:
    """The records of a curve: evenly chosen by number, with the first, the last, and the two at each restart."""
    curve = history[["step", "train_loss", "grad_norm", "val_loss"]]
    curve = curve[curve.drop(columns="step").notna().any(axis=1)]
    if points is not None and len(curve) > points:
        keep = set(np.linspace(0, len(curve) - 1, points).round().astype(int))
        validated = np.flatnonzero(curve["val_loss"].notna())
        keep |= set(validated[np.linspace(0, len(validated) - 1, min(points, len(validated))).round().astype(int)])
        back = np.flatnonzero(curve["step"].diff() <= 0)
        curve = curve.iloc[np.array(sorted(keep | set(back) | set(back - 1)), dtype=int)]
    curve = curve.replace([np.inf, -np.inf], np.nan).assign(run=run, step=curve["step"].astype(np.int64))
    curve["grad_norm"] = [float(f"{value:.4g}") for value in curve["grad_norm"]]
    curve[["train_loss", "val_loss"]] = curve[["train_loss", "val_loss"]].round(5)
    return curve[list(CURVE_SCHEMA.columns)]
