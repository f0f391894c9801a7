"""Minimize the objective of a law: damped Newton steps for every start at once, inside the law's box.

All parameters move together, because the Huber loss of logarithms is not a linear least-squares problem in any of them.
The starts come from `companion.fitting.starts`.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from companion.fitting.derivatives import Derivatives, Rows, derivatives
from companion.laws.base import Array, Law

#: E below this share of the lowest loss is on its way to no floor.
SMALL_FLOOR = 0.05

#: Newton steps of a start.
MAX_ITERATIONS = 300


@dataclass(frozen=True)
class Solutions:
    """End points of all starts: `theta` (R, p), `objective` (R,), `converged` (R,), number of steps taken."""

    theta: Array
    objective: Array
    converged: NDArray[np.bool_]
    iterations: int

    def best(self) -> "Solutions":
        """The end of least objective alone, R = 1."""
        at = int(np.nanargmin(self.objective))
        return Solutions(
            self.theta[at : at + 1], self.objective[at : at + 1], self.converged[at : at + 1], self.iterations
        )


def creep_to_bounds(
    best: Solutions, rows: Rows, free: NDArray[np.bool_], max_iterations: int = MAX_ITERATIONS
) -> Solutions:
    """The best end with parameters at their bounds where the objective falls, or stays the same, all the way there.

    Newton steps approach such a bound ever more slowly: E enters the loss by exp(e), and at E = 1e-4 another step gains
    less than rounding. So every parameter on its way out is put at its bound, and the others follow.

    Parameters
    ----------
    best
        one end, R = 1.
    rows, free, max_iterations
        as in `minimize_all`.
    """
    lowest = float(np.exp(rows.log_loss[rows.weights > 0].min()))
    lower, upper = rows.law.bounds()
    inner_low, inner_high = _inner_bounds(rows.law, lowest)
    for _ in range(int(free.sum())):
        theta = best.theta[0]
        leaving = [(at, lower) for at in np.flatnonzero(free & (theta > lower) & (theta < inner_low))]
        leaving += [(at, upper) for at in np.flatnonzero(free & (theta < upper) & (theta > inner_high))]
        if not leaving:
            break
        starts = np.tile(theta, (len(leaving), 1))
        for row, (at, bound) in enumerate(leaving):
            starts[row, at] = bound[at]
        end = minimize_all(starts, rows, free, max_iterations).best()
        if not end.objective[0] <= best.objective[0]:
            break
        best = end
    return best


def _inner_bounds(law: type[Law], lowest: float) -> tuple[Array, Array]:
    """Ends of the inner box: beyond them a parameter is on its way out. E counts against the lowest loss."""
    inner = [law.LIMITS[name].inner for name in law.PARAMETERS]
    low, high = np.array([each[0] for each in inner]), np.array([each[1] for each in inner])
    low[0] = np.log(SMALL_FLOOR * lowest)
    return low, high


def minimize_all(
    theta: Array,
    rows: Rows,
    free: NDArray[np.bool_],
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = 1e-14,
    progress: bool = False,
) -> Solutions:
    """Newton steps with Levenberg-Marquardt damping for every start at once, inside the box.

    A start has converged when three accepted steps in a row lower the objective by less than `tolerance` of it.

    Parameters
    ----------
    theta
        starts, shape (R, p).
    rows
        data; weights of shape (n,) or (R, n).
    free
        which parameters move, shape (p,).
    progress
        count the steps on stderr once two seconds have passed.
    """
    bar = tqdm(desc="Newton steps", delay=2, disable=not progress, file=sys.stderr)
    box = rows.law.bounds()
    theta = np.clip(theta, *box)
    state = derivatives(theta, rows)
    damping = np.full(len(theta), 1e-3)
    quiet = np.zeros(len(theta), dtype=int)
    active = np.isfinite(state.objective)
    iterations = 0
    while active.any() and iterations < max_iterations:
        iterations += 1
        bar.update()
        at = np.flatnonzero(active)
        proposal = np.clip(theta[at] + _steps(theta[at], _take(state, at), damping[at], free, box), *box)
        trial = derivatives(proposal, rows, rows.weights_of(at))
        better = trial.objective <= state.objective[at]
        gain = state.objective[at] - np.where(better, trial.objective, state.objective[at])
        small = better & (gain <= tolerance * np.abs(state.objective[at]) + 1e-300)
        accepted = at[better]
        theta[accepted] = proposal[better]
        state.put(accepted, _take(trial, np.flatnonzero(better)))
        damping[accepted] = np.maximum(damping[accepted] / 6, 1e-13)
        damping[at[~better]] *= 5
        quiet[at] = np.where(small, quiet[at] + 1, np.where(better, 0, quiet[at]))
        # a damping this large means that no step, however short, goes down: a kink of the Huber loss
        active[at] = (quiet[at] < 3) & (damping[at] < 1e14)
    bar.close()
    return Solutions(theta, state.objective, ~active & np.isfinite(state.objective), iterations)


def _take(state: Derivatives, rows: Any) -> Derivatives:
    return Derivatives(state.objective[rows], state.gradient[rows], state.hessian[rows], state.gauss_newton[rows])


def _steps(
    theta: Array, state: Derivatives, damping: Array, free: NDArray[np.bool_], box: tuple[Array, Array]
) -> Array:
    """Damped Newton steps; parameters that are fixed or pushed against their bound stay where they are."""
    gradient = state.gradient
    stuck = ((theta <= box[0]) & (gradient > 0)) | ((theta >= box[1]) & (gradient < 0)) | ~free
    curved = np.linalg.eigvalsh(_pinned(state.hessian, stuck))[:, 0] > 0
    matrix = np.where(curved[:, None, None], state.hessian, state.gauss_newton)
    scale = np.einsum("rii->ri", state.gauss_newton)
    scale = np.maximum(scale, 1e-12 * scale.max(axis=1, keepdims=True) + 1e-300)
    matrix = matrix + damping[:, None, None] * (np.eye(theta.shape[1]) * scale[:, :, None])
    matrix, right = _pinned(matrix, stuck), np.where(stuck, 0.0, gradient)[..., None]
    try:
        step = -np.linalg.solve(matrix, right)[..., 0]
    except np.linalg.LinAlgError:  # identical columns whose damping is lost in rounding
        step = -np.matmul(np.linalg.pinv(matrix, hermitian=True), right)[..., 0]
    # at most one unit of a logarithm at a time: the quadratic model says little beyond
    return step / np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))


def _pinned(matrix: Array, stuck: NDArray[np.bool_]) -> Array:
    """The matrix with rows and columns of stuck parameters replaced by those of the identity, scaled."""
    keep = ~stuck
    masked = matrix * (keep[:, :, None] & keep[:, None, :])
    scale = np.maximum(np.abs(np.einsum("rii->ri", matrix)).max(axis=1), 1e-300)
    return masked + np.eye(stuck.shape[1]) * (stuck * scale[:, None])[:, :, None]
