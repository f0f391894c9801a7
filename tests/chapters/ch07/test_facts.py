"""Facts and tables of the context chapter: against values computed another way, and what they say of other tables."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from context_tables import simulated_contexts

from companion.chapters import ch07
from companion.chapters.ch07.verdicts import cured, mostly_explained, spoiled
from companion.fitting.context.costs import equal_loss_by_context, optimum_by_context, shares_at_optima
from companion.fitting.context.prediction import SAME_RUNS, Explanation, explain
from companion.fitting.context.scaling import ContextFit, fit_context_optima
from companion.formatting import count
from companion.ledger import LedgerRow

BUDGET, FAR = 3e19, [8192, 131072, 2**20]


@pytest.fixture(scope="module")
def far(explanations: Mapping[str, Explanation]) -> dict[str, pd.DataFrame]:
    return {name: optimum_by_context(each, BUDGET, FAR) for name, each in explanations.items()}


@pytest.fixture(scope="module")
def alone() -> Explanation:
    """A table of one architecture, two contexts and no settings."""
    return explain(
        fit_context_optima(simulated_contexts(contexts=(1024, 4096), noise=2e-3), num_resamples=20), fit_context=1024
    )


def test_optima(fits: Mapping[str, ContextFit], alone: Explanation) -> None:
    facts = ch07.optima_facts(fits)
    assert facts["c7_contexts"] == "T = 2048, 8192, 16384"
    assert (facts["c7_first"], facts["c7_last"]) == ("2048", "16384")
    table = fits["transformer"].optima_table()
    wide = table[table["quantity"] == "num_params"].pivot_table("x_opt", "isoflop_budget", "context_length")
    factor = np.exp(np.log(wide[16384] / wide[2048]).mean())
    assert facts["c7_answer_moves"].startswith(f"the best Transformer gets {100 * (1 - factor):.0f} % [")
    assert facts["c7_take_moves"].count("smaller") == 2
    table = fits["xlstm"].trends_table()
    clear = sum(low > 0 or high < 0 for low, high in table["exponent_interval"])
    assert facts["c7_moves"].endswith(f"{clear} of {len(table)} power laws for xLSTM")
    one = ch07.optima_facts({"transformer": alone.measured})
    assert "xLSTM" not in one["c7_answer_moves"]
    assert "two contexts leave no degree of freedom" in one["c7_notes"]
    quiet = ch07.optima_facts({"transformer": replace(alone.measured, warnings=())})
    assert quiet["c7_notes"] == "No optimum lies at the edge of the sizes that were trained"


def test_an_interval_that_is_unknown_excludes_nothing(alone: Explanation) -> None:
    unknown = [replace(t, exponent_resamples=np.full(20, np.nan)) for t in alone.measured.trends]
    facts = ch07.optima_facts({"transformer": replace(alone.measured, trends=tuple(unknown))})
    assert facts["c7_moves"] == f"0 of {len(unknown)} power laws for Transformer"


def ledger_row(entry: str, quantity: str, **values: Any) -> LedgerRow:
    fields: dict[str, Any] = {"source": "", "printed_digits": "", "published": 0.5, "ours": 0.5, "difference": 0.0}
    fields |= {"tolerance": 0.1, "tolerance_reason": "", "independent": True, "verdict": "reproduced", "note": ""}
    return LedgerRow(section="isoflop_optima", entry=entry, quantity=quantity, **(fields | values))


def test_ledger(fits: Mapping[str, ContextFit]) -> None:
    rows = [
        ledger_row("xlstm T=16384 N = 1 * C**a", "exponent"),
        ledger_row("xlstm T=16384 isoflop_budget=6e+18 num_params", "x_opt", independent=False, verdict="differs"),
        ledger_row("xlstm T=8192 isoflop_budget=6e+18 num_params", "x_opt"),
    ]
    facts = ch07.ledger_facts(rows, fits)
    assert facts["c7_ledger_reproduced"] == "1 of 2"
    assert facts["c7_ledger_contexts"] == "T = 16384"
    assert facts["c7_ledger_dependent"] == "1"
    assert facts["c7_ledger_missing"].endswith("for T = 2048")
    rows.append(ledger_row("xlstm T=2048 isoflop_budget=6e+18 num_params", "x_opt"))
    assert ch07.ledger_facts(rows, fits)["c7_ledger_missing"] == ""
    shown = ch07.show_ledger(rows).markup
    assert "T=8192" not in shown
    assert ">xlstm T=16384 N<" in shown


def test_shares_and_laws(explanations: Mapping[str, Explanation]) -> None:
    shares = {name: shares_at_optima(each.measured, each.family) for name, each in explanations.items()}
    facts = ch07.share_facts(explanations, shares)
    table = shares["transformer"]
    core = 100 * table.loc[table["context_length"] == 16384, "core_share"]
    assert f"{core.min():.0f} to {core.max():.0f} %" in facts["c7_answer_share"]
    law = ch07.law_facts(explanations)
    assert law["c7_start"] == "8192"
    assert f"β = {explanations['xlstm'].law_fit.law.beta:.2f} [" in law["c7_law"]
    levels = {name: each.levels() for name, each in explanations.items()}
    ways = ch07.method_facts(levels)["c7_ways"]
    assert ways.count("own shapes") == 2
    without = {name: table[table["method"] != "own shapes"] for name, table in levels.items()}
    assert "own shapes" not in ch07.method_facts(without)["c7_ways"]
    agreed = ch07.agreement_facts({name: each.shifts() for name, each in explanations.items()})["c7_take_test"]
    assert agreed.count("with one price for all") == 2


def shift(architecture: str, context: int, ratio: float, verdict: str, null: float = 0.8) -> dict[str, Any]:
    row = {"architecture": architecture, "start": 8192, "context_length": context, "ratio": ratio, "verdict": verdict}
    row |= {"ratio_low": ratio - 0.01, "ratio_high": ratio + 0.01, "null_ratio": null, "null_verdict": "outside"}
    return row | {"explained": verdict == "inside"}


def test_verdicts_of_the_paper(explanations: Mapping[str, Explanation]) -> None:
    table = ch07.shift_verdicts(explanations)
    assert table["context_length"].to_list() == [2048, 16384] * 2
    pooled = explanations["xlstm"].pooled_shifts()
    chosen = (
        (pooled["method"] == SAME_RUNS) & (pooled["quantity"] == "num_params") & (pooled["context_length"] == 16384)
    )
    assert table.loc[3, "ratio"] == pooled.loc[chosen, "ratio"].item()
    assert table["explained"].to_list()[:2] == [True, True]


def test_words_for_verdicts() -> None:
    good = [shift("transformer", 2048, 1.0, "inside"), shift("transformer", 16384, 1.01, "inside")]
    bad = [shift("xlstm", 2048, 0.97, "outside"), shift("xlstm", 16384, 1.005, "inside")]
    facts = ch07.verdict_facts(pd.DataFrame(good + bad))
    assert facts["c7_answer_explained"] == (
        "FLOPs explain the shift of the best size N* for Transformer: the law of T = 8192 with exact counts predicts "
        "it "
        "(at T = 16384 measured over predicted is 1.01 [1.00, 1.02], and 0.80 if prices stayed the same); "
        "FLOPs explain most of the shift of the best size N* for xLSTM: the law of T = 8192 with exact counts "
        "predicts it "
        "(at T = 2048 measured over predicted is 0.97 [0.96, 0.98], and 0.80 if prices stayed the same)"
    )
    assert facts["c7_take_rest"] == "at T = 2048 the best xLSTM is 3.0 % [2.0, 4.0] smaller than predicted"
    assert "; not that of xLSTM at T = 2048. That nothing moves" in facts["c7_test"]
    assert not mostly_explained(pd.DataFrame([shift("xlstm", 2048, 0.85, "outside")]))
    none = ch07.verdict_facts(pd.DataFrame([shift("xlstm", 2048, 0.85, "outside") | {"null_verdict": "inside"}]))
    assert none["c7_answer_explained"] == "FLOPs do not explain the shift of N* that is seen"
    assert none["c7_test"].startswith("Within the error, accounting gives the shift of N* of no architecture; not that")
    assert none["c7_test"].endswith("refuted for none")
    everything = ch07.verdict_facts(pd.DataFrame(good))
    assert everything["c7_left"] == "no shift of N* outside its interval"
    assert everything["c7_take_rest"] == "no shift of N* outside its error"


def test_imposed_losses(runs: pd.DataFrame, alone: Explanation, explanations: Mapping[str, Explanation]) -> None:
    nothing = ch07.imposed_facts(alone.measured.runs, {"transformer": alone}, None, 20)
    assert nothing["c7_imposed"] == "This table marks no losses that were read off published fits"
    text = ch07.imposed_facts(runs, explanations, None, 20)["c7_imposed"]
    assert text.startswith("xLSTM without the runs that had a published parabola imposed")
    assert "Transformer" not in text


def test_settings(fits: Mapping[str, ContextFit], alone: Explanation) -> None:
    settings = ch07.settings_by_context(fits)
    assert settings["num_runs"].sum() == sum(
        fit.runs["isoflop_budget"].isin(fit.budgets).sum() for fit in fits.values()
    )
    facts = ch07.settings_facts(settings, FAR)
    assert facts["c7_settings"].startswith("tokens per step agrees in ")
    assert facts["c7_batch"] == "; a step of 1.05M tokens would hold 1 sequence at the longest"
    assert "8 sequences" in ch07.settings_facts(settings, [131072])["c7_batch"]
    bare = ch07.settings_by_context({"transformer": alone.measured})
    assert ch07.settings_facts(bare, FAR)["c7_batch"] == ""
    assert "learning rate" not in ch07.show_training_settings(bare).markup
    assert "tokens per step" in ch07.show_training_settings(settings).markup


def test_worth_of_tokens(explanations: Mapping[str, Explanation]) -> None:
    one = {"xlstm": explanations["xlstm"]}
    worths = {name: ch07.token_worth(each) for name, each in one.items()}
    table = ch07.worth_verdicts(one, {ch07.LEVEL_AND_SHAPE: worths})
    assert table["context_length"].to_list() == [2048, 16384]
    assert table["worth"].to_list() == [w.worth for w in worths["xlstm"] if w.context_length != 8192]
    assert table["ratio_before"].to_list() == ch07.shift_verdicts(one)["ratio"].to_list()
    at_equal = {name: ch07.loss_differences(each) for name, each in one.items()}
    assert ch07.loss_facts(one, at_equal)["c7_equal"].count("at T =") == 2
    assert f">{at_equal['xlstm']['difference'].iloc[0]:+.4f}<" in ch07.show_worths(one, at_equal, worths, worths).markup


def test_words_for_the_worth_of_tokens() -> None:
    verdicts = pd.DataFrame([shift("xlstm", 2048, 1.02, "inside"), shift("xlstm", 16384, 0.94, "outside")])
    rows = {
        "architecture": "xlstm",
        "context_length": [2048, 16384],
        "kind": ch07.LEVEL_AND_SHAPE,
        "worth": [1.1, 0.89],
    }
    rows |= {"ratio_before": [1.02, 0.94], "verdict_before": ["inside", "outside"], "ratio": [0.9, 1.0]}
    worths = pd.DataFrame(rows | {"verdict": ["outside", "inside"]})
    assert (len(cured(worths)), len(spoiled(worths))) == (1, 1)
    facts = ch07.worth_facts(verdicts, worths, "8192")
    assert facts["c7_answer_rest"] == (
        "FLOPs do not explain all: at T = 16384 the best xLSTM is 6.0 % [5.0, 7.0] smaller than predicted, as if a "
        "token "
        "there were worth 0.89 of one at T = 8192; at T = 2048 the same idea goes too far, so it stays open"
    )
    assert "xLSTM, T = 16384, by level and shape: 0.940 to 1.000 (inside)" in facts["c7_worth"]
    good = verdicts.assign(explained=True, verdict="inside")
    facts = ch07.worth_facts(good, worths.assign(verdict_before="inside", verdict="inside"), "8192")
    assert facts["c7_worth"] == "w has nothing to explain"
    assert facts["c7_answer_rest"] == "FLOPs leave no shift of N* outside its error"


def test_far_contexts(
    far: Mapping[str, pd.DataFrame], runs: pd.DataFrame, explanations: Mapping[str, Explanation]
) -> None:
    facts = ch07.far_facts(far, BUDGET)
    sizes = far["transformer"]["num_params"].to_list()
    assert facts["c7_answer_far"].startswith(f"{count(sizes[1])} and {count(sizes[2])} (Transformer), ")
    assert (facts["c7_named"], facts["c7_flops"]) == ("128k and 1M", "3×10¹⁹")
    assert "outside the sizes that were trained at T = 1M" in facts["c7_far"]
    shown = ch07.show_far_optima(far, BUDGET).markup
    assert shown.count("<td>Transformer</td>") == 3
    assert shown.count("<td>xLSTM</td>") == 2, "rows of equal size are not repeated"
    factors = equal_loss_by_context(explanations["xlstm"], explanations["transformer"], BUDGET, FAR)
    facts = ch07.factor_facts(factors, runs, explanations, BUDGET)
    assert f"would need {factors['factor'][1]:.0f} and {factors['factor'][2]:.0f} times" in facts["c7_answer_factor"]
    assert "No law is needed within the data" in facts["c7_factor"]
    assert ch07.factor_facts(None, runs, explanations, BUDGET)["c7_answer_factor"] == ""


def test_plans_and_power_laws(fits: Mapping[str, ContextFit], explanations: Mapping[str, Explanation]) -> None:
    plans = ch07.plan_table([("xlstm", 8192, 1e8, 1.25, 2e8, 0.002), ("xlstm", 65536, 1e8, 3.0, 2e8, 0.01)])
    assert ch07.plan_facts(plans) == {"c7_overspent": "1.2 to 3", "c7_lost": "0.0100"}
    assert ch07.show_plans(plans, BUDGET, explanations).markup.count("<td>xLSTM</td>") == 2
    trend = ch07.size_trend(fits["xlstm"])
    law = pd.DataFrame(
        {"context_length": [8192, 65536], "num_params": [1.0, 2 * trend.prefactor * 65536**trend.exponent]}
    )
    text = ch07.power_law_facts({"xlstm": trend}, {"xlstm": law})["c7_power"]
    assert text.startswith("xLSTM: at T = 64k the power law gives 0.5 times the N* of the law")


def test_rises(explanations: Mapping[str, Explanation]) -> None:
    table = ch07.loss_rises(explanations)
    fit = explanations["xlstm"].measured
    row = table[table["architecture"] == "xLSTM"].iloc[0]
    losses = [fit.optimum(row["isoflop_budget"], t, "num_params").loss_opt for t in (2048, 16384)]  # type: ignore[union-attr]
    assert row["rise"] == pytest.approx(losses[1] - losses[0])
    assert row["rest"] == pytest.approx(row["rise"] - row["price"])
    assert ch07.rise_facts(table)["c7_losses"].count("the loss at the optimum rises by") == 2
    assert "T = 16384" in ch07.show_loss_rises(table, 2048, 16384).markup


def test_tables(fits: Mapping[str, ContextFit], explanations: Mapping[str, Explanation]) -> None:
    optimum = fits["xlstm"].optima[0]
    assert f">{count(optimum.x_opt)}<" in ch07.show_optima(fits).markup
    assert f">{fits['xlstm'].trends[0].exponent:+.3f}<" in ch07.show_trends(fits).markup
    levels = {name: each.levels() for name, each in explanations.items()}
    shown = ch07.show_prediction_errors(levels, dict.fromkeys(levels, 8192)).markup
    sizes = levels["xlstm"].query("quantity == 'num_params' and method == 'same runs' and context_length != 8192")
    assert f'<td>elsewhere</td><td class="number">{len(sizes)}</td>' in shown
    assert f">{sizes['ratio'].mean():.3f}<" in shown
    pooled = {name: each.pooled_shifts() for name, each in explanations.items()}
    assert "own shapes" not in ch07.show_pooled_shifts(pooled).markup
    changes = [("transformer", "paper", 0.5), ("transformer", "paper", 0.8), ("xlstm", "paper", 1.0)]
    shown = ch07.show_changes_by_convention(changes, explanations).markup
    assert f">{0.4**0.5:.3f}<" in shown, "a geometric mean"
    assert f">{fits['xlstm'].change('num_params', 8192, 16384)[0]:.3f}<" in shown
    other = ch07.show_laws_of_other_contexts([("xlstm", 2048, pooled["xlstm"])]).markup
    assert "<td>xLSTM</td>" in other
    forces = ch07.show_two_forces([("xlstm", 16384, 1.0, 1.0, 1.0, 0.9)], explanations).markup
    assert "From T = 8192" in forces
    half = ch07.show_half_of_compute([("xlstm", 1e19, 4e8, float("nan"), float("nan"))], explanations).markup
    assert half.count(">–<") == 2


def test_choices_of_contexts_and_budgets(fits: Mapping[str, ContextFit], alone: Explanation) -> None:
    assert ch07.nearest_context(fits["xlstm"], 8000) == 8192
    assert ch07.nearest_context(fits["xlstm"], 1) == 2048
    assert ch07.context_range(fits.values()) == (2048, 16384)
    assert ch07.largest_shared_budget(fits) == max(set(fits["xlstm"].budgets) & set(fits["transformer"].budgets))
    apart = {"a": alone.measured, "b": replace(fits["xlstm"], optima=fits["xlstm"].optima[:2])}
    assert ch07.largest_shared_budget(apart) == max(alone.measured.budgets)
