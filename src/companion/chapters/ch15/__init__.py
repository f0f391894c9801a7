"""What chapter 15 shows (`notebooks/15_own_study.md`): a study of our own, from its design to the paper's claims.

`study` reads the tables; `design`, `curves`, `profiles`, `pairs`, `seeds`, `settings` (learning rates, contexts),
`floor`, `far` and `judged` (claims, over-training) hold a section each, and `tiny` a study that the page itself trains;
`lessons` has the pitfall and what the exercises compute.
"""

from companion.chapters.ch15.curves import curve_facts, show_curves
from companion.chapters.ch15.design import (
    log_facts,
    plan_facts,
    show_missing,
    show_plan,
    show_steps,
    step_facts,
)
from companion.chapters.ch15.far import far_facts, reach_facts, show_reach, show_two_floors, simulate_reach
from companion.chapters.ch15.floor import fit_floors, floor_facts, floor_of, held_text, show_floors, show_reducible
from companion.chapters.ch15.judged import (
    answer_facts,
    show_claims,
    show_lines,
    show_rules,
    show_slopes,
    slope_facts,
    slopes_of,
)
from companion.chapters.ch15.lessons import (
    front_facts,
    front_rows,
    seeds_needed,
    show_fronts,
    show_seeds_needed,
    show_verdicts,
    token_facts,
    verdicts_by_sizes,
)
from companion.chapters.ch15.pairs import pair_facts, pairs_of, show_pairs
from companion.chapters.ch15.profiles import exponent_facts, show_optima, show_profiles
from companion.chapters.ch15.seeds import (
    fall_verdict,
    seed_curves,
    seed_facts,
    seed_scatter,
    show_seed_curves,
    show_seeds,
)
from companion.chapters.ch15.settings import (
    context_facts,
    context_profiles,
    rate_facts,
    rate_sweep,
    show_best_rates,
    show_context_losses,
    show_contexts,
    show_rates,
)
from companion.chapters.ch15.study import OwnStudy, far_study, load_study
from companion.chapters.ch15.tiny import example_facts, example_folder, show_example

__all__ = [
    "OwnStudy",
    "answer_facts",
    "context_facts",
    "context_profiles",
    "curve_facts",
    "example_facts",
    "example_folder",
    "exponent_facts",
    "fall_verdict",
    "far_facts",
    "far_study",
    "fit_floors",
    "floor_facts",
    "floor_of",
    "front_facts",
    "front_rows",
    "held_text",
    "load_study",
    "log_facts",
    "pair_facts",
    "pairs_of",
    "plan_facts",
    "rate_facts",
    "rate_sweep",
    "reach_facts",
    "seed_curves",
    "seed_facts",
    "seed_scatter",
    "seeds_needed",
    "show_best_rates",
    "show_claims",
    "show_context_losses",
    "show_contexts",
    "show_curves",
    "show_example",
    "show_floors",
    "show_fronts",
    "show_lines",
    "show_missing",
    "show_optima",
    "show_pairs",
    "show_plan",
    "show_profiles",
    "show_rates",
    "show_reach",
    "show_reducible",
    "show_rules",
    "show_seed_curves",
    "show_seeds",
    "show_seeds_needed",
    "show_slopes",
    "show_steps",
    "show_two_floors",
    "show_verdicts",
    "simulate_reach",
    "slope_facts",
    "slopes_of",
    "step_facts",
    "token_facts",
    "verdicts_by_sizes",
]
