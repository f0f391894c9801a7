"""Which run next? Designs that shrink the interval of what a reader wants to know, for a budget. Needs no torch."""

from companion.study.next_runs.advice import Advice, advise
from companion.study.next_runs.candidates import (
    Hours,
    Pricing,
    candidate_runs,
    default_candidates,
    pricing_of,
)
from companion.study.next_runs.choose import Task, choose, standard_errors
from companion.study.next_runs.designs import (
    isoflop_grid,
    largest_affordable,
    random_design,
    ratio_grid,
)
from companion.study.next_runs.identify import identifying_design
from companion.study.next_runs.information import (
    LinearLaw,
    Noise,
    huber_efficiency,
    linear_law,
    linearize,
    repeat_noise,
    variance_of,
)
from companion.study.next_runs.quantities import (
    LossOf,
    OptimalLoss,
    OptimalSize,
    ParameterValue,
    Quantity,
    SizeExponent,
    parse_quantity,
)
from companion.study.next_runs.replay import Oracle, oracle_of, replay, replay_all
from companion.study.next_runs.simulate import Study, paper_truths, simulate, summarized

__all__ = [
    "Advice",
    "Hours",
    "LinearLaw",
    "LossOf",
    "Noise",
    "OptimalLoss",
    "OptimalSize",
    "Oracle",
    "ParameterValue",
    "Pricing",
    "Quantity",
    "SizeExponent",
    "Study",
    "Task",
    "advise",
    "candidate_runs",
    "choose",
    "default_candidates",
    "huber_efficiency",
    "identifying_design",
    "isoflop_grid",
    "largest_affordable",
    "linear_law",
    "linearize",
    "oracle_of",
    "paper_truths",
    "parse_quantity",
    "pricing_of",
    "random_design",
    "ratio_grid",
    "repeat_noise",
    "replay",
    "replay_all",
    "simulate",
    "standard_errors",
    "summarized",
    "variance_of",
]
