"""The shift of IsoFLOP optima with the context length, explained: one loss law and exact accounting.

The claim that is tested: a model's loss depends on N and D alone, and the context changes only what a token costs. Then
a law fitted at one context T0 predicts the optima at every other. Predictions are made in several ways, which differ in
how they read an optimum off the law:

`same runs`
    the law gives the runs of the other context their losses, at the N and D that these had at their budget; the optimum
    is that of a parabola, exactly as for the measured losses. Grids and the bias of parabolas cancel.
`family`
    the exact minimum along the smooth shapes of `companion.runs.shape_family`, at the mean compute of the profile.
`own shapes`
    the exact minimum with the cost of the table's own shapes, counted again at that context and drawn through as a
    polynomial in ln N (`ComputeScale`).
`nothing moves`
    as `family`, but a token costs what it costs at T0: what would be seen if the context did not matter.

One bootstrap carries everything: resample r has its own runs at every context, its own law through those at T0, and
its own optima, so that ratios of measured and predicted values have the error of both.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.accounting.conventions import PAPER, Convention, get_convention
from companion.architectures import ARCHITECTURES
from companion.errors import InputError
from companion.fitting.bootstrap import interval_with_lost
from companion.fitting.context.optima import ContextOptimum
from companion.fitting.context.scaling import ContextFit
from companion.fitting.fit import Fit, fit
from companion.fitting.overtraining.cost import ComputeScale, fit_compute_scale
from companion.fitting.uncertainty import BATCH, Bootstrap, refit
from companion.laws import LossSurface, Optimum, optimum
from companion.runs.recount import missing_for_recount, recount
from companion.runs.shape_family import FamilyScale, ShapeFamily, fit_shape_family

Array = NDArray[np.float64]
Way = Callable[[ContextOptimum], Array]

SAME_RUNS, FAMILY, OWN_SHAPES, NOTHING_MOVES = "same runs", "family", "own shapes", "nothing moves"
METHODS = (SAME_RUNS, FAMILY, OWN_SHAPES, NOTHING_MOVES)
INSIDE, OUTSIDE, UNKNOWN = "inside", "outside", "unknown"
#: How far beyond the sizes of a profile the optimum of `own shapes` is looked for: a factor.
REACH = 5.0


@dataclass(frozen=True, kw_only=True)
class PredictedOptimum:
    """A measured optimum and what the law says it should be; resamples (R,) are paired with those of `measured`."""

    method: str
    measured: ContextOptimum
    predicted: float
    predicted_resamples: Array

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured.x_opt / self.predicted

    @property
    def ratio_resamples(self) -> Array:
        """The ratio in every resample, shape (R,)."""
        return self.measured.x_opt_resamples / self.predicted_resamples


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Predictions of all measured optima from a law of one context.

    `law_fit` saw the runs at `fit_context`; `bootstrap` are its refits to the resamples of the measured optima.
    """

    measured: ContextFit
    law_fit: Fit
    bootstrap: Bootstrap
    family: ShapeFamily
    convention: Convention
    fit_context: int
    predictions: tuple[PredictedOptimum, ...]
    warnings: tuple[str, ...]

    def levels(self, level: float = 0.95) -> pd.DataFrame:
        """Measured and predicted optima, and whether they agree.

        Returns
        -------
        DataFrame
            with one row per prediction: `isoflop_budget`, `context_length`, `quantity`, `method`, `measured` and
            `predicted` (each with `_low`, `_high`), `ratio` (measured over predicted, with `_low`, `_high` from both
            errors) and `verdict`: `inside` if that interval holds 1, `unknown` if there is none.
        """
        rows = []
        for each in self.predictions:
            row = _labels(each) | {"measured": each.measured.x_opt, "predicted": each.predicted}
            row |= _bounds("measured", each.measured.x_opt_resamples, level)
            row |= _bounds("predicted", each.predicted_resamples, level)
            rows.append(row | {"ratio": each.ratio} | _judged(each.ratio_resamples, level, "ratio"))
        return pd.DataFrame(rows)

    def shifts(self, level: float = 0.95) -> pd.DataFrame:
        """The same for x\\*(T) / x\\*(T0): an error that the law makes at T0 already cancels.

        Returns
        -------
        DataFrame
            with one row per prediction at another context than `fit_context`: labels as in `levels`, `measured` and
            `predicted` shifts (factors) with intervals, `ratio` of both with an interval, `verdict`.
        """
        return pd.DataFrame([row for _, row in self._shift_rows(level)])

    def pooled_shifts(self, level: float = 0.95) -> pd.DataFrame:
        """Geometric means of the shifts over the budgets: one row per context, quantity and method.

        Budgets are independent of each other but for the law, so the mean is known better than its parts.
        Columns as in `shifts`, with `num_budgets` for the budget.
        """
        groups: dict[tuple[int, str, str], list[tuple[PredictedOptimum, PredictedOptimum]]] = {}
        for (here, at_start), row in self._shift_rows(level):
            key = (int(row["context_length"]), str(row["quantity"]), str(row["method"]))
            groups.setdefault(key, []).append((here, at_start))
        rows = []
        for (length, quantity, method), pairs in groups.items():
            measured = [_ratio(here.measured, start.measured) for here, start in pairs]
            predicted = [
                (here.predicted / start.predicted, here.predicted_resamples / start.predicted_resamples)
                for here, start in pairs
            ]
            seen, said = _geometric_mean(measured), _geometric_mean(predicted)
            row = {"num_budgets": len(pairs), "context_length": length, "quantity": quantity, "method": method}
            rows.append(row | _shift_row(seen, said, level))
        return pd.DataFrame(rows)

    def _shift_rows(self, level: float) -> Iterator[tuple[tuple[PredictedOptimum, PredictedOptimum], dict[str, Any]]]:
        start = {
            (each.method, each.measured.isoflop_budget, each.measured.quantity): each
            for each in self.predictions
            if each.measured.context_length == self.fit_context
        }
        for each in self.predictions:
            origin = start.get((each.method, each.measured.isoflop_budget, each.measured.quantity))
            if origin is None or origin is each:
                continue
            predicted = each.predicted / origin.predicted, each.predicted_resamples / origin.predicted_resamples
            row = _labels(each) | _shift_row(_ratio(each.measured, origin.measured), predicted, level)
            yield (each, origin), row


def explain(
    measured: ContextFit,
    *,
    fit_context: int = 8192,
    gamma: float | None = None,
    convention: str | Convention = PAPER,
    methods: Sequence[str] = METHODS,
) -> Explanation:
    """Predict every measured optimum from the law of the runs at one context.

    Parameters
    ----------
    measured
        optima with at least one resample.
    fit_context
        T0: the context length whose IsoFLOP runs, at all budgets, the law is fitted to.
    gamma
        as in `companion.fitting.fit`.
    convention
        what counts as a FLOP.
    methods
        which of `METHODS` to predict with.

    Raises
    ------
    InputError
        for an unknown method, an architecture without a count, no runs at T0 or too few for the law, or no resamples.
    """
    chosen = get_convention(convention)
    if unknown := [name for name in methods if name not in METHODS]:
        raise InputError(f"unknown method {unknown[0]!r}; choose from {', '.join(METHODS)}")
    if measured.architecture not in ARCHITECTURES:
        raise InputError(f"no count for architecture {measured.architecture!r}, only for {', '.join(ARCHITECTURES)}")
    if not len(measured.counts):
        raise InputError("explaining a shift needs resamples: num_resamples of at least 1")
    at_start = (measured.runs["context_length"] == fit_context).to_numpy()
    if not at_start.any():
        there = ", ".join(f"{length:.0f}" for length in sorted(measured.runs["context_length"].unique()))
        raise InputError(f"no {measured.architecture} runs at context_length {fit_context}; there are {there}")
    table = measured.runs[at_start].assign(_weight=measured.base_weights[at_start])
    law_fit = fit(LossSurface, table, gamma=gamma, weights="_weight")
    counts = measured.counts[:, at_start] * measured.base_weights[at_start]
    theta = np.concatenate([refit(law_fit, counts[i : i + BATCH]) for i in range(0, len(counts), BATCH)])
    bootstrap = Bootstrap(fit=law_fit, theta=theta, seed=measured.seed, cluster=None)
    family = fit_shape_family(measured.runs, measured.architecture)
    ways, notes = _ways(measured, bootstrap, family, chosen, fit_context)
    return Explanation(
        measured=measured,
        law_fit=law_fit,
        bootstrap=bootstrap,
        family=family,
        convention=chosen,
        fit_context=fit_context,
        predictions=tuple(_predictions(measured, {name: ways[name] for name in methods if name in ways})),
        warnings=tuple(notes),
    )


def paired_laws(bootstrap: Bootstrap) -> LossSurface:
    """All refits, those that failed as NaN: law r stays law r, the law of the fit itself comes first."""
    best, samples = bootstrap.fit.parameters, bootstrap.samples
    return LossSurface(**{name: np.concatenate([[value], samples[name].to_numpy()]) for name, value in best.items()})


def parabola_optima(optimum: ContextOptimum, losses: Array) -> Array:
    """Optima of parabolas through other losses of the same runs; losses (n, R), result (R,)."""
    z = np.log10(optimum.profile.x)
    center, root = z.mean(), np.sqrt(optimum.profile.weights)
    design = np.stack([(z - center) ** 2, z - center, np.ones_like(z)], axis=1)
    finite = np.isfinite(losses).all(axis=0)
    result = np.full(losses.shape[1], np.nan)
    quadratic, linear, _ = np.linalg.lstsq(design * root[:, None], losses[:, finite] * root[:, None], rcond=None)[0]
    result[finite] = np.where(
        quadratic > 0, 10 ** (center - linear / np.where(quadratic > 0, 2 * quadratic, 1)), np.nan
    )
    return result


def profile_runs(measured: ContextFit, optimum: ContextOptimum) -> pd.DataFrame:
    """The runs of one profile, in its order."""
    runs = measured.runs
    return runs[(runs["isoflop_budget"] == optimum.isoflop_budget) & (runs["context_length"] == optimum.context_length)]


def _ways(
    measured: ContextFit, bootstrap: Bootstrap, family: ShapeFamily, convention: Convention, start: int
) -> tuple[dict[str, Way], list[str]]:
    """The optimum that each method predicts, by name: the law's own value first, then one per resample."""
    laws, notes = paired_laws(bootstrap), []
    if reason := missing_for_recount(measured.runs):
        notes.append(f"no prediction with the table's own shapes: {reason}")

    def same_runs(optimum: ContextOptimum) -> Array:
        runs = profile_runs(measured, optimum)
        sizes, tokens = (runs[name].to_numpy(dtype=float)[:, None] for name in ("num_params", "num_tokens"))
        return parabola_optima(optimum, np.asarray(laws.predict(sizes, tokens)))

    @cache  # N* and D* of a profile come from one search
    def best(length: int, flops: float) -> Optimum:
        return optimum(laws, FamilyScale(family=family, context_length=length, convention=convention), flops)

    def along_family(optimum: ContextOptimum, length: int) -> Array:
        return np.asarray(getattr(best(length, optimum.mean_train_flops), optimum.quantity))

    ways: dict[str, Way] = {
        SAME_RUNS: same_runs,
        FAMILY: lambda optimum: along_family(optimum, optimum.context_length),
        NOTHING_MOVES: lambda optimum: along_family(optimum, start),
    }
    if not reason:
        scales = {length: own_scale(measured, length, convention) for length in measured.context_lengths}
        ways[OWN_SHAPES] = lambda optimum: _along_own_shapes(
            laws, scales[optimum.context_length], optimum, profile_runs(measured, optimum)["num_params"]
        )
    return ways, notes


def _predictions(measured: ContextFit, ways: Mapping[str, Way]) -> Iterator[PredictedOptimum]:
    for each in measured.optima:
        for method, way in ways.items():
            values = way(each)
            yield PredictedOptimum(
                method=method, measured=each, predicted=float(values[0]), predicted_resamples=values[1:]
            )


def own_scale(measured: ContextFit, context_length: int, convention: Convention = PAPER) -> ComputeScale:
    """Cost of the table's shapes, all of them, counted at one context length."""
    runs = measured.runs.assign(context_length=context_length)
    return fit_compute_scale(runs.assign(train_flops=recount(runs, convention)))


def _along_own_shapes(laws: LossSurface, scale: ComputeScale, measured: ContextOptimum, trained: pd.Series) -> Array:
    """Optima around the sizes of a profile, shape (R,); NaN for a law whose loss falls to an end of that range."""
    limits = float(np.log(trained.min() / REACH)), float(np.log(trained.max() * REACH))
    try:
        found = optimum(laws, scale, measured.mean_train_flops, limits)
    except InputError:  # no law has one
        return np.full(len(laws), np.nan)
    return np.asarray(getattr(found, measured.quantity))


def _labels(each: PredictedOptimum) -> dict[str, Any]:
    optimum = each.measured
    labels = {"isoflop_budget": optimum.isoflop_budget, "context_length": optimum.context_length}
    return labels | {"quantity": optimum.quantity, "method": each.method}


def _ratio(here: ContextOptimum, start: ContextOptimum) -> tuple[float, Array]:
    return here.x_opt / start.x_opt, here.x_opt_resamples / start.x_opt_resamples


def _geometric_mean(parts: list[tuple[float, Array]]) -> tuple[float, Array]:
    values, resamples = zip(*parts, strict=True)
    return float(np.exp(np.mean(np.log(values)))), np.asarray(np.exp(np.mean(np.log(resamples), axis=0)))


def _shift_row(seen: tuple[float, Array], said: tuple[float, Array], level: float) -> dict[str, Any]:
    row: dict[str, Any] = {"measured": seen[0], "predicted": said[0], "ratio": seen[0] / said[0]}
    row |= _bounds("measured", seen[1], level) | _bounds("predicted", said[1], level)
    return row | _judged(seen[1] / said[1], level, "ratio")


def _bounds(name: str, resamples: Array, level: float) -> dict[str, Any]:
    low, high = interval_with_lost(resamples, level)
    return {f"{name}_low": low, f"{name}_high": high}


def _judged(resamples: Array, level: float, name: str) -> dict[str, Any]:
    low, high = interval_with_lost(resamples, level)
    verdict = UNKNOWN if np.isnan(low) else INSIDE if low <= 1 <= high else OUTSIDE
    return {f"{name}_low": low, f"{name}_high": high, "verdict": verdict}
