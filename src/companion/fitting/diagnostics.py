"""Diagnostics of a parametric fit: what an outlier does, optima along budgets, errors on other runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.extrapolation import Extrapolation, optimum_on_profile
from companion.fitting.fit import Fit, fit
from companion.fitting.uncertainty import Bootstrap
from companion.laws import LossSurface
from companion.runs.groups import by_experiment

#: Label of the whole table among its designs.
ALL = "all"


def designs(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All runs, and those of every value of the column `experiment` where there are several."""
    parts = by_experiment(runs)
    return {ALL: runs} | (parts if len(parts) > 1 else {})


def outlier_shifts(
    runs: pd.DataFrame,
    chosen: Mapping[str, Any],
    excess: Sequence[float],
    deltas: Sequence[float],
    gamma: float | None,
    readings: Mapping[str, Callable[[LossSurface], float]],
) -> pd.DataFrame:
    """How far one wrong loss moves the fit.

    Parameters
    ----------
    runs
        run table of one architecture.
    chosen
        by name: index label of the run whose loss is raised.
    excess
        factors − 1 by which its loss is raised, e.g. 0.1; a row with 0 is added.
    deltas
        Huber deltas.
    gamma
        as in `fit_parametric`.
    readings
        by name: a number read off the law.

    Returns
    -------
    DataFrame
        `run`, `huber_delta`, `excess`, and for every reading its change against the fit to the unchanged table.
    """
    rows = []
    for delta in deltas:
        law = _fit(runs, gamma, delta).law
        before = {name: read(law) for name, read in readings.items()}
        for label, index in chosen.items():
            rows.append({"run": label, "huber_delta": delta, "excess": 0.0} | dict.fromkeys(readings, 0.0))
            for size in excess:
                loss = runs["val_loss"].where(runs.index != index, runs["val_loss"] * (1 + size))
                law = _fit(runs.assign(val_loss=loss), gamma, delta).law
                shift = {name: read(law) - before[name] for name, read in readings.items()}
                rows.append({"run": label, "huber_delta": delta, "excess": size} | shift)
    return pd.DataFrame(rows)


def _fit(runs: pd.DataFrame, gamma: float | None, delta: float) -> Fit:
    # one changed row leaves the basin where it was: few starts are enough
    return fit(LossSurface, runs, gamma=gamma, huber_delta=delta, num_starts=8)


def typical_runs(runs: pd.DataFrame) -> dict[str, Any]:
    """Index labels of the run nearest to the median compute and of the run with the most."""
    log_flops = np.log(runs["train_flops"].to_numpy(dtype=float))
    middle = int(np.argmin(np.abs(log_flops - np.median(log_flops))))
    return {"median compute": runs.index[middle], "most compute": runs.index[int(np.argmax(log_flops))]}


def optima_by_budget(bootstrap: Bootstrap, groups: Mapping[float, pd.DataFrame], level: float = 0.95) -> pd.DataFrame:
    """N\\*, D\\* and M\\* = D\\*/N\\* of the law along the runs of every budget, with bootstrap intervals.

    Parameters
    ----------
    bootstrap
        of the fit.
    groups
        runs by budget, see `companion.fitting.isoflop.profiles.isoflop_groups`.

    Returns
    -------
    DataFrame
        per budget: `isoflop_budget`, `train_flops` (mean), and `num_params`, `num_tokens`, `tokens_per_param`, each
        also with `_low` and `_high`; `lost`, the share of resamples whose optimum lies outside the sampled sizes (the
        interval leaves them out).
    """
    rows = []
    for budget, group in groups.items():
        # D falls with N at fixed compute: the straight line that `optimum_on_profile` follows
        logs = [np.log(group[column].to_numpy(dtype=float)) for column in ("num_params", "num_tokens")]
        line = np.polyfit(logs[0], logs[1], 1) if np.ptp(logs[0]) > 0 else (np.nan, np.nan)
        slope, intercept = map(float, line)
        found: list[float] = []

        def read(law: LossSurface, group: pd.DataFrame = group, found: list[float] = found) -> float:
            found.append(optimum_on_profile(law, group))
            return found[-1]

        low, high = bootstrap.interval_of(read, level)
        sizes = np.array([optimum_on_profile(bootstrap.fit.law, group), low, high])
        tokens = np.exp(intercept) * sizes**slope
        row: dict[str, float] = {"isoflop_budget": budget, "train_flops": float(group["train_flops"].mean())}
        for name, values in {"num_params": sizes, "num_tokens": tokens, "tokens_per_param": tokens / sizes}.items():
            row |= {name: values[0], f"{name}_low": values[1:].min(), f"{name}_high": values[1:].max()}
        rows.append(row | {"lost": float(np.mean(~np.isfinite(found))) if found else 1.0})
    return pd.DataFrame(rows)


def cross_errors(fits: Mapping[str, Fit], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Root mean square of log(predicted / observed) of every fit (row, column `fitted_to`) on every table (column)."""
    rows = []
    for fitted_to, fitted in fits.items():
        row: dict[str, Any] = {"fitted_to": fitted_to}
        for name, table in tables.items():
            predicted = fitted.law.predict(table["num_params"].astype(float), table["num_tokens"].astype(float))
            row[name] = float(np.sqrt(np.mean(np.log(predicted / table["val_loss"]) ** 2)))
        rows.append(row)
    return pd.DataFrame(rows)


def furthest_run_errors(extrapolations: Sequence[Extrapolation]) -> pd.DataFrame:
    """What the fits below each cut-off say of the run with the most compute.

    Returns
    -------
    DataFrame
        `cutoff`, `num_fitted`, `decades` from the cut-off to the run, `val_loss`, `predicted_loss`, `log_error`,
        `status` of the fit.
    """
    if not extrapolations:
        raise InputError("extrapolation: there is none to read")
    rows = []
    for each in extrapolations:
        last = each.errors.iloc[int(np.argmax(each.errors["train_flops"].to_numpy()))]
        row = {"cutoff": each.cutoff, "num_fitted": each.fit.num_rows}
        row |= {name: float(last[name]) for name in ("decades", "val_loss", "predicted_loss", "log_error")}
        rows.append(row | {"status": each.fit.status})
    return pd.DataFrame(rows)
