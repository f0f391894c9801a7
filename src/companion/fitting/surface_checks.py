"""What a parametric fit rests on: its objective over the grid, outliers, designs, budgets, the run it never saw."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.fitting.extrapolation import Extrapolation, optimum_on_profile
from companion.fitting.fit import Fit, fit
from companion.fitting.uncertainty import Bootstrap
from companion.laws import LossSurface

#: Label of the whole table among its designs.
ALL = "all"
#: Step and half width of the searches for the best log(B/A) of the centred law, each around the best so far.
_BALANCE_SEARCH = ((0.6, 6.0), (0.1, 0.5), (0.02, 0.08))


def designs(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All runs, and those of every value of the column `experiment` where there are several."""
    tables = {ALL: runs}
    if "experiment" in runs and len(runs["experiment"].dropna().unique()) > 1:
        tables |= {str(name): group for name, group in runs.groupby("experiment")}
    return tables


def fit_row(fit: Fit) -> dict[str, Any]:
    """Parameters, what the large-model and long-training limits show of them, and how the fit ended.

    Returns
    -------
    dict
        E, alpha, beta, gamma; `alpha_gamma`, `beta_gamma` (exponents of L − E where one term dominates), `exponent` of
        N\\*(C) under C = k·N·D; num_rows, objective, `rms` (of log residuals), status, `share` of starts at the
        optimum, conditioning.
    """
    law = fit.law
    return {
        "E": law.E,
        "alpha": law.alpha,
        "beta": law.beta,
        "gamma": law.gamma,
        "alpha_gamma": law.alpha * law.gamma,
        "beta_gamma": law.beta * law.gamma,
        "exponent": law.beta / (law.alpha + law.beta),
        "num_rows": fit.num_rows,
        "objective": fit.objective,
        "rms": float(np.sqrt(np.mean(fit.residuals**2))),
        "status": fit.status,
        "share": fit.share_of_starts_at_optimum,
        "conditioning": fit.conditioning,
    }


def flops_per_param_and_token(runs: pd.DataFrame) -> float:
    """k of C = k·N·D: the median over the runs; 6 if only matrix products with all weights counted."""
    return float(np.median(runs["train_flops"] / (runs["num_params"] * runs["num_tokens"].astype(float))))


def projected_misfit(fit: Fit, alphas: Any, betas: Any) -> NDArray[np.float64]:
    """Least root mean square of relative residuals at fixed alpha and beta, gamma that of the fit; shape (a, b).

    Variable projection: at given exponents and balance B/A the law is linear in E and A^gamma, which have a closed
    form; the balance is searched. Infinite where no positive E and A fit.
    """
    alphas, betas = np.asarray(alphas, dtype=float)[:, None], np.asarray(betas, dtype=float)[None, :]
    shape = np.broadcast_shapes(alphas.shape, betas.shape)
    best, balance = np.full(shape, np.inf), np.zeros(shape)
    for step, span in _BALANCE_SEARCH:
        center = balance
        for offset in np.arange(-span, span + step / 2, step):
            squares = _projected_squares(fit, alphas, betas, center + offset)
            balance = np.where(squares < best, center + offset, balance)
            best = np.fmin(best, squares)
    return np.sqrt(best)


def _projected_squares(fit: Fit, alphas: Any, betas: Any, balance: Any) -> NDArray[np.float64]:
    """Mean squared relative residual with E and K = A^gamma eliminated; infinite where one is not positive."""
    rows = fit.rows
    w, floor = rows.weights / rows.weights.sum(), np.exp(-rows.log_loss)
    inner = np.logaddexp(-alphas[..., None] * rows.log_n, balance[..., None] - betas[..., None] * rows.log_d)
    h = np.exp(fit.law.gamma * inner) * floor
    s00, t0 = (w * floor**2).sum(), (w * floor).sum()
    s01, s11, t1 = h @ (w * floor), h**2 @ w, h @ w
    with np.errstate(divide="ignore", invalid="ignore"):
        e = (t0 * s11 - t1 * s01) / (s00 * s11 - s01**2)
        k = (t1 - e * s01) / s11
    # the sum of squares, multiplied out
    squares = e**2 * s00 + 2 * e * k * s01 + k**2 * s11 - 2 * e * t0 - 2 * k * t1 + 1
    return np.where((e > 0) & (k > 0), np.maximum(squares, 0), np.inf)


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
        as in `companion.fitting.fit`.
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
        slope, intercept = np.polyfit(logs[0], logs[1], 1)
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


def term_ranges(bootstrap: Bootstrap, level: float = 0.95) -> dict[str, float]:
    """How well A and B are known, and how well the terms they belong to.

    Returns
    -------
    dict
        upper over lower end of the percentile interval of `A`, `B` and, at the geometric mean size and tokens of the
        runs, of `A_term` = (A·N^-alpha)^gamma and `B_term` = (B·D^-beta)^gamma; NaN where the
        bootstrap withholds intervals.
    """
    if bootstrap.withheld:
        return dict.fromkeys(("A", "B", "A_term", "B_term"), float("nan"))
    theta = bootstrap.theta[~np.isnan(bootstrap.theta).any(axis=1)]
    center, gamma = bootstrap.fit.rows.center, np.exp(theta[:, 5])
    logs = {"A": theta[:, 1], "B": theta[:, 2]}
    logs["A_term"] = gamma * (theta[:, 1] - theta[:, 3] * center[0])
    logs["B_term"] = gamma * (theta[:, 2] - theta[:, 4] * center[1])
    ends = {name: np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) for name, values in logs.items()}
    return {name: float(np.exp(high - low)) for name, (low, high) in ends.items()}


def near_target(runs: pd.DataFrame, num_params: float, num_tokens: float, tolerance: float = 0.05) -> NDArray[np.bool_]:
    """Which runs have this size and this number of tokens, within a relative tolerance, shape (n,)."""
    same = np.ones(len(runs), dtype=bool)
    for column, value in {"num_params": num_params, "num_tokens": num_tokens}.items():
        same &= np.abs(runs[column].to_numpy(dtype=float) / value - 1) <= tolerance
    return same


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
