"""What the notebook `00_paper_in_ten_minutes` shows: drawings of both blocks and memories, settings, both paradigms."""

from companion.chapters.ch00.cell import difference_from_parallel, example_inputs, states_of
from companion.chapters.ch00.drawings import show_blocks, show_memories
from companion.chapters.ch00.facts import (
    answer_facts,
    cell_facts,
    law_facts,
    main_architecture,
    memory_facts,
    run_facts,
)
from companion.chapters.ch00.paradigms import show_paradigms
from companion.chapters.ch00.tables import settings_table, show_settings

__all__ = [
    "answer_facts",
    "cell_facts",
    "difference_from_parallel",
    "example_inputs",
    "law_facts",
    "main_architecture",
    "memory_facts",
    "run_facts",
    "settings_table",
    "show_blocks",
    "show_memories",
    "show_paradigms",
    "show_settings",
    "states_of",
]
