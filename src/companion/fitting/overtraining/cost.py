"""What over-training costs and what it buys, read off a parametric law L(N, D).

At the same training compute a model with more tokens per parameter M = D/N than the optimum is smaller (cheaper to
serve) and has a higher loss. At the same loss it takes more training compute and still is smaller: served often
enough, it pays back. Serving is counted as 2·N FLOP per token (arXiv 2001.08361, section 2.1): no attention, no state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError, NotApplicable
from companion.fitting.bootstrap import percentile_interval
from companion.fitting.fit import Fit, fit
from companion.fitting.overtraining.exponents import OvertrainingSlopes, fit_slopes_by_ratio
from companion.fitting.uncertainty import MOST, Bootstrap
from companion.laws import LossSurface, Models, Optimum, optimum
from companion.numeric import Array, Values
from companion.runs.groups import by_experiment

#: Ratios of tokens to parameters between which an optimum is looked for.
SEARCHED_RATIOS = (0.3, 3e4)
SERVING_FLOPS_PER_PARAM = 2.0
#: How much more compute than the optimum equal loss may take.
LARGEST_FACTOR = 1e6


@dataclass(frozen=True, kw_only=True)
class ComputeScale:
    """Training FLOP per parameter and token as a function of size: ln k = polynomial in ln(N / center).

    6ND is the constant k = 6. Exact counts give small models a larger k at a long context.
    `coefficients` start with the highest power; `largest_deviation` is that of the runs from the curve, relative.
    """

    coefficients: tuple[float, ...]
    center: float
    largest_deviation: float

    def flops_per_param_and_token(self, num_params: ArrayLike) -> Array:
        """k at N, any shape."""
        return np.exp(np.polyval(self.coefficients, np.log(np.asarray(num_params, dtype=float) / self.center)))

    def train_flops(self, num_params: ArrayLike, ratio: ArrayLike) -> Array:
        """C = k(N)·N·D with D = M·N."""
        size = np.asarray(num_params, dtype=float)
        return self.flops_per_param_and_token(size) * size**2 * np.asarray(ratio)

    def flops_exponent(self, num_params: ArrayLike) -> Array:
        """d ln C / d ln N at constant M: 2 for 6ND."""
        slope = np.polyder(np.array(self.coefficients))
        return np.asarray(2.0 + np.polyval(slope, np.log(np.asarray(num_params, dtype=float) / self.center)))

    def num_params(self, train_flops: ArrayLike, ratio: ArrayLike) -> Array:
        """N at which a model trained on M·N tokens costs C; shapes broadcast.

        NaN where the curve, far from its runs, has no such N.
        """
        target = np.log(np.asarray(train_flops, dtype=float) / np.asarray(ratio, dtype=float))
        size = np.exp((target - self.coefficients[-1]) / 2)
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            for _ in range(40):  # Newton in ln N; the exponent is close to 2, so few steps are needed
                off = np.log(self.train_flops(size, 1.0)) - target
                size = size * np.exp(-off / self.flops_exponent(size))
                if np.max(np.abs(off)) < 1e-13:
                    break
        return np.where(np.abs(off) < 1e-6, size, np.nan)

    @property
    def label(self) -> str:
        """Name of this line of models (`companion.laws.optimum.Cost`), for messages."""
        return "over-training"

    def limits(self) -> tuple[float, float]:
        """Of ln N, the coordinate of the line: four decades on either side of the runs."""
        return float(np.log(self.center * 1e-4)), float(np.log(self.center * 1e4))

    def reach(self) -> str:
        """The limits in words."""
        return f"num_params from {self.center * 1e-4:.3g} to {self.center * 1e4:.3g}"

    def models(self, x: Values) -> Models:
        """Models at x = ln N, any array."""
        size = np.exp(x)
        # C = k(N)·N·D: the price of a token rises with N one power slower than C does at constant D/N
        return Models(size, self.flops_per_param_and_token(size) * size, np.ones_like(x), self.flops_exponent(size) - 1)


def fit_compute_scale(runs: pd.DataFrame) -> ComputeScale:
    """Least squares of ln(C / ND) on ln N: quadratic, or of a lower degree where there are fewer than 5 sizes.

    Parameters
    ----------
    runs
        columns num_params, num_tokens, train_flops; one architecture, one context length.
    """
    size = runs["num_params"].to_numpy(dtype=float)
    price = np.log(runs["train_flops"].to_numpy(dtype=float) / size / runs["num_tokens"].to_numpy(dtype=float))
    if not size.size:
        raise InputError("compute per parameter and token: there are no runs")
    center = float(np.exp(np.log(size).mean()))
    # sizes that differ by rounding only say nothing of a slope
    degree = {1: 0, 2: 1, 3: 1, 4: 1}.get(np.unique(np.round(np.log10(size), 3)).size, 2)
    coefficients = np.polyfit(np.log(size / center), price, degree)
    deviation = np.abs(np.expm1(np.polyval(coefficients, np.log(size / center)) - price)).max()
    return ComputeScale(coefficients=tuple(coefficients.tolist()), center=center, largest_deviation=float(deviation))


def local_slope(law: LossSurface, scale: ComputeScale, train_flops: ArrayLike, ratio: ArrayLike) -> Array:
    """eta(C) = −d ln L / d ln C along constant M; a power law would have the same value everywhere.

    With R = A·N^-alpha + B·D^-beta it is gamma·(alpha·A·N^-alpha + beta·B·D^-beta)/R · (1 − E/L) / (d ln C / d ln N).
    """
    size = scale.num_params(train_flops, ratio)
    tokens = np.multiply(ratio, size)
    from_size, from_tokens = law.terms(size, tokens)
    mean_exponent = (law.alpha * from_size + law.beta * from_tokens) / (from_size + from_tokens)
    share = 1 - law.E / law.predict(size, tokens)
    return law.gamma * mean_exponent * share / scale.flops_exponent(size)


def implied_slopes(law: LossSurface, slopes: OvertrainingSlopes) -> OvertrainingSlopes:
    """The straight lines one would fit if the runs had exactly the losses that a law predicts for them."""
    data = slopes.data
    predicted = data.assign(val_loss=law.predict(data["num_params"].to_numpy(), data["num_tokens"].to_numpy()))
    return fit_slopes_by_ratio(predicted)


def best_model(law: LossSurface, scale: ComputeScale, train_flops: float) -> Optimum:
    """Compute-optimal model with 0.3 to 3e4 tokens per parameter (`companion.laws.optimum`), arrays of shape (1,).

    Raises
    ------
    NotApplicable
        if there is none.
    """
    largest, smallest = scale.num_params(train_flops, np.array(SEARCHED_RATIOS))
    try:
        return optimum(law, scale, train_flops, (float(np.log(smallest)), float(np.log(largest))))
    except InputError as error:
        low, high = SEARCHED_RATIOS
        raise NotApplicable(
            f"over-training: the law has no optimum at {train_flops:g} FLOP with a ratio of {low:g} to {high:g}"
        ) from error


def cost_at_equal_compute(
    law: LossSurface, scale: ComputeScale, train_flops: float, ratios: Sequence[float]
) -> pd.DataFrame:
    """Loss and size of over-trained models against the compute-optimal one of the same training compute.

    Returns
    -------
    DataFrame
        with one row per ratio: `tokens_per_param`, `num_params`, `num_tokens`, `loss`, `loss_penalty` (nats per token
        above the optimum), `relative_penalty` (of the optimal loss) and `size_ratio` (N over N\\*, which is also the
        ratio of FLOP per served token).
    """
    best = best_model(law, scale, train_flops)
    ratio = np.asarray(ratios, dtype=float)
    size = scale.num_params(train_flops, ratio)
    loss = law.predict(size, ratio * size)
    return pd.DataFrame(
        {
            "tokens_per_param": ratio,
            "num_params": size,
            "num_tokens": ratio * size,
            "loss": loss,
            "loss_penalty": loss - best.loss[0],
            "relative_penalty": loss / best.loss[0] - 1,
            "size_ratio": size / best.num_params[0],
        }
    )


def cost_at_equal_loss(
    law: LossSurface, scale: ComputeScale, train_flops: float, ratios: Sequence[float]
) -> pd.DataFrame:
    """Compute and size of over-trained models that reach the loss of the compute-optimal model of `train_flops`.

    Returns
    -------
    DataFrame
        with one row per ratio: `tokens_per_param`, `num_params`, `num_tokens`, `train_flops`, `compute_factor` (over
        `train_flops`), `size_ratio` (N over N\\*) and `break_even_tokens`: served tokens after which training and
        serving together cost less than with the compute-optimal model; NaN for ratios at or below the optimum, which
        buy no smaller model, and for those at which the law does not reach the loss within a factor of 1e6 of compute.
    """
    best = best_model(law, scale, train_flops)
    best_loss, best_size, ratio_there = (float(each[0]) for each in (best.loss, best.num_params, best.tokens_per_param))
    steps = 300
    log_c = np.log(train_flops) + np.linspace(0.0, np.log(LARGEST_FACTOR), steps + 1)
    sizes = _sizes(scale, train_flops, steps, tuple(map(float, ratios)))
    losses = np.asarray(law.predict(sizes, np.asarray(ratios, dtype=float) * sizes))
    rows = []
    for ratio, loss in zip(ratios, losses.T, strict=True):
        reached = loss[-1] <= best_loss
        flops = float(np.exp(np.interp(-best_loss, -loss, log_c))) if reached else float("nan")
        found = float(scale.num_params(flops, ratio)) if reached else float("nan")
        saved = SERVING_FLOPS_PER_PARAM * (best_size - found)
        rows.append(
            {
                "tokens_per_param": float(ratio),
                "num_params": found,
                "num_tokens": ratio * found,
                "train_flops": flops,
                "compute_factor": flops / train_flops,
                "size_ratio": found / best_size,
                "break_even_tokens": (flops - train_flops) / saved if ratio > ratio_there and saved > 0 else np.nan,
            }
        )
    return pd.DataFrame(rows)


@lru_cache(maxsize=64)
def _sizes(scale: ComputeScale, train_flops: float, steps: int, ratios: tuple[float, ...]) -> NDArray[np.float64]:
    """N at each of steps + 1 computes from `train_flops` up, and each ratio; laws share it, so it is kept."""
    flops = train_flops * np.geomspace(1.0, LARGEST_FACTOR, steps + 1)
    return np.asarray(scale.num_params(flops[:, None], np.array(ratios)))


def bootstrap_table(
    bootstrap: Bootstrap,
    table: Callable[[LossSurface], pd.DataFrame],
    columns: Sequence[str],
    level: float = 0.95,
) -> pd.DataFrame:
    """Percentile intervals of columns of a table computed from a law.

    Parameters
    ----------
    bootstrap
        refits of the law.
    table
        e.g. `lambda law: cost_at_equal_compute(law, scale, 1e21, ratios)`; resamples whose law has no optimum are left
        out.
    columns
        of that table.

    Returns
    -------
    DataFrame
        with `NAME_low` and `NAME_high` for every column, and the rows of the table. All bounds are NaN where most
        resamples have no fit or no optimum; `attrs["lost"]` is their share, to be said above 1 %.

    Raises
    ------
    NotApplicable
        if no resample has an optimum.
    """
    found: list[NDArray[np.float64]] = []
    for law in [] if bootstrap.lost == 1 else bootstrap.laws:
        try:
            found.append(table(law)[list(columns)].to_numpy(dtype=float))
        except InputError:
            continue
    if not found:
        raise NotApplicable("over-training: no resample of the law has an optimum")
    lost = 1 - len(found) / len(bootstrap.theta)
    bounds: dict[str, list[float]] = {}
    for name, values in zip(columns, np.array(found).transpose(2, 1, 0), strict=True):
        if lost > MOST:
            values = np.full_like(values, np.nan)
        pairs = [percentile_interval(resamples, level) for resamples in values]
        bounds[f"{name}_low"], bounds[f"{name}_high"] = [low for low, _ in pairs], [high for _, high in pairs]
    table_of_bounds = pd.DataFrame(bounds)
    table_of_bounds.attrs["lost"] = lost
    return table_of_bounds


def penalty_by_law(runs: pd.DataFrame, scale: ComputeScale, train_flops: float, ratio: float) -> pd.DataFrame:
    """The loss penalty of one ratio at equal compute, from laws fitted to other runs and of other forms.

    Parameters
    ----------
    runs
        runs of one architecture and context; where the column `experiment` is there, each of its values is fitted by
        itself, and then all runs. Sets of fewer than 9 runs are left out.

    Returns
    -------
    DataFrame
        with one row per set of runs and form: `runs`, `num_runs`, `gamma_free`, `gamma`, `E`, `optimal_ratio`,
        `penalty` (relative; both NaN where the law has no optimum or is not identified), `rms` (of log loss) and
        `status`.
    """
    sets: dict[str, pd.DataFrame] = {}
    if len(kinds := by_experiment(runs)) > 1:
        sets = kinds
    rows = []
    for kind, group in {**sets, "all": runs}.items():
        for gamma in (None, 1.0) if len(group) > 8 else ():
            fitted = fit(LossSurface, group, gamma=gamma)
            row = {"runs": kind, "num_runs": len(group), "gamma_free": gamma is None, "gamma": fitted.law.gamma}
            row |= {"E": fitted.law.E} | _price(fitted, scale, train_flops, ratio)
            rows.append(row | {"rms": float(np.sqrt(np.mean(fitted.residuals**2))), "status": fitted.status})
    return pd.DataFrame(rows)


def _price(fit: Fit, scale: ComputeScale, train_flops: float, ratio: float) -> dict[str, float]:
    """`optimal_ratio` and `penalty` by a fit; NaN where the law says nothing of the price."""
    if fit.identified:
        try:
            cost = cost_at_equal_compute(fit.law, scale, train_flops, [ratio])
            best = float(best_model(fit.law, scale, train_flops).tokens_per_param[0])
            return {"optimal_ratio": best, "penalty": float(cost["relative_penalty"].iloc[0])}
        except NotApplicable:
            return dict.fromkeys(("optimal_ratio", "penalty"), np.nan)
    return dict.fromkeys(("optimal_ratio", "penalty"), np.nan)
