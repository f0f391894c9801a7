"""Fits: data in, an object out that carries parameters, their uncertainty, residuals and warnings."""
