"""Runs of one shape and number of tokens at two batch sizes: pairs, mean differences, trend over steps."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from companion.errors import InputError
from companion.formatting import number_word
from companion.paths import data_dir
from companion.runs import load_paper_runs
from companion.training import load_training_logs
from companion.training.batch import (
    batch_table,
    batches_by_design,
    differences_by_steps,
    fit_step_trend,
    mean_difference,
    pair_batches,
)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return batch_table(load_paper_runs(), load_training_logs())


def small_logs(**changes: object) -> pd.DataFrame:
    """Three shapes, each at batch 64 and at 128, 0.1 nats higher, without most of the optional columns."""
    rows = [
        {
            "architecture": "xlstm", "num_params": size, "num_tokens": 1000 * 128, "batch_size_seqs": batch,
            "train_steps": 1000 * 128 // batch, "val_loss": 3.0 + size / 1e9 + 0.1 * (batch == 128),
        }
        for size in (10, 20, 30)
        for batch in (64, 128)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def pairs_like(steps: list[float], differences: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"second_steps": steps, "difference": differences, "same_learning_rate": True})


def test_the_pairs_of_the_papers_1e20_profile(table: pd.DataFrame) -> None:
    """28 of 29 runs have a partner, 17 at exactly its tokens; 6 of the largest have another learning rate."""
    logs = load_training_logs()
    pairs = pair_batches(table, 128, 256)
    batch_256 = logs[logs["group"] == "batch_256"]
    assert len(batch_256) == 29
    assert set(batch_256["num_params"]) - set(pairs["num_params"]) == {1_725_028_832}
    assert len(pairs) == 28
    assert (pairs["token_ratio"] == 1).sum() == 17
    assert (pairs["token_ratio"] - 1).abs().max() < 0.018
    assert set(pairs["first_source"]) == {"figure", "notebook"}
    assert not pairs["imposed"].any()
    assert (pairs["loss_uncertainty"] == 5e-6).all()
    other_rate = pairs[~pairs["same_learning_rate"]]
    assert len(other_rate) == 6
    assert other_rate["num_params"].min() > 1.7e9
    exact = pairs[pairs["token_ratio"] == 1]
    # losses 0.004 to 0.116 higher: a first look at the logs (data/README.md, source of the tables)
    assert exact["difference"].round(3).min() == 0.004
    assert exact["difference"].round(3).max() == 0.116
    assert pairs["second_steps"].is_monotonic_increasing
    assert (pairs["second_batch"] == 2 * pairs["first_batch"]).all()
    assert pairs["second_schedule_share"].iloc[0] == 1750 / 2500


def test_a_second_paired_experiment_is_in_the_logs(table: pd.DataFrame) -> None:
    """Transformers at batch 64 and 128, among the runs with budgets of another count."""
    pairs = pair_batches(table, 64, 128)
    assert set(pairs["architecture"]) == {"transformer"}
    assert pairs["same_learning_rate"].all()
    assert (pairs["difference"] > 0).all()
    assert stats.spearmanr(pairs["second_steps"], pairs["difference"]).statistic < -0.9
    # 1,750 of these steps are warm-up and cool-down
    assert pairs["second_schedule_share"].max() == 1750 / 2000


def test_columns_that_a_table_lacks_are_not_needed() -> None:
    pairs = pair_batches(small_logs(), 64, 128)
    assert pairs["difference"].tolist() == pytest.approx([0.1] * 3)
    assert pairs["second_batch"].tolist() == [128] * 3
    assert not pairs["same_learning_rate"].any()
    assert pairs["loss_uncertainty"].isna().all()
    swapped = pair_batches(small_logs(), 128, 64)
    assert swapped["difference"].tolist() == pytest.approx([-0.1] * 3)


def test_each_run_is_in_one_pair_and_the_nearest_tokens_win() -> None:
    logs = small_logs()
    again = logs.iloc[[1]].assign(num_tokens=126_000, val_loss=9.0)
    better = logs.iloc[[0]].assign(val_loss=2.5)
    pairs = pair_batches(pd.concat([again, better, logs]), 64, 128)  # the index repeats
    assert len(pairs) == 4
    smallest = pairs[pairs["num_params"] == 10].sort_values("first_loss")
    assert smallest["token_ratio"].tolist() == [1.0, 126_000 / 128_000]
    assert smallest["first_loss"].tolist() == [2.5, pytest.approx(3.0)]
    assert smallest["second_loss"].tolist() == [pytest.approx(3.1), 9.0]
    assert len(pair_batches(pd.concat([again, logs], ignore_index=True), 64, 128, token_tolerance=0)) == 3


def test_only_finished_runs_pair() -> None:
    logs = small_logs(status="finished")
    logs.loc[1, "status"] = "diverged"
    logs.loc[3, "val_loss"] = np.nan
    assert pair_batches(logs, 64, 128)["num_params"].tolist() == [30]


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ((64, 512), {}, "no run at batch 64 has a partner at batch 512 with its shape and its tokens within a share of "
         "0.03; the table has batches 64, 128"),
        ((64, 64), {}, "both batch sizes are 64: choose two"),
        ((64, 128), {"token_tolerance": -0.1}, "token_tolerance -0.1 is negative"),
    ],
)  # fmt: skip
def test_nothing_pairs(batches: tuple[int, int], options: dict[str, float], message: str) -> None:
    logs = small_logs()
    logs.attrs["source"] = "mine.csv"
    with pytest.raises(InputError, match=re.escape(f"mine.csv: {message}")) as caught:
        pair_batches(logs, *batches, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="training logs: no column 'train_steps', which pairs of batch sizes need"):
        pair_batches(small_logs().drop(columns="train_steps"), 64, 128)
    with pytest.raises(InputError, match="no column 'batch_size_seqs', which the batches of a study need"):
        batches_by_design(small_logs().drop(columns="batch_size_seqs"))


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=20), st.floats(-2, 2))
def test_a_shift_moves_the_mean_and_nothing_else(values: list[float], shift: float) -> None:
    steps = list(range(1, len(values) + 1))
    before = mean_difference(pairs_like(steps, values), num_resamples=50)
    after = mean_difference(pairs_like(steps, [value + shift for value in values]), num_resamples=50)
    assert after.mean - before.mean == pytest.approx(shift, abs=1e-9)
    assert after.standard_deviation == pytest.approx(before.standard_deviation, abs=1e-9)
    assert np.subtract(*after.t_interval) == pytest.approx(np.subtract(*before.t_interval), abs=1e-8)
    assert np.subtract(*after.bootstrap_interval) == pytest.approx(np.subtract(*before.bootstrap_interval), abs=1e-9)


def test_the_t_interval_is_that_of_a_paired_t_test(table: pd.DataFrame) -> None:
    pairs = pair_batches(table, 128, 256)
    found = mean_difference(pairs)
    reference = stats.ttest_rel(pairs["second_loss"], pairs["first_loss"]).confidence_interval(0.95)
    assert found.t_interval == pytest.approx((reference.low, reference.high))
    low, high = found.bootstrap_interval
    assert found.t_interval[0] < low < found.mean < high < found.t_interval[1] + 0.002
    with pytest.raises(InputError, match="mean difference: 1 pair; at least 2"):
        mean_difference(pairs.iloc[:1])


def test_classes_of_steps(table: pd.DataFrame) -> None:
    pairs = pair_batches(table, 128, 256)
    classes = differences_by_steps(pairs, 3)
    assert classes["num_pairs"].sum() == len(pairs)
    assert classes["mean"].is_monotonic_decreasing
    assert (classes["most_steps"].to_numpy()[:-1] <= classes["fewest_steps"].to_numpy()[1:]).all()
    assert np.average(classes["mean"], weights=classes["num_pairs"]) == pytest.approx(pairs["difference"].mean())
    with pytest.raises(InputError, match="classes of steps: 15 of 28 pairs; each needs at least 2 pairs"):
        differences_by_steps(pairs, 15)


@given(st.floats(0.2, 3), st.floats(0.001, 0.5))
def test_an_exact_power_law_over_steps_is_found(exponent: float, scale: float) -> None:
    steps = np.geomspace(2000, 20000, 8)
    values = scale * (steps / steps.mean()) ** -exponent
    trend = fit_step_trend(pairs_like(steps.tolist(), values.tolist()), num_resamples=3)
    assert trend.exponent == pytest.approx(exponent, rel=1e-4)
    assert trend.predict(steps) == pytest.approx(values, rel=1e-4)


def test_the_interval_of_a_trend_holds_the_truth() -> None:
    rng = np.random.default_rng(5)
    steps, held = np.geomspace(2000, 20000, 25), 0
    for seed in range(25):
        values = 0.03 * (steps / 6000) ** -1.2 + rng.normal(0, 0.003, steps.size)
        low, high = fit_step_trend(pairs_like(steps.tolist(), values.tolist()), 60, seed).interval("exponent")
        held += low <= 1.2 <= high
    assert 20 <= held <= 25


def test_the_trend_of_the_logs(table: pd.DataFrame) -> None:
    """Equal learning rates: the difference falls about as one over the steps."""
    pairs = pair_batches(table, 128, 256)
    trend = fit_step_trend(pairs[pairs["same_learning_rate"]])
    low, high = trend.interval("exponent")
    assert low < 1 < high
    assert low > 0.8
    assert fit_step_trend(pairs).interval("exponent")[0] > 1.1
    with pytest.raises(InputError, match="slope"):
        trend.interval("slope")
    with pytest.raises(InputError, match="trend over steps: 3 pairs at 3 numbers of steps"):
        fit_step_trend(pairs.iloc[:3])


def test_the_batches_of_the_paper() -> None:
    """1,048,576 tokens in every IsoFLOP batch, except the xLSTM's at 6e20 FLOP."""
    table = batches_by_design(load_paper_runs())
    isoflop = table[table["experiment"] == "isoflop"]
    other = isoflop[isoflop["batch_tokens"] != 2**20]
    assert other[["architecture", "isoflop_budget", "batch_tokens"]].to_numpy().tolist() == [["xlstm", 6e20, 2**21]]
    assert isoflop.groupby("context_length")["batch_size_seqs"].min().to_dict() == {2048: 512, 8192: 128, 16384: 64}
    assert table["num_runs"].sum() == 640


def test_what_the_readme_says_of_the_groups() -> None:
    """Numbers in the description of the table, computed."""
    logs = load_training_logs()
    of_group = logs[logs["group"] == "batch_256"]
    pairs = pair_batches(batch_table(load_paper_runs(), logs), 128, 256)
    pairs = pairs[pairs["second_group"] == "batch_256"]
    equal = pairs["first_num_tokens"] == pairs["second_num_tokens"]
    away = (pairs["first_num_tokens"] / pairs["second_num_tokens"] - 1).abs().max()
    rates = pairs[pairs["first_learning_rate"] != pairs["second_learning_rate"]]
    other = logs[logs["group"] == "isoflop_budget_by_chinchilla_count"]
    sizes = other.groupby([other["train_flops"] > 5.5e18, "batch_size_seqs"]).size().tolist()
    text = " ".join((data_dir() / "README.md").read_text(encoding="utf-8").split())
    assert f"Of the {len(of_group)} runs of `batch_256`, {len(pairs)} have a partner" in text
    assert f"{equal.sum()} of these have exactly its D, the others lie within {away * 100:.1f} %" in text
    assert f"In {number_word(len(rates))} pairs, with N above {rates['num_params'].min() / 1e9:.2f}e9" in text
    assert sizes == [17, 15, 20]
    assert "17 runs at 6e18 with batch 64, 15 at 6e18 and 20 at 1e19 with batch 128" in text
