"""Objective of a law of the loss with exact first and second derivatives, for many parameter vectors at once.

The law gives log L and its derivatives in the solver parameters (`companion.laws.base.Law.expand`); here they meet the
Huber loss of log residuals. Row r of every array belongs to parameter vector r, so that all starts of a fit, or all
resamples of a bootstrap, take their steps together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import huber

from companion.laws.base import Array, Law

#: Rows that are worked on at a time: what a derivative needs besides its result stays below 100 MB.
BLOCK = 65_536


@dataclass(frozen=True)
class Rows:
    """What is fitted: centered logarithms of N and D, log loss, weights, law, and where the Huber loss turns linear.

    `log_n`, `log_d`, `log_loss` have shape (n,); `weights` too, or (R, n) for one weighting per parameter vector.
    `center` is what was subtracted from log N and log D: it keeps prefactors and exponents from being collinear.
    """

    log_n: Array
    log_d: Array
    log_loss: Array
    weights: Array
    huber_delta: float
    center: tuple[float, float]
    law: type[Law]

    def weights_of(self, rows: Any) -> Array:
        """Weights of some of the parameter vectors."""
        return self.weights if self.weights.ndim == 1 else self.weights[rows]

    def part(self, chosen: Any) -> "Rows":
        """Some of the rows, same center."""
        return replace(
            self,
            log_n=self.log_n[chosen],
            log_d=self.log_d[chosen],
            log_loss=self.log_loss[chosen],
            weights=self.weights[..., chosen],
        )

    def blocks(self) -> Iterator["Rows"]:
        """The rows in order, at most `BLOCK` at a time; a small table is its own only block."""
        if self.log_n.size <= BLOCK:
            yield self
            return
        for start in range(0, self.log_n.size, BLOCK):
            yield self.part(slice(start, start + BLOCK))


def make_rows(law: type[Law], num_params: Any, num_tokens: Any, loss: Any, weights: Any, huber_delta: float) -> Rows:
    """Rows for a law from N, D and loss, all positive, shape (n,)."""
    log_n, log_d = np.log(np.asarray(num_params, dtype=float)), np.log(np.asarray(num_tokens, dtype=float))
    center = (float(log_n.mean()), float(log_d.mean()))
    log_loss = np.log(np.asarray(loss, dtype=float))
    weights = np.asarray(weights, dtype=float)
    return Rows(log_n - center[0], log_d - center[1], log_loss, weights, huber_delta, center, law)


def to_raw(theta: Array, rows: Rows) -> Array:
    """Solver parameters of plain logarithms from those of centered ones, same shape (..., p)."""
    return rows.law.shifted(theta, rows.center, +1.0)


def from_raw(theta: Array, rows: Rows) -> Array:
    """Solver parameters of centered logarithms from those of plain ones, same shape (..., p)."""
    return rows.law.shifted(theta, rows.center, -1.0)


def log_predictions(theta: Array, rows: Rows) -> Array:
    """log L for every parameter vector and row, shape (R, n)."""
    return rows.law.log_predictions(theta, rows.log_n, rows.log_d)


def objective(theta: Array, rows: Rows) -> Array:
    """Sum of weighted Huber terms for every parameter vector, shape (R,)."""
    terms = (
        (part.weights * huber(part.huber_delta, log_predictions(theta, part) - part.log_loss)).sum(axis=1)
        for part in rows.blocks()
    )
    return sum(terms, start=np.zeros(len(theta)))


@dataclass
class Derivatives:
    """Objective (R,), gradient (R, p), Hessian (R, p, p), and a positive semi-definite stand-in for the Hessian."""

    objective: Array
    gradient: Array
    hessian: Array
    gauss_newton: Array

    def add(self, other: "Derivatives") -> None:
        """Those of further rows of the table."""
        self.objective += other.objective
        self.gradient += other.gradient
        self.hessian += other.hessian
        self.gauss_newton += other.gauss_newton

    def put(self, rows: Any, other: "Derivatives") -> None:
        """Overwrite some rows."""
        for name in ("objective", "gradient", "hessian", "gauss_newton"):
            getattr(self, name)[rows] = getattr(other, name)


def jacobian(theta: Array, rows: Rows) -> Array:
    """d log L / d theta, shape (R, n, p)."""
    return rows.law.expand(theta, rows.log_n, rows.log_d).gradient


def derivatives(theta: Array, rows: Rows, weights: Array | None = None) -> Derivatives:
    """Objective, gradient and Hessian for every parameter vector.

    The Hessian is exact where no residual sits on the edge between the quadratic and the linear part. `gauss_newton`
    leaves second derivatives out and gives rows in the linear part the weight of iteratively reweighted least squares.
    """
    blocks = (rows if weights is None else replace(rows, weights=weights)).blocks()
    result = _derivatives(theta, next(blocks))
    for block in blocks:
        result.add(_derivatives(theta, block))
    return result


def _derivatives(theta: Array, rows: Rows) -> Derivatives:
    w = rows.weights
    delta = rows.huber_delta
    expansion = rows.law.expand(theta, rows.log_n, rows.log_d)
    first = expansion.gradient
    residuals = expansion.log_loss - rows.log_loss
    size = np.abs(residuals)
    quadratic = size <= delta
    psi = w * np.where(quadratic, residuals, np.copysign(min(delta, 1e300), residuals))

    gradient = np.matmul(psi[:, None, :], first)[:, 0]
    transposed = first.transpose(0, 2, 1)
    hessian = np.matmul(transposed, (w * quadratic)[..., None] * first)
    gauss_newton = np.matmul(transposed, (w / np.maximum(1.0, size / delta))[..., None] * first)
    expansion.add_curvature(hessian, psi)
    return Derivatives((w * huber(delta, residuals)).sum(axis=1), gradient, hessian, gauss_newton)
