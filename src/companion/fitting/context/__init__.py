"""IsoFLOP optima over the context length, and what moves them."""

from companion.fitting.context.scaling import ContextFit, ContextTrend, fit_context_optima

__all__ = [
    "ContextFit",
    "ContextTrend",
    "fit_context_optima",
]
