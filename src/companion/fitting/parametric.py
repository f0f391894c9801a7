"""Fit of the parametric law L̂(N, D) = E + (A·N^-alpha + B·D^-beta)^gamma to a run table.

Source of law and objective: arXiv 2510.02228 (gamma free) and arXiv 2203.15556, approach 3 (gamma = 1): the Huber loss
of log L̂ − log L, summed over the runs.
"""

import json
import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.errors import InputError
from companion.fitting.derivatives import Array, Rows, jacobian, log_predictions, make_rows, to_raw
from companion.fitting.identification import free_directions
from companion.fitting.inputs import check_options, checked_columns
from companion.fitting.newton import (
    LOWER,
    MAX_ITERATIONS,
    UPPER,
    Solutions,
    creep_to_bounds,
    minimize_all,
    projected_starts,
)
from companion.laws import LossSurface
from companion.paths import write_whole

#: Names of the parameters, as in the law.
PARAMETERS = ("E", "A", "B", "alpha", "beta", "gamma")
#: The headline setting of arXiv 2510.02228.
HUBER_DELTA = 1e-3
#: Starts that reach the best objective this closely count as having found it.
SAME_OPTIMUM = 1e-6
#: Above this many rows the starts are run to their ends on a part of the table first.
MANY_ROWS = 1000
#: Residual degrees of freedom below which resampled runs say nothing about their scatter.
MIN_DEGREES = 5

CONVERGED, AT_BOUND, NOT_IDENTIFIED, OUT_OF_ITERATIONS = (
    "converged",
    "at a bound",
    "not identified",
    "out of iterations",
)


@dataclass(frozen=True, kw_only=True)
class ParametricFit:
    """A fitted law, how the fit ended, and the data it saw.

    Attributes
    ----------
    law
        the fitted `LossSurface`.
    objective
        sum of weighted Huber terms.
    status
        `not identified` (parameters trade off freely on this design), which wins over all others; `at a bound`; `out of
        iterations`; `converged`.
    status_detail
        which parameters, and why; empty for `converged`.
    data
        columns num_params, num_tokens, val_loss, weight: the rows that were fitted.
    gamma_free, huber_delta
        the problem that was solved; an infinite delta is least squares.
    theta
        (log E, log A, log B, alpha, beta, log gamma), shape (6,).
    start_objectives
        where each start ended, ascending, shape (R,).
    seconds
        wall time of the fit.
    """

    law: LossSurface
    objective: float
    status: str
    status_detail: str
    data: pd.DataFrame
    gamma_free: bool
    huber_delta: float
    theta: Array
    start_objectives: Array
    seconds: float

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters by name."""
        return {name: float(getattr(self.law, name)) for name in PARAMETERS}

    @property
    def identified(self) -> bool:
        """Whether the runs determine the parameters; if not, neither they nor intervals or optima mean anything."""
        return self.status != NOT_IDENTIFIED

    @property
    def intervals_withheld(self) -> str:
        """Why no intervals can be given, in one line; empty where they can."""
        reasons = [] if self.identified else [f"the law is not identified: {self.status_detail}"]
        if self.num_rows - self.num_free < MIN_DEGREES:
            needed = self.num_free + MIN_DEGREES
            reasons.append(
                f"{self.num_rows} runs for {self.num_free} free parameters, intervals need at least {needed}"
            )
        return "; ".join(reasons)

    @property
    def num_rows(self) -> int:
        """Rows with a weight above 0."""
        return int((self.data["weight"] > 0).sum())

    @property
    def num_free(self) -> int:
        """Free parameters: 6, or 5 with gamma fixed."""
        return 6 if self.gamma_free else 5

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which of the six parameters are free, shape (6,)."""
        return np.array([True] * 5 + [self.gamma_free])

    @property
    def free_names(self) -> list[str]:
        """Names of the free parameters."""
        return [name for name, free in zip(PARAMETERS, self.free, strict=True) if free]

    @property
    def at_bound(self) -> list[str]:
        """Free parameters at the edge of the solver's box; those of E, 1e-6 and below, mean a law without a floor."""
        theta = np.where(self.free, self.theta_centred, 0.5 * (LOWER + UPPER))
        edge = 1e-9 * (UPPER - LOWER)
        return [PARAMETERS[at] for at in np.flatnonzero((theta <= LOWER + edge) | (theta >= UPPER - edge))]

    @cached_property
    def rows(self) -> Rows:
        """The data as the solver takes it."""
        return _rows(self.data, self.huber_delta)

    @property
    def theta_centred(self) -> Array:
        """`theta` for logarithms of N and D centred at their means, shape (6,)."""
        shift = np.zeros(6)
        shift[1], shift[2] = self.theta[3] * self.rows.center[0], self.theta[4] * self.rows.center[1]
        return self.theta - shift

    @cached_property
    def residuals(self) -> Array:
        """log observed minus log fitted loss, shape (n,)."""
        return self.rows.log_loss - log_predictions(self.theta_centred[None], self.rows)[0]

    @property
    def share_of_starts_at_optimum(self) -> float:
        """Share of starts that ended within 1e-6 of the best objective, between 0 and 1."""
        return float(np.mean(self.start_objectives <= self.objective * (1 + SAME_OPTIMUM) + 1e-300))

    @cached_property
    def conditioning(self) -> float:
        """Condition number of the design: d log L̂ / d theta of the free parameters, centred, columns of unit norm."""
        return _conditioning(self._scaled_design)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Correlations of the free parameters (logarithms of E, A, B, gamma), to first order."""
        names = self.free_names
        inverse = np.linalg.pinv(self._design.T @ self._design)
        # from centred to plain log A, log B: they carry alpha and beta along
        transform = np.eye(6)
        transform[1, 3], transform[2, 4] = self.rows.center
        transform = transform[np.ix_(self.free, self.free)]
        covariance = transform @ inverse @ transform.T
        scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
        return pd.DataFrame(covariance / np.outer(scale, scale), index=names, columns=names)

    @cached_property
    def _design(self) -> Array:
        first = jacobian(self.theta_centred[None], self.rows)[0][:, self.free]
        size = np.maximum(1.0, np.abs(self.residuals) / self.huber_delta)
        return first * np.sqrt(self.rows.weights / size)[:, None]

    @cached_property
    def worst_direction(self) -> Array:
        """The direction of the scaled free parameters that the runs know least about, unit norm, shape (5,) or (6,)."""
        # where runs are fewer than parameters only the full decomposition has the directions that no run sees
        few = len(self.data) < self.num_free
        return np.linalg.svd(self._scaled_design, full_matrices=few)[2][-1]

    @property
    def _scaled_design(self) -> Array:
        norms = np.linalg.norm(self._design, axis=0)
        return self._design / np.where(norms > 0, norms, 1.0)

    def summary(self) -> pd.DataFrame:
        """Parameters as a table: name, value, and whether it was free."""
        return pd.DataFrame({"parameter": PARAMETERS, "value": list(self.parameters.values()), "free": self.free})

    def __str__(self) -> str:
        gamma = "gamma free" if self.gamma_free else f"gamma = {self.law.gamma:g}"
        head = (
            f"L = E + (A N^-alpha + B D^-beta)^gamma, {self.num_rows} runs, {gamma}, Huber delta {self.huber_delta:g}"
        )
        lines = [f"  {name:<6}{value:>14.6g}" for name, value in self.parameters.items()]
        tail = [
            f"  objective {self.objective:.8e}; {self.status}{': ' if self.status_detail else ''}{self.status_detail}",
            f"  starts at the optimum {self.share_of_starts_at_optimum:.0%}; conditioning {self.conditioning:.3g}",
        ]
        return "\n".join([head, *lines, *tail])

    def as_dict(self) -> dict[str, Any]:
        """Everything of the fit in lists, numbers and text."""
        return {
            "parameters": self.parameters,
            "objective": self.objective,
            "status": self.status,
            "status_detail": self.status_detail,
            "gamma_free": self.gamma_free,
            "huber_delta": None if math.isinf(self.huber_delta) else self.huber_delta,
            "theta": self.theta.tolist(),
            "start_objectives": self.start_objectives.tolist(),
            "seconds": self.seconds,
            "data": {name: column.tolist() for name, column in self.data.items()},
        }

    def to_json(self) -> str:
        """Everything of the fit as one JSON object; `from_json` takes it back."""
        return json.dumps(self.as_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ParametricFit":
        """The fit that `to_json` wrote.

        Raises
        ------
        InputError
            if the text is not such an object.
        """
        try:
            read = json.loads(text)
            delta = math.inf if read["huber_delta"] is None else float(read["huber_delta"])
            return cls(
                law=LossSurface(**{name: float(read["parameters"][name]) for name in PARAMETERS}),
                objective=float(read["objective"]),
                status=str(read["status"]),
                status_detail=str(read["status_detail"]),
                data=pd.DataFrame(read["data"])[["num_params", "num_tokens", "val_loss", "weight"]],
                gamma_free=bool(read["gamma_free"]),
                huber_delta=delta,
                theta=np.array(read["theta"], dtype=float),
                start_objectives=np.array(read["start_objectives"], dtype=float),
                seconds=float(read["seconds"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"not a saved fit: {' '.join(str(error).split())}") from error

    def save(self, path: Path) -> None:
        """Write `to_json` to a file, whole or not at all; see `companion.paths.write_whole` for errors."""
        write_whole(path, self.to_json())


def fit_parametric(
    runs: pd.DataFrame,
    *,
    gamma: float | None = None,
    huber_delta: float = HUBER_DELTA,
    weights: str | None = None,
    num_starts: int = 32,
    max_iterations: int = MAX_ITERATIONS,
    progress: bool = False,
) -> ParametricFit:
    """The law of least objective.

    Parameters
    ----------
    runs
        columns num_params, num_tokens, val_loss; one row per run.
    gamma
        fixed value, 1 for the Chinchilla form; None leaves it free.
    huber_delta
        where the loss of a log residual turns linear, above 0; `math.inf` is least squares.
    weights
        column of row weights, e.g. `multiplicity_in_published_fits`.
    num_starts
        points of the variable-projection grid from which Newton steps start.
    max_iterations
        Newton steps of every start; more of them end what is `out of iterations`.
    progress
        count the steps on stderr once two seconds have passed.

    Raises
    ------
    InputError
        if a column is missing or holds a value that cannot be, for fewer rows than parameters, a single model size or a
        single number of tokens, or a wrong option.
    """
    begin = time.perf_counter()
    check_options(gamma, huber_delta, num_starts, max_iterations)
    data = checked_columns(runs, weights, num_free=5 if gamma is not None else 6)
    rows = _rows(data, huber_delta)
    free = np.array([True] * 5 + [gamma is None])
    starts = projected_starts(rows, gamma, num_starts)
    if len(data) > MANY_ROWS:
        starts = _leading_ends(starts, rows, free, max_iterations)
    solutions = minimize_all(starts, rows, free, max_iterations, progress=progress)
    return _finished(solutions, data, rows, gamma, begin, max_iterations)


def _leading_ends(starts: Array, rows: Rows, free: NDArray[np.bool_], max_iterations: int, keep: int = 4) -> Array:
    """Where the starts end on a part of a large table, the best few different ends: the basins, found at less cost."""
    used = np.flatnonzero(rows.weights > 0)
    part = np.sort(np.random.default_rng(0).permutation(used)[:MANY_ROWS])
    ends = minimize_all(starts, rows.part(part), free, max_iterations)
    order = np.argsort(ends.objective)
    distinct = [order[0]]
    for at in order[1:]:
        if (
            np.isfinite(ends.objective[at])
            and min(np.abs(ends.theta[at] - ends.theta[i]).max() for i in distinct) > 0.05
        ):
            distinct.append(at)
    return ends.theta[distinct[:keep]]


def _finished(
    solutions: Solutions, data: pd.DataFrame, rows: Rows, gamma: float | None, begin: float, max_iterations: int
) -> ParametricFit:
    free = np.array([True] * 5 + [gamma is None])
    best = creep_to_bounds(solutions.best(), rows, free, max_iterations)
    theta = to_raw(best.theta[0], rows.center)
    parameters = dict(
        zip(PARAMETERS, (*np.exp(np.clip(theta[:3], -690, 690)), theta[3], theta[4], np.exp(theta[5])), strict=True)
    )
    if gamma is not None:
        parameters["gamma"] = gamma
    objective = float(best.objective[0])
    fit = ParametricFit(
        law=LossSurface(**{name: float(value) for name, value in parameters.items()}),
        objective=objective,
        status=CONVERGED,
        status_detail="",
        data=data,
        gamma_free=gamma is None,
        huber_delta=rows.huber_delta,
        theta=theta,
        start_objectives=np.sort(solutions.objective[np.isfinite(solutions.objective)]),
        seconds=time.perf_counter() - begin,
    )
    status, detail = _judge(fit, bool(best.converged[0]), max_iterations)
    return replace(fit, status=status, status_detail=detail)


def _judge(fit: ParametricFit, converged: bool, max_iterations: int) -> tuple[str, str]:
    """Status and its reason: what stops a reader from trusting the parameters, the gravest first."""
    if reason := free_directions(fit):
        return NOT_IDENTIFIED, reason
    if fit.at_bound:
        return AT_BOUND, ", ".join(fit.at_bound)
    return (CONVERGED, "") if converged else (OUT_OF_ITERATIONS, f"{max_iterations} steps did not settle")


def _rows(data: pd.DataFrame, huber_delta: float) -> Rows:
    return make_rows(data["num_params"], data["num_tokens"], data["val_loss"], data["weight"], huber_delta)


def _conditioning(design: Array) -> float:
    singular = np.linalg.svd(design, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf
