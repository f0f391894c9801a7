"""The answer of chapter 2: computed another way, and on tables that compare nothing."""

import numpy as np
import pandas as pd
import pytest
from foreign import table

from companion.chapters import ch02
from companion.chapters.applicability import Selection, select_runs
from companion.chapters.ch02.answer import where_lower
from companion.formatting import power_of_ten, significant


@pytest.fixture(scope="module")
def paper() -> Selection:
    return select_runs()


@pytest.fixture(scope="module")
def look(paper: Selection) -> ch02.FirstLook:
    return ch02.first_look(paper, None, None, "hull", 0.02)


def best_seen(runs: pd.DataFrame, compute: float) -> float:
    return float(runs.loc[runs["train_flops"] <= compute, "val_loss"].min())


def test_answer(paper: Selection, look: ch02.FirstLook) -> None:
    facts = ch02.answer_facts(look, paper.runs)
    assert facts["c2_answer"] == (
        "The best xLSTM runs have a lower loss than the best Transformer runs at every compute that both cover; "
        f"for the same loss the Transformer needs {facts['c2_factor']} times the compute"
    )
    ours, theirs = (paper.at_context.query("architecture == @name") for name in ("xlstm", "transformer"))
    # the last Transformer run is unbeaten: at its own compute only the hull of the xLSTM is lower
    inside = np.sort(theirs["train_flops"])[:-1]
    assert ours["train_flops"].min() < inside[0] < inside[-1] < ours["train_flops"].max()
    assert all(best_seen(ours, compute) < best_seen(theirs, compute) for compute in inside)
    # the compute at which each hull reaches a loss, over the losses that both reach
    hulls = [look.fronts[name].hull() for name in ("xlstm", "transformer")]
    low, high = max(h.loss.min() for h in hulls), min(h.loss.max() for h in hulls)
    losses = np.linspace(low, high, 2001)
    at = [np.interp(losses, h.loss[::-1], np.log10(h.train_flops[::-1])) for h in hulls]
    assert facts["c2_factor"] == significant(10 ** np.median(at[1] - at[0]), 2)


def test_pairs_of_the_answer(paper: Selection, look: ch02.FirstLook) -> None:
    facts = ch02.answer_facts(look, paper.runs)
    assert (facts["c2_num_pairs"], facts["c2_pairs_second"]) == ("34", "ten")
    none = ch02.first_look(paper, None, None, "hull", 1e-9)
    assert "c2_num_pairs" not in ch02.answer_facts(none, paper.runs)


def test_roles_can_be_exchanged(paper: Selection) -> None:
    swapped = ch02.first_look(paper, "transformer", "xlstm", "hull", 0.02)
    facts = ch02.answer_facts(swapped, paper.runs)
    assert (facts["c2_first"], facts["c2_second"]) == ("Transformer", "xLSTM")
    assert " at no compute that both cover; " in facts["c2_answer"]
    assert float(facts["c2_factor"]) < 1


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1.0, "at every compute that both cover"),
        (0.0, "at no compute that both cover"),
        (0.934, "on 93.4 % of the range of compute that both cover"),
    ],
)
def test_where(share: float, words: str) -> None:
    assert where_lower(share) == words


def test_numbers_of_the_answer(paper: Selection, look: ch02.FirstLook) -> None:
    markup = ch02.show_answer(look, paper.runs, 8192).markup
    assert "292 Transformer and 348 xLSTM" in markup
    assert power_of_ten(sum(paper.runs["train_flops"]), 3) in markup
    assert "T\u00a0=\u00a08192" in markup
    assert markup.count("<tr>") == 6


def test_one_architecture_is_described() -> None:
    alone = select_runs(table("xlstm_alone"))
    look = ch02.first_look(alone, None, None, "hull", 0.02)
    assert look.found is None
    facts = ch02.answer_facts(look, alone.runs)
    assert set(facts) == {"c2_answer"}
    assert facts["c2_answer"].startswith(f"The table holds {len(alone.runs)} runs. It has no two architectures")
    markup = ch02.show_answer(look, alone.runs, None).markup
    assert markup.count("<tr>") == 3
    assert "T =" not in markup
    assert "xLSTM from" in ch02.show_fronts(alone.at_context, look.fronts, None).markup


def test_an_unknown_name_is_not_compared(paper: Selection) -> None:
    assert ch02.first_look(paper, "mamba", None, "hull", 0.02).found is None
