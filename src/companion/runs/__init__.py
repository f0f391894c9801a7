"""Run tables: load, check, choose, describe. The paper's runs and a reader's own go through the same functions."""

from companion.runs.load import load_paper_runs, load_runs
from companion.runs.schema import (
    COLUMNS,
    REQUIRED_COLUMNS,
    RunTableWarning,
    check_runs,
)
from companion.runs.select import assign_budgets, pareto_front, subset, with_active_params
from companion.runs.summary import summary

__all__ = [
    "COLUMNS",
    "REQUIRED_COLUMNS",
    "RunTableWarning",
    "assign_budgets",
    "check_runs",
    "load_paper_runs",
    "load_runs",
    "pareto_front",
    "subset",
    "summary",
    "with_active_params",
]
