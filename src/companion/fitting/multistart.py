"""The plain way to fit the parametric law, for comparison: one search by finite differences from every point of a grid.

Written after the description of the published fits (arXiv 2510.02228, notes in `data/published.yaml`; the recipe goes
back to arXiv 2203.15556, approach 3): L-BFGS-B on (a, b, e, alpha, beta, gamma) with A = exp(a), B = exp(b),
E = exp(e), logarithms of N and D as they are, gradients by forward differences, no bounds. `fit` answers the
same question exactly; this module exists to show how far, and how slowly, the plain way gets.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber

from companion.errors import InputError
from companion.fitting.fit import Fit
from companion.laws import LossSurface
from companion.laws.base import Array

#: Start values by parameter, in the order of the search's vector.
GRID: Mapping[str, tuple[float, ...]] = {
    "a": (0.0, 5.0, 10.0, 15.0, 20.0),
    "b": (0.0, 5.0, 10.0, 15.0, 20.0),
    "e": (-1.0, -0.5, 0.0, 0.5, 1.0),
    "alpha": (0.0, 0.2, 0.5, 1.0),
    "beta": (0.0, 0.2, 0.5, 1.0),
    "gamma": (0.0, 0.5, 1.0, 1.5),
}
#: Options of L-BFGS-B. `published` asks for more digits than float64 has, so that the line search decides when to stop.
#: `scipy default` stops when a step gains less than 2e-9 of max(objective, 1): early, for an objective of 1e-4.
SETTINGS: Mapping[str, Mapping[str, float]] = {
    "published": {"ftol": 1e-32, "gtol": 1e-32, "maxls": 200},
    "scipy default": {},
    "scipy default, mean": {},
}
#: Settings that minimize the mean of the terms, not their sum (arXiv 2404.10102 on why the search then stops earlier).
MEAN_SETTINGS = ("scipy default, mean",)


@dataclass(frozen=True, kw_only=True)
class Multistart:
    """Where every start ended, and what it cost.

    Attributes
    ----------
    starts, theta
        (a, b, e, alpha, beta, gamma) before and after every search, shape (R, 6).
    objective
        sum of weighted Huber terms at the end, shape (R,); infinite where the search left the numbers.
    evaluations
        of the objective, finite differences included, shape (R,).
    seconds
        wall time of all starts.
    grid_size
        starts of the whole grid: 8,000 with gamma free, 2,000 without.
    setting
        name of the options.
    """

    starts: Array
    theta: Array
    objective: Array
    evaluations: Array
    seconds: float
    grid_size: int
    setting: str

    @property
    def seconds_per_start(self) -> float:
        """Mean wall time of a start."""
        return self.seconds / len(self.objective)

    def share_within(self, best: float, tolerance: float) -> float:
        """Share of the starts that end at most `tolerance` (relative) above an objective `best`, between 0 and 1."""
        return float(np.mean(self.objective <= best * (1 + tolerance)))

    @property
    def parameters(self) -> dict[str, float]:
        """E, A, B, alpha, beta, gamma of the start that ended lowest."""
        a, b, e, alpha, beta, gamma = self.theta[int(np.argmin(self.objective))].tolist()
        return dict(E=np.exp(e).item(), A=np.exp(a).item(), B=np.exp(b).item(), alpha=alpha, beta=beta, gamma=gamma)


def start_grid(gamma: float | None = None) -> Array:
    """All starts of the published grid, shape (8000, 6), or (2000, 6) with a fixed gamma."""
    axes = [values for name, values in GRID.items() if name != "gamma" or gamma is None]
    starts = np.array(list(product(*axes)))
    return starts if gamma is None else np.column_stack([starts, np.full(len(starts), gamma)])


def reference_multistart(
    fit: Fit,
    num_starts: int | None = 40,
    *,
    seed: int = 0,
    setting: str = "published",
    progress: bool = False,
) -> Multistart:
    """Solve the problem of a fit again, from a random part of the published grid.

    Parameters
    ----------
    fit
        gives runs, weights, Huber delta, and gamma where it was fixed; its solution is not used.
    num_starts
        drawn without replacement; None takes the whole grid (minutes to hours with gamma free).
    seed
        of the draw.
    setting
        a name in `SETTINGS`.
    progress
        show a progress bar on stderr.

    Raises
    ------
    InputError
        for an unknown setting or a number of starts that the grid does not have.
    """
    from tqdm import tqdm

    if setting not in SETTINGS:
        raise InputError(f"multi-start: no setting {setting!r}; there are {', '.join(SETTINGS)}")
    gamma = fit.fixed.get("gamma")
    grid = start_grid(gamma)
    number = len(grid) if num_starts is None else num_starts
    if not 1 <= number <= len(grid):
        raise InputError(f"multi-start: {number} starts; the grid has 1 to {len(grid)}")
    starts = grid[np.random.default_rng(seed).permutation(len(grid))[:number]]
    function = _objective(fit, gamma)
    scale = 1 / fit.data["weight"].sum() if setting in MEAN_SETTINGS else 1.0
    free = 6 if gamma is None else 5
    theta, least, evaluations = starts.copy(), np.empty(number), np.empty(number)
    begin = time.perf_counter()
    for row, start in enumerate(tqdm(starts, desc="starts", disable=not progress, file=sys.stderr)):
        with np.errstate(over="ignore", invalid="ignore"):
            end = minimize(
                lambda vector: scale * function(vector),
                start[:free],
                method="L-BFGS-B",
                options=dict(SETTINGS[setting]),
            )
        theta[row, :free], evaluations[row] = end.x, end.nfev
        least[row] = end.fun / scale if np.isfinite(end.fun) else np.inf
    return Multistart(
        starts=starts,
        theta=theta,
        objective=least,
        evaluations=evaluations,
        seconds=time.perf_counter() - begin,
        grid_size=len(grid),
        setting=setting,
    )


def _objective(fit: Fit, gamma: float | None) -> Callable[[Array], float]:
    """Sum of weighted Huber terms of (a, b, e, alpha, beta[, gamma])."""
    log_n, log_d, log_loss = (np.log(fit.data[name].to_numpy()) for name in ("num_params", "num_tokens", "val_loss"))
    weights, delta = fit.data["weight"].to_numpy(), fit.huber_delta

    def function(vector: Array) -> float:
        a, b, e, alpha, beta = vector[:5]
        outer = vector[5] if gamma is None else gamma
        fitted = LossSurface.log_loss(e, a, b, alpha, beta, outer, log_n, log_d)
        return float(weights @ huber(delta, fitted - log_loss))

    return function
