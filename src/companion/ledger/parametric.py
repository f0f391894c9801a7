"""Our values for the published parametric fits (a section of `companion.ledger.sections`)."""

import math
from typing import Any

import numpy as np
import pandas as pd

from companion.fitting.derivatives import derivatives, jacobian
from companion.fitting.fit import Fit, fit
from companion.laws import LossSurface


def fit_as_published(runs: pd.DataFrame, entry: dict[str, Any]) -> tuple[Fit, Any]:
    """The fit of one published entry, repeated runs counted twice, and the uncertainty of its losses, shape (n,)."""
    chosen = (runs["architecture"] == entry["architecture"]) & (runs["context_length"] == entry["context_length"])
    experiment = str(entry["dataset"]).split(" ")[0]
    if experiment != "all":
        chosen &= runs["experiment"] == experiment
    fitted = fit(
        LossSurface,
        runs[chosen],
        gamma=None if entry["fit_gamma"] else 1.0,
        huber_delta=float(entry["huber_delta"]),
        weights="multiplicity_in_published_fits",
    )
    return fitted, runs.loc[chosen, "loss_uncertainty"].to_numpy()


def values_and_spreads(fit: Fit, loss_uncertainty: Any) -> dict[str, tuple[float, float]]:
    """Parameters and objective under the names of the published file, each with its spread.

    The spread is the standard deviation under uniform errors of the losses within `loss_uncertainty`, shape (n,), to
    first order: at the optimum the gradient vanishes, so d theta = H^-1 · sum of w·J·d log L over the runs in the
    quadratic part of the Huber loss.
    """
    rows = fit.rows
    theta = fit.theta_centered[None]
    state = derivatives(theta, rows)
    first = jacobian(theta, rows)[0]
    deviation = np.asarray(loss_uncertainty, dtype=float) / np.exp(rows.log_loss) / math.sqrt(3)
    weighted = first * (rows.weights * (np.abs(fit.residuals) <= rows.huber_delta) * deviation)[:, None]
    response = np.zeros((6, len(deviation)))
    response[fit.free] = np.linalg.solve(state.hessian[0][np.ix_(fit.free, fit.free)], weighted[:, fit.free].T)
    # from the centered law to the one printed: a and b carry alpha and beta along
    response[1] += response[3] * rows.center[0]
    response[2] += response[4] * rows.center[1]
    spreads = np.linalg.norm(response, axis=1)
    e, a, b, alpha, beta = fit.theta[:5]
    slopes = np.clip(fit.residuals, -rows.huber_delta, rows.huber_delta)
    parameters = fit.parameters
    result = {
        "e": (e, spreads[0]),
        "a": (a, spreads[1]),
        "b": (b, spreads[2]),
        "alpha": (alpha, spreads[3]),
        "beta": (beta, spreads[4]),
        "objective": (fit.objective, float(np.linalg.norm(rows.weights * slopes * deviation))),
    }
    for name, index in zip(("E", "A", "B", "gamma"), (0, 1, 2, 5), strict=True):
        result[name] = (parameters[name], parameters[name] * spreads[index])
    return {name: (float(value), float(spread)) for name, (value, spread) in result.items()}
