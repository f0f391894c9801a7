"""Chapter 8: facts equal values computed another way, verdicts turn with the data, other tables are answered."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from companion.accounting.inference import BF16, Precision, cache_numbers, count_prefill, count_step
from companion.accounting.params import num_params
from companion.architectures import preset
from companion.benchmarks.hardware import measured_on
from companion.chapters import ch08
from companion.chapters.ch08 import all_sizes, comparison, costs, kernel, sizes
from companion.chapters.ch08.common import crossover_text, extremes
from companion.errors import InputError
from companion.hardware import get_hardware
from companion.inference.compare import Comparison, measured_crossovers, size_crossovers
from companion.inference.one_size import fit_inference
from companion.inference.runtime_model import RuntimeModel
from companion.inference.terms import (
    cache_term_variants,
    cached_token_times,
    fit_all_models,
    fit_all_sizes,
    multiprocessor_bounds,
    multiprocessor_scan,
)
from companion.inference.timings import load_paper_inference
from companion.paths import data_dir
from companion.plotting import Html

PEAKS = get_hardware("h100-sxm")
EXAMPLE = {name: preset(name, "7b") for name in ("transformer", "xlstm")}
TRANSFORMER, XLSTM = EXAMPLE.values()
GROUPED = ch08.with_groups(TRANSFORMER, 8)
MODELS_SHOWN = {"Transformer": TRANSFORMER, "Transformer, 8 groups": GROUPED, "xLSTM": XLSTM}


@pytest.fixture(scope="module")
def timings() -> pd.DataFrame:
    return load_paper_inference()


@pytest.fixture(scope="module")
def models(timings: pd.DataFrame) -> dict[tuple[str, str], RuntimeModel]:
    return fit_all_models(timings, num_resamples=10)[0]


def rows_of(table: Html) -> list[dict[str, str]]:
    """The rows of a table by its headings."""
    soup = BeautifulSoup(table.markup, "html.parser")
    head = [cell.get_text() for cell in soup.select("thead th")]
    return [dict(zip(head, (td.get_text() for td in row.select("td")), strict=True)) for row in soup.select("tbody tr")]


def text_of(table: Html) -> str:
    return BeautifulSoup(table.markup, "html.parser").get_text(" ")


class TestWords:
    @pytest.mark.parametrize(
        ("value", "text"),
        [(0.0, "always"), (np.inf, "> 131,072"), (np.nan, "–"), (-1.0, "–"), (1234.0, "1,200"), (64.4, "64")],
    )
    def test_crossovers(self, value: float, text: str) -> None:
        assert crossover_text(value, 131072) == text

    @given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5))
    def test_extremes_hold_every_value(self, values: list[float]) -> None:
        ends = [float(end) for end in extremes(values).split(" to ")]
        assert ends[0] - 0.0051 <= min(values)
        assert max(values) <= ends[-1] + 0.0051
        assert extremes(values[::-1]) == extremes(values)


class TestCosts:
    def test_passes_in_their_units(self) -> None:
        passes = [("T", count(TRANSFORMER, 2048)) for count in (count_prefill, count_step)]
        prefill, step = rows_of(ch08.pass_table(passes, PEAKS))
        assert (prefill["T"], prefill["pass"], prefill["limited by"]) == ("2k", "prefill", "compute")
        assert step["limited by"] == "memory"
        moved = count_step(TRANSFORMER, 2048).traffic.total
        assert float(step["roofline (ms)"]) == pytest.approx(1e3 * moved / PEAKS.peak_bytes_per_s, rel=5e-3)

    def test_room_beside_the_weights(self) -> None:
        facts = ch08.cost_facts(MODELS_SHOWN, EXAMPLE, [1, 16], PEAKS)
        free = PEAKS.memory_bytes - 2 * num_params(TRANSFORMER)
        assert facts["c8_room"].startswith(f"{int(free // (2 * cache_numbers(TRANSFORMER, 16384)))} (Transformer)")
        low, high = map(float, facts["c8_step_intensity"].split(" to "))
        assert low < high < PEAKS.ridge < float(facts["c8_prefill_least"])
        small = get_hardware("rtx-4090")
        assert ch08.cost_facts({"7B": preset("transformer", "7b")}, EXAMPLE, [1], small)["c8_room"].endswith("(7B)")

    def test_intensities_contain_a_batch_of_one(self) -> None:
        points = costs.intensities(EXAMPLE, [16])
        assert set(points["B"]) == {1, 16}
        assert len(points) == 2 * 2 * 2 * 2

    def test_chunk_verdict_turns(self) -> None:
        assert "memory still limits" in costs.chunk_verdict(1.5)
        assert "memory still limits" not in costs.chunk_verdict(1.0)
        facts = ch08.chunk_facts(XLSTM, 8192, PEAKS)
        assert float(facts["c8_chunk_rule"]) == pytest.approx((1 / (1 / XLSTM.d_qk + 1 / XLSTM.d_hv)) ** 0.5, abs=0.05)

    def test_cache_choices(self) -> None:
        choices = {
            "all heads, 2 bytes": (1, BF16),
            "3 heads share": (3, BF16),
            "8 heads share, 1-byte cache": (8, Precision(bytes_per_cache=1.0)),
        }
        shrunk = ch08.cache_choices(EXAMPLE, choices, [1, 16], PEAKS, 65536)
        assert shrunk["groups"].tolist() == [32, 16, 4], "a number of groups divides the heads"
        assert shrunk["equal"].iloc[2] == pytest.approx(16 * shrunk["equal"].iloc[0])
        facts = ch08.cache_choices_facts(shrunk, [1, 16])
        assert facts["c8_groups_moved"] == f"{shrunk['B = 16'].iloc[0]} to {shrunk['B = 16'].iloc[2]}"
        assert "heads of keys and values" in text_of(ch08.cache_choices_table(shrunk, PEAKS, "7b"))

    def test_groups_are_at_most_the_heads(self) -> None:
        assert ch08.with_groups(TRANSFORMER, 1000).n_kv_heads == TRANSFORMER.n_heads

    def test_devices(self) -> None:
        rows = rows_of(ch08.device_table(EXAMPLE, 16, "7b"))
        names = [row["device"] for row in rows]
        assert PEAKS.label in names
        fits = rows[names.index(get_hardware("rtx-4090").label)]["memory at T = 32k"]
        assert "Transformer needs" in fits
        facts = ch08.device_facts(EXAMPLE, 1)
        assert int(facts["c8_memory_bound"]) == int(facts["c8_num_steps"]) == 4 * len(rows)

    def test_batches_that_fit(self) -> None:
        batches = 2 ** np.arange(0, 12)
        row = rows_of(ch08.batch_table({"xLSTM": XLSTM}, batches, PEAKS))[0]
        steps = count_step(XLSTM, 512, batches)
        best = max(
            batch / seconds
            for batch, seconds, held in zip(batches, steps.roofline(PEAKS).seconds, steps.memory.total, strict=True)
            if held <= PEAKS.memory_bytes
        )
        assert row["most tokens/s that fit"] == f"{best:,.0f}"


class TestSizes:
    def test_counts_of_the_timings(self, timings: pd.DataFrame) -> None:
        rows = rows_of(ch08.timings_table(timings))
        total = sum(int(row["timings"]) for row in rows)
        assert ch08.timing_facts(timings)["c8_num_timings"] == f"{total:,}"
        assert "the weights were held in 2 bytes" in ch08.timing_facts(timings)["c8_memory"]

    def test_tables_with_less(self, timings: pd.DataFrame) -> None:
        little = timings[timings["architecture"] == "xlstm"].drop(
            columns=["step_time_s", "memory_allocated_bytes_gen1"]
        )
        assert ch08.quantities_of(little) == ["ttft"]
        assert len(rows_of(ch08.timings_table(little))) == 1
        assert "does not say" in ch08.timing_facts(little)["c8_memory"]

    def test_what_fits_of_single_sizes_say(self, timings: pd.DataFrame) -> None:
        small = timings[timings["model_size"].isin(["160m", "7b"])]
        fits, notes = fit_all_sizes(small, num_resamples=20)
        milliseconds, _ = fit_all_sizes(small, num_resamples=0, objective="milliseconds")
        facts = ch08.size_facts(fits, milliseconds, [*notes, "a reason"], None)
        assert "bandwidth of the xLSTM" in facts["c8_answer_identified"]
        assert "xLSTM step_time, beta_eff_bytes_per_s: 2 sizes" in facts["c8_notes"]
        assert facts["c8_notes"].endswith("Not fitted: a reason")
        assert facts["c8_collinear"] == "There is nothing to show it on"
        steps = rows_of(ch08.size_table(fits, "step_time"))
        assert [row["β (TB/s)"] for row in steps[:2]] == ["not identified"] * 2
        first = rows_of(ch08.size_table(fits, "ttft"))[0]
        alone = fit_inference(timings, "xlstm", "160m", "ttft", num_resamples=0)
        rate = first["α (TFLOP/s)"].split(" ")[0]
        assert float(rate) == pytest.approx(alone.parameters["alpha_eff_flops_per_s"] / 1e12, rel=5e-3)
        constants = sizes.first_token_constants(fits, milliseconds)
        below = int((constants.loc[constants["architecture"] == "Transformer", "ms"] < 0).sum())
        assert f"{below} of 2 sizes (Transformer)" in facts["c8_negative"]
        errors = ch08.objective_errors(small, {"relative": fits, "milliseconds": milliseconds})
        assert len(errors) == 2 * 2 * 2
        assert "xLSTM: " in ch08.objective_verdict(errors)

    def test_nothing_to_fit(self) -> None:
        assert "nothing to fit" in text_of(ch08.size_table({}, "ttft"))
        assert "no step times of an xLSTM" in text_of(ch08.bandwidth_table(None, None))
        facts = ch08.size_facts({}, {}, [], None)
        assert facts["c8_notes"] == "Every parameter that was fitted is identified"
        assert facts["c8_answer_identified"].startswith("Every rate")
        assert facts["c8_negative"].startswith("No times")
        assert ch08.objective_verdict(ch08.objective_errors(pd.DataFrame(), {})).startswith("No times")


class TestKernel:
    def test_without_step_times_there_is_nothing(self) -> None:
        assert ch08.head_width_figure(pd.DataFrame(columns=["per_width"]), PEAKS) is None
        assert ch08.waves_figure(None, None, None, PEAKS) is None
        assert ch08.variants_table(None) is None
        assert ch08.own_waves_figure(None, pd.DataFrame()) is None
        facts = ch08.kernel_facts(pd.DataFrame(), None, None, None, of_paper=True)
        assert "no step times" in facts["c8_waves"]
        assert facts["c8_answer_kernel"].startswith("Without step times")

    def test_device_of_the_authors(self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
        bounds = multiprocessor_bounds(cached_token_times(timings))
        scan = multiprocessor_scan(timings, [120, 132, 144], PEAKS)
        variants = cache_term_variants(models["transformer", "step_time"])
        bandwidths = pd.DataFrame({"beta_eff_bytes_per_s": [0.5e12, 1.5e12]})
        facts = ch08.kernel_facts(bandwidths, variants, bounds, scan, of_paper=True)
        assert "0.50 to 1.50 TB/s" in facts["c8_answer_kernel"]
        assert "most likely it was an H100 SXM" in facts["c8_device"]
        assert "most likely" not in kernel.device_verdict(bounds, scan, of_paper=False)
        assert f"from {variants['rms_log_error'].iloc[1]:.2f} to" in facts["c8_waves"]
        rows = rows_of(ch08.evidence_table(timings, models, bounds, PEAKS))
        assert [row["what"] for row in rows] == ["multiprocessors", "memory", "bandwidth", "bandwidth"]
        assert rows_of(ch08.evidence_table(timings, {}, None, PEAKS)) == []

    def test_kernels_at_hand(self) -> None:
        reads = measured_on(data_dir() / "benchmarks" / "hardware.jsonl")
        words = ch08.own_gpu_words(reads)
        assert all(gpu in words for gpu in set(reads["gpu"]))


class TestAllSizes:
    def test_no_models(self, timings: pd.DataFrame) -> None:
        for function in (ch08.terms_table, ch08.residuals_figure, ch08.times_figure):
            assert function({}) is None
        assert ch08.shares_figure({}, EXAMPLE, [1], "7b") is None
        facts = ch08.model_facts({}, ["too few"], timings, PEAKS)
        assert facts["c8_terms"] == "This table is too small for a model of all sizes. Left out: too few"
        assert "nothing to compare" in facts["c8_roofline"]
        assert ch08.regime_words({}, EXAMPLE, "7b", [1], 65536) == "No step times to split up"
        assert "no runtime model" in text_of(ch08.left_out_table({}, {}))

    def test_errors_of_the_models(self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
        words = all_sizes.fit_words(models, [])
        model = models["transformer", "ttft"]
        rms = float(np.sqrt(np.mean(model.log_residuals**2)))
        assert f"Transformer ttft: {rms:.3f} over {len(model.rows)} timings" in words
        assert len(rows_of(ch08.terms_table(models) or ch08.note_table("", ""))) == sum(
            len(m.terms) for m in models.values()
        )
        assert "Measured time over the roofline" in all_sizes.roofline_words(models, timings, PEAKS)

    def test_a_third_architecture_is_left_to_the_tables_of_all(
        self, models: dict[tuple[str, str], RuntimeModel]
    ) -> None:
        more = {**models, ("other", "ttft"): models["transformer", "ttft"]}
        assert ch08.regime_words(more, EXAMPLE, "7b", [1], 65536) == ch08.regime_words(
            models, EXAMPLE, "7b", [1], 65536
        )
        assert ch08.shares_figure(more, EXAMPLE, [1], "7b") is not None
        assert ch08.shares_figure({("other", "ttft"): models["transformer", "ttft"]}, EXAMPLE, [1], "7b") is None
        both = [ch08.largest_shares_table(each, "7b", [1], 65536) for each in (more, models)]
        assert both[0].markup == both[1].markup
        assert "other ttft" in all_sizes.fit_words(more, [])

    def test_only_the_state_does_not_grow_with_the_context(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        grows = {key: all_sizes._depends_on_context(model, EXAMPLE[key[0]]) for key, model in models.items()}
        assert [key for key, each in grows.items() if not each] == [("xlstm", "step_time")]

    def test_shares_of_a_step_add_up(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        words = ch08.regime_words(models, EXAMPLE, "7b", [1, 16], 65536)
        part = words.split("Transformer, B = 16: ")[1].split(";")[0].split(". ")[0]
        shares = [float(each.split(" %")[0]) for each in part.split(", ")]
        assert sum(shares) == pytest.approx(100, abs=1.5)


def comparison_of(crossovers: dict[tuple[str, str], float], ratio: float = 1.5) -> Comparison:
    """A comparison with given crossovers and one ratio at every context."""
    kinds = [(q, m) for q in ("ttft", "step_time") for m in ("measured", "roofline")] + [("memory", "count")]
    table = pd.DataFrame(
        [
            {"quantity": q, "method": m, "context_length": t, "ratio": ratio, "ratio_low": 1.0, "ratio_high": 2.0}
            for q, m in kinds
            for t in (128, 16384)
        ]
    )
    found = [
        {"quantity": q, "method": m, "crossover": crossovers.get((q, m), 512.0), "crossover_low": 0.0}
        | {"crossover_high": np.inf}
        for q, m in kinds
    ]
    return Comparison(first="xlstm", second="transformer", table=table, crossovers=pd.DataFrame(found))


class TestComparison:
    def test_verdicts_at_equal_loss(self) -> None:
        always, later = comparison_of({("step_time", "measured"): 0.0}), comparison_of({})
        same = {("loss 2.4", 1): always, ("loss 2.4", 8): always}
        facts = ch08.equal_loss_facts(same, ["loss 2.4"], [1, 8], 65536)
        assert (
            "as timed (B = 8) the xLSTM is faster at every context; by the roofline from 510 tokens (B = 1)"
            in (facts["c8_answer_step"])
        )
        assert facts["c8_take_kernel"].endswith("is 1.5 [1, 2] as timed and 1.5 [1, 2] at best")
        mixed = {("loss 2.4", 1): always, ("loss 2.6", 1): later}
        step = comparison.step_verdict(mixed, ["loss 2.4", "loss 2.6"], [1], 65536)
        assert "at every context or from up to 510 tokens" in step
        assert step.count("(B = 1)") == 2

    def test_crossovers_with_intervals(self) -> None:
        rows = rows_of(ch08.crossover_table({("loss 2.4", 1): comparison_of({})}, 65536))
        assert len(rows) == 5
        assert rows[0]["loss 2.4"] == "510 [always to > 65,536]"
        assert {row["times from"] for row in rows} == {"measured", "roofline", "count"}

    def test_no_comparison(self) -> None:
        facts = ch08.equal_loss_facts({}, [], [1], 65536)
        assert facts["c8_answer_step"].endswith("no comparison")
        assert facts["c8_take_kernel"] == "Show a roofline beside it"
        assert "must be timed" in text_of(ch08.equal_loss_figure({}, [], [1], 16384))
        assert "no comparison" in text_of(ch08.crossover_table({}, 65536))

    @pytest.mark.parametrize(("size", "near"), [(1.05, True), (1.5, False)])
    def test_facts_of_trained_models(self, size: float, near: bool) -> None:
        def trained(num_params: float, loss: float) -> Any:
            best = SimpleNamespace(
                num_params=np.array([num_params]), train_flops=np.array([2e20]), loss=np.array([loss])
            )
            return SimpleNamespace(best=best)

        pair = {"transformer": trained(1e9, 2.5), "xlstm": trained(size * 1e9, 2.4)}
        facts = ch08.trained_facts({"loss 2.5": pair}, pair, 1e21)
        assert facts["c8_size_ratio"] == f"{size:.2f}"
        assert facts["c8_compute_ratio"] == "1.00"
        assert facts["c8_loss_gap"] == "0.100 nats lower"
        assert ("nearly equal size" in facts["c8_size_verdict"]) is near
        assert ("change little" in facts["c8_take_loss"]) is near

    def test_equal_size(self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
        crossings = {"ttft": measured_crossovers(timings, "ttft")}
        far = np.geomspace(64, 65536, 30).round()
        modeled = {"ttft": size_crossovers(timings, models, "ttft", [1], far)}
        rows = rows_of(ch08.size_crossover_table(timings, crossings, modeled, [1], 65536))
        assert [row["times from"] for row in rows] == ["timings", "measured", "roofline"]
        assert list(rows[0])[3:] == ["160m", "400m", "830m", "1.4b", "2.7b", "7b"], "by weight"
        words = ch08.equal_size_facts(crossings, modeled, 65536, of_paper=True)["c8_equal_size"]
        assert "the paper says 30 to 50 %" in words
        assert "the paper" not in ch08.equal_size_facts(crossings, {}, 65536, of_paper=False)["c8_equal_size"]

    def test_one_architecture(self, timings: pd.DataFrame) -> None:
        assert "one architecture only" in text_of(ch08.size_crossover_table(timings, {}, {}, [1], 65536))
        assert ch08.equal_size_facts({}, {}, 65536, of_paper=False)["c8_equal_size"].endswith("one architecture only")


@pytest.mark.parametrize(
    "call",
    [
        lambda: ch08.cache_choices(EXAMPLE, {"odd": (1, BF16)}, [0], PEAKS, 65536),
        lambda: costs.chunk_costs(TRANSFORMER, 8192, PEAKS),
        lambda: ch08.device_table(EXAMPLE, -1, "7b"),
    ],
)
def test_values_that_cannot_be(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
