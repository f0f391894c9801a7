"""Figures of the inference chapter carry their data, with units and scales."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch08.draw_figures import constants_over_draws, ratios_over_draws
from companion.chapters.ch08.figures import (
    memory_and_roofline,
    regime_shares,
    times_over_context,
    tokens_text,
)
from companion.chapters.ch08.ratio_figure import ratio_over_context
from companion.chapters.ch08.wave_figure import bandwidths_and_waves
from companion.hardware import get_hardware
from companion.inference.compare import Comparison

T = np.array([128.0, 2048.0, 32768.0])


def test_memory_and_roofline() -> None:
    curve = pd.DataFrame({"architecture": "transformer", "context_length": T, "cache_bytes": T * 1000})
    flat = curve.assign(architecture="xlstm", cache_bytes=1e6)
    points = pd.DataFrame(
        {"architecture": ["xlstm", "xlstm"], "kind": ["prefill", "step"], "arithmetic_intensity": [4000.0, 2.0]}
    )
    peaks = get_hardware("h100-sxm")
    figure = memory_and_roofline({"all": curve, "grouped": curve, "state": flat}, 1000.0, points, peaks)
    left, right = figure.axes
    assert [line.get_linestyle() for line in left.lines[:3]] == ["-", "--", "-"]
    np.testing.assert_allclose(left.lines[0].get_ydata(), T * 1000)
    assert left.lines[4].get_ydata()[0] == peaks.memory_bytes
    assert "tokens" in left.get_xlabel()
    assert "bytes" in left.get_ylabel()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["all", "grouped", "state", "memory of the device", "prefill", "step"]
    assert [label.get_text() for label in left.get_xticklabels()] == ["256", "1k", "4k", "16k"]
    # the roof bends where both peaks meet
    assert right.lines[0].get_ydata().max() == peaks.peak_flops_per_s
    assert right.lines[1].get_xdata()[0] == pytest.approx(peaks.ridge)
    prefill, step = right.lines[2], right.lines[3]
    assert [prefill.get_xdata()[0], step.get_xdata()[0]] == [4000, 2]
    assert step.get_markerfacecolor() == "none"
    assert right.get_xscale() == right.get_yscale() == "log"


def test_passes_of_two_architectures_do_not_hide_each_other() -> None:
    curve = pd.DataFrame({"architecture": "transformer", "context_length": T, "cache_bytes": T * 1000})
    points = pd.DataFrame({"architecture": ["xlstm", "transformer"], "kind": "step", "arithmetic_intensity": 0.8})
    right = memory_and_roofline({"all": curve}, 1000.0, points, get_hardware("h100-sxm")).axes[1]
    roof, marks = right.lines[0], right.lines[2:]
    heights = [mark.get_transform().transform(mark.get_xydata())[0, 1] for mark in marks]
    assert abs(heights[0] - heights[1]) > 8, "pixels between the rows"
    assert max(heights) < right.transData.transform(roof.get_xydata())[:, 1].min() - 8, "below the roofline"


def test_times_over_context() -> None:
    table = pd.DataFrame({"context_length": T, "predicted": T * 1e-6, "measured": [1e-4, np.nan, 3e-2]})
    both = pd.concat([table.assign(model_size="7b", batch_size=b) for b in (1, 8)])
    figure = times_over_context({(name, q): both for name in ("xlstm", "gpt") for q in ("ttft", "step_time")})
    assert len(figure.axes) == 4
    assert [ax.get_title() for ax in figure.axes] == ["xLSTM", "gpt", "", ""]
    assert figure.axes[2].get_ylabel() == "step time (s)"
    lines = figure.axes[0].lines
    assert [lines[0].get_linestyle(), lines[2].get_linestyle()] == ["-", "--"]
    assert [lines[1].get_marker(), lines[3].get_markerfacecolor()] == ["o", "none"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["7b", "B = 1", "B = 8"]


def test_bandwidths_and_waves() -> None:
    times = pd.DataFrame({"heads_in_batch": [16, 264, 128], "seconds": [4e-8, 8e-8, 4e-8]})
    table = pd.DataFrame({"model_size": ["a", "b"], "head_width": [64.0, 128.0], "beta_eff_bytes_per_s": [1e12, 2e12]})
    table = table.assign(low=[0.9e12, 1.9e12], high=[1.1e12, np.inf], per_width=1e12 / 64)
    read = {"part": "cache", "gpu": "NVIDIA X", "head_width": 128, "backend": "flash_attention", "heads": [16, 32]}
    reads = pd.DataFrame({**read, "seconds_median": [1e-6, 2e-6], "context_length": 100})
    peaks = get_hardware("h100-sxm")
    figure = bandwidths_and_waves(table, times, peaks, reads, "NVIDIA X", 128)
    left, right = figure.axes
    assert left.containers[0].lines[0].get_ydata().tolist() == [1, 2]
    assert "TB/s" in left.get_ylabel()
    assert [text.get_text() for text in left.texts] == ["a", "b", "peak of the device"]
    assert left.get_ylim()[1] > peaks.peak_bytes_per_s / 1e12, "the line is inside the panel"
    assert left.get_legend() is right.get_legend() is None, "no legend over data"
    stairs, own = right.lines[1], right.lines[2]
    assert stairs.get_ydata().min() == pytest.approx(40)
    assert stairs.get_ydata().max() == pytest.approx(80)
    np.testing.assert_allclose(own.get_ydata(), [10, 20])
    assert "ns" in right.get_ylabel()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["authors", "waves of 132", "ours, flash"]


def test_regime_shares() -> None:
    table = pd.DataFrame({"context_length": T, "compute": 0.6, "fixed": 0.4})
    figure = regime_shares({"one": table, "two": table.assign(batch_size=T)}, ["context_length", "batch_size"])
    assert [ax.get_title() for ax in figure.axes] == ["one", "two"]
    assert [len(ax.collections) for ax in figure.axes] == [2, 2]
    assert "batch" in figure.axes[1].get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["compute", "overhead"]


def test_ratio_over_context() -> None:
    rows = [
        {"quantity": quantity, "method": method, "context_length": t, "ratio": 1.0, "ratio_low": 0.8, "ratio_high": 1.2}
        for quantity in ("ttft", "step_time")
        for method in ("measured", "roofline")
        for t in T
    ]
    comparison = Comparison(first="xlstm", second="transformer", table=pd.DataFrame(rows), crossovers=pd.DataFrame())
    figure = ratio_over_context({"loss 2.5": comparison, "loss 2.4": comparison}, 16384)
    assert len(figure.axes) == 4
    assert figure.axes[1].get_title() == "step time, loss 2.5"
    assert figure.axes[0].get_ylabel() == "Transformer / xLSTM"
    assert [line.get_linestyle() for line in figure.axes[0].lines[:2]] == ["-", "--"]
    assert len({line.get_color() for line in figure.axes[0].lines[:2]}) == 2, "no two lines of one color"
    assert len(figure.axes[0].patches) == 1, "shaded beyond the timings"
    inside = ratio_over_context({"loss 2.5": comparison}, 1e6)
    assert not inside.axes[0].patches


def test_tokens_text() -> None:
    assert [tokens_text(v) for v in (64, 512, 2048, 3000, 131072, 2**20)] == ["64", "512", "2k", "2.93k", "128k", "1M"]


def test_constants_over_draws_have_a_bar_and_two_markers_each() -> None:
    effects = pd.DataFrame(
        {
            "architecture": ["xlstm", "xlstm", "transformer"],
            "model_size": ["160m", "7b", "7b"],
            "parameter": "eps_s",
            "drawn": [1e-3, 2e-3, -3e-3],
            "once": [1.5e-3, 2e-3, -1e-3],
            "low": [0.5e-3, 1e-3, -5e-3],
            "high": [2e-3, 3e-3, 1e-3],
        }
    )
    figure = constants_over_draws(effects, "eps_s", "ε (ms)", 1e-3)
    left, right = figure.axes
    assert [ax.get_title() for ax in (left, right)] == ["xLSTM", "Transformer"]
    assert left.get_ylabel() == "ε (ms)"
    np.testing.assert_allclose(left.lines[0].get_ydata(), [0.5, 2])
    once, drawn = left.lines[2], left.lines[3]
    np.testing.assert_allclose(once.get_ydata(), [1.5, 2])
    np.testing.assert_allclose(drawn.get_ydata(), [1, 2])
    assert once.get_markerfacecolor() == "none" != drawn.get_markerfacecolor()
    assert [text.get_text() for text in left.get_xticklabels()] == ["160m", "7b"]


def test_ratios_over_draws() -> None:
    ratios = pd.DataFrame({"model_size": ["160m"], "measured": [0.66], "drawn": [0.4], "once": [0.45]})
    figure = ratios_over_draws(ratios.assign(low=0.38, high=0.5), "ratio")
    [ax] = figure.axes
    assert [line.get_ydata()[0] for line in ax.lines[:4]] == [0.38, 0.45, 0.4, 0.66]
    assert ax.get_ylim()[0] == 0
    assert figure.legends[0].get_texts()[0].get_text() == "measured"
