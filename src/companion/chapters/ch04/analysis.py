"""What only chapter 4 computes: a grid by variable projection, ranges of terms, optima of parabolas, a crossing."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq

from companion.fitting.fit import Fit
from companion.fitting.isoflop import fit_isoflop
from companion.fitting.overtraining.cost import fit_compute_scale
from companion.fitting.starts import floor_and_factor
from companion.fitting.uncertainty import Bootstrap
from companion.laws import optimum

#: Step and half width of the searches for the best log(B/A) of the centered law, each around the best so far.
_BALANCE_SEARCH = ((0.6, 6.0), (0.1, 0.5), (0.02, 0.08))


def flops_per_param_and_token(runs: pd.DataFrame) -> float:
    """κ of C = κND: the median over the runs; 6 if only matrix products with all weights counted."""
    return float(np.median(runs["train_flops"] / (runs["num_params"] * runs["num_tokens"].astype(float))))


def fit_row(fit: Fit) -> dict[str, Any]:
    """Parameters of a fit, its exponents in the limits of one resource, and how it ended.

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
    inner = np.logaddexp(-alphas[..., None] * rows.log_n, balance[..., None] - betas[..., None] * rows.log_d)
    shape = np.exp(fit.law.gamma * inner - rows.log_loss).reshape(-1, len(rows.log_n))
    floor, factor = floor_and_factor(shape, rows, bounded=False)
    with np.errstate(invalid="ignore", over="ignore"):  # where there is no E or K
        relative = floor[:, None] * np.exp(-rows.log_loss) + factor[:, None] * shape - 1
        squares = relative**2 @ (rows.weights / rows.weights.sum())
    return np.where((floor > 0) & (factor > 0), squares, np.inf).reshape(inner.shape[:-1])


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


def parabola_optima(iso: pd.DataFrame, num_resamples: int, seed: int = 0) -> pd.DataFrame:
    """Optima of every budget by parabolas in log N and in log D, with 95 % bootstrap intervals.

    Parameters
    ----------
    iso
        IsoFLOP runs of one architecture, of `companion.fitting.isoflop.select.isoflop_runs`.

    Returns
    -------
    DataFrame
        `isoflop_budget`, `train_flops` (mean), and `num_params`, `num_tokens`, `tokens_per_param`, each also with
        `_low` and `_high`. The bounds of tokens per parameter combine those of the other two. Budgets without an
        optimum are left out.
    """
    rows: dict[float, dict[str, float]] = {}
    for column in ("num_params", "num_tokens"):
        fit = fit_isoflop(iso, column, num_resamples=num_resamples, seed=seed)
        low, high = np.nanquantile(fit.x_opt_resamples, [0.025, 0.975], axis=0)
        for index, found in enumerate(fit.optima):
            if found.fit is None:
                continue
            row = rows.setdefault(found.isoflop_budget, {"train_flops": found.mean_train_flops})
            row |= {column: found.fit.law.x_opt, f"{column}_low": low[index], f"{column}_high": high[index]}
    table = pd.DataFrame(rows.values()).assign(isoflop_budget=list(rows)).dropna()
    table["tokens_per_param"] = table["num_tokens"] / table["num_params"]
    table["tokens_per_param_low"] = table["num_tokens_low"] / table["num_params_high"]
    table["tokens_per_param_high"] = table["num_tokens_high"] / table["num_params_low"]
    return table


def law_crossing(
    fits: Mapping[str, Fit], tables: Mapping[str, pd.DataFrame], pair: tuple[str, str], flops_range: tuple[float, float]
) -> tuple[float, str] | None:
    """Where the optimal losses of two laws cross for the last time in a range of compute.

    Each architecture pays its own training FLOP per parameter and token, a curve in N through its runs
    (`companion.fitting.overtraining.cost.fit_compute_scale`).

    Returns
    -------
    tuple or None
        compute (FLOP) and the architecture whose optimal loss is the lower one above it; None without a crossing.
    """
    costs = {name: fit_compute_scale(tables[name]) for name in pair}

    def gap(log_flops: float) -> float:
        first, second = (optimum(fits[name].law, costs[name], float(np.exp(log_flops))).loss[0] for name in pair)
        return float(second - first)

    low, high = map(float, np.log(flops_range))
    grid = np.linspace(low, high, 41)
    gaps = np.array([gap(at) for at in grid])
    turns = np.flatnonzero(np.diff(np.sign(gaps)) != 0)
    if not turns.size or not np.isfinite(gaps).all():
        return None
    last = int(turns[-1])
    at = float(np.exp(brentq(gap, grid[last], grid[last + 1], xtol=1e-6)))
    return at, pair[0] if gaps[-1] > 0 else pair[1]
