"""What a run table holds, as plain data."""

from typing import Any

import numpy as np
import pandas as pd


def summary(runs: pd.DataFrame) -> dict[str, Any]:
    """What a run table holds, as plain numbers, lists and dicts (ready for JSON).

    Returns
    -------
    dict[str, Any]
        with `num_runs`, `by_architecture`, `by_set` (architecture, experiment, context_length and their num_runs),
        ranges (`min`, `median`, `max`) of num_params, num_tokens, tokens_per_param, train_flops (FLOP) and val_loss
        (nats per token), `sum_train_flops`, `context_lengths` (tokens), `isoflop_budgets` (FLOP),
        `num_repeated_configurations` (runs that repeat architecture, context_length, num_params and num_tokens of an
        earlier one), and `num_runs_in_published_fits` (with multiplicity; None if that column is absent).

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> summary(load_paper_runs())["by_architecture"]
    {'transformer': 292, 'xlstm': 348}
    """
    keys = [key for key in ("architecture", "experiment", "context_length") if key in runs.columns]
    sets = runs.groupby(keys, dropna=False).size().reset_index(name="num_runs")
    same = [key for key in ("architecture", "context_length", "num_params", "num_tokens") if key in runs.columns]
    counted = runs.get("multiplicity_in_published_fits")
    ratio = runs["num_tokens"] / runs["num_params"]
    result: dict[str, Any] = {
        "num_runs": len(runs),
        "by_architecture": {
            str(key): int(count) for key, count in runs["architecture"].value_counts().sort_index().items()
        },
        "by_set": [{key: _plain(value) for key, value in row.items()} for row in sets.to_dict("records")],
    }
    for name in ("num_params", "num_tokens", "train_flops", "val_loss"):
        result[name] = _range(runs[name])
    result["tokens_per_param"] = _range(ratio)
    result["sum_train_flops"] = float(runs["train_flops"].sum())
    for name, several in (("context_length", "context_lengths"), ("isoflop_budget", "isoflop_budgets")):
        known = runs[name].dropna().unique().tolist() if name in runs.columns else []
        result[several] = sorted(_plain(value) for value in known)
    result["num_repeated_configurations"] = int(runs.duplicated(same).sum())
    result["num_runs_in_published_fits"] = None if counted is None else int(counted.fillna(1).sum())
    return result


def _range(column: pd.Series) -> dict[str, Any]:
    return {"min": _plain(column.min()), "median": float(column.median()), "max": _plain(column.max())}


def _plain(value: Any) -> Any:
    """A NumPy scalar as a Python one, NaN as None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value
