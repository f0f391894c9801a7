"""The product form L(N, D) = E + K·N^-alpha·D^-beta: one power law times another, and a short example of a `Law`.

log L = logsumexp(e, u) with u = k − alpha·n − beta·d, E = exp(e), K = exp(k): u is linear in all other parameters, so
the second derivatives are those of one log-sum-exp.
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

_EXPONENTS = (0.02, 0.05, 0.1, 0.17, 0.25, 0.35, 0.5, 0.7, 0.9, 1.2, 1.7)


@dataclass(frozen=True, kw_only=True)
class ProductLaw(Law):
    """L(N, D) = E + K·N^-alpha·D^-beta in nats per token.

    Along C = k·N·D it has no optimum: with alpha above beta a larger model is better at every size.

    Raises
    ------
    InputError
        if K is not positive.

    Examples
    --------
    >>> print(f"{ProductLaw(E=1.7, K=50.0, alpha=0.1, beta=0.05).predict(1e9, 2e10):.3f} nats per token")
    3.623 nats per token
    """

    E: Parameter
    K: Parameter
    alpha: Parameter
    beta: Parameter

    FORMULA: ClassVar[str] = "E + K N^-alpha D^-beta"
    PARAMETERS: ClassVar[tuple[str, ...]] = ("E", "K", "alpha", "beta")
    LOGARITHMIC: ClassVar[frozenset[str]] = frozenset(("E", "K"))
    LIMITS: ClassVar[Mapping[str, Limits]] = {
        "E": FLOOR_LIMITS,
        "K": PREFACTOR_LIMITS,
        "alpha": EXPONENT_LIMITS,
        "beta": EXPONENT_LIMITS,
    }
    SHIFTS: ClassVar[tuple[Shift, ...]] = (Shift("K", "alpha", 0), Shift("K", "beta", 1))
    EXPONENTS: ClassVar[Mapping[str, str]] = {"alpha": "num_params", "beta": "num_tokens"}

    def __post_init__(self) -> None:
        self._require_positive("K")

    def predict(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """Loss in nats per token; N and D broadcast, the last axis over the laws where there are many."""
        return self.E + self.K * np.power(num_params, -self.alpha) * np.power(num_tokens, -self.beta)

    def log_gain_ratio(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Values:
        """log of beta over alpha, at every size."""
        return np.log(self.beta) - np.log(self.alpha) + np.zeros(np.shape(num_params))

    @classmethod
    def expand(cls, theta: Array, log_n: Array, log_d: Array) -> Expansion:
        """log L and its derivatives for solver parameters (R, 4) at places (n,)."""
        e, k, alpha, beta = (theta[:, index, None] for index in range(4))
        u = k - alpha * log_n - beta * log_d
        log_loss = np.logaddexp(e, u)
        floor, share = np.exp(e - log_loss), np.exp(u - log_loss)
        slopes = np.stack(np.broadcast_arrays(np.ones_like(u), -log_n, -log_d), axis=-1)  # of u in (k, alpha, beta)
        gradient = np.concatenate([floor[..., None], share[..., None] * slopes], axis=-1)

        def add_curvature(hessian: Array, weights: Array) -> None:
            difference = np.concatenate([np.ones_like(u)[..., None], -slopes], axis=-1)
            hessian += np.matmul(difference.transpose(0, 2, 1), (weights * floor * share)[..., None] * difference)

        return Expansion(log_loss, gradient, add_curvature)

    @classmethod
    def grid(cls, fixed: Mapping[str, float]) -> Array:
        """Rows of alpha and beta, shape (G, 2)."""
        axes = np.meshgrid(_EXPONENTS, _EXPONENTS, indexing="ij")
        return np.stack([axis.ravel() for axis in axes], axis=1)

    @classmethod
    def log_shape(cls, grid: Array, log_n: Array, log_d: Array) -> Array:
        """log h of L = E + K·h for every row of the grid, shape (G, n)."""
        return np.asarray(-grid[:, :1] * log_n - grid[:, 1:] * log_d)

    @classmethod
    def from_grid(cls, grid: Array, floor: Array, factor: Array) -> Array:
        """Solver parameters (G, 4) for rows of the grid."""
        return np.column_stack([np.log(floor), np.log(factor), grid])
