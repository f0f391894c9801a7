"""Chapter 5: what it computes, and the values and words of its sentences, on lines of known exponents."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters import ch05
from companion.chapters.ch05.analysis import local_exponents, runs_in_no_line
from companion.chapters.ch05.shown import published_exponents
from companion.fitting.fit import fit
from companion.fitting.overtraining import OvertrainingSlopes, fit_overtraining_slopes
from companion.fitting.overtraining.cost import ComputeScale, cost_at_equal_compute, fit_compute_scale
from companion.fitting.overtraining.slope_tests import SHAPES, parallel_tests, slope_power
from companion.fitting.uncertainty import Bootstrap
from companion.laws import LossSurface

SIZES = np.array([1.6e8, 4e8, 8e8, 1.4e9, 2.8e9, 6.9e9])
RATIOS = (22.0, 110.0, 550.0)
LAW = LossSurface(E=1.7, A=400.0, B=500.0, alpha=0.34, beta=0.3)
MISREAD = [("xlstm", "standard error", 1e-3, 2.0, 3.0, 0.4), ("xlstm", "variance, read as one", 1e-6, 2e3, 3e6, 0.0)]


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
    assert "stretches of three runs give η from" in ch05.windows_verdict({"xlstm": windows})


def test_runs_in_no_line() -> None:
    runs = made(dict.fromkeys(RATIOS, 0.05), noise=0.003)
    fits = fit_overtraining_slopes(runs)
    more = pd.concat([runs, runs.tail(1).assign(num_tokens=1e9)], ignore_index=True)
    assert runs_in_no_line(more, fits).index.tolist() == [len(runs)]
    other = more.assign(experiment=["tokenparam"] * len(runs) + ["isoflop"])
    assert runs_in_no_line(other, fits).empty


def test_opening() -> None:
    facts = ch05.opening_facts({"xlstm": lines()}, 0.18)
    assert facts["c5_num_runs"] == "18"
    assert facts["c5_tolerance"] == "18 %"
    assert facts["c5_notes"] == "Every ratio has its line"
    few = fit_overtraining_slopes(made({22.0: 0.05, 110.0: 0.05}, 0.003).iloc[:8])
    assert "xLSTM: ratio 110: 2 runs, fewer than 3" in ch05.opening_facts({"xlstm": few}, 0.18)["c5_notes"]


def test_a_variance_misread() -> None:
    slopes = {"xlstm": lines()}
    text = ch05.variance_verdict(slopes, MISREAD)
    assert "the test of equal exponents has p = 0.4; misread, they look clearly different" in text
    assert text.startswith("The variance is about")
    assert "p falls to 0.01" in ch05.variance_verdict(slopes, [MISREAD[0], (*MISREAD[1][:5], 0.01)])
    assert "misread" not in ch05.variance_verdict(slopes, [])  # one ratio: nothing to compare
    assert "&lt; 1e-300" in ch05.misread_table(MISREAD).markup


@pytest.mark.parametrize(("change", "word"), [(0.0, "not rejected"), (0.02, "rejected at 5 % for gpt")])
def test_whether_the_lines_are_parallel(change: float, word: str) -> None:
    slopes = {"gpt": fit_overtraining_slopes(made({22.0: 0.05, 110.0: 0.05, 550.0: 0.05 + change}, 0.002))}
    tests = {name: parallel_tests(fits) for name, fits in slopes.items()}
    power = {("gpt", shape): slope_power(slopes["gpt"], [0.0, 1e-6], shape, num_simulations=50) for shape in SHAPES}
    seen = ch05.detectable(power, slopes)
    facts = ch05.parallel_facts(slopes, tests, seen, 1e-6)
    assert word in facts["c5_parallel"]
    assert facts["c5_parallel_p"] == f"{slopes['gpt'].p_value:.2f}"
    assert facts["c5_missed"] == "0.0000 (the largest that was tried) for gpt"
    assert f"in common {slopes['gpt'].common_eta:.4f}" in facts["c5_exponents"]


def test_choices_of_runs() -> None:
    runs = made(dict.fromkeys(RATIOS, 0.05), 0.003)
    out = fit_overtraining_slopes(runs)
    kept = fit_overtraining_slopes(runs.assign(val_loss=runs["val_loss"] * np.where(runs.index == 0, 1.05, 1.0)))
    same = ch05.choice_verdict({("xlstm", 0.18, False): out, ("xlstm", 0.18, True): out}, 0.18)
    assert "left out" not in same
    moved = ch05.choice_verdict({("xlstm", 0.18, False): out, ("xlstm", 0.18, True): kept}, 0.18)
    errors = abs(kept.laws[22.0].law.exponent - out.laws[22.0].law.exponent) / out.laws[22.0].exponent_standard_error
    assert f"at M = 22 (xLSTM) from {-out.laws[22.0].law.exponent:.4f}" in moved
    assert moved.endswith(f"{errors:.1f} standard errors")


def test_conventions() -> None:
    slopes = {"gpt": lines(0.05), "xlstm": lines(0.049, seed=1)}
    none = ch05.convention_facts(slopes, {}, "no column 'd_model'")
    assert none["c5_convention"] == "This table cannot be counted again: no column 'd_model'"
    assert "cannot be counted again" in ch05.conventions_table({}, "no column 'd_model'").markup
    assert "sign" not in none["c5_difference"]
    counts = ("paper", "tfla", "chinchilla attention", "6ND")
    counted = {(name, count): fits for name, fits in slopes.items() for count in counts}
    facts = ch05.convention_facts(slopes, counted, "")
    assert "gpt, tfla: none" in facts["c5_convention"]
    assert "the sign stays the same" in facts["c5_difference"]
    turned = counted | {("gpt", "6ND"): slopes["xlstm"], ("xlstm", "6ND"): slopes["gpt"]}
    assert "the sign depends on the convention" in ch05.convention_facts(slopes, turned, "")["c5_difference"]
    alone = ch05.convention_facts({"gpt": slopes["gpt"]}, {}, "")
    assert alone["c5_difference"] == "With one architecture, or more than two, there is no pair to compare"


def test_lines_of_a_law_bend(of_law: pd.DataFrame, scale: ComputeScale, bootstrap: Bootstrap) -> None:
    slopes = {"xlstm": fit_overtraining_slopes(of_law)}
    bends = ch05.bends(slopes, slopes)
    np.testing.assert_allclose(bends["seen"], bends["law"])
    facts = ch05.bend_facts(slopes, {"xlstm": scale}, {"xlstm": bootstrap}, bends)
    assert facts["c5_take_bend"] == "for xLSTM with all sizes and for xLSTM without the smallest"
    few = bends.assign(seen=np.nan, p=np.nan)
    facts = ch05.bend_facts(slopes, {"xlstm": scale}, {"xlstm": bootstrap}, few)
    assert facts["c5_take_bend"].count("none (too few runs)") == 2
    assert facts["c5_bend"].endswith("Nothing to fit: no ratio has enough runs for its line and a bend")


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
    assert facts["c5_cost_brief"].startswith(f"{expected['relative_penalty'][1]:.1%} more loss")
    assert "paid back after" in facts["c5_cost"]
    other = pd.DataFrame({"penalty": [table["relative_penalty"][1], 9.0], "optimal_ratio": [20.0, 30.0]})
    text = ch05.sensitivity_verdict({"xlstm": other}, {"xlstm": table}, 550)
    assert "optimal M 20.0 to 30.0; 1 of 2 laws" in text


def test_front(of_law: pd.DataFrame, scale: ComputeScale) -> None:
    fits = fit_overtraining_slopes(of_law)
    penalty = ch05.penalties(fits, LAW, scale)
    assert len(penalty) == 12 * len(RATIOS)
    text = ch05.front_verdict({"xlstm": fits.data.assign(excess=0.01)}, {"xlstm": penalty})
    assert "M = 22 lies 1.0% to 1.0% above the front" in text
    assert "M = 550 lies" in text


def test_one_ratio_knows_little() -> None:
    fits = {}
    for ratios in ((22.0,), (22.0, 220.0), (22.0, 220.0, 2200.0)):
        n, m = (grid.ravel() for grid in np.meshgrid(np.geomspace(1.5e8, 7e9, 8), ratios))
        exact = pd.DataFrame({"num_params": n, "num_tokens": m * n, "val_loss": LAW.predict(n, m * n)})
        for gamma in (1.0, None):
            fits[ratios, gamma] = fit(LossSurface, exact, gamma=gamma, num_starts=8)
    text = ch05.exact_verdict(fits, LAW)
    assert "γ = 1 fit to" not in text  # the truth has γ = 1: the fits at γ = 1 are exact
    assert "γ = 1 fit to" in ch05.exact_verdict(fits, LossSurface(**{**LAW.__dict__, "gamma": 0.5}))
    single = {("xlstm", "M = 22"): fits[(22.0,), 1.0], ("xlstm", "all lines"): fits[(22.0, 220.0, 2200.0), 1.0]}
    assert ch05.single_verdict(single).startswith("Of 1 single ratios with enough runs, 1 warn")


def test_published_exponents_are_found_by_name() -> None:
    entry = "transformer table_of_the_paper token_param_ratio=22.0"
    ledger = pd.DataFrame(
        {"entry": [entry, "another"], "quantity": ["eta_transformer", "eta"], "published": [0.05, 1.0]}
    )
    found = published_exponents(ledger)
    assert found[["name", "M", "published"]].to_numpy().tolist() == [["transformer", 22.0, 0.05]]
