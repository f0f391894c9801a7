"""`companion inference`: runtime models of measured times, and what a prefill and a step cost by counting."""

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from companion.accounting import CONVENTIONS, PAPER, get_convention, num_params
from companion.accounting.inference import InferencePass, Precision, cache_bytes, count_prefill, count_step
from companion.architectures import ARCHITECTURES
from companion.cli.commands import print_json, print_table, read_architecture
from companion.cli.options import add_bootstrap, add_json, add_level, add_shapes, positive, whole
from companion.formatting import count as as_count
from companion.formatting import level_text, power_of_ten, significant
from companion.hardware import REFERENCE_HARDWARE, get_hardware
from companion.inference.one_size import FORMS, InferenceFit, fit_inference
from companion.inference.published import PUBLISHED_FORMS, fit_published
from companion.inference.timings import COLUMNS, load_inference

_GIB = 2**30
_OBJECTIVES = ("relative", "milliseconds")
_PROCEDURES = ("all-rows", "published")
#: Objective of each procedure unless one is given, by quantity.
_USUAL_OBJECTIVE = {
    "all-rows": dict.fromkeys(COLUMNS, "relative"),
    "published": {"ttft": "milliseconds", "step_time": "relative"},
}
#: Names of the objectives in the published procedure.
_PUBLISHED_OBJECTIVE = {"relative": "logarithms", "milliseconds": "milliseconds"}


def add_inference(command: Callable[..., argparse.ArgumentParser], subparsers: Any) -> None:
    """Register both commands; `command` is the maker of subparsers in `companion.cli.dispatch`."""
    group = subparsers.add_parser(
        "inference", help="time to first token and step time", description="Time to first token and step time."
    )
    to = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = command(
        "fit",
        fit,
        "the paper's runtime model of one model size, and which of its parameters the timings determine",
        "  companion inference fit data/inference.csv --architecture transformer --model-size 7b --quantity ttft\n"
        "  companion inference fit data/inference.csv --architecture xlstm --model-size 160m --quantity ttft \\\n"
        "      --procedure published --json",
        to=to,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="table of timings (CSV, see data/README.md)")
    parser.add_argument("--architecture", required=True, choices=tuple(ARCHITECTURES))
    parser.add_argument("--model-size", required=True, metavar="SIZE", help="as in the column model_size")
    parser.add_argument("--quantity", required=True, choices=tuple(COLUMNS))
    parser.add_argument(
        "--procedure",
        default=_PROCEDURES[0],
        choices=_PROCEDURES,
        help="every timing once, or as published: one resample of them, squares of Huber losses, the authors' count of "
        "FLOPs and bytes (default: %(default)s)",
    )
    parser.add_argument(
        "--objective",
        choices=_OBJECTIVES,
        help="residuals of logarithms, or of milliseconds with a Huber loss (default: relative; with --procedure "
        "published milliseconds for ttft)",
    )
    parser.add_argument(
        "--smallest-batch", type=whole, metavar="B", help="leave smaller batches out (default: 8 for step_time, else 1)"
    )
    add_bootstrap(parser)
    add_level(parser)
    add_json(parser)
    _add_count(command, to)


def _add_count(command: Callable[..., argparse.ArgumentParser], to: Any) -> None:
    parser = command(
        "count",
        count,
        "FLOPs, bytes moved, memory and roofline time of a prefill and of one step",
        "  companion inference count --architecture transformer --size 7b --context-length 16384 --batch-size 8 \\\n"
        "      --hardware h100-sxm\n"
        "  companion inference count --architecture transformer --size 7b --n-kv-heads 8 --context-length 65536 --json",
        to=to,
    )
    add_shapes(parser)
    parser.add_argument("--context-length", required=True, type=whole, metavar="T", help="tokens of one sequence")
    parser.add_argument("--batch-size", type=whole, default=1, metavar="B", help="sequences (default: %(default)s)")
    parser.add_argument(
        "--hardware", default=REFERENCE_HARDWARE, metavar="NAME", help="row of data/hardware.csv (default: %(default)s)"
    )
    for field in fields(Precision):
        option, meaning = "--" + field.name.replace("_", "-"), field.name.rpartition("_")[2]
        parser.add_argument(
            option, type=positive, default=field.default, metavar="X", help=f"{meaning} (default: %(default)s)"
        )
    parser.add_argument(
        "--convention", default=PAPER.name, choices=tuple(CONVENTIONS), help="what counts (default: %(default)s)"
    )
    parser.add_argument(
        "--chunk-size",
        type=whole,
        metavar="L",
        help=f"tokens per chunk of a recurrent mixer (default: {PAPER.chunk_size})",
    )
    add_json(parser)


def fit(arguments: argparse.Namespace) -> None:
    """`companion inference fit`: parameters, intervals, and what is not identified."""
    timings = load_inference(arguments.file)
    objective = arguments.objective or _USUAL_OBJECTIVE[arguments.procedure][arguments.quantity]
    found = _fit_as(arguments, timings, objective)
    result = {
        "file": str(arguments.file),
        "architecture": found.architecture,
        "model_size": found.model_size,
        "quantity": found.quantity,
        "form": (PUBLISHED_FORMS if arguments.procedure == "published" else FORMS)[found.quantity],
        "procedure": arguments.procedure,
        "objective": objective,
        "parameters": found.parameters,
        "intervals": {name: found.interval(name, arguments.level) for name in found.parameters},
        "identified": found.identified,
        "reasons": found.reasons,
        "rms_log_error": found.rms_log_error,
        "num_rows": len(found.log_residuals),
        "level": arguments.level,
        "num_resamples": arguments.bootstrap,
        "seed": arguments.seed,
        "warnings": [*timings.attrs["notes"], *_warnings(found, arguments.bootstrap)],
    }
    if arguments.json:
        return print_json(result)
    number = len(found.log_residuals)
    print(f"{found.architecture} {found.model_size}, {number} timing{'s' * (number != 1)}: {result['form']}")
    if arguments.procedure == "published":
        print("one resample of the timings, as published; intervals: over further resamples")
    print(f"rms of ln(predicted/measured): {_or_undefined(found.rms_log_error, 3)}")
    level = f"{level_text(arguments.level)} bootstrap"
    print_table(
        pd.DataFrame(
            [
                {
                    "parameter": name,
                    "value": _or_undefined(value),
                    level: " to ".join(_or_undefined(bound, 4) for bound in result["intervals"][name]),
                    "identified": "yes" if found.identified[name] else "no",
                }
                for name, value in found.parameters.items()
            ]
        )
    )
    for note in _warnings(found, arguments.bootstrap):  # the table's own notes are on stderr
        print(f"warning: {note}")
    return None


def _fit_as(arguments: argparse.Namespace, timings: pd.DataFrame, objective: Any) -> InferenceFit:
    where = (timings, arguments.architecture, arguments.model_size, arguments.quantity)
    options: dict[str, Any] = {
        "num_resamples": arguments.bootstrap,
        "seed": arguments.seed,
        "level": arguments.level,
        "smallest_batch": arguments.smallest_batch,
    }
    if arguments.procedure == "published":
        return fit_published(*where, objective=_PUBLISHED_OBJECTIVE[objective], **options)
    return fit_inference(*where, objective=objective, **options)


def _or_undefined(value: float, digits: int = 5) -> str:
    return "undefined" if math.isnan(value) else f"{value:.{digits}g}"


def _warnings(found: InferenceFit, num_resamples: int) -> list[str]:
    """What is not identified, intervals that are missing, and constants that no clock could show."""
    notes = [f"{name} is not identified: {reason}" for name, reason in found.reasons.items()]
    number, parameters = len(found.log_residuals), len(found.parameters)
    if number == parameters and not found.reasons:
        notes.append(f"{number} timings for {parameters} parameters: the fit goes through each, no intervals")
    if found.num_lost > 0.01 * num_resamples:
        lost = f"{found.num_lost} of {num_resamples} resamples leave a parameter free that all timings determine"
        undefined = found.num_lost > len(found.resamples) / 2
        notes.append(f"{lost}: {'intervals are undefined' if undefined else 'intervals are of the others'}")
    for name, value in found.parameters.items():
        if name.endswith("_s") and name.startswith("eps") and value < 0:
            notes.append(f"{name} is negative ({value:.3g} s): the form does not fit these times")
    if found.num_impossible:
        notes.append(f"{found.num_impossible} of {len(found.log_residuals)} predicted times are not above 0")
    return notes


def count(arguments: argparse.Namespace) -> None:
    """`companion inference count`: a prefill of T tokens, and a step at T tokens of context."""
    architecture = read_architecture(arguments)
    convention = get_convention(arguments.convention)
    if arguments.chunk_size:
        convention = replace(convention, chunk_size=arguments.chunk_size)
    precision = Precision(**{field.name: getattr(arguments, field.name) for field in fields(Precision)})
    hardware = get_hardware(arguments.hardware)
    options: dict[str, Any] = {"precision": precision, "convention": convention}
    passes = [
        counted(architecture, arguments.context_length, arguments.batch_size, **options)
        for counted in (count_prefill, count_step)
    ]
    result = {
        "architecture": architecture.name,
        "shapes": architecture.shapes(),
        "num_params": num_params(architecture),
        "context_length": arguments.context_length,
        "batch_size": arguments.batch_size,
        "hardware": hardware.name,
        "convention": convention.name,
        "precision": asdict(precision),
        "kept": architecture.keeps,
        "cache_bytes_per_sequence": float(cache_bytes(architecture, arguments.context_length, precision)),
        **{one.kind: _pass_result(one, arguments.hardware) for one in passes},
    }
    if arguments.json:
        return print_json(result)
    _print_count(result, hardware.label)
    return None


def _pass_result(one: InferencePass, hardware: str) -> dict[str, Any]:
    roofline, message = one.roofline(hardware), one.fit_message(hardware)
    return {
        "flops": one.flops.total,
        "flops_breakdown": one.flops.as_dict(),
        "traffic_bytes": one.traffic.total,
        "traffic_breakdown": asdict(one.traffic),
        "memory_bytes": one.memory.total,
        "memory_breakdown": asdict(one.memory),
        "arithmetic_intensity": one.arithmetic_intensity,
        "roofline": {
            "compute_seconds": roofline.compute_seconds,
            "memory_seconds": roofline.memory_seconds,
            "seconds": roofline.seconds,
            "bound": "compute" if roofline.compute_bound else "memory",
        },
        "fits": not message,
        "message": message,
    }


def _print_count(result: dict[str, Any], label: str) -> None:
    print(
        f"{result['architecture']}, {as_count(result['num_params'])} parameters, T = {result['context_length']}, "
        f"B = {result['batch_size']}, {label}"
    )
    kept = result["kept"]
    print(f"{kept} of one sequence: {result['cache_bytes_per_sequence'] / _GIB:.4g} GiB")
    passes = {kind: result[kind] for kind in ("prefill", "step")}
    rows: list[dict[str, str]] = []
    for name, shown in (
        ("FLOP", lambda one: power_of_ten(one["flops"], 3)),
        ("bytes moved", lambda one: power_of_ten(one["traffic_bytes"], 3)),
        ("  weights", lambda one: power_of_ten(one["traffic_breakdown"]["weights"], 3)),
        (f"  {kept}", lambda one: power_of_ten(one["traffic_breakdown"]["cache"], 3)),
        ("  activations", lambda one: power_of_ten(one["traffic_breakdown"]["activations"], 3)),
        ("FLOP per byte", lambda one: significant(one["arithmetic_intensity"])),
        ("memory (GiB)", lambda one: significant(one["memory_bytes"] / _GIB)),
        ("roofline (s)", lambda one: f"{one['roofline']['seconds']:.3g}"),
        ("limited by", lambda one: one["roofline"]["bound"]),
    ):
        rows.append({"": name, **{kind: shown(one) for kind, one in passes.items()}})
    print_table(pd.DataFrame(rows))
    for one in passes.values():
        if one["message"]:
            print(f"warning: {one['message']}")
