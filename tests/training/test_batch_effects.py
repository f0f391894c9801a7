"""What a batch does to an optimum and an exponent, and the critical batch that paired differences imply."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.fitting.isoflop import fit_isoflop, isoflop_runs
from companion.laws import LossSurface
from companion.runs import load_paper_runs
from companion.training import load_training_logs
from companion.training.batch import batch_table, pair_batches
from companion.training.batch_effects import (
    exponent_change,
    fit_critical_batch,
    implied_critical_batch,
    optimum_shift,
    predicted_difference,
    scaled_batch_change,
    shifts_by_window,
    token_share,
)

SURFACE = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
BUDGETS = [6e18, 1e19, 3e19, 1e20]


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    return pair_batches(batch_table(load_paper_runs(), load_training_logs()), 128, 256)


def made_pairs(num_pairs: int = 12, exponent: float = 0.46, surface: LossSurface = SURFACE) -> pd.DataFrame:
    """Pairs along one budget whose differences follow from B_crit = 3e6 · (D / 1e10)^exponent."""
    tokens = np.geomspace(3e9, 6e10, num_pairs)
    frame = pd.DataFrame(
        {
            "num_params": 1e20 / (6 * tokens), "second_num_tokens": tokens, "second_steps": tokens / 2**21,
            "first_batch": 2.0**20, "second_batch": 2.0**21, "difference": 0.0,
        }
    )  # fmt: skip
    return frame.assign(difference=predicted_difference(frame, surface, 3e6 * (tokens / 1e10) ** exponent))


def test_a_doubled_batch_moves_the_optimum_down(pairs: pd.DataFrame) -> None:
    shift = optimum_shift(pairs)
    low, high = shift.interval()
    assert low < shift.ratio == pytest.approx(shift.second.x_opt / shift.first.x_opt)
    assert shift.ratio < high < 0.95
    # not an effect of the learning rates, which differ in the largest pairs
    same = optimum_shift(pairs[pairs["same_learning_rate"]])
    assert same.interval()[1] < 0.95
    assert abs(np.log(same.ratio / shift.ratio)) < 0.05


@given(st.floats(0.5, 2.0), st.floats(0.0, 0.3))
def test_parabolas_with_one_scatter_have_an_exact_shift(ratio: float, higher: float) -> None:
    """A shift in log N with the same residuals on both sides is found exactly, and all resamples agree."""
    z = np.linspace(-0.6, 0.6, 15)
    scatter = 0.002 * np.sin(9 * z)
    move = np.log10(ratio)
    first = 2.7 + 0.3 * z**2 + scatter
    # a tilt and a constant move a parabola without touching its residuals
    second = first - 2 * 0.3 * move * z + higher
    frame = pd.DataFrame({"num_params": 1e9 * 10**z, "first_loss": first, "second_loss": second})
    shift = optimum_shift(frame, num_resamples=200)
    curvature = shift.first.fit.law.quadratic if shift.first.fit else np.nan
    assert np.log10(shift.ratio) == pytest.approx(0.3 * move / curvature, abs=1e-9)
    low, high = shift.interval()
    # resampled curvatures differ by the scatter, the shift by nothing else
    assert abs(np.log10(high / low)) <= 0.1 * abs(move) + 1e-9


def test_windows_around_the_optimum(pairs: pd.DataFrame) -> None:
    found = shifts_by_window(pairs, [0.01, 0.3, 10], num_resamples=200)
    assert found["decades"].tolist() == [0.3, 10]  # no five pairs within 0.01 decades
    assert found["num_pairs"].iloc[1] == len(pairs) > found["num_pairs"].iloc[0] > 5
    assert found["ratio"].iloc[1] == optimum_shift(pairs, 1).ratio
    # nearer the optimum the shift is smaller, but still there
    assert found["ratio"].iloc[1] < found["ratio"].iloc[0] < found["high"].iloc[0] < 0.95


def test_an_optimum_that_is_not_there(pairs: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="shift of the optimum: 4 pairs; at least 5"):
        optimum_shift(pairs.iloc[:4])
    with pytest.raises(InputError, match="second batch: the curvature is not positive"):
        optimum_shift(pairs.assign(second_loss=-pairs["first_loss"]))


def test_the_change_of_an_exponent_is_that_of_a_refit() -> None:
    """Moving every size of one budget by a factor moves its optimum by that factor."""
    runs = isoflop_runs(load_paper_runs(), "xlstm", 8192)
    moved = runs.assign(num_params=np.where(runs["isoflop_budget"] == 1e20, 0.8, 1.0) * runs["num_params"])
    before, after = (
        fit_isoflop(each, budgets=BUDGETS, num_resamples=0).power_law.law.exponent for each in (runs, moved)
    )
    assert exponent_change(runs, 1e20, 0.8, BUDGETS) == pytest.approx(after - before, abs=1e-9)
    assert exponent_change(runs, 1e20, [0.8, 1.0], BUDGETS)[1] == 0
    with pytest.raises(
        InputError, match=r"budget 2e\+20 is not among those of the law: 6e\+18, 1e\+19, 3e\+19, 1e\+20"
    ):
        exponent_change(runs, 2e20, 0.8, BUDGETS)
    with pytest.raises(InputError, match="a power law needs at least two budgets"):
        exponent_change(runs, 1e20, 0.8, [1e20])


def test_a_batch_that_grows_with_compute() -> None:
    """N* = C^0.5 at a fixed batch, times ratio^log2(B) with B = C^0.25."""
    flops = np.array([1e18, 1e20])
    sizes = flops**0.5 * 0.83 ** np.log2(flops**0.25)
    slope = np.diff(np.log(sizes))[0] / np.diff(np.log(flops))[0]
    assert scaled_batch_change(0.83, 0.25) == pytest.approx(slope - 0.5)


@given(st.floats(0, 1e12), st.floats(1e3, 1e8), st.floats(1.01, 64))
def test_the_share_of_tokens(critical: float, first: float, factor: float) -> None:
    """At B = B_crit a run needs twice the tokens of a small batch (arXiv 1812.06162)."""
    share = float(token_share(first, factor * first, critical))
    assert 1 / factor - 1e-12 <= share <= 1
    assert token_share(0, first, first) == 0.5


@pytest.mark.parametrize("surface_of", ["first", "second"])
@given(critical=st.floats(1e4, 1e8), gamma=st.floats(0.4, 1.5))
def test_a_critical_batch_comes_back(surface_of: str, critical: float, gamma: float) -> None:
    surface = LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28, gamma=gamma)
    frame = made_pairs()
    frame["difference"] = predicted_difference(frame, surface, critical, surface_of)  # type: ignore[arg-type]
    found = implied_critical_batch(frame, surface, surface_of)  # type: ignore[arg-type]
    assert found["critical_batch"].to_numpy() == pytest.approx(critical, rel=1e-4)
    assert (found["difference"] < found["limit"]).all()


def test_a_difference_that_no_critical_batch_explains() -> None:
    frame = made_pairs(4)
    frame["difference"] = [0.0, -0.01, 1.01 * predicted_difference(frame, SURFACE, 0.0)[2], 5.0]
    found = implied_critical_batch(frame, SURFACE)
    assert found["critical_batch"].isna().all()
    with pytest.raises(InputError, match="surface_of 'both' is neither 'first' nor 'second'"):
        predicted_difference(frame, SURFACE, 1e6, "both")  # type: ignore[arg-type]


@given(st.floats(0.0, 1.5))
def test_a_power_law_of_the_critical_batch_comes_back(exponent: float) -> None:
    frame = made_pairs(exponent=exponent)
    found = fit_critical_batch(frame, SURFACE, num_resamples=2)
    assert found.exponent == pytest.approx(exponent, abs=1e-4)
    assert found.predict(1e10) == pytest.approx(3e6, rel=1e-4)
    held = fit_critical_batch(frame, SURFACE, exponent=exponent, num_resamples=2)
    assert held.fixed_exponent
    assert held.interval("exponent") == (exponent, exponent)
    assert held.predict(1e10) == pytest.approx(3e6, rel=1e-4)


def test_the_critical_batch_of_the_logs(pairs: pd.DataFrame) -> None:
    """With equal learning rates the exponent of D holds the published 0.46; with all pairs it does not."""
    from companion.fitting import fit

    runs = load_paper_runs().query("architecture == 'xlstm' and context_length == 8192 and batch_size_seqs == 128")
    law = fit(LossSurface, runs, gamma=1).law
    assert isinstance(law, LossSurface)
    same = pairs[pairs["same_learning_rate"]]
    found = fit_critical_batch(same, law, num_resamples=200)
    low, high = found.interval("exponent")
    assert 0.1 < low < 0.46 < high < 0.7
    assert found.residual_deviation < 0.3 * same["difference"].std()
    assert 2e6 < found.at_reference < 5e6
    assert fit_critical_batch(pairs, law, num_resamples=200).interval("exponent")[0] > 0.5
    with pytest.raises(InputError, match="critical batch: 3 pairs; at least 4"):
        fit_critical_batch(pairs.iloc[:3], law)
