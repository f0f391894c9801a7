"""Is a token of a longer sequence worth as much? One number per context length, fitted to losses at equal N and D.

The law of one context, L(N, D), is taken at other contexts as L(N, kappa·D): a token counts as kappa tokens of the
context that the law was fitted at. Then kappa moves the loss and, because tokens became cheaper or dearer against
parameters, also the optimum: N\\* is proportional to kappa^(beta / (alpha + beta)) at given prices. Effective numbers
of tokens of this kind describe repeated data (arXiv 2305.16264) and transfer (arXiv 2102.01293); here they describe
what accounting leaves over, found after the fact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost
from companion.fitting.context.prediction import (
    Explanation,
    PredictedOptimum,
    paired_laws,
    parabola_optima,
    profile_runs,
)
from companion.fitting.isoflop.parabola import fit_parabola
from companion.fitting.results import Result, check_name
from companion.laws import LossSurface

Array = NDArray[np.float64]

TOKEN_WORTH = "token worth"
#: Gauss-Newton steps in ln kappa, and the change in the last one above which a resample counts as lost.
STEPS, SETTLED = 20, 1e-6
_NEEDED = ("num_params", "num_tokens", "val_loss")


@dataclass(frozen=True, kw_only=True)
class TokenWorth(Result):
    """kappa at one context length, and what it does to the misfit.

    `floor` is a constant added to the law's loss (nats per token; 0 unless it was free). `rms_before` and `rms_after`
    are of observed minus predicted loss, nats per token. Resamples have shape (R,).
    """

    context_length: int
    num_runs: int
    worth: float
    worth_resamples: Array
    floor: float
    floor_resamples: Array
    rms_before: float
    rms_after: float

    def interval(self, name: str = "worth", level: float = 0.95) -> tuple[float, float]:
        """Interval of `worth` or `floor` over the resamples."""
        samples = {"worth": self.worth_resamples, "floor": self.floor_resamples}
        check_name(name, samples, "a token's worth")
        return interval_with_lost(samples[name], level)


def token_worth(explanation: Explanation, *, floor_free: bool = False) -> tuple[TokenWorth, ...]:
    """Fit kappa by least squares to the IsoFLOP runs of every context, in every resample with its own law.

    Parameters
    ----------
    floor_free
        let the level of the loss differ freely by context as well: kappa then follows from the shape of the profiles
        alone, and it does not matter at which context the validation loss was measured.
    """
    measured, laws = explanation.measured, paired_laws(explanation.bootstrap)
    counts = np.concatenate([np.ones((1, len(measured.runs))), measured.counts]) * measured.base_weights
    result = []
    for length in measured.context_lengths:
        rows = (measured.runs["context_length"] == length).to_numpy()
        runs = measured.runs[rows]
        log_worth, floor, before, after = _fit(laws, runs, counts[:, rows], floor_free)
        result.append(
            TokenWorth(
                context_length=length,
                num_runs=len(runs),
                worth=float(np.exp(log_worth[0])),
                worth_resamples=np.exp(log_worth[1:]),
                floor=float(floor[0]),
                floor_resamples=floor[1:],
                rms_before=before,
                rms_after=after,
            )
        )
    return tuple(result)


def with_token_worth(explanation: Explanation, worths: Sequence[TokenWorth]) -> Explanation:
    """The explanation with one more method, `token worth`: as `same runs`, each token worth kappa(T).

    Raises
    ------
    InputError
        if a context length of the explanation has no kappa.
    """
    laws, by_length = paired_laws(explanation.bootstrap), {each.context_length: each for each in worths}
    added = []
    for optimum in explanation.measured.optima:
        if optimum.context_length not in by_length:
            raise InputError(f"token worth: none at context_length {optimum.context_length}")
        each = by_length[optimum.context_length]
        kappa = np.concatenate([[each.worth], each.worth_resamples])
        runs = profile_runs(explanation.measured, optimum)
        sizes, tokens = (runs[name].to_numpy(dtype=float)[:, None] for name in ("num_params", "num_tokens"))
        values = parabola_optima(optimum, np.asarray(laws.predict(sizes, kappa * tokens)))
        added.append(
            PredictedOptimum(
                method=TOKEN_WORTH, measured=optimum, predicted=float(values[0]), predicted_resamples=values[1:]
            )
        )
    return replace(explanation, predictions=(*explanation.predictions, *added))


def worth_table(worths: Sequence[TokenWorth], level: float = 0.95) -> pd.DataFrame:
    """One row per context.

    Returns
    -------
    DataFrame with `context_length`, `num_runs`, `worth` and `floor` (each with `_low` and `_high`), `rms_before` and
    `rms_after`.
    """
    rows = []
    for each in worths:
        row: dict[str, float] = {"context_length": each.context_length, "num_runs": each.num_runs}
        for name in ("worth", "floor"):
            low, high = each.interval(name, level)
            row |= {name: getattr(each, name), f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"rms_before": each.rms_before, "rms_after": each.rms_after})
    return pd.DataFrame(rows)


def losses_at_optima(explanation: Explanation, level: float = 0.95) -> pd.DataFrame:
    """Loss at the measured optimum, and that of the law for the same runs, both read off a parabola over N.

    Where the context changes prices only, both change alike from one context to the next.

    Returns
    -------
    DataFrame with `isoflop_budget`, `context_length`, `measured` (with `_low`, `_high`), `law` and `difference`
    (measured minus law), nats per token.
    """
    rows = []
    for optimum in (each for each in explanation.measured.optima if each.quantity == "num_params"):
        runs = profile_runs(explanation.measured, optimum)
        predicted = explanation.law_fit.law.predict(runs["num_params"], runs["num_tokens"])
        by_law = fit_parabola(optimum.profile.x, predicted, optimum.profile.weights).law.loss_opt
        low, high = interval_with_lost(optimum.loss_opt_resamples, level)
        row = {"isoflop_budget": optimum.isoflop_budget, "context_length": optimum.context_length}
        row |= {"measured": optimum.loss_opt, "measured_low": low, "measured_high": high, "law": by_law}
        rows.append(row | {"difference": optimum.loss_opt - by_law})
    return pd.DataFrame(rows)


def loss_differences(explanation: Explanation, level: float = 0.95) -> pd.DataFrame:
    """Observed loss minus that of the law at the same N and D: the mean over the runs of each context.

    Returns
    -------
    DataFrame with `context_length`, `num_runs`, `difference` (with `_low`, `_high` from resampled runs and laws) and
    `scatter` (standard deviation over the runs), nats per token.
    """
    measured, laws = explanation.measured, paired_laws(explanation.bootstrap)
    rows = []
    for length in measured.context_lengths:
        here = (measured.runs["context_length"] == length).to_numpy()
        runs, weights = measured.runs[here], measured.base_weights[here]
        size, tokens, loss = (runs[name].to_numpy(dtype=float)[:, None] for name in _NEEDED)
        residuals = loss - laws.predict(size, tokens)
        drawn = (measured.counts[:, here] * weights).T
        means = (residuals[:, 1:] * drawn).sum(axis=0) / drawn.sum(axis=0)
        low, high = interval_with_lost(means, level)
        mean = float(np.average(residuals[:, 0], weights=weights))
        row = {"context_length": length, "num_runs": len(runs), "difference": mean}
        scatter = float(np.sqrt(np.average((residuals[:, 0] - mean) ** 2, weights=weights)))
        rows.append(row | {"difference_low": low, "difference_high": high, "scatter": scatter})
    return pd.DataFrame(rows)


def _fit(laws: LossSurface, runs: pd.DataFrame, weights: Array, floor_free: bool) -> tuple[Array, Array, float, float]:
    """ln kappa and floor, shape (R + 1,), and the root mean square residuals of the first law before and after."""
    size, tokens, loss = (runs[name].to_numpy(dtype=float)[:, None] for name in _NEEDED)
    w = weights.T  # (n, R + 1), as predictions are
    log_worth, floor = np.zeros(len(laws)), np.zeros(len(laws))
    residual = loss - laws.predict(size, tokens)
    before = residual[:, 0]
    step = np.full(len(laws), np.inf)
    for _ in range(STEPS):
        worth = np.exp(log_worth) * tokens
        slope = -laws.slopes(size, worth)[1]
        remaining = loss - laws.predict(size, worth) - floor
        if floor_free:
            center = (w * slope).sum(axis=0) / w.sum(axis=0)
            mean = (w * remaining).sum(axis=0) / w.sum(axis=0)
            spread = (w * (slope - center) ** 2).sum(axis=0)
            step = (w * (slope - center) * remaining).sum(axis=0) / np.where(spread > 0, spread, np.nan)
            floor = floor + mean - center * step
        else:
            step = (w * slope * remaining).sum(axis=0) / (w * slope**2).sum(axis=0)
        step = np.clip(step, -1.0, 1.0)
        log_worth = log_worth + step
    log_worth, floor = (np.where(np.abs(step) < SETTLED, each, np.nan) for each in (log_worth, floor))
    after = (loss - laws.predict(size, np.exp(log_worth) * tokens) - floor)[:, 0]
    rms = [float(np.sqrt(np.average(each**2, weights=w[:, 0]))) for each in (before, after)]
    return log_worth, floor, rms[0], rms[1]
