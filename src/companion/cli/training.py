"""`companion training`: what training cost by the logs, and which architecture reaches a loss in fewer GPU-hours."""

import argparse
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.cli.commands import print_json, print_table
from companion.cli.isoflop import few_resamples
from companion.cli.options import add_bootstrap, add_json, add_level, positive, whole
from companion.errors import InputError
from companion.fitting.bootstrap import MAX_RESAMPLES
from companion.fitting.pareto import ParetoFront
from companion.formatting import count, level_text, listed, percent, plural, power_of_ten, significant
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware
from companion.runs.select import subset
from companion.training.fronts import (
    cost_factors,
    front_runs,
    gpu_hours_at_loss,
    law_fronts,
    run_fronts,
    usual_context_length,
)
from companion.training.logs import load_training_logs
from companion.training.throughput import ISOFLOP, beyond_peak, finished, utilization_by_size, with_throughput

#: What the factors between two architectures are called in text.
_COST_WORDS = {"train_flops": "FLOP", "num_tokens": "tokens", "gpu_hours": "GPU-hours"}


def add_training(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register the command; `command` is the maker of subparsers in `companion.cli.dispatch`."""
    parser = command(
        "training",
        training,
        "throughput, utilization and GPU-hours of training logs, and fronts of loss over GPU-hours",
        "  companion training data/training_logs.csv --context-length 16384 --loss 3.05\n"
        "  companion training data/training_logs.csv --architecture xlstm --loss 2.9 --json\n"
        "  companion training my_logs.csv --hardware a100-sxm",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="table of training logs (CSV, see data/README.md)")
    parser.add_argument("--architecture", help="only runs of this architecture")
    parser.add_argument(
        "--context-length",
        type=whole,
        metavar="T",
        help="only runs of this context length (default for the fronts: the one with most architectures and runs)",
    )
    parser.add_argument("--loss", type=positive, metavar="L", help="also print the GPU-hours to this loss")
    parser.add_argument(
        "--hardware", default=REFERENCE_HARDWARE, metavar="NAME", help="row of data/hardware.csv (default: %(default)s)"
    )
    add_bootstrap(parser)
    add_level(parser)
    add_json(parser)


def training(arguments: argparse.Namespace) -> None:
    """`companion training`: utilization by size, fronts of loss over GPU-hours, and hours at a loss."""
    hardware = get_hardware(arguments.hardware)
    if arguments.loss is not None and not math.isfinite(arguments.loss):
        raise InputError(f"--loss {arguments.loss:g} is not finite")
    if arguments.bootstrap > MAX_RESAMPLES:
        raise InputError(f"--bootstrap {arguments.bootstrap}: at most {MAX_RESAMPLES} resamples can be drawn")
    loaded = load_training_logs(arguments.file)
    logs = with_throughput(subset(loaded, arguments.architecture, arguments.context_length), hardware)
    logs.attrs["source"] = loaded.attrs["source"]
    measured = logs[logs["utilization"].notna()]
    if measured.empty:
        raise InputError(f"{arguments.file}: no run has both step_time_s and num_gpus, so nothing is known of its cost")
    notes: list[str] = []
    try:
        result = _fronts(arguments, logs, notes)
        whole_runs = finished(logs, group=None)
    except InputError as error:  # no losses: what is known of the cost is still worth reading
        if arguments.loss is not None:
            raise
        notes.append(f"no fronts: {error}")
        result, whole_runs = {"context_length": None, "fronts": {}, "factors": []}, measured
    if fault := beyond_peak(measured, hardware):
        notes.append(fault)
    result = {
        "file": str(arguments.file),
        "hardware": hardware.name,
        "utilization": utilization_by_size(whole_runs).to_dict("records"),
        "gpu_hours": _hours(whole_runs),
        **result,
        "warnings": [*loaded.attrs["notes"], *notes],
    }
    if arguments.json:
        return print_json(result)
    _print(result, hardware, arguments)
    for note in notes:  # the table's own notes are on stderr
        print(f"note: {note}")
    return None


def _group(logs: pd.DataFrame) -> str | None:
    """The group that fronts are made of: the paper's design, where the table has runs of it."""
    return ISOFLOP if "group" in logs and (logs["group"] == ISOFLOP).any() else None


def _fronts(arguments: argparse.Namespace, logs: pd.DataFrame, notes: list[str]) -> dict[str, Any]:
    """Fronts at one context length, and what is read off them."""
    group = _group(logs)
    context_length = usual_context_length(logs, group)
    lengths = sorted(logs["context_length"].unique().tolist())
    if len(lengths) > 1:
        there = listed(lengths)
        notes.append(
            f"fronts are of T = {context_length}, which has most architectures, then most runs, of T = {there}"
        )
    others = logs[logs["group"].notna() & (logs["group"] != group)] if group else logs[:0]
    if len(others):
        names, verb = listed(others["group"].unique()), "is" if len(others) == 1 else "are"
        notes.append(f"fronts are of the group {group}: {plural(len(others), 'run')} of {names} {verb} not among them")
    runs, fronts = front_runs(logs, context_length, group), run_fronts(logs, context_length, group=group)
    result: dict[str, Any] = {
        "context_length": context_length,
        "fronts": {name: _on_front(runs[name], front) for name, front in fronts.items()},
        "factors": _factors(logs, list(fronts), context_length, group, notes),
    }
    return result if arguments.loss is None else result | _at_loss(arguments, logs, context_length, group, notes)


def _hours(measured: pd.DataFrame) -> list[Any]:
    """Runs with a known cost and their sum of GPU-hours, by architecture and context length."""
    groups = measured.groupby(["architecture", "context_length"])
    return groups.agg(num_runs=("run", "size"), gpu_hours=("gpu_hours", "sum")).reset_index().to_dict("records")


def _on_front(runs: pd.DataFrame, front: ParetoFront) -> list[Any]:
    """The runs of a front, cheapest first; `on_hull`: those between which losses are read off."""
    chosen = runs.iloc[front.rows]
    names = ["run", "num_params", "num_tokens", "train_flops", "gpu_hours", "utilization"]
    table = chosen[names].assign(loss=chosen["val_loss"], on_hull=np.isin(front.rows, front.hull().rows))
    return table.to_dict("records")


def _factors(
    logs: pd.DataFrame, names: list[str], context_length: int, group: str | None, notes: list[str]
) -> list[dict[str, Any]]:
    """What the second architecture of a pair costs over the first at equal loss; pairs without common losses: notes."""
    rows: list[Any] = []
    for first, second in itertools.combinations(names, 2):
        try:
            found = cost_factors(logs, first, second, context_length, group=group)
        except InputError as error:
            notes.append(f"{first} and {second}: {error}")
            continue
        if found["factor"].iloc[-1] < 1:  # by GPU-hours: the cheaper one comes first
            first, second = second, first
            found = cost_factors(logs, first, second, context_length, group=group)
        rows += found.assign(first=first, second=second).to_dict("records")
    return rows


def _at_loss(
    arguments: argparse.Namespace, logs: pd.DataFrame, context_length: int, group: str | None, notes: list[str]
) -> dict[str, Any]:
    """GPU-hours of every architecture at the loss, their intervals, and what the law expects."""
    laws = law_fronts(logs, context_length, num_resamples=arguments.bootstrap, seed=arguments.seed, group=group)
    found = gpu_hours_at_loss(
        logs, arguments.loss, context_length, laws=laws, level=arguments.level, group=group
    ).set_index("architecture")
    notes += [reason for reason in found["reason"] if reason]
    notes += few_resamples(arguments.bootstrap, arguments.level)
    return {
        "loss": arguments.loss,
        "gpu_hours_at_loss": found["gpu_hours"].to_dict(),
        "gpu_hours_at_loss_intervals": {
            name: [low, high] if np.isfinite(low) else None
            for name, low, high in zip(found.index, found["low"], found["high"], strict=True)
        },
        "expected_gpu_hours_at_loss": found["expected_gpu_hours"].to_dict(),
        "num_params_at_loss": found["num_params"].to_dict(),
        "level": arguments.level,
        "num_resamples": arguments.bootstrap,
        "seed": arguments.seed,
    }


# ---- text -----------------------------------------------------------------------------------------


def _print(result: dict[str, Any], hardware: Hardware, arguments: argparse.Namespace) -> None:
    hours = result["gpu_hours"]
    total, number = sum(row["gpu_hours"] for row in hours), sum(row["num_runs"] for row in hours)
    print(f"{plural(number, 'run')}, {count(total)} GPU-hours; utilization of {hardware.label}")
    print_table(pd.DataFrame([_utilization_line(row) for row in result["utilization"]]))
    if not result["fronts"]:
        return
    print(f"\nFronts of loss over GPU-hours, T = {result['context_length']} (runs that no other run beats)")
    lines = [_front_line(name, row) for name, runs in result["fronts"].items() for row in runs]
    print_table(pd.DataFrame(lines))
    if result["factors"]:
        print("\nCost of the second over the first at equal loss, read off the hulls of the fronts")
        print_table(pd.DataFrame([_factor_line(row) for row in result["factors"]]))
    if arguments.loss is not None:
        print(f"\nGPU-hours to a loss of {arguments.loss:g} nats per token, T = {result['context_length']}")
        print_table(_loss_lines(result, arguments.level))


def _utilization_line(row: dict[str, Any]) -> dict[str, str | int]:
    smallest, largest = count(row["smallest"]), count(row["largest"])
    return {
        "architecture": row["architecture"],
        "T": row["context_length"],
        "parameters": smallest if smallest == largest else f"{smallest} to {largest}",
        "runs": row["num_runs"],
        "utilization": percent(row["utilization"]),
        "quartiles": f"{percent(row['utilization_q25'])} to {percent(row['utilization_q75'])}",
        "tokens/s per GPU": f"{float(significant(row['tokens_per_second_per_gpu'])):,.0f}",
    }


def _front_line(name: str, row: dict[str, Any]) -> dict[str, str]:
    return {
        "architecture": name,
        "GPU-hours": significant(row["gpu_hours"]),
        "loss": f"{row['loss']:.4f}",
        "parameters": count(row["num_params"]),
        "tokens": count(row["num_tokens"]),
        "FLOP": power_of_ten(row["train_flops"], 3),
        "utilization": percent(row["utilization"]),
        "on hull": "yes" if row["on_hull"] else "no",
    }


def _factor_line(row: dict[str, Any]) -> dict[str, str]:
    return {
        "second / first": f"{row['second']} / {row['first']}",
        "cost": _COST_WORDS[row["cost"]],
        "factor": significant(row["factor"]),
        "over common losses": f"{significant(row['smallest'])} to {significant(row['largest'])}",
    }


def _loss_lines(result: dict[str, Any], level: float) -> pd.DataFrame:
    rows = []
    for name, hours in result["gpu_hours_at_loss"].items():
        bounds = result["gpu_hours_at_loss_intervals"][name]
        rows.append(
            {
                "architecture": name,
                "read off the front": significant(hours),
                level_text(level): " to ".join(map(significant, bounds)) if bounds else "undefined",
                "by the law": significant(result["expected_gpu_hours_at_loss"][name]),
                "with parameters": count(result["num_params_at_loss"][name]),
            }
        )
    return pd.DataFrame(rows)
