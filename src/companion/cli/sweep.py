"""`companion study plan | run | status | collect | claims`: a sweep of small models, from a design to its findings."""

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from companion.cli.commands import print_json, print_table
from companion.cli.options import add_bootstrap, add_json, add_level, positive, whole
from companion.errors import InputError
from companion.formatting import count, interval, percent, plural, power_of_ten, significant
from companion.hardware import get_hardware
from companion.runs.load import load_runs
from companion.study.claims import claims_frame, study_claims

_HOUR = 3600.0


def add_sweep(command: Callable[..., argparse.ArgumentParser], subparsers: Any) -> None:
    """`companion study` with its commands."""
    study = subparsers.add_parser(
        "study",
        help="plan, train, collect and judge a sweep of small models",
        description="Plan, train and collect a sweep, and judge claims on its runs.",
    )
    group = partial(command, to=study.add_subparsers(title="commands", metavar="COMMAND", required=True))
    parser = group(
        "plan",
        plan,
        "every run of a design with its predicted FLOPs, memory and time, before anything starts",
        "  companion study plan design.toml --folder my_sweep\n"
        "  companion study plan --example --folder tiny\n"
        "  companion study plan data/study_design.toml --records data/study_runs_records.jsonl.gz\n"
        "\n"
        "Planning again adds runs to the plan of the folder; runs that are trained stay trained.",
    )
    parser.add_argument("design", nargs="?", type=Path, metavar="DESIGN", help="a design (TOML)")
    parser.add_argument("--example", action="store_true", help="take the design that comes with the package")
    _add_folder(parser)
    parser.add_argument(
        "--hardware", default="h200-sxm", metavar="NAME", help="GPU of the predictions (default: %(default)s)"
    )
    parser.add_argument(
        "--utilization",
        type=positive,
        metavar="SHARE",
        help="of its peak FLOP/s that every run reaches (default: predicted from the shapes of each)",
    )
    parser.add_argument(
        "--records", type=Path, metavar="FILE", help="of `study collect`: its runs count as trained in this folder"
    )
    parser.add_argument("--replace", action="store_true", help="forget what was planned before")
    add_json(parser)

    parser = group(
        "run",
        run,
        "train what the plan has and the folder lacks; a sweep that was stopped goes on",
        "  companion study run --folder my_sweep\n"
        "  companion study run --folder my_sweep --workers 4\n"
        "  companion study run --folder my_sweep --scheduler tcp://host:8786\n"
        "\n"
        "Several workers may share a GPU: small models leave room. Exit status 1: a run failed.",
    )
    _add_folder(parser)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is a GPU")
    parser.add_argument("--workers", type=whole, default=1, metavar="N", help="processes (default: 1, this one)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler whose workers train")
    parser.add_argument("--max-seconds", type=positive, metavar="S", help="begin no run that would end later")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    add_json(parser)

    parser = group(
        "status",
        status,
        "how far a sweep is, and how long the rest will take",
        "  companion study status --folder my_sweep",
    )
    _add_folder(parser)
    add_json(parser)

    parser = group(
        "collect",
        collect_runs,
        "the records of a sweep as a run table, with logs and curves beside it",
        "  companion study collect --folder my_sweep --out runs.csv\n  companion fit runs.csv --architecture xlstm",
    )
    _add_folder(parser)
    parser.add_argument("--out", type=Path, default=Path("runs.csv"), metavar="FILE", help="default: %(default)s")
    add_json(parser)

    parser = group(
        "claims",
        claims,
        "which of the paper's claims about training a run table confirms or refutes, each with an interval",
        "  companion study claims runs.csv\n"
        "  companion study claims data/study_runs.csv --context-length 1024 --json\n"
        "\n"
        "Any run table with two architectures will do. A claim that its runs leave open says what would decide it.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="run table (CSV)")
    parser.add_argument("--first", default="xlstm", metavar="NAME", help="architecture (default: %(default)s)")
    parser.add_argument("--second", default="transformer", metavar="NAME", help="architecture (default: %(default)s)")
    parser.add_argument(
        "--context-length", type=whole, metavar="T", help="of claims that are not about contexts (default: most runs)"
    )
    add_bootstrap(parser)
    add_level(parser)
    add_json(parser)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, default=Path("study"), metavar="DIR", help="of plan and records (default: %(default)s)"
    )


def plan(arguments: argparse.Namespace) -> None:
    """`companion study plan`: write the plan, print a row per run and the totals."""
    with _torch():
        from companion.study.sweep.archive import unpack_records
        from companion.study.sweep.design import example_design, read_design
        from companion.study.sweep.plan import make_plan, write_plan
    if (arguments.design is None) != arguments.example:
        raise InputError("give a design, or --example")
    design = read_design(example_design() if arguments.example else arguments.design)
    made = make_plan(design, get_hardware(arguments.hardware), arguments.utilization)
    path = write_plan(made, arguments.folder, replace_all=arguments.replace)
    added = None if arguments.records is None else unpack_records(arguments.records, arguments.folder)
    table = made.table()
    if arguments.json:
        found = {"plan": str(path), "runs": table.to_dict("records"), "seconds": made.seconds}
        print_json(found if added is None else {**found, "records_added": added})
        return
    shown = table.drop(columns=["batch_size_seqs", "memory_bytes"])
    shown["seconds"] = shown["seconds"].map(lambda value: significant(value, 2))
    for name, style in (("isoflop_budget", power_of_ten), ("num_params", count), ("num_tokens", count)):
        shown[name] = ["" if pd.isna(value) else style(value) for value in shown[name]]
    shown["train_flops"] = shown["train_flops"].map(power_of_ten)
    print_table(shown)
    print(
        f"{plural(len(made.runs), 'run')}, {power_of_ten(made.train_flops)} FLOP, about {_duration(made.seconds)} on "
        f"one {get_hardware(arguments.hardware).label}, one run after the other; the largest takes "
        f"{count(table['memory_bytes'].max())} bytes"
    )
    if added is not None:
        print(f"{plural(added, 'record')} added from {arguments.records}")
    print(path)


def run(arguments: argparse.Namespace) -> int:
    """`companion study run`: train; say how each run ended. 1 if one failed."""
    with _torch():
        import torch

        from companion.study.sweep.execute import FAILED, Workers, run_plan
        from companion.study.sweep.plan import read_plan
    there = torch.cuda.is_available()
    device = arguments.device or ("cuda" if there else "cpu")
    if device == "cuda" and not there and arguments.scheduler is None:
        raise InputError("--device cuda: torch sees no GPU here")
    workers = Workers(
        device=device,
        number=arguments.workers,
        num_gpus=max(1, torch.cuda.device_count() if there else 1),
        scheduler=arguments.scheduler,
    )
    ended = run_plan(
        read_plan(arguments.folder),
        arguments.folder,
        workers,
        max_seconds=arguments.max_seconds,
        progress=not arguments.no_progress,
    )
    if arguments.json:
        print_json({"runs": [vars(each) for each in ended]})
    else:
        for each in ended:
            print(f"{each.run_id} {each.status}{': ' if each.reason else ''}{each.reason}")
        if not ended:
            print("nothing was trained: every run has its record, is being trained elsewhere, or would end too late")
    return int(any(each.status == FAILED for each in ended))


def status(arguments: argparse.Namespace) -> None:
    """`companion study status`: a row per part of the plan, and the time that is left."""
    with _torch():
        from companion.study.sweep.plan import read_plan
        from companion.study.sweep.status import run_states, seconds_left, summary
    states = run_states(read_plan(arguments.folder), arguments.folder)
    table, left = summary(states), seconds_left(states)
    damaged = [each.reason for each in states if each.state == "damaged"]
    if arguments.json:
        print_json({"parts": table.to_dict("records"), "seconds_left": left, "damaged": damaged})
        return
    table["train_flops"] = table["train_flops"].map(power_of_ten)
    table["done"] = table["done"].map(percent)
    table["seconds_left"] = table["seconds_left"].map(lambda value: significant(value, 2) if value else "0")
    print_table(table)
    for reason in damaged:
        print(reason)
    print(f"about {_duration(left)} are left on one GPU" if left else "all runs are trained")


def collect_runs(arguments: argparse.Namespace) -> None:
    """`companion study collect`: write the tables, say what they leave out."""
    with _torch():
        from companion.study.sweep.collect import collect, write_collected
        from companion.study.sweep.plan import read_plan
    found = collect(read_plan(arguments.folder), arguments.folder)
    paths = write_collected(found, arguments.out)
    if arguments.json:
        print_json({"files": [str(path) for path in paths], "runs": len(found.runs), "notes": list(found.notes)})
        return
    for note in found.notes:
        print(note)
    print(f"{plural(len(found.runs), 'run')}")
    for path in paths:
        print(path)


def claims(arguments: argparse.Namespace) -> None:
    """`companion study claims`: a line per claim with its verdict, its number, and what would decide it."""
    found = study_claims(
        load_runs(arguments.file),
        arguments.first,
        arguments.second,
        context_length=arguments.context_length,
        level=arguments.level,
        num_resamples=arguments.bootstrap,
        seed=arguments.seed,
    )
    if arguments.json:
        print_json({"claims": claims_frame(found).to_dict("records")})
        return
    for each in found:
        number, unit = "no number", f" {each.unit}" if each.unit else ""
        if math.isfinite(each.value):
            number = f"{significant(each.value)}{unit}, interval {interval((each.low, each.high))}"
        print(f"{each.verdict}: {each.statement}")
        print(f"  {each.quantity}: {number}, {plural(each.num_runs, 'run')}")
        if each.needed:
            print(f"  to decide it: {each.needed}")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{significant(seconds, 2)} s"
    return f"{significant(seconds / 60, 2)} min" if seconds < 2 * _HOUR else f"{significant(seconds / _HOUR, 2)} h"


@contextmanager
def _torch() -> Iterator[None]:
    """Within, an import that needs torch; without torch an error that says what to install."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"a study needs torch: pip install 'xlstm-scaling-companion[kernels]' ({error})") from error
