"""Chapter 5: what it computes, and the values and words of its sentences, on lines of known exponents."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters import ch05
from companion.chapters.ch05.analysis import local_exponents, runs_in_no_line
from companion.chapters.ch05.shown import published_exponents
from companion.chapters.ch05.words import p_text, rejection, span
from companion.fitting.fit import fit
from companion.fitting.overtraining import OvertrainingSlopes, fit_overtraining_slopes
from companion.fitting.overtraining.cost import ComputeScale, cost_at_equal_compute, fit_compute_scale
from companion.fitting.overtraining.slope_tests import SHAPES, parallel_tests, slope_power
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import count, percent
from companion.laws import LossSurface

SIZES = np.array([1.6e8, 4e8, 8e8, 1.4e9, 2.8e9, 6.9e9])
RATIOS = (22.0, 110.0, 550.0)
LAW = LossSurface(E=1.7, A=400.0, B=500.0, alpha=0.34, beta=0.3)
MISREAD = [("xlstm", "standard error", 1e-3, 2.0, 3.0, 0.4), ("xlstm", "variance", 1e-6, 2e3, 3e6, 0.0)]


def made(etas: dict[float, float], noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Runs on power laws of these exponents by ratio."""
    runs = pd.DataFrame([(n, n * ratio) for ratio in etas for n in SIZES], columns=["num_params", "num_tokens"])
    runs["train_flops"] = 6 * runs["num_params"] * runs["num_tokens"]
    ratio, draws = runs["num_tokens"] / runs["num_params"], np.random.default_rng(seed).normal(0, noise, len(runs))
    losses = [ratio**0.05 * flops ** -etas[ratio] for ratio, flops in zip(ratio, runs["train_flops"], strict=True)]
    return runs.assign(val_loss=30 * np.array(losses) * np.exp(draws))


def lines(eta: float = 0.05, noise: float = 0.003, seed: int = 0) -> OvertrainingSlopes:
    return fit_overtraining_slopes(made(dict.fromkeys(RATIOS, eta), noise, seed))


@pytest.fixture(scope="module")
def of_law() -> pd.DataFrame:
    """Runs of a known law with a scatter of 0.1 %."""
    runs = made(dict.fromkeys(RATIOS, 0.05))
    noise = np.random.default_rng(0).normal(0, 0.001, len(runs))
    return runs.assign(val_loss=LAW.predict(runs["num_params"], runs["num_tokens"]) * np.exp(noise))


@pytest.fixture(scope="module")
def scale(of_law: pd.DataFrame) -> ComputeScale:
    return fit_compute_scale(of_law)


@pytest.fixture(scope="module")
def bootstrap(of_law: pd.DataFrame) -> Bootstrap:
    return fit(LossSurface, of_law, gamma=1.0).bootstrap(30)


def test_short_windows() -> None:
    slopes = lines(noise=0.002)
    windows = ch05.short_windows(slopes)
    assert len(windows) == len(RATIOS) * (4 + 3 + 2 + 1)  # six runs: windows of 3, 4, 5 and 6
    whole = windows[windows["whole"]]
    np.testing.assert_allclose(whole["eta"], slopes.table()["eta"])
    assert whole["decades"].min() > windows["decades"].min()
    assert "Stretches of three runs give an η of" in ch05.windows_verdict({"xlstm": windows})


def test_runs_in_no_line() -> None:
    runs = made(dict.fromkeys(RATIOS, 0.05), noise=0.003)
    fits = fit_overtraining_slopes(runs)
    more = pd.concat([runs, runs.tail(1).assign(num_tokens=1e9)], ignore_index=True)
    assert runs_in_no_line(more, fits).index.tolist() == [len(runs)]
    other = more.assign(experiment=["tokenparam"] * len(runs) + ["isoflop"])
    assert runs_in_no_line(other, fits).empty


def test_opening() -> None:
    facts = ch05.opening_facts({"xlstm": lines()}, 0.25)
    etas = lines().table()["eta"]
    assert facts == {
        "c5_tolerance": "25 %",
        "c5_published_tolerance": "18 %",
        "c5_eta_typical": "0.050",
        "c5_eta_range": f"{etas.min():.4f} to {etas.max():.4f} (xLSTM)",
    }


def test_answer_of_parallel_lines() -> None:
    slopes = {"transformer": lines(eta=0.05), "gpt": lines(eta=0.02)}
    found = ch05.answers(slopes)
    facts = ch05.answer_facts(slopes, found)
    # 10^-0.05 is 0.891, 10^-0.02 is 0.955
    assert facts["c5_answer_rate"] == (
        "Yes, as far as these runs can show: ten times the compute lowers the loss by "
        f"{100 - 100 * 10 ** -slopes['transformer'].common_eta:.1f} % (Transformer) and "
        f"{100 - 100 * 10 ** -slopes['gpt'].common_eta:.1f} % (gpt), at every ratio"
    )
    assert slopes["transformer"].common_eta == pytest.approx(0.05, abs=0.002)
    assert facts["c5_answer_runs"] == "36"
    share = max(values["missed"] / slopes[name].common_eta for name, values in found.items())
    assert facts["c5_answer_limits"] == (
        f"A change of the exponent by up to {percent(share)} over the ratios could have gone unnoticed"
    )
    prices = {"gpt": 0.025}
    markup = ch05.answer_table(slopes, found, prices, 1e21, 220).markup
    assert "loss at M\u00a0=\u00a0220 above the optimum" in markup
    assert "2.5\u00a0%" in markup
    assert "18,\u00a0M\u00a0=\u00a022 to 550" in markup
    assert "above the optimum" not in ch05.answer_table(slopes, found, {}, 1e21, 220).markup


def test_answer_of_other_lines() -> None:
    fan = {"transformer": fit_overtraining_slopes(made({22.0: 0.05, 110.0: 0.05, 550.0: 0.07}, 0.002))}
    facts = ch05.answer_facts(fan, ch05.answers(fan))
    assert facts["c5_answer_rate"].startswith("Not for the Transformer: ten times")
    assert facts["c5_answer_rate"].endswith("on average over the ratios")
    one = {"gpt": fit_overtraining_slopes(made({22.0: 0.05}, 0.002))}
    facts = ch05.answer_facts(one, ch05.answers(one))
    assert facts["c5_answer_rate"].startswith("These runs cannot tell: ten times")
    assert facts["c5_answer_limits"].startswith("The runs are too few")
    assert "more than" not in ch05.answer_table(one, ch05.answers(one), {}, 1e21, 220).markup
    blind = {"gpt": fit_overtraining_slopes(made(dict.fromkeys(RATIOS, 0.05), 0.1))}
    facts = ch05.answer_facts(blind, ch05.answers(blind))
    share = percent(ch05.CHANGES[-1] / blind["gpt"].common_eta)
    assert facts["c5_answer_limits"].startswith(f"Even a change of the exponent by {share} over the ratios could")
    assert "more than 0.0120" in ch05.answer_table(blind, ch05.answers(blind), {}, 1e21, 220).markup
    # straight lines do not differ, but a test by size sees that they do
    doubted = {"p": 0.3, "sharp": 0.01, "missed": 0.01, "bend": 0.0, "bend_without": 0.0}
    facts = ch05.answer_facts(fan, {"transformer": doubted})
    assert facts["c5_answer_limits"].endswith(
        "could have gone unnoticed, and a sharper test finds one for the Transformer"
    )


def test_price(of_law: pd.DataFrame, scale: ComputeScale, bootstrap: Bootstrap) -> None:
    few = made({22.0: 0.05})
    prices = ch05.price({"gpt": of_law, "few": few}, None, 1.0, train_flops=1e21, ratio=550)
    expected = cost_at_equal_compute(bootstrap.fit.law, scale, 1e21, [550])["relative_penalty"][0]
    assert list(prices) == ["gpt"]  # one ratio does not identify the law
    assert prices["gpt"] == pytest.approx(expected)


def test_published_numbers() -> None:
    rows = [("a line", "eta"), ("a line", "log_lambda"), ("a line", "lambda_"), ("M table_of_the_paper=True", "eta")]
    ledger = pd.DataFrame(rows, columns=["entry", "quantity"]).assign(verdict="reproduced", independent=True)
    facts = ch05.ledger_facts(ledger)
    assert facts == {
        "c5_reproduced": "all 4",
        "c5_independent": "All of them are",
        "c5_repeated": "2",
        "c5_distinct": "2",
    }
    ledger.loc[0, "verdict"], ledger.loc[1, "independent"] = "differs", False
    facts = ch05.ledger_facts(ledger)
    assert (facts["c5_reproduced"], facts["c5_independent"]) == ("3 of the 4", "Of these, 2 are")


def test_a_variance_misread() -> None:
    slopes = {"xlstm": lines()}
    text = ch05.variance_verdict(slopes, MISREAD)
    assert text.endswith("p = 0.40 (xLSTM). Misread, the same exponents would differ beyond doubt")
    assert text.startswith("The variance is about")
    assert "p falls to 0.01" in ch05.variance_verdict(slopes, [MISREAD[0], (*MISREAD[1][:5], 0.01)])
    assert "isread" not in ch05.variance_verdict(slopes, [])  # one ratio: nothing to compare
    assert "&lt;\u00a010⁻³⁰⁰" in ch05.misread_table(MISREAD).markup
    large = ch05.misread_table([(*MISREAD[0][:4], 20_861_982.8, MISREAD[0][5])]).markup
    assert "2.1×10⁷" in large


@pytest.mark.parametrize(("change", "words"), [(0.0, "are not rejected for gpt"), (0.02, "are rejected for gpt")])
def test_whether_the_lines_are_parallel(change: float, words: str) -> None:
    slopes = {"gpt": fit_overtraining_slopes(made({22.0: 0.05, 110.0: 0.05, 550.0: 0.05 + change}, 0.002))}
    tests = {name: parallel_tests(fits) for name, fits in slopes.items()}
    power = {("gpt", shape): slope_power(slopes["gpt"], [0.0, 1e-6], shape, num_simulations=50) for shape in SHAPES}
    seen = ch05.detectable(power, slopes)
    facts = ch05.parallel_facts(tests)
    assert facts["c5_straight"] == f"equal slopes {words} (p\u00a0=\u00a0{p_text(slopes['gpt'].p_value)})"
    assert ch05.power_verdict(seen, 1e-6) == "more than 0.0000 (the largest that was simulated) for gpt"
    found = seen.assign(f_test=0.002, share=0.04)
    assert ch05.power_verdict(found, 1e-6) == "0.0020 (4.0 % of η) for gpt"
    assert facts["c5_num_tests"] == "six"


def test_words() -> None:
    assert [p_text(p) for p in (0.784, 0.0042, 4.9e-6, 0.0)] == ["0.78", "0.0042", "4.9×10⁻⁶", "< 10⁻³⁰⁰"]
    assert rejection({"a": np.nan}) == "equal slopes cannot be tested"
    assert rejection({"transformer": 0.004, "xlstm": 0.3}) == (
        "equal slopes are rejected for the Transformer (p\u00a0=\u00a00.0040) "
        "but not for the xLSTM (p\u00a0=\u00a00.30)"
    )
    assert span([np.nan]) == "unknown"
    assert span([0.5, 0.5]) == "0.5000"


def test_choices_of_runs() -> None:
    runs = made(dict.fromkeys(RATIOS, 0.05), 0.003)
    out = fit_overtraining_slopes(runs)
    kept = fit_overtraining_slopes(runs.assign(val_loss=runs["val_loss"] * np.where(runs.index == 0, 1.05, 1.0)))
    same = ch05.choice_verdict({("xlstm", 0.18, False): out, ("xlstm", 0.18, True): out}, 0.18)
    assert "left out" not in same
    choices = {("xlstm", 0.18, False): out, ("xlstm", 0.18, True): kept}
    moved = ch05.choice_verdict(choices, 0.18)
    errors = abs(kept.laws[22.0].law.exponent - out.laws[22.0].law.exponent) / out.laws[22.0].exponent_standard_error
    eta = -out.laws[22.0].law.exponent
    assert f"at M = 22 (xLSTM) from {eta:.4f}" in moved
    assert f"by {errors:.1f} standard errors" in moved
    fan = fit_overtraining_slopes(made({22.0: 0.05, 110.0: 0.05, 550.0: 0.07}, 0.002))
    wide = choices | {("xlstm", 0.5, False): fan, ("xlstm", 0.5, True): fan}
    assert ch05.choice_verdict(wide, 0.18).endswith("equal slopes are rejected at one (xLSTM) of the two widths")
    # the line that the run changes shows both exponents, the others one
    markup = ch05.exponents_table(choices).markup
    assert f"{eta:.4f} ({-kept.laws[22.0].law.exponent:.4f})" in markup
    assert markup.count("(0.") == 1


def test_conventions() -> None:
    slopes = {"gpt": lines(0.05), "xlstm": lines(0.049, seed=1)}
    none = ch05.convention_facts(slopes, {}, "no column 'd_model'")
    assert none["c5_convention"] == "This table cannot be counted again: no column 'd_model'"
    assert "cannot be counted again" in ch05.conventions_table({}, "no column 'd_model'").markup
    assert "sign" not in none["c5_difference"]
    counts = ("paper", "tfla", "chinchilla attention", "6ND")
    counted = {(name, count): fits for name, fits in slopes.items() for count in counts}
    facts = ch05.convention_facts(slopes, counted, "")
    assert "changes by up to 0 with tfla" in facts["c5_convention"]
    assert "Its sign stays the same" in facts["c5_difference"]
    turned = counted | {("gpt", "6ND"): slopes["xlstm"], ("xlstm", "6ND"): slopes["gpt"]}
    facts = ch05.convention_facts(slopes, turned, "")
    assert "Its sign depends on the convention" in facts["c5_difference"]
    change = -slopes["gpt"].laws[22.0].law.exponent + slopes["xlstm"].laws[22.0].law.exponent
    assert change != 0
    assert "with chinchilla attention and 0 with 6ND" not in facts["c5_convention"]
    alone = ch05.convention_facts({"gpt": slopes["gpt"]}, {}, "")
    assert alone["c5_difference"] == "With one architecture, or more than two, there is no pair to compare"


def test_lines_of_a_law_bend(of_law: pd.DataFrame, scale: ComputeScale, bootstrap: Bootstrap) -> None:
    slopes = {"xlstm": fit_overtraining_slopes(of_law)}
    bends = ch05.bends(slopes, slopes)
    np.testing.assert_allclose(bends["seen"], bends["law"])
    beyond = ch05.beyond(slopes, {"xlstm": scale}, {"xlstm": bootstrap})
    facts = ch05.bend_facts({"xlstm": bootstrap}, bends, beyond)
    assert (
        facts["c5_bend"]
        == "With all sizes, the lines of the xLSTM flatten. Without the smallest, the lines of the xLSTM flatten"
    )
    assert facts["c5_bend_law"] == "The law predicts a flattening in both rows"
    steeper = bends.assign(seen=-bends["seen"])
    facts = ch05.bend_facts({"xlstm": bootstrap}, steeper, beyond)
    assert facts["c5_bend"].startswith("With all sizes, no lines flatten, and those of the xLSTM become steeper")
    few = bends.assign(seen=np.nan, law=np.nan, p=np.nan)
    facts = ch05.bend_facts({"xlstm": bootstrap}, few, beyond)
    assert facts["c5_bend"].count("too few to show a bend") == 2
    assert facts["c5_bend_law"].startswith("The runs are too few")


def test_exponents_that_the_law_implies_are_close() -> None:
    slopes = {"xlstm": lines(seed=1)}
    assert ch05.implied_facts(slopes, slopes) == {"c5_implied_apart": "0.0000 (xLSTM)"}
    other = {"xlstm": lines(seed=2)}
    apart = np.abs(slopes["xlstm"].table()["eta"] - other["xlstm"].table()["eta"]).max()
    assert ch05.implied_facts(slopes, other) == {"c5_implied_apart": f"{apart:.4f} (xLSTM)"}


def test_line_and_law_part_beyond_the_runs(of_law: pd.DataFrame, scale: ComputeScale, bootstrap: Bootstrap) -> None:
    slopes = {"xlstm": fit_overtraining_slopes(of_law)}
    [row] = ch05.beyond(slopes, {"xlstm": scale}, {"xlstm": bootstrap}).to_dict("records")
    last = of_law.loc[of_law["num_tokens"] / of_law["num_params"] < 30, "train_flops"].max()
    assert row["flops"] == pytest.approx(100 * last)
    # C = 6ND here, so a hundred times the compute at one ratio is ten times the size
    size = 10 * SIZES[-1]
    assert row["law"] == pytest.approx(bootstrap.fit.law.predict(size, 22 * size), rel=1e-4)
    assert row["line"] < row["low"] < row["law"] < row["high"]  # a line knows no floor
    assert f"{row['law']:.3f} [{row['low']:.3f}," in ch05.beyond_table(pd.DataFrame([row])).markup.replace(
        "\u00a0", " "
    )


def test_local_exponents_fall(of_law: pd.DataFrame, scale: ComputeScale, bootstrap: Bootstrap) -> None:
    curve = local_exponents(fit_overtraining_slopes(of_law), scale, bootstrap)
    assert curve["tokens_per_param"].unique().tolist() == [22, 550]
    for _, part in curve.groupby("tokens_per_param"):
        assert (np.diff(part["eta"]) < 0).all()
        assert (part["low"] < part["eta"]).all()
        assert (part["eta"] < part["high"]).all()


def test_costs(scale: ComputeScale, bootstrap: Bootstrap) -> None:
    law = bootstrap.fit.law
    table = ch05.costs(bootstrap, scale, 1e21, [22, 550])
    expected = cost_at_equal_compute(law, scale, 1e21, [22, 550])
    np.testing.assert_allclose(table["relative_penalty"], expected["relative_penalty"])
    facts = ch05.cost_facts({"xlstm": table}, {"xlstm": bootstrap.fit}, {"xlstm": scale}, 1e21, 550)
    assert facts["c5_cost_brief"].startswith(f"{100 * expected['relative_penalty'][1]:.1f} % more loss at")
    row = table.iloc[1]
    assert facts["c5_cost_equal"] == (
        f"At equal loss it takes {row['compute_factor']:.2f} times the compute for {row['size_at_equal_loss']:.2f} of "
        f"the size (xLSTM), and pays back after {count(row['break_even_tokens'], 2)} (xLSTM) served tokens"
    )
    below = ch05.cost_facts({"xlstm": table}, {"xlstm": bootstrap.fit}, {"xlstm": scale}, 1e21, 22)
    assert np.isnan(table["break_even_tokens"][0])
    assert below["c5_cost_equal"] == "At equal loss it buys no smaller model"
    for shown in (ch05.compute_table({"xlstm": table}, 1e21), ch05.loss_table({"xlstm": table}, 1e21)):
        assert shown.markup.count("<th") <= 7
    other = pd.DataFrame({"penalty": [table["relative_penalty"][1], 9.0], "optimal_ratio": [20.0, 30.0]})
    text = ch05.sensitivity_facts({"xlstm": other}, {"xlstm": table}, 550)["c5_sensitivity"]
    assert "the optimal M is 20.0 to 30.0 (xLSTM)" in text
    assert text.endswith("for one of the two (xLSTM) laws")


def test_front(of_law: pd.DataFrame, scale: ComputeScale) -> None:
    fits = fit_overtraining_slopes(of_law)
    penalty = ch05.penalties(fits, LAW, scale)
    assert len(penalty) == 12 * len(RATIOS)
    markup = ch05.front_table({"xlstm": fits.data.assign(excess=0.01)}, {"xlstm": penalty}).markup
    assert markup.count("1.0\u00a0%") == len(RATIOS)
    most = 100 * penalty.loc[penalty["tokens_per_param"] == 550, "relative_penalty"].max()
    assert f"to {most:.1f}\u00a0%" in markup
    excess = fits.data.assign(excess=np.where(fits.data["tokens_per_param"] == 550, 0.01, 0.5))
    facts = ch05.front_facts({"xlstm": excess}, {"xlstm": penalty})
    assert facts["c5_front_runs"] == "1.0 % (xLSTM, M = 550)"
    assert facts["c5_front_law"].endswith(f"to {most:.1f} % (xLSTM)")


def test_one_ratio_knows_little() -> None:
    fits = {}
    for ratios in ((22.0,), (22.0, 220.0), (22.0, 220.0, 2200.0)):
        exact = ch05.exact_runs(LAW, ratios)
        for gamma in (1.0, None):
            fits[ratios, gamma] = fit(LossSurface, exact, gamma=gamma, num_starts=8)
    facts = ch05.exact_facts("xlstm", fits, LAW)
    assert facts["c5_first"] == "the xLSTM"
    assert "wrong form" not in facts["c5_exact"]  # the truth has γ = 1: the fits at γ = 1 are exact
    other = LossSurface(**{**LAW.__dict__, "gamma": 0.5})
    assert "the wrong form γ = 1 fits to" in ch05.exact_facts("xlstm", fits, other)["c5_exact"]
    single = {("xlstm", "M = 22"): fits[(22.0,), 1.0], ("xlstm", "all lines"): fits[(22.0, 220.0, 2200.0), 1.0]}
    assert ch05.single_verdict(single).startswith("The one fit to a single ratio comes with a warning")
    single["xlstm", "M = 44"] = single["xlstm", "all lines"]
    assert ch05.single_verdict(single).startswith("Of the fits to single ratios, one of the two come with a warning")


def test_published_exponents_are_found_by_name() -> None:
    entry = "transformer table_of_the_paper token_param_ratio=22.0"
    ledger = pd.DataFrame(
        {"entry": [entry, "another"], "quantity": ["eta_transformer", "eta"], "published": [0.05, 1.0]}
    )
    found = published_exponents(ledger)
    assert found[["name", "M", "published"]].to_numpy().tolist() == [["transformer", 22.0, 0.05]]
