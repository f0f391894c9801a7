"""Chapter 4: what it computes, and the values and words of its sentences, on simulated tables and on other people's."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from foreign import table as foreign_table
from simulated_tables import TWO_DESIGNS, two_designs

from companion.chapters import ch04
from companion.chapters.applicability import LAW_RUNS, need_runs, select_runs
from companion.chapters.ch04 import analysis, answer, words
from companion.chapters.ch04.reach_tables import compared_optima, lost_words
from companion.errors import NotApplicable
from companion.fitting.diagnostics import designs, furthest_run_errors
from companion.fitting.extrapolation import extrapolate
from companion.fitting.fit import Fit, fit
from companion.fitting.likelihood import profile
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import share_in_words, signed_percent
from companion.laws import LossSurface

NAME = "xlstm"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return two_designs()


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame) -> Fit:
    return fit(LossSurface, table, gamma=1.0)


@pytest.fixture(scope="module")
def resamples(fitted: Fit) -> Bootstrap:
    return fitted.bootstrap(60)


def test_fit_row(fitted: Fit) -> None:
    row = analysis.fit_row(fitted)
    assert row["exponent"] == pytest.approx(fitted.law.beta / (fitted.law.alpha + fitted.law.beta))
    assert row["alpha_gamma"] == fitted.law.alpha
    assert row["num_rows"] == 36


def test_flops_per_param_and_token(table: pd.DataFrame) -> None:
    assert analysis.flops_per_param_and_token(table) == pytest.approx(6.0)


def test_projection_finds_the_exponents_of_exact_losses(table: pd.DataFrame) -> None:
    exact = table.assign(val_loss=TWO_DESIGNS.predict(table["num_params"], table["num_tokens"]))
    alphas, betas = [0.24, 0.34, 0.44], [0.2, 0.3, 0.4]
    misfit = analysis.projected_misfit(fit(LossSurface, exact, gamma=1.0), alphas, betas)
    assert misfit.shape == (3, 3)
    assert np.unravel_index(np.argmin(misfit), misfit.shape) == (1, 1)
    assert misfit[1, 1] < 1e-3
    assert misfit[1, 1] < 0.3 * np.partition(misfit.ravel(), 1)[1]


def test_terms_are_known_better_than_prefactors(fitted: Fit) -> None:
    ranges = analysis.term_ranges(fitted.bootstrap(60))
    assert 1 < ranges["A_term"] < ranges["A"]
    assert 1 < ranges["B_term"] < ranges["B"]


def test_near_target(table: pd.DataFrame) -> None:
    run = table.iloc[30]
    near = analysis.near_target(table, run["num_params"] * 1.01, run["num_tokens"] * 0.99)
    assert np.flatnonzero(near).tolist() == [30]
    assert not analysis.near_target(table, 1e12, 1e12).any()


def test_optima_of_parabolas(table: pd.DataFrame) -> None:
    exact = table.assign(val_loss=TWO_DESIGNS.predict(table["num_params"], table["num_tokens"]))
    found = analysis.parabola_optima(exact[exact["experiment"] == "isoflop"].assign(architecture=NAME), 20)
    assert found["isoflop_budget"].tolist() == [6e18, 3e19, 1e20]
    for budget, size, tokens in zip(found["isoflop_budget"], found["num_params"], found["num_tokens"], strict=True):
        best = TWO_DESIGNS.optimum(budget)
        assert (size, tokens) == (pytest.approx(best[0], rel=0.1), pytest.approx(best[1], rel=0.1))
    np.testing.assert_allclose(found["tokens_per_param"], found["num_tokens"] / found["num_params"])


def test_optima_of_law_and_parabola_meet_at_their_budget() -> None:
    implied = pd.DataFrame({"isoflop_budget": [1e18, 1e19], "num_params": [2e8, 6e8], "lost": 0.0})
    implied = implied.assign(num_params_low=1.5e8, num_params_high=5.5e8)
    measured = pd.DataFrame({"isoflop_budget": [1e19, 1e20], "num_params": [5e8, 1e9]})
    both = compared_optima({NAME: implied}, {NAME: measured})
    assert both["ratio"].tolist() == pytest.approx([0.2])
    assert ch04.optimum_facts({NAME: implied}, {NAME: measured}) == {
        "c4_optima_apart": "20 %",
        "c4_optima_where": "xLSTM, 1×10¹⁹ FLOP",
        "c4_optima_within": "1 of 1",
    }
    with pytest.raises(NotApplicable, match="no budget has an optimum both"):
        compared_optima({NAME: implied.head(1)}, {NAME: measured})


def test_exponents_of_law_and_profiles(table: pd.DataFrame, fitted: Fit, resamples: Bootstrap) -> None:
    iso = table[table["experiment"] == "isoflop"].assign(architecture=NAME)
    found = ch04.exponents({NAME: {"all": fitted, "isoflop": fitted}}, {NAME: resamples}, {NAME: iso})
    assert found["from"].tolist() == ["all", "isoflop", "joint"]
    law = fitted.law.beta / (fitted.law.alpha + fitted.law.beta)
    assert found["exponent"].iloc[:2].tolist() == pytest.approx([law, law])
    facts = ch04.exponent_facts(found)
    assert facts["c4_exponent_law"] == f"{law:.3f} {found['interval'].iloc[0]} (xLSTM)"
    assert facts["c4_exponent_joint"] == f"{found['exponent'].iloc[2]:.3f} {found['interval'].iloc[2]} (xLSTM)"
    markup = ch04.exponents_table(found).markup.replace("\u00a0", " ")
    assert "law, all runs" in markup
    assert "IsoFLOP, joint fit" in markup


def test_correlations_in_words(fitted: Fit, resamples: Bootstrap) -> None:
    facts = ch04.term_facts({NAME: fitted}, ch04.terms({NAME: resamples}))
    pairs = fitted.correlations.to_numpy(dtype=float)
    names = list(fitted.correlations)
    for key, factor, exponent in (("c4_correlation_n", "A", "alpha"), ("c4_correlation_d", "B", "beta")):
        assert facts[key] == f"{pairs[names.index(factor), names.index(exponent)]:.2f} (xLSTM)"


def test_opening_of_another_table() -> None:
    selection = select_runs(foreign_table("xlstm_alone"), usable=need_runs(LAW_RUNS, "a law with six parameters"))
    fits = {name: fit(LossSurface, each) for name, each in selection.tables.items()}
    facts = ch04.opening_facts(fits, 1e-3)
    [own] = fits.values()
    assert f"{100 * np.mean(np.abs(own.residuals) > 1e-3):.0f} % (xLSTM)" == facts["c4_beyond"]
    assert facts["c4_identified"].startswith(
        "The runs identify all parameters" if own.identified else "The runs do not identify"
    )


def test_a_law_left_open_is_said_to_be() -> None:
    fitted = SimpleNamespace(identified=False, status_detail="E at its bound", residuals=np.zeros(3))
    facts = ch04.opening_facts({NAME: fitted}, 1e-3)  # type: ignore[dict-item]
    assert facts["c4_identified"].endswith("no intervals are given for it: xLSTM: E at its bound")


def test_answer(fitted: Fit, table: pd.DataFrame, resamples: Bootstrap) -> None:
    cheaper = ch04.cheaper_fits({NAME: table}, 1.0, 1e-3)
    row = cheaper[NAME]
    below = fit(LossSurface, table[table["train_flops"] <= row["cutoff"]], gamma=1.0)
    last = table.iloc[int(table["train_flops"].to_numpy().argmax())]
    error = below.law.predict(last["num_params"], last["num_tokens"]) / last["val_loss"] - 1
    facts = ch04.answer_facts({NAME: fitted}, cheaper)
    side = "high" if error > 0 else "low"
    assert facts["c4_answer_beyond"].endswith(f"most expensive run {abs(100 * error):.1f} % too {side}")
    assert facts["c4_answer_scatter"] == f"{100 * answer.rms(fitted):.2g} %"
    markup = ch04.answer_table({NAME: fitted}, {NAME: resamples}, cheaper, 2048).markup.replace("\u00a0", " ")
    assert "from 36 runs at T = 2048" in markup
    low, high = resamples.interval("E")
    assert f"{fitted.law.E:.2f} [{low:.2f}, {high:.2f}]" in markup
    assert "error beyond its runs" in markup


def test_answer_without_resamples_and_cutoffs(fitted: Fit, table: pd.DataFrame) -> None:
    assert ch04.cheaper_fits({NAME: table.head(10)}, 1.0, 1e-3) == {}
    one_ratio = select_runs(foreign_table("one_ratio")).tables
    assert ch04.cheaper_fits(one_ratio, None, 1e-3) == {}  # enough runs, but they do not identify the law
    assert "cannot be tested" in ch04.answer_facts({NAME: fitted}, {})["c4_answer_beyond"]
    assert ch04.size_resamples({NAME: fitted}, 0, 0) == {NAME: None}
    markup = ch04.answer_table({NAME: fitted}, {NAME: None}, {}, None).markup
    assert "[" not in markup
    assert "error beyond" not in markup


def test_words() -> None:
    assert words.off_by([0.078, 0.117]) == "7.8 to 11.7 % too high"
    assert words.off_by([-0.117, -0.078]) == "7.8 to 11.7 % too low"
    assert words.off_by([0.05]) == "5.0 % too high"
    assert words.off_by([-0.01, 0.02]) == "between −1.0 % and +2.0 % off"
    assert lost_words(0.0).startswith("Every resample")
    assert lost_words(0.001).startswith("Nearly every resample")
    assert lost_words(0.2).startswith("Up to 20 %")


def test_laws_that_cross(table: pd.DataFrame) -> None:
    other = "transformer"
    tables = {NAME: table, other: table.assign(val_loss=table["val_loss"] + 0.05)}
    fits = {name: SimpleNamespace(law=TWO_DESIGNS) for name in tables}
    pair, law = (NAME, other), TWO_DESIGNS
    fits[other].law = LossSurface(E=law.E + 0.1, A=law.A, B=law.B, alpha=law.alpha, beta=law.beta)
    assert analysis.law_crossing(fits, tables, pair, (1e18, 1e21)) is None  # type: ignore[arg-type]
    apart = ch04.crossing_verdict(fits, tables, pair)  # type: ignore[arg-type]
    assert "do not cross" in apart
    assert "also stay apart: at every compute that both cover, xLSTM is lower by 0.050" in apart
    lower = LossSurface(E=law.E - 0.2, A=law.A * 1.3, B=law.B * 1.3, alpha=law.alpha, beta=law.beta)
    fits[other].law = lower
    found = analysis.law_crossing(fits, tables, pair, (1e14, 1e26))  # type: ignore[arg-type]
    assert found is not None
    at, winner = found
    assert winner == other
    # both have the same best model at C = 6·N·D: A and B grow by one factor
    losses = [float(each.predict(*law.optimum(at))) for each in (law, lower)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_moves_by_one_wrong_run() -> None:
    rows = [
        (run, delta, x, x * slope)
        for run, slope in (("median compute", 0.1), ("most compute", -2.0))
        for delta in (1e-3, np.inf)
        for x in (0.0, 0.2)
    ]
    facts = ch04.outlier_facts(pd.DataFrame(rows, columns=["run", "huber_delta", "excess", "loss"]))
    assert facts == {
        "c4_outlier": "20 %",
        "c4_moved_median": "0.020",
        "c4_moved_most": "0.400 at δ = 0.001 and 0.400 at δ = ∞",
    }


def test_ends_of_delta(table: pd.DataFrame) -> None:
    fits = {(NAME, delta): fit(LossSurface, table, gamma=1.0, huber_delta=delta) for delta in (np.inf, 1e-3, 1e-2)}
    facts = ch04.delta_facts(fits, {NAME: table})
    least, most = fits[NAME, 1e-3], fits[NAME, np.inf]
    last = int(table["train_flops"].to_numpy().argmax())
    ends = [signed_percent(float(np.expm1(each.residuals[last])), 1) for each in (least, most)]
    assert facts == {
        "c4_delta_range": "δ = 0.001 to δ = ∞",
        "c4_delta_last": f"from {ends[0]} to {ends[1]} (xLSTM)",
        "c4_delta_e": f"from {least.law.E:.2f} to {most.law.E:.2f} (xLSTM)",
    }


def test_forms(table: pd.DataFrame) -> None:
    fits = {
        (NAME, design, form): fit(LossSurface, part, gamma=gamma)
        for design, part in designs(table).items()
        for form, gamma in {"γ free": None, "γ = 1": 1.0}.items()
    }
    facts = ch04.form_facts(fits)
    ratio = fits[NAME, "all", "γ = 1"].objective / fits[NAME, "all", "γ free"].objective
    assert facts["c4_gamma_factors"] == f"{ratio:.2f} (xLSTM)"
    assert float(facts["c4_gamma_least"]) <= round(ratio, 2) <= float(facts["c4_gamma_most"])
    assert f"to {fits[NAME, 'all', 'γ = 1'].law.E:.2f} (xLSTM)" in facts["c4_gamma_e"]
    floors = [fits[NAME, design, "γ free"].law.E for design in designs(table)]
    assert facts["c4_form_e"] == f"{min(floors):.2f} to {max(floors):.2f} (xLSTM)"
    alone = {key: each for key, each in fits.items() if key[1] == "all"}
    assert ch04.form_facts(alone)["c4_form_e"] == f"{fits[NAME, 'all', 'γ free'].law.E:.2f} (xLSTM)"
    markup = ch04.forms_table(fits).markup
    assert markup.count("<tr") == 1 + len(fits)
    assert markup.count("1,\u00a0fixed") == len(fits) // 2
    ending = ch04.endings_table(fits).markup
    assert ("All converged" in ending) == ('<th scope="col">status' not in ending)


def test_the_side_of_the_dearest_runs(fitted: Fit, table: pd.DataFrame) -> None:
    scattered = ch04.scatter({NAME: fitted}, {NAME: table}, {NAME: designs(table)})
    top = pd.Series(fitted.residuals).iloc[np.argsort(table["train_flops"].to_numpy())[-5:]].mean()
    assert scattered.loc[scattered["runs"] == "all", "top"].item() == pytest.approx(top)
    word = "below" if top < 0 else "above"
    other = scattered.assign(top=-scattered["top"])
    assert f"{word} the fitted law" in ch04.residual_facts(scattered)["c4_residuals"]
    assert f"{word} the fitted law" not in ch04.residual_facts(other)["c4_residuals"]


def test_widths_of_intervals(fitted: Fit, resamples: Bootstrap) -> None:
    curves = {"E": {NAME: profile(fitted, "E", num_points=21)}}
    text = ch04.interval_verdict({NAME: resamples}, {NAME: resamples}, curves)
    width = np.ptp(curves["E"][NAME].interval()) / np.ptp(resamples.interval("E"))
    assert f"1.00 (xLSTM) times as wide; that of the profile is {width:.2f} (xLSTM) times" in text


def test_predictions_without_a_run_at_the_target(resamples: Bootstrap, table: pd.DataFrame) -> None:
    target = {"num_params": 1e9, "num_tokens": 2e10}
    none = ch04.predictions({(NAME, "all"): resamples}, {NAME: table.head(0)}, target)
    assert none["law"].item() == resamples.fit.law.predict(**target)
    assert ch04.prediction_verdict(none) == "The table has no run at this target to compare with"
    low, high = none["prediction"].item()
    inside, outside = none.assign(observed=(low + high) / 2), none.assign(observed=high + 0.1)
    assert "that of the fit to all runs holds it (" in ch04.prediction_verdict(inside)
    assert "that of the fit to all runs misses it (" in ch04.prediction_verdict(outside)


def test_errors_at_the_furthest_run(table: pd.DataFrame) -> None:
    results = {
        (NAME, "γ free"): extrapolate(table, [3e19, 1.1e20]),
        (NAME, "γ = 1"): extrapolate(table, [3e19, 1.1e20], gamma=1.0),
    }
    furthest = {key: furthest_run_errors(each) for key, each in results.items()}
    facts = ch04.furthest_facts(furthest)
    errors = np.concatenate([each["log_error"] for each in furthest.values()])
    assert facts["c4_beyond_high"] == share_in_words(int(np.sum(errors > 0)), 4)
    row = furthest[NAME, "γ free"].iloc[1]
    error = f"{100 * (row['predicted_loss'] / row['val_loss'] - 1):+.1f} %"
    assert facts["c4_beyond_middle"] == f"{error} across {row['decades']:.1f} decades (xLSTM)"
    assert facts["c4_beyond_gamma"] in ("neither of the two", "one of the two", "both")
    markup = ch04.extrapolation_table(results, furthest).markup
    assert markup.count("<tr") == 3
    assert error in markup.replace("\u00a0", " ")


def test_one_design_leaves_nothing_to_compare(fitted: Fit, table: pd.DataFrame) -> None:
    text = ch04.design_verdict({NAME: {"all": fitted}}, {NAME: {"all": table}}, {})
    assert text == "This table names one design only, so there is nothing to compare"


def test_ledger_says_what_differs() -> None:
    rows = {"entry": ["a", "a"], "quantity": ["objective", "E"], "published": [2.0, 1.0], "ours": [1.0, 1.5]}
    ledger = pd.DataFrame(rows).assign(verdict=["reproduced", "differs"], note=["", "rounded"], tolerance=0.1)
    ledger["independent"] = [False, True]
    text = ch04.ledger_verdict(ledger)
    assert text.startswith("One of the two published numbers come out again; 1 of these rest on losses that were recon")
    assert "Of the objectives, 1 of 1 agree within the tolerance" in text
    assert "differ by −0.5 to −0.5" in text
    assert text.endswith("The note of the ledger on rows that differ: “rounded”")
    assert ch04.ledger_table(ledger).markup.count("<tr") == 3
