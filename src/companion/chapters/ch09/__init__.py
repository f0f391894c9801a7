"""What chapter 9 shows (`notebooks/09_planning.md`): tables and figures of plans, and their facts."""

from companion.chapters.ch09.facts import (
    choices_facts,
    loss_width_words,
    numbers_of,
    plan_facts,
    published_words,
    ratio_facts,
    traffic_verdict,
)
from companion.chapters.ch09.tables import (
    batches_table,
    choices_table,
    cost_figure,
    devices_table,
    hours_table,
    parts_table,
    plan_table,
    published_sizes,
    published_table,
    ratio_figure,
    shares_table,
    traffic_figure,
    warnings_table,
)

__all__ = [
    "batches_table",
    "choices_facts",
    "choices_table",
    "cost_figure",
    "devices_table",
    "hours_table",
    "loss_width_words",
    "numbers_of",
    "parts_table",
    "plan_facts",
    "plan_table",
    "published_sizes",
    "published_table",
    "published_words",
    "ratio_facts",
    "ratio_figure",
    "shares_table",
    "traffic_figure",
    "traffic_verdict",
    "warnings_table",
]
