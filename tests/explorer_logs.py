"""Explorers with other logs, or with laws that never reach a loss."""

import math
from dataclasses import replace

import numpy as np

from companion.explorer import Explorer
from companion.training.measured import MeasuredUtilization, SizeCurve


def flat(share: float, context_length: int, spread: float = 0.0) -> SizeCurve:
    """A curve of one share from 100M to 10B parameters."""
    return SizeCurve(
        context_length=context_length,
        sizes=(1e8, 1e10),
        center=0.0,
        coefficients=np.array([0.0, 0.0, math.log(share)]),
        covariance=np.zeros((3, 3)),
        residual_variance=spread**2,
        degrees=10**9,  # Student's t is the normal distribution
    )


def with_curves(explorer: Explorer, **curves: tuple[SizeCurve, ...]) -> Explorer:
    """The explorer with other logs: curves by architecture, none for an architecture without."""
    measured = MeasuredUtilization(curves=dict(curves), source="own.csv")
    changed = {
        name: replace(each, utilization=measured if name in curves else None, unlogged="own.csv has no finished run")
        for name, each in explorer.known.items()
    }
    return replace(explorer, known=changed)


def with_floor(explorer: Explorer, name: str, floor: float, resamples: slice = slice(None)) -> Explorer:
    """The explorer where the law of an architecture, or some of its resampled laws, never fall below a loss."""
    knowledge = explorer.known[name]
    theta = knowledge.bootstrap.theta.copy()
    theta[resamples, 0] = math.log(floor)
    changed = replace(knowledge, bootstrap=replace(knowledge.bootstrap, theta=theta))
    if resamples == slice(None):
        changed = replace(changed, fit=replace(knowledge.fit, law=replace(knowledge.fit.law, E=floor)))
    return replace(explorer, known={**explorer.known, name: changed})
