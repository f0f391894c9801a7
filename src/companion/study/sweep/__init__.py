"""Sweeps: a design becomes a plan with predicted costs, its runs are trained, and their records become a run table.

Designs and sizes need no torch; plans do, and load it when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from companion.study.sweep.design import Design, read_design
from companion.study.sweep.ladder import LADDER, study_architecture

if TYPE_CHECKING:
    from companion.study.sweep.plan import Plan, PlannedRun, make_plan, read_plan, write_plan

__all__ = [
    "LADDER",
    "Design",
    "Plan",
    "PlannedRun",
    "make_plan",
    "read_design",
    "read_plan",
    "study_architecture",
    "write_plan",
]
_LAZY = ("Plan", "PlannedRun", "make_plan", "read_plan", "write_plan")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("companion.study.sweep.plan"), name)
