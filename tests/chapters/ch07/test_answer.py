"""The first screen of the context chapter: against the pooled shifts, and for tables that determine no law."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from context_tables import simulated_contexts

from companion.chapters import ch07
from companion.chapters.ch07 import answer
from companion.fitting.context.prediction import NOTHING_MOVES, SAME_RUNS, Explanation
from companion.fitting.context.scaling import ContextFit, fit_context_optima

STARTS = {"transformer": 8192, "xlstm": 8192}


@pytest.fixture(scope="module")
def looks(fits: Mapping[str, ContextFit]) -> dict[str, Explanation]:
    return ch07.first_look(fits, STARTS)


def test_the_first_look_is_that_of_the_whole_explanation(
    looks: Mapping[str, Explanation], explanations: Mapping[str, Explanation]
) -> None:
    for name, whole in explanations.items():
        pooled = whole.pooled_shifts()
        same = pooled[pooled["method"].isin([SAME_RUNS, NOTHING_MOVES])].reset_index(drop=True)
        assert looks[name].pooled_shifts().equals(same)


def test_laws_that_are_not_identified_predict_nothing(
    fits: Mapping[str, ContextFit], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer.explain

    def unidentified(fit: ContextFit, **options: object) -> Explanation:
        found = whole(fit, **options)  # type: ignore[arg-type]
        return replace(found, law_fit=replace(found.law_fit, status="not identified"))

    monkeypatch.setattr(answer, "explain", unidentified)
    assert ch07.first_look({"xlstm": fits["xlstm"]}, STARTS) == {}


def test_measured_shifts_are_those_of_the_explanation(
    fits: Mapping[str, ContextFit], explanations: Mapping[str, Explanation]
) -> None:
    pooled = explanations["xlstm"].pooled_shifts()
    pooled = pooled[(pooled["method"] == SAME_RUNS) & (pooled["quantity"] == "num_tokens")].set_index("context_length")
    shifts = ch07.measured_shifts(fits["xlstm"], 8192, "num_tokens").set_index("context_length")
    for length in (2048, 16384):
        for column in ("measured", "measured_low", "measured_high"):
            assert shifts.loc[length, column] == pytest.approx(pooled.loc[length, column])
    assert shifts.loc[8192, "measured"] == 1
    assert np.isnan(shifts.loc[8192, "measured_low"])
    gone = replace(fits["xlstm"], optima=tuple(o for o in fits["xlstm"].optima if o.context_length != 2048))
    assert 2048 not in ch07.measured_shifts(gone, 8192, "num_tokens")["context_length"].to_list()


def test_figure_and_table(fits: Mapping[str, ContextFit], looks: Mapping[str, Explanation]) -> None:
    shown = ch07.show_answer_figure(fits, STARTS, looks).markup
    assert 'id="fig-context-answer"' in shown
    assert "Transformer, predicted" in shown
    assert "relative to T = 8192" in shown
    table = ch07.show_answer(fits, looks).markup.replace("\u00a0", " ")
    low, high = (f"{100 * (1 - each):.0f}" for each in fits["transformer"].change("num_params", 2048, 16384)[:0:-1])
    assert f" % [{low}, {high}] smaller</td>" in table
    assert table.count("<tr>") == 7
    pooled = looks["xlstm"].pooled_shifts().set_index(["method", "quantity", "context_length"])
    assert f"<td>{pooled.loc[(SAME_RUNS, 'num_params', 16384), 'ratio']:.2f} [" in table


def test_without_a_law_the_measured_half_is_shown() -> None:
    fit = fit_context_optima(simulated_contexts(contexts=(1024, 4096), noise=2e-3), num_resamples=20)
    table = ch07.show_answer({"transformer": fit}, {}).markup
    assert table.count("<tr>") == 3
    assert "measured / predicted" not in table
    shown = ch07.show_answer_figure({"transformer": fit}, {"transformer": 1024}, {}).markup
    assert "Transformer, predicted" not in shown
    mixed = ch07.show_answer({"transformer": fit, "gpt": fit}, {}).markup
    assert '<th scope="col">gpt</th>' in mixed
