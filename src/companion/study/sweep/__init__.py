"""Sweeps: a design becomes a plan with predicted costs, its runs are trained, and their records become a run table."""

from companion.study.sweep.design import Design, read_design
from companion.study.sweep.ladder import LADDER, study_architecture
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
