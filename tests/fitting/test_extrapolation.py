"""Extrapolation: an exact law extrapolates exactly, runs are split at the cut-off, optima are found along profiles."""

import numpy as np
import pandas as pd
import pytest
from simulated_tables import CHINCHILLA, simulated

from companion.errors import InputError
from companion.fitting.extrapolation import compare_optima, default_cutoffs, extrapolate, optimum_on_profile
from companion.runs.load import load_paper_runs
from companion.runs.select import subset


def test_an_exact_law_extrapolates_exactly() -> None:
    table = simulated(CHINCHILLA, 0.0, 0)
    for step in extrapolate(table, default_cutoffs(table), gamma=1.0):
        assert np.abs(step.errors["log_error"]).max() < 1e-5
        assert step.summary()["status"] == "converged"


def test_runs_are_split_at_the_cutoff() -> None:
    table = simulated(CHINCHILLA, 0.01, 0)
    [step] = extrapolate(table, [1e21])
    above = table["train_flops"] > 1e21
    assert step.fit.num_rows == (~above).sum()
    assert len(step.errors) == above.sum() == step.summary()["num_predicted"]
    assert (step.errors["decades"] > 0).all()
    expected = np.log(step.errors["predicted_loss"] / step.errors["val_loss"])
    np.testing.assert_allclose(step.errors["log_error"], expected)


def test_errors_grow_with_distance_on_the_papers_runs() -> None:
    runs = subset(load_paper_runs(), "transformer", 8192)
    far, near = (step.summary()["rms_log_error"] for step in extrapolate(runs, [2.5e19, 6.9e21]))
    assert far > near


def test_default_cutoffs_leave_enough_on_both_sides() -> None:
    for name in ("transformer", "xlstm"):
        runs = subset(load_paper_runs(), name, 8192)
        cutoffs = default_cutoffs(runs)
        assert cutoffs == sorted(cutoffs)
        assert (runs["train_flops"] <= cutoffs[0]).sum() >= 15
        assert (runs["train_flops"] > cutoffs[-1]).sum() >= 1


def profiles(budgets: tuple[float, ...]) -> pd.DataFrame:
    tables = []
    for budget in budgets:
        size = CHINCHILLA.optimum(budget)[0] * 10 ** np.linspace(-0.5, 0.5, 21)
        tokens = budget / 6 / size
        columns = {"isoflop_budget": budget, "train_flops": budget, "num_params": size, "num_tokens": tokens}
        tables.append(pd.DataFrame(columns).assign(val_loss=CHINCHILLA.predict(size, tokens)))
    return pd.concat(tables, ignore_index=True)


def test_optimum_on_a_profile_is_the_closed_form() -> None:
    runs = profiles((1e20,))
    assert optimum_on_profile(CHINCHILLA, runs) == pytest.approx(CHINCHILLA.optimum(1e20)[0], rel=1e-3)
    assert np.isnan(optimum_on_profile(CHINCHILLA, runs.nlargest(8, "num_params")))


def test_optima_of_withheld_budgets() -> None:
    table = compare_optima(profiles((1e19, 1e20, 1e21, 1e22)), gamma=1.0)
    assert list(zip(table["highest_fitted_budget"], table["isoflop_budget"], strict=True)) == [
        (1e20, 1e21),
        (1e20, 1e22),
        (1e21, 1e22),
    ]
    truth = [CHINCHILLA.optimum(budget)[0] for budget in table["isoflop_budget"]]
    np.testing.assert_allclose(table["parametric"], truth, rtol=0.01)
    np.testing.assert_allclose(table["parabola"], truth, rtol=0.15)  # parabolas of an asymmetric profile are biased


def test_bad_input() -> None:
    table = simulated(CHINCHILLA, 0.01, 0)
    with pytest.raises(InputError, match=r"no run lies above the cut-off 1e\+30"):
        extrapolate(table, [1e30])
    with pytest.raises(InputError, match=r"below the cut-off 1e\+10: fit: 0 runs"):
        extrapolate(table, [1e10])
    with pytest.raises(InputError, match="at least 16"):
        default_cutoffs(table.head(10))
    with pytest.raises(InputError, match="2 budgets; at least 3"):
        compare_optima(profiles((1e19, 1e20)))
