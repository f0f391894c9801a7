"""Tables of training logs: one row a run, with step times and GPU counts; and the curves of these runs."""

import os
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from companion.errors import InputError
from companion.formatting import name_rows, plural, quoted
from companion.paths import data_dir
from companion.runs.schema import MAX_LOSS
from companion.tables import MAX_TABLE_BYTES, open_table, read_table

#: What became of a run: `stopped` was ended early, `diverged` ended with a useless loss.
STATUSES = ("finished", "diverged", "stopped")


def _number(least: float = 0.0, most: float = np.inf, *, needed: bool = True, whole: bool = False) -> pa.Column:
    words = "must be positive" if least == 0 and most == np.inf else f"is not between {least:g} and {most:g}"
    checks = [pa.Check.gt(0, error=words)] if least == 0 else [pa.Check.ge(least, error=words)]
    if most < np.inf:
        checks.append(pa.Check.lt(most, error=words))
    return pa.Column(int if whole else float, checks, nullable=not needed, required=needed)


#: No optimizer step takes less than 10 µs or more than a day, seconds.
_STEP_TIME = (1e-5, 86_400.0)
_WHOLE_OR_NONE = (pa.Check(lambda values: values == np.rint(values), error="is not a whole number"),)


def _count(*, zero: bool = False) -> pa.Column:
    """A whole number that may be missing."""
    sign = pa.Check.ge(0, error="must not be negative") if zero else pa.Check.gt(0, error="must be positive")
    return pa.Column(float, [sign, *_WHOLE_OR_NONE], nullable=True, required=False)


LOG_SCHEMA = pa.DataFrameSchema(
    {
        "run": pa.Column(object, nullable=False, required=False, unique=True),
        "architecture": pa.Column(object),
        "context_length": _number(whole=True),
        "num_params": _number(whole=True),
        "num_tokens": _number(whole=True),
        "train_flops": _number(),
        "batch_size_seqs": _count(),
        "train_steps": _number(whole=True),
        "last_logged_step": _count(),
        "learning_rate": _number(needed=False),
        "warmup_steps": _count(zero=True),
        "cooldown_steps": _count(zero=True),
        "num_gpus": pa.Column(float, [pa.Check.gt(0, error="must be positive"), *_WHOLE_OR_NONE], nullable=True),
        "fsdp_size": _count(),
        "step_time_s": pa.Column(
            float,
            pa.Check.in_range(*_STEP_TIME, error="is not the time of a step in seconds (1e-5 to 86400)"),
            nullable=True,
        ),
        "step_time_q25_s": _number(*_STEP_TIME, needed=False),
        "step_time_q75_s": _number(*_STEP_TIME, needed=False),
        "train_loss": _number(most=MAX_LOSS, needed=False),
        "val_loss": pa.Column(
            float,
            pa.Check.in_range(
                0, MAX_LOSS, include_min=False, include_max=False, error="is not a loss in nats per token"
            ),
            nullable=True,
        ),
        **{name: _count() for name in ("d_model", "n_layers", "n_heads", "d_qk", "d_hv")},
        "d_ff": _count(zero=True),
        "group": pa.Column(object, nullable=True, required=False),
        "in_runs_csv": pa.Column(
            float, pa.Check.isin([0.0, 1.0], error="is not 0 or 1"), nullable=True, required=False
        ),
        "status": pa.Column(
            object, pa.Check.isin(STATUSES, error=f"is not one of {', '.join(STATUSES)}"), nullable=True, required=False
        ),
    },
    name="training logs",
)
"""Columns, types and ranges of a table of training logs; units as in `data/README.md`."""

CURVE_SCHEMA = pa.DataFrameSchema(
    {
        "run": pa.Column(object),
        "step": _number(whole=True),
        "train_loss": pa.Column(float, nullable=True, required=False),
        "grad_norm": pa.Column(float, nullable=True, required=False),
        "val_loss": pa.Column(float, nullable=True, required=False),
    },
    name="training curves",
)
"""Columns of a table of curves: `step` counts from 1, losses in nats per token; a cell is empty where nothing was
logged or the value was not finite."""


def load_training_logs(path: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """A table of training logs, one row a run.

    Parameters
    ----------
    path
        a CSV file with the columns of `data/training_logs.csv` (see `data/README.md`), of which `architecture,
        context_length, num_params, num_tokens, train_flops, train_steps, num_gpus, step_time_s` and `val_loss` are
        required; None for the authors' own logs, read by this project.

    Returns
    -------
    DataFrame
        with a fresh index. `run` is text (numbered from 0 where the table has none), `status` filled in (`finished`,
        or `stopped` where the last logged step comes before the last step or there is no loss). `num_gpus`,
        `step_time_s` and `val_loss` may be NaN. `attrs["notes"]`: what a reader should know, each also a `UserWarning`.

    Raises
    ------
    InputError
        one line that names the file, row, column and value.

    Examples
    --------
    >>> logs = load_training_logs()
    >>> len(logs), logs["status"].value_counts().to_dict()
    (431, {'finished': 426, 'diverged': 3, 'stopped': 2})
    """
    own = path is None
    source = os.fspath(data_dir() / "training_logs.csv" if path is None else path)
    frame = read_table(source, LOG_SCHEMA)
    _check_rows(frame, source)
    rows = frame.index
    frame = frame.reset_index(drop=True)
    frame["architecture"] = frame["architecture"].str.lower()
    if "run" not in frame:
        frame.insert(0, "run", [str(number) for number in range(len(frame))])
    frame["status"] = _status(frame)
    frame.attrs["source"] = source
    frame.attrs["notes"] = [] if own else _notes(frame, rows)
    for note in frame.attrs["notes"]:
        warnings.warn(f"{source}: {note}", UserWarning, stacklevel=2)
    return frame


def is_log_table(path: str | os.PathLike[str]) -> bool:
    """Whether the header of a file names step times and GPUs: then it is a table of training logs, not of runs alone.

    Raises
    ------
    InputError
        if the file cannot be opened.
    """
    with open_table(path, MAX_TABLE_BYTES) as file:
        first = file.readline(2**16).decode("utf-8-sig", errors="replace")
    return {"step_time_s", "num_gpus"} <= {name.strip().strip('"') for name in first.split(",")}


def load_training_curves(path: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Losses and gradient norms along training runs, about a hundred points a run.

    Parameters
    ----------
    path
        a CSV file, plain or compressed with gzip, with the columns `run` and `step` and any of `train_loss`,
        `grad_norm` and `val_loss`; None for the authors' own (`data/training_curves.csv.gz`).

    Returns
    -------
    DataFrame
        with these columns, `run` as text, in the order of the file. Where a run was restarted its steps go back: both
        attempts are kept, the column `attempt` counts them from 0. `attrs["notes"]` names such runs, each note also a
        `UserWarning`.

    Raises
    ------
    InputError
        one line that names the file, row, column and value.

    Examples
    --------
    >>> curves = load_training_curves()
    >>> curves["run"].nunique()
    431
    """
    source = os.fspath(data_dir() / "training_curves.csv.gz" if path is None else path)
    frame = read_table(source, CURVE_SCHEMA)
    before = frame.groupby("run")["step"].shift()
    back = frame["step"] <= before
    frame["attempt"] = back.groupby(frame["run"]).cumsum().astype(int)
    restarted = frame.loc[back, "run"].unique()
    frame.attrs["source"] = source
    frame.attrs["notes"] = []
    if len(restarted):
        row: Any = back.idxmax()
        note = (
            f"{plural(len(restarted), 'run')} restarted: row {row}, run {quoted(restarted[0])}: step "
            f"{frame['step'][row]} follows step {before[row]:.0f}; column 'attempt' counts them"
        )
        frame.attrs["notes"] = [note]
        warnings.warn(f"{source}: {note}", UserWarning, stacklevel=2)
    return frame.reset_index(drop=True)


def last_attempt(curves: pd.DataFrame) -> pd.DataFrame:
    """Curves, of one run or several, as training went on: in the order of runs and steps, each step once.

    Where the column `attempt` says that a run was restarted, what an earlier attempt recorded from there on is left
    out, also steps that the later one did not reach. Of a step recorded twice otherwise the later record counts.
    """
    columns = {"run": curves.get("run", ""), "attempt": curves.get("attempt", 0), "step": curves["step"]}
    steps = pd.DataFrame(columns, index=curves.index)
    begins = steps.groupby(["run", "attempt"])["step"].min()
    later = begins[::-1].groupby(level="run").cummin().groupby(level="run").shift()  # first step of any later attempt
    limit = later.reindex(pd.MultiIndex.from_frame(steps[["run", "attempt"]])).to_numpy()
    kept = curves[~(steps["step"].to_numpy() >= limit)]
    keys = [name for name in ("run", "step") if name in kept]
    return kept.drop_duplicates(keys, keep="last").sort_values(keys, kind="stable")


def _status(frame: pd.DataFrame) -> pd.Series:
    """The status of every run; where none is given, that of its last logged step and loss."""
    given = frame["status"] if "status" in frame else pd.Series(None, index=frame.index, dtype=object)
    early = frame["last_logged_step"] < frame["train_steps"] if "last_logged_step" in frame else False
    guessed = np.where(frame["val_loss"].isna() | early, "stopped", "finished")
    return given.where(given.notna(), pd.Series(guessed, index=frame.index))


def _check_rows(frame: pd.DataFrame, source: str) -> None:
    """What ties columns together; rows of the file are named by the index."""
    if "batch_size_seqs" in frame:
        product = frame["batch_size_seqs"] * frame["context_length"].astype(float) * frame["train_steps"]
        if (wrong := product.notna() & (product != frame["num_tokens"])).any():
            row: Any = wrong.idxmax()
            raise InputError(
                f"{source}: row {row}, column 'num_tokens': {frame['num_tokens'][row]} is not batch_size_seqs * "
                f"context_length * train_steps = {product[row]:.15g}"
            )
    for low, high in (
        ("last_logged_step", "train_steps"),
        ("step_time_q25_s", "step_time_q75_s"),
        ("step_time_q25_s", "step_time_s"),
        ("step_time_s", "step_time_q75_s"),
    ):
        if low in frame and high in frame and (wrong := frame[low] > frame[high]).any():
            row = wrong.idxmax()
            raise InputError(
                f"{source}: row {row}, column {low!r}: {frame[low][row]:g} is above {high} = {frame[high][row]:g}"
            )


def _notes(frame: pd.DataFrame, rows: pd.Index) -> list[str]:
    """What in a reader's table does not stop an analysis but leaves runs out of it."""
    notes = []
    for name, loses in (
        ("num_gpus", "no throughput"),
        ("step_time_s", "no throughput"),
        ("val_loss", "no place in comparisons of loss"),
    ):
        if number := int((missing := frame[name].isna()).sum()):
            verb, where = "has" if number == 1 else "have", name_rows(rows[missing].tolist())
            notes.append(f"column {name!r}: {plural(number, 'run')} without a value {verb} {loses}, {where}")
    if "last_logged_step" in frame:
        cut = (frame["last_logged_step"] < frame["train_steps"]) & (frame["status"] == "finished")
        if cut.any():
            where = name_rows(rows[cut].tolist())
            notes.append(
                f"column 'last_logged_step': {plural(int(cut.sum()), 'finished run')} cut off before the end, {where}"
            )
    return notes
