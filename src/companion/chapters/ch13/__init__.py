"""What chapter 13 shows (`notebooks/13_from_cell_to_model.md`): models beside the accounting, profiles, training steps.

Needs torch.
"""

from companion.chapters.ch13.counts import (
    checks,
    checks_table,
    count_facts,
    errors_table,
    parameter_checks,
    presets,
    step_errors,
)
from companion.chapters.ch13.here import show_here
from companion.chapters.ch13.learning import (
    distances_table,
    generations_table,
    learning_facts,
    losses_figure,
    losses_table,
    plan_facts,
    source_facts,
)
from companion.chapters.ch13.profile import Profile, profile_facts, profile_figure, profile_table
from companion.chapters.ch13.shown import Shown, answer_facts, answer_figure, answer_table, values_table
from companion.chapters.ch13.small import Plan, generations, held_out_losses, small_shapes
from companion.chapters.ch13.source import CopySource
from companion.chapters.ch13.steps import Crossing, Steps, crossing
from companion.chapters.ch13.training import (
    launch_facts,
    launches_figure,
    launches_table,
    steps_table,
    training_facts,
)

__all__ = [
    "CopySource",
    "Crossing",
    "Plan",
    "Profile",
    "Shown",
    "Steps",
    "answer_facts",
    "answer_figure",
    "answer_table",
    "checks",
    "checks_table",
    "count_facts",
    "crossing",
    "distances_table",
    "errors_table",
    "generations",
    "generations_table",
    "held_out_losses",
    "launch_facts",
    "launches_figure",
    "launches_table",
    "learning_facts",
    "losses_figure",
    "losses_table",
    "parameter_checks",
    "plan_facts",
    "presets",
    "profile_facts",
    "profile_figure",
    "profile_table",
    "show_here",
    "small_shapes",
    "source_facts",
    "step_errors",
    "steps_table",
    "training_facts",
    "values_table",
]
