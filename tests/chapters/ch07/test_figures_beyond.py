"""Figures beyond the contexts of the runs mark what lies beyond, and carry their data."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch07.figures_beyond import (
    extrapolation,
    show_extrapolation,
    show_power_law_beyond,
    size_trend,
    trend_beyond,
)
from companion.errors import NotApplicable
from companion.fitting.context.costs import equal_loss_by_context, optimum_by_context
from companion.fitting.context.prediction import Explanation
from companion.fitting.context.scaling import ContextFit

NAMES = ("transformer", "xlstm")
BUDGET = 3e19


@pytest.fixture(scope="module")
def far(explanations: dict[str, Explanation]) -> dict[str, pd.DataFrame]:
    return {name: optimum_by_context(each, BUDGET) for name, each in explanations.items()}


def labels(figure) -> list[str]:  # type: ignore[no-untyped-def]
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_extrapolation_marks_what_is_beyond(explanations: dict[str, Explanation], far: dict[str, pd.DataFrame]) -> None:
    factors = equal_loss_by_context(explanations["xlstm"], explanations["transformer"], BUDGET)
    measured = {
        name: pd.DataFrame({"context_length": [2048], "x_opt": [4e8]})
        for name in NAMES
    }  # fmt: skip
    figure = extrapolation(far, factors, measured)
    assert len(figure.axes) == 3
    for ax in figure.axes:
        [hatched] = [patch for patch in ax.patches if patch.get_hatch()]
        assert hatched.get_x() == 16384
        assert hatched.get_width() == 2**20 - 16384
        solid = [line for line in ax.lines if line.get_linestyle() == "-" and len(np.unique(line.get_xdata())) > 1]
        assert all(line.get_xdata().max() == 16384 for line in solid)
        dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert all(line.get_xdata()[0] == 16384 and line.get_xdata()[-1] == 2**20 for line in dashed)
        assert len(solid) == len(dashed) > 0
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in crosses) == sum(table["beyond_sizes"].sum() for table in far.values())
    assert "smaller than any model" in labels(figure)
    one = extrapolation({"xlstm": far["xlstm"]}, None, {"xlstm": measured["xlstm"]})
    assert len(one.axes) == 2
    assert "smaller than any model" not in labels(one), "no optimum of xLSTM is"


def test_trend_beyond(fits: dict[str, ContextFit], far: dict[str, pd.DataFrame]) -> None:
    trends = {
        name: pd.DataFrame({"context_length": table["context_length"], "num_params": 1e8, "low": 0.9e8, "high": 1.1e8})
        for name, table in far.items()
    }
    points = pd.DataFrame(
        [
            {"architecture": name, "context_length": each.context_length, "x_opt": each.x_opt}
            for name, fit in fits.items()
            for each in fit.optima
            if each.quantity == "num_params" and each.isoflop_budget == BUDGET
        ]
    )
    figure = trend_beyond(far, trends, points)
    for ax, name in zip(figure.axes, NAMES, strict=True):
        power, law, measured = ax.lines
        assert set(power.get_ydata()) == {1e8}
        assert list(law.get_ydata()) == far[name]["num_params"].tolist()
        assert len(measured.get_xdata()) == 3


def test_trend_of_the_largest_budget_that_has_one(fits: dict[str, ContextFit]) -> None:
    fit = fits["xlstm"]
    assert size_trend(fit).isoflop_budget == max(fit.budgets)
    assert size_trend(fit).quantity == "num_params"
    smaller = replace(fit, trends=tuple(t for t in fit.trends if t.isoflop_budget < max(fit.budgets)))
    assert size_trend(smaller).isoflop_budget == sorted(fit.budgets)[-2]
    tokens_only = replace(fit, trends=tuple(t for t in fit.trends if t.quantity == "num_tokens"))
    with pytest.raises(NotApplicable, match="no budget of xlstm has optimal sizes at two contexts"):
        size_trend(tokens_only)


def test_shown_figures(
    fits: dict[str, ContextFit], explanations: dict[str, Explanation], far: dict[str, pd.DataFrame]
) -> None:
    shown = show_extrapolation(far, None, explanations, BUDGET).markup
    assert 'id="fig-context-extrapolation"' in shown
    assert "3×10¹⁹ FLOP" in shown
    trends = {name: size_trend(fit) for name, fit in fits.items()}
    assert 'id="fig-context-power-law"' in show_power_law_beyond(fits, trends, far).markup
