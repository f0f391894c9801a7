"""What one resample did: on timings of a known form nothing, on the authors' what the chapter says."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch08.draws import draw_effects, drawn_and_once, prefill_ratios
from companion.inference.published import published_design
from companion.inference.timings import load_paper_inference


@pytest.fixture(scope="module")
def timings() -> pd.DataFrame:
    table = load_paper_inference()
    return table[table["model_size"] == "160m"]


def test_exact_times_do_not_depend_on_the_draw(timings: pd.DataFrame) -> None:
    rows = timings[timings["prefill_length"] > 0]
    coefficients = rows["architecture"].map({"xlstm": 1 / 2e14, "transformer": 1 / 1e14})
    exact = published_design(rows, "ttft")[:, 0] * coefficients + 2e-3
    # times of milliseconds and below keep residuals where the objective is not flat
    fits = drawn_and_once(rows.assign(ttft_s=exact, step_time_s=np.nan), num_resamples=5)
    assert set(fits) == {("xlstm", "ttft", "160m"), ("transformer", "ttft", "160m")}
    effects = draw_effects(fits)
    assert (effects["shift"].abs() < 1e-2).all()
    np.testing.assert_allclose(effects.loc[effects["parameter"] == "eps_s", "once"], 2e-3, rtol=1e-2)
    ratios = prefill_ratios(rows.assign(ttft_s=exact), fits, 2048)
    assert ratios["drawn"].iloc[0] == pytest.approx(ratios["measured"].iloc[0], rel=1e-2)


def test_the_authors_timings(timings: pd.DataFrame) -> None:
    fits = drawn_and_once(timings, num_resamples=40)
    # steps of an xLSTM determine no rate in this form
    assert set(fits) == {
        (n, q, "160m") for n, q in (("xlstm", "ttft"), ("transformer", "ttft"), ("transformer", "step_time"))
    }
    effects = draw_effects(fits).set_index(["architecture", "quantity", "parameter"])
    eps = effects.loc[("xlstm", "ttft", "eps_s")]
    assert eps["shift"] == pytest.approx(1.249236 / 1.576 - 1, abs=1e-3)
    assert eps["low"] < eps["drawn"] < eps["once"] < eps["high"]
    assert 0 < eps["rank"] < 0.5
    rate = effects.loc[("xlstm", "ttft", "alpha_eff_flops_per_s")]
    assert rate["low"] < rate["once"] < rate["high"]
    ratios = prefill_ratios(timings, fits, 16384).iloc[0]
    assert ratios["measured"] == pytest.approx(0.656, abs=1e-3)
    assert ratios["low"] < ratios["once"] < ratios["high"] < ratios["measured"]
    assert prefill_ratios(timings, fits, 12345)["measured"].isna().all(), "not timed"
