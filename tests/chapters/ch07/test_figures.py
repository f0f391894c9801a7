"""Figures of the context chapter carry their data, with units, and mark what lies beyond it."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch07.figures import (
    context_label,
    context_profiles,
    extrapolation,
    optima_over_context,
    shares_over_context,
    shift_test,
    trend_beyond,
)
from companion.fitting.context.costs import equal_loss_by_context, optimum_by_context, shares_at_optima
from companion.fitting.context.prediction import Explanation, explain
from companion.fitting.context.scaling import ContextFit, fit_context_optima
from companion.runs.load import load_paper_runs

NAMES = ("transformer", "xlstm")
BUDGET = 3e19


@pytest.fixture(scope="module")
def fits() -> dict[str, ContextFit]:
    return {name: fit_context_optima(load_paper_runs(), name, num_resamples=40) for name in NAMES}


@pytest.fixture(scope="module")
def explanations(fits: dict[str, ContextFit]) -> dict[str, Explanation]:
    return {name: explain(fit) for name, fit in fits.items()}


@pytest.fixture(scope="module")
def far(explanations: dict[str, Explanation]) -> dict[str, pd.DataFrame]:
    return {name: optimum_by_context(each, BUDGET) for name, each in explanations.items()}


def labels(figure) -> list[str]:  # type: ignore[no-untyped-def]
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("length", "text"), [(2048, "2k"), (131072, "128k"), (2**20, "1M"), (3000, "3000"), (512, "512")]
)
def test_context_label(length: int, text: str) -> None:
    assert context_label(length) == text


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
    assert "N* never trained" in labels(figure)
    one = extrapolation({"xlstm": far["xlstm"]}, None, {"xlstm": measured["xlstm"]})
    assert len(one.axes) == 2


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
