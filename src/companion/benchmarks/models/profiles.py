"""`companion bench profile`: where the time of a pass goes, by component, beside the roofline of the accounting.

Three passes: a generated token, one layer of a prefill, and a training step, each as one CUDA graph. A kernel belongs
to the component that launched it; time between kernels is a component of its own (`gaps`). Layer and training step are
launched in parts that are compiled one by one (`companion.benchmarks.models.profile_parts`), which takes a little
longer than compiled blocks.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from companion.architectures import Architecture
from companion.benchmarks.models.models import TINY, shapes_of
from companion.benchmarks.models.options import add_options, chosen, positive
from companion.benchmarks.models.profile_counts import COMPONENTS, PARTS, component_costs
from companion.benchmarks.models.session import Session, say
from companion.benchmarks.models.training import OWN_SIZES, SIZES, architecture_to_train
from companion.errors import InputError

NAME = "model_profile"
#: Modules that decide what is measured.
MODULES = ("training_step", "profile_parts", "profile_trace", "profile_counts")
MODELS = ("transformer", "xlstm")
#: Size, tokens of a sequence, and sequences of each pass.
PASSES = {"step": ("7b", 16_384, 1), "prefill_layer": ("7b", 16_384, 1), "training": ("400m", 8192, 8)}
TINY_PASSES = {"step": (TINY, 64, 1), "prefill_layer": (TINY, 64, 1), "training": (TINY, 64, 4)}
KEY = ("part", "model", "size", "context_length", "batch_size")


def add_profile_options(parser: argparse.ArgumentParser) -> None:
    """Options of `companion bench profile`."""
    add_options(parser, f"{NAME}.jsonl")
    parser.add_argument("--part", nargs="+", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--context", type=positive, metavar="T", help="tokens of a sequence, if not the part's own")
    parser.set_defaults(suite="profile")


def run(options: argparse.Namespace) -> int:
    """Profile what the options ask for. Exit status 1 if a pass in parts is not the pass.

    Raises
    ------
    InputError
        for an option that is wrong, or without the device.
    """
    plan = plan_of(options)
    if options.list:
        for each in plan:
            print(", ".join(f"{name} {value}" for name, value in each.items()))
        return 0
    session = Session(options, NAME, MODULES, key=cell_of)
    plan = [fields for fields in plan if session.todo(fields)]
    failed = 0
    for fields in plan:
        if session.out_of_time():
            break
        from companion.benchmarks.models.profile_trace import profile  # here: it needs torch

        architecture, part = architecture_of_pass(fields), fields["part"]
        try:
            trace = profile(part, architecture, fields["context_length"], fields["batch_size"], session.device)
        except ArithmeticError as error:
            say(f"{part} {fields['model']} {fields['size']}: {error}")
            failed = 1
            continue
        session.results += rows_of(fields, architecture, trace, session.parameters)
        for row in session.results:
            say(summary(row))
        session.save()
    return failed


def cell_of(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names a pass."""
    return tuple(fields.get(name) for name in KEY)


def plan_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Fields of every pass that the options ask for.

    Raises
    ------
    InputError
        for a part, model or size that is not known, and where there is no such layer.
    """
    parts = chosen(options.part, PARTS, "--part")
    models = chosen(options.models, MODELS, "--models", more=("grouped", "hybrid"))
    sizes = None if options.sizes is None else chosen(options.sizes, ("7b", *SIZES), "--sizes", more=(*OWN_SIZES, TINY))
    plan = []
    for part in parts:
        for model in models:
            if part == "prefill_layer" and model == "hybrid":
                if options.models and options.part:
                    raise InputError("prefill_layer: a hybrid has layers of two kinds: name grouped or xlstm")
                continue
            for size in sizes or [PASSES[part][0]]:
                _, context, batch_size = (TINY_PASSES if size == TINY else PASSES)[part]
                if options.context:
                    batch_size = max(1, batch_size * context // options.context)
                    context = options.context
                plan.append(
                    {"part": part, "model": model, "size": size, "context_length": context, "batch_size": batch_size}
                )
    return plan


def architecture_of_pass(fields: dict[str, Any]) -> Architecture:
    """The architecture of a pass; of `prefill_layer` with one layer."""
    a = architecture_to_train(fields["model"], fields["size"])
    if fields["part"] != "prefill_layer":
        return a
    shapes = {name: value for name, value in shapes_of(a).items() if name != "name"}
    return type(a)(**{**shapes, "n_layers": 1})


def rows_of(
    fields: dict[str, Any], architecture: Architecture, trace: dict[str, Any], peaks: dict[str, Any]
) -> list[dict[str, Any]]:
    """One result for every component with time, FLOPs or bytes, and `whole` for all of them.

    Parameters
    ----------
    trace
        `seconds` and `kernels` by component, `attention`, `launch`.
    peaks
        `matmul_flops_per_s` and `copy_bytes_per_s`, or None: then there is no roofline.
    """
    costs = component_costs(architecture, fields["part"], fields["context_length"], fields["batch_size"])
    rates = (peaks["matmul_flops_per_s"], peaks["copy_bytes_per_s"])
    total = sum(trace["seconds"].values())
    shared = {"shapes": shapes_of(architecture), "attention": trace["attention"], "launch": trace["launch"]}
    rows = []
    for component in COMPONENTS:
        seconds, cost = trace["seconds"].get(component, 0.0), costs.get(component)
        flops, moved = (0.0, 0.0) if cost is None else (cost.flops, cost.bytes)
        if not (seconds or flops or moved):
            continue
        least = None if None in rates else (0.0 if cost is None else cost.seconds(*rates))
        rows.append({
            **fields, "component": component, "seconds": seconds, "flops": flops, "bytes": moved,
            "roofline_seconds": least, "share": seconds / total, "kernels": trace["kernels"].get(component), **shared,
        })  # fmt: skip
    sums = {name: sum(row[name] for row in rows) for name in ("seconds", "flops", "bytes", "share")}
    least = None if None in rates else sum(row["roofline_seconds"] for row in rows)
    return [*rows, {**fields, "component": "whole", **sums, "roofline_seconds": least, "kernels": None, **shared}]


def summary(row: dict[str, Any]) -> str:
    """A component in one line."""
    least = "" if row["roofline_seconds"] is None else f", roofline {1e3 * row['roofline_seconds']:.4g} ms"
    where = f"{row['part']} {row['model']} {row['size']}"
    return f"{where}: {row['component']}: {1e3 * row['seconds']:.4g} ms, share {row['share']:.3f}{least}"
