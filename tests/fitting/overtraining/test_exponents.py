"""Over-training slopes: published values, recovery, the tests' sizes and power, readers' tables, bad input."""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.fitting.overtraining.exponents import (
    fit_overtraining,
    fit_overtraining_slopes,
    fit_slopes_by_ratio,
    ratio_groups,
    tokens_per_param_preset,
)
from companion.fitting.overtraining.slope_tests import (
    SHAPES,
    bending,
    bending_if_possible,
    compare_slopes,
    detectable_change,
    heterogeneity,
    parallel_tests,
    slope_power,
    slope_trend,
)
from companion.paths import data_dir
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

RUNS = load_paper_runs()
ARCHITECTURES = ("transformer", "xlstm")
SIZES = np.array([1.6e8, 4e8, 8e8, 1.4e9, 2.8e9, 6.9e9])
RATIOS = (22.0, 110.0, 550.0)


def runs_of(architecture: str) -> pd.DataFrame:
    return subset(RUNS, architecture=architecture, context_length=8192)


def made(etas: dict[float, float], noise: float = 0.0, seed: int = 0, bend: float = 0.0) -> pd.DataFrame:
    """Runs at exact ratios with log L = 2 + log M/50 - eta·x + bend·x², x = ln(C / 1e20), and normal noise."""
    ratio, size = (grid.ravel() for grid in np.meshgrid(list(etas), SIZES, indexing="ij"))
    flops = 6 * size**2 * ratio
    x = np.log(flops / 1e20)
    log_loss = 1 + np.log(ratio) / 50 - np.array([etas[m] for m in ratio]) * x + bend * x**2
    log_loss = log_loss + noise * np.random.default_rng(seed).normal(size=x.size)
    return pd.DataFrame(
        {"num_params": size, "num_tokens": ratio * size, "train_flops": flops, "val_loss": np.exp(log_loss)}
    )


# ---- published values ----------------------------------------------------------------------------


def test_published_slopes_come_out_again() -> None:
    published = yaml.safe_load((data_dir() / "published.yaml").read_text())["overtraining_slopes"]
    slopes = {name: fit_overtraining_slopes(runs_of(name)) for name in ARCHITECTURES}
    checked = 0
    for entry in published:
        ratio = float(entry["token_param_ratio"])
        if entry.get("table_of_the_paper"):
            for name in ARCHITECTURES:
                eta = -slopes[name].laws[ratio].law.exponent
                assert eta == pytest.approx(entry[f"eta_{name}"], abs=5.1e-4)
                checked += 1
        elif '"first"' in entry["flop_mode"]:
            law = slopes[entry["architecture"]].laws[ratio].law
            assert -law.exponent == pytest.approx(entry["eta"], abs=2e-6)
            assert law.prefactor == pytest.approx(entry["lambda_"], rel=1e-4)
            checked += 1
    assert checked >= 12


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_slopes_agree_with_the_fit_of_one_ratio(name: str) -> None:
    table = runs_of(name)
    slopes = fit_overtraining_slopes(table, keep_left_out=True)
    for ratio, fit in slopes.laws.items():
        alone = fit_overtraining(table, ratio)
        assert alone.law.exponent == pytest.approx(fit.law.exponent)
        assert alone.exponent_standard_error == pytest.approx(fit.exponent_standard_error)


def test_the_run_left_out_by_hand() -> None:
    out, kept = (fit_overtraining_slopes(runs_of("xlstm"), keep_left_out=keep) for keep in (False, True))
    assert len(kept.data) == len(out.data) + 1
    assert any("left out as published" in note for note in out.warnings)
    changed = {m for m in out.laws if out.laws[m].law.exponent != kept.laws[m].law.exponent}
    assert changed == {44.0}


def test_a_wider_window_takes_more_runs() -> None:
    counts = [len(fit_overtraining_slopes(runs_of("transformer"), tolerance=w).data) for w in (0.1, 0.18, 0.25)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


# ---- recovery and tests --------------------------------------------------------------------------


@given(st.floats(0.01, 0.2))
def test_exact_data_give_the_slope_back(eta: float) -> None:
    slopes = fit_overtraining_slopes(made(dict.fromkeys(RATIOS, eta)))
    np.testing.assert_allclose(slopes.table()["eta"], eta, rtol=1e-9)
    assert slopes.common_eta == pytest.approx(eta, rel=1e-9)
    assert np.isnan(slopes.p_value)  # exact lines leave no scatter to test against
    assert np.abs(slopes.data["residual"]).max() < 1e-9
    assert bending(slopes).value == pytest.approx(0, abs=1e-9)


def test_f_test_against_two_regressions() -> None:
    """The F-statistic by dummy-variable least squares, written out."""
    slopes = fit_overtraining_slopes(made(dict.fromkeys(RATIOS, 0.05), noise=0.004))
    data = slopes.data
    x, y = np.log(data["train_flops"].to_numpy()), np.log(data["val_loss"].to_numpy())
    groups = (data["tokens_per_param"].to_numpy()[:, None] == np.array(RATIOS)).astype(float)
    squares = [
        np.linalg.lstsq(design, y, rcond=None)[1][0]
        for design in (
            np.hstack([groups, x[:, None] - x.mean()]),
            np.hstack([groups, groups * (x[:, None] - x.mean())]),
        )
    ]
    expected = (squares[0] - squares[1]) / 2 / (squares[1] / (len(y) - 6))
    assert slopes.f_statistic == pytest.approx(expected)
    tests = parallel_tests(slopes).set_index("shape")
    assert tests.loc["straight", "f_statistic"] == pytest.approx(expected)
    assert tests.loc["straight", "p_value"] == pytest.approx(slopes.p_value)
    assert slopes.f_degrees == (2, len(y) - 6)


def test_p_values_are_uniform_under_parallel_lines() -> None:
    found = []
    for seed in range(300):
        slopes = fit_overtraining_slopes(made(dict.fromkeys(RATIOS, 0.05), noise=0.004, seed=seed))
        found.append([slopes.p_value, *parallel_tests(slopes)["p_value"]])
    for p_values in np.array(found).T:
        sorted_p = np.sort(p_values)
        distance = np.abs(sorted_p - (np.arange(sorted_p.size) + 0.5) / sorted_p.size).max()
        assert distance < 1.63 / np.sqrt(sorted_p.size)  # Kolmogorov-Smirnov, 1 %


def test_different_slopes_are_detected() -> None:
    slopes = fit_overtraining_slopes(made({22.0: 0.045, 110.0: 0.05, 550.0: 0.055}, noise=0.003))
    assert slopes.p_value < 1e-3
    assert (parallel_tests(slopes)["p_value"] < 1e-2).all()


def test_a_trend_of_the_slopes_has_its_value_and_sign() -> None:
    rising = dict(zip(RATIOS, (0.045, 0.05, 0.055), strict=True))
    exact = 0.01 / np.log10(RATIOS[-1] / RATIOS[0])  # the ratios are evenly spaced in log M
    trend = slope_trend(fit_overtraining_slopes(made(rising, noise=0.001)))
    low, high = trend.interval()
    assert low < exact < high
    assert trend.value == pytest.approx(exact, rel=0.2)
    level = slope_trend(fit_overtraining_slopes(made(dict.fromkeys(RATIOS, 0.05), noise=0.001)))
    assert level.p_value > 0.01
    with pytest.raises(InputError, match="one ratio of tokens to parameters only"):
        slope_trend(fit_overtraining_slopes(made({22.0: 0.05}, noise=0.001)))


def test_bent_lines_are_found_bent_and_still_parallel() -> None:
    slopes = fit_overtraining_slopes(made(dict.fromkeys(RATIOS, 0.05), noise=0.001, bend=0.001))
    bend = bending(slopes)
    assert bend.p_value < 1e-3
    low, high = bend.interval()
    assert low < -2 * 0.001 * np.log(10) < high
    assert parallel_tests(slopes).set_index("shape").loc["bent", "p_value"] > 0.01


def test_bend_of_too_few_runs_is_nan() -> None:
    runs = made(dict.fromkeys(RATIOS, 0.05), noise=0.001, bend=0.0003)
    three = runs[runs["num_params"].isin(SIZES[:3])]
    data = fit_overtraining_slopes(three).data
    assert bending_if_possible(data) == bending(fit_overtraining_slopes(three))
    for few in (data[data["num_params"] > SIZES[0]], data.iloc[:3], data.iloc[:0]):
        bend = bending_if_possible(few)
        assert np.isnan([bend.value, bend.p_value, *bend.interval()]).all()


def test_power_by_simulation() -> None:
    slopes = fit_overtraining_slopes(runs_of("transformer"))
    for shape in SHAPES:
        power = slope_power(slopes, np.linspace(0, 0.012, 7), shape, num_simulations=1000)
        assert 0.02 < power["f_test"][0] < 0.08
        assert power["f_test"].iloc[-1] > 0.99
        assert (
            power["trend_test"][1:] >= power["f_test"][1:] - 0.05
        ).all()  # one degree of freedom aimed at the change
        assert 0.001 < detectable_change(power) < 0.012
    assert np.isnan(detectable_change(power.iloc[:1]))
    pd.testing.assert_frame_equal(slope_power(slopes, [0.003], seed=3), slope_power(slopes, [0.003], seed=3))


def test_simulated_power_is_what_simulated_tables_show() -> None:
    base = fit_overtraining_slopes(made(dict.fromkeys(RATIOS, 0.05), noise=0.004))
    scatter = np.sqrt((base.data["residual"] ** 2).sum() / base.f_degrees[1])
    etas = {22.0: 0.0485, 110.0: 0.05, 550.0: 0.0515}
    hits = [fit_overtraining_slopes(made(etas, noise=scatter, seed=1000 + i)).p_value < 0.05 for i in range(400)]
    assert slope_power(base, [0.003])["f_test"][0] == pytest.approx(np.mean(hits), abs=0.08)


def test_variance_read_as_standard_error_overstates_the_evidence() -> None:
    table = fit_overtraining_slopes(runs_of("transformer")).table()
    right, wrong = (heterogeneity(table["eta"], table["eta_standard_error"] ** power) for power in (1, 2))
    assert right[1] > 0.01
    assert wrong[0] > 1e5 * right[0]
    assert wrong[1] < 1e-100
    assert heterogeneity([1.0, 3.0], [1.0, 1.0]) == pytest.approx((2.0, 0.15729920705))


def test_comparison_of_two_sets() -> None:
    first, second = (
        fit_overtraining_slopes(made(dict.fromkeys(RATIOS, eta), noise=0.002, seed=seed))
        for seed, eta in enumerate((0.05, 0.045))
    )
    difference = compare_slopes(first, second)
    low, high = difference.interval()
    assert low < 0.005 < high
    assert difference.p_value < 1e-3
    assert compare_slopes(second, first).value == pytest.approx(-difference.value)


# ---- readers' tables -----------------------------------------------------------------------------


def test_ratio_groups_of_a_readers_table() -> None:
    table = made({20.0: 0.05, 100.0: 0.05, 480.0: 0.05})
    table["num_tokens"] *= 1 + 0.05 * np.random.default_rng(0).uniform(-1, 1, len(table))
    groups = ratio_groups(table)
    assert len(np.unique(groups)) == 3
    np.testing.assert_allclose(np.unique(groups), [20, 100, 480], rtol=0.06)
    shuffled = table.sample(frac=1, random_state=1)
    np.testing.assert_array_equal(np.unique(ratio_groups(shuffled)), np.unique(groups))
    slopes = fit_overtraining_slopes(shuffled.assign(architecture="mine"))
    np.testing.assert_allclose(slopes.table()["eta"], 0.05, rtol=1e-9)


def test_unknown_ratios_of_a_tokenparam_table_are_grouped() -> None:
    slopes = fit_overtraining_slopes(made({5.0: 0.05, 70.0: 0.05}).assign(experiment="tokenparam"))
    assert list(slopes.laws) == [5.0, 70.0]


def test_runs_of_the_isoflop_design_belong_to_no_ratio() -> None:
    table = made(dict.fromkeys(RATIOS, 0.05)).assign(experiment=["isoflop"] * 6 + ["mine"] * 12)
    assert np.isnan(ratio_groups(table)[:6]).all()
    assert list(fit_overtraining_slopes(table).laws) == [110.0, 550.0]


def test_presets() -> None:
    table = pd.DataFrame({"num_params": [1e9] * 4, "num_tokens": [22e9, 25.9e9, 26.1e9, 5e12]})
    np.testing.assert_array_equal(tokens_per_param_preset(table), [22, 22, np.nan, np.nan])
    np.testing.assert_array_equal(tokens_per_param_preset(table, 0.3)[:3], [22, 22, 22])
    assert np.isnan(tokens_per_param_preset(table.assign(experiment="isoflop"))).all()


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    table = made(dict.fromkeys(RATIOS, 0.05))
    with pytest.raises(InputError, match="several architecture values"):
        fit_overtraining_slopes(table.assign(architecture=["a", "b"] * 9))
    with pytest.raises(InputError, match="no ratio of tokens to parameters has three runs"):
        fit_overtraining_slopes(table.iloc[[0, 1, 6, 7]])
    with pytest.raises(InputError, match="no ratio of tokens to parameters has three runs"):
        fit_overtraining_slopes(table.iloc[[0, 0, 0]])
    with pytest.raises(InputError, match="no separate ratios"):
        fit_overtraining_slopes(table.assign(num_tokens=table["num_params"] * np.geomspace(10, 1000, len(table))))
    with pytest.raises(InputError, match="not positive"):
        fit_overtraining_slopes(table.assign(val_loss=-1.0))
    with pytest.raises(InputError, match="at least two different values"):
        fit_overtraining(table, 44.0)
    with pytest.raises(InputError, match="not one of"):
        slope_power(fit_overtraining_slopes(table), [0.0], "wavy")
    with pytest.raises(InputError, match="standard error"):
        heterogeneity([1.0, 2.0], [0.0, 1.0])
    with pytest.raises(InputError, match="at least two estimates"):
        heterogeneity([1.0], [1.0])
    with pytest.raises(InputError, match="more runs per ratio"):
        bending(fit_overtraining_slopes(made({22.0: 0.05}, noise=0.001).iloc[:3]))
    with pytest.raises(InputError, match="at least two ratios"):
        slope_power(fit_overtraining_slopes(made({22.0: 0.05}, noise=0.001)), [0.0])


def test_lines_with_few_runs_say_so() -> None:
    slopes = fit_overtraining_slopes(made({22.0: 0.05, 110.0: 0.05}, noise=0.001).iloc[:8])
    assert list(slopes.laws) == [22.0]
    assert slopes.warnings == (
        "ratio 110: 2 runs, fewer than 3, left out",
        "one ratio only: there is nothing to compare its slope with",
    )
    assert np.isnan(slopes.p_value)
    assert len(fit_slopes_by_ratio(slopes.data).data) == 6
