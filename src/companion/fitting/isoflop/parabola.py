"""Weighted parabolas in log10 x, one or a thousand at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.laws import Parabola

#: Sizes this close, in decades, are one size: a parabola through them would be drawn by rounding.
SAME_SIZE = 1e-6
#: Condition number of normal equations above which their solution is rounding.
ILL_CONDITIONED = 1e13


@dataclass(frozen=True, kw_only=True)
class ParabolaFit:
    """A parabola of loss in log10 x, its minimum, and how well both are known.

    `standard_errors` are those of (quadratic, linear, constant); `log10_x_opt_standard_error` is in decades and
    `loss_opt_standard_error` in nats per token, both to first order (delta method). All are NaN without a residual
    degree of freedom, the last two also without a minimum. `residuals` are observed minus fitted loss, shape (n,).
    """

    law: Parabola
    standard_errors: tuple[float, float, float]
    log10_x_opt_standard_error: float
    loss_opt_standard_error: float
    residuals: NDArray[np.float64]
    degrees_of_freedom: float


def num_sizes(x: ArrayLike) -> int:
    """How many different sizes there are; sizes that differ by rounding (`SAME_SIZE` decades) are one."""
    z = np.sort(np.log10(np.asarray(x, dtype=float)))
    return int(np.sum(np.diff(z) > SAME_SIZE)) + 1 if z.size else 0


def fit_parabola(x: ArrayLike, loss: ArrayLike, weights: ArrayLike | None = None) -> ParabolaFit:
    """Least squares of loss on (log10 x)², log10 x and 1.

    Parameters
    ----------
    x
        num_params or num_tokens, positive, shape (n,); at least three different values.
    loss
        nats per token, shape (n,).
    weights
        how many runs each row stands for, shape (n,); all 1 if not given.

    Raises
    ------
    InputError
        with fewer than three different x among the rows of positive weight.
    """
    x, loss = np.asarray(x, dtype=float), np.asarray(loss, dtype=float)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=float)
    if (different := num_sizes(x[w > 0])) < 3:
        raise InputError(f"parabola: {different} different size{'s' * (different != 1)}; at least 3 are needed")
    z = np.log10(x)
    center = np.average(z, weights=w)
    u = z - center
    design = np.stack([u**2, u, np.ones_like(u)], axis=1)
    # QR of the weighted design, not its normal equations: half the digits would go in (z², z, 1)
    q_matrix, r_matrix = np.linalg.qr(design * np.sqrt(w)[:, None])
    quadratic, linear, constant = np.linalg.solve(r_matrix, q_matrix.T @ (np.sqrt(w) * loss))
    residuals = loss - design @ np.array([quadratic, linear, constant])

    dof = float(w.sum() - 3)
    variance = float(np.sum(w * residuals**2)) / dof if dof > 0 else float("nan")
    inverse = np.linalg.inv(r_matrix)
    covariance = variance * inverse @ inverse.T
    to_uncentered = np.array([[1.0, 0.0, 0.0], [-2 * center, 1.0, 0.0], [center**2, -center, 1.0]])
    law = Parabola(
        quadratic=float(quadratic),
        linear=float(linear - 2 * quadratic * center),
        constant=float(constant - linear * center + quadratic * center**2),
    )
    with np.errstate(over="ignore", invalid="ignore"):  # a nearly flat profile knows nothing of its optimum
        u_opt = -linear / (2 * quadratic) if quadratic > 0 else np.nan
        opt_gradient = (
            np.array([-u_opt / quadratic, -1 / (2 * quadratic), 0.0]) if quadratic > 0 else np.full(3, np.nan)
        )
        loss_gradient = np.array([u_opt**2, u_opt, 1.0])
        opt_variance, loss_variance = (gradient @ covariance @ gradient for gradient in (opt_gradient, loss_gradient))
    return ParabolaFit(
        law=law,
        standard_errors=tuple(np.sqrt(np.diag(to_uncentered @ covariance @ to_uncentered.T)).tolist()),
        log10_x_opt_standard_error=float(np.sqrt(opt_variance)),
        loss_opt_standard_error=float(np.sqrt(loss_variance)),
        residuals=residuals,
        degrees_of_freedom=dof,
    )


def optima_of_resamples(
    x: ArrayLike, loss: ArrayLike, weights: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minima of many weighted parabolas over the same runs.

    Parameters
    ----------
    x, loss
        as in `fit_parabola`, shape (n,).
    weights
        shape (R, n): row r weighs the runs of resample r.

    Returns
    -------
    x_opt, loss_opt
        shape (R,); NaN where a resample holds fewer than three different x or its curvature is not positive.
    """
    z = np.log10(np.asarray(x, dtype=float))
    loss, w = np.asarray(loss, dtype=float), np.asarray(weights, dtype=float)
    center, scale = z.mean(), max(float(z.std()), SAME_SIZE)
    u = (z - center) / scale
    design = np.stack([u**2, u, np.ones_like(u)], axis=1)
    order = np.argsort(z, kind="stable")
    starts = np.flatnonzero(np.diff(z[order], prepend=-np.inf) > SAME_SIZE)
    solvable = np.logical_or.reduceat(w[:, order] > 0, starts, axis=1).sum(axis=1) >= 3
    moments = w @ np.stack([u**power for power in range(5)], axis=1)  # (R, 5)
    normal = moments[:, [[4, 3, 2], [3, 2, 1], [2, 1, 0]]]
    normal[~solvable] = np.eye(3)
    # three sizes within rounding of two define no parabola either
    solvable &= np.linalg.cond(normal) < ILL_CONDITIONED
    normal[~solvable] = np.eye(3)
    right = w @ (design * loss[:, None])
    quadratic, linear, constant = np.linalg.solve(normal, right[..., None])[..., 0].T
    valid = solvable & (quadratic > 0)
    safe = np.where(valid, quadratic, 1.0)
    u_opt = np.where(valid, -linear / (2 * safe), np.nan)
    with np.errstate(over="ignore"):  # a nearly flat resample may put its optimum at infinity
        x_opt = 10 ** (center + scale * u_opt)
    return x_opt, np.where(valid, constant - linear**2 / (4 * safe), np.nan)
