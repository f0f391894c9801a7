"""Figures of the IsoFLOP chapter carry their data, on axes with units."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from companion.chapters.ch03.choices import exponent_choices
from companion.chapters.ch03.figures import (
    exponent_forest,
    isoflop_profiles,
    law_residuals,
    power_laws,
    show_law_residuals,
    show_power_laws,
    show_profiles,
)
from companion.chapters.ch03.grid_figures import (
    noise_free_bias,
    one_sided_profiles,
    show_noise_free_bias,
    show_one_sided_profiles,
)
from companion.fitting.isoflop.bias import GRIDS
from companion.fitting.isoflop.joint import fit_isoflop_joint
from companion.fitting.isoflop.profiles import IsoflopFit, fit_isoflop
from companion.fitting.isoflop.select import isoflop_runs
from companion.laws import LossSurface
from companion.runs.load import load_paper_runs

NAMES, X = ("transformer", "xlstm"), ("num_params", "num_tokens")
MAIN = (6e18, 1e19, 3e19, 1e20)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    runs = load_paper_runs()
    return {name: isoflop_runs(runs, name, 8192) for name in NAMES}


@pytest.fixture(scope="module")
def fits(tables: dict[str, pd.DataFrame]) -> dict[tuple[str, str], IsoflopFit]:
    return {(name, x): fit_isoflop(tables[name], x, num_resamples=0) for name in NAMES for x in X}


def points(ax: Axes, marker: str) -> int:
    return sum(len(np.atleast_1d(line.get_xdata())) for line in ax.lines if line.get_marker() == marker)


def test_profiles(fits: dict[tuple[str, str], IsoflopFit], tables: dict[str, pd.DataFrame]) -> None:
    figure = isoflop_profiles({name: fits[name, "num_params"] for name in NAMES})
    for name, ax in zip(NAMES, figure.axes, strict=True):
        drawn = sum(points(ax, marker) for marker in ("o", "s", "^", "D", "v"))
        assert drawn == len(tables[name])
        assert points(ax, "d") == tables[name]["isoflop_budget"].nunique()
        assert ax.get_xscale() == "log"
        assert ax.get_xlabel() == "parameters N"
        beside = [text.get_text() for text in ax.texts]
        assert beside[:2] == ["6×10¹⁸", "1×10¹⁹"]
        assert len(beside) == tables[name]["isoflop_budget"].nunique()
        assert ax.texts[0].get_horizontalalignment() == "right"  # the next valley ends close to this one
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert "nats/token" in figure.axes[0].get_ylabel()
    [legend] = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "95 %" in legend


def test_power_laws(fits: dict[tuple[str, str], IsoflopFit], tables: dict[str, pd.DataFrame]) -> None:
    joints = {key: fit_isoflop_joint(tables[key[0]], key[1], budgets=MAIN) for key in fits}
    used = dict.fromkeys(NAMES, MAIN)
    sizes, tokens = power_laws(fits, joints, used).axes
    assert sizes.get_xscale() == sizes.get_yscale() == "log"
    assert "(FLOP)" in sizes.get_xlabel()
    assert "N*" in sizes.get_ylabel()
    assert "D*" in tokens.get_ylabel()
    hollow = [line for line in sizes.lines if line.get_markerfacecolor() == "none"]
    assert len(hollow) == 1, "the budget 6e20 took no part"
    assert float(np.atleast_1d(hollow[0].get_xdata())[0]) == pytest.approx(6.02e20, rel=1e-2)
    assert len({line.get_linestyle() for line in sizes.lines if len(np.atleast_1d(line.get_xdata())) > 2}) == 2
    below, _ = law_residuals(fits, joints, used).axes
    assert "%" in below.get_ylabel()
    best = fits["xlstm", "num_params"].optima[-1]
    off = best.x_opt / float(joints["xlstm", "num_params"].law.predict(best.mean_train_flops)) - 1
    hollow = [line for line in below.lines if line.get_markerfacecolor() == "none"]
    assert float(np.atleast_1d(hollow[0].get_ydata())[0]) == pytest.approx(off)
    assert len(below.collections) >= 2, "a band per architecture"
    for show_it, name in ((show_power_laws, "power-laws"), (show_law_residuals, "law-residuals")):
        assert f'id="fig-isoflop-{name}"' in show_it(fits, joints, used).markup


def test_forest(tables: dict[str, pd.DataFrame]) -> None:
    choices = {
        (name, x): exponent_choices(tables[name], x, budgets=MAIN, num_resamples=20) for name in NAMES for x in X
    }
    figure = exponent_forest(choices)
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert set(rows) == set(choices["xlstm", "num_params"]["choice"])
    assert points(figure.axes[0], "s") == len(choices["transformer", "num_params"])
    assert points(figure.axes[0], "o") == len(choices["xlstm", "num_params"])
    low, high = figure.axes[0].get_xlim()
    for name in NAMES:
        assert choices[name, "num_params"]["exponent"].between(low, high).all()
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1], "the first choice is on top"


def test_one_sided(fits: dict[tuple[str, str], IsoflopFit]) -> None:
    profiles = {name: fits[name, "num_params"].optima[3] for name in NAMES}
    figure = one_sided_profiles(profiles)
    for name, ax in zip(NAMES, figure.axes, strict=True):
        legend = ax.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["all sizes", "only below", "only above"]
        assert points(ax, {"transformer": "s", "xlstm": "o"}[name]) == profiles[name].x.size
        assert "1×10²⁰ FLOP" in ax.get_title()


def test_noise_free() -> None:
    surfaces = {
        "skewed": LossSurface(E=1, A=400, B=2000, alpha=0.25, beta=0.4),
        "even": LossSurface(E=1, A=400, B=400, alpha=0.3, beta=0.3),
    }
    figure = noise_free_bias(surfaces, 1e20, ["symmetric", "only below"], GRIDS)
    left, right = figure.axes
    assert points(left, "d") == 2
    at, high = float(np.ptp(left.get_xlim())), left.get_ylim()
    assert at < 1, "the panel shows the surroundings of the optimum"
    assert all(high[0] < line.get_ydata()[0] < high[1] for line in left.lines if line.get_marker() == "d")
    assert "decades" in left.get_xlabel()
    assert "%" in right.get_ylabel()
    even = next(line for line in right.lines if line.get_label() == "even")
    x, y = np.asarray(even.get_xdata(), dtype=float), np.asarray(even.get_ydata(), dtype=float)
    assert y[np.argmin(np.abs(x))] == pytest.approx(0, abs=1e-9), "no bias in the middle of an even surface"


def test_an_unknown_architecture_is_drawn_too(fits: dict[tuple[str, str], IsoflopFit]) -> None:
    figure = isoflop_profiles({"mamba": fits["xlstm", "num_params"]})
    assert figure.axes[0].get_title() == "mamba"


def test_shown_figures_have_names_and_captions(
    fits: dict[tuple[str, str], IsoflopFit], tables: dict[str, pd.DataFrame]
) -> None:
    surfaces = {
        "even": LossSurface(E=1, A=400, B=400, alpha=0.3, beta=0.3),
        "skewed": LossSurface(E=1, A=400, B=2000, alpha=0.25, beta=0.4),
    }
    shown = [show_profiles(fits), show_one_sided_profiles(fits, 0.0), show_noise_free_bias(surfaces, "even", 1e20)]
    names = ["isoflop-profiles", "isoflop-one-sided", "isoflop-noise-free"]
    for html, name in zip(shown, names, strict=True):
        assert f'id="fig-{name}"' in html.markup
        assert "<figcaption>" in html.markup
