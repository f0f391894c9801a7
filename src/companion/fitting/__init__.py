"""Fits: data in, an object out that carries parameters, their uncertainty, residuals and warnings."""

from companion.fitting.fit import Fit, fit

__all__ = ["Fit", "fit"]
