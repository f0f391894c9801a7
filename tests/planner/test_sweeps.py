"""Plans over a range, and under other choices."""

from dataclasses import replace

import numpy as np
import pytest

from companion.errors import InputError
from companion.planner.planning import COST_OPTIMAL, Request, learn, plan
from companion.planner.sweeps import choices, cost_ratio, interval_shares, sweep, with_served_tokens
from companion.runs.load import load_paper_runs
from companion.training import load_training_logs

REQUEST = Request(train_flops=1e21, prefill_tokens=1e12, generated_tokens=1e11)


@pytest.fixture(scope="module")
def known() -> dict:
    return learn(num_resamples=20)


def test_a_sweep_holds_the_plans_of_its_values(known: dict) -> None:
    table = sweep(REQUEST, known, "batch_size", [1, 8])
    single = plan(REQUEST, known).table()
    at_eight = table[table["batch_size"] == 8].drop(columns="batch_size").reset_index(drop=True)
    assert at_eight.equals(single)
    assert len(table) == 8


def test_served_tokens_keep_their_proportion(known: dict) -> None:
    scaled = with_served_tokens(REQUEST, 2.2e12)
    assert (scaled.prefill_tokens, scaled.generated_tokens) == pytest.approx((2e12, 2e11))
    assert scaled.prompt == REQUEST.prompt
    with pytest.raises(InputError, match="serves none"):
        with_served_tokens(Request(train_flops=1e21), 1e12)
    table = sweep(REQUEST, known, "served_tokens", [1e10, 1e12, 1e14])
    for name in known:
        rows = table[(table["architecture"] == name) & (table["objective"] == COST_OPTIMAL)]
        assert (np.diff(rows["num_params"]) <= 0).all()
        assert (np.diff(rows["tokens_per_param"]) > 0).all()


def test_a_value_without_a_plan_is_left_out(known: dict) -> None:
    table = sweep(REQUEST, {"xlstm": known["xlstm"]}, "context_length", [32, 8192])
    assert set(table["context_length"]) == {8192}
    with pytest.raises(InputError, match="no context_length has a plan: xlstm: context_length 32"):
        sweep(REQUEST, {"xlstm": known["xlstm"]}, "context_length", [32])


def test_cost_ratio_over_the_context(known: dict) -> None:
    request = Request(target_loss=2.6, prefill_tokens=1e12, generated_tokens=1e11)
    table = sweep(request, known, "context_length", [2048, 8192])
    ratios = cost_ratio(table, "transformer", "xlstm", "context_length")
    assert list(ratios["context_length"]) == [2048, 8192]
    assert ratios["ratio"].is_monotonic_increasing
    assert ratios["loss_difference"].abs().max() < 1e-9
    chosen = table[(table["context_length"] == 2048) & (table["objective"] == COST_OPTIMAL)].set_index("architecture")
    hours = chosen["total_gpu_hours"]
    assert ratios["ratio"].iloc[0] == pytest.approx(hours["transformer"] / hours["xlstm"])
    assert cost_ratio(table, "transformer", "mamba", "context_length").empty


def test_choices_and_interval_shares(known: dict) -> None:
    table = choices(REQUEST, load_paper_runs(), known, num_resamples=10)
    assert table["choice"].iloc[0] == (planned := "as planned (measured utilization)")
    assert {"roofline times", "law of isoflop runs only", "law of tokenparam runs only"} <= set(table["choice"])
    hours = table[table["objective"] == COST_OPTIMAL].set_index(["choice", "architecture"])["total_gpu_hours"]
    for name in known:
        assert hours["roofline times", name] < hours[planned, name], "no kernel beats the roofline"
    grouped, plain = (hours[choice, "transformer"] for choice in ("roofline times, grouped heads", "roofline times"))
    assert grouped < plain
    alone = {"xlstm": known["xlstm"]}
    given = choices(replace(REQUEST, utilization=0.25), load_paper_runs(), alone, num_resamples=10)
    hours = given[given["objective"] == COST_OPTIMAL].set_index("choice")["total_gpu_hours"]
    assert hours["as planned"] == hours["utilization 25 %"]
    shares = interval_shares(plan(REQUEST, known))
    assert len(shares) == 4
    assert shares["loss"].between(0.001, 0.1).all()


def test_other_laws_keep_the_utilization_of_ones_own_logs() -> None:
    logs = load_training_logs()
    slow = logs.assign(step_time_s=2 * logs["step_time_s"])
    own = learn(architectures=["xlstm"], logs=slow, num_resamples=5)
    table = choices(Request(train_flops=1e20), load_paper_runs(), own, num_resamples=2).set_index("choice")
    assert table.loc["law of isoflop runs only", "utilization"] < 0.2
