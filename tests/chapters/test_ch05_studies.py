"""Chapter 5: what it compares, on lines and laws whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from companion.accounting import CONVENTIONS, SIX_ND
from companion.chapters import ch05
from companion.fitting.overtraining import fit_overtraining_slopes
from companion.fitting.overtraining.cost import best_model, cost_at_equal_loss, fit_compute_scale
from companion.fitting.pareto import fit_front
from companion.laws import LossSurface
from companion.runs import load_paper_runs, subset

LAW = LossSurface(E=1.7, A=400.0, B=500.0, alpha=0.34, beta=0.3)
CHOSEN = {"keep_left_out": False, "tolerance": 0.18}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    runs = load_paper_runs()
    return {name: subset(runs, name, 8192) for name in ("transformer", "xlstm")}


def test_slopes_by_choice(tables: dict[str, pd.DataFrame]) -> None:
    choices = ch05.slopes_by_choice(tables, [0.05, 0.18])
    assert list(choices)[:2] == [("transformer", 0.05, False), ("transformer", 0.05, True)]
    assert len(choices) == 8
    expected = fit_overtraining_slopes(tables["xlstm"], keep_left_out=True, tolerance=0.05)
    assert choices["xlstm", 0.05, True].common_eta == expected.common_eta
    # the run left out by hand is an xLSTM
    runs = {key: len(fits.data) for key, fits in choices.items()}
    assert runs["xlstm", 0.18, True] == runs["xlstm", 0.18, False] + 1
    assert runs["transformer", 0.18, True] == runs["transformer", 0.18, False]
    assert runs["xlstm", 0.05, False] < runs["xlstm", 0.18, False]


def test_slopes_by_convention(tables: dict[str, pd.DataFrame]) -> None:
    counted, missing = ch05.slopes_by_convention(tables, [CONVENTIONS["paper"], SIX_ND], **CHOSEN)
    assert not missing
    assert list(counted) == [(name, count) for name in tables for count in ("paper", "6ND")]
    data = counted["xlstm", "6ND"].data
    np.testing.assert_allclose(data["train_flops"], 6 * data["num_params"] * data["num_tokens"])
    kept, _ = ch05.slopes_by_convention(tables, [SIX_ND], keep_left_out=True, tolerance=0.18)
    assert len(kept["xlstm", "6ND"].data) == len(data) + 1


def test_runs_that_cannot_be_counted_again(tables: dict[str, pd.DataFrame]) -> None:
    lacking = {name: table.drop(columns="d_model") for name, table in tables.items()}
    # the same reason for both is given once
    assert ch05.slopes_by_convention(lacking, [SIX_ND], **CHOSEN) == ({}, "no column 'd_model'")


def test_readings(tables: dict[str, pd.DataFrame]) -> None:
    slopes = {"xlstm": fit_overtraining_slopes(tables["xlstm"])}
    first, second = ch05.readings(slopes)
    assert (first[:2], second[:2]) == (("xlstm", "standard error"), ("xlstm", "variance"))
    lines = slopes["xlstm"].table()
    np.testing.assert_array_equal(first[2], lines["eta"])
    np.testing.assert_array_equal(first[3], lines["eta_standard_error"])
    np.testing.assert_array_equal(second[3], lines["eta_standard_error"] ** 2)
    ratio = tables["xlstm"]["num_tokens"] / tables["xlstm"]["num_params"]
    one = fit_overtraining_slopes(tables["xlstm"][(ratio > 20) & (ratio < 24)])
    assert ch05.readings({"xlstm": one}) == []


def test_above_front() -> None:
    front = fit_front([1e19, 1e21], [3.0, 2.0])
    runs = pd.DataFrame({"train_flops": [1e19, 1e20, 1e21], "val_loss": [3.0, 2.75, 2.2]})
    # halfway in log C the front has a loss of 2.5
    np.testing.assert_allclose(ch05.above_front(runs, front)["excess"], [0, 0.1, 0.1], atol=1e-12)


def test_exact_runs() -> None:
    runs = ch05.exact_runs(LAW, (22, 220))
    assert len(runs) == 24
    assert set((runs["num_tokens"] / runs["num_params"]).round(6)) == {22, 220}
    assert (runs["num_params"].min(), runs["num_params"].max()) == pytest.approx((1.5e8, 7e9))
    np.testing.assert_array_equal(runs["val_loss"], LAW.predict(runs["num_params"], runs["num_tokens"]))


def test_cheapest() -> None:
    n, m = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e8, 7e9, 6), [22.0, 220.0]))
    runs = pd.DataFrame({"num_params": n, "num_tokens": m * n, "train_flops": 6 * n * m * n})
    scale = fit_compute_scale(runs)
    best = best_model(LAW, scale, 1e21)
    [size], [ratio] = best.num_params, best.tokens_per_param
    scan = cost_at_equal_loss(LAW, scale, 1e21, np.geomspace(ratio, 100 * ratio, 120))
    unserved, few, many = (ch05.cheapest(scan, served) for served in (0.0, 1e12, 1e14))
    # without serving the compute-optimal model is the cheapest
    assert unserved == pytest.approx((ratio, size, 0.0), rel=1e-3, abs=1e-3)
    assert unserved[0] < few[0] < many[0]
    assert 0 < few[2] < many[2]
    total = scan["train_flops"] + 2 * scan["num_params"] * 1e12
    assert few[2] == pytest.approx(1 - total.min() / (1e21 + 2 * size * 1e12))
