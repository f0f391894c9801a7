"""Where a fit starts: variable projection over a grid of the parameters in which a law is not linear.

Variable projection (Golub and Pereyra 1973): with the parameters of the grid fixed, L = E + K·h(N, D) is linear in E
and K. A grid over the others, each with its best E and K in closed form, therefore covers the whole space; the best
points of the grid are the starts.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from companion.fitting.derivatives import Rows
from companion.laws.base import Array

#: Rows that the grid looks at: more of them would not change which basins there are, only cost memory.
_GRID_ROWS = 1000


def floor_and_factor(shape: Array, rows: Rows, bounded: bool = True, held: float | None = None) -> tuple[Array, Array]:
    """E and K of least squares of (E + K·h)/L - 1, in closed form: both (G,), not finite where there are none.

    Parameters
    ----------
    shape
        h/L, shape (G, n).
    rows
        with weights of shape (n,). Relative residuals stand in for differences of logarithms.
    bounded
        E is held between 0.01 and just below the lowest loss (so it is always finite), and K is the best for that E.
    held
        E itself, nats per token: then K alone is sought.
    """
    w, loss = rows.weights, np.exp(rows.log_loss)
    floor = 1 / loss
    s00, s01, s11 = (w * floor**2).sum(), (shape * (w * floor)).sum(axis=1), (shape**2 * w).sum(axis=1)
    t0, t1 = (w * floor).sum(), (shape * w).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        e = (t0 * s11 - t1 * s01) / (s00 * s11 - s01**2)
        if held is not None:
            e = np.full(len(shape), held)
        elif bounded:
            e = np.clip(np.nan_to_num(e, nan=0.5), 1e-2, 0.99 * loss.min())
        return e, (t1 - e * s01) / s11


def projected_starts(rows: Rows, fixed: Mapping[str, float], number: int) -> Array:
    """Best points of the grid, E and K eliminated, from as many of the law's basins as possible.

    Parameters
    ----------
    rows
        with weights of shape (n,).
    fixed
        parameters that do not move, by name.
    number
        of starts.

    Returns
    -------
    array
        shape (number, p).
    """
    used = np.flatnonzero(rows.weights > 0)
    if used.size > _GRID_ROWS:
        used = np.sort(np.random.default_rng(0).permutation(used)[:_GRID_ROWS])
        rows = rows.part(used)
    law = rows.law
    grid = law.grid(fixed)
    w, loss = rows.weights, np.exp(rows.log_loss)
    h = np.exp(law.log_shape(grid, rows.log_n, rows.log_d))
    h /= loss
    e, k = floor_and_factor(h, rows, held=fixed.get("E"))
    usable = np.isfinite(k) & (k > 0)
    k = np.where(usable, k, 1.0)
    misfit = (w * np.abs(e[:, None] * (1 / loss) + k[:, None] * h - 1)).sum(axis=1)
    misfit[~usable] = np.inf
    theta = law.from_grid(grid, e, k)

    # the best of every basin first, then by misfit
    order = np.argsort(misfit, kind="stable")
    order = order[np.isfinite(misfit[order])]
    _, first = np.unique(law.basins(grid)[order], return_index=True)
    leaders = order[np.sort(first)]
    chosen = np.concatenate([order[: number // 2], leaders, order[number // 2 :]])
    return np.clip(theta[_unique(chosen)[:number]], *law.bounds())


def _unique(indices: NDArray[np.intp]) -> NDArray[np.intp]:
    """Without repeats, order kept."""
    _, first = np.unique(indices, return_index=True)
    return indices[np.sort(first)]
