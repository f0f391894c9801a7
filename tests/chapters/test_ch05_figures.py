"""Figures of chapter 5 carry their data, with units and scales."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch05.analysis import short_windows
from companion.chapters.ch05.figures import (
    above_the_front,
    bending_lines,
    cost_and_gain,
    overtraining_lines,
    ratio_looks,
    slopes_by_ratio,
    tilted_lines,
    window_slopes,
)
from companion.fitting.overtraining.exponents import OvertrainingSlopes, fit_overtraining_slopes
from companion.runs.load import load_paper_runs
from companion.runs.select import subset

NAMES = ("transformer", "xlstm")


@pytest.fixture(scope="module")
def slopes() -> dict[str, OvertrainingSlopes]:
    runs = load_paper_runs()
    return {name: fit_overtraining_slopes(subset(runs, architecture=name, context_length=8192)) for name in NAMES}


def points(ax) -> int:  # type: ignore[no-untyped-def]
    return sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() not in ("None", None, "", "x"))


def test_lines(slopes: dict[str, OvertrainingSlopes]) -> None:
    spare = pd.DataFrame({"train_flops": [1e19, 2e19], "val_loss": [3.0, 2.9]})
    figure = overtraining_lines(slopes, {"xlstm": spare})
    for ax, fits in zip(figure.axes, slopes.values(), strict=True):
        assert points(ax) == len(fits.data)
        assert ax.get_xscale() == ax.get_yscale() == "log"
        assert "(FLOP)" in ax.get_xlabel()
    assert "(nats/token)" in figure.axes[0].get_ylabel()
    assert sum(line.get_marker() == "x" for line in figure.axes[1].lines) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0] == "M = 22"
    assert labels[-1] == "in no line"


def test_lines_differ_without_colors(slopes: dict[str, OvertrainingSlopes]) -> None:
    looks = ratio_looks(slopes)
    assert sorted(looks) == [22, 44, 110, 220, 550, 1100]
    for key in ("marker", "dashes"):
        assert len({str(look[key]) for look in looks.values()}) == len(looks)
    figure = overtraining_lines(slopes, {})
    handles = figure.legends[0].get_lines()
    drawn = [line for line in figure.axes[1].lines if line.get_marker() == "None"]
    assert [each._unscaled_dash_pattern for each in handles] == [line._unscaled_dash_pattern for line in drawn]


def test_a_common_slope_is_level() -> None:
    sizes = np.geomspace(1e8, 1e10, 5)
    parts = [pd.DataFrame({"num_params": sizes, "num_tokens": sizes * ratio}) for ratio in (20.0, 200.0)]
    runs = pd.concat(parts, ignore_index=True)
    runs["train_flops"] = 6 * runs["num_params"] * runs["num_tokens"]
    factor = np.where(runs["num_tokens"] / runs["num_params"] > 100, 1.03, 1.0)
    runs["val_loss"] = 30 * factor * runs["train_flops"] ** -0.05
    ax = tilted_lines({"gpt": fit_overtraining_slopes(runs)}).axes[0]
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose([line.get_ydata() for line in lines], [[0, 0], [0.03, 0.03]], atol=1e-9)
    assert points(ax) == len(runs)
    assert "%" in ax.get_ylabel()


def test_slopes_by_ratio(slopes: dict[str, OvertrainingSlopes]) -> None:
    published = {"transformer": {22.0: 0.05, 44.0: 0.048}}
    figure = slopes_by_ratio(slopes, published, slopes)
    for ax, fits in zip(figure.axes, slopes.values(), strict=True):
        etas = [float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() in ("s", "o")]
        np.testing.assert_allclose(etas, fits.table()["eta"])
    [diamonds] = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert list(diamonds.get_ydata()) == [0.05, 0.048]
    assert figure.axes[0].get_xscale() == "log"


def test_bending(slopes: dict[str, OvertrainingSlopes]) -> None:
    grid = np.geomspace(1e19, 1e22, 5)
    one = pd.DataFrame({"train_flops": grid, "eta": 0.05, "low": 0.04, "high": 0.06})
    curve = pd.concat([one.assign(tokens_per_param=m) for m in (22.0, 550.0)])
    figure = bending_lines(slopes, dict.fromkeys(NAMES, curve))
    for ax, fits in zip(figure.axes, slopes.values(), strict=True):
        assert sum(len(line.get_xdata()) == 5 for line in ax.lines) == 2
        assert len(ax.containers) == 2  # the lines of the same two ratios, of all that the table has
        assert len(fits.laws) > 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["law, M = 22", "law, M = 550"]


def test_front(slopes: dict[str, OvertrainingSlopes]) -> None:
    excess = {name: fits.data.assign(excess=0.01) for name, fits in slopes.items()}
    implied = {name: fits.data.assign(relative_penalty=0.02) for name, fits in slopes.items()}
    figure = above_the_front(slopes, excess, implied)
    for ax, fits in zip(figure.axes, slopes.values(), strict=True):
        assert points(ax) == len(fits.data)
    assert "%" in figure.axes[0].get_ylabel()


def test_cost_and_gain_leaves_out_what_is_unknown() -> None:
    table = pd.DataFrame({"tokens_per_param": [22.0, 220.0, 2200.0]})
    for column in ("relative_penalty", "size_ratio", "break_even_tokens"):
        table[column] = table[f"{column}_low"] = table[f"{column}_high"] = [0.5, 1.0, 2.0]
    table.loc[0, "break_even_tokens"] = np.nan
    figure = cost_and_gain({"gpt": table, "xlstm": table})
    assert [len(ax.lines[0].get_xdata()) for ax in figure.axes] == [3, 3, 2]
    assert all(ax.get_xscale() == "log" for ax in figure.axes)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["gpt", "xLSTM"]


def test_windows(slopes: dict[str, OvertrainingSlopes]) -> None:
    windows = {name: short_windows(fits) for name, fits in slopes.items()}
    figure = window_slopes(windows, {name: fits.common_eta for name, fits in slopes.items()})
    for ax, table in zip(figure.axes, windows.values(), strict=True):
        assert points(ax) == len(table)
        assert "decades" in ax.get_xlabel()


def test_markers_repeat_only_after_all_are_used() -> None:
    sizes = np.geomspace(1e8, 1e10, 4)
    ratios = np.geomspace(10, 1e5, 19)
    runs = pd.concat([pd.DataFrame({"num_params": sizes, "num_tokens": sizes * ratio}) for ratio in ratios])
    runs["train_flops"] = 6 * runs["num_params"] * runs["num_tokens"]
    looks = ratio_looks({"gpt": fit_overtraining_slopes(runs.assign(val_loss=runs["train_flops"] ** -0.05))})
    assert len(looks) == 19
    assert len({look["marker"] for look in looks.values()}) == 7
    assert all(look["filled"] for look in ratio_looks({}, hollow=False).values())
