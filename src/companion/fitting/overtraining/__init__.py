"""Loss over compute at a fixed ratio of tokens to parameters: the exponents, and what overtraining costs."""

from companion.fitting.overtraining.exponents import (
    OvertrainingSlopes,
    fit_overtraining,
    fit_overtraining_slopes,
    fit_slopes_by_ratio,
)

__all__ = [
    "OvertrainingSlopes",
    "fit_overtraining",
    "fit_overtraining_slopes",
    "fit_slopes_by_ratio",
]
