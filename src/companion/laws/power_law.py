"""The power law y = prefactor · x^exponent."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PowerLaw:
    """y = prefactor · x^exponent, e.g. N\\*(C) = A'·C^a (arXiv 2510.02228, compute-optimal scaling)."""

    prefactor: float
    exponent: float

    def predict(self, x: Any) -> Any:
        """y at x; x positive, any shape."""
        return self.prefactor * np.power(x, self.exponent)

    def invert(self, y: Any) -> Any:
        """x at which the law reaches y; undefined for exponent 0."""
        return np.power(np.divide(y, self.prefactor), 1.0 / self.exponent)
