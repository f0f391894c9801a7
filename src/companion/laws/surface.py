"""The parametric law L(N, D) = E + (A·N^-alpha + B·D^-beta)^gamma: the one place where it is written.

In logarithms it is two nested log-sum-exps,

    s = logsumexp(a − alpha·n, b − beta·d),   u = gamma·s,   log L = logsumexp(e, u),

with n = log N, d = log D, E = exp(e), A = exp(a), B = exp(b). All derivatives follow from that of a log-sum-exp.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from companion.laws.base import (
    EXPONENT_LIMITS,
    FLOOR_LIMITS,
    PREFACTOR_LIMITS,
    Array,
    Expansion,
    Law,
    Limits,
    Parameter,
    Shift,
)
from companion.numeric import Values

_ALPHAS = (0.05, 0.1, 0.17, 0.25, 0.35, 0.5, 0.7, 0.9, 1.2, 1.7)
_GAMMAS = (0.12, 0.2, 0.3, 0.45, 0.7, 1.0, 1.6)
#: log(B/A) of the centered law.
_BALANCES = (-6.0, -4.0, -2.5, -1.2, 0.0, 1.2, 2.5, 4.0, 6.0)


@dataclass(frozen=True, kw_only=True)
class LossSurface(Law):
    """L(N, D) = E + (A·N^-alpha + B·D^-beta)^gamma in nats per token (arXiv 2510.02228; gamma = 1: arXiv 2203.15556).

    Raises
    ------
    InputError
        if A, B, alpha, beta or gamma is not positive.

    Examples
    --------
    >>> law = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    >>> print(f"{law.predict(70e9, 1.4e12):.3f} nats per token")
    1.937 nats per token
    """

    E: Parameter
    A: Parameter
    B: Parameter
    alpha: Parameter
    beta: Parameter
    gamma: Parameter = 1.0

    FORMULA: ClassVar[str] = "E + (A N^-alpha + B D^-beta)^gamma"
    PARAMETERS: ClassVar[tuple[str, ...]] = ("E", "A", "B", "alpha", "beta", "gamma")
    LOGARITHMIC: ClassVar[frozenset[str]] = frozenset(("E", "A", "B", "gamma"))
    LIMITS: ClassVar[Mapping[str, Limits]] = {
        "E": FLOOR_LIMITS,
        "A": PREFACTOR_LIMITS,
        "B": PREFACTOR_LIMITS,
        "alpha": EXPONENT_LIMITS,
        "beta": EXPONENT_LIMITS,
        "gamma": Limits(float(np.log(0.01)), float(np.log(20.0)), (float(np.log(0.03)), float(np.log(8.0)))),
    }
    SHIFTS: ClassVar[tuple[Shift, ...]] = (Shift("A", "alpha", 0), Shift("B", "beta", 1))
    EXPONENTS: ClassVar[Mapping[str, str]] = {"alpha": "num_params", "beta": "num_tokens"}
    FIXABLE: ClassVar[Mapping[str, tuple[float, float]]] = {"gamma": (0.01, 20.0), "E": (1e-6, 1e3)}

    def __post_init__(self) -> None:
        self._require_positive("A", "B", "alpha", "beta", "gamma")

    # ---- the law -----------------------------------------------------------------------------------

    def predict(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """Loss in nats per token; N and D broadcast, the last axis over the laws where there are many."""
        return self.E + self.reducible(num_params, num_tokens) ** self.gamma

    def reducible(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """A·N^-alpha + B·D^-beta, before the outer exponent."""
        from_size, from_tokens = self.terms(num_params, num_tokens)
        return from_size + from_tokens

    def terms(self, num_params: ArrayLike, num_tokens: ArrayLike) -> tuple[Values, Values]:
        """A·N^-alpha and B·D^-beta."""
        return self.A * np.power(num_params, -self.alpha), self.B * np.power(num_tokens, -self.beta)

    def slopes(self, num_params: ArrayLike, num_tokens: ArrayLike) -> tuple[Values, Values]:
        """−dL/d ln N and −dL/d ln D, nats per token: what e-fold more parameters, or more tokens, would gain."""
        from_size, from_tokens = self.terms(num_params, num_tokens)
        outer = self.gamma * (from_size + from_tokens) ** (self.gamma - 1)
        return outer * self.alpha * from_size, outer * self.beta * from_tokens

    def log_gain_ratio(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """log of (−dL/d ln D) / (−dL/d ln N), from logarithms: both slopes may fall below float64."""
        from_tokens = np.log(self.beta) + np.log(self.B) - self.beta * np.log(num_tokens)
        return from_tokens - (np.log(self.alpha) + np.log(self.A) - self.alpha * np.log(num_params))

    def tokens_for(self, loss: ArrayLike, num_params: ArrayLike) -> Values:
        """D at which N parameters reach a loss; infinite where they never do."""
        with np.errstate(divide="ignore", over="ignore"):
            excess = np.maximum(np.asarray(loss) - self.E, 0) ** (1 / self.gamma)
            rest = excess - self.A * np.power(num_params, -self.alpha)
            return np.where(rest > 0, np.power(self.B / np.where(rest > 0, rest, 1.0), 1 / self.beta), np.inf)

    def optimum(self, train_flops: ArrayLike, flops_per_param_and_token: float = 6.0) -> tuple[Values, Values]:
        """N\\*, D\\* of least loss at C = k·N·D (arXiv 2203.15556, equation 4); gamma drops out.

        `companion.laws.optimum` takes any other count of C.

        Parameters
        ----------
        train_flops
            C, any shape.
        flops_per_param_and_token
            k; 6 counts two FLOPs per weight forward and four backward.
        """
        product = np.divide(train_flops, flops_per_param_and_token)
        total = self.alpha + self.beta
        try:
            balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        except (OverflowError, ZeroDivisionError):  # a law whose terms never balance at a size that float64 holds
            balance = float("inf")
        num_params = balance * np.power(product, self.beta / total)
        return num_params, product / num_params

    # ---- what a fit needs --------------------------------------------------------------------------

    @classmethod
    def log_predictions(cls, theta: Array, log_n: Array, log_d: Array) -> Array:
        """log L for solver parameters (R, 6) at places (n,), shape (R, n)."""
        e, a, b, alpha, beta, log_gamma = (theta[:, index, None] for index in range(6))
        return np.asarray(cls.log_loss(e, a, b, alpha, beta, np.exp(log_gamma), log_n, log_d))

    @staticmethod
    def log_loss(
        e: Values, a: Values, b: Values, alpha: Values, beta: Values, gamma: Values, log_n: Values, log_d: Values
    ) -> Values:
        """log L from e = log E, a = log A, b = log B; any gamma, so that a search without bounds may try it."""
        return np.logaddexp(e, gamma * np.logaddexp(a - alpha * log_n, b - beta * log_d))

    @classmethod
    def expand(cls, theta: Array, log_n: Array, log_d: Array) -> Expansion:
        """log L and its derivatives for solver parameters (R, 6) at places (n,)."""
        e, a, b, alpha, beta, log_gamma = (theta[:, index, None] for index in range(6))
        gamma = np.exp(log_gamma)
        x = a - alpha * log_n
        s = np.logaddexp(x, b - beta * log_d)
        q = np.exp(x - s)  # share of the term in N
        u = gamma * s
        log_fit = np.logaddexp(e, u)
        p1 = np.exp(u - log_fit)
        p0 = np.exp(e - log_fit)
        slopes = np.stack(
            [gamma * q, gamma * (1 - q), -gamma * q * log_n, -gamma * (1 - q) * log_d, u], axis=-1
        )  # of u in (a, b, alpha, beta, log gamma)
        first = np.concatenate([p0[..., None], p1[..., None] * slopes], axis=-1)

        def add_curvature(hessian: Array, weights: Array) -> None:
            # outer log-sum-exp: p0·p1·k kᵀ with k the difference of the slopes of its two arguments
            k = np.concatenate([np.ones_like(u)[..., None], -slopes], axis=-1)
            hessian += np.matmul(k.transpose(0, 2, 1), (weights * p0 * p1)[..., None] * k)
            # inner one: gamma·q·(1 − q)·v vᵀ, and the product of gamma with s
            c = weights * p1
            ones = np.ones_like(q)
            v = np.stack([ones, -ones, np.broadcast_to(-log_n, q.shape), np.broadcast_to(log_d, q.shape)], axis=-1)
            hessian[:, 1:5, 1:5] += np.matmul(v.transpose(0, 2, 1), (c * gamma * q * (1 - q))[..., None] * v)
            mixed = np.matmul(c[:, None, :], slopes[..., :4])[:, 0]
            hessian[:, 1:5, 5] += mixed
            hessian[:, 5, 1:5] += mixed
            hessian[:, 5, 5] += (c * u).sum(axis=1)

        return Expansion(log_fit, first, add_curvature)

    @classmethod
    def grid(cls, fixed: Mapping[str, float]) -> Array:
        """Rows of alpha, beta, gamma and log(B/A), shape (G, 4)."""
        gammas = (fixed["gamma"],) if "gamma" in fixed else _GAMMAS
        axes = np.meshgrid(_ALPHAS, _ALPHAS, gammas, _BALANCES, indexing="ij")
        return np.stack([axis.ravel() for axis in axes], axis=1)

    @classmethod
    def log_shape(cls, grid: Array, log_n: Array, log_d: Array) -> Array:
        """log h of L = E + A^gamma·h for every row of the grid, shape (G, n)."""
        alpha, beta, gamma, balance = (column[:, None] for column in grid.T)
        return np.asarray(gamma * np.logaddexp(-alpha * log_n, balance - beta * log_d))

    @classmethod
    def from_grid(cls, grid: Array, floor: Array, factor: Array) -> Array:
        """Solver parameters (G, 6) for rows of the grid."""
        alpha, beta, gamma, balance = grid.T
        a = np.log(factor) / gamma
        return np.stack([np.log(floor), a, a + balance, alpha, beta, np.log(gamma)], axis=1)

    @classmethod
    def basins(cls, grid: Array) -> Array:
        """Basins differ in gamma, in which term is larger, and in which exponent is larger."""
        alpha, beta, gamma, balance = grid.T
        return np.searchsorted(np.unique(gamma), gamma) * 6 + (np.sign(balance) + 1) * 2 + (alpha > beta)
