"""Figures of the kernel chapter carry their data, with units and scales."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from companion.accounting.kernel_costs import CellShape, best_kernel_chunk, chunk_size_scan
from companion.benchmarks.kernels.other_cells import GATED_DELTA_RULE_NAME
from companion.chapters.ch10 import figures, record_figures

CONTEXTS = [1024, 4096, 16384, 65536]


def squares(ax: object, color: str) -> int:
    return sum(to_hex(patch.get_facecolor()) == color for patch in ax.patches)  # type: ignore[attr-defined]


def test_pairs_of_forms_by_counting_them() -> None:
    figure = figures.pairs_of_forms(num_tokens=12, chunk_size=3)
    recurrent, chunkwise, parallel = figure.axes
    all_pairs = 12 * 13 // 2
    assert (squares(recurrent, figures.PAIR), squares(recurrent, figures.STATE)) == (0, all_pairs)
    within = 4 * (3 * 4 // 2)
    assert (squares(chunkwise, figures.PAIR), squares(chunkwise, figures.STATE)) == (within, all_pairs - within)
    assert (squares(parallel, figures.PAIR), squares(parallel, figures.STATE)) == (all_pairs, 0)
    assert "4 states" in chunkwise.get_title()
    assert "no state" in parallel.get_title()


def test_chunks_and_tiles() -> None:
    figure = figures.chunks_and_tiles(num_chunks=3, tiles_per_chunk=5)
    chain, tiles = figure.axes
    assert sum(text.get_text().startswith("chunk ") for text in chain.texts) == 3
    assert squares(tiles, figures.PAIR) == 5 * 6 // 2
    assert squares(tiles, to_hex(figures.SKIPPED)) == 5 * 4 // 2
    assert squares(tiles, figures.STATE) == 5


def test_form_error_dots() -> None:
    rows = [
        {"form": form, "dtype": dtype, "quantity": quantity, "error": error}
        for dtype, error in (("float64", 0.0), ("float16", 1e-3))
        for form in ("recurrent", "chunkwise")
        for quantity in ("h", "dq")
    ]
    recurrent, chunkwise = figures.form_error_dots(pd.DataFrame(rows)).axes
    assert (recurrent.get_title(), chunkwise.get_title()) == ("recurrent", "chunkwise")
    for ax in (recurrent, chunkwise):
        exact, half = ax.lines
        assert [label.get_text() for label in ax.get_xticklabels()] == ["h", "dq"]
        assert list(exact.get_ydata()) == [1e-17, 1e-17], "zero has a place at the floor"
        assert list(half.get_ydata()) == [1e-3, 1e-3]
        assert exact.get_marker() != half.get_marker()
        assert ax.get_yscale() == "log"


def test_overflow_lines() -> None:
    table = pd.DataFrame({"input_gate": [0, 50, 100], "a": [1e-6, 1e-5, 1e-5], "b": [1e-6, np.inf, np.inf]})
    figure = figures.overflow_lines({"mean of ĩ": table, "again": table}, {"a": "with", "b": "without"})
    left, _ = figure.axes
    kept, _, lost, hollow = left.lines[:4]
    np.testing.assert_allclose(kept.get_ydata(), table["a"])
    assert np.isnan(lost.get_ydata()[1:]).all()
    assert list(hollow.get_xdata()) == [50, 100]
    assert hollow.get_ydata()[0] > 1
    assert hollow.get_markerfacecolor() == "none"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["with", "without"]


def test_forget_gradient_errors() -> None:
    tokens = pd.DataFrame({"token": [1, 2], "exact": [1.0, -2.0], "totals": [1.5, -2.0], "pairs": [1.01, -2.02]})
    scan = pd.DataFrame({"forget_gate": [-3, 3], "totals": [2.0, 0.1], "pairs": [0.01, 0.02]})
    left, right = figures.forget_gradient_errors(tokens, scan).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [1, 2])
    np.testing.assert_allclose(left.lines[1].get_ydata(), [0.5, 0])
    np.testing.assert_allclose(left.lines[2].get_ydata(), [0.01, 0.02])
    np.testing.assert_allclose(right.lines[0].get_ydata(), scan["totals"])
    assert left.get_xlabel() == "token t"


def test_chunk_scan_stacks_to_the_sum() -> None:
    shape = CellShape(batch_size=8, context_length=8192, n_heads=8, d_qk=128, d_hv=128)
    scans = {
        "narrow": chunk_size_scan(shape, "h200-sxm"),
        "wide": chunk_size_scan(replace(shape, d_hv=512), "h200-sxm"),
    }
    best = {name: best_kernel_chunk(scan, "forward+backward") for name, scan in scans.items()}
    figure = figures.chunk_scan(scans, best)
    for ax, (name, scan) in zip(figure.axes, scans.items(), strict=True):
        totals = scan.groupby("chunk_size")["seconds"].sum()
        outlined = ax.patches[-1]
        assert outlined.get_height() == pytest.approx(1e3 * totals.min())
        assert list(totals.index)[round(outlined.get_x() + outlined.get_width() / 2)] == best[name]
        tops = {round(p.get_x(), 3): 0.0 for p in ax.patches[:-1]}
        for patch in ax.patches[:-1]:
            key = round(patch.get_x(), 3)
            tops[key] = max(tops[key], patch.get_y() + patch.get_height())
        np.testing.assert_allclose(sorted(tops.values()), sorted(1e3 * totals))
        assert "tokens" in ax.get_xlabel()


def timed(implementation: str, part: str, scale: float) -> pd.DataFrame:
    seconds = scale * np.ones(len(CONTEXTS))
    return pd.DataFrame(
        {
            "implementation": implementation, "part": part, "context_length": CONTEXTS, "seconds_median": seconds,
            "computation": "attention" if implementation.startswith("attention") else "exponential",
            "seconds_quartile_1": 0.9 * seconds, "seconds_quartile_3": 1.2 * seconds, "roofline_seconds": 0.5 * seconds,
        }
    )  # fmt: skip


def test_times_over_context() -> None:
    names = ("companion", "peer", "attention, flash")
    table = pd.concat(
        [timed(name, part, 1e-3 * (1 + n)) for n, name in enumerate(names) for part in ("forward", "training")]
    )
    figure = record_figures.times_over_context(table, {"forward": "F", "training": "F + B", "step": "none of it"})
    assert [ax.get_title() for ax in figure.axes] == ["F", "F + B"]
    ax = figure.axes[0]
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata(), dtype=float), 1.0)
    low, high = ax.collections[0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(0.9), pytest.approx(1.2))
    assert "(ms)" in ax.get_ylabel()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1k", "4k", "16k", "64k"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["ours", *names[1:], "roofline"]


def test_looks() -> None:
    looks = record_figures.implementation_looks(["companion", "companion, sigmoid", "x", "attention, flash", "y"])
    assert (
        looks["companion"]["color"]
        == looks["companion, sigmoid"]["color"]
        != looks["x"]["color"]
        != looks["y"]["color"]
    )
    assert looks["companion"]["linestyle"] != looks["companion, sigmoid"]["linestyle"]
    assert looks["attention, flash"]["color"] == record_figures.ATTENTION_COLOR
    apart = record_figures.implementation_looks([GATED_DELTA_RULE_NAME, "x"])
    assert apart[GATED_DELTA_RULE_NAME]["color"] == record_figures.GREY
    assert apart["x"] == record_figures.implementation_looks(["x"])["x"], "it takes nobody's color"


def test_step_times() -> None:
    batch = {"context_length": "batch_size"}
    table = pd.concat(
        [
            timed(name, "step", 1e-4).rename(columns=batch).assign(launch=launch, state_dtype=state)
            for name, state in (("companion step", "float32"), ("companion step, bfloat16 state", "bfloat16"))
            for launch in ("calls", "graph")
        ]
    )
    figure = record_figures.step_times(table, {"calls": "one by one", "graph": "graph"})
    assert [ax.get_title() for ax in figure.axes] == ["one by one", "graph"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(labels) == {
        "ours", "ours, bfloat16 state", "roofline, float32 state", "roofline, bfloat16 state",
    }  # fmt: skip
    assert "sequences" in figure.axes[0].get_xlabel()


def test_error_strip() -> None:
    rows = pd.DataFrame(
        {
            "implementation": ["ours", "peer", "peer", "peer"],
            "upstream": ["general", "general", "orthogonal", "orthogonal"],
            "error_h": [1e-3, 1e-3, 2e-3, np.nan],
            "error_gradients": [2e-3, 1.0, 3e-3, np.inf],
        }
    )
    figure = record_figures.error_strip(rows, 0.025)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["ours", "peer"]
    dots = [x for line in right.lines if line.get_marker() in "os" for x in line.get_xdata()]
    assert sorted(dots) == [2e-3, 3e-3, 1.0]
    [cross] = [x for line in right.lines if line.get_marker() == "x" for x in line.get_xdata()]
    assert cross == 10, "ten times the largest"
    assert not [x for line in left.lines if line.get_marker() == "x" for x in line.get_xdata()], (
        "missing is not infinite"
    )
    legends = [
        [text.get_text() for text in record_figures.error_strip(part).legends[0].get_texts()]
        for part in (rows, rows[:3])
    ]
    assert legends[0] == [*legends[1], "not finite"], "no mark, no entry"


def test_crossing_panels() -> None:
    table = pd.DataFrame({"context_length": CONTEXTS, "attention": [1e-9, 4e-9, 16e-9, 64e-9], "cell": 4e-9})
    table = table.assign(attention_roofline=table["attention"] / 2, cell_roofline=1e-9)
    figure = record_figures.crossing_panels({"F": table, "F + B": table}, {"F": 4096.0, "F + B": np.nan})
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [1, 4, 16, 64])
    assert left.lines[-1].get_xdata()[0] == 4096
    assert len(right.lines) == len(left.lines) - 1
    assert "(ns)" in left.get_ylabel()
