"""Minimise the objective of the parametric law: starts by variable projection, then damped Newton steps.

Variable projection (Golub and Pereyra 1973): with (alpha, beta, gamma) and the balance B/A fixed, L̂ = E + K·h(N, D) is
linear in E and K = A^gamma. A grid over the four nonlinear numbers, each with its best E and K in closed form,
therefore covers the six-dimensional space; the best points of the grid are the starts. The second stage works on all
parameters, because the Huber loss of logarithms is not a linear least-squares problem.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from companion.fitting.derivatives import Array, Derivatives, Rows, derivatives

#: Box of (e, a, b, alpha, beta, log gamma) in centred logarithms. E from 1e-6: below, the law has no floor. Beyond
#: these exponents a law is a step. The prefactors are those of the centred law: the term in N at the mean size.
LOWER = np.array([np.log(1e-6), -40.0, -40.0, 1e-3, 1e-3, np.log(0.01)])
UPPER = np.array([np.log(1e3), 40.0, 40.0, 10.0, 10.0, np.log(20.0)])

#: Newton steps of a start.
MAX_ITERATIONS = 300

_ALPHAS = (0.05, 0.1, 0.17, 0.25, 0.35, 0.5, 0.7, 0.9, 1.2, 1.7)
_GAMMAS = (0.12, 0.2, 0.3, 0.45, 0.7, 1.0, 1.6)
#: Rows that the grid looks at: more of them would not change which basins there are, only cost memory.
_GRID_ROWS = 1000
_BALANCES = (-6.0, -4.0, -2.5, -1.2, 0.0, 1.2, 2.5, 4.0, 6.0)


@dataclass(frozen=True)
class Solutions:
    """End points of all starts: `theta` (R, 6), `objective` (R,), `converged` (R,), number of steps taken."""

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


def projected_starts(rows: Rows, gamma: float | None, number: int) -> Array:
    """Best points of the grid, E and K eliminated, from as many corners of it as possible.

    Parameters
    ----------
    rows
        with weights of shape (n,).
    gamma
        fixed value, or None where it is free.
    number
        of starts.

    Returns
    -------
    array
        shape (number, 6).
    """
    gammas = _GAMMAS if gamma is None else (gamma,)
    used = np.flatnonzero(rows.weights > 0)
    if used.size > _GRID_ROWS:
        used = np.sort(np.random.default_rng(0).permutation(used)[:_GRID_ROWS])
        rows = rows.part(used)
    alpha, beta, exponent, balance = (
        axis.ravel() for axis in np.meshgrid(_ALPHAS, _ALPHAS, gammas, _BALANCES, indexing="ij")
    )
    w, loss = rows.weights, np.exp(rows.log_loss)
    # relative residuals (E + K h)/L − 1 stand in for differences of logarithms, so E and K solve a 2 × 2 system
    h = np.exp(
        exponent[:, None] * np.logaddexp(-alpha[:, None] * rows.log_n, balance[:, None] - beta[:, None] * rows.log_d)
    )
    h /= loss
    floor = 1 / loss
    s00, s01, s11 = (w * floor**2).sum(), (h * (w * floor)).sum(axis=1), (h**2 * w).sum(axis=1)
    t0, t1 = (w * floor).sum(), (h * w).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        e = (t0 * s11 - t1 * s01) / (s00 * s11 - s01**2)
        e = np.clip(np.nan_to_num(e, nan=0.5), 1e-2, 0.99 * loss.min())
        k = (t1 - e * s01) / s11
    usable = np.isfinite(k) & (k > 0)
    k = np.where(usable, k, 1.0)
    misfit = (w * np.abs(e[:, None] * floor + k[:, None] * h - 1)).sum(axis=1)
    misfit[~usable] = np.inf
    a = np.log(k) / exponent
    theta = np.stack([np.log(e), a, a + balance, alpha, beta, np.log(exponent)], axis=1)

    # the best of every (gamma, balance sign, larger exponent) cell first, then by misfit: basins differ in these
    cell = np.searchsorted(gammas, exponent) * 6 + (np.sign(balance) + 1) * 2 + (alpha > beta)
    order = np.argsort(misfit, kind="stable")
    order = order[np.isfinite(misfit[order])]
    _, first = np.unique(cell[order], return_index=True)
    leaders = order[np.sort(first)]
    chosen = np.concatenate([order[: number // 2], leaders, order[number // 2 :]])
    return np.clip(theta[_unique(chosen)[:number]], LOWER, UPPER)


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
    inner_low = np.array([np.log(0.05 * lowest), -8.0, -8.0, 0.02, 0.02, np.log(0.03)])
    inner_high = np.array([np.log(1e2), 15.0, 15.0, 4.0, 4.0, np.log(8.0)])
    for _ in range(int(free.sum())):
        theta = best.theta[0]
        leaving = [(at, LOWER) for at in np.flatnonzero(free & (theta > LOWER) & (theta < inner_low))]
        leaving += [(at, UPPER) for at in np.flatnonzero(free & (theta < UPPER) & (theta > inner_high))]
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


def _unique(indices: NDArray[np.intp]) -> NDArray[np.intp]:
    """Without repeats, order kept."""
    _, first = np.unique(indices, return_index=True)
    return indices[np.sort(first)]


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
        starts, shape (R, 6).
    rows
        data; weights of shape (n,) or (R, n).
    free
        which of the six parameters move, shape (6,).
    progress
        count the steps on stderr once two seconds have passed.
    """
    bar = tqdm(desc="Newton steps", delay=2, disable=not progress, file=sys.stderr)
    theta = np.clip(theta, LOWER, UPPER)
    state = derivatives(theta, rows)
    damping = np.full(len(theta), 1e-3)
    quiet = np.zeros(len(theta), dtype=int)
    active = np.isfinite(state.objective)
    iterations = 0
    while active.any() and iterations < max_iterations:
        iterations += 1
        bar.update()
        at = np.flatnonzero(active)
        proposal = np.clip(theta[at] + _steps(theta[at], _take(state, at), damping[at], free), LOWER, UPPER)
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


def _steps(theta: Array, state: Derivatives, damping: Array, free: NDArray[np.bool_]) -> Array:
    """Damped Newton steps; parameters that are fixed or pushed against their bound stay where they are."""
    gradient = state.gradient
    stuck = ((theta <= LOWER) & (gradient > 0)) | ((theta >= UPPER) & (gradient < 0)) | ~free
    curved = np.linalg.eigvalsh(_pinned(state.hessian, stuck))[:, 0] > 0
    matrix = np.where(curved[:, None, None], state.hessian, state.gauss_newton)
    scale = np.einsum("rii->ri", state.gauss_newton)
    scale = np.maximum(scale, 1e-12 * scale.max(axis=1, keepdims=True) + 1e-300)
    matrix = matrix + damping[:, None, None] * (np.eye(6) * scale[:, :, None])
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
    return masked + np.eye(6) * (stuck * scale[:, None])[:, :, None]
