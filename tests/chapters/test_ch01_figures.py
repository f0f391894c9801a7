"""The figures of chapter 1 carry the data that they should."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from companion.accounting import PAPER, TFLA, count_flops, get_convention, num_params
from companion.architectures import PAPER_ARCHITECTURES, preset
from companion.chapters import ch01
from companion.chapters.ch01 import answer, figures, share_table
from companion.chapters.ch01.formulas import mlstm_core_per_token
from companion.plotting import show
from companion.runs.conventions import convention_ratios
from companion.runs.load import load_paper_runs


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return load_paper_runs()


def num_points(ax: Axes) -> int:
    """Points of the data, without the reference lines of two points that cross the panel."""
    return sum(len(line.get_xdata()) for line in ax.get_lines() if line.get_linestyle() == "None")


def test_component_costs() -> None:
    models = {name: preset(name, "7b") for name in PAPER_ARCHITECTURES}
    counts = ch01.costs_by_context(models, (8192, 2048, 8192), PAPER)
    assert [T for _, T in counts] == [2048, 2048, 8192, 8192]
    [ax] = answer.component_costs(counts).axes
    names = {"transformer": "Transformer", "xlstm": "xLSTM"}
    expected = [f"{names[name]}, {T // 1024}k" for name, T in counts]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == expected
    widths = np.array([[bar.get_width() for bar in container] for container in ax.containers])
    assert widths.sum(axis=0) == pytest.approx([each.train_flops_per_token / 1e9 for each in counts.values()])
    labels = [container.get_label() for container in ax.containers]
    assert labels == ["mixer projections", "mixer core", "output gate", "feed-forward", "unembedding"]
    assert widths[1] / widths.sum(axis=0) == pytest.approx([each.share("mixer_core") for each in counts.values()])
    [ticks] = ax.collections
    six = [6 * num_params(each.architecture) / 1e9 for each in counts.values()]
    assert [segment[0][0] for segment in ticks.get_segments()] == pytest.approx(six)
    assert "GFLOP per token" in ax.get_xlabel()
    with_embedding = ch01.costs_by_context(models, (8192,), get_convention("chinchilla"))
    assert len(answer.component_costs(with_embedding).axes[0].containers) == 6


def test_shares_stand_clear_of_the_ticks() -> None:
    """At 64k the middle of attention lies at the tick of 6 N: its number moves aside."""
    counts = ch01.costs_by_context({"transformer": preset("transformer", "7b")}, (65536,), PAPER)
    [ax] = answer.component_costs(counts).axes
    [tick] = {segment[0][0] for segment in ax.collections[0].get_segments()}
    places = [text.get_position()[0] for text in ax.texts]
    assert len(places) >= 3
    assert min(abs(place - tick) for place in places) > 0.04 * ax.get_xlim()[1]


def test_short_tokens() -> None:
    assert [figures.short_tokens(T) for T in (100, 2048, 65536, 1536, 5000)] == ["100", "2k", "64k", "1.5k", "5000"]


def test_six_nd_ratio(runs: pd.DataFrame) -> None:
    axes = figures.six_nd_ratio(runs).axes
    assert [num_points(ax) for ax in axes] == [292, 348]
    assert [ax.get_title() for ax in axes] == ["Transformer", "xLSTM"]
    assert all(ax.get_xscale() == ax.get_yscale() == "log" for ax in axes)
    assert axes[0].get_ylabel() == "C / (6ND)"
    drawn = np.concatenate([line.get_ydata() for line in axes[1].get_lines() if line.get_linestyle() == "None"])
    rows = runs[runs["architecture"] == "xlstm"]
    ratio = rows["train_flops"] / (6.0 * rows["num_params"] * rows["num_tokens"])
    assert sorted(drawn) == pytest.approx(sorted(ratio))


def test_context_curves() -> None:
    models = {f"{name} {size}": preset(name, size) for size in ("7b", "160m") for name in PAPER_ARCHITECTURES}
    lengths = [64, 1024, 16384, 100]
    figure = figures.context_curves(models, lengths, TFLA)
    left, right = figure.axes
    by_label = {line.get_label(): line for line in left.get_lines()}
    model = models["transformer 7b"]
    expected = [count_flops(model, T, TFLA).train_flops_per_token / (6 * num_params(model)) for T in lengths]
    assert by_label["transformer 7b"].get_ydata() == pytest.approx(expected)
    styles = {(line.get_color(), line.get_linestyle()) for label, line in by_label.items() if label in models}
    assert len(styles) == 4
    assert "tokens" in left.get_xlabel()
    assert right.get_ylim() == (0, 1)


def test_embedding_shares(runs: pd.DataFrame) -> None:
    left, right = figures.embedding_shares(share_table(runs)).axes
    assert num_points(left) == num_points(right) == 640
    assert "(%)" in left.get_ylabel()
    assert left.get_xscale() == "log"


def test_convention_shift(runs: pd.DataFrame) -> None:
    ratios = convention_ratios(runs, ["chinchilla", "6ND"])
    axes = figures.convention_shift(runs, ratios).axes
    assert [num_points(ax) for ax in axes] == [640, 640]
    assert [ax.get_title() for ax in axes] == ["counted by chinchilla", "counted by 6ND"]
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["2048", "8192", "16384"]


def test_chunk_cost() -> None:
    model, sizes = preset("xlstm", "7b"), [16, 64, 256]
    [ax] = figures.chunk_cost(model, sizes, [PAPER, replace(TFLA, name="half", mlstm_causal_factor=0.5)]).axes
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines["paper"].get_ydata() == pytest.approx(mlstm_core_per_token(model, sizes) / 1e6)
    assert (lines["half"].get_ydata() < lines["paper"].get_ydata()).all()
    assert lines["paper"].get_linestyle() != lines["half"].get_linestyle()
    assert ax.get_ylabel() == "mLSTM core (MFLOP/token)"


def test_tables_without_shapes_or_contexts() -> None:
    plain = pd.DataFrame(
        {
            "architecture": ["mamba", "transformer"],
            "num_params": [10**8, 2 * 10**8],
            "num_tokens": [10**9, 10**10],
            "train_flops": [7e17, 1.3e19],
            "val_loss": [3.5, 3.2],
        }
    )
    drawn = {
        "ratio": figures.six_nd_ratio(plain),
        "shift": figures.convention_shift(plain, convention_ratios(plain, ["chinchilla", "6ND"])),
        "shares": figures.embedding_shares(share_table(plain)),
    }
    assert [num_points(ax) for ax in drawn["ratio"].axes] == [1, 1]
    assert [ax.get_title() for ax in drawn["shift"].axes] == ["counted by 6ND"]
    for name, figure in drawn.items():
        assert "<svg" in show(figure, name=name, alt="x", caption="y").markup
