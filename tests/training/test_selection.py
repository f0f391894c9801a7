"""What keeping the better of two trainings does to fits: order statistics, and biases on a known law."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.errors import InputError
from companion.laws import LossSurface
from companion.training.selection import kept_noise, mean_of_best, selection_bias

LAW = LossSurface(E=2.0, A=400.0, B=400.0, alpha=0.34, beta=0.28)


@pytest.fixture(scope="module")
def design() -> pd.DataFrame:
    rows = []
    for budget in (1e18, 1e19, 1e20):
        for size in LAW.optimum(budget)[0] * np.geomspace(0.3, 3, 9):
            rows.append((size, budget / 6 / size, budget, budget))
    return pd.DataFrame(rows, columns=["num_params", "num_tokens", "train_flops", "isoflop_budget"])


def test_means_of_the_best_are_those_of_order_statistics() -> None:
    """Means of the extremes of 2 to 5 normal numbers (David and Nagaraja, Order Statistics, 2003)."""
    assert mean_of_best(1) == pytest.approx(0, abs=1e-12)
    assert mean_of_best(2) == pytest.approx(-1 / np.sqrt(np.pi))
    assert mean_of_best(3) == pytest.approx(-1.5 / np.sqrt(np.pi))
    assert mean_of_best(5) == pytest.approx(-1.16296, abs=1e-5)
    assert mean_of_best(2, 0.01) == pytest.approx(-0.01 / np.sqrt(np.pi))


@given(seed=st.integers(0, 10**6), best_of=st.integers(1, 4))
def test_a_kept_training_is_never_worse_and_others_are_untouched(seed: int, best_of: int) -> None:
    again = np.arange(30) % 3 == 0
    first, kept = kept_noise(again, 0.01, best_of, np.random.default_rng(seed))
    assert (kept <= first).all()
    assert (kept[~again] == first[~again]).all()
    first, kept = kept_noise(again, 0.01, best_of, np.random.default_rng(seed), only_above=0.005)
    assert (kept[first <= 0.005] == first[first <= 0.005]).all()


def test_the_simulated_shift_is_the_exact_one() -> None:
    again = np.ones(40_000, dtype=bool)
    first, kept = kept_noise(again, 0.01, 2, np.random.default_rng(0))
    assert (kept - first).mean() == pytest.approx(mean_of_best(2, 0.01), abs=2e-4)
    assert kept.std() == pytest.approx(0.01 * np.sqrt(1 - 1 / np.pi), rel=0.02)


def test_picking_all_runs_moves_the_level_and_not_the_shape(design: pd.DataFrame) -> None:
    found = selection_bias(LAW, design, 0.002, num_draws=12)
    shift = mean_of_best(2, 0.002)
    error = found["standard_error"]
    bias = found["selection_bias"]
    assert bias["loss"] == pytest.approx(shift, abs=4 * error["loss"])
    assert bias["least loss"] == pytest.approx(shift, abs=4 * error["least loss"] + 1e-4)
    for name in ("E", "alpha", "beta", "exponent", "log N*"):
        expected = shift if name == "E" else 0
        assert bias[name] == pytest.approx(expected, abs=4 * error[name]), name


def test_picking_large_models_only_moves_the_optimum_up(design: pd.DataFrame) -> None:
    middle = design.groupby("isoflop_budget")["num_params"].transform("median")
    found = selection_bias(LAW, design, 0.002, retrained=design["num_params"] > middle, num_draws=12)
    assert found.loc["log N*", "selection_bias"] > 4 * found.loc["log N*", "standard_error"]
    assert found.loc["loss of the retrained", "selection_bias"] == pytest.approx(mean_of_best(2, 0.002), rel=0.25)


def test_without_noise_nothing_moves(design: pd.DataFrame) -> None:
    found = selection_bias(LAW, design, 0.0, num_draws=2)
    assert found["selection_bias"].abs().max() == 0
    assert found.loc[["loss", "exponent", "least loss"], "first_bias"].abs().max() < 1e-9
    assert found["first_bias"].abs().max() < 1e-3


def test_faults_are_what_selection_is_for(design: pd.DataFrame) -> None:
    found = selection_bias(
        LAW, design, 0.001, fault_share=0.1, fault_size=0.1, only_above=0.05, num_draws=6, seed=1
    ).loc["loss"]
    assert found["first_bias"] > 0.004
    assert abs(found["kept_bias"]) < 0.35 * found["first_bias"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_std": -1.0}, r"selection: noise_std -1 must not be below 0"),
        ({"num_draws": 1}, r"selection: .* num_draws 1 not below 2"),
        ({"best_of": 0}, r"selection: .* best_of 0 not below 1"),
        ({"fault_share": 1.5}, r"selection: .* fault_share 1.5 between 0 and 1"),
        ({"retrained": [True]}, r"retrained: a mask of shape \(1,\) for 27 runs"),
        ({"retrained": [False] * 27}, r"retrained: no run is trained again"),
    ],
)
def test_bad_options_are_named(design: pd.DataFrame, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        selection_bias(LAW, design, **({"noise_std": 0.01} | options))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^best of 0 with noise 1"):
        mean_of_best(0)
    with pytest.raises(InputError, match=r"^runs: column 'train_flops' is missing$"):
        selection_bias(LAW, design.drop(columns="train_flops"), 0.01)
