"""Utilization between the sizes and contexts that were trained."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from companion.errors import InputError
from companion.training import finished, load_training_logs, with_throughput
from companion.training.measured import MeasuredUtilization, evenly_spread


@pytest.fixture(scope="module")
def logs() -> pd.DataFrame:
    return with_throughput(load_training_logs())


@pytest.fixture(scope="module")
def measured(logs: pd.DataFrame) -> MeasuredUtilization:
    return MeasuredUtilization.of(logs)


def synthetic(lengths: tuple[int, ...], scatter: float = 0.0, runs: int = 30, seed: int = 0) -> pd.DataFrame:
    """Runs whose ln(utilization) is a quadratic in ln N, higher where the context is shorter."""
    random = np.random.default_rng(seed)
    parts = []
    for length in lengths:
        size = np.geomspace(1e8, 4e9, runs)
        log_share = -1.5 + 0.2 * np.log(size / 1e9) - 0.03 * np.log(size / 1e9) ** 2 - 0.1 * np.log(length / 1024)
        share = np.exp(log_share + scatter * random.standard_normal(runs))
        parts.append(pd.DataFrame({"num_params": size, "utilization": share, "context_length": length}))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(architecture="mine", status="finished", val_loss=3.0, step_time_s=1.0, num_gpus=8.0)


@given(st.floats(1e8, 4e9), st.floats(1024, 8192))
def test_a_quadratic_is_found_again(size: float, length: float) -> None:
    found = MeasuredUtilization.of(synthetic((1024, 8192))).at("mine", size, length)
    x = np.log(size / 1e9)
    assert found.value == pytest.approx(np.exp(-1.5 + 0.2 * x - 0.03 * x**2 - 0.1 * np.log(length / 1024)))
    assert not found.outside


@pytest.mark.parametrize("runs", [8, 40])
def test_intervals_hold_a_further_run_as_often_as_they_say(runs: int) -> None:
    inside = []
    for seed in range(300):
        found = MeasuredUtilization.of(synthetic((1024,), 0.05, runs, seed)).at("mine", 5e8, 1024, 0.9)
        truth = np.exp(-1.5 + 0.2 * np.log(0.5) - 0.03 * np.log(0.5) ** 2)
        further = truth * np.exp(0.05 * np.random.default_rng(10_000 + seed).standard_normal())
        inside.append(found.low <= further <= found.high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)  # 3 standard errors of 300 trials


def test_the_authors_runs_lie_about_it(logs: pd.DataFrame, measured: MeasuredUtilization) -> None:
    inside = []
    for (name, length), rows in finished(logs, group=None).groupby(["architecture", "context_length"]):
        found = measured.at(str(name), rows["num_params"], float(length))
        inside += ((rows["utilization"] >= found.low) & (rows["utilization"] <= found.high)).tolist()
        assert np.median(np.abs(np.log(found.value / rows["utilization"]))) < 0.06
    assert 0.9 < np.mean(inside) < 0.99


def test_beyond_the_runs_the_nearest_stands_in(measured: MeasuredUtilization) -> None:
    low, high = measured.curves["xlstm"][-1].sizes
    inside = measured.at("xlstm", [low, high], 16384)
    beyond = measured.at("xlstm", [low / 10, high * 10], 16384)
    assert beyond.value == pytest.approx(inside.value)
    assert beyond.outside.all()
    assert not inside.outside.any()
    longer = measured.at("xlstm", [[low], [high]], 65536)
    assert longer.value.shape == (2, 1)
    assert longer.value.ravel() == pytest.approx(inside.value)
    assert longer.outside.all()


def test_what_is_not_known_is_named(logs: pd.DataFrame, measured: MeasuredUtilization) -> None:
    with pytest.raises(InputError, match=r"no utilization of 'mamba'; known are transformer, xlstm$"):
        measured.at("mamba", 1e9, 8192)
    with pytest.raises(InputError, match=r"^num_params 0 and context_length 8192 must be positive$"):
        measured.at("xlstm", 0, 8192)
    with pytest.raises(InputError, match=r"no context length has 6 finished runs of four sizes with throughput$"):
        MeasuredUtilization.of(logs.head(5))


def test_quantiles_are_the_ends_of_the_intervals(measured: MeasuredUtilization) -> None:
    for name, length in (("transformer", 4096), ("xlstm", 16384)):
        found = measured.at(name, [3e8, 1e9], length, 0.9)
        ends = [measured.quantile(name, [3e8, 1e9], length, p) for p in (0.05, 0.5, 0.95)]
        for mine, its in zip(ends, (found.low, found.value, found.high), strict=True):
            assert mine == pytest.approx(its, rel=1e-9)
    assert np.isnan(measured.quantile("xlstm", [np.nan, 1e9], 8192)).tolist() == [True, False]
    assert measured.quantile("xlstm", [[3e8], [1e9]], 8192, [0.1, 0.5, 0.9]).shape == (2, 3)


def test_samples_spread_as_further_runs_do() -> None:
    """The share of samples below a further run is as likely to be any share as any other."""
    below, chances = [], evenly_spread(400)
    for seed in range(300):
        size = float(np.exp(np.random.default_rng(seed).uniform(np.log(2e8), np.log(2e9))))
        samples = MeasuredUtilization.of(synthetic((1024,), 0.05, 10, seed)).quantile("mine", size, 1024, chances)
        x = np.log(size / 1e9)
        scatter = 0.05 * np.random.default_rng(10_000 + seed).standard_normal()
        below.append(np.mean(samples < np.exp(-1.5 + 0.2 * x - 0.03 * x**2 + scatter)))
    assert stats.kstest(below, "uniform").pvalue > 0.01


def test_probabilities_are_even_and_in_an_order_of_their_own() -> None:
    chances = evenly_spread(200)
    assert np.sort(chances) == pytest.approx((np.arange(200) + 0.5) / 200)
    for seed in (1, 4, 9):  # those of losses, times to first token and step times
        assert abs(np.corrcoef(chances, np.random.default_rng(seed).permutation(200))[0, 1]) < 0.2


def test_more_than_the_peak_is_refused() -> None:
    logs = synthetic((1024,)).assign(run=lambda table: [f"run {i}" for i in table.index])
    logs.loc[3, "utilization"] = 1.2
    with pytest.raises(
        InputError, match=r"^training logs: run 'run 3' would use 1.200 times the peak of NVIDIA H100 SXM: step times"
    ):
        MeasuredUtilization.of(logs)


@pytest.mark.parametrize("name", ["status", "step_time_s", "train_steps"])
def test_a_table_that_was_not_loaded_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"no column '{name}'; companion.training.load_training_logs"):
        MeasuredUtilization.of(load_training_logs().drop(columns=name))
