"""From a budget and a workload to a model: which size, on how many tokens, at what cost, and how certain that is."""

from companion.planner.knowledge import Knowledge, Learned, learn
from companion.planner.planning import (
    COST_OPTIMAL,
    LOSS_OPTIMAL,
    HoursRatio,
    Plan,
    PlannedModel,
    plan,
)
from companion.planner.request import Request

__all__ = [
    "COST_OPTIMAL",
    "LOSS_OPTIMAL",
    "HoursRatio",
    "Knowledge",
    "Learned",
    "Plan",
    "PlannedModel",
    "Request",
    "learn",
    "plan",
]
