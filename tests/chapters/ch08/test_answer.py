"""Chapter 8: what its answer and its short tables say, on values whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from companion.accounting.inference import BF16
from companion.architectures import preset
from companion.benchmarks.hardware import measured_on
from companion.chapters import ch08
from companion.chapters.ch08.common import interval_words
from companion.chapters.ch08.comparison import kernel_share
from companion.chapters.ch08.published import largest_step_change
from companion.hardware import get_hardware
from companion.inference.compare import Comparison
from companion.inference.terms import cached_token_times, fit_all_models
from companion.inference.timings import load_paper_inference
from companion.paths import data_dir

PEAKS = get_hardware("h100-sxm")
EXAMPLE = {name: preset(name, "7b") for name in ("transformer", "xlstm")}


def cells(markup: str) -> list[list[str]]:
    """The rows of a table as texts."""
    rows = BeautifulSoup(markup, "html.parser").select("tbody tr")
    return [[cell.get_text().replace("\u00a0", " ").strip() for cell in row.select("td")] for row in rows]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.0, 3800.0, "up to 3,800"),
        (580.0, 2900.0, "580 to 2,900"),
        (0.0, 0.0, "every context"),
        (0.0, np.inf, "up to beyond 65,536"),
        (580.0, 581.0, "580"),
    ],
)
def test_intervals_of_crossovers_in_words(low: float, high: float, text: str) -> None:
    assert interval_words(low, high, 65536) == text


@pytest.mark.parametrize(
    ("timed", "roofline", "text"),
    [(8.7, 2.2, "most"), (13.0, 16.0, "none"), (8.7, 4.0, "the smaller part"), (9.0, 2.9, "most"), (0.9, 0.5, "none")],
)
def test_what_kernels_explain(timed: float, roofline: float, text: str) -> None:
    assert kernel_share(timed, roofline) == text


def comparison(timed: float, roofline: float) -> Comparison:
    kinds = [("ttft", "measured"), ("ttft", "roofline"), ("step_time", "measured"), ("step_time", "roofline")]
    ratios = {"measured": timed, "roofline": roofline}
    table = pd.DataFrame(
        {"quantity": q, "method": m, "context_length": t, "ratio": r, "ratio_low": r / 2, "ratio_high": 2 * r}
        for q, m in kinds
        for t, r in ((128, 1.0), (16384, ratios[m]))
    )
    crossings = pd.DataFrame(
        {"quantity": q, "method": m, "crossover": 1000.0, "crossover_low": 0.0, "crossover_high": 3800.0}
        for q, m in [*kinds, ("memory", "count")]
    )
    return Comparison(first="xlstm", second="transformer", table=table, crossovers=crossings)


def test_the_answers_table_has_ratios_and_grouped_heads() -> None:
    both = {("loss 2.6", 1): comparison(8.0, 2.0), ("loss 2.6", 16): comparison(13.0, 16.0)}
    grouped = ch08.grouped_row(EXAMPLE, 8, [1, 16], PEAKS, 65536)
    rows = cells(ch08.answer_table(both, "loss 2.6", [1, 16], 65536, grouped).markup)
    assert rows[-2:] == [
        ["ratio of steps at 16k", "fit to timings", "8 [4, 16]", "13 [6.5, 26]"],
        ["ratio of steps at 16k", "roofline", "2 [1, 4]", "16 [8, 32]"],
    ]
    assert rows[-3][0] == "step, 8 K/V heads"
    alone = ch08.cache_choices(EXAMPLE, {"8": (8, BF16)}, [1, 16], PEAKS, 65536).iloc[0]
    assert rows[-3][2:] == [alone["B = 1"], alone["B = 16"]]
    assert "at equal size" not in ch08.answer_table(both, "loss 2.6", [1, 16], 65536).markup


def test_the_largest_change_of_a_step_over_the_contexts() -> None:
    steps = {("160m", 1): [1.0, 1.01], ("160m", 8): [1.0, 1.078, 1.05], ("7b", 8): [6.0, 6.1]}
    table = pd.DataFrame(
        {"architecture": "xlstm", "model_size": size, "batch_size": batch, "step_time_s": time}
        for (size, batch), times in steps.items()
        for time in times
    )
    other = table.assign(architecture="transformer", step_time_s=range(1, len(table) + 1))
    change, size, batch = largest_step_change(pd.concat([table, other]))
    assert (round(change, 3), size, batch) == (0.078, "160m", 8)


def test_errors_of_two_objectives_side_by_side() -> None:
    errors = pd.DataFrame(
        {"architecture": "A", "objective": ["relative", "milliseconds"], "short": [0.1, 0.2], "long": [0.04, 0.05]}
    )
    errors = pd.concat([errors, errors.assign(architecture="B", short=[0.1, 0.11])])
    assert cells(ch08.objective_table(errors).markup) == [
        ["A", "20 %", "10 %", "5.0 %", "4.0 %"],
        ["B", "11 %", "10 %", "5.0 %", "4.0 %"],
    ]
    assert ch08.objective_facts(errors)["c8_short_gain"] == "the A's error falls from 20 % to 10 %"


def test_waves_and_times_below_them() -> None:
    slopes = pd.DataFrame({"heads_in_batch": [16, 128, 264, 1320], "seconds": [8e-9, 1e-8, 2e-8, 5e-8]})
    reads = pd.DataFrame(
        {"part": "cache", "backend": "efficient_attention", "head_width": 128, "gpu": "X", "heads": [128, 132, 136]}
    ).assign(seconds_median=[1.0, 1.0, 1.5])
    facts = ch08.wave_facts(slopes, reads, PEAKS)
    assert facts == {"c8_wave_heads": "1,320", "c8_wave_below": "1.8", "c8_own_step": "1.5"}, "few heads make no waves"
    assert ch08.wave_facts(slopes[:3], reads, PEAKS)["c8_wave_heads"] == "any number of"


def test_what_leads_in_a_time() -> None:
    timings = load_paper_inference()
    models, _ = fit_all_models(timings, num_resamples=0)
    rows = cells(ch08.leaders_table(models, EXAMPLE, "7b", 65536).markup)
    assert [row[:2] for row in rows] == [
        ["first token", "7b"],
        ["first token", "160m"],
        ["step", "7b"],
        ["step", "160m"],
    ]
    assert rows[2][2].startswith("attention\u2019s latency, from ")
    assert rows[2][3] == "memory, at every context"


def test_the_authors_times_below_the_waves() -> None:
    slopes = cached_token_times(load_paper_inference())
    single = slopes.loc[slopes["heads_in_batch"] <= PEAKS.num_multiprocessors, "seconds"].median()
    last = slopes.sort_values("heads_in_batch").iloc[-1]
    waves = -(-last["heads_in_batch"] // PEAKS.num_multiprocessors)
    facts = ch08.wave_facts(slopes, measured_on(data_dir() / "benchmarks" / "hardware.jsonl"), PEAKS)
    assert float(facts["c8_wave_below"]) >= round(waves * single / last["seconds"], 1)
