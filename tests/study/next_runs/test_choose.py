"""Choice of runs: textbook designs, brute force, and what exchange promises."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.errors import InputError
from companion.fitting.fit import fit
from companion.laws import LossSurface
from companion.study.next_runs.candidates import Pricing, candidate_runs
from companion.study.next_runs.choose import Task, choose, exchanged, filled, make_task, ordered, standard_errors
from companion.study.next_runs.identify import identifying_design, linear_guess, next_task
from companion.study.next_runs.information import condition_number, linear_law
from companion.study.next_runs.quantities import LossOf, SizeExponent

LAW = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
LINEAR = linear_law(LAW, 0.005, ["gamma"])
X = np.linspace(-1, 1, 21)


def polynomial(degree: int, runs: int, slope: np.ndarray | None = None) -> Task:
    rows = np.vander(X, degree + 1, increasing=True)
    return Task(
        rows=rows,
        costs=np.ones(len(X)),
        start=1e-7 * np.eye(degree + 1),
        budget=float(runs),
        slope=slope,
        copies=runs,
    )


def random_task(seed: int, number: int = 9, criterion: str = "V") -> Task:
    rng = np.random.default_rng(seed)
    return Task(
        rows=rng.normal(size=(number, 3)),
        costs=rng.uniform(0.5, 4.0, number),
        start=0.1 * np.eye(3),
        budget=6.0,
        slope=rng.normal(size=3) if criterion == "V" else None,
        max_runs=number,
    )


def best_of_all(task: Task) -> float:
    subsets = itertools.chain.from_iterable(
        itertools.combinations(range(len(task.costs)), size) for size in range(1, len(task.costs) + 1)
    )
    return min(task.criterion(one) for one in subsets if task.costs[list(one)].sum() <= task.budget)


def test_a_line_is_measured_at_both_ends() -> None:
    """D-optimal: half of the runs at each end (Kiefer and Wolfowitz 1959)."""
    assert sorted(X[choose(polynomial(1, 6))]) == [-1, -1, -1, 1, 1, 1]


def test_a_parabola_is_measured_at_the_ends_and_in_the_middle() -> None:
    """D-optimal for degree 2 on [-1, 1]: equal weight at -1, 0 and 1 (Fedorov 1972)."""
    assert sorted(X[choose(polynomial(2, 6))].round(9)) == [-1, -1, 0, 0, 1, 1]


def test_the_value_at_a_point_is_measured_there() -> None:
    """c-optimal for the value of a line at x = 1 and nothing known: all runs at x = 1."""
    assert set(X[choose(polynomial(1, 4, np.array([1.0, 1.0])))]) == {1.0}


def test_extrapolation_of_a_line_weighs_its_ends() -> None:
    """c-optimal for the value at x = 2: weights 3 : 1 at the ends (Hoel and Levine 1964)."""
    chosen = X[choose(polynomial(1, 8, np.array([1.0, 2.0])))]
    assert sorted(chosen) == [-1, -1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("criterion", ["V", "D"])
@pytest.mark.parametrize("seed", range(8))
def test_exchange_is_near_brute_force(seed: int, criterion: str) -> None:
    task = random_task(seed, criterion=criterion)
    assert task.criterion(choose(task)) <= best_of_all(task) + 1e-6


@given(st.integers(0, 10**6), st.sampled_from(["V", "D"]))
@settings(max_examples=30)
def test_exchange_never_worsens_nor_overspends(seed: int, criterion: str) -> None:
    task = random_task(seed, number=14, criterion=criterion)
    for per_cost in (True, False):
        first = filled(task, [], per_cost)
        second = exchanged(task, first)
        assert task.criterion(second) <= task.criterion(first) + 1e-12
        assert task.costs[second].sum() <= task.budget * (1 + 1e-6)
        assert len(set(second)) == len(second)


@given(st.integers(0, 10**6), st.sampled_from(["V", "D"]))
@settings(max_examples=30)
def test_gains_are_differences_of_the_criterion(seed: int, criterion: str) -> None:
    task = random_task(seed, criterion=criterion)
    expected = [task.criterion([2, 5]) - task.criterion([2, 5, one]) for one in range(len(task.costs))]
    assert np.allclose(task.gains([2, 5]), expected, atol=1e-9)


def test_limits_of_number_and_copies_hold() -> None:
    task = polynomial(1, 6)
    assert len(choose(Task(**{**vars(task), "max_runs": 3}))) == 3
    single = choose(Task(**{**vars(task), "copies": 1}))
    assert len(set(single)) == len(single) == 6


def test_the_order_puts_the_largest_gain_first() -> None:
    task = random_task(3, number=12)
    chosen = ordered(task, choose(task))
    assert task.gains([])[chosen[0]] == max(task.gains([])[chosen])


def test_the_same_task_gives_the_same_runs() -> None:
    assert choose(random_task(4, 20)) == choose(random_task(4, 20))


def test_nothing_affordable_and_open_directions_are_errors() -> None:
    task = random_task(1)
    with pytest.raises(InputError, match="below the cheapest candidate"):
        choose(Task(**{**vars(task), "budget": 0.1}))
    with pytest.raises(InputError, match="leave directions"):
        Task(**{**vars(task), "start": np.diag([1.0, 1.0, 0.0])})
    with pytest.raises(InputError, match="positive, finite cost"):
        Task(**{**vars(task), "costs": np.zeros(9)})
    with pytest.raises(InputError, match="at least 1 run"):
        Task(**{**vars(task), "max_runs": 0})


def test_runs_for_a_loss_beat_runs_for_an_exponent_at_that_loss() -> None:
    start_runs = candidate_runs(Pricing(), [5e7, 2e8, 8e8], ratios=[5.0, 20.0, 100.0])
    start = LINEAR.information(start_runs["num_params"], start_runs["num_tokens"])
    grid = candidate_runs(Pricing(), np.geomspace(1e8, 1e10, 8), ratios=[3.0, 10.0, 30.0, 100.0, 300.0], most=1e22)
    errors = {}
    for name, wanted in (("loss", LossOf(2e10, 4e11)), ("exponent", SizeExponent()), ("all", None)):
        chosen = grid.iloc[choose(make_task(LINEAR, start, grid, 1e22, wanted, 10))]
        errors[name] = {
            "loss": standard_errors(LINEAR, start, chosen, LossOf(2e10, 4e11))[-1],
            "exponent": standard_errors(LINEAR, start, chosen, SizeExponent())[-1],
        }
    assert errors["loss"]["loss"] < min(errors["exponent"]["loss"], errors["all"]["loss"])
    assert errors["exponent"]["exponent"] < min(errors["loss"]["exponent"], errors["all"]["exponent"])


def test_errors_fall_with_every_run() -> None:
    runs = candidate_runs(Pricing(), [5e7, 2e8, 8e8], ratios=[5.0, 20.0, 100.0])
    start = LINEAR.information(runs["num_params"], runs["num_tokens"])
    errors = standard_errors(LINEAR, start, runs, SizeExponent())
    assert len(errors) == 10
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] == pytest.approx(LINEAR.standard_error(2 * start, SizeExponent()))


def test_a_design_from_nothing_identifies_the_law() -> None:
    nothing = pd.DataFrame({"num_params": [], "num_tokens": []})
    grid = candidate_runs(Pricing(), np.geomspace(1e8, 3e9, 6), ratios=[5.0, 20.0, 80.0, 300.0])
    chosen = identifying_design(LINEAR, nothing, grid, 1e22, max_runs=8)
    assert condition_number(LINEAR.information(chosen["num_params"], chosen["num_tokens"])) < 1e4
    assert chosen["cost"].sum() <= 1e22
    single = candidate_runs(Pricing(), [1e9], ratios=[5.0, 20.0, 80.0, 300.0])
    with pytest.raises(InputError, match="no design within the budget"):
        identifying_design(LINEAR, nothing, single, 1e22)


def test_a_table_that_identifies_nothing_gets_runs_that_do() -> None:
    runs = pd.DataFrame({"num_params": np.repeat([1e8, 3e8], 6), "num_tokens": np.tile(np.geomspace(1e9, 6e10, 6), 2)})
    noise = np.random.default_rng(0).normal(0, 0.003, len(runs))
    runs["val_loss"] = LAW.predict(runs["num_params"].to_numpy(), runs["num_tokens"].to_numpy()) * np.exp(noise)
    found = fit(LossSurface, runs, gamma=1)
    assert not found.identified
    grid = candidate_runs(Pricing(), np.geomspace(1e8, 3e9, 6), ratios=[5.0, 20.0, 80.0, 300.0])
    linear, task = next_task(found, runs, grid, 1e21, LossOf(2e10, 4e11))
    assert task.slope is None, "criterion D until the law is identified"
    chosen = grid.iloc[choose(task)]
    assert chosen["num_params"].max() > 4e8
    both = pd.concat([runs, chosen])
    assert math.isfinite(condition_number(linear.information(both["num_params"], both["num_tokens"])))
    assert linear_guess(found).law.gamma == 1.0
