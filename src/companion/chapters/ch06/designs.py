"""What the design of a study and its bookkeeping do to a fit, whatever the optimizer.

Where the runs lie (a parabola's grid, a single ratio of tokens to parameters), what is called compute (6·N·D or the
exact count) and what is called size (with or without the embedding). A common yardstick is the exponent of the optimal
size, N\\*(C) ∝ C^a with a = beta/(alpha + beta).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.accounting import count_params
from companion.errors import InputError, NotApplicable
from companion.fitting.derivatives import Rows, from_raw, jacobian, make_rows
from companion.fitting.fit import fit
from companion.fitting.isoflop.bias import FLOPS_PER_PARAM_AND_TOKEN, GRIDS, SizeGrid, grid_bias
from companion.fitting.isoflop.profiles import fit_isoflop, isoflop_groups
from companion.fitting.overtraining.groups import group_by_ratio
from companion.fitting.power_law import fit_power_law
from companion.laws import LossSurface
from companion.laws.base import Array
from companion.runs.groups import by_experiment
from companion.runs.recount import missing_for_recount, models_of


def size_exponent(law: LossSurface) -> float:
    """a of N\\*(C) ∝ C^a at C = k·N·D (arXiv 2203.15556, equation 4)."""
    return float(law.beta / (law.alpha + law.beta))


# ---- grids of sizes ------------------------------------------------------------------------------


def noise_free_comparison(law: LossSurface, budgets: Any, grids: Mapping[str, SizeGrid] | None = None) -> pd.DataFrame:
    """Parabolas and a parametric fit on the same exact losses.

    Returns
    -------
    DataFrame
        that of `grid_bias`, and `parametric_error`: exponent a of a law fitted to the same points minus the true one.
    """
    chosen = dict(GRIDS if grids is None else grids)
    table = grid_bias(law, budgets, chosen)
    errors = []
    for grid in chosen.values():
        sizes = [grid.num_params(law, float(budget)) for budget in budgets]
        tokens = [float(c) / (FLOPS_PER_PARAM_AND_TOKEN * n) for c, n in zip(budgets, sizes, strict=True)]
        points = pd.DataFrame({"num_params": np.concatenate(sizes), "num_tokens": np.concatenate(tokens)})
        points["val_loss"] = law.predict(points["num_params"].to_numpy(), points["num_tokens"].to_numpy())
        gamma = None if law.gamma != 1 else 1.0
        errors.append(size_exponent(fit(LossSurface, points, gamma=gamma).law) - size_exponent(law))
    return table.assign(parametric_error=errors)


# ---- designs -------------------------------------------------------------------------------------


def design_precision(
    law: LossSurface,
    num_params: Any,
    num_tokens: Any,
    *,
    gamma_free: bool = True,
    noise: float = 0.005,
    num_runs: int = 100,
    off_design: tuple[float, float] | None = None,
) -> dict[str, float]:
    """What runs at these places could say about a law, to first order, before any loss is measured.

    Parameters
    ----------
    law
        the true law.
    num_params, num_tokens
        where the runs are, shape (n,).
    noise
        standard deviation of the log loss of a run.
    num_runs
        standard errors are scaled to a design of this many runs at the same places.
    off_design
        (N, D) at which the loss is predicted.

    Returns
    -------
    dict
        `condition_number` of d log L̂/d theta (columns of unit norm, centered logarithms), `exponent_standard_error` of
        a, and with `off_design` `loss_standard_error`, relative. Infinite where the design does not determine them.
    """
    sizes, tokens = np.asarray(num_params, dtype=float), np.asarray(num_tokens, dtype=float)
    free = np.array([True] * 5 + [gamma_free])
    rows = make_rows(LossSurface, sizes, tokens, law.predict(sizes, tokens), np.ones(sizes.size), 1.0)
    logs = [np.log(max(value, np.finfo(float).tiny)) for value in (law.E, law.A, law.B)]
    theta = from_raw(np.array([*logs, law.alpha, law.beta, np.log(law.gamma)]), rows)
    design = jacobian(theta[None], rows)[0][:, free]
    norms = np.linalg.norm(design, axis=0)
    blind = norms < 1e-200  # a term of the law that is zero at its bound leaves its column without a direction
    norms[blind] = 1.0
    _, singular, directions = np.linalg.svd(design / norms, full_matrices=False)
    known = sizes.size >= free.sum() and not blind.any() and singular[-1] > 1e-14 * singular[0]
    scale = noise * np.sqrt(sizes.size / num_runs)

    def error(gradient: Array) -> float:
        if not known:
            return float("inf")
        return float(scale * np.linalg.norm(directions @ (gradient[free] / norms) / singular))

    total = law.alpha + law.beta
    result = {
        "condition_number": float(singular[0] / singular[-1]) if known else float("inf"),
        "exponent_standard_error": error(np.array([0, 0, 0, -law.beta / total**2, law.alpha / total**2, 0])),
    }
    if off_design is not None:
        log_n, log_d = (np.array([np.log(value)]) - c for value, c in zip(off_design, rows.center, strict=True))
        place = Rows(log_n, log_d, np.zeros(1), np.ones(1), 1.0, rows.center, LossSurface)
        result["loss_standard_error"] = error(jacobian(theta[None], place)[0, 0])
    return result


def designs_of(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The designs that a table holds: each experiment, all runs, and the runs of the commonest ratio D/N alone."""
    designs = {"all runs": runs} | by_experiment(runs)
    try:
        ratios = group_by_ratio(runs).ratios
    except NotApplicable:  # a table without an over-training design
        return designs
    values, numbers = np.unique(ratios[np.isfinite(ratios)], return_counts=True)
    if values.size:
        common = values[np.argmax(numbers)]
        designs[f"only M = {common:g}"] = runs[ratios == common]
    return designs


def compare_designs(
    runs: pd.DataFrame, law: LossSurface, *, noise: float = 0.005, num_runs: int = 100, ratio: float = 20.0
) -> pd.DataFrame:
    """`design_precision` of every design of a table, with gamma free and fixed.

    Parameters
    ----------
    ratio
        tokens per parameter of the prediction at the largest size of the table.

    Returns
    -------
    DataFrame
        one row per design: `design`, `num_runs`, `lowest_ratio`, `highest_ratio`, `decades` between these,
        `condition_number`, `condition_number_gamma_fixed`, `exponent_standard_error`, `loss_standard_error`.
    """
    largest = float(runs["num_params"].max())
    rows = []
    for name, group in designs_of(runs).items():
        places = group["num_params"].to_numpy(dtype=float), group["num_tokens"].to_numpy(dtype=float)
        ratios = places[1] / places[0]
        options: dict[str, Any] = {"noise": noise, "num_runs": num_runs, "off_design": (largest, ratio * largest)}
        precision = design_precision(law, *places, **options)
        fixed = design_precision(law, *places, gamma_free=False, **options)
        rows.append(
            {
                "design": name,
                "num_runs": len(group),
                "lowest_ratio": ratios.min(),
                "highest_ratio": ratios.max(),
                "decades": float(np.log10(ratios.max() / ratios.min())),
                "condition_number_gamma_fixed": fixed["condition_number"],
                **precision,
            }
        )
    return pd.DataFrame(rows)


def spread_of_ratios(
    law: LossSurface, num_params: Any, ratio: float, decades: Sequence[float], *, num_ratios: int = 7
) -> pd.DataFrame:
    """Condition number of a design over how far its ratios of tokens to parameters reach.

    Every size is trained at `num_ratios` ratios, evenly spread in log over this many decades around `ratio`.

    Returns
    -------
    DataFrame
        one row per spread: `decades`, `gamma_free`, `gamma_fixed` (condition numbers).
    """
    sizes = np.unique(np.asarray(num_params, dtype=float))
    rows = []
    for width in decades:
        ratios = ratio * 10 ** np.linspace(-width / 2, width / 2, num_ratios)
        n = np.repeat(sizes, num_ratios)
        d = n * np.tile(ratios, sizes.size)
        numbers = [design_precision(law, n, d, gamma_free=free)["condition_number"] for free in (True, False)]
        rows.append({"decades": width, "gamma_free": numbers[0], "gamma_fixed": numbers[1]})
    return pd.DataFrame(rows)


# ---- compute: 6·N·D or exact -----------------------------------------------------------------------


def exact_optima(runs: pd.DataFrame, law: LossSurface) -> pd.DataFrame:
    """The law's optimum at every budget, once along C = 6·N·D, once along the runs' own N and D.

    Returns
    -------
    DataFrame
        one row per budget: `isoflop_budget`, `train_flops` (mean, FLOP), `lowest_share` and `highest_share` of 6·N·D in
        C, `approximate` and `exact` (N\\*; NaN where it lies outside the sampled sizes), `excess_loss` (nats per token:
        what the approximate size costs along the runs' own curve), `moved` (share of the runs whose 6·N·D lies nearer
        to another budget).
    """
    groups = isoflop_groups(runs, "num_params")
    means = np.log([group["train_flops"].mean() for group in groups.values()])
    rows = []
    for index, (budget, group) in enumerate(groups.items()):
        n, d = group["num_params"].to_numpy(dtype=float), group["num_tokens"].to_numpy(dtype=float)
        share = FLOPS_PER_PARAM_AND_TOKEN * n * d / group["train_flops"].to_numpy(dtype=float)
        approximate = float(law.optimum(np.exp(means[index]))[0])
        # a quadratic follows D(N) at fixed C closely, without the scatter of single runs
        center = np.log(n).mean()
        curve = np.polyfit(np.log(n) - center, np.log(d), min(2, np.unique(n).size - 1))
        grid = np.linspace(np.log(n).min(), np.log(n).max(), 4001)
        loss = np.asarray(law.predict(np.exp(grid), np.exp(np.polyval(curve, grid - center))))
        best = int(np.argmin(loss))
        inside = 0 < best < grid.size - 1
        tokens = np.exp(np.polyval(curve, np.log(approximate) - center))
        nearest = np.argmin(np.abs(np.log(FLOPS_PER_PARAM_AND_TOKEN * n * d)[:, None] - means), axis=1)
        rows.append(
            {
                "isoflop_budget": budget,
                "train_flops": float(np.exp(means[index])),
                "lowest_share": share.min(),
                "highest_share": share.max(),
                "approximate": approximate,
                "exact": float(np.exp(grid[best])) if inside else np.nan,
                "excess_loss": float(law.predict(approximate, tokens) - loss[best]) if inside else np.nan,
                "moved": float(np.mean(nearest != index)),
            }
        )
    return pd.DataFrame(rows)


def exact_exponent(optima: pd.DataFrame) -> float:
    """Exponent of the exact optima of `exact_optima` over compute; NaN with fewer than two of them."""
    found = optima.dropna(subset=["exact"])
    return fit_power_law(found["train_flops"], found["exact"]).law.exponent if len(found) > 1 else float("nan")


# ---- size: with or without the embedding -----------------------------------------------------------


def embedding_params(runs: pd.DataFrame) -> pd.Series:
    """Parameters in embedding and unembedding of every run, from its shapes.

    Raises
    ------
    InputError
        if the shapes are missing or the architecture is not one of ours.
    """
    if reason := missing_for_recount(runs):
        raise InputError(f"the embedding cannot be counted: {reason}")
    result = pd.Series(np.nan, index=runs.index, name="embedding_params")
    for _, group in runs.groupby("architecture"):
        count = count_params(models_of(group))
        result[group.index] = np.asarray(count.embedding + count.unembedding, dtype=float)
    return result


def embedding_effect(runs: pd.DataFrame, budgets: Sequence[float] | None = None) -> pd.DataFrame:
    """Exponents of the optimal size under three definitions of size and compute (arXiv 2406.12907, 2406.19146).

    Parameters
    ----------
    runs
        IsoFLOP runs of one architecture and context, with shapes.
    budgets
        those that enter; all if not given.

    Returns
    -------
    DataFrame
        one row per definition: `definition`, `isoflop_exponent` (power law through parabola optima),
        `isoflop_standard_error`, `alpha`, `beta`, `parametric_exponent`, and `flops`, `optima` (lists: the points of
        the power law).
    """
    smaller = runs["num_params"] - embedding_params(runs)
    if (smaller <= 0).any():
        raise InputError("the embedding holds all parameters of a run: the shapes do not fit num_params")
    kaplan = FLOPS_PER_PARAM_AND_TOKEN * smaller * runs["num_tokens"]
    tables = {
        "all parameters, exact C": runs,
        "without embedding, exact C": runs.assign(num_params=smaller),
        "without embedding, C = 6ND of those": runs.assign(num_params=smaller, train_flops=kaplan),
    }
    rows = []
    for name, table in tables.items():
        isoflop = fit_isoflop(table, budgets=budgets, num_resamples=0)
        law = fit(LossSurface, table).law
        rows.append(
            {
                "definition": name,
                "isoflop_exponent": isoflop.power_law.law.exponent,
                "isoflop_standard_error": isoflop.power_law.exponent_standard_error,
                "alpha": law.alpha,
                "beta": law.beta,
                "parametric_exponent": size_exponent(law),
                "flops": [profile.mean_train_flops for profile in isoflop.optima],
                "optima": [profile.fit.law.x_opt for profile in isoflop.optima if profile.fit],
            }
        )
    return pd.DataFrame(rows)
