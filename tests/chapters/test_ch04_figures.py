"""Figures of chapter 4 carry the data they should."""

import numpy as np
import pandas as pd
import pytest

from companion.chapters.ch04 import figures, reach_figures
from companion.fitting.diagnostics import designs
from companion.fitting.fit import Fit, fit
from companion.fitting.likelihood import profile
from companion.fitting.uncertainty import Bootstrap
from companion.laws import LossSurface
from companion.plotting.style import LABELS

NAME = "xlstm"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    law = LossSurface(E=1.7, A=400.0, B=500.0, alpha=0.34, beta=0.3)
    runs = pd.DataFrame([(n, d) for n in np.geomspace(1e8, 7e9, 5) for d in np.geomspace(2e9, 1e12, 5)])
    runs.columns = pd.Index(["num_params", "num_tokens"])
    noise = np.random.default_rng(1).normal(0, 0.002, len(runs))
    runs["val_loss"] = law.predict(runs["num_params"], runs["num_tokens"]) * np.exp(noise)
    runs["train_flops"] = 6 * runs["num_params"] * runs["num_tokens"]
    return runs.assign(experiment=np.where(runs["num_tokens"] < 1e11, "isoflop", "tokenparam"))


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame) -> Fit:
    return fit(LossSurface, table, gamma=1.0)


@pytest.fixture(scope="module")
def resamples(fitted: Fit) -> Bootstrap:
    return fitted.bootstrap(30)


def test_contours(fitted: Fit, table: pd.DataFrame) -> None:
    [ax] = figures.loss_contours({NAME: fitted}, {NAME: table}, {NAME: 6.0}).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == (LABELS["num_params"], LABELS["num_tokens"])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    *designs_drawn, path = ax.lines
    assert sum(len(line.get_xdata()) for line in designs_drawn) == len(table)
    n, d = path.get_xdata(), path.get_ydata()
    best = fitted.law.optimum(6 * n[0] * d[0])
    assert best[0] == pytest.approx(n[0])
    assert len(ax.texts) > 2  # the levels, beside the right edge
    assert {text.xy[0] for text in ax.texts} == {ax.get_xlim()[1]}


def test_contours_without_designs(fitted: Fit, table: pd.DataFrame) -> None:
    [ax] = figures.loss_contours({NAME: fitted}, {NAME: table.drop(columns="experiment")}, {NAME: 6.0}).axes
    assert len(ax.lines[0].get_xdata()) == len(table)


def test_outlier_influence() -> None:
    shifts = pd.DataFrame(
        [(run, d, x, x * 2) for run in ("a", "b") for d in (1e-3, np.inf) for x in (0, 0.1)],
        columns=["run", "huber_delta", "excess", "loss"],
    )
    figure = figures.outlier_influence(shifts, {"loss": "change of loss (nats/token)"})
    assert [ax.get_title() for ax in figure.axes] == ["run of a", "run of b"]
    both = figures.outlier_influence(shifts.assign(alpha=0.0), {"alpha": "change of α", "loss": "change of loss"})
    assert [ax.get_title() for ax in both.axes] == ["run of a", "run of b"] * 2
    assert [line.get_label() for line in figure.axes[0].lines] == ["δ = 0.001", "δ = ∞ (least squares)"]


def test_misfit_slices(fitted: Fit) -> None:
    misfit = np.array([[3.0, 2.0], [1.0, np.inf]])
    [ax] = figures.misfit_slices({NAME: misfit}, [0.2, 0.4], [0.1, 0.3], {NAME: fitted}).axes
    cross, marker = ax.lines
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (0.4, 0.1)
    assert (marker.get_xdata()[0], marker.get_ydata()[0]) == (fitted.law.alpha, fitted.law.beta)


def test_residuals(fitted: Fit, table: pd.DataFrame) -> None:
    [ax] = figures.residuals_over_compute({NAME: fitted}, {NAME: table}).axes
    drawn = np.concatenate([line.get_ydata() for line in ax.lines[:2]])
    np.testing.assert_allclose(np.sort(drawn), np.sort(np.exp(fitted.residuals) - 1))  # a ratio, not its logarithm
    assert ax.get_xlabel() == LABELS["train_flops"]


def test_profiles(fitted: Fit) -> None:
    curves = {p: {NAME: profile(fitted, p, num_points=21)} for p in ("E", "alpha")}
    intervals = {p: {NAME: {"runs": (0.3, 0.4), "sizes": (0.2, 0.5)}} for p in curves}
    left, right = figures.profiles(curves, intervals).axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("E (nats/token)", "α")
    curve, points, first, second, threshold = left.lines
    assert len(points.get_xdata()) < len(curve.get_xdata())
    assert (list(first.get_xdata()), list(second.get_xdata())) == ([0.3, 0.4], [0.2, 0.5])
    assert threshold.get_ydata()[0] == pytest.approx(3.84, abs=0.01)


def test_correlations(fitted: Fit) -> None:
    [ax] = figures.correlation_maps({NAME: fitted.correlations}).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["E", "log A", "log B", "α", "β"]
    assert len(ax.texts) == 25
    assert not any("-" in text.get_text() for text in ax.texts)


def test_bands(resamples: Bootstrap, table: pd.DataFrame) -> None:
    hidden = table.tail(1)
    [ax] = reach_figures.bands({NAME: resamples}, {NAME: table.iloc[:-1]}, {NAME: hidden}, 7e9, 1e12).axes
    _law, fitted, withheld = ax.lines
    assert len(fitted.get_xdata()) == 4
    assert withheld.get_ydata()[0] == hidden["val_loss"].iloc[0]
    assert len(ax.collections) == 2
    assert ax.get_ylabel() == LABELS["val_loss"]


def test_optima() -> None:
    rows = pd.DataFrame({"train_flops": [1e19, 1e20], "num_params": [2e8, 7e8]})
    rows = rows.assign(num_params_low=rows["num_params"] * 0.9, num_params_high=rows["num_params"] * 1.1)
    [ax] = reach_figures.optima_over_compute({NAME: rows}, {NAME: rows}, ["num_params"]).axes
    assert ax.get_ylabel() == "optimal parameters N*"
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert len(ax.containers) == 2


def test_extrapolation() -> None:
    rows = pd.DataFrame({"decades": [2.0, 1.0], "log_error": [0.1, 0.05]})
    [ax] = reach_figures.extrapolation_errors({(NAME, "γ free"): rows, (NAME, "γ = 1"): rows}).axes
    assert list(ax.lines[0].get_xdata()) == [1.0, 2.0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.exp([0.05, 0.1]) - 1)
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()


def test_designs(fitted: Fit, table: pd.DataFrame) -> None:
    parts = designs(table)
    figure = reach_figures.design_disagreement({NAME: dict.fromkeys(parts, fitted)}, {NAME: parts}, 20.0, {NAME: 6.0})
    [ax] = figure.axes
    thin, thick = ax.lines[1], ax.lines[2]
    np.testing.assert_allclose(thin.get_ydata(), 0, atol=1e-12)
    own = parts["isoflop"]["train_flops"]
    assert thick.get_xdata().min() >= own.min()
    assert thick.get_xdata().max() <= own.max()
