"""Figures of chapter 6 carry the data they are given."""

import math

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch06 import figures
from companion.chapters.ch06.mistakes import Form
from companion.fitting.multistart import Multistart
from companion.plotting import show


def test_exponent_shifts_sorts_and_marks() -> None:
    shifts = {"small": 0.001, "large": -0.2, "middle": 0.05}
    figure = figures.exponent_shifts(shifts, (-0.02, 0.03))
    [ax] = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["small", "middle", "large"]
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == [0.001, 0.05, -0.2]
    assert [line.get_markerfacecolor() == "none" for line in points] == [True, False, False]
    assert "exponent a" in ax.get_xlabel()
    assert "<svg" in show(figure, name="x", alt="alt", caption="caption").markup


def test_condition_over_spread() -> None:
    curve = pd.DataFrame({"decades": [0.1, 1.0], "gamma_free": [1e5, 1e2], "gamma_fixed": [1e3, 50.0]})
    designs = pd.DataFrame({"design": ["all", "one"], "decades": [2.0, 0.05], "condition_number": [80.0, 1e5]})
    [ax] = figures.condition_over_spread(curve, designs).axes
    assert ax.get_yscale() == "log"
    assert len(ax.lines) == 4
    assert "decades" in ax.get_xlabel()


def test_end_objectives_are_sorted_and_floored() -> None:
    search = Multistart(
        starts=np.zeros((3, 6)),
        theta=np.zeros((3, 6)),
        objective=np.array([3.0, 1.0, 2.0]),
        evaluations=np.ones(3),
        seconds=1.0,
        grid_size=8000,
        setting="published",
    )
    [ax] = figures.end_objectives({"published": search}, 1.0, {"published": "tight"}).axes
    assert list(ax.lines[0].get_ydata()) == [1e-12, 1.0, 2.0]
    assert ax.lines[0].get_label() == "tight"
    assert ax.get_yscale() == "log"


def test_metric_scatter_marks_three_choices() -> None:
    table = pd.DataFrame({"mse_paired": [2e-4, 1e-4, 3e-4], "mse_all_pairs": [0.07, 0.08, 0.06]})
    [ax] = figures.metric_scatter(table).axes
    cloud, *marks = ax.lines
    assert len(cloud.get_xdata()) == 2
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([2.0, 1.0, 3.0])
    assert "nats²/token²" in ax.get_xlabel()


def test_forms_along_budget() -> None:
    runs = pd.DataFrame({"num_params": [1e8, 1e9], "num_tokens": [1e10, 1e9], "val_loss": [3.0, 3.1]})
    forms = {name: Form(lambda n, d: 0 * n + 3.0, 4, 0.0, 1.0) for name in ("sum", "product")}
    [ax] = figures.forms_along_budget(runs, forms, "#de8f05", decades=1.0).axes
    assert [line.get_label() for line in ax.lines] == ["runs", "sum", "product"]
    assert ax.lines[1].get_xdata()[0] == pytest.approx(1e7)
    assert ax.get_title() == "C = 6ND = 6×10¹⁸ FLOP"


def test_embedding_optima() -> None:
    row = {"definition": "all", "flops": [1e19, 1e20], "optima": [1e8, 1e9], "isoflop_exponent": 1.0}
    figure = figures.embedding_optima(pd.DataFrame([row]))
    [ax] = figure.axes
    assert ax.get_xscale() == ax.get_yscale() == "log"
    [legend] = figure.legends
    assert legend.get_texts()[0].get_text() == "all: a = 1.000"
    assert "a = 1.000<" in show(figure, name="x", alt="alt", caption="caption").markup, "labels keep their digits"


def test_delta_parameters_are_relative() -> None:
    values = {"E": [1.0, 2.0, 3.0], "alpha": [1.0] * 3, "beta": [1.0] * 3, "gamma": [1.0] * 3}
    table = pd.DataFrame({"huber_delta": [1e-3, 1.0, math.inf], **values, "size_exponent": [0.5] * 3})
    figure = figures.delta_parameters({"some": table, "others": table}, 1e-3)
    assert len(figure.axes) == 2
    ax = figure.axes[0]
    assert list(ax.lines[0].get_ydata()) == [1.0, 2.0, 3.0]
    assert ax.get_xticklabels()[-1].get_text() == "∞"
    assert ax.get_ylabel() == "relative to δ = 10⁻³"
