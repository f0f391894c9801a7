"""Fronts of training cost: known answers, exact recovery without scatter, coverage in simulated tables."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.fitting.pareto import READINGS, Reading, compare_fronts, fit_front
from companion.laws import LossSurface
from companion.training import finished, load_training_logs, with_throughput
from companion.training.fronts import (
    COSTS,
    LawFronts,
    cost_factors,
    decomposition,
    front_bands,
    front_runs,
    gpu_hours_at_loss,
    law_fronts,
    run_fronts,
    usual_context_length,
)
from companion.training.law_fronts import BEYOND, fit_law_front

T = 16384
#: Near the fit to the Transformer's runs at T = 16384: a law whose outer exponent is not 1.
LAW = LossSurface(E=2.57, A=1.0e5, B=3.5e9, alpha=0.664, beta=1.045, gamma=0.82)
#: Scatter of the loss of a run, of the price of a shape, and of the price of a run of one shape.
RUN_SCATTER, SHAPE_SCATTER, PRICE_SCATTER = 0.0045, 0.045, 0.003
LOSSES = np.array([3.03, 3.08, 3.15, 3.22, 3.28])


@cache
def logs() -> pd.DataFrame:
    return with_throughput(load_training_logs())


@cache
def laws() -> LawFronts:
    return law_fronts(logs(), T, num_resamples=120)


def simulated(seed: int, scatter: float = 1.0, architecture: str = "transformer") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs with N, D and C of a real table, and losses and step times from `LAW` and a parabola of the price.

    The second table has the sizes and the true price of a token of each, GPU-hours.
    """
    rng = np.random.default_rng(seed)
    runs = finished(logs(), T)
    runs = runs[runs["architecture"] == architecture].reset_index(drop=True)
    sizes, of = np.unique(runs["num_params"].to_numpy(float), return_inverse=True)
    x = np.log(sizes / 4e8)
    price = np.exp(-18.8 + 0.70 * x - 0.07 * x**2 + scatter * SHAPE_SCATTER * rng.normal(size=sizes.size))
    noise = scatter * RUN_SCATTER * rng.standard_t(5, len(runs)) / np.sqrt(5 / 3)
    hours = runs["num_tokens"] * price[of] * np.exp(scatter * PRICE_SCATTER * rng.normal(size=len(runs)))
    runs["val_loss"] = LAW.predict(runs["num_params"], runs["num_tokens"]) * np.exp(noise)
    runs["step_time_s"] = hours * 3600 / runs["train_steps"] / runs["num_gpus"]
    return with_throughput(runs), pd.DataFrame({"num_params": sizes, "price": price})


def true_hours(shapes: pd.DataFrame) -> np.ndarray:
    """Of the cheapest shape at every loss."""
    tokens = LAW.tokens_for(LOSSES[:, None], shapes["num_params"].to_numpy())
    return np.asarray((tokens * shapes["price"].to_numpy()).min(axis=1))


# ---- fronts over any cost ------------------------------------------------------------------------


@pytest.mark.parametrize(("reading", "expected"), [("hull", 10**1.5), ("linear", 10**1.75), ("steps", 100.0)])
def test_cost_at_a_loss_between_runs(reading: Reading, expected: float) -> None:
    # the run at 10 lies above the line between its neighbors in log cost
    front = fit_front([1.0, 10.0, 100.0], [4.0, 3.8, 3.0], "time (GPU-hours)")
    loss = {"hull": 3.25, "linear": 3.2, "steps": 3.2}[reading]
    assert front.cost_at(loss, reading) == pytest.approx(expected)
    assert front.cost_at([4.0, 3.0], reading) == pytest.approx([1.0, 100.0])
    assert np.isnan(front.cost_at([4.1, 2.9], reading)).all()


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=20),
    st.sampled_from(READINGS),
    st.floats(0, 1),
)
def test_cost_and_loss_are_each_other_s_inverse(pairs: list[tuple[int, int]], reading: Reading, share: float) -> None:
    cost, loss = np.array(pairs, dtype=float).T
    front = fit_front(cost, loss)
    target = float(front.loss[-1] + share * (front.loss[0] - front.loss[-1]))
    found = front.cost_at(target, reading)
    if reading == "steps":
        assert found == cost[loss <= target].min()
    else:
        assert front.loss_at(np.clip(found, front.cost[0], front.cost[-1]), reading) == pytest.approx(target, abs=1e-9)


def test_fronts_over_different_costs_are_not_compared() -> None:
    one, two = fit_front([1.0, 2.0], [3.0, 2.0], "time (GPU-hours)"), fit_front([1.0, 2.0], [3.0, 2.0])
    with pytest.raises(InputError, match=r"over time \(GPU-hours\) and one over compute \(FLOP\) cannot be compared"):
        compare_fronts(one, two)
    with pytest.raises(InputError, match=r"share no range of time \(log10 GPU-hours\)"):
        compare_fronts(one, fit_front([10.0, 20.0], [3.0, 2.0], "time (GPU-hours)"))
    with pytest.raises(InputError, match=r"time \(GPU-hours\) of a run on a front must be positive"):
        fit_front([0.0, 1.0], [3.0, 2.0], "time (GPU-hours)")


# ---- the authors' logs -----------------------------------------------------------------------------


def test_context_length_with_both_architectures_is_usual() -> None:
    assert usual_context_length(logs()) == T
    assert usual_context_length(logs()[logs()["architecture"] == "transformer"]) == 8192


def test_front_of_hours_is_made_of_runs_that_no_run_beats() -> None:
    runs = front_runs(logs(), T)
    for name, front in run_fronts(logs(), T).items():
        hours, loss = runs[name]["gpu_hours"].to_numpy(), runs[name]["val_loss"].to_numpy()
        better = (hours[None] <= hours[:, None]) & (loss[None] < loss[:, None])
        assert front.rows.tolist() == sorted(np.flatnonzero(~better.any(axis=1)), key=lambda at: hours[at])


def test_factors_per_cost_against_the_fronts() -> None:
    table = cost_factors(logs(), "xlstm", "transformer", T).set_index("cost")
    assert list(table.index) == list(COSTS)
    for cost, row in table.iterrows():
        fronts = run_fronts(logs(), T, str(cost))
        losses = np.linspace(row["lowest_loss"], row["highest_loss"], 4001)[1:-1]
        ratio = fronts["transformer"].cost_at(losses) / fronts["xlstm"].cost_at(losses)
        assert row["factor"] == pytest.approx(np.median(ratio), rel=1e-3)
        assert (row["smallest"], row["largest"]) == pytest.approx((ratio.min(), ratio.max()), rel=5e-3)
    assert table["factor"].min() > 1  # the xLSTM needs less of everything


def test_hours_at_a_loss() -> None:
    found = gpu_hours_at_loss(logs(), 3.05, T, laws=laws()).set_index("architecture")
    for name, front in run_fronts(logs(), T).items():
        hull = front.hull()
        expected = 10 ** np.interp(-3.05, -hull.loss, np.log10(hull.cost))
        assert found["gpu_hours"][name] == pytest.approx(expected)
    assert (found["low"] <= found["gpu_hours"]).all()
    assert (found["gpu_hours"] <= found["high"]).all()
    assert (found["low"] < found["expected_gpu_hours"]).all()
    assert (found["high"] < 1.2 * found["low"]).all()
    assert (found["reason"] == "").all()


def test_a_loss_that_no_run_reaches_has_a_reason() -> None:
    found = gpu_hours_at_loss(logs(), 2.9, T, laws=laws()).set_index("architecture")
    assert np.isnan(found["gpu_hours"]["transformer"])
    assert np.isnan(found["low"]["transformer"])
    assert found["reason"]["transformer"] == "the front of transformer has losses from 3.0076 to 3.3528, not 2.9"
    assert found["low"]["xlstm"] < found["high"]["xlstm"]
    beyond = gpu_hours_at_loss(logs(), 3.3, T, laws=laws()).set_index("architecture")["reason"]
    assert "outside its runs (5.93e+18 to 3.05e+19)" in beyond["xlstm"]


def test_decomposition_multiplies_up() -> None:
    table = decomposition(laws()["xlstm"], laws()["transformer"], np.linspace(3.01, 3.15, 8))
    table = table.set_index("quantity")
    factor = table["factor"]
    assert factor["train_flops"] == pytest.approx(factor["num_tokens"] * factor["flops_per_token"])
    assert factor["gpu_hours"] == pytest.approx(factor["train_flops"] * factor["time_per_flop"])
    assert ((table["low"] < factor) & (factor < table["high"])).all()
    assert (table["low"] > 1).all()
    swapped = decomposition(laws()["transformer"], laws()["xlstm"], np.linspace(3.01, 3.15, 8)).set_index("quantity")
    assert (swapped["factor"] * factor).tolist() == pytest.approx([1.0] * 5)


def test_fewest_hours_need_a_larger_model_than_fewest_flops() -> None:
    """Small models use the GPU worst; at T = 16384 that moves the best size by a fifth to a quarter."""
    for name, losses in (("transformer", [3.02, 3.1, 3.15]), ("xlstm", [2.88, 3.0, 3.1])):
        table = laws()[name].size_shift(losses)
        assert table["ratio"].between(1.1, 1.35).all()
        assert (table["ratio_low"] > 1).all()
        assert table["saving"].between(0.005, 0.05).all()


def test_bands_for_a_figure() -> None:
    bands = front_bands(logs(), T, laws(), num_points=12)
    assert set(bands["architecture"]) == {"transformer", "xlstm"}
    assert (bands["gpu_hours_low"] < bands["gpu_hours"]).all()
    assert (bands["gpu_hours"] < bands["gpu_hours_high"]).all()
    for _, part in bands.groupby("architecture"):
        assert (np.diff(part["gpu_hours"]) < 0).all()  # a higher loss is cheaper
        assert part["train_flops"].between(5.9e18 / BEYOND, 3.1e19 * BEYOND).all()


# ---- known truth -----------------------------------------------------------------------------------


def test_without_scatter_the_truth_comes_back() -> None:
    runs, shapes = simulated(0, scatter=0.0)
    front = fit_law_front(runs, num_resamples=0)
    assert front.withheld == "no resamples were drawn"
    found = front.cheapest(LOSSES)
    assert found["gpu_hours"].to_numpy() == pytest.approx(true_hours(shapes), rel=1e-4)
    assert found["gpu_hours_low"].isna().all()
    # by calculus: at the best size, a percent more parameters costs what it saves in tokens
    smooth = front.cheapest(LOSSES, shapes="smooth")
    x = np.linspace(np.log(1e8), np.log(1.7e9), 20001)
    hours = np.exp(-18.8 + 0.70 * (x - np.log(4e8)) - 0.07 * (x - np.log(4e8)) ** 2) * LAW.tokens_for(
        LOSSES[:, None], np.exp(x)
    )
    assert smooth["gpu_hours"].to_numpy() == pytest.approx(hours.min(axis=1), rel=1e-3)
    assert smooth["num_params"].to_numpy() == pytest.approx(np.exp(x[hours.argmin(axis=1)]), rel=0.02)


def test_prices_and_utilization_are_those_of_the_runs() -> None:
    front = laws()["xlstm"]
    runs = front_runs(logs(), T)["xlstm"]
    found = front.cheapest([2.9]).iloc[0]
    same = runs[runs["num_params"] == found["num_params"]]
    assert found["utilization"] == pytest.approx(same["utilization"].mean(), rel=5e-3)
    assert found["gpu_hours"] / found["num_tokens"] == pytest.approx(
        (same["gpu_hours"] / same["num_tokens"]).mean(), rel=5e-3
    )
    least_tokens = front.cheapest([2.9], "num_tokens").iloc[0]
    assert least_tokens["num_params"] == runs["num_params"].max()
    assert least_tokens["at_end"]


def test_intervals_cover_the_true_hours_and_those_of_resampled_runs_do_not() -> None:
    """A small version of the simulation behind `companion.training.law_fronts`."""
    covered, naive, bias = [], [], []
    for seed in range(8):
        runs, shapes = simulated(seed)
        truth = true_hours(shapes)
        table = fit_law_front(runs, num_resamples=60, seed=seed).cheapest(LOSSES)
        covered.append((table["gpu_hours_low"] <= truth) & (truth <= table["gpu_hours_high"]))
        bias.append(np.log(table["gpu_hours"] / truth))
        rng, drawn = np.random.default_rng(seed), []
        for _ in range(60):
            part = runs.iloc[rng.integers(0, len(runs), len(runs))]
            drawn.append(fit_front(part["gpu_hours"], part["val_loss"]).cost_at(LOSSES))
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
        naive.append((low <= truth) & (truth <= high))
    assert np.mean(covered) >= 0.88
    assert np.mean(naive) <= 0.75
    assert abs(np.mean(bias)) < 0.015


# ---- what readers' tables can be like ----------------------------------------------------------------


def test_too_few_runs_have_a_front_but_no_interval() -> None:
    few = logs()[(logs()["architecture"] == "xlstm") & (logs()["context_length"] == T)].iloc[:4]
    found = gpu_hours_at_loss(few, 3.0, T)
    assert len(found) == 1
    assert found["low"].isna().all()
    assert found["reason"][0]
    one_budget = law_fronts(logs(), 8192, group="batch_256", num_resamples=20)
    row = gpu_hours_at_loss(logs(), 2.75, 8192, group="batch_256", laws=one_budget).iloc[0]
    assert 80 < row["gpu_hours"] < 90
    assert row[["low", "high", "expected_gpu_hours"]].isna().all()
    assert "all runs have the same compute" in row["reason"]


def test_bad_input() -> None:
    with pytest.raises(InputError, match="'dollars' is not one of train_flops, num_tokens, gpu_hours"):
        run_fronts(logs(), T, "dollars")
    with pytest.raises(InputError, match=r"no finished run of architecture 'mamba'.*there are transformer and xlstm"):
        cost_factors(logs(), "xlstm", "mamba", T)
    with pytest.raises(InputError, match="architecture 'mamba' has no law: no finished run"):
        laws()["mamba"]
    with pytest.raises(InputError, match="cost 'price' is not one of"):
        laws()["xlstm"].minima([3.0], "price")
    with pytest.raises(InputError, match="runs of one architecture and one context length are needed"):
        fit_law_front(finished(logs(), T))
    with pytest.raises(InputError, match="at context length 4096; the table has"):
        run_fronts(logs(), 4096)
