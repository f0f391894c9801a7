"""Facts and verdicts of chapter 10 on what kernels cost, and lines of kernels that it shows."""

import re
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from companion.accounting.kernel_costs import (
    CARRIED_TILE,
    CellShape,
    cell_kernel_costs,
    chunk_size_scan,
    pass_bytes,
)
from companion.benchmarks.kernels.results import load_timings
from companion.chapters import ch10
from companion.chapters.ch10 import costs, overtaking
from companion.paths import data_dir

CELL = CellShape(batch_size=8, context_length=8192, n_heads=8, d_qk=256, d_hv=512, chunk_size=128)


@pytest.fixture(scope="module")
def shown() -> ch10.Shown:
    return ch10.Shown(load_timings(data_dir() / "benchmarks" / "kernels.jsonl", "NVIDIA H200"), CELL)


def test_facts_of_costs(shown: ch10.Shown) -> None:
    """The bytes by hand: with a state of two bytes that is written and read once a chunk, and without."""
    scans = {name: chunk_size_scan(shape, shown.peaks, keep_states=True) for name, shape in shown.shapes.items()}
    trained = cell_kernel_costs(CELL, carried_tile=CARRIED_TILE, keep_states=True)
    facts = ch10.cost_facts(shown, trained, scans)
    assert shown.label in scans
    states = 2 * 2 * CELL.num_chunks * 8 * 256 * 512 / 1e9
    saved = float(str(facts["c10_through_gb"])) - float(str(facts["c10_carried_gb"]))
    assert 0.7 * states < saved < 1.3 * states
    gigabytes = r"In training .* chunk, ([\d.]+) GB.* move ([\d.]+) GB, .* ([\d.]+) GB"
    words = re.match(gigabytes, str(facts["c10_states_kept"]))
    assert words
    assert float(words[1]) == pytest.approx(states / 2, abs=0.051), "written once"
    # k and v, which the kernel that computes them again would read
    assert float(words[3]) - float(words[2]) == pytest.approx(2 * 65536 * 8 * (256 + 512) / 1e9, abs=0.11)
    short = ch10.Shown(shown.timings, replace(CELL, chunk_size=64))
    assert "computes them again" in costs.kept_verdict(short), "131,072 numbers a state, 98,304 of q, k, v and h"
    total = scans[shown.label].groupby("chunk_size")["seconds"].sum()
    assert f"{total.idxmin()} for {shown.label}" in str(facts["c10_best_chunks"])
    assert re.fullmatch(
        r"At L = 128(, \d+ of \d+ kernels are limited by compute| every kernel waits for memory)",
        str(facts["c10_limits"]),
    )
    assert facts["c10_tile"] == CARRIED_TILE
    table = costs.form_costs(shown).set_index("form")["seconds_per_token"]
    recurrent = 8 * 256 * 512 * 2 * 4 / shown.peaks.peak_bytes_per_s  # a state in float32, read and written
    words = re.fullmatch(
        r"([\d.]+) ns in the recurrent form and ([\d.]+) ns in the parallel form, "
        r"against ([\d.]+) ns in chunks of \d+ tokens",
        str(facts["c10_form_times"]),
    )
    assert words
    assert float(words[1]) == pytest.approx(1e9 * recurrent, rel=0.02)
    assert float(words[3]) == pytest.approx(1e9 * table.filter(like="chunkwise").min(), rel=0.01)
    changed = ch10.change_facts(shown, scans)
    assert changed["c10_chunk_best"] == total.idxmin()
    assert float(str(changed["c10_chunk_64"])) == pytest.approx(total[64] / total.min(), rel=0.03)
    assert 1 < float(str(changed["c10_bytes_mixed"])) < float(str(changed["c10_bytes_float32"]))
    # twice the bytes, and one more kernel that reads k and v and writes the states
    again, kept = (pass_bytes(cell_kernel_costs(CELL, keep_states=x), "forward+backward") for x in (False, True))
    assert float(str(changed["c10_bytes_float32"])) == pytest.approx(2 * again / kept, rel=0.03)
    assert "the gradients of the states of one sequence form 128 blocks of 64 × 128" in overtaking.batch_verdict(shown)


def test_lines_of_a_kernel_have_a_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    """The button of a fold around them is named after it."""
    shown_first: list[Any] = []
    monkeypatch.setattr(costs, "display", shown_first.append)
    code = ch10.show_code("triton_forward", "outputs", after="read = tl.zeros", before="h_at = h")
    assert code.data.startswith("```python\nread = tl.zeros")
    assert shown_first[0].markup == (
        '<p class="companion-caption">Lines of <code>outputs</code> (triton_forward.py)</p>'
    )
