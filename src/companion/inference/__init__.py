"""Inference times: timings of prefills and generation steps, and models of them for one size and for all sizes."""

from companion.inference.one_size import InferenceFit, fit_inference
from companion.inference.runtime_model import RuntimeModel, fit_runtime_model, paper_runtime_model
from companion.inference.timings import load_inference, load_paper_inference

__all__ = [
    "InferenceFit",
    "RuntimeModel",
    "fit_inference",
    "fit_runtime_model",
    "load_inference",
    "load_paper_inference",
    "paper_runtime_model",
]
