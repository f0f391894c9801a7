"""What limits a time: waves of attention heads in the authors' timings, and shares that add up."""

import numpy as np
import pandas as pd
import pytest

from companion.accounting.inference import cache_numbers, count_step
from companion.architectures import preset
from companion.errors import InputError
from companion.hardware import known_hardware
from companion.inference.one_size import fit_inference
from companion.inference.runtime_model import paper_runtime_model
from companion.inference.terms import (
    against_roofline,
    bandwidth_by_head_width,
    cache_term_variants,
    cached_token_times,
    changes,
    fit_all_models,
    fit_all_sizes,
    fixed_bandwidths,
    left_out_sizes,
    memory_of_steps,
    multiprocessor_bounds,
    multiprocessor_scan,
    shares,
)
from companion.inference.timings import load_paper_inference, model_of

SIZES = ("160m", "400m", "830m", "1.4b", "2.7b", "7b")


@pytest.fixture(scope="module")
def timings() -> pd.DataFrame:
    return load_paper_inference()


def waves(timings: pd.DataFrame, number: int) -> pd.DataFrame:
    """The Transformer's timings as a device of so many multiprocessors would give them: 1 ms and 40 ns per token."""
    rows = timings[timings["architecture"] == "transformer"]
    turns = np.ceil(rows["batch_size"] * rows["n_heads"] / number)
    time = 1e-3 + 4e-8 * (rows["prefill_length"] + 51) * rows["n_layers"] * turns
    return rows.assign(step_time_s=time)


class TestWaves:
    @pytest.mark.parametrize("number", [66, 132, 200])
    def test_a_known_device_is_found(self, timings: pd.DataFrame, number: int) -> None:
        table = waves(timings, number)
        times = cached_token_times(table)
        turns = np.ceil(times["heads_in_batch"] / number)
        np.testing.assert_allclose(times["seconds"], 4e-8 * turns, rtol=1e-9)
        low, high = multiprocessor_bounds(times)
        assert low <= number < high
        scan = multiprocessor_scan(table, range(int(low) - 20, int(high) + 20))
        best = scan.loc[scan["rms_log_error"] < 1.01 * scan["rms_log_error"].min(), "num_multiprocessors"]
        assert number in set(best)

    def test_the_authors_device(self, timings: pd.DataFrame) -> None:
        """128 heads run at once, 192 do not: an H100 or H200 SXM would, an A100 or H100 PCIe would not."""
        times = cached_token_times(timings)
        assert multiprocessor_bounds(times) == (128, 192)
        assert times.loc[times["heads_in_batch"] <= 128, "ratio"].max() < 1.2
        assert times.loc[times["heads_in_batch"].between(192, 256), "ratio"].between(2, 2.2).all()
        fitting = {name for name, entry in known_hardware().items() if 128 <= entry.num_multiprocessors < 192}
        assert {"h100-sxm", "h200-sxm"} <= fitting
        assert not fitting & {"a100-sxm", "h100-pcie"}

    def test_time_per_token_hardly_depends_on_the_head(self, timings: pd.DataFrame) -> None:
        times = cached_token_times(timings).query("batch_size == 1").set_index("head_width")["seconds"]
        assert 1 < times[128.0].mean() / times[64.0].mean() < 1.15, "twice the bytes"

    def test_no_bounds_without_a_second_wave(self, timings: pd.DataFrame) -> None:
        times = cached_token_times(timings[timings["batch_size"] == 1])
        assert multiprocessor_bounds(times) == (32, np.inf)

    def test_variants_of_the_cache_term(self) -> None:
        table = cache_term_variants(paper_runtime_model("transformer", "step_time")).set_index("cache_term")
        rms = table["rms_log_error"]
        assert rms["tokens × waves"] == pytest.approx(paper_runtime_model("transformer", "step_time").rms_log_error)
        assert rms["bytes of all heads"] > 3 * rms["tokens × waves"]
        assert table.loc["tokens × waves, and bytes of all heads", "share_of_bytes"] < 0.03
        assert rms["tokens × waves × head width"] > 1.3 * rms["tokens × waves"]

    def test_bandwidths_are_proportional_to_the_head(self, timings: pd.DataFrame) -> None:
        fits = [fit_inference(timings, "transformer", size, "step_time", num_resamples=5) for size in SIZES]
        table = bandwidth_by_head_width(timings, fits)
        assert table["head_width"].tolist() == [64, 64, 96, 128, 80, 128]
        assert table["per_width"].between(11.5e9, 13.5e9).all()
        assert (table["beta_eff_bytes_per_s"].max() / table["beta_eff_bytes_per_s"].min()) > 1.9

    def test_memory_of_steps(self, timings: pd.DataFrame) -> None:
        table = memory_of_steps(timings)
        assert len(table) == 780
        assert table["timed"].sum() == 499
        assert 6.7e10 < table.loc[table["timed"], "bytes"].max() < 6.9e10, "of the 80e9 bytes of an H100"
        one = timings["architecture"].eq("transformer") & timings["model_size"].eq("7b") & timings["batch_size"].eq(2)
        row = memory_of_steps(timings[one & (timings["prefill_length"] == 1024)])["bytes"]
        assert row.tolist() == pytest.approx([2 * 6.86e9 + 2 * 1125 * 512 * 1024], rel=0.005)


class TestShares:
    def test_add_up(self) -> None:
        for name, quantity in (("transformer", "step_time"), ("xlstm", "ttft")):
            model = paper_runtime_model(name, quantity)  # type: ignore[arg-type]
            table = shares(model, preset(name, "7b"), np.array([128, 1024, 16384]), 8)
            kinds = [kind for kind in ("compute", "memory", "latency", "fixed") if kind in table]
            np.testing.assert_allclose(table[kinds].sum(axis=1), 1)
            np.testing.assert_allclose(table["seconds"], model.predict(preset(name, "7b"), table["context_length"], 8))
            assert set(table["largest"]) <= set(kinds)

    def test_attention_takes_over_as_the_context_grows(self) -> None:
        table = shares(paper_runtime_model("transformer", "step_time"), preset("transformer", "7b"), [128, 65536])
        assert table["largest"].tolist() == ["memory", "latency"]
        assert changes(table, "context_length").to_dict("records") == [
            {"before": "memory", "after": "latency", "at": 65536.0}
        ]

    def test_no_change(self) -> None:
        table = shares(paper_runtime_model("xlstm", "step_time"), preset("xlstm", "7b"), [128, 65536], 8)
        assert changes(table, "context_length").empty

    def test_along_the_batch(self) -> None:
        table = shares(paper_runtime_model("xlstm", "step_time"), preset("xlstm", "160m"), 2048, [1, 1024])
        assert table["batch_size"].tolist() == [1, 1024]
        assert table["largest"].tolist() == ["fixed", "memory"]


class TestFits:
    def test_all_of_the_paper_s(self, timings: pd.DataFrame) -> None:
        fits, notes = fit_all_sizes(timings, num_resamples=0)
        assert len(fits) == 2 * 2 * 6
        assert notes == []
        models, notes = fit_all_models(timings, num_resamples=0)
        assert len(models) == 4
        assert notes == []

    def test_what_cannot_be_fitted_is_told(self, timings: pd.DataFrame) -> None:
        part = timings[(timings["architecture"] == "xlstm") & (timings["batch_size"] == 1)].drop(columns="step_time_s")
        fits, notes = fit_all_sizes(part, num_resamples=0)
        assert {quantity for _, quantity, _ in fits} == {"ttft"}
        assert len(notes) == 6
        assert all("no column 'step_time_s'" in note for note in notes)
        models, notes = fit_all_models(part, num_resamples=0)
        assert list(models) == [("xlstm", "ttft")]
        assert len(notes) == 1

    def test_any_bandwidth_fits_the_xlstm_equally_well(self, timings: pd.DataFrame) -> None:
        free = fixed_bandwidths(timings, "xlstm", "7b", [-1e12, 5e11, 3.35e12, 1e15])
        assert np.ptp(free["rms_log_error"]) < 1e-9
        assert np.ptp(free["eps_s"]) < 1e-9
        state = 2 * 4 * cache_numbers(preset("xlstm", "7b"), 1)  # read and written, per sequence
        assert np.ptp(free["eps_bp_s"] + state / free["beta_eff_bytes_per_s"]) < 1e-9, "the constant makes up for it"
        held = fixed_bandwidths(timings, "transformer", "7b", [5e11, 1.5e12, 3.35e12])
        assert held["rms_log_error"].idxmin() == 1
        assert held["rms_log_error"].max() > 10 * held["rms_log_error"].min()

    def test_sizes_predict_each_other(self, timings: pd.DataFrame) -> None:
        for name in ("transformer", "xlstm"):
            for quantity in ("ttft", "step_time"):
                table = left_out_sizes(timings, name, quantity)  # type: ignore[arg-type]
                inside = paper_runtime_model(name, quantity).rms_log_error  # type: ignore[arg-type]
                assert len(table) == 6
                assert inside < table["rms_log_error"].mean() < 0.25


def test_bad_input(timings: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no rows with architecture transformer"):
        cached_token_times(timings[timings["architecture"] == "xlstm"])
    with pytest.raises(InputError, match="num_multiprocessors 0 is not positive"):
        multiprocessor_scan(timings, [0])


def test_timings_over_the_roofline() -> None:
    table = load_paper_inference()
    for architecture in ("transformer", "xlstm"):
        for quantity in ("ttft", "step_time"):
            ratio = against_roofline(table, architecture, quantity)
            assert ratio.notna().all()
            assert ratio.median() > 1, "the typical pass is slower than the hardware's least"
            # a device with half the peaks has twice the least time, or another limit: the ratio is never larger there
            slower = against_roofline(table, architecture, quantity, "a100-sxm")
            assert (slower <= ratio * (1 + 1e-12)).all()
    row = table[(table["architecture"] == "xlstm") & (table["model_size"] == "7b") & (table["batch_size"] == 1)]
    row = row[row["prefill_length"] == 2048]
    least = count_step(model_of(row.iloc[0]), 2048 + 51, 1).roofline("h100-sxm").seconds
    found = against_roofline(table, "xlstm", "step_time")[row.index[0]]
    assert found == pytest.approx(row["step_time_s"].iloc[0] / least)
