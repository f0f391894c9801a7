"""What chapter 16 shows (`notebooks/16_laboratory.md`): which run next, a committed prediction, and its score.

`records` reads the recorded experiments; `replayed` and `simulated` are about designs on the paper's runs and in
simulated studies, `designs` about runs chosen on the page, `playing` and `opened` about the laboratory of the page,
`scores` about recorded laboratories, `trial` about designs in many laboratories.
"""

from companion.chapters.ch16.designs import (
    chosen_table,
    compared_table,
    design_facts,
    design_figure,
    others_table,
    runs_to_extend,
)
from companion.chapters.ch16.opened import (
    opened_facts,
    opened_figure,
    score_facts,
    sweep_facts,
    sweep_figure,
)
from companion.chapters.ch16.playing import (
    best_setting,
    edit_loss,
    edit_prediction,
    predict_command,
    printed,
    rewrite_ledger,
    sensible_ask,
)
from companion.chapters.ch16.records import load_records
from companion.chapters.ch16.replayed import (
    answer_facts,
    answer_figure,
    ends_facts,
    ends_table,
    replay_facts,
    replay_figure,
    strategies_table,
)
from companion.chapters.ch16.scores import (
    coverage_facts,
    coverage_figure,
    coverage_table,
    settings_facts,
    settings_in_worlds,
    settings_table,
)
from companion.chapters.ch16.simulated import bias_figure, bias_table, simulated_facts
from companion.chapters.ch16.trial import (
    designs_in_worlds,
    designs_table,
    designs_verdict,
    fit_law,
    table_of,
    target_of,
)

__all__ = [
    "answer_facts",
    "answer_figure",
    "best_setting",
    "bias_figure",
    "bias_table",
    "chosen_table",
    "compared_table",
    "coverage_facts",
    "coverage_figure",
    "coverage_table",
    "design_facts",
    "design_figure",
    "designs_in_worlds",
    "designs_table",
    "designs_verdict",
    "edit_loss",
    "edit_prediction",
    "ends_facts",
    "ends_table",
    "fit_law",
    "load_records",
    "opened_facts",
    "opened_figure",
    "others_table",
    "predict_command",
    "printed",
    "replay_facts",
    "replay_figure",
    "rewrite_ledger",
    "runs_to_extend",
    "score_facts",
    "sensible_ask",
    "settings_facts",
    "settings_in_worlds",
    "settings_table",
    "simulated_facts",
    "strategies_table",
    "sweep_facts",
    "sweep_figure",
    "table_of",
    "target_of",
]
