"""`companion context`: how the optimum of every budget moves with the context length."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from companion.cli.commands import print_json, print_table
from companion.cli.isoflop import bounds_of, few_resamples
from companion.cli.options import add_bootstrap, add_json, add_level, add_weights
from companion.fitting.context.scaling import fit_context_optima
from companion.formatting import count, interval, level_text, power_of_ten, significant
from companion.runs.load import load_runs
from companion.runs.select import subset


def add_context(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register the command; `command` is the maker of subparsers in `companion.cli.dispatch`."""
    parser = command(
        "context",
        context,
        "optimal size and tokens of every IsoFLOP budget over the context length",
        "  companion context data/runs.csv --architecture transformer\n"
        '  companion context data/runs.csv --architecture xlstm --where "imposed_published_fit == 0" --json\n'
        "  companion context my_runs.csv --bootstrap 200 --level 0.9",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="run table (CSV) with the column context_length")
    parser.add_argument("--architecture", help="only runs of this architecture; needed if the table has several")
    parser.add_argument("--where", metavar="CONDITION", help="only runs for which a condition on columns holds")
    add_weights(parser)
    add_bootstrap(parser)
    add_level(parser)
    add_json(parser)


def context(arguments: argparse.Namespace) -> None:
    """`companion context`: optima by budget and context, and power laws of N\\* and D\\* over T."""
    runs = subset(load_runs(arguments.file), arguments.architecture, where=arguments.where)
    fit = fit_context_optima(
        runs,
        arguments.architecture,
        weights=arguments.weights,
        num_resamples=arguments.bootstrap,
        seed=arguments.seed,
    )
    result = {
        "file": str(arguments.file),
        "architecture": fit.architecture,
        "trends": fit.trends_table(arguments.level).to_dict("records"),
        "optima": fit.optima_table(arguments.level).to_dict("records"),
        "level": arguments.level,
        "num_resamples": arguments.bootstrap,
        "seed": arguments.seed,
        "warnings": [*fit.warnings, *few_resamples(arguments.bootstrap, arguments.level)],
    }
    if arguments.json:
        return print_json(result)
    _print(result)
    return None


def _print(result: dict[str, Any]) -> None:
    level = f"{level_text(result['level'])} bootstrap"
    print(f"{result['architecture']}: N*(T) and D*(T) = prefactor * T^exponent at every budget")
    print_table(
        pd.DataFrame(
            [
                {
                    "budget": power_of_ten(row["isoflop_budget"]),
                    "quantity": row["quantity"],
                    "exponent": significant(row["exponent"], 3),
                    level: interval(row["exponent_interval"]),
                    "prefactor": f"{row['prefactor']:.4g}",
                    f"{level} ": bounds_of(row["prefactor_interval"]),
                    "contexts": ", ".join(map(str, row["context_lengths"])),
                }
                for row in result["trends"]
            ]
        )
    )
    print()
    print_table(
        pd.DataFrame(
            [
                {
                    "budget": power_of_ten(row["isoflop_budget"]),
                    "context_length": row["context_length"],
                    "runs": row["num_runs"],
                    "quantity": row["quantity"],
                    "optimum": count(row["x_opt"], 4),
                    level: bounds_of(row["x_opt_interval"]),
                    "loss at optimum": significant(row["loss_opt"], 5),
                }
                for row in result["optima"]
            ]
        )
    )
    for note in result["warnings"]:
        print(f"warning: {note}")
