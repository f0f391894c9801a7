"""What chapter 14 shows (`notebooks/14_inference_measured.md`): models of the same shapes, timed on a GPU.

`measured` reads the records; `times` and `facts` are about first tokens and steps, `size_fits` and `fits` about
runtime models of the authors' timings and of ours, `prefixes` about prefix caching.
"""

from companion.chapters.ch14.facts import step_facts, time_facts
from companion.chapters.ch14.fits import (
    fit_facts,
    fit_ours,
    show_both_crossovers,
    show_terms,
    their_models,
)
from companion.chapters.ch14.measured import Measured, load
from companion.chapters.ch14.prefixes import (
    models_of,
    num_copies,
    prefix_facts,
    seconds_per_token,
    show_copies,
    show_copy_table,
    show_intervals,
    show_kept,
    show_links,
    show_tree,
)
from companion.chapters.ch14.ratios import own_ratio_facts, show_own_ratios
from companion.chapters.ch14.size_fits import fit_sizes, show_size_fits, size_fit_facts
from companion.chapters.ch14.times import (
    show_beside,
    show_checks,
    show_crossovers,
    show_library,
    show_longest,
    show_memory,
    show_ratios,
    show_shares,
    show_summary,
    show_times,
)

__all__ = [
    "Measured",
    "fit_facts",
    "fit_ours",
    "fit_sizes",
    "load",
    "models_of",
    "num_copies",
    "own_ratio_facts",
    "prefix_facts",
    "seconds_per_token",
    "show_beside",
    "show_both_crossovers",
    "show_checks",
    "show_copies",
    "show_copy_table",
    "show_crossovers",
    "show_intervals",
    "show_kept",
    "show_library",
    "show_links",
    "show_longest",
    "show_memory",
    "show_own_ratios",
    "show_ratios",
    "show_shares",
    "show_size_fits",
    "show_summary",
    "show_terms",
    "show_times",
    "show_tree",
    "size_fit_facts",
    "step_facts",
    "their_models",
    "time_facts",
]
