"""What an objective nobody chose does to a fit: a default argument that resamples, a loss that is squared twice.

Both are behind the published runtime models (`companion.inference.published`); here they meet the law of the loss.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.special import huber

from companion.chapters.ch06.designs import size_exponent
from companion.errors import InputError
from companion.fitting.derivatives import from_raw, log_predictions, make_rows, to_raw
from companion.fitting.fit import Fit, fit
from companion.laws import LossSurface
from companion.laws.base import Array


def one_resample(runs: pd.DataFrame, draw_seed: int = 0) -> pd.DataFrame:
    """The fit to every run once, and to the one resample that a default argument draws.

    Returns
    -------
    DataFrame with `drawn`, `distinct` (different runs in it), `most` (how often one of them counts), `E`, `alpha`,
    `beta`, `gamma` and `size_exponent` (a); NaN where the resample cannot be fitted.
    """
    order = np.random.default_rng(draw_seed).integers(0, len(runs), len(runs))
    rows = []
    for name, chosen in (("every run once", np.arange(len(runs))), (f"default_rng({draw_seed})", order)):
        counts = np.bincount(chosen, minlength=len(runs))
        row: dict[str, Any] = {"drawn": name, "distinct": int((counts > 0).sum()), "most": int(counts.max())}
        try:
            law = fit(LossSurface, runs.iloc[chosen].reset_index(drop=True)).law
        except InputError:  # too few different runs are left
            rows.append(row)
            continue
        row |= {key: getattr(law, key) for key in ("E", "alpha", "beta", "gamma")}
        rows.append(row | {"size_exponent": size_exponent(law)})
    columns = ["drawn", "distinct", "most", "E", "alpha", "beta", "gamma", "size_exponent"]
    return pd.DataFrame(rows, columns=columns)


def squared_twice(fitted: Fit) -> pd.DataFrame:
    """A fit, and what becomes of it where each term of its objective is taken for a residual and squared again.

    Returns
    -------
    DataFrame with `objective`, `E`, `alpha`, `beta`, `gamma`, `size_exponent` (a), `rms` and `largest` (root mean
    square and largest log residual, absolute), and `half`: the fewest runs that make up half of the objective. Rows:
    the Huber loss of the fit, its square; squares, and squares of squares.
    """
    rows = []
    for label, delta in (("Huber loss", fitted.huber_delta), ("squares", math.inf)):
        once = (
            fitted
            if delta == fitted.huber_delta
            else fit(LossSurface, fitted.data, huber_delta=delta, gamma=fitted.fixed.get("gamma"))
        )
        for name, law, power in ((label, once.law, 1), (f"{label}, squared again", _square_again(once, delta), 2)):
            data = fitted.data
            predicted = law.predict(data["num_params"].to_numpy(), data["num_tokens"].to_numpy())
            residuals = np.log(data["val_loss"].to_numpy() / predicted)
            terms = np.sort(data["weight"].to_numpy() * huber(delta, residuals) ** power)[::-1]
            row = {"objective": name, "E": law.E, "alpha": law.alpha, "beta": law.beta, "gamma": law.gamma}
            row |= {"size_exponent": size_exponent(law), "rms": float(np.sqrt(np.mean(residuals**2)))}
            row |= {"largest": float(np.abs(residuals).max())}
            rows.append(row | {"half": int(np.searchsorted(np.cumsum(terms), terms.sum() / 2) + 1)})
    return pd.DataFrame(rows)


def _square_again(fit: Fit, delta: float) -> LossSurface:
    """Least squares of the Huber losses, as if they were residuals; from the fit's own optimum."""
    data = fit.data
    rows = make_rows(LossSurface, data["num_params"], data["num_tokens"], data["val_loss"], data["weight"], delta)
    free = fit.num_free
    start = from_raw(fit.theta, rows)

    def terms(free_theta: Array) -> Array:
        theta = np.concatenate([free_theta, start[free:]])
        residuals = (log_predictions(theta[None], rows) - rows.log_loss)[0] * 1e3  # per mille: numbers near 1
        return np.sqrt(rows.weights) * huber(delta * 1e3, residuals)

    found = least_squares(terms, start[:free], method="trf", x_scale="jac", ftol=1e-12, xtol=1e-12, gtol=1e-12)
    theta = to_raw(np.concatenate([found.x, start[free:]]), rows)
    e, a, b, alpha, beta, log_gamma = theta
    return LossSurface(
        E=float(np.exp(e)), A=float(np.exp(a)), B=float(np.exp(b)), alpha=float(alpha), beta=float(beta),
        gamma=float(np.exp(log_gamma)),
    )  # fmt: skip
