"""Overview tables: the paper's runs, and a table with the five required columns only."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.chapters.ch02.overview import (
    count_table,
    deviation_of_pair,
    exchanged,
    flops_table,
    front_designs,
    front_table,
    learning_rate_overlap,
    profile_scatter,
    repeated_runs,
    settings_table,
    step_from_neighbor,
    with_ranges,
)
from companion.errors import InputError
from companion.fitting.pareto import READINGS
from companion.runs.load import REQUIRED_COLUMNS, load_paper_runs
from companion.runs.select import subset


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture(scope="module")
def bare(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[list(REQUIRED_COLUMNS)]


def test_counts_add_up(runs: pd.DataFrame) -> None:
    table = count_table(runs)
    assert (table["transformer"].sum(), table["xlstm"].sum()) == (292, 348)
    assert len(table) == 12
    row = table[(table["isoflop_budget"] == 6e20)].iloc[0]
    assert (row["experiment"], row["context_length"], row["transformer"], row["xlstm"]) == ("isoflop", 8192, 0, 27)
    assert row["num_params_max"] == 6_867_522_560
    assert table["tokens_per_param_max"].max() == (runs["num_tokens"] / runs["num_params"]).max()


def test_settings(runs: pd.DataFrame) -> None:
    table = settings_table(runs).set_index(["experiment", "context_length", "architecture"])
    assert table["num_runs"].sum() == 640
    row = table.loc[("tokenparam", 8192, "xlstm")]
    assert (row["learning_rate_min"], row["learning_rate_max"]) == (0.0004, 0.003)
    assert (row["batch_tokens_min"], row["batch_tokens_max"]) == (128 * 8192, 512 * 8192)


def test_learning_rates_of_the_same_width(runs: pd.DataFrame) -> None:
    rates = {
        name: part.groupby(["context_length", "d_model"])["learning_rate"].unique().map(sorted)
        for name, part in runs.groupby("architecture")
    }
    both = [key for key in rates["xlstm"].index if key in rates["transformer"].index]
    same = [key for key in both if rates["xlstm"][key] == rates["transformer"][key]]
    assert learning_rate_overlap(runs, "xlstm", "transformer") == (len(both), len(same))
    assert 0 < len(same) < len(both)


def test_repeats(runs: pd.DataFrame) -> None:
    again = repeated_runs(runs)
    assert again["experiment"].tolist() == ["isoflop", "tokenparam"]
    assert set(again["num_params"]) == {162_220_800}


@given(st.floats(1e-6, 1.0))
def test_deviation_of_a_pair(difference: float) -> None:
    estimate, (low, high) = deviation_of_pair(-difference)
    assert estimate == pytest.approx(np.std([0.0, difference], ddof=1))
    assert low < estimate < high


def test_deviation_of_a_pair_covers_the_truth() -> None:
    """Half of the 50 % intervals hold the deviation that the pairs were drawn with."""
    differences = np.random.default_rng(0).normal(0, np.sqrt(2) * 0.3, 4000)
    intervals = [deviation_of_pair(difference, 0.5)[1] for difference in differences]
    assert np.mean([low < 0.3 < high for low, high in intervals]) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(InputError, match="not between 0 and 1"):
        deviation_of_pair(1.0, 1.0)


def test_scatter_around_the_parabolas(runs: pd.DataFrame) -> None:
    table = profile_scatter(runs)
    assert len(table) == 21
    assert (table["num_runs"].sum(), table["num_imposed"].sum()) == (574, 122)
    part = runs[(runs["isoflop_budget"] == 6e20)]
    x = np.log10(part["num_params"])
    residuals = part["val_loss"] - np.polyval(np.polyfit(x, part["val_loss"], 2), x)
    row = table[table["isoflop_budget"] == 6e20].iloc[0]
    assert row["deviation"] == pytest.approx(np.sqrt((residuals**2).sum() / (len(part) - 3)))


def test_flops(runs: pd.DataFrame) -> None:
    table = flops_table(runs)
    assert table["num_runs"].sum() == 640
    assert table["largest_deviation"].max() < 1e-5
    low, high = table["ratio_min"].min(), table["ratio_max"].max()
    assert (round(low, 3), round(high, 3)) == (0.706, 2.079)
    assert flops_table(runs, "6ND")["largest_deviation"].max() > 0.5


def test_designs_of_a_front(runs: pd.DataFrame) -> None:
    table = front_designs(runs, np.array([0, 1, 639]))
    assert table["experiment"].tolist() == ["isoflop", "tokenparam"]
    assert table["num_runs"].tolist() == [2, 1]
    assert table["train_flops_max"].tolist() == [runs["train_flops"][:2].max(), runs["train_flops"][639]]


def test_two_runs_exchanged(runs: pd.DataFrame) -> None:
    part = runs[runs["isoflop_budget"] == 6e20]
    one, other = part.index[part["num_params"].isin([3_724_524_056, 3_726_640_848])]
    after = exchanged(part, one, other)
    assert after.loc[one, "val_loss"] == part.loc[other, "val_loss"]
    assert after.loc[other, "val_loss"] == part.loc[one, "val_loss"]
    pd.testing.assert_frame_equal(exchanged(after, one, other), part)
    # widths 2816 and 3072: neighbors of 34 and 32 layers
    assert step_from_neighbor(part, one) == pytest.approx(2.51071 - 2.49590)
    assert step_from_neighbor(part, other) == pytest.approx(2.49707 - 2.49793)
    with pytest.raises(InputError, match="no other run has the val_loss of run"):
        step_from_neighbor(part, one, "val_loss")


def test_ranges_in_words() -> None:
    table = pd.DataFrame({"a": [1, 2, 3], "x_min": [1.0, 5.0, np.nan], "x_max": [2.0, 5.0, np.nan]})
    result = with_ranges(table, {"x": "{:.1f}".format})
    assert list(result.columns) == ["a", "x"]
    assert result["x"].tolist() == ["1.0–2.0", "5.0", "–"]


def test_a_bare_table_works_everywhere(bare: pd.DataFrame) -> None:
    counts = count_table(bare)
    assert counts[["transformer", "xlstm"]].to_numpy().tolist() == [[292, 348]]
    assert counts["experiment"].isna().all()
    assert "everything" not in counts
    settings = settings_table(bare)
    assert settings["num_runs"].tolist() == [292, 348]
    assert settings[["learning_rate_min", "batch_tokens_max"]].isna().all(axis=None)
    assert learning_rate_overlap(bare, "xlstm", "transformer") == (0, 0)
    flops = flops_table(bare)
    assert flops["largest_deviation"].isna().all()
    assert flops["ratio_min"].notna().all()
    assert front_designs(bare, [0, 3])["num_runs"].tolist() == [2]
    assert list(count_table(bare).columns) == list(count_table(load_paper_runs()).columns)
    assert profile_scatter(bare).empty
    assert list(settings.columns) == list(settings_table(load_paper_runs()).columns)
    assert list(flops.columns) == list(flops_table(load_paper_runs()).columns)


def test_fronts_of_every_context() -> None:
    table = front_table(load_paper_runs(), "xlstm", "transformer")
    assert table["context_length"].tolist() == sorted([2048, 8192, 16384] * 3)
    assert table["reading"].tolist() == list(READINGS) * 3
    by_hand = table[(table["context_length"] == 8192) & (table["reading"] == "hull")].iloc[0]
    assert (by_hand["second_runs_on_front"], by_hand["second_beaten_on_front"]) == (32, 31)


def test_fronts_of_a_table_without_contexts() -> None:
    runs = subset(load_paper_runs(), context_length=8192).drop(columns="context_length")
    assert front_table(runs, "xlstm", "transformer")["context_length"].tolist() == ["all"] * 3
    with pytest.raises(InputError, match="no context_length has runs of both xlstm and mamba"):
        front_table(runs, "xlstm", "mamba")
