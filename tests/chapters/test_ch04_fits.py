"""The fits that chapter 4 makes to parts of its tables, on runs of a known law."""

import numpy as np
import pandas as pd
import pytest
from simulated_tables import TWO_DESIGNS, two_designs

from companion.chapters import ch04
from companion.chapters.applicability import LAW_RUNS
from companion.errors import NotApplicable
from companion.fitting.fit import fit
from companion.laws import LossSurface

NAME = "xlstm"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return two_designs().assign(architecture=NAME, context_length=8192)


def test_designs_with_too_few_runs_are_left_out(table: pd.DataFrame) -> None:
    short = table.iloc[np.r_[0:24, 24 : 24 + LAW_RUNS - 1]]
    parts = ch04.large_designs({NAME: table, "other": short})
    assert {name: {design: len(part) for design, part in each.items()} for name, each in parts.items()} == {
        NAME: {"all": 36, "isoflop": 24, "tokenparam": 12},
        "other": {"all": 24 + LAW_RUNS - 1, "isoflop": 24},
    }


def test_both_forms_are_fitted_to_each_design(table: pd.DataFrame) -> None:
    by_form = ch04.fits_by_form({NAME: {"isoflop": table.iloc[:24], "all": table}}, 1e-3)
    assert list(by_form) == [(NAME, design, form) for design in ("isoflop", "all") for form in ("γ free", "γ = 1")]
    assert by_form[NAME, "all", "γ = 1"].law.gamma == 1 != by_form[NAME, "all", "γ free"].law.gamma
    assert by_form[NAME, "isoflop", "γ = 1"].num_rows == 24
    assert ch04.main_form(by_form, None)[NAME]["all"] is by_form[NAME, "all", "γ free"]
    assert ch04.main_form(by_form, 1.0)[NAME]["isoflop"] is by_form[NAME, "isoflop", "γ = 1"]


def test_a_wrong_loss_moves_alpha_and_the_prediction(table: pd.DataFrame) -> None:
    target = {"num_params": 1e10, "num_tokens": 1e12}
    shifts = ch04.wrong_loss(table, [0.1], [np.inf], 1.0, target).set_index(["run", "excess"])
    assert set(shifts.index) == {(run, x) for run in ("median compute", "most compute") for x in (0.0, 0.1)}
    assert shifts.loc[("most compute", 0.0), ["alpha", "loss"]].tolist() == [0, 0]
    most = table["train_flops"].idxmax()
    raised = table["val_loss"].where(table.index != most, 1.1 * table["val_loss"])
    laws = [
        fit(LossSurface, table.assign(val_loss=loss), gamma=1.0, huber_delta=np.inf).law
        for loss in (raised, table["val_loss"])
    ]
    moved = laws[0].alpha - laws[1].alpha, laws[0].predict(**target) - laws[1].predict(**target)
    assert shifts.loc[("most compute", 0.1), ["alpha", "loss"]].tolist() == pytest.approx(moved, rel=1e-4)


def test_a_fixed_gamma_has_no_profile(table: pd.DataFrame) -> None:
    fits = {NAME: fit(LossSurface, table, gamma=1.0)}
    profiles = ch04.profiles_of(fits, 1.0, num_points=5)
    assert list(profiles) == ["E", "alpha", "beta"]
    assert list(profiles["E"]) == [NAME]
    free = ch04.profiles_of({NAME: fit(LossSurface, table)}, None, num_points=3)
    assert list(free) == ["E", "alpha", "beta", "gamma"]


def test_runs_at_the_target_are_withheld_and_the_rest_is_resampled(table: pd.DataFrame) -> None:
    target = table.iloc[-1][["num_params", "num_tokens"]].to_dict()
    hidden, seen = ch04.withhold({NAME: table}, target)
    assert hidden[NAME].index.tolist() == [35]
    assert seen[NAME].index.tolist() == list(range(35))
    held = ch04.resampled_designs(seen, {"gamma": 1.0, "huber_delta": 0.01}, 4, seed=0)
    assert list(held) == [(NAME, "all"), (NAME, "isoflop"), (NAME, "tokenparam")]
    found = held[NAME, "all"]
    assert (found.fit.num_rows, found.fit.law.gamma, found.fit.huber_delta) == (35, 1, 0.01)
    ours = fit(LossSurface, seen[NAME], gamma=1.0, huber_delta=0.01).bootstrap(4, seed=0, cluster="num_params")
    np.testing.assert_array_equal(found.theta, ours.theta)


def test_optima_of_the_law_and_of_parabolas(table: pd.DataFrame) -> None:
    iso = ch04.isoflop_tables({NAME: table}, 8192)
    assert len(iso[NAME]) == 24
    drawn = {NAME: fit(LossSurface, table, gamma=1.0).bootstrap(4, cluster="num_params")}
    implied, measured = ch04.optima_of_both(iso, drawn, num_resamples=4, seed=0)
    truth = [TWO_DESIGNS.optimum(budget)[0] for budget in (6e18, 3e19, 1e20)]
    np.testing.assert_allclose(implied[NAME]["num_params"], truth, rtol=0.2)
    np.testing.assert_allclose(measured[NAME]["num_params"], truth, rtol=0.3)
    with pytest.raises(NotApplicable):
        ch04.isoflop_tables({NAME: table[table["experiment"] == "tokenparam"].drop(columns="isoflop_budget")}, 8192)


def test_designs_get_equal_weight(table: pd.DataFrame) -> None:
    weights = ch04.equal_designs(table)
    assert weights.mean() == pytest.approx(1)
    assert weights.groupby(table["experiment"]).sum().tolist() == pytest.approx([18, 18])
    assert ch04.equal_designs(table.drop(columns="experiment")).eq(1).all()
