"""IsoFLOP in one step: the power law sits inside the model of the runs, and its error comes from their scatter.

The published procedure forgets how well each optimum is known: optima enter the power law with the same weight and
without their errors, so the law's standard error rests on how well three or four points line up, by luck or not. Here

    loss_i = c_b + k_b · (log10 x_i − log10 x*(C_i))² + s · log10(C_i / C_b),    log10 x*(C) = p + a · log10(C / C_ref),

for run i of budget b: one floor c_b and curvature k_b per budget, one slope s for the FLOPs by which a run misses its
budget, and the two parameters of the law. The exponent scatters about as much as that of the two-step fit; what is
gained is an error that can be believed, and runs that count at their own compute.

Budgets differ in scatter. Where every budget has at least `WEIGHING_DEGREES` residual degrees of freedom, its rows are
weighted by the inverse of the residual variance of a first pass; with fewer, such weights are mostly chance, and all
rows weigh the same. The error never trusts the weights: it is built from the variance of every budget about its own
parabola (a sandwich), adds what estimated weights cost (Kenward and Roger, 1997), and takes Student's factor with the
degrees of freedom of Satterthwaite (1946), because variances of a few runs are themselves poorly determined.

The slope s is left out where the runs cannot show it: they do not miss their budgets by more than their losses can
resolve, or they miss them in a way that looks like another parameter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import least_squares

from companion.errors import InputError
from companion.fitting.isoflop.draws import ROUNDING
from companion.fitting.isoflop.profiles import IsoflopFit, fit_isoflop, isoflop_groups
from companion.fitting.results import Result, check_name
from companion.laws import PowerLaw
from companion.numeric import Values

Array = NDArray[np.float64]

#: Residual degrees of freedom of a budget below which its variance is not a weight.
WEIGHING_DEGREES = 10
#: Nats per token and decade of compute by which a miss moves the loss, roughly; and the share of the scatter that such
#: a change must reach before the slope is worth a parameter.
TYPICAL_SLOPE, NEGLIGIBLE = 0.3, 0.2
#: A miss below this many decades is rounding of counts, whatever the scatter.
ROUNDED_MISS = 1e-6
#: Singular values below this share of the largest leave a direction free.
FREE_DIRECTION = 1e-9
#: Rows times parameters that fit into the memory of a small machine as derivatives (8 bytes each, a few copies).
MAX_DERIVATIVES = 50_000_000


@dataclass(frozen=True, kw_only=True)
class JointIsoflopFit(Result):
    """Power law fitted to all runs at once.

    `covariance` is that of (log10 x* at the reference compute, exponent), shape (2, 2); NaN where `fault` says why it
    is not known. `curvatures` and `residual_deviation` (nats per token) are by budget. `degrees_of_freedom` are runs
    less parameters, `interval_degrees_of_freedom` those of the exponent's interval. `slope` is s in nats per token and
    decade; None where it was left out, and `dropped` says why (empty if it was not). `weighted` says whether budgets
    were weighted by their variances. `status` is what the optimizer said.
    """

    law: PowerLaw
    reference_flops: float
    covariance: NDArray[np.float64]
    curvatures: dict[float, float]
    residual_deviation: dict[float, float]
    degrees_of_freedom: int
    interval_degrees_of_freedom: float
    slope: float | None
    dropped: str
    weighted: bool
    fault: str
    status: str

    @property
    def exponent_standard_error(self) -> float:
        """Standard error of the exponent."""
        return float(np.sqrt(self.covariance[1, 1]))

    def interval(self, name: str = "exponent", level: float = 0.95) -> tuple[float, float]:
        """Student-t confidence interval of the exponent; (NaN, NaN) where `fault` gives a reason."""
        check_name(name, ("exponent",), "a joint IsoFLOP fit")
        half = stats.t.ppf((1 + level) / 2, self.interval_degrees_of_freedom) * self.exponent_standard_error
        return (float(self.law.exponent - half), float(self.law.exponent + half))

    def predict_interval(self, train_flops: ArrayLike, level: float = 0.95) -> tuple[Values, Values]:
        """Confidence band of x*(C), any shape."""
        offset = np.log10(np.asarray(train_flops, dtype=float) / self.reference_flops)
        variance = self.covariance[0, 0] + 2 * offset * self.covariance[0, 1] + offset**2 * self.covariance[1, 1]
        half = stats.t.ppf((1 + level) / 2, self.interval_degrees_of_freedom) * np.sqrt(variance)
        center = np.log10(self.law.predict(train_flops))
        return 10 ** (center - half), 10 ** (center + half)


def fit_isoflop_joint(
    runs: pd.DataFrame, x: str = "num_params", *, weights: str | None = None, budgets: Sequence[float] | None = None
) -> JointIsoflopFit:
    """Fit the one-step model by weighted nonlinear least squares, started from the two-step fit.

    Parameters
    ----------
    runs, x, weights, budgets
        as in `companion.fitting.isoflop.profiles.fit_isoflop`. Budgets without an optimum of their own are left out.

    Raises
    ------
    InputError
        as `fit_isoflop`; when the optima define no power law, the table is too large (`MAX_DERIVATIVES`), or the
        optimizer does not converge.

    Examples
    --------
    >>> from companion.runs import load_paper_runs, subset
    >>> runs = subset(load_paper_runs(), "xlstm", 8192, "isoflop")
    >>> print(f"N* grows as C^{fit_isoflop_joint(runs).law.exponent:.3f}")
    N* grows as C^0.537
    """
    start = fit_isoflop(runs, x, weights=weights, budgets=budgets, num_resamples=0)
    if start.law_fault:
        raise InputError(f"joint IsoFLOP fit: the power law is undefined: {start.law_fault}")
    used = [profile.isoflop_budget for profile in start.optima]
    groups = {b: g for b, g in isoflop_groups(runs, x, weights, budgets).items() if b in used}
    problem = _Problem(list(groups.values()), x, weights)
    theta = problem.start(start)
    if problem.loss.size * theta.size > MAX_DERIVATIVES:
        raise InputError(
            f"joint IsoFLOP fit: left out, {problem.loss.size} runs times {theta.size} parameters exceed "
            f"{MAX_DERIVATIVES:,}; take fewer budgets (--budgets)"
        )
    problem.dropped = problem.why_no_slope(theta)
    with np.errstate(over="ignore", invalid="ignore"):
        solution = problem.solve(theta, np.ones(len(groups)))
        weighted = bool(problem.own_degrees.min() >= WEIGHING_DEGREES)
        deviations = problem.deviations(solution.x) if weighted else np.ones(len(groups))
        if weighted:
            solution = problem.solve(solution.x, deviations)
    if not solution.success:
        raise InputError(f"joint IsoFLOP fit did not converge: {solution.message}")
    covariance, dof, fault = problem.errors(solution.x, deviations, weighted)
    p, exponent = solution.x[:2]
    with np.errstate(over="ignore"):
        prefactor = float(np.power(10.0, p - exponent * np.log10(problem.reference_flops)))
    return JointIsoflopFit(
        law=PowerLaw(prefactor=prefactor, exponent=float(exponent)),
        reference_flops=problem.reference_flops,
        covariance=covariance,
        curvatures=dict(zip(groups, solution.x[3 + len(groups) :].tolist(), strict=True)),
        residual_deviation=dict(zip(groups, problem.deviations(solution.x).tolist(), strict=True)),
        degrees_of_freedom=int(problem.num_runs - problem.free(solution.x.size).sum()),
        interval_degrees_of_freedom=dof,
        slope=None if problem.dropped else float(solution.x[2]),
        dropped=problem.dropped,
        weighted=weighted,
        fault=fault,
        status=str(solution.message),
    )


class _Problem:
    """Rows of all budgets as arrays, with the residuals of the model and their derivatives.

    Parameters `theta` are p, a, s, then a floor and a curvature per budget; s stays 0 where `dropped` says why.
    """

    def __init__(self, groups: Sequence[pd.DataFrame], x: str, weights: str | None) -> None:
        if weights:  # rows that count no times say nothing, of the scatter either
            groups = [group[group[weights].to_numpy(dtype=float) > 0] for group in groups]
        rows = pd.concat(groups)
        log_flops = np.log10(rows["train_flops"].to_numpy(dtype=float))
        self.weights = rows[weights].to_numpy(dtype=float) if weights else np.ones(len(rows))
        self.num_runs = float(self.weights.sum())
        self.weights = self.weights / self.weights.mean()
        self.num_budgets = len(groups)
        self.budget = np.repeat(np.arange(self.num_budgets), [len(group) for group in groups])
        self.own_degrees = np.bincount(self.budget) - 3
        self.z = np.log10(rows[x].to_numpy(dtype=float))
        self.loss = rows["val_loss"].to_numpy(dtype=float)
        self.reference_flops = float(10 ** np.average(log_flops, weights=self.weights))
        self.offset = log_flops - np.log10(self.reference_flops)
        self.miss = log_flops - (self._per_budget(log_flops) / self._per_budget(np.ones_like(log_flops)))[self.budget]
        self.dropped = ""

    def start(self, fit: IsoflopFit) -> Array:
        """Parameters of the two-step fit."""
        law, parabolas = fit.power_law.law, [profile.fit.law for profile in fit.optima if profile.fit]
        # not prefactor · C^a: the prefactor alone may be too large or too small to write
        log_x = np.mean([np.log10(parabola.x_opt) for parabola in parabolas])
        log_flops = np.mean([np.log10(profile.mean_train_flops) for profile in fit.optima])
        p = log_x + law.exponent * (np.log10(self.reference_flops) - log_flops)
        floors, curvatures = ([getattr(each, name) for each in parabolas] for name in ("loss_opt", "quadratic"))
        return np.array([p, law.exponent, -TYPICAL_SLOPE, *floors, *curvatures])

    def why_no_slope(self, theta: Array) -> str:
        """Why the runs cannot show how the loss answers to a miss; empty if they can."""
        largest = float(np.abs(self.miss).max())
        if largest <= ROUNDED_MISS:
            return "all runs of a budget have the same train_flops, up to rounding"
        variances, degrees = self.own_variances(np.where(np.arange(theta.size) == 2, 0.0, theta))
        scatter = np.sqrt(np.average(variances, weights=degrees)) if degrees.any() else 0.0
        if TYPICAL_SLOPE * largest < NEGLIGIBLE * scatter:
            return f"runs miss their budgets by at most {10**largest - 1:.1e} of them, less than their losses can show"
        if self.loss.size <= theta.size:
            return f"{self.loss.size} runs for {theta.size} parameters"
        if _free_direction(self.jacobian(theta)):
            return "runs miss their budgets in a way that the other parameters describe as well"
        return ""

    def free(self, size: int) -> NDArray[np.bool_]:
        """Which parameters are fitted."""
        return (np.arange(size) != 2) | (not self.dropped)

    def residuals(self, theta: Array) -> Array:
        """Model minus observed loss, shape (n,), unweighted."""
        floor, curvature = theta[3 : 3 + self.num_budgets], theta[3 + self.num_budgets :]
        distance = self.z - theta[0] - theta[1] * self.offset
        return floor[self.budget] + curvature[self.budget] * distance**2 + theta[2] * self.miss - self.loss

    def jacobian(self, theta: Array) -> Array:
        """Derivatives of the residuals, shape (n, parameters)."""
        curvature = theta[3 + self.num_budgets :][self.budget]
        distance = self.z - theta[0] - theta[1] * self.offset
        slope = -2 * curvature * distance
        member = (self.budget[:, None] == np.arange(self.num_budgets)).astype(float)
        shared = np.stack([slope, slope * self.offset, self.miss], axis=1)
        return np.concatenate([shared, member, member * distance[:, None] ** 2], axis=1)

    def deviations(self, theta: Array) -> Array:
        """Root mean square residual of every budget, three degrees of freedom taken off."""
        counts = self._per_budget(np.ones_like(self.loss)) * self.num_runs / self.loss.size
        squares = self._per_budget(self.residuals(theta) ** 2) * self.num_runs / self.loss.size
        return np.sqrt(np.maximum(squares / np.maximum(counts - 3, 1), 1e-16))

    def solve(self, theta: Array, deviations: Array) -> Any:
        """Weighted least squares from `theta`, with residuals in units of `deviations`."""
        scale, free = np.sqrt(self.weights) / deviations[self.budget], self.free(theta.size)

        def whole(part: Array) -> Array:
            full = np.zeros(theta.size)
            full[free] = part
            return full

        solution = least_squares(
            lambda t: scale * self.residuals(whole(t)),
            theta[free],
            jac=lambda t: scale[:, None] * self.jacobian(whole(t))[:, free],
            x_scale="jac",
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
        )
        solution.x = whole(solution.x)
        return solution

    def own_variances(self, theta: Array) -> tuple[Array, Array]:
        """Variance of every budget's runs about a parabola of their own, and its degrees of freedom; shape (B,).

        NaN and 0 for a budget of three runs.
        """
        z, loss = self.z - theta[1] * self.miss, self.loss - theta[2] * self.miss
        squares = np.zeros(self.num_budgets)
        for index in range(self.num_budgets):
            rows = self.budget == index
            u = z[rows] - z[rows].mean()
            design = np.stack([u**2, u, np.ones_like(u)], axis=1) / np.array([np.ptp(u) ** 2, np.ptp(u), 1.0])
            coefficients = np.linalg.lstsq(design, loss[rows], rcond=None)[0]
            squares[index] = np.sum((loss[rows] - design @ coefficients) ** 2)
        degrees = self.own_degrees.astype(float)
        if theta[2] and degrees.sum() > 1:  # the slope was fitted to the same residuals
            degrees *= 1 - 1 / degrees.sum()
        known = degrees > 0
        return np.where(known, squares / np.where(known, degrees, 1), np.nan), degrees

    def errors(self, theta: Array, deviations: Array, weighted: bool) -> tuple[Array, float, str]:
        """Covariance (2, 2) of p and a, degrees of freedom of the interval of a, and why they are not known."""
        variances, degrees = self.own_variances(theta)
        unknown = np.full((2, 2), np.nan)
        if not degrees.any():
            return unknown, float("nan"), "three runs a budget leave no degree of freedom to judge the parabolas by"
        if np.sqrt(np.nanmax(variances)) <= ROUNDING * np.abs(self.loss).max():
            return unknown, float("nan"), "the runs lie on their parabolas within rounding: there is no scatter"
        # a budget of three runs is as noisy as the others, which is known no better than by one degree of freedom
        variances = np.where(degrees > 0, variances, np.nanmean(variances))
        degrees = np.where(degrees > 0, degrees, 1.0)
        jacobian, weights = self.jacobian(theta)[:, self.free(theta.size)], self.weights / deviations[self.budget] ** 2
        if _free_direction(jacobian):
            raise InputError("joint IsoFLOP fit: the runs leave a parameter free")
        length = np.sqrt(np.sum(weights[:, None] * jacobian**2, axis=0))
        jacobian = jacobian / length
        bread = np.linalg.inv((jacobian * weights[:, None]).T @ jacobian)
        covariance, shares = np.zeros_like(bread), np.zeros(self.num_budgets)
        for index in range(self.num_budgets):
            rows = self.budget == index
            part, weight = jacobian[rows], weights[rows]
            own = variances[index] * bread @ ((part * weight[:, None] ** 2).T @ part) @ bread
            shares[index] = own[1, 1]
            covariance += own
            if weighted:
                seen = bread @ ((part * weight[:, None]).T @ part)
                covariance += 4 / degrees[index] * (seen - seen @ seen) @ bread
        dof = float(shares.sum() ** 2 / np.sum(shares**2 / degrees))
        return (covariance / length / length[:, None])[:2, :2], dof, ""

    def _per_budget(self, values: Array) -> Array:
        return np.bincount(self.budget, weights=self.weights * values, minlength=self.num_budgets).astype(np.float64)


def _free_direction(jacobian: Array) -> bool:
    """Whether some change of the parameters changes no residual."""
    length = np.linalg.norm(jacobian, axis=0)
    if not length.all():
        return True
    values = np.linalg.svd(jacobian / length, compute_uv=False)
    return bool(values[-1] <= FREE_DIRECTION * values[0])
