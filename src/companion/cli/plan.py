"""`companion plan`: from a budget and a workload to a model of each architecture."""

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from companion.architectures import ARCHITECTURES
from companion.cli.commands import print_json, print_table
from companion.cli.options import add_json, add_level, count, positive, whole
from companion.errors import InputError
from companion.formatting import count as as_count
from companion.formatting import level_text, percent, power_of_ten, significant
from companion.hardware import REFERENCE_HARDWARE
from companion.inference.compare import METHODS
from companion.inference.timings import load_inference
from companion.planner.planning import HoursRatio, Learned, Plan, PlannedModel, Request, learn, plan
from companion.planner.utilization import measured_utilization, utilization_source
from companion.runs.load import load_runs
from companion.training.logs import load_training_logs

_GIB = 2**30
#: What a plan shows, with its label and its format; in this order.
_LINES: dict[str, tuple[str, Callable[[float], str]]] = {
    "num_params": ("parameters N", as_count),
    "num_tokens": ("training tokens D", as_count),
    "tokens_per_param": ("tokens per parameter", significant),
    "train_flops": ("training compute (FLOP)", lambda value: power_of_ten(value, 3)),
    "loss": ("loss (nats per token)", lambda value: significant(value, 4)),
    "ttft_s": ("time to first token (s)", significant),
    "ttft_roofline_s": ("  its roofline (s)", significant),
    "step_time_s": ("step time (s)", significant),
    "step_time_roofline_s": ("  its roofline (s)", significant),
    "memory_bytes": ("memory (GiB)", lambda value: significant(value / _GIB)),
    "utilization": ("utilization in training", percent),
    "train_gpu_hours": ("training (GPU-hours)", lambda value: as_count(value)),
    "serve_gpu_hours": ("serving (GPU-hours)", lambda value: as_count(value)),
    "total_gpu_hours": ("total (GPU-hours)", lambda value: as_count(value)),
    "total_price": ("total price", lambda value: as_count(value)),
}


def add_plan(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register `companion plan`."""
    parser = command(
        "plan",
        run,
        "model size, tokens, times and cost for a budget and a workload",
        "  companion plan --train-flops 1e21 --context-length 8192\n"
        "  companion plan --target-loss 2.4 --context-length 16384   (GPU-hours to a loss, for every architecture)\n"
        "  companion plan --gpu-hours 2000 --hardware h100-sxm --context-length 16384 \\\n"
        "      --prefill-tokens 1e12 --generated-tokens 1e11 --batch-size 16\n"
        "  companion plan --gpu-hours 2000 --utilization 0.4 --architecture xlstm --json\n"
        "  companion plan --gpu-hours 2000 --logs my_logs.csv --logs-hardware a100-sxm --hardware a100-sxm",
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--train-flops", type=positive, metavar="C", help="training compute in FLOP")
    budget.add_argument("--gpu-hours", type=positive, metavar="H", help="device hours of training")
    budget.add_argument("--target-loss", type=positive, metavar="L", help="loss to reach, nats per token")
    parser.add_argument(
        "--utilization",
        "--utilisation",
        dest="utilization",
        type=positive,
        metavar="U",
        help="share of peak FLOP/s in training (default: as measured by the logs, by architecture, size and context)",
    )
    parser.add_argument(
        "--architecture", action="append", choices=tuple(ARCHITECTURES), help="only this one (may be repeated)"
    )
    parser.add_argument(
        "--context-length",
        type=whole,
        metavar="T",
        help="tokens, of training and of a full request (default: that of the runs behind the law)",
    )
    parser.add_argument(
        "--law-context",
        type=whole,
        metavar="T",
        help="context length of the runs that give the law (default: the only one of the table; of several, "
        "--context-length if its runs suffice)",
    )
    for option, meaning in (
        ("--prefill-tokens", "tokens read as prompts over the model's life"),
        ("--generated-tokens", "tokens generated over the model's life"),
    ):
        parser.add_argument(option, type=count, default=0, metavar="D", help=f"{meaning} (default: none)")
    parser.add_argument("--prompt-length", type=whole, metavar="P", help="tokens of a prompt (default: its share of T)")
    parser.add_argument(
        "--batch-size", type=whole, default=8, metavar="B", help="sequences served at once (default: 8)"
    )
    parser.add_argument(
        "--hardware", default=REFERENCE_HARDWARE, metavar="NAME", help="row of data/hardware.csv (default: %(default)s)"
    )
    parser.add_argument(
        "--timing", choices=METHODS, default=METHODS[0], help="times of the authors' kernels, or the hardware's least"
    )
    parser.add_argument(
        "--kv-groups", type=whole, default=1, metavar="G", help="query heads per head of keys and values (default: 1)"
    )
    parser.add_argument("--price-per-gpu-hour", type=positive, metavar="P", help="also print the total price")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="run table for the laws (default: the paper's)")
    parser.add_argument("--timings", type=Path, metavar="FILE", help="inference timings (default: the authors')")
    parser.add_argument(
        "--logs", type=Path, metavar="FILE", help="training logs of the utilization (default: the authors')"
    )
    parser.add_argument(
        "--logs-hardware",
        metavar="NAME",
        help=f"what the runs of --logs were trained on (default: {REFERENCE_HARDWARE})",
    )
    parser.add_argument("--bootstrap", type=whole, default=200, metavar="R", help="resamples (default: %(default)s)")
    parser.add_argument("--seed", type=count, default=0, help="of the bootstrap (default: %(default)s)")
    add_level(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    """Plan, and print as text or as one JSON object."""
    names = [field.name for field in fields(Request) if hasattr(arguments, field.name)]
    request = Request(**{name: getattr(arguments, name) for name in names})
    if arguments.logs_hardware and not arguments.logs:
        raise InputError("--logs-hardware needs --logs: it says what the runs of these logs were trained on")
    if arguments.logs and arguments.utilization is not None:
        raise InputError("--logs and --utilization exclude each other: both say which utilization training reaches")
    logs = load_training_logs(arguments.logs) if arguments.logs else None
    known = learn(
        runs=load_runs(arguments.runs) if arguments.runs else None,
        timings=load_inference(arguments.timings) if arguments.timings else None,
        architectures=arguments.architecture,
        logs=logs,
        logs_hardware=arguments.logs_hardware or REFERENCE_HARDWARE,
        context_length=arguments.law_context,
        prefer_context=arguments.context_length,
        timing=arguments.timing,
        num_resamples=arguments.bootstrap,
        seed=arguments.seed,
    )
    planned = plan(request, known, level=arguments.level)
    if arguments.json:
        return print_json(
            {
                "request": _request_keys(planned.request),
                "laws": {
                    name: {
                        "context_length": one.law_context,
                        "num_runs": one.fit.num_rows,
                        "status": one.fit.status,
                        "status_detail": one.fit.status_detail,
                    }
                    for name, one in known.items()
                },
                "utilization": _utilization_keys(request, known),
                "gpu_hours_ratios": [asdict(ratio) for ratio in planned.gpu_hours_ratios],
                "left_out": known.left_out,
                "plans": [model.as_dict() for model in planned.models],
                "level": planned.level,
                "num_resamples": arguments.bootstrap,
                "seed": arguments.seed,
                "warnings": [*(logs.attrs["notes"] if logs is not None else []), *planned.notes],
            }
        )
    _print_plan(planned, known)
    return None


def _request_keys(request: Request) -> dict[str, Any]:
    """The request by field; `utilisation` keeps the spelling that readers of the JSON rely on."""
    named = {"utilization": "utilisation"}
    return {named.get(key, key): value for key, value in asdict(request).items()} | {"prompt_length": request.prompt}


def _utilization_keys(request: Request, known: Learned) -> dict[str, Any]:
    """Where the utilization of each architecture comes from: measured, given or assumed, and by which logs."""
    keys: dict[str, Any] = {}
    for name, one in known.items():
        keys[name] = {"basis": "assumed" if request.utilization is None else "given", "logs": None}
        if (measured := measured_utilization(request, one)) is not None:
            lengths = list(measured.context_lengths(name))
            keys[name] = {"basis": "measured", "logs": Path(measured.source).name, "context_lengths": lengths}
            keys[name]["logs_hardware"] = measured.hardware
        keys[name]["words"] = utilization_source(request, one)
    return keys


def _print_plan(planned: Plan, known: Learned) -> None:
    for note in planned.first:
        print(f"note: {note}")
    for ratio in planned.gpu_hours_ratios:
        print(_ratio_line(planned, ratio), end="\n\n")
    where: dict[str, list[str]] = {}
    for model in planned.models:
        print(f"{model.architecture}, {model.objective} ({level_text(planned.level)} intervals)")
        print_table(_lines(model))
        shapes = model.model
        kinds = [f"{layer.number} of {layer.mixer.name}" for layer in shapes.layers]
        layers = f"{shapes.n_layers} layers" + (f" ({', '.join(kinds)})" if len(kinds) > 1 else "")
        print(f"near: d_model {shapes.d_model}, {layers}, {shapes.n_heads} heads", end="")
        print(f"; {model.fit_message}" if model.fit_message else "; fits in memory", end="\n\n")
        for warning in model.warnings:
            where.setdefault(warning, []).append(f"{model.architecture} {model.objective}")
    for name in dict.fromkeys(model.architecture for model in planned.models):
        print(f"utilization of {name}: {utilization_source(planned.request, known[name])}")
    for warning, whose in where.items():
        print(f"warning: {warning} ({', '.join(whose)})")
    for note in planned.notes[len(planned.first) :]:
        print(f"warning: {note}")


def _ratio_line(planned: Plan, ratio: HoursRatio) -> str:
    """GPU-hours of two architectures to the target loss, and their ratio with its interval."""
    best = {model.architecture: model for model in reversed(planned.models)}
    hours = {name: as_count(best[name].numbers["train_gpu_hours"]) for name in (ratio.first, ratio.second)}
    low, high = map(significant, ratio.interval)
    band = f" ({level_text(planned.level)}: {low} to {high})" if math.isfinite(ratio.interval[0]) else ""
    return (
        f"GPU-hours of training to a loss of {planned.request.target_loss:g}: {ratio.first} {hours[ratio.first]}, "
        f"{ratio.second} {hours[ratio.second]}, {significant(ratio.ratio)} times as many{band}"
    )


def _lines(model: PlannedModel) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for name, (words, style) in _LINES.items():
        if name in model.numbers:
            low, high = model.intervals[name]
            ends = (style(low), style(high)) if math.isfinite(low) else ("", "")
            band = f"{ends[0]} to {ends[1]}" if ends[0] != ends[1] else "–"
            rows.append({"": words, "value": style(model.numbers[name]), "interval": band})
    return pd.DataFrame(rows)
