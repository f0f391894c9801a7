"""The commands that fit laws to a run table: `fit`, `overtraining`, `extrapolate`."""

import argparse
import json
import math
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy

import companion
from companion import fitting
from companion.cli.commands import print_json, print_table
from companion.errors import InputError
from companion.fitting.extrapolation import compare_optima, default_cutoffs, different_cutoffs, extrapolate
from companion.fitting.fit import Fit
from companion.fitting.inputs import check_weights
from companion.fitting.overtraining.exponents import fit_overtraining_slopes
from companion.fitting.solved import OUT_OF_ITERATIONS
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import level_text, percent
from companion.laws import LossSurface
from companion.paths import check_target, write_whole
from companion.runs.load import load_runs
from companion.runs.select import subset


def _runs(arguments: argparse.Namespace) -> pd.DataFrame:
    runs = load_runs(arguments.file)
    return subset(runs, arguments.architecture, arguments.context_length, where=arguments.where)


def fit(arguments: argparse.Namespace) -> None:
    """`companion fit`: the parametric law, its status, and bootstrap intervals."""
    if arguments.save:
        check_target(arguments.save)
    runs = _runs(arguments)
    progress = sys.stderr.isatty()
    try:
        fitted = fitting.fit(
            LossSurface,
            runs,
            gamma=arguments.gamma,
            huber_delta=arguments.huber_delta,
            weights=arguments.weights,
            max_iterations=arguments.max_iterations,
            progress=progress,
        )
        resampled = None
        if arguments.bootstrap:
            resampled = fitted.bootstrap(
                arguments.bootstrap,
                seed=arguments.seed,
                cluster=arguments.cluster,
                num_jobs=arguments.jobs,
                scheduler=arguments.scheduler,
                progress=progress,
            )
    except InputError as error:
        raise InputError(f"{arguments.file}: {error}") from error
    withheld = resampled.withheld if resampled else fitted.intervals_withheld
    intervals: dict[str, Any] = dict.fromkeys(LossSurface.PARAMETERS)
    if resampled and not withheld:
        intervals = {name: resampled.interval(name, arguments.level) for name in LossSurface.PARAMETERS}
    notes = _mixed(runs) + _limits(fitted, resampled, intervals, arguments.level)
    not_saved = _save(arguments.save, fitted, resampled)
    notes += [str(not_saved)] if not_saved else []
    result = _fit_result(arguments, fitted, resampled, intervals) | {"warnings": notes}
    if arguments.json:
        print_json(result)
    else:
        print(fitted)
        if resampled and not withheld:
            print(f"{level_text(arguments.level)} bootstrap intervals ({arguments.bootstrap} resamples):")
            for name, (low, high) in intervals.items():
                print(f"  {name:<6}" + (f"{low:>14.6g} {high:>14.6g}" if math.isfinite(low) else "         none"))
        _print_notes(notes)
    if not_saved:
        raise not_saved


def _fit_result(
    arguments: argparse.Namespace,
    fitted: Fit,
    resampled: Bootstrap | None,
    intervals: dict[str, Any],
) -> dict[str, Any]:
    withheld = resampled.withheld if resampled else fitted.intervals_withheld
    return {
        "file": str(arguments.file),
        "parameters": fitted.parameters,
        "intervals": intervals,
        "intervals_withheld": withheld or None,
        "level": arguments.level,
        "objective": fitted.objective,
        "num_rows": fitted.num_rows,
        "identified": fitted.identified,
        "status": fitted.status,
        "status_detail": fitted.status_detail,
        "conditioning": fitted.conditioning,
        "share_of_starts_at_optimum": fitted.share_of_starts_at_optimum,
        "huber_delta": fitted.huber_delta if math.isfinite(fitted.huber_delta) else "inf",
        "gamma_free": "gamma" in fitted.free_names,
        "num_resamples": arguments.bootstrap,
        "share_of_lost_resamples": resampled.lost if resampled and not fitted.intervals_withheld else 0.0,
        "seconds": fitted.seconds,
        "seed": arguments.seed,
        "versions": {
            "companion": companion.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }


def _limits(fitted: Fit, resampled: Bootstrap | None, intervals: dict[str, Any], level: float) -> list[str]:
    """What limits the intervals, or why there are none."""
    notes = []
    if fitted.status == OUT_OF_ITERATIONS:
        notes.append(f"out of iterations: {fitted.status_detail}; a larger --max-iterations continues")
    withheld = resampled.withheld if resampled else fitted.intervals_withheld
    if withheld:
        return [*notes, f"no intervals: {withheld}"]
    if resampled is None:
        return notes
    number = len(resampled.theta)
    if resampled.lost > 0.01:
        notes.append(
            f"{percent(resampled.lost)} of the {number} resamples hold too few different runs for a fit: the intervals "
            "rest on the others"
        )
    if resampled.at_bound > 0.01:
        notes.append(
            f"{percent(resampled.at_bound)} of the resamples have a parameter at a bound: its interval is cut there"
        )
    if number * (1 - level) < 2:
        notes.append(f"{number} resamples are few for intervals of level {level:g}: their ends are single resamples")
    if none := [name for name in fitted.free_names if not math.isfinite(intervals[name][0])]:
        notes.append(f"no interval of {', '.join(none)}: all resamples agree to the last digit")
    return notes


def _save(path: Path | None, fitted: Fit, resampled: Bootstrap | None) -> InputError | None:
    """Write the fit and its resamples; an error is kept, so that what took long is printed before it is raised."""
    if path is None:
        return None
    try:
        write_whole(path, json.dumps(fitted.as_dict() | ({"bootstrap": resampled.as_dict()} if resampled else {})))
    except InputError as error:
        return error
    return None


def overtraining(arguments: argparse.Namespace) -> None:
    """`companion overtraining`: loss over compute at each ratio of tokens to parameters, and whether slopes differ."""
    try:
        slopes = fit_overtraining_slopes(_runs(arguments), keep_left_out=arguments.keep_left_out)
    except InputError as error:
        raise InputError(f"{arguments.file}: {error}") from error
    # --json is an interface: its key stays the name that M has in published.yaml
    rows = slopes.table().rename(columns={"tokens_per_param": "token_param_ratio"}).to_dict("records")
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
        if arguments.weights:
            check_weights(runs, arguments.weights)
        cutoffs, repeated = different_cutoffs(runs, arguments.cutoffs or default_cutoffs(runs))
        steps = extrapolate(runs, cutoffs, huber_delta=arguments.huber_delta, progress=sys.stderr.isatty(), **options)
    except InputError as error:
        raise InputError(f"{arguments.file}: {error}") from error
    if repeated:
        notes.append(f"left out, because a lower cut-off selects the same runs: {_flops(repeated)}")
    for step in steps:
        if not step.fit.identified:
            notes.append(f"below {step.cutoff:g} FLOP the law is not identified: {step.fit.status_detail}")
    optima = pd.DataFrame()
    try:
        optima = compare_optima(runs, **options)
    except InputError as error:
        notes.append(f"optima not compared: {error}")
    notes += _missing_optima(optima)
    rows = [step.summary() | {"identified": step.fit.identified} for step in steps]
    result = {
        "file": str(arguments.file),
        "architecture": arguments.architecture,
        "cutoffs": rows,
        "optima": optima.to_dict("records"),
        "warnings": notes,
    }
    if arguments.json:
        return print_json(result)
    _print_notes(notes)
    print_table(pd.DataFrame(rows).drop(columns="identified"))
    if len(optima):
        print("\noptimal size of withheld budgets (parameters)")
        print_table(optima)
    return None


def _missing_optima(optima: pd.DataFrame) -> list[str]:
    """Which of the compared optima do not exist, and why."""
    notes = []
    reasons = {
        "parabola": "fewer than two lower budgets have an optimum",
        "parametric": "the law of the lower budgets is not identified, or has no optimum among the sizes",
    }
    for name, reason in reasons.items():
        missing = int(optima[name].isna().sum()) if len(optima) else 0
        if missing:
            notes.append(f"no {name} optimum in {missing} of {len(optima)} comparisons: {reason}")
    return notes


def _flops(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


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
