"""Facts of the IsoFLOP chapter: against values computed another way, and what they say of other tables."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.chapters import ch03
from companion.chapters.applicability import select_runs
from companion.chapters.ch03.facts import contexts_verdict, exponents_verdict
from companion.chapters.ch03.tables import architectures_of, rebuilt_runs
from companion.errors import NotApplicable
from companion.fitting.isoflop import IsoflopFit, JointIsoflopFit, fit_isoflop, fit_isoflop_joint, isoflop_runs
from companion.fitting.isoflop.compare import optimum_ratio
from companion.formatting import count, share_in_words
from companion.ledger import LedgerRow
from companion.runs.load import REQUIRED_COLUMNS, load_paper_runs

NAMES, X = ("transformer", "xlstm"), ("num_params", "num_tokens")
MAIN = [6e18, 1e19, 3e19, 1e20]
BUDGETS = dict.fromkeys(NAMES, MAIN)
WEIGHTS = "multiplicity_in_published_fits"
Key = tuple[str, str]


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    runs = load_paper_runs()
    return {name: isoflop_runs(runs, name, 8192) for name in NAMES}


@pytest.fixture(scope="module")
def every(tables: dict[str, pd.DataFrame]) -> dict[Key, IsoflopFit]:
    return {(name, x): fit_isoflop(tables[name], x, num_resamples=50) for name in NAMES for x in X}


@pytest.fixture(scope="module")
def main(tables: dict[str, pd.DataFrame]) -> dict[Key, IsoflopFit]:
    return {(n, x): fit_isoflop(tables[n], x, budgets=MAIN, num_resamples=50) for n in NAMES for x in X}


@pytest.fixture(scope="module")
def joint(tables: dict[str, pd.DataFrame]) -> dict[Key, JointIsoflopFit]:
    return {(n, x): fit_isoflop_joint(tables[n], x, budgets=MAIN) for n in NAMES for x in X}


@pytest.fixture(scope="module")
def choices(tables: dict[str, pd.DataFrame]) -> dict[Key, pd.DataFrame]:
    return {
        (n, x): ch03.exponent_choices(tables[n], x, weights=WEIGHTS, budgets=MAIN, num_resamples=50)
        for n in NAMES
        for x in X
    }


def one(results: dict[Key, Any], name: str = "xlstm") -> dict[Key, Any]:
    return {key: value for key, value in results.items() if key[0] == name}


def test_runs(tables: dict[str, pd.DataFrame]) -> None:
    selection = select_runs(None, list(NAMES), 8192)
    facts = ch03.run_facts(selection, tables, 0.4)
    assert (facts["c3_num_runs"], facts["c3_at_context"], facts["c3_window"]) == ("252", " at T = 8192", "0.4")
    assert facts["c3_chosen"] == f"The other {len(selection.at_context) - 252} runs at T = 8192 keep D/N fixed"
    every = pd.concat(tables.values())
    sizes = every.groupby(["architecture", "isoflop_budget"]).size()
    assert facts["c3_per_budget"] == f"{sizes.min()} to {sizes.max()}"
    others = selection.at_context.drop(every.index)
    assert set(others["experiment"]) == {"tokenparam"}
    own = replace(selection, of_paper=False, context_length=None, note="all runs of the table")
    bare = ch03.run_facts(own, {name: table.drop(columns="imposed_published_fit") for name, table in tables.items()}, 1)
    assert (bare["c3_at_context"], bare["c3_chosen"]) == ("", "All runs of the table")
    assert bare["c3_rebuilt"] == "This table marks no loss as rebuilt from a published fit"


def test_rebuilt_losses_are_marked(tables: dict[str, pd.DataFrame], main: dict[Key, IsoflopFit]) -> None:
    found = rebuilt_runs(tables)
    assert found["transformer"] == {}
    imposed = tables["xlstm"].query("imposed_published_fit == 1")
    assert {b: n for b, (n, _) in found["xlstm"].items()} == imposed.groupby("isoflop_budget").size().to_dict()
    verdict = ch03.run_facts(select_runs(None, list(NAMES), 8192), tables, 0.4)["c3_rebuilt"]
    assert "of the xLSTM 7 of 16 at 6×10¹⁸, 11 of 23 at 1×10¹⁹ and 22 of 27 at 6×10²⁰ FLOP were" in verdict
    assert verdict.endswith("At other contexts it is 82 of 87 at T = 2048 (xLSTM)")
    optima = ch03.show_optima(main, tables).markup
    assert optima.count("\u00a0*</td>") == 2, "two of the four main budgets of the xLSTM"
    assert "An asterisk: some losses" in optima
    none = {name: table.assign(imposed_published_fit=0) for name, table in tables.items()}
    assert "*</td>" not in ch03.show_optima(main, none).markup


def test_laws(joint: dict[Key, JointIsoflopFit]) -> None:
    assert ch03.law_facts(one(joint))["c3_joint_dof"] == f"{joint['xlstm', X[0]].degrees_of_freedom} (xLSTM)"
    assert architectures_of(joint) == list(NAMES)


def ledger_row(section: str, entry: str, quantity: str, **values: Any) -> LedgerRow:
    """A row of the ledger that says 0.5 was published and 0.5 came out."""
    fields: dict[str, Any] = {"source": "", "printed_digits": "", "published": 0.5, "ours": 0.5, "difference": 0.0}
    fields |= {"tolerance": 0.1, "tolerance_reason": "", "independent": True, "verdict": "reproduced", "note": ""}
    return LedgerRow(section=section, entry=entry, quantity=quantity, **(fields | values))


def test_ledger() -> None:
    law = "xlstm T=8192 N*(C) 6e18,1e20"
    rows = [
        ledger_row("isoflop_power_laws", law, "exponent"),
        ledger_row("isoflop_power_laws", "xlstm T=16384 D = 1 * C**b", "exponent", verdict="differs"),
        ledger_row("isoflop_optima", "xlstm T=2048 isoflop_budget=6e+18 num_params", "x_opt", independent=False),
    ]
    assert ch03.ledger_facts(rows) == {
        "c3_ledger_reproduced": "two of the three",
        "c3_ledger_contexts": "T = 8192 and 16384",
        "c3_ledger_independent": "1",
        "c3_ledger_dependent": "1",
    }
    assert "isoflop power laws" in ch03.show_ledger_sections(rows).markup
    shown = ch03.show_ledger_rows(rows).markup
    assert shown.count("<tr>") == 2, "one row is chosen"
    assert "<td>xLSTM: exponent a</td>" in shown
    row = ledger_row("compute_optimal_table_8192", "num_params=1e+09", "transformer_num_tokens", published=2.28e10)
    assert "Transformer: D (tokens) at which 1B is optimal</td><td>22.8B" in ch03.show_ledger_rows([row]).markup


def test_errors() -> None:
    errors = pd.DataFrame(
        {"T": [8192, 16384], "architecture": ["xLSTM"] * 2, "optima": 4, "published": [0.004, 0.02], "nearer": 0.5}
        | {"bootstrap": [0.009, 0.01], "joint": [0.01, 0.01], "half_published": [0.1, 0.2], "half_joint": 0.02}
    )
    facts = ch03.error_facts(errors)
    assert facts["c3_smallest"] == (
        "At T = 8192 the xLSTM's standard error is 0.0040 by the published procedure and 0.0100 by the joint fit; "
        "50 % of such optima would lie nearer to a line"
    )
    assert "T = 16384" in facts["c3_largest"]
    assert (facts["c3_factor_joint"], facts["c3_factor_published"], facts["c3_widest"]) == ("1.1", "2.5", "10")
    two_optima = ch03.error_facts(errors.assign(published=np.nan))
    assert two_optima["c3_smallest"] == two_optima["c3_largest"] == "Two optima leave no standard error at all"
    assert ch03.error_facts(errors.assign(T="–"))["c3_smallest"].startswith("The xLSTM's")
    assert "0.0040 (0.100)" in ch03.show_errors(errors).markup
    assert "<td>–</td>" in ch03.show_errors(errors.assign(half_published=np.nan)).markup


def test_verdict_on_one_law(tables: dict[str, pd.DataFrame], every: dict[Key, IsoflopFit]) -> None:
    scatter = pd.DataFrame(
        {"architecture": "xLSTM", "budgets": ["main", "all"], "sizes": "all", "p": [0.3, 0.001]}
        | {"two steps": [0.546, 0.523], "joint": [0.548, 0.537]}
    )
    facts = ch03.budget_facts(every, BUDGETS, scatter, of_paper=True)
    runs = (tables["xlstm"]["isoflop_budget"] == 6e20).sum()
    left_out = f"The main laws leave out 6×10²⁰ FLOP (xLSTM, {runs} runs)"
    assert facts["c3_left_out"] == f"{left_out}, as the paper's laws do"
    assert ch03.budget_facts(every, BUDGETS, scatter, of_paper=False)["c3_left_out"] == left_out
    assert facts["c3_all_budgets"] == (
        "For the xLSTM a power law through the main budgets is not rejected (p = 0.30); one through all budgets is "
        "rejected (p = 0.0010). With all budgets the exponent of N* goes from 0.546 to 0.523 by the two steps and from "
        "0.548 to 0.537 by the joint fit"
    )
    transformer = ch03.budget_facts(one(every, "transformer"), BUDGETS, scatter.iloc[:0], of_paper=True)
    assert transformer["c3_left_out"] == "The main laws use all budgets"
    assert transformer["c3_all_budgets"] == "Two optima cannot test a power law"


def test_settings(tables: dict[str, pd.DataFrame], choices: dict[Key, pd.DataFrame]) -> None:
    settings = ch03.settings_by_architecture(tables)
    facts = ch03.settings_facts(settings, tables, BUDGETS, choices, WEIGHTS)
    assert facts["c3_settings"].startswith("At 6×10²⁰ FLOP a batch has 2.1M tokens, against 1.0M at the")
    twice = (tables["xlstm"][WEIGHTS] > 1).sum()
    assert facts["c3_twice"].startswith(f"The published fits count {twice} of 145 runs of the xLSTM more than once")
    bare = {name: table[[*REQUIRED_COLUMNS, "isoflop_budget"]] for name, table in tables.items()}
    settings = ch03.settings_by_architecture(bare)
    assert "learning rate" not in ch03.show_runs(settings, bare).markup
    without = {key: table[~table["choice"].str.contains("repeated")] for key, table in choices.items()}
    facts = ch03.settings_facts(settings, bare, BUDGETS, without, None)
    assert facts["c3_twice"] == "No run of the main budgets counts more than once here"
    assert facts["c3_settings"] == "The table of runs shows the settings of each"
    shown = ch03.show_runs(ch03.settings_by_architecture(tables), tables).markup
    assert "<td>0.0020–0.0030</td>" in shown.replace("\u2060", "")
    assert "<td>0.0030</td>" in shown, "one learning rate is no range"


def test_two_architectures(
    every: dict[Key, IsoflopFit], choices: dict[Key, pd.DataFrame], tables: dict[str, pd.DataFrame]
) -> None:
    differences = {x: ch03.exponent_differences(choices["xlstm", x], choices["transformer", x]) for x in X}
    errors = pd.DataFrame(
        {"T": [2048, 2048, 8192], "architecture": ["xLSTM", "Transformer", "xLSTM"]}
        | {"exponent": [0.55, 0.5, 0.5], "joint": [0.03, 0.04, 0.1]}
    )
    facts = ch03.difference_facts(differences, "xlstm", "transformer", errors)
    rows = differences[X[0]].set_index("choice")
    assert facts["c3_difference"].startswith(f"{rows.loc['joint', 'difference']:+.3f} [")
    assert facts["c3_difference_contexts"] == "+0.050 ± 0.050 at T = 2048", "only contexts that both have"
    boot = rows.loc["each run once, bootstrap"]
    assert float(facts["c3_difference_bootstrap_p"]) == pytest.approx(
        2 * stats.norm.sf(abs(boot["difference"]) / boot["standard_error"]), rel=0.05
    )
    assert facts["c3_choices_size"] == share_in_words((rows["p_value"] < 0.05).sum(), len(rows))
    ratios = {x: optimum_ratio(every["xlstm", x], every["transformer", x]) for x in X}
    found = ch03.ratio_facts(ratios, "xlstm", "transformer", tables)
    assert found["c3_ratio_rebuilt"] == "Two of the four"
    assert (found["c3_first"], found["c3_second"]) == ("xLSTM", "Transformer")
    assert found["c3_ratio"] == f"{ratios[X[0]]['ratio'].min():.2f} to {ratios[X[0]]['ratio'].max():.2f}"
    assert (found["c3_ratio_apart"], found["c3_tokens_apart"]) == ("all four", "none of the four")
    mean = float(np.exp(np.mean(np.log(ratios[X[0]]["ratio"]))))
    assert (float(found["c3_ratio_typical"]), found["c3_tokens_verdict"]) == (round(mean, 1), "about as many")
    fewer = {X[0]: ratios[X[0]], X[1]: ratios[X[1]].assign(ratio=0.8, low=0.75, high=0.85)}
    assert ch03.ratio_facts(fewer, "xlstm", "transformer", tables)["c3_tokens_verdict"] == "about 0.80 times as many"
    assert "xLSTM" in ch03.show_differences(differences, "xlstm", "transformer").markup
    shown = ch03.show_ratios(ratios, "xlstm", "transformer", tables).markup
    assert "D*" in shown
    assert shown.count("\u00a0*</td>") == 4, "two budgets, over sizes and over tokens"


def test_verdicts_on_exponents_turn() -> None:
    assert contexts_verdict([0.004, -0.029, -0.013], [0.016, 0.012, 0.024]).startswith(
        "Given these errors the three ag"
    )
    assert contexts_verdict([0.1, -0.1], [0.01, 0.01]).startswith("They differ by more than these errors explain")
    chi_square = (0.1 / 0.05) ** 2 / 2  # of two values 0.1 apart, each ± 0.05, with one degree of freedom
    assert contexts_verdict([0.1, 0.0], [0.05, 0.05]).endswith(f"(p = {stats.chi2.sf(chi_square, 1):.2f})")
    assert contexts_verdict([0.1], [0.01]) == "There is nothing to compare it with"
    assert exponents_verdict(pd.Series([0.0015, 0.1])) == (
        "Whether the exponents differ is not settled: p is 0.0015 to 0.10, depending on the procedure"
    )
    assert exponents_verdict(pd.Series([0.01, 0.02])) == "The exponents differ under every choice we tried"
    assert "do not differ measurably" in exponents_verdict(pd.Series([0.5]))


def test_conventions(tables: dict[str, pd.DataFrame]) -> None:
    found = ch03.exponents_by_architecture_and_convention({"xlstm": tables["xlstm"]}, BUDGETS, ["paper", "6ND"])
    text = ch03.convention_facts(found)["c3_convention"]
    assert text.endswith(f"goes from {found['a_joint'].min():.3f} to {found['a_joint'].max():.3f} for the xLSTM")
    assert "6ND" in ch03.show_conventions(found).markup
    bare = {"xlstm": tables["xlstm"][[*REQUIRED_COLUMNS, "isoflop_budget"]]}
    nothing = ch03.exponents_by_architecture_and_convention(bare, BUDGETS, ["6ND"])
    assert "cannot be counted again" in ch03.show_conventions(nothing).markup
    assert ch03.convention_facts(nothing)["c3_convention"] == "No other count is possible here"


def test_grids(choices: dict[Key, pd.DataFrame]) -> None:
    sided = pd.DataFrame({"moved": [-0.3, 0.9, 0.1], "warning": ["outside", "outside", ""]})
    sided = sided.assign(architecture="xLSTM", isoflop_budget=[1e19, 6e20, 1e20])
    facts = ch03.one_sided_facts(sided, BUDGETS)
    assert facts == {
        "c3_sided": "−30 % and +90 %",
        "c3_sided_top": "by +10 % for the xLSTM",
        "c3_sided_warned": "two of the three",
        "c3_sided_silent": "even without a warning, the optimum moves by up to 10 %",
    }
    assert ch03.one_sided_facts(sided.iloc[:2], BUDGETS)["c3_sided_silent"] == "none of them passes without a warning"
    skews = pd.DataFrame(
        {"architecture": ["xLSTM", "Transformer"], "isoflop_budget": 1e19, "x_opt": [3e8, 2e8]}
        | {"moved": [-0.2, 0.1], "p_value": [0.01, 0.5]}
    )
    shapes = ch03.shape_facts(skews, {"xlstm": [1e19], "transformer": [1e19]})
    assert shapes["c3_answer_shape"] == (
        "The valley of the xLSTM at 1×10¹⁹ FLOP is not a parabola: a cubic puts its optimum at 300M"
    )
    assert ch03.shape_facts(skews, {"transformer": [1e19]})["c3_answer_shape"].startswith("No valley")
    assert ch03.skew_facts(skews) == {"c3_skewed": "one of the two", "c3_skew_most": "20 %"}
    assert ch03.cubic_ratio_facts(skews, "xlstm", "transformer")["c3_cubic_ratio"] == "the ratio is 1.50 to 1.50"
    apart = skews.assign(isoflop_budget=[1e19, 1e20])
    assert ch03.cubic_ratio_facts(apart, "xlstm", "transformer")["c3_cubic_ratio"] == "no ratio can be formed"
    text = ch03.window_facts(one(choices))["c3_window_shift"]
    rows = choices["xlstm", X[0]].set_index("choice")["exponent"]
    assert text.startswith(f"{rows['joint, within 0.4 decades'] - rows['joint']:+.3f} for the xLSTM (standard error ")
    without = {key: table[~table["choice"].str.contains("within")] for key, table in choices.items()}
    assert ch03.window_facts(without)["c3_window_shift"] == "an amount that these runs cannot determine"
    bias = pd.DataFrame({"num_params": [-0.01, 0.02], "error": [0.004, 0.005]})
    assert ch03.trained_size_facts(bias)["c3_real_grid"] == "-0.0100 and +0.0200"
    sums = pd.DataFrame([{"architecture": "xLSTM", "a + b": 1.0, "first": 6.1, "last": 6.0}])
    assert ch03.sum_facts(sums)["c3_sum"] == "For the xLSTM a + b is 1.000, and κ* goes from 6.10 to 6.00"


def test_tables(main: dict[Key, IsoflopFit], joint: dict[Key, JointIsoflopFit]) -> None:
    text = ch03.show_optima(one(main), {}).markup
    profile = main["xlstm", "num_params"].optima[0]
    assert f">{count(profile.x_opt)}<" in text
    assert f">{profile.loss_opt:.4f}<" in text
    assert f">{main['xlstm', 'num_tokens'].power_law.law.exponent:.4f}<" in ch03.show_published_laws(one(main)).markup
    fit = joint["xlstm", "num_params"]
    shown = ch03.show_sizes_by_context({("xlstm", None): fit}, 3e19).markup
    assert f">{count(float(fit.law.predict(3e19)))}<" in shown
    assert "<td>–</td>" in shown, "the table names no context"
    rows = [("xlstm", 6e18, -0.5, None, fit), ("xlstm", 1e19, 0.5, main["xlstm", "num_params"], None)]
    left_out = ch03.show_without_one_budget(rows).markup
    assert f">{fit.law.exponent:.3f}<" in left_out
    assert left_out.count(">–<") == 2
    assert "<td" not in ch03.show_without_one_budget([]).markup
    assert ">133<" in ch03.show_windows([("xlstm", 0.3, 133, fit)]).markup
    for show in (lambda: ch03.show_windows([]), lambda: ch03.show_sizes_by_context({}, 1e19)):
        with pytest.raises(NotApplicable):
            show()
    bad = fit_isoflop(isoflop_runs(load_paper_runs(), "xlstm", 8192), budgets=MAIN[:1], num_resamples=0)
    with pytest.raises(NotApplicable, match="the power law of xLSTM over num_params is undefined"):
        ch03.need_main_laws({("xlstm", "num_params"): bad})
