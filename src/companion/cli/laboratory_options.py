"""Options of `companion lab` that several of its commands share, and what they describe."""

import argparse

from companion.cli.options import count, level, positive, whole
from companion.errors import InputError
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.asks_table import read_asks
from companion.study.laboratory.rules import ARCHITECTURES, LAWS, SCHEDULES, SIMULATOR, TRAINING, Rules
from companion.study.laboratory.training_rules import DEVICES
from companion.study.laboratory.training_setup import USUAL, training_rules
from companion.study.sweep.ladder import LADDER

_DEVICE_NAMES = {"cpu": "a CPU", "cuda": "a GPU"}


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Budget, target and world of a laboratory, or of a class."""
    rules = Rules()
    parser.add_argument("--budget", type=positive, metavar="C", help=f"FLOP to spend (default: {rules.budget:g})")
    parser.add_argument("--gpu-hours", type=positive, metavar="H", help="GPU-hours to spend, instead of FLOP")
    parser.add_argument(
        "--hardware",
        metavar="NAME",
        help=f"row of data/hardware.csv, for GPU-hours (default: {rules.hardware}; this GPU where it trains)",
    )
    parser.add_argument(
        "--target", type=positive, metavar="C", help=f"FLOP of the run to predict (default: {rules.target_flops:g})"
    )
    parser.add_argument("--law", choices=tuple(LAWS), help=f"what worlds are drawn around (default: {rules.law})")
    parser.add_argument(
        "--context-length", type=whole, metavar="T", help=f"tokens per sequence (default: {rules.context_length})"
    )
    parser.add_argument("--hybrid", action="store_true", help="a third architecture: layers of attention and of mLSTM")
    parser.add_argument("--level", type=level, default=rules.level, help="of the interval (default: %(default)s)")


def _usual(device: str) -> str:
    usual = USUAL[device]
    return (
        f"a budget of {usual.budget:g} FLOP, a target of {usual.target_flops:g},\na context length of "
        f"{usual.context_length}, the corpus {usual.corpus}, and sizes from {usual.sizes[0]} to {usual.sizes[-1]}"
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """The backend, and what is trained by `--backend training`."""
    parser.add_argument(
        "--backend",
        choices=(SIMULATOR, TRAINING),
        default=SIMULATOR,
        help="who answers: a simulated world, or models that are trained here (default: %(default)s)",
    )
    group = parser.add_argument_group(
        "with --backend training",
        "\n".join(f"On {name} the defaults are {_usual(device)}." for device, name in _DEVICE_NAMES.items()),
    )
    group.add_argument("--corpus", metavar="NAME", help="source, source:vocab_size=256, text:FOLDER, dataset:NAME")
    group.add_argument("--device", choices=DEVICES, help="default: cuda where torch sees a GPU")
    group.add_argument("--sizes", metavar="SIZE,...", help=f"of {', '.join(LADDER)}")


def rules_of(arguments: argparse.Namespace) -> Rules:
    """The rules that the options of `add_rules` describe, and those of `add_training` where a parser has them."""
    if arguments.budget is not None and arguments.gpu_hours is not None:
        raise InputError("--budget and --gpu-hours exclude each other: give one")
    in_hours = arguments.gpu_hours is not None
    unit, budget = ("gpu_hours", arguments.gpu_hours) if in_hours else ("flops", arguments.budget)
    if arguments.backend == TRAINING:
        return _rules_of_training(arguments, unit, budget)
    for name in ("corpus", "device", "sizes"):
        if getattr(arguments, name, None) is not None:
            raise InputError(f"--{name}: a simulated world has none; it goes with --backend {TRAINING}")
    usual = Rules()
    return Rules(
        unit=unit,
        budget=budget or usual.budget,
        target_flops=arguments.target or usual.target_flops,
        context_length=arguments.context_length or usual.context_length,
        architectures=(*ARCHITECTURES, "hybrid") if arguments.hybrid else ARCHITECTURES,
        law=arguments.law or usual.law,
        level=arguments.level,
        hardware=arguments.hardware or usual.hardware,
    )


def _rules_of_training(arguments: argparse.Namespace, unit: str, budget: float | None) -> Rules:
    for name in ("law", "world"):
        if getattr(arguments, name, None) is not None:
            raise InputError(f"--{name}: there is no hidden world where runs are trained; leave it out")
    return training_rules(
        arguments.corpus,
        device=arguments.device,
        sizes=None if arguments.sizes is None else [size.strip() for size in arguments.sizes.split(",")],
        context_length=arguments.context_length,
        unit=unit,
        budget=budget,
        target_flops=arguments.target,
        hybrid=arguments.hybrid,
        level=arguments.level,
        hardware=arguments.hardware,
    )


def add_run_options(parser: argparse.ArgumentParser, required: bool) -> None:
    """The run that is asked for, or chosen for the target."""
    parser.add_argument("--architecture", required=required, metavar="NAME", help="one that the rules list")
    parser.add_argument("--num-params", required=required, type=whole, metavar="N", help="parameters")
    parser.add_argument("--num-tokens", type=whole, metavar="D", help="tokens, rounded to whole steps")
    parser.add_argument("--learning-rate", required=required, type=positive, metavar="LR", help="its peak")
    parser.add_argument("--batch", required=required, type=whole, metavar="B", help="sequences per step")
    parser.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate (default: cosine)")
    parser.add_argument("--warmup-steps", type=count, metavar="S", help="default: 5 %% of the steps")
    parser.add_argument("--seed", type=count, help="of the run (default: 0)")


def asks_of(arguments: argparse.Namespace) -> list[Ask]:
    """The asks of a table, or the one of the options."""
    options = {
        "--architecture": arguments.architecture, "--num-params": arguments.num_params,
        "--num-tokens": arguments.num_tokens, "--learning-rate": arguments.learning_rate, "--batch": arguments.batch,
    }  # fmt: skip
    others = {
        "--schedule": arguments.schedule, "--warmup-steps": arguments.warmup_steps, "--seed": arguments.seed,
    }  # fmt: skip
    if arguments.table is not None:
        if given := [name for name, value in (options | others).items() if value is not None]:
            raise InputError(f"--table holds whole runs: leave out {', '.join(given)}")
        return read_asks(arguments.table)
    if missing := [name for name, value in options.items() if value is None]:
        raise InputError(f"a run needs {', '.join(missing)}; or give a table of runs with --table")
    return [one_ask(arguments, arguments.num_tokens)]


def one_ask(arguments: argparse.Namespace, num_tokens: int) -> Ask:
    return Ask(
        architecture=arguments.architecture,
        num_params=arguments.num_params,
        num_tokens=num_tokens,
        learning_rate=arguments.learning_rate,
        batch_size_seqs=arguments.batch,
        schedule=arguments.schedule or "cosine",
        warmup_steps=arguments.warmup_steps,
        seed=arguments.seed or 0,
    )
