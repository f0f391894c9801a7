"""Figures of the context chapter carry their data, with units."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch07.figures import (
    context_profiles,
    optima_over_context,
    shares_over_context,
    shift_test,
    show_predictions,
    show_profiles,
    show_shares,
    show_shift_test,
)
from companion.fitting.context.costs import optimum_by_context, shares_at_optima
from companion.fitting.context.prediction import Explanation
from companion.fitting.context.scaling import ContextFit

NAMES = ("transformer", "xlstm")
BUDGET = 3e19


@pytest.fixture(scope="module")
def far(explanations: dict[str, Explanation]) -> dict[str, pd.DataFrame]:
    return {name: optimum_by_context(each, BUDGET) for name, each in explanations.items()}


def labels(figure) -> list[str]:  # type: ignore[no-untyped-def]
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("quantity", ["num_params", "num_tokens"])
def test_profiles(fits: dict[str, ContextFit], quantity: str) -> None:
    figure = context_profiles(fits, quantity)
    for ax, fit in zip(figure.axes, fits.values(), strict=True):
        optima = [each for each in fit.optima if each.quantity == quantity]
        single = [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
        assert single == [each.x_opt for each in optima]
        assert len(ax.lines) == 3 * len(optima)
        assert ax.get_xscale() == "log"
    assert "(nats/token)" in figure.axes[0].get_ylabel()
    assert labels(figure) == ["T = 2048", "T = 8192", "T = 16384", "optimum"]


def test_optima(explanations: dict[str, Explanation]) -> None:
    levels = {name: each.levels() for name, each in explanations.items()}
    curves = {
        name: {b: optimum_by_context(each, b, [2048, 8192]) for b in each.measured.budgets}
        for name, each in explanations.items()
    }
    figure = optima_over_context(levels, "same runs", curves)
    assert len(figure.axes) == 4
    for ax in figure.axes:
        assert len(ax.containers) == 6  # measured and predicted at three budgets
        assert sum(line.get_linestyle() == "--" for line in ax.lines) == 3
    assert "(tokens)" in figure.axes[2].get_xlabel()
    assert figure.axes[0].get_ylabel() == "optimal parameters N*"
    assert figure.axes[2].get_ylabel() == "optimal training tokens D*"
    assert optima_over_context({"xlstm": levels["xlstm"]}, "family", {}).axes[0].get_title() == "xLSTM"


def test_shares(explanations: dict[str, Explanation], far: dict[str, pd.DataFrame]) -> None:
    measured = {name: shares_at_optima(each.measured, each.family) for name, each in explanations.items()}
    figure = shares_over_context(measured, {name: table.iloc[:4] for name, table in far.items()})
    for ax, column in zip(figure.axes, ("core_share", "mixer_share"), strict=True):
        drawn = np.concatenate([line.get_ydata() for line in ax.lines])
        for table in measured.values():
            assert set(table[column]) <= set(drawn)
        assert ax.get_ylim()[1] > max(drawn)
    assert "%" in figure.axes[0].get_ylabel()


def test_shift_test(explanations: dict[str, Explanation]) -> None:
    single = {name: each.shifts() for name, each in explanations.items()}
    pooled = {name: each.pooled_shifts() for name, each in explanations.items()}
    figure = shift_test(single, pooled, {"same runs": "law", "nothing moves": "null"})
    for ax, name in zip(figure.axes, NAMES, strict=True):
        points = [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
        assert len(points) == 2 * (2 * 3 + 2)
        for table in (single[name], pooled[name]):
            chosen = (table["quantity"] == "num_params") & (table["method"] == "same runs")
            assert set(table.loc[chosen, "ratio"]) <= set(points)
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert rows[3] == "T = 2k, all budgets"
    assert rows[4] == "T = 16k, 6×10¹⁸"


def test_shown_figures(explanations: dict[str, Explanation], fits: dict[str, ContextFit]) -> None:
    curves = {n: {b: optimum_by_context(e, b, [2048, 8192]) for b in (1e19, BUDGET)} for n, e in explanations.items()}
    levels = {name: each.levels() for name, each in explanations.items()}
    shares = {name: shares_at_optima(each.measured, each.family) for name, each in explanations.items()}
    tests = [
        {name: getattr(each, kind)() for name, each in explanations.items()} for kind in ("shifts", "pooled_shifts")
    ]
    assert 'id="fig-context-profiles"' in show_profiles(fits).markup
    assert 'id="fig-context-optima"' in show_predictions(levels, curves).markup
    assert 'id="fig-context-shifts"' in show_shift_test(*tests).markup
    shown = show_shares(shares, curves).markup
    assert 'id="fig-context-shares"' in shown
    assert "3×10¹⁹ FLOP" in shown, "the middle budget of the curves"
