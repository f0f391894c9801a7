"""One side of the valley, cubics, and the bias of the trained sizes."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch03.grids import (
    bias_of_trained_sizes,
    one_sided,
    one_sided_table,
    published_surfaces,
    show_bias_of_trained_sizes,
    show_grid_bias,
    show_one_sided,
    show_skews,
    skew_table,
)
from companion.errors import InputError, NotApplicable
from companion.fitting.isoflop.bias import GRIDS, exponent_bias, grid_bias, optimum_bias
from companion.fitting.isoflop.goodness_of_fit import skew
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.isoflop.profiles import IsoflopFit, IsoflopProfile, fit_isoflop, fit_profile
from companion.fitting.isoflop.select import isoflop_runs
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs

MAIN = [6e18, 1e19, 3e19, 1e20]


def exact_profile() -> IsoflopProfile:
    z = np.linspace(-0.5, 0.5, 11)
    return fit_profile(1e19, 1e9 * 10**z, 3 + z**2, np.full(11, 1e19), np.arange(1, 12))


def test_one_side_of_an_exact_parabola_has_the_same_optimum_but_warns() -> None:
    whole = exact_profile()
    for side, reach, number in (("below", 0.0, 6), ("above", 0.0, 6), ("below", -0.05, 5), ("above", 0.25, 8)):
        part = one_sided(whole, side, reach)  # type: ignore[arg-type]
        assert part.fit is not None
        assert part.x.size == number
        assert part.fit.law.x_opt == pytest.approx(1e9)
        assert bool(part.warnings) == (reach < 0.1), (side, reach)
    assert one_sided(whole, "above").weights.tolist() == [6, 7, 8, 9, 10, 11]


def test_no_side_to_take() -> None:
    z = np.linspace(-0.5, 0.5, 11)
    hill = fit_profile(1e19, 1e9 * 10**z, 3 - z**2, np.full(11, 1e19))
    with pytest.raises(InputError, match=r"budget 1e\+19 has no optimum"):
        one_sided(hill, "below")
    with pytest.raises(InputError, match="no size below the optimum"):
        one_sided(exact_profile(), "below", -2.0)


@pytest.fixture(scope="module")
def xlstm() -> pd.DataFrame:
    return isoflop_runs(load_paper_runs(), "xlstm", 8192)


@pytest.fixture(scope="module")
def fits(xlstm: pd.DataFrame) -> dict[tuple[str, str], IsoflopFit]:
    return {("xlstm", x): fit_isoflop(xlstm, x, num_resamples=0) for x in ("num_params", "num_tokens")}


def test_table_of_one_side(fits: dict[tuple[str, str], IsoflopFit]) -> None:
    table, profiles = one_sided_table(fits), fits["xlstm", "num_params"].optima
    assert len(table) == 2 * len(profiles)
    for profile, (_, rows) in zip(profiles, table.groupby("isoflop_budget"), strict=True):
        assert rows["runs"].sum() == len(profile.x)
        for side, row in zip(("below", "above"), rows.to_dict("records"), strict=True):
            assert row["x_opt"] == one_sided(profile, side).fit.law.x_opt  # type: ignore[arg-type,union-attr]
            assert row["moved"] == pytest.approx(row["x_opt"] / profile.x_opt - 1)
            assert not any(sign.isdigit() for sign in row["warning"])
    assert "only below" in show_one_sided(table).markup
    two_sizes = np.array([0.5e9, 1e9, 2e9])
    thin = fit_isoflop(
        pd.concat(
            pd.DataFrame({"isoflop_budget": c, "train_flops": c, "num_params": two_sizes, "num_tokens": c / two_sizes})
            .assign(val_loss=[3.1, 3.0, 3.1])
            for c in (1e19, 1e20)
        ),
        num_resamples=0,
    )  # fmt: skip
    with pytest.raises(NotApplicable, match="enough sizes on one side"):
        one_sided_table({("xlstm", "num_params"): thin})
    with pytest.raises(NotApplicable, match="more than four different sizes"):
        skew_table({("xlstm", "num_params"): thin})


def test_table_of_cubics(fits: dict[tuple[str, str], IsoflopFit]) -> None:
    table = skew_table(fits)
    for profile, row in zip(fits["xlstm", "num_params"].optima, table.to_dict("records"), strict=True):
        assert (row["p_value"], row["x_opt"]) == pytest.approx(tuple(vars(skew(profile)).values()), nan_ok=True)
        assert row["parabola"] == profile.x_opt
    assert "xLSTM" in show_skews(table).markup


def test_published_surfaces_are_named_by_their_runs() -> None:
    surfaces = published_surfaces()
    assert len(surfaces) >= 2
    assert all(name.split(",")[0] in ("xLSTM", "Transformer") and "γ" in name for name in surfaces)
    assert all((law.gamma == 1) == name.endswith("= 1") for name, law in surfaces.items())


def test_bias_without_noise(xlstm: pd.DataFrame) -> None:
    surfaces = {"even": LossSurface(E=1.7, A=400, B=400, alpha=0.3, beta=0.3), **published_surfaces()}
    joint = {("xlstm", "num_params"): fit_isoflop_joint(xlstm, budgets=MAIN)}
    table = bias_of_trained_sizes(surfaces, {"xlstm": xlstm}, {"xlstm": MAIN}, joint)
    assert set(table["surface"]) == {"even", *(name for name in published_surfaces() if name.startswith("xLSTM"))}
    sizes = {c: xlstm.loc[xlstm["isoflop_budget"] == c, "num_params"] for c in MAIN}
    assert table.loc[0, "num_params"] == pytest.approx(exponent_bias(surfaces["even"], sizes))
    assert (table["error"] == joint["xlstm", "num_params"].exponent_standard_error).all()
    assert "xLSTM" in show_bias_of_trained_sizes(table).markup
    flops = [1e19, 1e20]
    text = show_grid_bias(surfaces, {name: grid_bias(law, flops) for name, law in surfaces.items()}).markup
    below = optimum_bias(surfaces["even"], 1e19, GRIDS["only below"].num_params(surfaces["even"], 1e19))
    assert f">{100 * (10**below - 1):+.1f}".replace("-", "−") in text
    assert "h\u00a0=\u00a01.15" in text
