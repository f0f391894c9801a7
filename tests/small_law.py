"""A law of three parameters, as someone would add one: the smallest `Law` there is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

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


@dataclass(frozen=True, kw_only=True)
class TokensOnly(Law):
    """L(D) = E + B·D^-beta: models so large that their size does not matter."""

    E: Parameter
    B: Parameter
    beta: Parameter

    FORMULA: ClassVar[str] = "E + B D^-beta"
    PARAMETERS: ClassVar[tuple[str, ...]] = ("E", "B", "beta")
    LOGARITHMIC: ClassVar[frozenset[str]] = frozenset(("E", "B"))
    LIMITS: ClassVar[Mapping[str, Limits]] = {"E": FLOOR_LIMITS, "B": PREFACTOR_LIMITS, "beta": EXPONENT_LIMITS}
    SHIFTS: ClassVar[tuple[Shift, ...]] = (Shift("B", "beta", 1),)
    EXPONENTS: ClassVar[Mapping[str, str]] = {"beta": "num_tokens"}

    def predict(self, num_params: Any, num_tokens: Any) -> Any:
        return self.E + self.B * np.power(num_tokens, -self.beta) + 0 * np.asarray(num_params)

    @classmethod
    def expand(cls, theta: Array, log_n: Array, log_d: Array) -> Expansion:
        e, b, beta = (theta[:, index, None] for index in range(3))
        u = b - beta * log_d
        log_loss = np.logaddexp(e, u)
        floor, share = np.exp(e - log_loss), np.exp(u - log_loss)
        gradient = np.stack([floor, share, -share * log_d], axis=-1)

        def add_curvature(hessian: Array, weights: Array) -> None:
            difference = np.stack(np.broadcast_arrays(np.ones_like(u), -1.0, log_d), axis=-1)
            hessian += np.matmul(difference.transpose(0, 2, 1), (weights * floor * share)[..., None] * difference)

        return Expansion(log_loss, gradient, add_curvature)

    @classmethod
    def grid(cls, fixed: Mapping[str, float]) -> Array:
        return np.array([[0.05], [0.1], [0.2], [0.35], [0.5], [0.8], [1.2]])

    @classmethod
    def log_shape(cls, grid: Array, log_n: Array, log_d: Array) -> Array:
        return np.asarray(-grid * log_d)

    @classmethod
    def from_grid(cls, grid: Array, floor: Array, factor: Array) -> Array:
        return np.column_stack([np.log(floor), np.log(factor), grid])
