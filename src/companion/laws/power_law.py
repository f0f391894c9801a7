"""The power law y = prefactor · x^exponent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from companion.numeric import Values


@dataclass(frozen=True)
class PowerLaw:
    """y = prefactor · x^exponent, e.g. N\\*(C) = A'·C^a (arXiv 2510.02228, compute-optimal scaling)."""

    prefactor: float
    exponent: float

    def predict(self, x: ArrayLike) -> Values:
        """y at x; x positive, any shape."""
        return self.prefactor * np.power(x, self.exponent)

    def invert(self, y: ArrayLike) -> Values:
        """x at which the law reaches y; undefined for exponent 0."""
        return np.power(np.divide(y, self.prefactor), 1.0 / self.exponent)
