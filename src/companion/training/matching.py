"""Which runs of a run table have a training log, and how the two agree."""

import numpy as np
import pandas as pd

from companion.errors import InputError

#: What a run and its log share, where both tables have the column: shapes, sizes, and the learning rate only to choose.
KEYS = (
    "architecture", "context_length", "num_params", "num_tokens", "batch_size_seqs", "d_model", "n_layers", "n_heads",
    "d_qk", "d_hv", "d_ff",
)  # fmt: skip


def match_logs(runs: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    """The log of every run that has one.

    A run and a log belong together if they agree in all columns of `KEYS` that both tables have. Of several logs the
    one with the nearest validation loss is taken: a configuration that was trained twice has two logs, of which a table
    of runs often holds one. No log is given to two runs.

    Parameters
    ----------
    runs
        a run table; its index must be unique.
    logs
        of `load_training_logs`, or a table with throughput.

    Returns
    -------
    DataFrame
        indexed as the runs that have a log, with all columns of the log and `loss_difference`: the log's `val_loss`
        minus that of the run, nats per token.

    Raises
    ------
    InputError
        if the tables share too few columns to tell runs apart: architecture, num_params and num_tokens are needed.
    """
    keys = [name for name in KEYS if name in runs and name in logs]
    if missing := sorted({"architecture", "num_params", "num_tokens"} - set(keys)):
        raise InputError(f"runs and logs cannot be matched: column {missing[0]!r} is missing from one of them")
    left = runs[[*keys, "val_loss"]].rename(columns={"val_loss": "loss_of_run"}).assign(run_row=runs.index)
    right = logs.assign(log_row=np.arange(len(logs)))
    pairs = left.merge(right, on=keys, how="inner")
    pairs["loss_difference"] = pairs["val_loss"] - pairs["loss_of_run"]
    order = pairs["loss_difference"].abs().fillna(np.inf).sort_values(kind="stable").index
    pairs = pairs.loc[order].drop_duplicates("run_row").drop_duplicates("log_row")
    found = pairs.set_index("run_row").drop(columns=["loss_of_run", "log_row"])
    found.index.name = runs.index.name
    return found.loc[[row for row in runs.index if row in found.index]]


def coverage(runs: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    """How many runs have a log, by architecture, experiment and context length (where the table knows them).

    Returns
    -------
    DataFrame
        with the columns it is split by, `num_runs`, `num_logs`, and `largest_difference`: the largest difference of
        validation loss between a run and its log, nats per token; NaN where there is no log.
    """
    found = match_logs(runs, logs)
    by = [name for name in ("architecture", "experiment", "context_length") if name in runs]
    marked = runs[by].assign(
        has_log=runs.index.isin(found.index), difference=found["loss_difference"].abs().reindex(runs.index)
    )
    table = marked.groupby(by, dropna=False, sort=False).agg(
        num_runs=("has_log", "size"), num_logs=("has_log", "sum"), largest_difference=("difference", "max")
    )
    return table.reset_index()
