"""Chapter 8: facts equal values computed another way, verdicts turn with the data, other tables are answered."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
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
from companion.chapters.ch08 import all_sizes, costs, kernel, sizes
from companion.chapters.ch08.common import crossover_text, extremes, from_words
from companion.chapters.ch08.trained import TrainedPairs
from companion.errors import InputError
from companion.hardware import get_hardware
from companion.inference.compare import Comparison, measured_crossovers, size_crossovers
from companion.inference.one_size import fit_inference
from companion.inference.published_count import count_table
from companion.inference.runtime_model import RuntimeModel
from companion.inference.terms import (
    cache_term_variants,
    cached_token_times,
    fit_all_models,
    fit_all_sizes,
    fixed_bandwidths,
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

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.0, "at every context"),
            (np.inf, "at no context up to 131,072 tokens"),
            (np.nan, "at an unknown context"),
            (1234.0, "from 1,200 tokens on"),
        ],
    )
    def test_crossovers_in_sentences(self, value: float, text: str) -> None:
        assert from_words(value, 131072) == text

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
        assert (prefill["pass"], step["pass"]) == ("prefill", "step")
        assert float(step["FLOP per byte"]) < PEAKS.ridge < float(prefill["FLOP per byte"])
        moved = count_step(TRANSFORMER, 2048).traffic.total
        assert float(step["moved (GB)"]) == pytest.approx(moved / 1e9, rel=5e-2)
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
        assert "Memory still limits" in costs.chunk_verdict(1.5)
        assert "Memory still limits" not in costs.chunk_verdict(1.0)
        facts = ch08.chunk_facts(XLSTM, 8192, PEAKS)
        least = int(facts["c8_chunk_flops"])
        at = costs.chunk_costs(XLSTM, 8192, PEAKS).set_index("chunk_size")["flops"]
        assert at.min() == pytest.approx(at.iloc[np.abs(at.index - least).argmin()], rel=1e-2)
        assert facts["c8_chunk_bytes"] == "8,192"
        assert float(facts["c8_chunk_rule"]) == pytest.approx((1 / (1 / XLSTM.d_qk + 1 / XLSTM.d_hv)) ** 0.5, abs=0.05)

    def test_cache_choices(self) -> None:
        choices = {
            "all K/V heads": (None, BF16),
            "10 K/V heads": (10, BF16),
            "4 K/V heads, 1-byte cache": (4, Precision(bytes_per_cache=1.0)),
        }
        shrunk = ch08.cache_choices(EXAMPLE, choices, [1, 16], PEAKS, 65536)
        assert shrunk["groups"].tolist() == [32, 16, 4], "heads of keys and values divide those of queries"
        assert shrunk["equal"].iloc[2] == pytest.approx(16 * shrunk["equal"].iloc[0])
        facts = ch08.cache_choices_facts(shrunk, [1, 16])
        assert facts["c8_groups_moved"] == f"{shrunk['B = 16'].iloc[0]} to {shrunk['B = 16'].iloc[2]}"
        assert "K/V heads" in text_of(ch08.cache_choices_table(shrunk, PEAKS, "7b"))

    def test_groups_are_at_most_the_heads(self) -> None:
        assert ch08.with_groups(TRANSFORMER, 1000).n_kv_heads == TRANSFORMER.n_heads

    def test_devices(self) -> None:
        facts = ch08.device_facts(EXAMPLE, 1)
        assert facts["c8_memory_bound"] == facts["c8_num_steps"] == "28"
        assert (facts["c8_num_devices"], facts["c8_far_fits_xlstm"]) == ("seven", "all")
        crowded = ch08.device_facts(EXAMPLE, 16)
        held = count_step(TRANSFORMER, 32768, 16).memory.total
        assert crowded["c8_far_transformer"] == f"{held / 2**30:,.0f} GiB"
        assert crowded["c8_far_fits_transformer"] == "none"

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
        facts = ch08.timing_facts(timings)
        first, step = (timings[column].notna().sum() for column in ("ttft_s", "step_time_s"))
        assert facts["c8_num_timings"] == f"{first} times to first token and {step} step times"
        assert facts["c8_num_combinations"] == f"{len(timings):,}"
        assert facts["c8_batches"] == "1 to 1,024"
        assert "the weights were held in 2 bytes" in facts["c8_memory"]

    def test_tables_with_less(self, timings: pd.DataFrame) -> None:
        little = timings[timings["architecture"] == "xlstm"].drop(
            columns=["step_time_s", "memory_allocated_bytes_gen1"]
        )
        assert ch08.quantities_of(little) == ["ttft"]
        facts = ch08.timing_facts(little)
        assert "step" not in facts["c8_num_timings"]
        assert "does not say" in facts["c8_memory"]

    def test_what_fits_of_single_sizes_say(self, timings: pd.DataFrame) -> None:
        small = timings[timings["model_size"].isin(["160m", "7b"])]
        fits, notes = fit_all_sizes(small, num_resamples=20)
        milliseconds, _ = fit_all_sizes(small, num_resamples=0, objective="milliseconds")
        facts = ch08.size_facts(fits, milliseconds, [*notes, "a reason"])
        assert "bandwidth of the xLSTM" in facts["c8_unidentified"]
        assert facts["c8_notes"].startswith("For no xLSTM size do the step times determine β and ε per sequence")
        assert facts["c8_notes"].endswith("Not fitted: a reason")
        steps = rows_of(ch08.step_table(fits))
        assert [row["β (TB/s)"] for row in steps[:2]] == ["not determined"] * 2
        first = rows_of(ch08.first_token_table(fits, milliseconds))[0]
        alone = fit_inference(timings, "xlstm", "160m", "ttft", num_resamples=0)
        rate = first["α (TFLOP/s)"].split("\u00a0")[0].split(" ")[0]
        assert float(rate) == pytest.approx(alone.parameters["alpha_eff_flops_per_s"] / 1e12, rel=5e-3)
        constants = sizes.first_token_constants(fits, milliseconds)
        assert (constants.loc[constants["architecture"] == "Transformer", "ms"] < 0).all()
        assert facts["c8_negative"] == (
            "Fitted in milliseconds, ε is negative for all two Transformer sizes (and for no xLSTM size); fitted to "
            "relative errors, it is never negative"
        )
        errors = ch08.objective_errors(small, {"relative": fits, "milliseconds": milliseconds})
        assert len(errors) == 2 * 2 * 2
        assert ch08.objective_facts(errors)["c8_short_gain"].startswith("the Transformer's error falls from")

    def test_verdicts_turn(self, timings: pd.DataFrame) -> None:
        small = timings[timings["model_size"].isin(["160m", "7b"]) & (timings["architecture"] == "transformer")]
        fits, _ = fit_all_sizes(small, num_resamples=20)
        assert sizes.identification_verdict(fits, []) == "Every parameter that was fitted is determined"
        assert sizes.rate_verdict(fits).startswith("The paper's form determines every rate")
        some = pd.DataFrame({"architecture": "Transformer", "ms": [-1.0, 1.0, 2.0], "relative": [-1.0, -1.0, -1.0]})
        assert sizes.negative_verdict(some) == (
            "Fitted in milliseconds, ε is negative for one of three Transformer sizes; fitted to relative errors, it "
            "is negative for all three Transformer sizes"
        )

    def test_the_same_misfit_at_any_bandwidth(self, timings: pd.DataFrame) -> None:
        free = fixed_bandwidths(timings, "xlstm", "7b", [-1e12, 1e12])
        assert len(rows_of(ch08.bandwidth_table(free, "7b"))) == 2
        assert ch08.same_misfit(free.assign(rms_log_error=[0.2, 0.5])) == "3×10⁻¹"

    def test_nothing_to_fit(self) -> None:
        assert "no times to first token" in text_of(ch08.first_token_table({}, {}))
        assert "no step times" in text_of(ch08.step_table({}))
        facts = ch08.size_facts({}, {}, [])
        assert facts["c8_notes"] == "Every parameter that was fitted is determined"
        assert facts["c8_negative"] == "This table has no times to first token"
        nothing = ch08.objective_errors(pd.DataFrame(), {})
        assert ch08.objective_facts(nothing)["c8_short_gain"] == "there is nothing to compare"


class TestKernel:
    def test_device_of_the_authors(self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
        bounds = multiprocessor_bounds(cached_token_times(timings))
        scan = multiprocessor_scan(timings, [120, 132, 144], PEAKS)
        facts = kernel.device_facts_of_timings(timings, models["xlstm", "step_time"], bounds, scan, PEAKS)
        assert PEAKS.label in facts["c8_devices_left"]
        assert "A100" in facts["c8_devices_excluded"]
        assert bounds[0] <= PEAKS.num_multiprocessors < bounds[1]
        inside = scan.loc[scan["num_multiprocessors"] >= bounds[0], "rms_log_error"]
        assert facts["c8_scan"].startswith(f"{inside.min():.3f}")
        rates = models["xlstm", "step_time"].table().set_index("term")["rate"]
        assert facts["c8_rate_weights"].startswith(f"{rates['weight_bytes'] / 1e12:.2f} [")

    def test_waves_and_bytes(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        variants = cache_term_variants(models["transformer", "step_time"])
        facts = ch08.kernel_facts(pd.DataFrame({"beta_eff_bytes_per_s": [0.5e12, 1.5e12]}), variants)
        assert facts["c8_step_bandwidths"] == "0.50 to 1.50"
        assert facts["c8_misfit_bytes"] == f"{variants['rms_log_error'].iloc[1]:.2f}"
        assert float(facts["c8_misfit_waves"]) < float(facts["c8_misfit_bytes"])

    def test_kernels_at_hand(self) -> None:
        reads = measured_on(data_dir() / "benchmarks" / "hardware.jsonl")
        facts = ch08.own_facts(reads)
        assert all(gpu.removeprefix("NVIDIA ").split(" ")[0] in facts["c8_own_gpus"] for gpu in set(reads["gpu"]))
        assert len(facts["c8_own_copies"].split(" and ")) == reads["gpu"].nunique()


class TestAllSizes:
    def test_errors_of_the_models(self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
        rows = rows_of(ch08.models_table(models, timings, PEAKS))
        for row, model in zip(rows, models.values(), strict=True):
            assert row["timings"].strip() == str(len(model.rows))
            assert float(row["rms error"]) == pytest.approx(np.sqrt(np.mean(model.log_residuals**2)), abs=6e-4)
        assert len(rows_of(ch08.terms_table(models))) == sum(len(m.terms) for m in models.values())
        facts = ch08.model_facts(models, [], timings, PEAKS)
        assert facts["c8_below_roofline"] == "No timing lies below the roofline"
        assert facts["c8_unfitted"].startswith("Every")
        assert facts["c8_rms"] == "0.054 to 0.102"
        slow = replace(PEAKS, peak_flops_per_s=1e13, peak_bytes_per_s=1e11)
        assert "timings lie below" in ch08.model_facts(models, ["x"], timings, slow)["c8_below_roofline"]
        assert ch08.model_facts(models, ["too few"], timings, PEAKS)["c8_unfitted"] == "Not fitted: too few"

    def test_a_third_architecture_is_left_to_the_tables_of_all(
        self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]
    ) -> None:
        more = {**models, ("other", "ttft"): models["transformer", "ttft"]}
        where: Any = (EXAMPLE, "7b", [1])
        assert ch08.regime_facts(more, *where) == ch08.regime_facts(models, *where)
        both = [ch08.shares_figure(each, EXAMPLE, [1], "7b") for each in (more, models)]
        assert both[0].markup == both[1].markup
        assert "other" in text_of(ch08.terms_table(more))

    def test_only_the_state_does_not_grow_with_the_context(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        grows = {key: all_sizes._depends_on_context(model, EXAMPLE[key[0]]) for key, model in models.items()}
        assert [key for key, each in grows.items() if not each] == [("xlstm", "step_time")]

    def test_shares_of_a_step_add_up(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        facts = ch08.regime_facts(models, EXAMPLE, "7b", [1, 16])
        part = facts["c8_step_parts_transformer_many"].replace(" and ", ", ")
        shares = [float(each.split(" %")[0]) for each in part.split(", ")]
        assert facts["c8_step_parts_xlstm"].endswith("at either batch")
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


def pairs_of(size: float = 1.05, titles: tuple[str, ...] = ("loss 2.5",)) -> TrainedPairs:
    """Pairs of models whose sizes differ by a factor."""

    def trained(num_params: float, loss: float) -> Any:
        best = SimpleNamespace(num_params=np.array([num_params]), train_flops=np.array([2e20]), loss=np.array([loss]))
        return SimpleNamespace(best=best, extrapolated=num_params > 1.4e9)

    pair = {"transformer": trained(1e9, 2.5), "xlstm": trained(size * 1e9, 2.4)}
    return TrainedPairs(at_losses=dict.fromkeys(titles, pair), at_compute=pair, train_flops=1e21, context_length=8192)


class TestComparison:
    def test_values_at_equal_loss(self) -> None:
        always, later = comparison_of({("step_time", "measured"): 0.0}), comparison_of({})
        same = {("loss 2.5", 1): always, ("loss 2.5", 8): always}
        facts = ch08.equal_loss_facts(same, pairs_of(), [1, 8], 65536)
        assert facts["c8_answer_batch"] == "8 sequences"
        assert facts["c8_answer_step"] == "at every context"
        assert facts["c8_answer_roofline"] == "from 510 tokens on"
        assert facts["c8_step_roofline_few"] == "1.5 [1, 2]"
        mixed = {("loss 2.4", 1): always, ("loss 2.6", 1): later}
        facts = ch08.equal_loss_facts(mixed, pairs_of(titles=("loss 2.4", "loss 2.6")), [1], 65536)
        assert facts["c8_answer_batch"] == "one sequence"
        assert facts["c8_step_span_measured_few"] == "0 (always faster) to 510 tokens"
        assert facts["c8_step_span_roofline_many"] == "510 tokens"

    def test_crossovers_with_intervals(self) -> None:
        comparisons = {("loss 2.4", batch): comparison_of({}) for batch in (1, 8)}
        rows = rows_of(ch08.crossover_table(comparisons, 65536))
        assert len(rows) == 10
        assert rows[0]["loss 2.4"].replace("\u00a0", " ") == "510 [always, > 65,536]"
        assert {row["by"] for row in rows} == {"fit to timings", "roofline", "count"}
        short = rows_of(ch08.answer_table(comparisons, "loss 2.4", [1, 8], 65536))
        assert len(short) == 7, "two rows are ratios"
        assert short[0]["B = 8"] == rows[0]["loss 2.4"]

    def test_no_comparison(self, models: dict[tuple[str, str], RuntimeModel]) -> None:
        none = TrainedPairs(at_losses={}, at_compute={}, train_flops=1e21, context_length=8192, reason="one law")
        assert ch08.compare_pairs(none, models, [1], 65536, PEAKS) == {}
        assert ch08.compare_pairs(pairs_of(), {}, [1], 65536, PEAKS) == {}
        assert ch08.equal_loss_facts({}, none, [1], 65536) == ch08.trained_facts(none) == {}
        assert "two laws" in text_of(ch08.equal_loss_figure({}, "", [1], 16384, name="a"))
        assert "above" in text_of(ch08.answer_table({}, "", [1], 65536))
        one = {("loss 2.5", 1): comparison_of({})}
        assert "one batch size only" in text_of(ch08.equal_loss_figure(one, "loss 2.5", [], 16384, name="a"))

    @pytest.mark.parametrize(("size", "near"), [(1.05, True), (1.5, False)])
    def test_facts_of_trained_models(self, size: float, near: bool) -> None:
        facts = ch08.trained_facts(pairs_of(size))
        assert facts["c8_size_ratio"] == f"{size:.2f}"
        assert facts["c8_compute_ratio"] == "1.00"
        assert facts["c8_loss_gap"] == "0.100 nats lower"
        assert ("nearly agree" in facts["c8_size_verdict"]) is near
        assert facts["c8_beyond"].startswith("None of" if near else "Two of")

    def test_runs_without_a_law_give_a_reason(self, tmp_path: Path) -> None:
        runs = pd.read_csv(data_dir() / "runs.csv")
        path = tmp_path / "runs.csv"
        runs[runs["architecture"] == "xlstm"].to_csv(path, index=False)
        pairs = ch08.train_pairs(path, ["transformer", "xlstm"], [2.6], 1e21, 8192, num_resamples=5)
        assert pairs.at_losses == pairs.at_compute == {}
        assert "transformer" in pairs.reason
        assert pairs.title == ""

    def test_equal_size(self, timings: pd.DataFrame, models: dict[tuple[str, str], RuntimeModel]) -> None:
        crossings = {"ttft": measured_crossovers(timings, "ttft")}
        far = np.geomspace(64, 65536, 30).round()
        modeled = {"ttft": size_crossovers(timings, models, "ttft", [1], far)}
        rows = rows_of(ch08.size_crossover_table(crossings, modeled, [1], 65536))
        assert [row["by"] for row in rows] == ["timings", "fit to timings", "roofline"]
        one = crossings["ttft"].loc[crossings["ttft"]["batch_size"] == 1, "crossover"]
        ends = [crossover_text(end, 65536) for end in (one.min(), one.max())]
        assert rows[0]["B = 1"] == " to ".join(ends)
        other = rows_of(ch08.size_crossover_table(crossings, modeled, [8], 65536))
        assert [other[at]["B = 1"] for at in (0, 1)] == [rows[0]["B = 1"], rows[1]["B = 1"]]
        assert [other[at]["B = 8"] for at in (1, 2)] == ["–", "–"], "no model at this batch"
        facts = ch08.equal_size_facts(crossings, modeled, 65536)
        assert facts["c8_shorter_ttft"] == "32 to 48 %"
        assert facts["c8_shorter_where"] == "one sequence at 16k tokens"
        assert facts["c8_always"] == "unknown"
        assert set(ch08.equal_size_facts({}, {}, 65536).values()) == {"unknown"}


class TestPublished:
    def test_numbers_that_come_out_again(self, timings: pd.DataFrame) -> None:
        ledger = pd.DataFrame(
            {
                "entry": ["xlstm 160m ttft", "xlstm 160m ttft", "transformer 400m step_time"],
                "quantity": ["alpha_eff_flops_per_s", "alpha_over_peak", "eps_s"],
                "published": [2.0, 1.0, 1.0],
                "ours": [2.0, 1.3, 1.0],
                "verdict": ["reproduced", "differs", "reproduced"],
                "independent": [True, True, False],
            }
        )
        first, second = rows_of(ch08.ledger_table(ledger))
        assert [first[key].strip() for key in ("numbers", "reproduced", "independent")] == ["2", "1", "1"]
        assert first["largest relative difference"].replace(" ", "").startswith("3×10⁻¹")
        assert (second["what"], second["independent"].strip()) == ("step", "0")
        small = timings[timings["model_size"].isin(["160m", "400m"])]
        facts = ch08.published_facts(small, ledger, count_table(small))
        assert facts["c8_num_reproduced"] == "2 of 3"
        assert facts["c8_num_following"] == "One"
        assert facts["c8_count_prefill_transformer"] == "17 % to 19 %"


@pytest.mark.parametrize(
    "call",
    [
        lambda: ch08.cache_choices(EXAMPLE, {"odd": (1, BF16)}, [0], PEAKS, 65536),
        lambda: costs.chunk_costs(TRANSFORMER, 8192, PEAKS),
        lambda: ch08.device_facts(EXAMPLE, -1),
    ],
)
def test_values_that_cannot_be(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
