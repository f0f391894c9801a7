"""IsoFLOP in one step: the power law sits inside the model of the runs, and its error comes from their scatter.

The published procedure forgets how well each optimum is known: optima enter the power law with the same weight and
without their errors, so the law's standard error rests on how well three or four points line up, by luck or not. Here

    loss_i = c_b + k_b · (log10 x_i − log10 x*(C_i))² + s · log10(C_i / C_b),    log10 x*(C) = p + a · log10(C / C_ref),

for run i of budget b: one floor c_b and curvature k_b per budget, one slope s for the FLOPs by which a run misses its
budget, and the two parameters of the law. The exponent scatters about as much as that of the two-step fit; what is
gained is an error that can be believed, and runs that count at their own compute. Budgets differ in scatter, so their
rows are weighted by the inverse of the residual variance, estimated from a first pass.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import least_squares

from companion.errors import InputError
from companion.fitting.isoflop import fit_isoflop, isoflop_groups
from companion.laws import PowerLaw


@dataclass(frozen=True, kw_only=True)
class JointIsoflopFit:
    """Power law fitted to all runs at once.

    `covariance` is that of (log10 x* at the reference compute, exponent), shape (2, 2). `curvatures` and
    `residual_deviation` (nats per token) are by budget. `status` is what the optimizer said.
    """

    law: PowerLaw
    reference_flops: float
    covariance: NDArray[np.float64]
    curvatures: dict[float, float]
    residual_deviation: dict[float, float]
    degrees_of_freedom: int
    status: str

    @property
    def exponent_standard_error(self) -> float:
        """Standard error of the exponent."""
        return float(np.sqrt(self.covariance[1, 1]))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student-t confidence interval of the exponent."""
        half = stats.t.ppf((1 + level) / 2, self.degrees_of_freedom) * self.exponent_standard_error
        return (self.law.exponent - half, self.law.exponent + half)

    def predict_interval(self, train_flops: Any, level: float = 0.95) -> tuple[Any, Any]:
        """Confidence band of x*(C), any shape."""
        offset = np.log10(np.asarray(train_flops, dtype=float) / self.reference_flops)
        variance = self.covariance[0, 0] + 2 * offset * self.covariance[0, 1] + offset**2 * self.covariance[1, 1]
        half = stats.t.ppf((1 + level) / 2, self.degrees_of_freedom) * np.sqrt(variance)
        center = np.log10(self.law.predict(train_flops))
        return 10 ** (center - half), 10 ** (center + half)


def fit_isoflop_joint(
    runs: pd.DataFrame, x: str = "num_params", *, weights: str | None = None, budgets: Any = None
) -> JointIsoflopFit:
    """Fit the one-step model by weighted nonlinear least squares, started from the two-step fit.

    Parameters
    ----------
    runs, x, weights, budgets
        as in `companion.fitting.isoflop.fit_isoflop`. Budgets without an optimum of their own are left out.

    Raises
    ------
    InputError
        as `fit_isoflop`, and when the optimizer does not converge.
    """
    start = fit_isoflop(runs, x, weights=weights, budgets=budgets, num_resamples=0)
    used = [profile.isoflop_budget for profile in start.optima]
    groups = {b: g for b, g in isoflop_groups(runs, x, weights, budgets).items() if b in used}
    problem = _Problem(groups, x, weights)
    # numbers: p, a, s, then a floor and a curvature per budget
    reference = problem.reference_flops
    initial = np.concatenate(
        [
            [np.log10(start.power_law.law.predict(reference)), start.power_law.law.exponent, -0.3],
            [profile.fit.law.loss_opt for profile in start.optima if profile.fit],
            [profile.fit.law.quadratic for profile in start.optima if profile.fit],
        ]
    )
    solution = problem.solve(initial, np.ones(len(groups)))
    if problem.num_runs <= solution.x.size:
        raise InputError(f"joint IsoFLOP fit: {problem.num_runs:g} runs for {solution.x.size} parameters")
    solution = problem.solve(solution.x, problem.deviations(solution.x))
    if not solution.success:
        raise InputError(f"joint IsoFLOP fit did not converge: {solution.message}")

    dof = int(problem.num_runs - solution.x.size)
    covariance = np.linalg.inv(solution.jac.T @ solution.jac) * (2 * solution.cost / dof)
    p, exponent = solution.x[:2]
    return JointIsoflopFit(
        law=PowerLaw(prefactor=float(10 ** (p - exponent * np.log10(reference))), exponent=float(exponent)),
        reference_flops=reference,
        covariance=covariance[:2, :2],
        curvatures=dict(zip(groups, solution.x[3 + len(groups) :].tolist(), strict=True)),
        residual_deviation=dict(zip(groups, problem.deviations(solution.x).tolist(), strict=True)),
        degrees_of_freedom=dof,
        status=str(solution.message),
    )


class _Problem:
    """Rows of all budgets as arrays, with the residuals of the model and their derivatives."""

    def __init__(self, groups: dict[float, pd.DataFrame], x: str, weights: str | None) -> None:
        rows = pd.concat(groups.values())
        flops = rows["train_flops"].to_numpy(dtype=float)
        self.weights = rows[weights].to_numpy(dtype=float) if weights else np.ones(len(rows))
        self.num_runs = float(self.weights.sum())
        self.budget = np.repeat(np.arange(len(groups)), [len(group) for group in groups.values()])
        self.num_budgets = len(groups)
        self.z = np.log10(rows[x].to_numpy(dtype=float))
        self.loss = rows["val_loss"].to_numpy(dtype=float)
        log_flops = np.log10(flops)
        self.reference_flops = float(10 ** np.average(log_flops, weights=self.weights))
        self.offset = log_flops - np.log10(self.reference_flops)
        self.miss = log_flops - (self._per_budget(log_flops) / self._per_budget(np.ones_like(log_flops)))[self.budget]

    def _per_budget(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(self.budget, weights=self.weights * values, minlength=self.num_budgets).astype(np.float64)

    def residuals(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Model minus observed loss, shape (n,), unweighted."""
        floor, curvature = theta[3 : 3 + self.num_budgets], theta[3 + self.num_budgets :]
        distance = self.z - theta[0] - theta[1] * self.offset
        return floor[self.budget] + curvature[self.budget] * distance**2 + theta[2] * self.miss - self.loss

    def jacobian(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives of the residuals, shape (n, parameters)."""
        curvature = theta[3 + self.num_budgets :][self.budget]
        distance = self.z - theta[0] - theta[1] * self.offset
        slope = -2 * curvature * distance
        member = (self.budget[:, None] == np.arange(self.num_budgets)).astype(float)
        shared = np.stack([slope, slope * self.offset, self.miss], axis=1)
        return np.concatenate([shared, member, member * distance[:, None] ** 2], axis=1)

    def deviations(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Root mean square residual of every budget, three degrees of freedom taken off."""
        counts = self._per_budget(np.ones_like(self.loss))
        squares = self._per_budget(self.residuals(theta) ** 2)
        return np.sqrt(np.maximum(squares / np.maximum(counts - 3, 1), 1e-16))

    def solve(self, theta: NDArray[np.float64], deviations: NDArray[np.float64]) -> Any:
        """Weighted least squares from `theta`, with residuals in units of `deviations`."""
        scale = np.sqrt(self.weights) / deviations[self.budget]
        return least_squares(
            lambda t: scale * self.residuals(t),
            theta,
            jac=lambda t: scale[:, None] * self.jacobian(t),
            x_scale="jac",
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
        )
