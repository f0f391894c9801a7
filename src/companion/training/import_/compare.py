"""Where imported losses disagree with a run table, and the table with the imported ones."""

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.training.matching import match_logs

#: What the column `source` says of a loss that was imported.
SOURCE = "log"
#: Losses are written with five decimals.
_ROUNDING = 5e-6


def loss_report(runs: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    """How far the losses of a run table are from those of the logs, one row a run that has a finished log.

    Parameters
    ----------
    runs
        of `companion.runs.load_runs`.
    logs
        of `load_training_logs`.

    Returns
    -------
    DataFrame
        largest difference first: `row` (of the table, the header is row 1), `run` (of the logs), `architecture`,
        `context_length`, `num_params`, `num_tokens`, `loss_of_table`, `loss_of_log`, `difference` (the log's loss minus
        the table's, nats per token), and the table's `source` and `loss_uncertainty` where it has them.

    Raises
    ------
    InputError
        if the tables share too few columns, or no run of the table has a log.
    """
    found = _matched(runs, logs)
    there = runs.loc[found.index]
    report = pd.DataFrame({"row": runs.index.get_indexer(found.index) + 2, "run": found["run"].to_numpy()})
    for name in ("architecture", "context_length", "num_params", "num_tokens"):
        if name in there:
            report[name] = there[name].to_numpy()
    report["loss_of_table"], report["loss_of_log"] = there["val_loss"].to_numpy(), found["val_loss"].to_numpy()
    report["difference"] = found["loss_difference"].to_numpy()
    for name in ("source", "loss_uncertainty"):
        if name in there:
            report[name] = there[name].to_numpy()
    order = report["difference"].abs().sort_values(ascending=False, kind="stable").index
    return report.loc[order].reset_index(drop=True)


def by_source(report: pd.DataFrame) -> pd.DataFrame:
    """The report in short: by `source`, if the table has it, how many runs, and how large the differences are.

    Returns
    -------
    DataFrame
        with `source`, `num_runs`, `num_different` (by more than rounding to five decimals), `rms_difference` and
        `largest_difference`, nats per token.
    """
    known = report.assign(source=report["source"].fillna("") if "source" in report else "")
    rows = [
        {
            "source": source,
            "num_runs": len(part),
            "num_different": int((part["difference"].abs() > 2 * _ROUNDING).sum()),
            "rms_difference": float(np.sqrt((part["difference"] ** 2).mean())),
            "largest_difference": float(part["difference"].abs().max()),
        }
        for source, part in known.groupby("source", sort=False)
    ]
    return pd.DataFrame(rows)


def update_runs(runs: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    """The run table with the loss of its log in every run that has a finished one; its `source` is then `log`.

    `loss_uncertainty` is then that of rounding to five decimals, and nothing of a published fit is imposed. All other
    columns, the order and the other runs stay as they are.

    Raises
    ------
    InputError
        as `loss_report`.
    """
    found = _matched(runs, logs)
    updated = runs.copy()
    updated.loc[found.index, "val_loss"] = found["val_loss"].astype(float)
    if "train_loss" in found and "train_loss" in updated:
        known = found["train_loss"].dropna()
        updated.loc[known.index, "train_loss"] = known
    if "source" not in updated:
        updated["source"] = None
    updated["source"] = updated["source"].astype(object)
    updated.loc[found.index, "source"] = SOURCE
    for name, value in (("loss_uncertainty", _ROUNDING), ("imposed_published_fit", 0)):
        if name in updated:
            updated.loc[found.index, name] = value
    return updated


def _matched(runs: pd.DataFrame, logs: pd.DataFrame) -> pd.DataFrame:
    ended = logs[(logs["status"] == "finished") & logs["val_loss"].notna()]
    found = match_logs(runs, ended)
    if found.empty:
        raise InputError(
            "no run of the table has a finished log: runs and logs must agree in architecture, context length, shapes, "
            "parameters, tokens and batch"
        )
    return found
