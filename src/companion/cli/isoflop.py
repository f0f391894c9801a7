"""`companion isoflop`: the optimum of every budget, and the power law through the optima."""

import argparse
import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from companion.cli.commands import print_json, print_table
from companion.cli.options import add_bootstrap, add_json, add_level, add_runs, add_weights, budgets
from companion.errors import InputError
from companion.fitting.isoflop.joint import JointIsoflopFit, fit_isoflop_joint
from companion.fitting.isoflop.profiles import (
    X_COLUMNS,
    IsoflopFit,
    IsoflopProfile,
    fit_isoflop,
    says_nothing,
)
from companion.formatting import count, interval, level_text, plural, power_of_ten, significant
from companion.runs.load import load_runs
from companion.runs.select import assign_budgets, subset

UNDEFINED = (math.nan, math.nan)


def add_isoflop(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register the command; `command` is the maker of subparsers in `companion.cli.dispatch`."""
    parser = command(
        "isoflop",
        isoflop,
        "IsoFLOP optima of a run table and the power law through them",
        "  companion isoflop data/runs.csv --architecture xlstm --context-length 8192\n"
        "  companion isoflop data/runs.csv --architecture xlstm --context-length 8192 --x num_tokens --json \\\n"
        "      --weights multiplicity_in_published_fits --budgets 6e18,1e19,3e19,1e20   (as published)\n"
        "  companion isoflop my_runs.csv --where \"num_params > 1e8 and experiment == 'isoflop'\"",
    )
    add_runs(parser)
    parser.add_argument(
        "--x", default=X_COLUMNS[0], choices=X_COLUMNS, help="what the profiles run over (default: %(default)s)"
    )
    add_weights(parser)
    parser.add_argument("--budgets", type=budgets, metavar="C,C,...", help="only these budgets (default: all)")
    add_bootstrap(parser)
    add_level(parser)
    add_json(parser)


def isoflop(arguments: argparse.Namespace) -> None:
    """`companion isoflop`: optima, power law, intervals; the joint fit beside the two-step one."""
    runs = load_runs(arguments.file)
    runs = subset(runs, arguments.architecture, arguments.context_length, where=arguments.where)
    notes = []
    if "isoflop_budget" not in runs or runs["isoflop_budget"].isna().all():
        runs = assign_budgets(runs)
        found = ", ".join(f"{budget:g}" for budget in sorted(runs["isoflop_budget"].dropna().unique()))
        notes.append(f"no column isoflop_budget: budgets {found} were read off gaps in train_flops")
    options = {"weights": arguments.weights, "budgets": arguments.budgets}
    try:
        fit = fit_isoflop(runs, arguments.x, num_resamples=arguments.bootstrap, seed=arguments.seed, **options)
    except InputError as error:
        raise InputError(f"{arguments.file}: {error}") from error
    notes += [*fit.warnings, *few_resamples(arguments.bootstrap, arguments.level)]
    joint = None
    if fit.law_defined:
        try:
            joint = fit_isoflop_joint(runs, arguments.x, **options)
        except InputError as error:
            notes.append(str(error))
    if joint and joint.fault:
        notes.append(f"joint fit: no interval, {joint.fault}")
    result = _result(fit, joint, arguments, notes)
    if arguments.json:
        return print_json(result)
    _print(fit, joint, result)
    return None


def few_resamples(num_resamples: int, level: float) -> list[str]:
    """A warning where the ends of an interval are the outermost resamples, or lie beyond them."""
    needed = math.ceil(2 / (1 - level) - 1 - 1e-9)
    if 0 < num_resamples < needed:
        number, verb = plural(num_resamples, "resample"), "is" if num_resamples == 1 else "are"
        return [f"{number} {verb} few for an interval at {level_text(level)}: take at least {needed}"]
    return []


def _result(
    fit: IsoflopFit, joint: JointIsoflopFit | None, arguments: argparse.Namespace, notes: list[str]
) -> dict[str, Any]:
    law, level = fit.power_law, arguments.level
    return {
        "file": str(arguments.file),
        "architecture": arguments.architecture,
        "context_length": arguments.context_length,
        "x": fit.x_column,
        "weights": arguments.weights,
        "exponent": law.law.exponent,
        "prefactor": law.law.prefactor,
        "exponent_standard_error": law.exponent_standard_error,
        "prefactor_standard_error": law.prefactor_standard_error,
        "law_undefined": fit.law_fault or None,
        "intervals": {"level": level, **{name: _intervals(fit, name, level) for name in ("exponent", "prefactor")}},
        "optima": [_optimum(profile, fit, level) for profile in fit.profiles],
        "joint": joint and _joint(joint, level),
        "num_resamples": arguments.bootstrap,
        "share_of_lost_resamples": fit.lost_resamples,
        "seed": arguments.seed,
        "warnings": notes,
    }


def _intervals(fit: IsoflopFit, name: str, level: float) -> dict[str, Any]:
    student = fit.power_law.interval(name, level)
    return {
        "student_t": UNDEFINED if math.isfinite(student[0]) and says_nothing(name, student) else student,
        "bootstrap": fit.interval(name, level),
        "bootstrap_undefined": fit.undefined(name, level),
    }


def _joint(joint: JointIsoflopFit, level: float) -> dict[str, Any]:
    bounds, fault = joint.interval("exponent", level), joint.fault
    if not fault and says_nothing("exponent", bounds):
        bounds, fault = UNDEFINED, "the interval of the exponent is too wide to exclude anything"
    return {
        "exponent": joint.law.exponent,
        "prefactor": joint.law.prefactor,
        "exponent_standard_error": joint.exponent_standard_error,
        "exponent_interval": bounds,
        "exponent_interval_undefined": fault or None,
        "degrees_of_freedom": joint.degrees_of_freedom,
        "interval_degrees_of_freedom": joint.interval_degrees_of_freedom,
        "slope": joint.slope,
        "slope_left_out": joint.dropped or None,
        "budgets_weighted": joint.weighted,
    }


def _optimum(profile: IsoflopProfile, fit: IsoflopFit, level: float) -> dict[str, Any]:
    parabola = profile.fit if profile.has_optimum else None
    return {
        "isoflop_budget": profile.isoflop_budget,
        "mean_train_flops": profile.mean_train_flops,
        "num_runs": int(profile.x.size),
        "num_sizes": len(set(profile.x.tolist())),
        "x_opt": profile.x_opt,
        "x_opt_interval": fit.interval("x_opt", level, profile),
        "x_opt_interval_undefined": fit.undefined("x_opt", level, profile),
        "log10_x_opt_standard_error": parabola.log10_x_opt_standard_error if parabola else None,
        "loss_opt": profile.loss_opt,
        "loss_opt_standard_error": parabola.loss_opt_standard_error if parabola else None,
        "warnings": list(profile.warnings),
    }


def _print(fit: IsoflopFit, joint: JointIsoflopFit | None, result: dict[str, Any]) -> None:
    symbol = {"num_params": "N*(C)", "num_tokens": "D*(C)"}[fit.x_column]
    law, level = fit.power_law, level_text(result["intervals"]["level"])
    if fit.law_defined:
        print(f"{symbol} = {law.law.prefactor:.6g} * C^{law.law.exponent:.6f}   (two steps, as published)")
        print(f"  exponent: standard error {_fixed(law.exponent_standard_error)};", end=" ")
        bounds = result["intervals"]["exponent"]
        print(f"{level}: Student t {interval(bounds['student_t'], 4)}, bootstrap {interval(bounds['bootstrap'], 4)}")
        if result["num_resamples"] and bounds["bootstrap_undefined"]:
            print(f"  bootstrap undefined: {bounds['bootstrap_undefined']}")
    else:
        print(f"{symbol} undefined: {fit.law_fault}")
    if joint:
        print(f"{symbol} = {joint.law.prefactor:.6g} * C^{joint.law.exponent:.6f}   (joint fit of all runs)")
        print(f"  exponent: standard error {_fixed(joint.exponent_standard_error)};", end=" ")
        print(f"{level}: {interval(result['joint']['exponent_interval'], 4)}")
        if joint.dropped:
            print(f"  without a slope for the compute by which a run misses its budget: {joint.dropped}")
    print_table(
        pd.DataFrame(
            [
                {
                    "budget": power_of_ten(row["isoflop_budget"]),
                    "runs": row["num_runs"],
                    "sizes": row["num_sizes"],
                    f"{fit.x_column} at optimum": count(row["x_opt"], 4),
                    f"{level} bootstrap": bounds_of(row["x_opt_interval"]),
                    "loss at optimum": significant(row["loss_opt"], 5),
                }
                for row in result["optima"]
            ]
        )
    )
    for row in result["optima"]:
        if (reason := row["x_opt_interval_undefined"]) and math.isfinite(row["x_opt"]) and result["num_resamples"]:
            print(f"budget {row['isoflop_budget']:.3g}: interval undefined: {reason}")
    for note in result["warnings"]:
        print(f"warning: {note}")


def bounds_of(bounds: tuple[float, float]) -> str:
    """An interval of parameters or tokens: 409M to 420M."""
    return " to ".join(count(bound, 3) for bound in bounds) if math.isfinite(bounds[0]) else "undefined"


def _fixed(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else "undefined"
