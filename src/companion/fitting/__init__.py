"""Fits: data in, an object out that carries parameters, their uncertainty, residuals and warnings."""

from companion.fitting.extrapolation import Extrapolation, extrapolate
from companion.fitting.fit import Fit, fit
from companion.fitting.likelihood import Profile, profile
from companion.fitting.power_law import PowerLawFit, fit_power_law
from companion.fitting.results import Result
from companion.fitting.uncertainty import Bootstrap

__all__ = [
    "Bootstrap",
    "Extrapolation",
    "Fit",
    "PowerLawFit",
    "Profile",
    "Result",
    "extrapolate",
    "fit",
    "fit_power_law",
    "profile",
]
