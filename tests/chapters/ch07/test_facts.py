"""Facts and tables of the context chapter: against values computed another way, and what they say of other tables."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from context_tables import simulated_contexts

from companion.accounting import count_flops
from companion.chapters import ch07
from companion.chapters.ch07.verdicts import cured, mostly_explained, spoiled
from companion.fitting.context.costs import equal_loss_by_context, optimum_by_context, shares_at_optima
from companion.fitting.context.prediction import SAME_RUNS, Explanation, explain
from companion.fitting.context.scaling import ContextFit, fit_context_optima
from companion.fitting.equal_loss import compute_factors
from companion.formatting import count, share_in_words, significant, true_minus
from companion.ledger import LedgerRow
from companion.plotting import Html

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
    assert facts["c7_contexts"] == "2048, 8192 and 16384 tokens"
    assert (facts["c7_first"], facts["c7_last"], facts["c7_growth"]) == ("2048", "16384", "8")
    table = fits["transformer"].optima_table()
    wide = table[table["quantity"] == "num_params"].pivot_table("x_opt", "isoflop_budget", "context_length")
    factor = np.exp(np.log(wide[16384] / wide[2048]).mean())
    assert facts["c7_answer_moves"].startswith(f"the best Transformer is {100 * (1 - factor):.0f} % smaller and the ")
    assert facts["c7_take_moves"].startswith(f"the best Transformer becomes {100 * (1 - factor):.0f} % [")
    table = fits["xlstm"].trends_table()
    clear = sum(low > 0 or high < 0 for low, high in table["exponent_interval"])
    assert facts["c7_moves"].endswith(f"{share_in_words(clear, len(table))} for the xLSTM")
    one = ch07.optima_facts({"transformer": alone.measured})
    assert "xLSTM" not in one["c7_answer_moves"]
    assert "two contexts leave no degree of freedom" in one["c7_notes"]
    quiet = ch07.optima_facts({"transformer": replace(alone.measured, warnings=())})
    assert quiet["c7_notes"] == "No optimum lies at the edge of the sizes that were trained"


def test_an_interval_that_is_unknown_excludes_nothing(alone: Explanation) -> None:
    unknown = [replace(t, exponent_resamples=np.full(20, np.nan)) for t in alone.measured.trends]
    facts = ch07.optima_facts({"transformer": replace(alone.measured, trends=tuple(unknown))})
    assert facts["c7_moves"] == f"{share_in_words(0, len(unknown))} for the Transformer"


def plain(shown: Html) -> str:
    """The markup with ordinary spaces."""
    return shown.markup.replace("\u00a0", " ")


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
    assert (facts["c7_ledger_independent"], facts["c7_ledger_dependent"]) == ("1", "0")
    assert facts["c7_ledger_missing"] == "No optimum or power law is published in numbers for T = 2048."
    rows.append(
        ledger_row("xlstm T=2048 isoflop_budget=6e+18 num_tokens", "x_opt", independent=False, ours=1.2345678e9)
    )
    facts = ch07.ledger_facts(rows, fits)
    assert (facts["c7_ledger_independent"], facts["c7_ledger_dependent"]) == ("1", "1")
    assert facts["c7_ledger_missing"] == ""
    shown = ch07.show_ledger(rows).markup
    assert ">8192" not in shown
    assert "<td>exponent of N*(C)</td>" in shown
    assert "<td>D* at 6×10¹⁸ FLOP</td>" in shown
    assert ">1.234568B<" in shown


def test_shares_and_laws(explanations: Mapping[str, Explanation]) -> None:
    shares = {name: shares_at_optima(each.measured, each.family) for name, each in explanations.items()}
    table = shares["transformer"]
    core = 100 * table.loc[table["context_length"] == 16384, "core_share"]
    shown = ch07.show_share_table(shares).markup.replace("\u00a0", " ")
    assert f"<td>{core.min():.0f} to {core.max():.0f} %</td>" in shown
    assert shown.count("<td>xLSTM</td>") == 3
    law = explanations["xlstm"].law_fit.law
    assert f"<td>{law.beta:.2f} [" in ch07.show_laws(explanations).markup.replace("\u00a0", " ")
    levels = {name: each.levels() for name, each in explanations.items()}
    ways = ch07.method_facts(levels)["c7_ways"]
    assert ways.startswith("Same runs and family differ by at most ")
    assert ways.count("own shapes") == 1
    without = {name: table[table["method"] != "own shapes"] for name, table in levels.items()}
    assert "own shapes" not in ch07.method_facts(without)["c7_ways"]
    agreed = ch07.agreement_facts({name: each.shifts() for name, each in explanations.items()})["c7_take_test"]
    assert agreed.count("if prices stayed the same") == 2


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
        "The FLOPs per token explain the shift for the Transformer and most of the shift for the xLSTM"
    )
    assert facts["c7_take_rest"] == "at T = 2048 the best xLSTM is 3.0 % [2.0, 4.0] smaller than predicted"
    assert facts["c7_left"] == f"{facts['c7_take_rest']} from T = 8192"
    assert facts["c7_test"] == (
        "Within the error, accounting predicts the shift of N* for the Transformer at T = 2048 and 16384 and for the "
        "xLSTM at T = 16384, but not for the xLSTM at T = 2048. That nothing moves is refuted in every case"
    )
    poor = [shift("xlstm", 2048, 0.85, "outside"), shift("xlstm", 16384, 1.005, "inside")]
    facts = ch07.verdict_facts(pd.DataFrame(good + poor))
    assert facts["c7_answer_explained"] == (
        "The FLOPs per token explain the shift for the Transformer, but not for the xLSTM"
    )
    assert not mostly_explained(pd.DataFrame([shift("xlstm", 2048, 0.85, "outside")]))
    none = ch07.verdict_facts(pd.DataFrame([shift("xlstm", 2048, 0.85, "outside") | {"null_verdict": "inside"}]))
    assert none["c7_answer_explained"] == "The FLOPs per token do not explain the shift of the best size"
    assert none["c7_test"].startswith("Accounting predicts no shift of N* within the error. That")
    assert none["c7_test"].endswith("refuted for no architecture")
    everything = ch07.verdict_facts(pd.DataFrame(good))
    assert everything["c7_left"] == "no shift of N* outside its interval"
    assert everything["c7_take_rest"] == "no shift of N* outside its error"


def test_imposed_losses(runs: pd.DataFrame, alone: Explanation, explanations: Mapping[str, Explanation]) -> None:
    nothing = ch07.imposed_facts(alone.measured.runs, {"transformer": alone}, None, 20)
    assert nothing["c7_imposed"] == "This table marks no losses that were read off published fits."
    text = ch07.imposed_facts(runs, explanations, None, 20)["c7_imposed"]
    assert text.startswith("Without the xLSTM runs whose losses had a published parabola imposed, the measured shift")
    assert "The interval excludes 1" in text
    assert "Transformer" not in text
    assert "shift of N* at T = 16384" in text
    elsewhere = {"xlstm": explain(explanations["xlstm"].measured, fit_context=16384, methods=[SAME_RUNS])}
    with np.errstate(over="ignore"):  # few runs are left at T = 16384: a drawn law can put an optimum at infinity
        assert "shift of N* at T = 8192" in ch07.imposed_facts(runs, elsewhere, None, 20)["c7_imposed"]


def test_settings(fits: Mapping[str, ContextFit], alone: Explanation) -> None:
    settings = ch07.settings_by_context(fits)
    assert settings["num_runs"].sum() == sum(
        fit.runs["isoflop_budget"].isin(fit.budgets).sum() for fit in fits.values()
    )
    facts = ch07.settings_facts(settings, FAR)
    assert facts["c7_settings"].startswith("the tokens per step agree in all six, the smallest model in ")
    assert facts["c7_profiles"] == "6"
    assert facts["c7_batch"] == " A step of 1.05M tokens would hold a single sequence of the longest context."
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
    equal = ch07.loss_facts(one, at_equal)["c7_equal"]
    assert equal.startswith("For the xLSTM it is ")
    assert "below the law at T = 2048 and" in equal
    difference = true_minus(f">{at_equal['xlstm']['difference'].iloc[0]:+.4f} [")
    assert difference in plain(ch07.show_worths(at_equal, worths, worths))
    shown = plain(ch07.show_worth_verdicts(table))
    assert f"<td>{table['ratio'][0]:.3f} [{table['ratio_low'][0]:.3f}, {table['ratio_high'][0]:.3f}]</td>" in shown


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
    assert facts["c7_take_worth"] == (
        "FLOPs do not explain everything: at T = 16384 the best xLSTM is 6.0 % [5.0, 7.0] smaller than predicted, as "
        "if a token there were worth 0.89 of one at T = 8192. At T = 2048 the same idea goes too far, so the cause is "
        "open"
    )
    assert facts["c7_worth"] == (
        "With w, accounting predicts the shift of N* within the error for the xLSTM at T = 16384 as well, but no "
        "longer for the xLSTM at T = 2048"
    )
    helpless = ch07.worth_facts(verdicts, worths.assign(verdict=worths["verdict_before"]), "8192")
    assert helpless["c7_worth"] == "No shift of N* that accounting left over is explained by w"
    good = verdicts.assign(explained=True, verdict="inside")
    facts = ch07.worth_facts(good, worths.assign(verdict_before="inside", verdict="inside"), "8192")
    assert facts["c7_worth"] == "There is no shift of N* left to explain"
    assert facts["c7_take_worth"] == "FLOPs leave no shift outside its error"


def test_far_contexts(
    far: Mapping[str, pd.DataFrame], runs: pd.DataFrame, explanations: Mapping[str, Explanation]
) -> None:
    facts = ch07.far_facts(far, BUDGET)
    sizes = far["transformer"]["num_params"].to_list()
    at = f"{count(sizes[1])} parameters at T = 128k and {count(sizes[2])} parameters at T = 1M"
    assert facts["c7_far"].startswith(f"the best Transformer has {at}; ")
    assert facts["c7_far"].endswith("parameters at every T")
    assert facts["c7_flops"] == "3×10¹⁹"
    shown = ch07.show_far_optima(far, BUDGET).markup
    assert shown.count("<td>Transformer</td>") == 3
    assert shown.count("<td>xLSTM</td>") == 2, "rows of equal size are not repeated"
    factors = equal_loss_by_context(explanations["xlstm"], explanations["transformer"], BUDGET, FAR)
    one, million = factors["factor"][1:]
    assert ch07.factor_facts(factors)["c7_factor"] == (
        f"{one:.0f} times the compute of xLSTM at T = 128k and {million:.0f} times at T = 1M"
    )
    shown = ch07.show_factors(factors, runs, explanations).markup
    fronts = compute_factors(runs, {"table": runs["train_flops"]}, "xlstm", "transformer").set_index("context_length")
    assert f">{fronts.loc[8192, 'flops_factor']:.2f}<" in shown
    assert shown.count("–") == 2, "no runs at the far contexts"
    assert ">–<" not in ch07.show_factors(factors.iloc[:1], runs, explanations).markup


def test_plan_table(explanations: Mapping[str, Explanation]) -> None:
    each = explanations["transformer"]
    own = {"transformer": optimum_by_context(each, BUDGET, [8192, 65536])}
    # under the count of the plan itself nothing is overspent or lost
    same = ch07.plan_table(own, explanations, BUDGET, each.convention)
    np.testing.assert_allclose(same["overspent"], 1, rtol=1e-6)
    np.testing.assert_allclose(same["best"], same["N"], rtol=1e-4)
    np.testing.assert_allclose(same["lost"], 0, atol=1e-8)
    by_6nd = {"transformer": optimum_by_context(each, BUDGET, [8192, 65536], convention="6ND")}
    plans = ch07.plan_table(by_6nd, explanations, BUDGET, "paper")
    near, far = plans.to_dict("records")
    assert (near["architecture"], near["context_length"], far["context_length"]) == ("transformer", 8192, 65536)
    assert near["N"] == pytest.approx(far["N"])  # 6ND does not see the context
    model = each.family.at(far["N"])
    price = count_flops(model, 65536).train_flops_per_token
    assert far["overspent"] == pytest.approx(price / (6 * far["N"]), rel=1e-2)
    assert far["overspent"] > near["overspent"]
    assert (plans["lost"] > 0).all()


def test_plans_and_power_laws(fits: Mapping[str, ContextFit], explanations: Mapping[str, Explanation]) -> None:
    rows = [("xlstm", 8192, 1e8, 1.25, 2e8, 0.002), ("xlstm", 65536, 1e8, 3.0, 2e8, 0.01)]
    plans = pd.DataFrame(rows, columns=["architecture", "context_length", "N", "overspent", "best", "lost"])
    assert ch07.plan_facts(plans) == {"c7_overspent": "between 1.2 and 3", "c7_lost": "0.0100"}
    assert ch07.plan_facts(plans.iloc[:1])["c7_overspent"] == "1.2"
    assert ch07.show_plans(plans, BUDGET, explanations).markup.count("<td>xLSTM</td>") == 2
    trend = ch07.size_trend(fits["xlstm"])
    law = pd.DataFrame(
        {"context_length": [8192, 65536], "num_params": [1.0, 2 * trend.prefactor * 65536**trend.exponent]}
    )
    facts = ch07.power_law_facts({"xlstm": trend}, {"xlstm": law})
    assert (facts["c7_power"], facts["c7_power_at"]) == ("0.5 times (xLSTM)", "64k")
    assert facts["c7_student"].startswith(f"{trend.exponent:+.3f} [")


def test_rises(explanations: Mapping[str, Explanation]) -> None:
    table = ch07.loss_rises(explanations)
    fit = explanations["xlstm"].measured
    row = table[table["architecture"] == "xLSTM"].iloc[0]
    losses = [fit.optimum(row["isoflop_budget"], t, "num_params").loss_opt for t in (2048, 16384)]  # type: ignore[union-attr]
    assert row["rise"] == pytest.approx(losses[1] - losses[0])
    assert row["rest"] == pytest.approx(row["rise"] - row["price"])
    assert ch07.rise_facts(table)["c7_losses"].count("the loss at the optimum rises by") == 2
    assert "T\u00a0=\u00a016384" in ch07.show_loss_rises(table, 2048, 16384).markup


def test_tables(fits: Mapping[str, ContextFit], explanations: Mapping[str, Explanation]) -> None:
    optimum = fits["xlstm"].optima[0]
    assert f">{count(optimum.x_opt)} [" in plain(ch07.show_optima(fits))
    assert true_minus(f">{fits['xlstm'].trends[0].exponent:+.3f} [") in plain(ch07.show_trends(fits))
    levels = {name: each.levels() for name, each in explanations.items()}
    shown = ch07.show_prediction_errors(levels, dict.fromkeys(levels, 8192)).markup
    sizes = levels["xlstm"].query("quantity == 'num_params' and method == 'same runs' and context_length != 8192")
    assert f">{(sizes['verdict'] == 'inside').sum()} of {len(sizes)}<" in shown.replace("\u00a0", " ")
    assert f">{100 * (sizes['ratio'] - 1).abs().max():.1f}<" in shown
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
    assert "From T\u00a0=\u00a08192" in forces
    half = ch07.show_half_of_compute([("xlstm", 1e19, 4e8, float("nan"), float("nan"))], explanations).markup
    assert half.count(">–<") == 2


def test_choices_of_contexts_and_budgets(fits: Mapping[str, ContextFit], alone: Explanation) -> None:
    np.testing.assert_array_equal(ch07.contexts_between(2048, 2048), [2050])
    ends = ch07.contexts_between(1000, 64000)
    np.testing.assert_allclose(ends, [1000, 2000, 4000, 8000, 16000, 32000, 64000])
    assert ch07.law_contexts(fits, 8000) == dict.fromkeys(fits, 8192)
    assert ch07.nearest_context(fits["xlstm"], 1) == 2048
    assert ch07.context_range(fits.values()) == (2048, 16384)
    assert ch07.largest_shared_budget(fits) == max(set(fits["xlstm"].budgets) & set(fits["transformer"].budgets))
    apart = {"a": alone.measured, "b": replace(fits["xlstm"], optima=fits["xlstm"].optima[:2])}
    assert ch07.largest_shared_budget(apart) == max(alone.measured.budgets)


def test_folded_tables_in_brief(
    fits: Mapping[str, ContextFit], explanations: Mapping[str, Explanation], alone: Explanation
) -> None:
    """The numbers of the prose are those of the tables that it folds."""
    table = fits["transformer"].trends_table()
    exponents = table.loc[table["quantity"] == "num_params", "exponent"]
    ends = f"{exponents.min():+.3f} to {exponents.max():+.3f} for the Transformer"
    assert ch07.exponent_facts(fits)["c7_exponents"].startswith(true_minus(ends))
    assert ch07.exponent_facts({"xlstm": replace(fits["xlstm"], trends=())}) == {"c7_exponents": "unknown"}
    shares = {"transformer": shares_at_optima(fits["transformer"], explanations["transformer"].family)}
    core = shares["transformer"].set_index("context_length")["core_share"]
    assert ch07.share_facts(shares)["c7_shares"] == (
        f"{100 * core[2048].min():.0f} to {100 * core[2048].max():.0f} % at T = 2048 and {100 * core[16384].min():.0f} "
        f"to {100 * core[16384].max():.0f} % at T = 16384 for the Transformer"
    )
    law = alone.law_fit.law
    assert ch07.law_facts({"transformer": alone})["c7_laws"] == (
        f"α = {law.alpha:.2f}, β = {law.beta:.2f} and γ = {law.gamma:.2f} for the Transformer"
    )
    worths = {"transformer": ch07.token_worth(alone)}
    [other] = [each for each in worths["transformer"] if each.context_length == 4096]
    assert ch07.w_facts(worths, {"transformer": alone})["c7_w"] == (
        f"{significant(other.worth)} at T = 4096 for the Transformer"
    )


def test_conventions_in_brief(explanations: Mapping[str, Explanation]) -> None:
    changes = [("transformer", "paper", 0.8), ("transformer", "paper", 0.9), ("transformer", "6ND", 1.0)]
    changes += [("xlstm", "paper", 1.0), ("xlstm", "6ND", 1.0)]
    first, second = ch07.convention_facts(changes, explanations)["c7_conventions"].split("; ")
    assert first.startswith(f"{np.sqrt(0.72):.3f} (paper) and 1.000 (6ND) for the Transformer, where ")
    measured = explanations["xlstm"].measured.change("num_params", 8192, 16384)[0]
    assert second == f"1.000 under every convention for the xLSTM, where {measured:.3f} was measured"


def test_factors_of_runs_in_brief(runs: pd.DataFrame) -> None:
    fronts = compute_factors(runs, {"table": runs["train_flops"]}, "xlstm", "transformer")
    first = fronts.iloc[0]
    words = ch07.front_facts(runs)["c7_within"]
    assert words.startswith(f"{first['flops_factor']:.2f} at T = {first['context_length']:.0f}")
    alone = runs[runs["architecture"] == "xlstm"]
    assert ch07.front_facts(alone) == {"c7_within": "nothing, as no loss is reached by both"}
