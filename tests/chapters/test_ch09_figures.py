"""Figures of the planning chapter: every series is there, in its units."""

import pytest

from companion.chapters.ch09.figures import cost_curves, cost_ratios, traffic
from companion.planner.costs import cost_curve
from companion.planner.planning import Request, learn, plan
from companion.planner.sweeps import cost_ratio, sweep

REQUEST = Request(train_flops=1e21, prefill_tokens=1e12, generated_tokens=1e11)


@pytest.fixture(scope="module")
def known() -> dict:
    return learn(num_resamples=10)


def test_cost_curves(known: dict) -> None:
    planned = plan(REQUEST, known)
    curves = {name: cost_curve(REQUEST, one, 2.5) for name, one in known.items()}
    figure = cost_curves(curves, planned)
    assert [ax.get_title() for ax in figure.axes] == ["Transformer", "xLSTM"]
    for ax in figure.axes:
        marks = [line for line in ax.lines if line.get_marker() in ("D", "o")]
        assert len(marks) == 2
        (low, high), (left, right) = ax.get_ylim(), ax.get_xlim()
        for mark in marks:
            assert left < mark.get_xdata()[0] < right
            assert low < mark.get_ydata()[0] < high
    assert "GPU-hours" in figure.axes[0].get_ylabel()


def test_traffic_and_ratios(known: dict) -> None:
    table = sweep(REQUEST, known, "served_tokens", [1e10, 1e12])
    figure = traffic(table, list(known))
    assert len(figure.axes[0].lines) == 4
    assert "tokens served" in figure.axes[0].get_xlabel()
    contexts = sweep(Request(target_loss=2.6, prefill_tokens=1e12), known, "context_length", [2048, 8192])
    ratios = cost_ratio(contexts, "transformer", "xlstm", "context_length")
    figure = cost_ratios({"measured times": ratios}, "Transformer over xLSTM")
    assert [ax.get_title() for ax in figure.axes] == ["total device time", "time to first token", "step time"]
    assert figure.axes[0].lines[0].get_ydata().tolist() == ratios["ratio"].tolist()
