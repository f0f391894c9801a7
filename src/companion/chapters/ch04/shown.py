"""The figures of chapter 4 as the page shows them: with names, alternative texts and captions."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.chapters.ch04 import figures, reach_figures
from companion.chapters.labels import by_label, label_of
from companion.fitting.fit import Fit
from companion.fitting.likelihood import Profile
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import count, significant
from companion.laws import LossSurface
from companion.plotting import Html, show

#: Rows of the correlations.
_A, _ALPHA = LossSurface.PARAMETERS.index("A"), LossSurface.PARAMETERS.index("alpha")

Fits = Mapping[str, Fit]
Tables = Mapping[str, pd.DataFrame]


def target_text(target: Mapping[str, float]) -> str:
    """The model to predict: `N = 6.87B, D = 2.10T`."""
    return f"N = {count(target['num_params'])}, D = {count(target['num_tokens'])}"


def outlier_figure(shifts: pd.DataFrame, name: str, target: Mapping[str, float]) -> Html:
    """What one wrong loss does to α and to the loss of the target.

    Parameters
    ----------
    shifts
        of `companion.fitting.diagnostics.outlier_shifts`, with the readings `alpha` and `loss`.
    name
        architecture of the runs.
    """
    return show(
        figures.outlier_influence(shifts, {"alpha": "change of α", "loss": "change of loss\n(nats/token)"}),
        name="surface-huber",
        alt="Change of the fit over the size of an outlier, for several deltas: flat under a small delta, growing "
        "without bound under least squares.",
        caption=f"{label_of(name)}: we raise the loss of one run and fit again. First: how far α moves. Then: how far "
        f"the predicted loss of the target ({target_text(target)}) moves.",
    )


def misfit_figure(
    misfits: Mapping[str, NDArray[np.float64]], alphas: Sequence[float], betas: Sequence[float], fits: Fits
) -> Html:
    """The projected misfit over α and β, with the fits."""
    return show(
        figures.misfit_slices(misfits, alphas, betas, fits),
        name="surface-projection",
        alt="Contours of the misfit over alpha and beta: one elongated basin, the fitted exponents near its bottom.",
        caption="Root mean square misfit over α and β, relative to the best point of the grid. At every point E, A and "
        "B are the best ones. The cross is the best point under least squares; the marker is the fit under the Huber "
        "loss.",
    )


def contours_figure(fits: Fits, tables: Tables, per_nd: Mapping[str, float]) -> Html:
    """The fitted loss, the runs and the compute-optimal path; `per_nd` is κ of C = κND by architecture."""
    return show(
        figures.loss_contours(fits, tables, per_nd),
        name="surface-contours",
        alt="Contours of equal loss in the plane of parameters and tokens, the runs, and the path of compute-optimal "
        "models.",
        caption="The fitted loss (contours, nats per token), the runs (markers), and the compute-optimal path for "
        f"C = κND, with the median κ of the runs: {by_label({name: f'{k:.1f}' for name, k in per_nd.items()}, ', ')}. "
        "Where there are no runs the contours are extrapolated.",
    )


def residuals_figure(fits: Fits, tables: Tables) -> Html:
    """Residuals of the fits over compute."""
    return show(
        figures.residuals_over_compute(fits, tables),
        name="surface-residuals",
        alt="Residuals of the fits over compute by design of the runs.",
        caption="What the law does not explain: observed over fitted loss, minus one, over compute. Independent errors "
        "would scatter about zero at every compute.",
    )


def profiles_figure(
    curves: Mapping[str, Mapping[str, Profile]], resamples: Mapping[str, Mapping[str, Bootstrap]]
) -> Html:
    """Profiles of E and α, and the bootstrap intervals.

    Parameters
    ----------
    curves
        by parameter and architecture.
    resamples
        by kind of bootstrap and architecture.
    """
    shown = ("E", "alpha")
    intervals = {
        parameter: {
            name: {kind: drawn[name].interval(parameter) for kind, drawn in resamples.items()}
            for name in curves[parameter]
        }
        for parameter in shown
    }
    return show(
        figures.profiles({parameter: curves[parameter] for parameter in shown}, intervals),
        name="surface-profiles",
        alt="Profiles of E and alpha, roughly parabolas, and bootstrap intervals as bars below them.",
        caption="Profiles of E and α. The interval lies where the curve is below the dashed line. Bars below zero: "
        "95 % bootstrap intervals, solid over runs, dashed over model sizes.",
    )


def correlations_figure(fits: Fits) -> Html:
    """Correlations of the estimates."""
    pairs = {name: fit.correlations.to_numpy(dtype=float)[_A, _ALPHA] for name, fit in fits.items()}
    return show(
        figures.correlation_maps({name: fit.correlations for name, fit in fits.items()}),
        name="surface-correlations",
        alt="Matrices of correlations between the parameters; log A with alpha and log B with beta are close to one.",
        caption="Correlations of the estimates, to first order. Between log A and α: "
        f"{by_label({name: f'{value:.3f}' for name, value in pairs.items()})}.",
    )


def bands_figure(resamples: Mapping[str, Bootstrap], seen: Tables, hidden: Tables, target: Mapping[str, float]) -> Html:
    """Confidence and prediction bands at the size of the target, from fits to the runs seen."""
    return show(
        reach_figures.bands(resamples, seen, hidden, **target),
        name="surface-bands",
        alt="Loss over tokens at one size with confidence and prediction bands and the runs of that size.",
        caption="Loss over tokens at the target's size, from a fit that has not seen runs at the target. Dark: 95 % "
        "confidence band (bootstrap over sizes). Light: 95 % prediction band of a single run.",
    )


def optima_figure(implied: Tables, measured: Tables) -> Html:
    """Optima of the law and of parabolas over compute."""
    return show(
        reach_figures.optima_over_compute(implied, measured, ["num_params", "tokens_per_param"]),
        name="surface-optima",
        alt="Optimal parameters and optimal tokens per parameter over compute, from the law and from parabolas.",
        caption="Optimal size and tokens per parameter at the budgets of the runs, with 95 % bootstrap intervals. For "
        "parabolas, the bars of tokens per parameter combine those of D* and N*, so they are wider than a joint "
        "interval.",
    )


def furthest_texts(tables: Tables) -> dict[str, str]:
    """Size and tokens of the run with the most compute, by architecture."""
    last = {name: table.iloc[int(table["train_flops"].to_numpy().argmax())] for name, table in tables.items()}
    return {
        name: f"{count(run['num_params'])} parameters on {count(run['num_tokens'])} tokens"
        for name, run in last.items()
    }


def extrapolation_figure(furthest: Mapping[tuple[str, str], pd.DataFrame], tables: Tables) -> Html:
    """Error of the predicted loss of the furthest run.

    Parameters
    ----------
    furthest
        by architecture and form of the law, of `companion.fitting.diagnostics.furthest_run_errors`.
    """
    runs = "; ".join(f"{label_of(name)}, {text}" for name, text in furthest_texts(tables).items())
    return show(
        reach_figures.extrapolation_errors(furthest),
        name="surface-extrapolation",
        alt="Error of the predicted loss of the furthest run over its distance from the cut-off.",
        caption="Error of the predicted loss of the run with the most compute, by the distance of the cut-off below "
        f"which the law was fitted. The run: {runs}.",
    )


def designs_figure(
    by_design: Mapping[str, Fits], parts: Mapping[str, Tables], tables: Tables, per_nd: Mapping[str, float]
) -> Html:
    """Predictions of fits to single designs against the fit to all runs, at the median ratio D/N of the runs."""
    runs = pd.concat(tables.values())
    ratio = float(np.median(runs["num_tokens"] / runs["num_params"]))
    return show(
        reach_figures.design_disagreement(by_design, parts, ratio, per_nd),
        name="surface-designs",
        alt="Predictions of fits to single designs relative to the fit to all runs, over compute.",
        caption=f"Predicted loss at {significant(ratio, 2)} tokens per parameter (the median of the runs), relative to "
        "the fit to all runs. Thick: the range of compute that the fitted runs cover. Compare them where one of "
        "them has no runs.",
    )
