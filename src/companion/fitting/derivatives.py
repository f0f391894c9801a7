"""Objective of the parametric law with exact first and second derivatives, for many parameter vectors at once.

In logarithms the law of arXiv 2510.02228 is two nested log-sum-exps,

    s = logsumexp(a − alpha·n, b − beta·d),   u = gamma·s,   log L̂ = logsumexp(e, u),

with n = log N, d = log D, E = exp(e), A = exp(a), B = exp(b). All derivatives below follow from that of a log-sum-exp.
A parameter vector theta is (e, a, b, alpha, beta, log gamma). Row r of every array belongs to vector r, so that all
starts of a fit, or all resamples of a bootstrap, take their steps together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Rows that are worked on at a time: what a derivative needs besides its result stays below 100 MB.
BLOCK = 65_536

#: Order of the internal parameters.
THETA = ("e", "a", "b", "alpha", "beta", "log_gamma")


@dataclass(frozen=True)
class Rows:
    """What is fitted: centred logarithms of N and D, log loss, weights, and where the Huber loss turns linear.

    `log_n`, `log_d`, `log_loss` have shape (n,); `weights` too, or (R, n) for one weighting per parameter vector.
    `center` is what was subtracted from log N and log D: it keeps a, b, alpha and beta from being collinear.
    """

    log_n: Array
    log_d: Array
    log_loss: Array
    weights: Array
    huber_delta: float
    center: tuple[float, float]

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


def make_rows(num_params: Any, num_tokens: Any, loss: Any, weights: Any, huber_delta: float) -> Rows:
    """Rows from N, D and loss, all positive, shape (n,)."""
    log_n, log_d = np.log(np.asarray(num_params, dtype=float)), np.log(np.asarray(num_tokens, dtype=float))
    center = (float(log_n.mean()), float(log_d.mean()))
    log_loss = np.log(np.asarray(loss, dtype=float))
    return Rows(log_n - center[0], log_d - center[1], log_loss, np.asarray(weights, dtype=float), huber_delta, center)


def to_raw(theta: Array, center: tuple[float, float]) -> Array:
    """Parameters of uncentred logarithms, same shape."""
    raw = theta.copy()
    raw[..., 1] += theta[..., 3] * center[0]
    raw[..., 2] += theta[..., 4] * center[1]
    return raw


def from_raw(theta: Array, center: tuple[float, float]) -> Array:
    """Parameters of centred logarithms, same shape."""
    centred = theta.copy()
    centred[..., 1] -= theta[..., 3] * center[0]
    centred[..., 2] -= theta[..., 4] * center[1]
    return centred


def log_predictions(theta: Array, rows: Rows) -> Array:
    """log L̂ for every parameter vector and row, shape (R, n)."""
    e, a, b, alpha, beta, log_gamma = (theta[:, index, None] for index in range(6))
    s = np.logaddexp(a - alpha * rows.log_n, b - beta * rows.log_d)
    return np.logaddexp(e, np.exp(log_gamma) * s)


def huber(residuals: Array, delta: float) -> Array:
    """Huber loss: r²/2 up to delta, delta·(|r| − delta/2) beyond (Huber 1964). An infinite delta is least squares."""
    size = np.abs(residuals)
    with np.errstate(invalid="ignore"):  # inf - inf on the side that is not taken
        return np.where(size <= delta, 0.5 * residuals**2, delta * (size - 0.5 * delta))


def objective(theta: Array, rows: Rows) -> Array:
    """Sum of weighted Huber terms for every parameter vector, shape (R,)."""
    terms = (
        (part.weights * huber(log_predictions(theta, part) - part.log_loss, part.huber_delta)).sum(axis=1)
        for part in rows.blocks()
    )
    return sum(terms, start=np.zeros(len(theta)))


@dataclass
class Derivatives:
    """Objective (R,), gradient (R, 6), Hessian (R, 6, 6), and a positive semi-definite stand-in for the Hessian."""

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
    """d log L̂ / d theta, shape (R, n, 6)."""
    return _pieces(theta, rows)[1]


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
    log_fit, first, parts = _pieces(theta, rows)
    q, u, p0, p1, gamma, slopes = parts
    residuals = log_fit - rows.log_loss
    size = np.abs(residuals)
    quadratic = size <= delta
    psi = w * np.where(quadratic, residuals, np.copysign(min(delta, 1e300), residuals))

    gradient = np.matmul(psi[:, None, :], first)[:, 0]
    transposed = first.transpose(0, 2, 1)
    hessian = np.matmul(transposed, (w * quadratic)[..., None] * first)
    gauss_newton = np.matmul(transposed, (w / np.maximum(1.0, size / delta))[..., None] * first)

    # outer log-sum-exp: p0·p1·k kᵀ with k the difference of the slopes of its two arguments
    k = np.concatenate([np.ones_like(u)[..., None], -slopes], axis=-1)
    hessian += np.matmul(k.transpose(0, 2, 1), (psi * p0 * p1)[..., None] * k)
    # inner one: gamma·q·(1 − q)·v vᵀ, and the product of gamma with s
    c = psi * p1
    ones = np.ones_like(q)
    v = np.stack([ones, -ones, np.broadcast_to(-rows.log_n, q.shape), np.broadcast_to(rows.log_d, q.shape)], axis=-1)
    hessian[:, 1:5, 1:5] += np.matmul(v.transpose(0, 2, 1), (c * gamma * q * (1 - q))[..., None] * v)
    mixed = np.matmul(c[:, None, :], slopes[..., :4])[:, 0]
    hessian[:, 1:5, 5] += mixed
    hessian[:, 5, 1:5] += mixed
    hessian[:, 5, 5] += (c * u).sum(axis=1)
    return Derivatives((w * huber(residuals, delta)).sum(axis=1), gradient, hessian, gauss_newton)


def _pieces(theta: Array, rows: Rows) -> tuple[Array, Array, tuple[Array, ...]]:
    """log L̂ (R, n), its gradient (R, n, 6), and what the Hessian needs besides."""
    e, a, b, alpha, beta, log_gamma = (theta[:, index, None] for index in range(6))
    gamma = np.exp(log_gamma)
    x = a - alpha * rows.log_n
    s = np.logaddexp(x, b - beta * rows.log_d)
    q = np.exp(x - s)  # share of the term in N
    u = gamma * s
    log_fit = np.logaddexp(e, u)
    p1 = np.exp(u - log_fit)
    p0 = np.exp(e - log_fit)
    slopes = np.stack(
        [gamma * q, gamma * (1 - q), -gamma * q * rows.log_n, -gamma * (1 - q) * rows.log_d, u], axis=-1
    )  # of u in (a, b, alpha, beta, log gamma)
    first = np.concatenate([p0[..., None], p1[..., None] * slopes], axis=-1)
    return log_fit, first, (q, u, p0, p1, gamma, slopes)
