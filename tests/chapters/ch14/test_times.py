"""Tables, figures and verdicts on times, counted another way from the made-up records."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from html_tables import rows_of, text_of

from companion.accounting.inference import count_step
from companion.benchmarks.models.models import architecture_of
from companion.chapters import timed_models
from companion.chapters.ch14 import facts, labels, times
from companion.chapters.ch14.measured import Measured
from companion.errors import NotApplicable
from companion.formatting import percent, significant


def without(measured: Measured, *models: str) -> Measured:
    """The same records without some models."""
    kept = {key: a for key, a in measured.architectures.items() if key[0] not in models}
    return replace(measured, architectures=kept, table=measured.table[~measured.table["model"].isin(models)])


def test_summary_has_the_numbers_of_the_records(measured: Measured) -> None:
    rows = rows_of(times.show_summary(measured, "7b", 16384))
    assert [row["model"] for row in rows] == list(timed_models.MODEL_LABELS.values())
    cell = measured.at("step", "xlstm", "7b", 16384)
    assert cell is not None
    xlstm = rows[2]
    assert xlstm["step (ms)"] == significant(1e3 * cell["seconds_median"])
    step = count_step(architecture_of("xlstm", "7b"), 16385)
    moved = float(step.traffic.weights + step.traffic.cache)
    assert xlstm["bytes/s reached"] == percent(moved / cell["seconds_median"] / measured.peaks.peak_bytes_per_s)
    assert {row["step (ms)"] for row in rows_of(times.show_summary(measured, "7b", 777))} == {"–"}


def test_ratios_and_what_is_missing(measured: Measured) -> None:
    rows = {row["size"]: row for row in rows_of(times.show_ratios(measured, 16384))}
    sides = [measured.at("step", model, "400m", 16384, 8) for model in ("transformer", "xlstm")]
    assert all(side is not None for side in sides)
    ratio = sides[0]["seconds_median"] / sides[1]["seconds_median"]  # type: ignore[index]
    assert rows["400m"]["step, B = 8"] == f"{ratio:.2f}"
    assert rows["7b"]["step, B = 64"] == "–", "the cache does not fit"


def test_library_beside_ours(measured: Measured) -> None:
    rows = times.library_rows(measured, 16384)
    assert set(rows["model"]) == {"transformer", "grouped"}
    assert rows["ratio"].to_numpy() == pytest.approx(1.2)
    assert len(rows_of(times.show_library(measured, 16384))) == len(rows) == 8


def test_figures_name_all_models(measured: Measured) -> None:
    text = text_of(times.show_times(measured, "7b", 1))
    assert all(label in text for label in timed_models.MODEL_LABELS.values())
    assert "NVIDIA H200" in text
    assert "Dotted: memory of the device" in text_of(times.show_memory(measured, "400m", 8))
    figure = times.times_panels(without(measured, "hybrid", "grouped"), "7b", 1)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["Transformer", "xLSTM"]  # type: ignore[union-attr]


def test_longest_contexts(measured: Measured) -> None:
    rows = rows_of(times.show_longest(measured))
    big = {row["model"]: row for row in rows if row["size"] == "7b"}
    assert big["xLSTM"]["step, B = 64"] == "128k"
    assert big["Transformer"]["step, B = 64"] == "1k"


def test_checks_show_the_closest_of_each_kind(measured: Measured) -> None:
    rows = {row["quantity"]: row for row in rows_of(times.show_checks(measured))}
    assert rows["steps, eager"]["checks"] == "16"
    assert rows["a copied prefix, then steps"]["checks"] == "8"
    assert {row["failed"] for row in rows.values()} == {"0"}


def test_crossovers_of_pairs(measured: Measured) -> None:
    rows = rows_of(times.show_crossovers(measured, [("xlstm", "transformer"), ("transformer", "xlstm")]))
    assert [row["faster"] for row in rows] == ["xLSTM", "xLSTM", "Transformer", "Transformer"]
    assert rows[0]["7b"] == labels.crossover_text(measured.crossover("ttft", "xlstm", "transformer", "7b"))
    assert rows[2]["7b"] == "> 131,072"


class TestBeside:
    def test_half_the_speed_takes_twice_as_long_at_equal_shares(self, measured: Measured, slower: Measured) -> None:
        rows = rows_of(times.show_beside(slower, measured, "7b"))
        assert len(rows) == 4 * 3
        row = next(row for row in rows if (row["model"], row["tokens"]) == ("xLSTM", "16k"))
        yours, recorded = map(float, row["first token (ms)"].split(" / "))
        assert yours == pytest.approx(2 * recorded, rel=0.01)
        assert len(set(row["FLOP/s reached"].split(" / "))) == 1
        assert "400m models" in text_of(times.show_beside(slower, measured, "7b")), "7b was not timed there"

    def test_without_a_common_size(self, measured: Measured, slower: Measured) -> None:
        small = replace(slower, architectures={("xlstm", "tiny"): architecture_of("xlstm", "tiny")})
        with pytest.raises(NotApplicable, match="your records have the sizes tiny, ours 160m, 400m"):
            times.show_beside(small, measured, "7b")


class TestFacts:
    def test_values_of_the_answer(self, measured: Measured) -> None:
        found = facts.time_facts(measured, "7b", 16384)
        assert found["c14_device"] == "NVIDIA H200"
        assert found["c14_first_from"] == labels.from_words(measured.crossover("ttft", "xlstm", "transformer", "7b"))
        shares = [measured.at("step", model, "7b", 16384)["share_of_copy_bandwidth"] for model in measured.models]  # type: ignore[index]
        assert found["c14_bytes_span"] == f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"
        assert "1.20 times as long as ours, so the baseline" in str(found["c14_library"])
        assert "nan" not in " ".join(map(str, found.values()))

    def test_a_missing_model_leaves_words(self, measured: Measured) -> None:
        found = facts.time_facts(without(measured, "transformer"), "7b", 16384)
        assert found["c14_first_from"] == "at an unknown context"
        assert found["c14_library"] == "The library was not timed beside these models"

    @pytest.mark.parametrize(
        ("found", "words"),
        [
            (None, "at an unknown context"),
            ((0.0, 4096.0), "at every context that was timed"),
            ((float("inf"), 131072.0), "at no context up to 131,072 tokens"),
            ((3412.0, 4096.0), "from 3,400 tokens on"),
            ((float("nan"), 4096.0), "at an unknown context"),
        ],
    )
    def test_crossovers_in_words(self, found: Any, words: str) -> None:
        assert labels.from_words(found) == words

    def test_a_slower_or_faster_library(self) -> None:
        assert "no weaker" in facts.library_verdict(pd.Series({"transformer": 1.1}), 16384)
        assert "would look better" in facts.library_verdict(pd.Series({"transformer": 0.9}), 16384)

    def test_targets(self) -> None:
        assert facts.target_verdict(0.46, 0.45) == "reached: 46 %"
        assert facts.target_verdict(0.44, 0.45) == "missed: 44 %"
        assert facts.target_verdict(None, 0.45) == "not timed"

    def test_shares_of_batches(self, measured: Measured) -> None:
        words = facts.batch_verdict(measured, "7b")
        shares = 100 * measured.series("step", "xlstm", "7b", 8)["share_of_copy_bandwidth"]
        span = dict.fromkeys(f"{share:.0f}" for share in (shares.min(), shares.max()))
        assert (
            f"and those of the xLSTM {' to '.join(span)} % of the bandwidth, depending on the context; with 64" in words
        )
        assert words.startswith("With 8 sequences those of the Transformer reach")
        alone = replace(measured, table=measured.table[measured.table["batch_size"] == 1])
        assert facts.batch_verdict(alone, "7b") == "Steps of several sequences were not timed"

    def test_the_target_of_steps_is_that_of_two_models(self, measured: Measured) -> None:
        table = measured.table.copy()
        grouped = (table["model"] == "grouped") & (table["part"] == "step")
        table.loc[grouped, "share_of_copy_bandwidth"] = 0.1
        table.loc[~grouped, "share_of_copy_bandwidth"] = 0.9
        assert facts.time_facts(replace(measured, table=table), "7b", 16384)["c14_target_step"] == "reached: 90 %"

    def test_reasons_of_what_was_left_out(self) -> None:
        reasons = ["needs 2.0 GiB, 1.0 GiB are free"] * 2 + ["a repeat takes about 20 s, the limit is 10 s"]
        reasons += ["flash_attn is not installed", "failed: RuntimeError: no", "because"]
        words = facts.skipped_verdict(pd.DataFrame({"skipped": reasons}))
        assert words.startswith("6 cells were left out: 2 for want of memory, 1 for the time")
        assert "1 for other reasons" in words
        assert facts.skipped_verdict(pd.DataFrame({"skipped": reasons[:1]})).startswith("1 cell was left out")
        assert facts.skipped_verdict(pd.DataFrame({"skipped": []})) == "No cell was left out"

    def test_checks_in_words(self, measured: Measured) -> None:
        passed = "The models passed all 24 checks against plain PyTorch before anything was timed"
        assert facts.check_verdict(measured.checks) == passed
        drowned = measured.checks.assign(reference_error=[1.1] * 3 + [0.01] * 21)
        assert facts.check_verdict(drowned).startswith(f"{passed}, but three of these decide nothing")
        failed = measured.checks.assign(verdict=["fail"] * 2 + ["pass"] * 22)
        assert facts.check_verdict(failed).startswith("The models failed two of the 24 checks")
        assert facts.check_verdict(measured.checks.iloc[:0]) == "These records hold no checks"

    def test_peaks_in_words(self, measured: Measured, slower: Measured) -> None:
        assert facts.stated_verdict(measured) == "The vendor states 990 TFLOP/s and 4.80 TB/s"
        assert "lacks this device" in facts.stated_verdict(slower)

    def test_bytes_of_a_step(self, measured: Measured) -> None:
        found = facts.step_facts(measured, "7b", 16384)
        step = count_step(architecture_of("xlstm", "7b"), 16385)
        moved = float(step.traffic.weights + step.traffic.cache)
        assert found["c14_ex_bytes"] == f"{significant(moved / 1e9)} GB"
        assert found["c14_ex_weights"] == percent(float(step.traffic.weights) / moved)
        assert facts.step_facts(measured, "7b", 777) == {}
