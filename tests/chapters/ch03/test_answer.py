"""The top of the IsoFLOP chapter shows what a table can answer, and no more."""

import pandas as pd
import pytest

from companion.chapters import ch03
from companion.chapters.ch03.figures import power_laws
from companion.fitting.isoflop import fit_isoflop, fit_isoflop_joint, isoflop_runs
from companion.formatting import count
from companion.runs.load import load_paper_runs

MAIN = [6e18, 1e19, 3e19, 1e20]


@pytest.fixture(scope="module")
def xlstm() -> pd.DataFrame:
    return isoflop_runs(load_paper_runs(), "xlstm", 8192)


def test_the_papers_runs(xlstm: pd.DataFrame) -> None:
    optima, laws = ch03.first_look({"xlstm": xlstm}, {"xlstm": MAIN})
    text = ch03.show_answer(optima, laws, {"xlstm": MAIN}, " at T = 8192").markup
    best = fit_isoflop(xlstm, budgets=MAIN, num_resamples=0).optima[-1]
    law = fit_isoflop_joint(xlstm, budgets=MAIN)
    assert f"<td>{count(best.x_opt)}</td>" in text, "the highest of the main budgets, not of all"
    assert "1×10²⁰" in text
    assert f"{law.law.exponent:.3f} [" in text
    assert "highest budget of the laws at T\u00a0=\u00a08192." in text
    tokens = fit_isoflop(xlstm, "num_tokens", budgets=MAIN, num_resamples=0).optima[-1].x_opt
    assert f"<td>{tokens / best.x_opt:.0f}</td>" in text, "tokens per parameter"
    facts = ch03.answer_facts(optima, laws, {"xlstm": MAIN})
    assert facts["c3_answer_a"].startswith(f"{law.law.exponent:.3f} [")
    assert facts["c3_answer_budget"] == "1×10²⁰"
    assert facts["c3_answer_sizes"] == f"{count(best.x_opt)} (xLSTM)"
    assert facts["c3_answer_per_param"] == f"{tokens / best.x_opt:.0f}"


def test_one_budget_has_an_optimum_and_no_law(xlstm: pd.DataFrame) -> None:
    one = xlstm[xlstm["isoflop_budget"] == 1e20]
    optima, laws = ch03.first_look({"xlstm": one}, {"xlstm": [1e20]})
    assert ("xlstm", "num_params") in optima
    assert laws == {}
    assert ch03.show_answer(optima, laws, {"xlstm": [1e20]}, "").markup.count("<td>–</td>") == 2
    axes = power_laws(optima, laws, {"xlstm": [1e20]}).axes
    assert len(axes) == 2
    assert all(ax.containers for ax in axes), "the optima are drawn without a law"


def test_without_any_optimum_over_tokens(xlstm: pd.DataFrame) -> None:
    optima, laws = ch03.first_look({"xlstm": xlstm}, {"xlstm": MAIN})
    sizes = {key: fit for key, fit in optima.items() if key[1] == "num_params"}
    only = {key: law for key, law in laws.items() if key[1] == "num_params"}
    text = ch03.show_answer(sizes, only, {"xlstm": MAIN}, "").markup
    assert text.count("<td>–</td>") == 3, "no D*, no D*/N* and no b"
    assert list(ch03.answer_facts(sizes, only, {"xlstm": MAIN})) == ["c3_answer_a"]
    assert len(power_laws(sizes, only, {"xlstm": MAIN}).axes) == 1


def test_growth(xlstm: pd.DataFrame) -> None:
    _, laws = ch03.first_look({"xlstm": xlstm}, {"xlstm": MAIN})
    a, b = (laws["xlstm", x].law.exponent for x in ("num_params", "num_tokens"))
    text = ch03.show_growth(laws, 10).markup
    assert f">{10**a:.2f}<" in text
    assert f">{10 ** (a + b):.2f}<" in text
