"""Chapter 7 (`notebooks/07_context_length.md`): its tables, figures, and the facts of its prose.

A function `show_...` returns what the page shows, one called `..._facts` the values that its prose glues.
"""

from companion.chapters.ch07.answer import first_look, measured_shifts, show_answer, show_answer_figure
from companion.chapters.ch07.facts import (
    agreement_facts,
    imposed_facts,
    ledger_facts,
    loss_facts,
    method_facts,
    optima_facts,
    settings_facts,
    verdict_facts,
    worth_facts,
)
from companion.chapters.ch07.facts_beyond import (
    factor_facts,
    far_facts,
    plan_facts,
    power_law_facts,
    rise_facts,
)
from companion.chapters.ch07.figures import (
    show_predictions,
    show_profiles,
    show_shares,
    show_shift_test,
)
from companion.chapters.ch07.figures_beyond import (
    show_extrapolation,
    show_power_law_beyond,
    size_trend,
)
from companion.chapters.ch07.prices import context_of_half, price_of_context
from companion.chapters.ch07.tables import (
    settings_by_context,
    show_changes_by_convention,
    show_laws,
    show_laws_of_other_contexts,
    show_ledger,
    show_optima,
    show_pooled_shifts,
    show_prediction_errors,
    show_share_table,
    show_training_settings,
    show_trends,
    show_worth_verdicts,
    show_worths,
)
from companion.chapters.ch07.tables_beyond import (
    loss_rises,
    plan_table,
    show_factors,
    show_far_optima,
    show_half_of_compute,
    show_loss_rises,
    show_plans,
    show_two_forces,
)
from companion.chapters.ch07.verdicts import (
    LEVEL_AND_SHAPE,
    SHAPE_ALONE,
    shift_verdicts,
    worth_verdicts,
)
from companion.chapters.ch07.words import (
    context_range,
    largest_shared_budget,
    nearest_context,
    start_text,
)
from companion.chapters.ch07.worth import (
    loss_differences,
    losses_at_optima,
    token_worth,
    with_token_worth,
    worth_table,
)
from companion.chapters.labels import label_of

__all__ = [
    "LEVEL_AND_SHAPE",
    "SHAPE_ALONE",
    "agreement_facts",
    "context_of_half",
    "context_range",
    "factor_facts",
    "far_facts",
    "first_look",
    "imposed_facts",
    "label_of",
    "largest_shared_budget",
    "ledger_facts",
    "loss_differences",
    "loss_facts",
    "loss_rises",
    "losses_at_optima",
    "measured_shifts",
    "method_facts",
    "nearest_context",
    "optima_facts",
    "plan_facts",
    "plan_table",
    "power_law_facts",
    "price_of_context",
    "rise_facts",
    "settings_by_context",
    "settings_facts",
    "shift_verdicts",
    "show_answer",
    "show_answer_figure",
    "show_changes_by_convention",
    "show_extrapolation",
    "show_factors",
    "show_far_optima",
    "show_half_of_compute",
    "show_laws",
    "show_laws_of_other_contexts",
    "show_ledger",
    "show_loss_rises",
    "show_optima",
    "show_plans",
    "show_pooled_shifts",
    "show_power_law_beyond",
    "show_prediction_errors",
    "show_predictions",
    "show_profiles",
    "show_share_table",
    "show_shares",
    "show_shift_test",
    "show_training_settings",
    "show_trends",
    "show_two_forces",
    "show_worth_verdicts",
    "show_worths",
    "size_trend",
    "start_text",
    "token_worth",
    "verdict_facts",
    "with_token_worth",
    "worth_facts",
    "worth_table",
    "worth_verdicts",
]
