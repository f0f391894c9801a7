"""Which context length is used when nobody named one."""

import pandas as pd
import pytest
from foreign import table

from companion.errors import NotApplicable
from companion.runs.context_length import choose_context
from companion.runs.load import load_paper_runs, load_runs


def test_the_paper_s_table_keeps_its_main_context() -> None:
    assert choose_context(load_paper_runs()).context_length == 8192


def test_the_only_context_is_taken_and_named() -> None:
    choice = choose_context(load_runs(table("context_2048")))
    assert choice.context_length == 2048
    assert "2048" in choice.note


def test_a_table_without_contexts_has_none() -> None:
    assert choose_context(pd.DataFrame({"architecture": ["gpt"]})).context_length is None
    empty = pd.DataFrame({"architecture": ["gpt"], "context_length": [float("nan")]})
    assert choose_context(empty).context_length is None


def test_most_runs_win_and_the_shorter_of_equals() -> None:
    runs = pd.DataFrame({"architecture": "gpt", "context_length": [512, 1024, 1024, 256, 256]})
    choice = choose_context(runs)
    assert choice.context_length == 256
    assert "512" in choice.note
    assert choose_context(runs, 512).context_length == 512


def test_a_context_that_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(NotApplicable, match="4096; the table has 2048"):
        choose_context(load_runs(table("context_2048")), 4096)
