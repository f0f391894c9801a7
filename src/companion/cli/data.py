"""`companion data`: what a run table or training logs hold, and what in it changes conclusions."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from companion.cli.commands import _plain, print_json
from companion.cli.options import add_json
from companion.errors import InputError
from companion.formatting import name_rows, plural, quoted
from companion.runs.conventions import check_counts
from companion.runs.findings import find_all, ratio_range
from companion.runs.findings.flops import USUAL_RATIO
from companion.runs.load import read_runs, summary
from companion.training.logs import LOG_SCHEMA, is_log_table, load_training_logs
from companion.training.throughput import THROUGHPUT_COLUMNS, beyond_peak, utilization_by_size, with_throughput

#: Most entries of a list that the text shows; --json has them all.
_MAX_LISTED = 50


def add_data(command: Callable[..., argparse.ArgumentParser], subparsers: Any) -> None:
    """`companion data` with its commands."""
    data = subparsers.add_parser("data", help="check run tables", description="Check run tables.")
    parser = command(
        "check",
        data_check,
        "check a run table or training logs, say what it holds and what in it changes conclusions",
        "  companion data check data/runs.csv\n  companion data check my_runs.csv --strict --json\n"
        "  companion data check data/training_logs.csv",
        to=data.add_subparsers(title="commands", metavar="COMMAND", required=True),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="run table, or training logs (CSV)")
    parser.add_argument("--strict", action="store_true", help="columns that are not known are errors")
    add_json(parser)


def data_check(arguments: argparse.Namespace) -> None:
    """`companion data check`: load with all checks, then say what the table holds and what a reader should know."""
    if is_log_table(arguments.file):
        return _check_logs(arguments)
    runs, notes = read_runs(arguments.file, strict=arguments.strict)
    findings = find_all(runs)
    for note in notes:
        if note not in [entry.message for entry in findings]:
            print(f"note: {arguments.file}: {note}", file=sys.stderr)
    result = {
        "file": str(arguments.file),
        **summary(runs),
        "flops_ratio": ratio_range(runs),
        "accounting": _against_accounting(runs),
        "findings": [entry.as_dict() for entry in findings],
        "warnings": notes,
    }
    if arguments.json:
        return print_json(result)
    found = plural(len(findings), "finding") if findings else "no fault found"
    print(f"{arguments.file}: {plural(len(runs), 'run')}, {found}")
    for entry in findings:
        print(f"finding: {entry.message}")
    print(_ratio_line(result["flops_ratio"], len(runs)))
    shown = {
        key: [*value[:_MAX_LISTED], f"and {len(value) - _MAX_LISTED:,} more"]
        if isinstance(value, list) and len(value) > _MAX_LISTED
        else value
        for key, value in result.items()
        if key not in ("findings", "warnings", "flops_ratio")
    }
    print(yaml.safe_dump(_plain(shown), sort_keys=False, allow_unicode=True, width=110), end="")
    return None


def _check_logs(arguments: argparse.Namespace) -> None:
    """The same for a table of training logs; its notes go to stderr as they are found."""
    logs = with_throughput(load_training_logs(arguments.file))
    if arguments.strict and (
        unknown := [name for name in logs if name not in (*LOG_SCHEMA.columns, *THROUGHPUT_COLUMNS)]
    ):
        raise InputError(f"{arguments.file}: column {quoted(unknown[0])} is not known")
    measured = logs[logs["utilization"].notna()]
    if fault := beyond_peak(measured):
        print(f"note: {arguments.file}: {fault}", file=sys.stderr)
    result = {
        "file": str(arguments.file),
        "kind": "training logs",
        **summary(logs),
        "by_status": {str(name): int(count) for name, count in logs["status"].value_counts().items()},
        "num_with_throughput": len(measured),
        "sum_gpu_hours": float(measured["gpu_hours"].sum()),
        "utilization": utilization_by_size(measured).to_dict("records"),
        "flops_ratio": ratio_range(logs),
        "accounting": _against_accounting(logs),
        "warnings": [*logs.attrs["notes"], *([fault] if fault else [])],
    }
    if arguments.json:
        return print_json(result)
    print(f"{arguments.file}: training logs of {plural(len(logs), 'run')}")
    print(_ratio_line(result["flops_ratio"], len(logs)))
    shown = {key: value for key, value in result.items() if key not in ("flops_ratio", "warnings")}
    print(yaml.safe_dump(_plain(shown), sort_keys=False, allow_unicode=True, width=110), end="")
    return None


def _ratio_line(ratio: dict[str, Any], num_runs: int) -> str:
    low, high = USUAL_RATIO
    rows = f" ({name_rows(ratio['rows'])})" if 0 < ratio["num_outside"] <= len(ratio["rows"]) else ""
    params = "" if ratio["params"] == "num_params" else f" with N = {ratio['params']}"
    return (
        f"C/(6 N D){params}: {ratio['min']:.3g} to {ratio['max']:.3g}, median {ratio['median']:.3g}; "
        f"{ratio['num_outside']} of {plural(num_runs, 'run')} outside {low:g} to {high:g}{rows}"
    )


def _against_accounting(runs: pd.DataFrame) -> dict[str, Any] | None:
    """How rows with known shapes compare with our counts; None where there are none to compare."""
    counted = check_counts(runs)
    if counted.empty:
        return None
    return {
        "num_compared": int(counted["num_runs"].sum()),
        "num_params_equal": int(counted["num_params_equal"].sum()),
        "largest_relative_train_flops_difference": float(counted["largest_difference"].max()),
    }
