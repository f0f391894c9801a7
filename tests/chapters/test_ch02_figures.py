"""Figures of the chapter on the run table carry the data that they should."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch02.figures import (
    coverage,
    fronts,
    gap_at_equal_compute,
    gap_at_equal_size,
    profile_with_marks,
    ratio_over_compute,
)
from companion.fitting.isoflop.profiles import fit_profile
from companion.fitting.pareto import READINGS, compare_architectures, matched_pairs
from companion.plotting.style import architecture_look
from companion.runs.load import REQUIRED_COLUMNS, load_paper_runs
from companion.runs.select import subset


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


@pytest.fixture(scope="module")
def at_8192(runs: pd.DataFrame) -> pd.DataFrame:
    return subset(runs, context_length=8192)


def test_coverage_shows_every_run(runs: pd.DataFrame) -> None:
    figure = coverage(runs)
    assert [ax.get_title() for ax in figure.axes] == ["IsoFLOP, 574 runs", "Token/Param, 66 runs"]
    assert sum(len(points.get_offsets()) for ax in figure.axes for points in ax.collections) == len(runs)
    for ax in figure.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        for points in ax.collections:
            x, y = np.asarray(points.get_offsets()).T
            assert ((left < x) & (x < right) & (bottom < y) & (y < top)).all()
        for line in ax.get_lines():
            decade = int(str(line.get_gid()).removeprefix("iso-"))
            assert 6 * np.prod(line.get_xydata(), axis=1) == pytest.approx([10.0**decade] * 2)


def test_coverage_of_a_bare_table(runs: pd.DataFrame) -> None:
    [ax] = coverage(runs[list(REQUIRED_COLUMNS)]).axes
    assert ax.get_title() == "all runs, 640 runs"


def test_ratio_over_compute(runs: pd.DataFrame) -> None:
    figure = ratio_over_compute(runs)
    assert [ax.get_title() for ax in figure.axes] == ["Transformer, 292 runs", "xLSTM, 348 runs"]
    x, y = np.concatenate([points.get_offsets() for points in figure.axes[1].collections]).T
    mine = subset(runs, "xlstm")
    assert sorted(x) == sorted(mine["train_flops"])
    assert sorted(y) == pytest.approx(sorted(mine["num_tokens"] / mine["num_params"]))
    assert figure.axes[1].get_xlabel() == "training compute C (FLOP)"


def test_fills_follow_the_experiment_even_if_an_architecture_lacks_one(runs: pd.DataFrame) -> None:
    part = runs[(runs["architecture"] == "xlstm") | (runs["experiment"] == "tokenparam")]
    transformer = ratio_over_compute(part).axes[0]
    hollow, filled = transformer.collections[:2]
    assert (len(hollow.get_offsets()), len(filled.get_offsets())) == (0, 31)
    assert len(filled.get_facecolor()) == 1


def test_fronts(at_8192: pd.DataFrame) -> None:
    found = compare_architectures(at_8192, "xlstm", "transformer")
    [ax] = fronts(at_8192, {"xlstm": found.first, "transformer": found.second}).axes
    sizes = [len(line.get_xydata()) for line in ax.get_lines()]
    assert sizes == [180, 41, found.first.hull().rows.size, 138, 32, found.second.hull().rows.size]
    assert ax.get_ylabel() == "validation loss (nats/token)"


def test_gap_in_every_reading(at_8192: pd.DataFrame) -> None:
    comparisons = {name: compare_architectures(at_8192, "xlstm", "transformer", name) for name in READINGS}
    [ax] = gap_at_equal_compute(comparisons, "b − a").axes
    lines = dict(zip(READINGS, ax.get_lines(), strict=False))
    for name, line in lines.items():
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        found = comparisons[name]
        assert (x[0], x[-1]) == pytest.approx(found.flops_range)
        assert (y.min(), y.max()) == pytest.approx((found.loss_gap.minimum, found.loss_gap.maximum))
        inside = np.geomspace(*found.flops_range, 50)[1:-1]
        if name != "steps":
            gap = found.second.loss_at(inside, name) - found.first.loss_at(inside, name)
            assert np.interp(np.log(inside), np.log(x), y) == pytest.approx(gap, abs=1e-9)
    assert ax.get_ylabel() == "b − a (nats/token)"


def test_gap_at_equal_size(at_8192: pd.DataFrame) -> None:
    found = compare_architectures(at_8192, "xlstm", "transformer")
    pairs = matched_pairs(subset(at_8192, "xlstm"), subset(at_8192, "transformer"))
    [ax] = gap_at_equal_size(pairs, found, "b − a").axes
    [points] = ax.collections
    assert np.asarray(points.get_offsets()) == pytest.approx(pairs[["tokens_per_param", "loss_gap"]].to_numpy())
    assert np.argmax(points.get_sizes()) == pairs["num_params"].argmax()
    median, zero = ax.get_lines()
    assert list(median.get_ydata()) == [found.loss_gap.quantile(0.5)] * 2
    assert list(zero.get_ydata()) == [0, 0]


def test_gap_without_pairs(at_8192: pd.DataFrame) -> None:
    found = compare_architectures(at_8192, "xlstm", "transformer")
    none = matched_pairs(subset(at_8192, "xlstm"), subset(at_8192, "transformer"), 1e-9)
    figure = gap_at_equal_size(none, found, "b − a")
    figure.draw_without_rendering()
    assert len(figure.axes[0].collections[0].get_offsets()) == 0


def test_marked_profile(runs: pd.DataFrame) -> None:
    rows = runs[runs["isoflop_budget"] == 6e20]
    profile = fit_profile(6e20, rows["num_params"], rows["val_loss"], rows["train_flops"])
    marked = [int(i) for i in np.flatnonzero(rows["num_params"].isin([3_724_524_056, 3_726_640_848]))]
    [ax] = profile_with_marks(profile, rows["d_model"], marked).axes
    lines = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    assert len(lines["runs"]) == 27
    assert len(lines["width 2816"]) == (rows["d_model"] == 2816).sum()
    assert (np.diff(lines["width 3072"][:, 0]) > 0).all()
    assert lines["in question"][:, 1].tolist() == [2.51071, 2.49707]


def test_looks_of_any_architecture() -> None:
    looks = architecture_look(["xlstm", "mamba", "hyena"])
    assert looks["xlstm"]["label"] == "xLSTM"
    assert looks["mamba"]["label"] == "mamba"
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 3
