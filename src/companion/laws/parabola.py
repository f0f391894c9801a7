"""The parabola of an IsoFLOP profile in log10 x."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from companion.numeric import Values


@dataclass(frozen=True)
class Parabola:
    """loss = quadratic·(log10 x)² + linear·log10 x + constant: an IsoFLOP profile (arXiv 2203.15556, 3.2)."""

    quadratic: float
    linear: float
    constant: float

    def predict(self, x: ArrayLike) -> Values:
        """Loss in nats per token at x, any shape."""
        z = np.log10(x)
        return (self.quadratic * z + self.linear) * z + self.constant

    @property
    def has_minimum(self) -> bool:
        """Whether the curvature is positive."""
        return self.quadratic > 0

    @property
    def x_opt(self) -> float:
        """x at the minimum; NaN where the curvature is not positive."""
        if not self.has_minimum:
            return float("nan")
        with np.errstate(over="ignore"):  # a nearly flat parabola may have its minimum at infinity
            return float(np.power(10.0, -self.linear / (2 * self.quadratic)))

    @property
    def loss_opt(self) -> float:
        """Loss at the minimum in nats per token; NaN where the curvature is not positive."""
        return self.constant - self.linear**2 / (4 * self.quadratic) if self.has_minimum else float("nan")
