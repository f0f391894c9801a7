"""The figure of the front page: its curves are the runs' fronts and the law's least losses."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from companion.chapters.front.figure import (
    Headline,
    dash_words,
    exception_words,
    fit_headline,
    headline,
    overlap_words,
)
from companion.fitting.overtraining.cost import fit_compute_scale
from companion.runs import load_paper_runs, subset


@pytest.fixture(scope="module")
def found() -> dict[str, Headline]:
    runs = subset(load_paper_runs(), "transformer", context_length=8192)
    return {"transformer": fit_headline(runs, [1e19, 1e20, 1e21], num_resamples=20)}


def test_least_loss(found: dict[str, Headline]) -> None:
    """Against a search over sizes on a grid."""
    [each] = found.values()
    scale = fit_compute_scale(each.runs)
    size = np.geomspace(5e7, 5e10, 4000)
    for flops, loss in zip(each.train_flops, each.loss, strict=True):
        tokens = flops / (scale.flops_per_param_and_token(size) * size)
        assert loss == pytest.approx(each.law.law.predict(size, tokens).min(), abs=1e-5)
    assert (each.low < each.high).all()
    assert ((each.low < each.loss + 0.02) & (each.loss - 0.02 < each.high)).all()


def test_lines(found: dict[str, Headline]) -> None:
    left, right = headline(found).axes
    [line] = [each for each in left.lines if each.get_linestyle() == "-"]
    runs = found["transformer"].runs
    for flops, loss in zip(*map(np.asarray, (line.get_xdata(), line.get_ydata())), strict=True):
        cheaper = runs[runs["train_flops"] <= flops]
        assert loss == cheaper["val_loss"].min(), "the lowest loss for its compute"
    assert line.get_ydata()[-1] == runs["val_loss"].min()
    assert right.get_xlabel().startswith("parameters")
    assert len(right.texts) >= 4
    for label in right.texts:
        size, tokens = label.xy
        law = found["transformer"].law.law
        assert law.predict(size, tokens) == pytest.approx(float(label.get_text()), abs=0.01), "a label is on its line"


def band(low: list[float], high: list[float]) -> Headline:
    flops = np.array([1e18, 1e19, 1e20])
    ends = {"low": np.array(low), "high": np.array(high)}
    return Headline(runs=pd.DataFrame(), law=None, train_flops=flops, loss=flops, **ends)  # type: ignore[arg-type]


def test_overlap() -> None:
    above = band([3.2, 2.9, 2.5], [3.3, 3.0, 2.6])
    assert overlap_words({"a": above, "b": band([3.0, 2.7, 2.3], [3.1, 2.8, 2.4])}) == ", which overlap nowhere"
    assert overlap_words({"a": above, "b": band([3.0, 2.7, 2.3], [3.1, 2.95, 2.55])}).startswith(
        ", which from 1×10¹⁹ FLOP on overlap"
    )
    assert overlap_words({"a": above, "b": band([3.0, 2.7, 2.3], [3.1, 2.95, 2.4])}) == ", which overlap in places"
    assert overlap_words({"a": above}) == ""


def test_dashes() -> None:
    assert dash_words(["transformer", "xlstm"]) == ", full for xLSTM, dashed for Transformer"
    assert dash_words(["xlstm"]) == ""


def test_exceptions() -> None:
    """Two made-up laws that cross at ten tokens per parameter."""
    runs = pd.DataFrame({"num_params": [1e8] * 4, "num_tokens": [1e8, 5e8, 2e9, 6e9]})
    flat = SimpleNamespace(law=SimpleNamespace(predict=lambda n, d: np.full(len(n), 3.0)))
    falling = SimpleNamespace(law=SimpleNamespace(predict=lambda n, d: 3.1 - 0.1 * np.log10(d / n)))
    found = {
        name: Headline(runs=runs, law=law, train_flops=flops, loss=flops, low=flops, high=flops)  # type: ignore[arg-type]
        for (name, law), flops in zip({"transformer": falling, "xlstm": flat}.items(), np.ones((2, 1)), strict=True)
    }
    clause = (
        "; the Transformer is lower at 50 % of the runs' sizes and tokens, in the median with 40 tokens per parameter"
    )
    assert exception_words(found) == clause
    assert exception_words({"xlstm": found["xlstm"]}) == ""
    assert exception_words({"transformer": found["xlstm"], "xlstm": found["xlstm"]}) == ""
