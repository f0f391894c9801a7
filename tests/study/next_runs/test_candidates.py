"""Candidates, their costs, and designs to compare with."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.hardware import get_hardware
from companion.laws import LossSurface, ProductLaw
from companion.runs import load_paper_runs, subset
from companion.study.next_runs.candidates import Hours, Pricing, candidate_runs, default_candidates, pricing_of
from companion.study.next_runs.designs import (
    cheapest_first,
    isoflop_grid,
    largest_affordable,
    random_design,
    ratio_grid,
)
from companion.training import load_training_logs
from companion.training.measured import MeasuredUtilization

LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
XLSTM = subset(load_paper_runs(), "xlstm", 8192)
GRID = candidate_runs(Pricing(), np.geomspace(1e8, 1e10, 8), ratios=[5.0, 20.0, 100.0])


def test_costs_are_those_of_the_paper() -> None:
    """The family of shapes counts the 180 runs of the table to within 6 %."""
    table = pricing_of(XLSTM).priced(XLSTM["num_params"], XLSTM["num_tokens"])
    ratio = table["train_flops"].to_numpy() / XLSTM["train_flops"].to_numpy()
    assert np.abs(np.log(ratio)).max() < 0.06
    assert table["cost"].equals(table["train_flops"])


def test_tables_without_shapes_cost_what_their_own_flops_say() -> None:
    runs = pd.DataFrame({"num_params": [1e8, 1e9], "num_tokens": [2e9, 2e10], "train_flops": [1.4e18, 1.4e20]})
    assert pricing_of(runs).flops(np.array([1e8]), np.array([1e9])) == pytest.approx([7e17])
    assert pricing_of(runs.drop(columns="train_flops")).flops(np.array([1e8]), np.array([1e9])) == pytest.approx([6e17])


def test_hours_follow_from_utilization_and_peak() -> None:
    peak = get_hardware("h100-sxm").peak_flops_per_s
    table = Pricing(hours=Hours(utilization=0.4)).priced(np.array([1e9]), np.array([2e10]))
    assert table["gpu_hours"].to_numpy() == pytest.approx(1.2e20 / (0.4 * peak * 3600))
    assert table["cost"].equals(table["gpu_hours"])
    measured = Hours(
        utilization=MeasuredUtilization.of(load_training_logs()), architecture="xlstm", context_length=8192.0
    )
    hours = measured.of(np.array([1e20, 1e20]), np.array([1e8, 1e9]))
    assert np.all(hours > 1e20 / (peak * 3600))
    with pytest.raises(InputError, match="utilization 40 is not between"):
        Hours(utilization=40.0)
    with pytest.raises(InputError, match="hardware 'abacus'"):
        Hours(utilization=0.4, hardware="abacus")


def test_budgets_of_single_runs_are_spent() -> None:
    table = candidate_runs(pricing_of(XLSTM), [2e8, 1e9, 4e9], budgets=[1e19, 1e20])
    assert table["train_flops"].to_numpy() == pytest.approx(np.tile([1e19, 1e20], 3))


def test_candidates_beyond_the_budget_are_out() -> None:
    assert candidate_runs(Pricing(), [1e8, 1e9], ratios=[20.0], most=1e19)["num_params"].tolist() == [1e8]
    with pytest.raises(InputError, match=r"below the cheapest candidate, 1\.2e\+18 for N = 1e\+08"):
        candidate_runs(Pricing(), [1e8, 1e9], ratios=[20.0], most=1e18)


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ([1e8], {}, "give either"),
        ([1e8], {"ratios": [1.0], "budgets": [1e18]}, "give either"),
        ([], {"ratios": [1.0]}, "sizes must be positive"),
        ([1e8], {"ratios": [np.nan]}, "ratios or budgets must be"),
        (np.full(300, 1e8), {"ratios": np.full(300, 2.0)}, "90000 runs; at most"),
    ],
)
def test_wrong_grids_are_errors(sizes: list[float], options: dict[str, list[float]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        candidate_runs(Pricing(), sizes, **options)


def test_default_candidates_keep_within_bounds() -> None:
    pricing = pricing_of(XLSTM)
    table = default_candidates(XLSTM, pricing, 1e21, (2e8, 1e9), (10.0, 50.0))
    assert table["num_params"].between(2e8 * 0.999, 1e9 * 1.001).all()
    assert table["tokens_per_param"].between(9.99, 50.01).all()
    usual = default_candidates(XLSTM, pricing, 1e21)
    assert usual["cost"].max() <= 1e21
    assert usual["num_params"].min() == pytest.approx(XLSTM["num_params"].min())
    with pytest.raises(InputError, match=r"num_params: 1e\+10 to 1e\+09"):
        default_candidates(XLSTM, pricing, 1e21, (1e10, 1e9))


@given(st.floats(1e19, 1e23), st.integers(0, 1000), st.integers(1, 30))
def test_designs_stay_within_the_budget(budget: float, seed: int, max_runs: int) -> None:
    designs = [
        random_design(GRID, budget, seed, max_runs),
        cheapest_first(GRID, budget, max_runs),
        largest_affordable(GRID, budget, max_runs),
    ]
    for design in designs:
        assert design["cost"].sum() <= budget * (1 + 1e-6)
        assert len(design) <= max_runs
    assert designs[0].equals(random_design(GRID, budget, seed, max_runs))


@pytest.mark.parametrize("budget", [1e20, 1e22])
def test_grids_spend_the_budget_about_the_optimum(budget: float) -> None:
    iso = isoflop_grid(LAW, Pricing(), budget)
    assert iso["train_flops"].sum() == pytest.approx(budget, rel=1e-3)
    assert iso["train_flops"].round(-12).nunique() == 3
    middle = iso.iloc[2]
    assert middle["num_params"] == pytest.approx(LAW.optimum(middle["train_flops"])[0], rel=1e-6)
    grid = ratio_grid(Pricing(), (5e7, 1e11), budget)
    assert grid["cost"].sum() == pytest.approx(budget, rel=1e-3)
    assert sorted(grid["tokens_per_param"].round().unique()) == [22, 110, 550]


def test_grids_in_hours_spend_hours() -> None:
    pricing = pricing_of(XLSTM, Hours(utilization=0.3))
    assert isoflop_grid(LAW, pricing, 300.0)["gpu_hours"].sum() == pytest.approx(300, rel=1e-3)


def test_a_grid_ends_at_the_largest_size_and_needs_an_optimum() -> None:
    table = isoflop_grid(LAW, Pricing(), 1e22, sizes=(1e8, 1e9))
    assert table["num_params"].max() <= 1e9
    with pytest.raises(InputError):
        isoflop_grid(ProductLaw(E=1.7, K=50.0, alpha=0.1, beta=0.05), Pricing(), 1e22)


def test_little_budget_buys_a_part_of_the_ratio_grid() -> None:
    small = ratio_grid(Pricing(), (1e8, 1e10), 2e18)
    assert small["cost"].sum() <= 2e18
    assert len(small) == 1


def test_cheap_and_large_runs_come_first() -> None:
    assert cheapest_first(GRID, 1e22, 1)["cost"].iloc[0] == GRID["cost"].min()
    most = GRID.loc[GRID["cost"] <= 1e22, "cost"].max()
    assert largest_affordable(GRID, 1e22, 1)["cost"].iloc[0] == most
