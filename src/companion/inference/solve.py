"""Solving for the coefficients of a runtime model, also where the timings leave some of them free."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls
from scipy.special import huber

from companion.fitting.bootstrap import resample_counts

Array = NDArray[np.float64]
#: Smallest over largest singular value of the scaled design below which a direction counts as free.
FREE_DIRECTION = 1e-7
#: Changes of the active set per coefficient after which non-negative least squares gives up.
MOST_CHANGES = 30


def solve_times(
    design: Array,
    times: Array,
    start: Array,
    objective: Literal["relative", "milliseconds"] = "relative",
    weights: Array | None = None,
    known: Array | float = 0.0,
) -> Array:
    """Coefficients of least weighted squares of log residuals, or of Huber-transformed milliseconds; shape (k,).

    `known` seconds, a number or shape (n,), are added to what the coefficients predict.
    """
    scale = np.abs(design).max(axis=0)
    scale[scale == 0] = 1.0
    # MINPACK needs at least as many residuals as coefficients; rows of weight 0 change nothing
    missing = max(0, design.shape[1] - len(design))
    scaled = np.pad(design / scale, ((0, missing), (0, 0)), mode="edge")
    times = np.pad(times, (0, missing), mode="edge")
    known = np.pad(np.broadcast_to(known, len(design)), (0, missing), mode="edge")
    root = np.pad(np.ones(len(design)) if weights is None else np.sqrt(weights), (0, missing))

    def residuals(coefficients: Array) -> Array:
        predicted = known + scaled @ coefficients
        if objective == "milliseconds":
            return root * huber(1.0, 1e3 * (predicted - times))
        # below a thousandth of the time the logarithm goes on as its tangent: no step can leave its domain
        ratio = predicted / times
        return root * np.where(ratio > 1e-3, np.log(np.maximum(ratio, 1e-3)), np.log(1e-3) + (ratio - 1e-3) * 1e3)

    def jacobian(coefficients: Array) -> Array:
        predicted = known + scaled @ coefficients
        if objective == "milliseconds":
            slope = 1e3 * np.clip(1e3 * (predicted - times), -1, 1)
        else:
            slope = 1 / np.maximum(predicted, 1e-3 * times)
        return (root * slope)[:, None] * scaled

    found = least_squares(residuals, start * scale, jacobian, method="lm", x_scale="jac", xtol=1e-13, ftol=1e-13)
    return np.asarray(found.x / scale)


def free_columns(design: Array) -> tuple[NDArray[np.bool_], Array]:
    """Which coefficients a design leaves free, shape (k,), and its singular values with columns of unit norm."""
    singular, directions, norms = _scaled_svd(design)
    null = directions[singular < FREE_DIRECTION * singular[0]]
    return (np.abs(null) > 1e-6).any(axis=0) | (norms == 0), singular


def _scaled_svd(design: Array) -> tuple[Array, Array, Array]:
    """Singular values and directions of a design with columns of unit norm, k of each, and the norms."""
    norms = np.linalg.norm(design, axis=0)
    scaled = design / np.where(norms > 0, norms, 1.0)
    # rows of zeros change nothing, and give fewer rows than columns their null directions
    missing = max(0, design.shape[1] - len(design))
    _, singular, directions = np.linalg.svd(np.pad(scaled, ((0, missing), (0, 0))), full_matrices=False)
    return singular, directions, norms


def _rank(design: Array) -> int:
    singular = _scaled_svd(design)[0]
    return int((singular >= FREE_DIRECTION * singular[0]).sum())


def least_squares_start(design: Array, target: Array) -> Array:
    """Linear least squares, the smallest coefficients where a direction is free; columns may differ by many decades."""
    norms = np.linalg.norm(design, axis=0)
    scale = np.where(norms > 0, norms, 1.0)
    return np.asarray(np.linalg.lstsq(design / scale, target, rcond=FREE_DIRECTION)[0] / scale)


def usable_resamples(relative: Array, num_resamples: int, seed: int) -> list[tuple[Array, bool]]:
    """Counts of every resample, shape (n,), and whether its rows determine all that the whole design (n, k) does.

    None if there are no more rows than columns: the fit goes through every row, and no scatter is left to resample.
    """
    number, parameters = relative.shape
    if not num_resamples or number <= parameters:
        return []
    rank = _rank(relative)
    counts = resample_counts(np.zeros(number), num_resamples, seed).astype(float)
    return [(draw, _rank(relative[draw > 0]) == rank) for draw in counts]


def relative_nnls(design: Array, times: Array) -> Callable[[Array], Array]:
    """Least squares of predicted/measured − 1 with coefficients of at least 0, as a function of row weights."""
    relative = design / times[:, None]
    scale = relative.max(axis=0)
    scale[scale == 0] = 1.0  # a term that occurs in no row: its coefficient is 0

    def solve(weights: Array) -> Array:
        root = np.sqrt(weights)
        # nearly equal columns make the active set change often; ten times the usual limit has always sufficed
        return np.asarray(nnls(relative / scale * root[:, None], root, maxiter=MOST_CHANGES * len(scale))[0] / scale)

    return solve
