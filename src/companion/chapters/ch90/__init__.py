"""What the page of the ledger shows (`notebooks/90_ledger.md`): its tables, its figure and its facts."""

from companion.chapters.ch90.facts import ledger_facts
from companion.chapters.ch90.figure import tolerance_figure
from companion.chapters.ch90.tables import (
    alterations_table,
    closest_table,
    differing_table,
    independent_table,
    open_numbers_table,
    section_table,
    sections_without_heading,
    summary_table,
)

__all__ = [
    "alterations_table",
    "closest_table",
    "differing_table",
    "independent_table",
    "ledger_facts",
    "open_numbers_table",
    "section_table",
    "sections_without_heading",
    "summary_table",
    "tolerance_figure",
]
