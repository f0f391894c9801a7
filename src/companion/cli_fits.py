"""The commands that fit laws to a run table: `fit`, `overtraining`, `extrapolate`."""

import argparse
import math
import platform
from typing import Any

import numpy as np
import pandas as pd
import scipy

import companion
from companion.cli_commands import print_json, print_table
from companion.errors import InputError
from companion.fitting.extrapolation import compare_optima, default_cutoffs, extrapolate
from companion.fitting.overtraining import fit_overtraining_slopes
from companion.fitting.parametric import NOT_IDENTIFIED, PARAMETERS, fit_parametric
from companion.fitting.uncertainty import bootstrap_parametric
from companion.runs import load_runs, subset


def _runs(arguments: argparse.Namespace) -> pd.DataFrame:
    runs = load_runs(arguments.file)
    return subset(runs, arguments.architecture, arguments.context_length, where=arguments.where)


def fit(arguments: argparse.Namespace) -> None:
    """`companion fit`: the parametric law, its status, and bootstrap intervals."""
    runs = _runs(arguments)
    notes = _mixed(runs)
    try:
        fitted = fit_parametric(
            runs, gamma=arguments.gamma, huber_delta=arguments.huber_delta, weights=arguments.weights
        )
        intervals: dict[str, Any] = dict.fromkeys(PARAMETERS)
        lost, at_bound = 0.0, 0.0
        identified = fitted.status != NOT_IDENTIFIED
        if not identified:
            # along a free direction refits stay where they start: their spread would pass for knowledge
            notes.append(f"no intervals: {fitted.status}, {fitted.status_detail}")
        if arguments.bootstrap and identified:
            resampled = bootstrap_parametric(
                fitted,
                arguments.bootstrap,
                seed=arguments.seed,
                cluster=arguments.cluster,
                num_jobs=arguments.jobs,
                scheduler=arguments.scheduler,
            )
            intervals = {name: resampled.interval(name, arguments.level) for name in PARAMETERS}
            lost, at_bound = resampled.lost, resampled.at_bound
    except InputError as error:
        raise InputError(f"{arguments.file}: {error}") from error
    if at_bound > 0.01:
        notes.append(f"{at_bound:.0%} of the resamples have a parameter at a bound: its interval is cut there")
    if arguments.save:
        fitted.save(arguments.save)
    result = {
        "file": str(arguments.file),
        "parameters": fitted.parameters,
        "intervals": intervals,
        "level": arguments.level,
        "objective": fitted.objective,
        "num_rows": fitted.num_rows,
        "status": fitted.status,
        "status_detail": fitted.status_detail,
        "conditioning": fitted.conditioning,
        "share_of_starts_at_optimum": fitted.share_of_starts_at_optimum,
        "huber_delta": fitted.huber_delta if math.isfinite(fitted.huber_delta) else "inf",
        "gamma_free": fitted.gamma_free,
        "num_resamples": arguments.bootstrap,
        "share_of_lost_resamples": lost,
        "seconds": fitted.seconds,
        "seed": arguments.seed,
        "versions": {
            "companion": companion.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "warnings": notes,
    }
    if arguments.json:
        return print_json(result)
    print(fitted)
    if arguments.bootstrap and identified:
        print(f"{100 * arguments.level:g} % bootstrap intervals ({arguments.bootstrap} resamples):")
        for name, (low, high) in intervals.items():
            print(f"  {name:<6}" + (f"{low:>14.6g} {high:>14.6g}" if math.isfinite(low) else "         none"))
    _print_notes(notes)
    return None


def overtraining(arguments: argparse.Namespace) -> None:
    """`companion overtraining`: loss over compute at each ratio of tokens to parameters, and whether slopes differ."""
    try:
        slopes = fit_overtraining_slopes(_runs(arguments), keep_left_out=arguments.keep_left_out)
    except InputError as error:
        raise InputError(f"{arguments.file}: {error}") from error
    rows = slopes.table().to_dict("records")
    for row, law in zip(rows, slopes.laws.values(), strict=True):
        low, high = law.interval("exponent", arguments.level)
        row["eta_interval"] = (-high, -low)
    result = {
        "file": str(arguments.file),
        "architecture": arguments.architecture,
        "slopes": rows,
        "level": arguments.level,
        "common_eta": slopes.common_eta,
        "common_eta_standard_error": slopes.common_eta_standard_error,
        "parallel_test": {
            "f_statistic": slopes.f_statistic,
            "degrees_of_freedom": slopes.f_degrees,
            "p_value": slopes.p_value,
        },
        "warnings": list(slopes.warnings),
    }
    if arguments.json:
        return print_json(result)
    print_table(slopes.table())
    print(f"common eta {slopes.common_eta:.6f}, standard error {slopes.common_eta_standard_error:.6f}")
    if math.isfinite(slopes.f_statistic):
        print(f"parallel lines: F = {slopes.f_statistic:.3f} on {slopes.f_degrees}, p = {slopes.p_value:.3f}")
    _print_notes(result["warnings"])
    return None


def extrapolation(arguments: argparse.Namespace) -> None:
    """`companion extrapolate`: fit below cut-offs, predict above; optima of withheld budgets where there are any."""
    runs = _runs(arguments)
    notes = _mixed(runs)
    options = {"gamma": arguments.gamma, "weights": arguments.weights}
    try:
        cutoffs = arguments.cutoffs or default_cutoffs(runs)
        rows = [step.summary() for step in extrapolate(runs, cutoffs, huber_delta=arguments.huber_delta, **options)]
    except InputError as error:
        raise InputError(f"{arguments.file}: {error}") from error
    optima = pd.DataFrame()
    try:
        optima = compare_optima(runs, **options)
    except InputError as error:
        notes.append(f"optima not compared: {error}")
    result = {
        "file": str(arguments.file),
        "architecture": arguments.architecture,
        "cutoffs": rows,
        "optima": optima.to_dict("records"),
        "warnings": notes,
    }
    if arguments.json:
        return print_json(result)
    print_table(pd.DataFrame(rows))
    if len(optima):
        print("\noptimal size of withheld budgets (parameters)")
        print_table(optima)
    _print_notes(notes)
    return None


def _mixed(runs: pd.DataFrame) -> list[str]:
    """A note where one law is fitted to runs that hardly share one."""
    notes = []
    for column in ("architecture", "context_length"):
        if column in runs and len(values := sorted(runs[column].dropna().unique())) > 1:
            notes.append(f"one law for several {column} values: {', '.join(map(str, values))}")
    return notes


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        print(f"warning: {note}")
