"""The parametric law L(N, D) = E + (A·N^-alpha + B·D^-beta)^gamma."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from companion.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LossSurface:
    """L(N, D) = E + (A·N^-alpha + B·D^-beta)^gamma in nats per token (arXiv 2510.02228; gamma = 1: arXiv 2203.15556).

    Raises
    ------
    InputError
        if A, B, alpha, beta or gamma is not positive.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    gamma: float = 1.0

    def __post_init__(self) -> None:
        for name in ("A", "B", "alpha", "beta", "gamma"):
            if not getattr(self, name) > 0:
                raise InputError(f"loss surface: {name} is {getattr(self, name)} and must be positive")

    def predict(self, num_params: Any, num_tokens: Any) -> Any:
        """Loss in nats per token; N and D broadcast."""
        return self.E + self.reducible(num_params, num_tokens) ** self.gamma

    def reducible(self, num_params: Any, num_tokens: Any) -> Any:
        """A·N^-alpha + B·D^-beta, before the outer exponent."""
        return self.A * np.power(num_params, -self.alpha) + self.B * np.power(num_tokens, -self.beta)

    def optimum(self, train_flops: Any, flops_per_param_and_token: float = 6.0) -> tuple[Any, Any]:
        """N\\*, D\\* of least loss at C = k·N·D (arXiv 2203.15556, equation 4); gamma drops out.

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
