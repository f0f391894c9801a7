"""What over-training costs: known laws, limits, round trips, intervals, bad input."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from companion.errors import InputError, NotApplicable
from companion.fitting.fit import fit
from companion.fitting.overtraining.cost import (
    ComputeScale,
    best_model,
    bootstrap_table,
    cost_at_equal_compute,
    cost_at_equal_loss,
    fit_compute_scale,
    implied_slopes,
    local_slope,
    penalty_by_law,
)
from companion.fitting.overtraining.exponents import fit_overtraining_slopes
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

SIX = ComputeScale(coefficients=(float(np.log(6.0)),), center=1e9, largest_deviation=0.0)
LAW = LossSurface(E=1.7, A=400.0, B=410.0, alpha=0.34, beta=0.28)
RATIOS = [22.0, 110.0, 550.0]
RUNS = subset(load_paper_runs(), architecture="xlstm", context_length=8192, experiment="tokenparam")
SCALE = fit_compute_scale(RUNS)


def test_compute_scale_of_6nd_is_exact() -> None:
    size = np.geomspace(1e8, 1e10, 7)
    scale = fit_compute_scale(pd.DataFrame({"num_params": size, "num_tokens": 20 * size, "train_flops": 120 * size**2}))
    np.testing.assert_allclose(scale.flops_per_param_and_token([1e7, 1e11]), 6, rtol=1e-9)
    np.testing.assert_allclose(scale.flops_exponent(1e9), 2, atol=1e-9)
    assert scale.largest_deviation < 1e-9


def test_compute_scale_of_the_paper_and_its_inverse() -> None:
    assert SCALE.largest_deviation < 0.05
    flops = np.geomspace(1e18, 1e24, 13)[:, None]
    size = SCALE.num_params(flops, np.array(RATIOS))
    assert size.shape == (13, 3)
    np.testing.assert_allclose(SCALE.train_flops(size, np.array(RATIOS)), np.broadcast_to(flops, (13, 3)), rtol=1e-10)
    step = 1e-5
    numeric = np.log(SCALE.train_flops(1e9 * (1 + step), 22) / SCALE.train_flops(1e9 * (1 - step), 22)) / (2 * step)
    assert SCALE.flops_exponent(1e9) == pytest.approx(numeric, rel=1e-6)


def test_few_sizes_give_a_lower_degree() -> None:
    assert len(fit_compute_scale(RUNS[RUNS["num_params"] == RUNS["num_params"].min()]).coefficients) == 1
    with pytest.raises(InputError, match="no runs"):
        fit_compute_scale(RUNS.iloc[:0])


def test_optimum_against_the_closed_form() -> None:
    for flops in (1e19, 1e22):
        found, (num_params, num_tokens) = best_model(LAW, SIX, flops), LAW.optimum(flops)
        assert found.num_params[0] == pytest.approx(num_params, rel=1e-9)
        assert found.num_tokens[0] == pytest.approx(num_tokens, rel=1e-9)
        assert found.loss[0] == pytest.approx(float(LAW.predict(num_params, num_tokens)), rel=1e-12)


@pytest.mark.parametrize("scale", [SIX, SCALE])
def test_local_slope_against_differences(scale: ComputeScale) -> None:
    law = LossSurface(E=1.1, A=1.1e7, B=3.3e7, alpha=0.73, beta=0.67, gamma=0.24)
    for ratio in RATIOS:
        flops = 1e21 * np.exp([-1e-4, 1e-4])
        size = scale.num_params(flops, ratio)
        numeric = -np.diff(np.log(law.predict(size, ratio * size)))[0] / 2e-4
        assert local_slope(law, scale, 1e21, ratio) == pytest.approx(numeric, rel=1e-5)


def test_a_law_without_a_floor_and_equal_exponents_is_a_power_law() -> None:
    law = LossSurface(E=0.0, A=400.0, B=400.0, alpha=0.3, beta=0.3)
    slope = local_slope(law, SIX, np.geomspace(1e18, 1e24, 5), 220.0)
    np.testing.assert_allclose(slope, 0.15, rtol=1e-12)


def test_cost_at_equal_compute() -> None:
    best = best_model(LAW, SIX, 1e21)
    table = cost_at_equal_compute(LAW, SIX, 1e21, [best.tokens_per_param[0], *RATIOS, 5000.0])
    assert table["relative_penalty"][0] == pytest.approx(0, abs=1e-9)
    assert table["size_ratio"][0] == pytest.approx(1)
    assert (table["relative_penalty"] > -1e-12).all()
    np.testing.assert_allclose(6 * table["num_params"] * table["num_tokens"], 1e21, rtol=1e-9)
    np.testing.assert_allclose(
        table["size_ratio"], np.sqrt(best.tokens_per_param[0] / table["tokens_per_param"]), rtol=1e-9
    )


def test_cost_at_equal_loss() -> None:
    best = best_model(LAW, SIX, 1e21)
    ratios = [best.tokens_per_param[0] / 3, 4 * best.tokens_per_param[0], 20 * best.tokens_per_param[0]]
    table = cost_at_equal_loss(LAW, SIX, 1e21, ratios)
    np.testing.assert_allclose(LAW.predict(table["num_params"], table["num_tokens"]), best.loss[0], rtol=1e-4)
    assert (table["compute_factor"] > 1).all()
    assert np.isnan(table["break_even_tokens"][0])  # larger than the optimum: nothing to win back
    row = table.iloc[1]
    assert row["size_ratio"] < 1
    both = [
        c + 2 * n * row["break_even_tokens"]
        for c, n in ((1e21, best.num_params[0]), (row["train_flops"], row["num_params"]))
    ]
    assert both[0] == pytest.approx(both[1])


def test_loss_out_of_reach_is_not_a_number() -> None:
    law = LossSurface(E=1.0, A=1e3, B=1.0, alpha=0.3, beta=0.001)
    table = cost_at_equal_loss(LossSurface(E=1.0, A=50.0, B=1.0, alpha=0.3, beta=0.05), SIX, 1e21, [1e12])
    assert table[["compute_factor", "break_even_tokens"]].isna().all(axis=None)
    with pytest.raises(InputError, match="no optimum"):
        best_model(law, SIX, 1e21)


def test_implied_slopes_keep_runs_and_groups() -> None:
    slopes = fit_overtraining_slopes(RUNS)
    fitted = fit(LossSurface, RUNS)
    implied = implied_slopes(fitted.law, slopes)
    assert list(implied.laws) == list(slopes.laws)
    assert len(implied.data) == len(slopes.data)
    np.testing.assert_allclose(implied.table()["eta"], slopes.table()["eta"], atol=0.002)


def test_bootstrap_intervals_hold_the_estimate() -> None:
    fitted = fit(LossSurface, RUNS)
    bootstrap = fitted.bootstrap(100)
    columns = ["relative_penalty", "size_ratio"]
    bounds = bootstrap_table(bootstrap, lambda law: cost_at_equal_compute(law, SCALE, 1e21, RATIOS), columns)
    assert list(bounds) == ["relative_penalty_low", "relative_penalty_high", "size_ratio_low", "size_ratio_high"]
    estimate = cost_at_equal_compute(fitted.law, SCALE, 1e21, RATIOS)
    for column in columns:
        assert (bounds[f"{column}_low"] < bounds[f"{column}_high"]).all()
        assert ((bounds[f"{column}_low"] <= estimate[column]) & (estimate[column] <= bounds[f"{column}_high"])).all()


def test_penalty_by_law() -> None:
    table = penalty_by_law(RUNS, SCALE, 1e21, 220.0)
    assert list(table["runs"]) == ["all", "all"]
    assert list(table["gamma_free"]) == [True, False]
    expected = cost_at_equal_compute(fit(LossSurface, RUNS).law, SCALE, 1e21, [220.0])["relative_penalty"][0]
    assert table["penalty"][0] == pytest.approx(expected)
    both = pd.concat([RUNS, RUNS.assign(experiment="isoflop")])
    assert list(dict.fromkeys(penalty_by_law(both, SCALE, 1e21, 220.0)["runs"])) == ["isoflop", "tokenparam", "all"]


def test_most_resamples_without_an_optimum_leave_no_bounds() -> None:
    """Where A is 0 more parameters buy nothing: such a law has no optimum."""
    fitted = fit(LossSurface, RUNS)
    bootstrap = fitted.bootstrap(20)

    def bounds(lost: int) -> pd.DataFrame:
        theta = bootstrap.theta.copy()
        theta[:lost, 1] = -690.0
        table = replace(bootstrap, theta=theta)
        return bootstrap_table(table, lambda law: cost_at_equal_compute(law, SCALE, 1e21, [220.0]), ["size_ratio"])

    for lost, withheld in ((0, False), (3, False), (15, True)):
        found = bounds(lost)
        assert found.attrs["lost"] == pytest.approx(lost / 20)
        assert found.isna().all(axis=None) == withheld
    with pytest.raises(NotApplicable, match="no resample of the law has an optimum"):
        bounds(20)


def test_a_law_that_is_not_identified_has_no_price() -> None:
    sizes = sorted(RUNS["num_params"].unique())[:2]
    few = pd.concat([RUNS[RUNS["num_params"].isin(sizes)]] * 2).assign(experiment="two sizes")
    one = RUNS[RUNS["num_params"] == sizes[0]].head(1)
    same = pd.concat([one.assign(num_tokens=one["num_tokens"] * (1 + step)) for step in range(10)])
    table = penalty_by_law(pd.concat([few, same.assign(experiment="one size")]), SCALE, 1e21, 220.0)
    two = table[table["runs"] != "all"]
    assert list(two["runs"]) == ["one size"] * 2 + ["two sizes"] * 2
    assert (two["status"] == "not identified").all()
    assert two[["penalty", "optimal_ratio"]].isna().all(axis=None)


def test_a_curve_that_turns_far_from_its_runs_has_no_size_there() -> None:
    bent = ComputeScale(coefficients=(-0.02, 0.0, float(np.log(6))), center=1e9, largest_deviation=0.0)
    assert bent.num_params(6e19, 10.0) == pytest.approx(1e9, rel=1e-6)
    assert np.isnan(bent.num_params(1e45, 10.0))
    assert 0.3 < best_model(LAW, bent, 6e19).tokens_per_param[0] < 3e4
