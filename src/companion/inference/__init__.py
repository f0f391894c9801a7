"""Inference times: timings of prefills and generation steps, models of them, and what a cache of prefixes takes."""

from companion.inference.one_size import InferenceFit, fit_inference
from companion.inference.prefix import best_interval, kept_by
from companion.inference.prefix_tree import prefix_tree
from companion.inference.runtime_model import RuntimeModel, fit_runtime_model, paper_runtime_model
from companion.inference.timings import load_inference, load_paper_inference

__all__ = [
    "InferenceFit",
    "RuntimeModel",
    "best_interval",
    "fit_inference",
    "fit_runtime_model",
    "kept_by",
    "load_inference",
    "load_paper_inference",
    "paper_runtime_model",
    "prefix_tree",
]
