"""Costs of passes, chunks, caches, devices and batches equal counts made another way."""

from collections.abc import Callable

import numpy as np
import pytest
from html_tables import rows_of, text_of

from companion.accounting.inference import BF16, Precision, cache_numbers, count_prefill, count_step
from companion.accounting.params import num_params
from companion.architectures import preset
from companion.chapters import ch08
from companion.chapters.ch08 import costs
from companion.errors import InputError
from companion.hardware import get_hardware

PEAKS = get_hardware("h100-sxm")
EXAMPLE = {name: preset(name, "7b") for name in ("transformer", "xlstm")}
TRANSFORMER, XLSTM = EXAMPLE.values()
MODELS_SHOWN = {"Transformer": TRANSFORMER, "Transformer, 8 groups": ch08.with_groups(TRANSFORMER, 8), "xLSTM": XLSTM}


def test_passes_in_their_units() -> None:
    passes = [("T", count(TRANSFORMER, 2048)) for count in (count_prefill, count_step)]
    prefill, step = rows_of(ch08.pass_table(passes, PEAKS))
    assert (prefill["pass"], step["pass"]) == ("prefill", "step")
    assert float(step["FLOP per byte"]) < PEAKS.ridge < float(prefill["FLOP per byte"])
    moved = count_step(TRANSFORMER, 2048).traffic.total
    assert float(step["moved (GB)"]) == pytest.approx(moved / 1e9, rel=5e-2)
    assert float(step["roofline (ms)"]) == pytest.approx(1e3 * moved / PEAKS.peak_bytes_per_s, rel=5e-3)


def test_room_beside_the_weights() -> None:
    facts = ch08.cost_facts(MODELS_SHOWN, EXAMPLE, [1, 16], PEAKS)
    free = PEAKS.memory_bytes - 2 * num_params(TRANSFORMER)
    assert facts["c8_room"].startswith(f"{int(free // (2 * cache_numbers(TRANSFORMER, 16384)))} (Transformer)")
    low, high = map(float, facts["c8_step_intensity"].split(" to "))
    assert low < high < PEAKS.ridge < float(facts["c8_prefill_least"])
    small = get_hardware("rtx-4090")
    assert ch08.cost_facts({"7B": preset("transformer", "7b")}, EXAMPLE, [1], small)["c8_room"].endswith("(7B)")


def test_intensities_contain_a_batch_of_one() -> None:
    points = costs.intensities(EXAMPLE, [16])
    assert set(points["B"]) == {1, 16}
    assert len(points) == 2 * 2 * 2 * 2


def test_chunk_verdict_turns() -> None:
    assert "Memory still limits" in costs.chunk_verdict(1.5)
    assert "Memory still limits" not in costs.chunk_verdict(1.0)
    facts = ch08.chunk_facts(XLSTM, 8192, PEAKS)
    least = int(facts["c8_chunk_flops"])
    at = costs.chunk_costs(XLSTM, 8192, PEAKS).set_index("chunk_size")["flops"]
    assert at.min() == pytest.approx(at.iloc[np.abs(at.index - least).argmin()], rel=1e-2)
    assert facts["c8_chunk_bytes"] == "8,192"
    assert float(facts["c8_chunk_rule"]) == pytest.approx((1 / (1 / XLSTM.d_qk + 1 / XLSTM.d_hv)) ** 0.5, abs=0.05)


def test_cache_choices() -> None:
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


def test_groups_are_at_most_the_heads() -> None:
    assert ch08.with_groups(TRANSFORMER, 1000).n_kv_heads == TRANSFORMER.n_heads


def test_devices() -> None:
    facts = ch08.device_facts(EXAMPLE, 1)
    assert facts["c8_memory_bound"] == facts["c8_num_steps"] == "28"
    assert (facts["c8_num_devices"], facts["c8_far_fits_xlstm"]) == ("seven", "all")
    crowded = ch08.device_facts(EXAMPLE, 16)
    held = count_step(TRANSFORMER, 32768, 16).memory.total
    assert crowded["c8_far_transformer"] == f"{held / 2**30:,.0f} GiB"
    assert crowded["c8_far_fits_transformer"] == "none"


def test_batches_that_fit() -> None:
    batches = 2 ** np.arange(0, 12)
    row = rows_of(ch08.batch_table({"xLSTM": XLSTM}, batches, PEAKS))[0]
    steps = count_step(XLSTM, 512, batches)
    best = max(
        batch / seconds
        for batch, seconds, held in zip(batches, steps.roofline(PEAKS).seconds, steps.memory.total, strict=True)
        if held <= PEAKS.memory_bytes
    )
    assert row["most tokens/s that fit"] == f"{best:,.0f}"


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
