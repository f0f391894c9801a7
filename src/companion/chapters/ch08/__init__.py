"""What chapter 8 shows (`notebooks/08_inference_time.md`): its tables, figures, facts and verdicts, part by part.

`costs` needs no timing; `sizes`, `published` and `draws` are about the paper's form for single sizes; `kernel` and
`all_sizes` about the model of all sizes; `comparison` about equal size and equal loss, of the models in `trained`. The
notebook leaves out a section that a table of timings cannot fill, so most functions expect what they show.
"""

from companion.chapters.ch08.all_sizes import (
    leaders_table,
    left_out_table,
    model_facts,
    models_table,
    regime_facts,
    shares_figure,
    split_table,
    terms_table,
    times_figure,
)
from companion.chapters.ch08.common import with_groups
from companion.chapters.ch08.comparison import (
    answer_table,
    crossover_table,
    equal_loss_facts,
    equal_loss_figure,
    equal_size_facts,
    size_crossover_table,
    trained_facts,
    trained_table,
)
from companion.chapters.ch08.costs import (
    batch_table,
    cache_choices,
    cache_choices_facts,
    cache_choices_table,
    chunk_facts,
    cost_facts,
    costs_figure,
    device_facts,
    grouped_row,
    pass_table,
)
from companion.chapters.ch08.draws import draw_effects, drawn_and_once, prefill_ratios
from companion.chapters.ch08.kernel import (
    device_facts_of_timings,
    kernel_facts,
    kernel_figure,
    own_facts,
    wave_facts,
)
from companion.chapters.ch08.own import own_kernels_facts, own_kernels_figure
from companion.chapters.ch08.published import constants_figure, draw_facts, ledger_table, published_facts, ratios_figure
from companion.chapters.ch08.sizes import (
    bandwidth_table,
    first_token_table,
    objective_errors,
    objective_facts,
    objective_table,
    quantities_of,
    same_misfit,
    size_facts,
    step_table,
    timing_facts,
)
from companion.chapters.ch08.trained import compare_pairs, train_pairs

__all__ = [
    "answer_table",
    "bandwidth_table",
    "batch_table",
    "cache_choices",
    "cache_choices_facts",
    "cache_choices_table",
    "chunk_facts",
    "compare_pairs",
    "constants_figure",
    "cost_facts",
    "costs_figure",
    "crossover_table",
    "device_facts",
    "device_facts_of_timings",
    "draw_effects",
    "draw_facts",
    "drawn_and_once",
    "equal_loss_facts",
    "equal_loss_figure",
    "equal_size_facts",
    "first_token_table",
    "grouped_row",
    "kernel_facts",
    "kernel_figure",
    "leaders_table",
    "ledger_table",
    "left_out_table",
    "model_facts",
    "models_table",
    "objective_errors",
    "objective_facts",
    "objective_table",
    "own_facts",
    "own_kernels_facts",
    "own_kernels_figure",
    "pass_table",
    "prefill_ratios",
    "published_facts",
    "quantities_of",
    "ratios_figure",
    "regime_facts",
    "same_misfit",
    "shares_figure",
    "size_crossover_table",
    "size_facts",
    "split_table",
    "step_table",
    "terms_table",
    "times_figure",
    "timing_facts",
    "train_pairs",
    "trained_facts",
    "trained_table",
    "wave_facts",
    "with_groups",
]
