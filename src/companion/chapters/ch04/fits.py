"""The fits of chapter 4: to designs, with one wrong run, to what is left without a target, with weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from companion.chapters.applicability import LAW_RUNS, need_profiles
from companion.chapters.ch04.analysis import near_target, parabola_optima
from companion.chapters.ch04.shown import Fits, Tables
from companion.fitting.diagnostics import designs, optima_by_budget, outlier_shifts, typical_runs
from companion.fitting.fit import Fit, fit
from companion.fitting.isoflop import isoflop_groups, isoflop_runs
from companion.fitting.likelihood import Profile, profile
from companion.fitting.uncertainty import Bootstrap
from companion.laws import LossSurface

#: Forms of the law by the value of gamma that they fix; None: it is fitted.
FORMS: Mapping[str, float | None] = {"γ free": None, "γ = 1": 1.0}


def large_designs(tables: Tables) -> dict[str, dict[str, pd.DataFrame]]:
    """By architecture, then by design: all runs, and those of each design that has enough runs for a law."""
    return {
        name: {design: part for design, part in designs(table).items() if len(part) >= LAW_RUNS}
        for name, table in tables.items()
    }


def fits_by_form(
    parts: Mapping[str, Mapping[str, pd.DataFrame]], huber_delta: float
) -> dict[tuple[str, str, str], Fit]:
    """Fits by architecture, design and form of the law (`FORMS`).

    Parameters
    ----------
    parts
        of `large_designs`.
    """
    return {
        (name, design, form): fit(LossSurface, part, gamma=gamma, huber_delta=huber_delta)
        for name, by_design in parts.items()
        for design, part in by_design.items()
        for form, gamma in FORMS.items()
    }


def main_form(by_form: Mapping[tuple[str, str, str], Fit], gamma: float | None) -> dict[str, dict[str, Fit]]:
    """Those of `fits_by_form` whose form is that of the chapter's main fits, by architecture, then by design."""
    chosen: dict[str, dict[str, Fit]] = {}
    for (name, design, form), fitted in by_form.items():
        if form == ("γ free" if gamma is None else "γ = 1"):
            chosen.setdefault(name, {})[design] = fitted
    return chosen


def wrong_loss(
    runs: pd.DataFrame,
    excess: Sequence[float],
    deltas: Sequence[float],
    gamma: float | None,
    target: Mapping[str, float],
) -> pd.DataFrame:
    """By how much one wrong loss moves `alpha` and the predicted `loss` at a target.

    Returns
    -------
    DataFrame
        of `companion.fitting.diagnostics.outlier_shifts`, for each of `typical_runs`.

    Parameters
    ----------
    excess
        shares by which the loss of one run is raised.
    target
        `num_params` and `num_tokens` of the model whose loss is predicted.
    """
    readings = {"alpha": lambda law: law.alpha, "loss": lambda law: law.predict(**target)}
    return outlier_shifts(runs, typical_runs(runs), excess, deltas, gamma, readings)


def profiles_of(fits: Fits, gamma: float | None, num_points: int = 41) -> dict[str, dict[str, Profile]]:
    """Profile likelihoods by parameter, then by architecture; without gamma where it is fixed."""
    keys = ("E", "alpha", "beta", "gamma") if gamma is None else ("E", "alpha", "beta")
    return {key: {name: profile(each, key, num_points=num_points) for name, each in fits.items()} for key in keys}


def withhold(tables: Tables, target: Mapping[str, float]) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """The runs at a target, and all others, each by architecture."""
    hidden = {name: table[near_target(table, **target)] for name, table in tables.items()}
    return hidden, {name: table.drop(hidden[name].index) for name, table in tables.items()}


def resampled_designs(
    tables: Tables, settings: Mapping[str, Any], num_resamples: int, seed: int
) -> dict[tuple[str, str], Bootstrap]:
    """Bootstrap over model sizes of the fit to each of `large_designs`, by architecture and design.

    Parameters
    ----------
    settings
        options of `companion.fitting.fit.fit`.
    """
    return {
        (name, design): fit(LossSurface, part, **settings).bootstrap(num_resamples, seed=seed, cluster="num_params")
        for name, parts in large_designs(tables).items()
        for design, part in parts.items()
    }


def optima_of_both(
    iso: Tables, by_sizes: Mapping[str, Bootstrap], num_resamples: int, seed: int
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """The optimum of every budget by the law and by parabolas, each by architecture.

    Parameters
    ----------
    iso
        of `isoflop_tables`.
    by_sizes
        bootstrap of the law over model sizes.
    """
    implied = {name: optima_by_budget(by_sizes[name], isoflop_groups(runs, "num_params")) for name, runs in iso.items()}
    return implied, {name: parabola_optima(runs, num_resamples, seed) for name, runs in iso.items()}


def isoflop_tables(tables: Tables, context_length: int | None) -> dict[str, pd.DataFrame]:
    """The IsoFLOP runs by architecture.

    Raises
    ------
    NotApplicable
        if a table has no IsoFLOP profiles.
    """
    for table in tables.values():
        need_profiles(table)
    return {name: isoflop_runs(table, name, context_length) for name, table in tables.items()}


def equal_designs(table: pd.DataFrame) -> pd.Series:
    """Weights that give every design of a table the same total; mean 1; equal weights where it has no designs."""
    weights = pd.Series(1.0, index=table.index)
    if "experiment" in table:
        weights /= table.groupby("experiment")["experiment"].transform("size")
    return weights * len(weights) / weights.sum()
