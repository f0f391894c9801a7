"""Options of `companion lab` that several of its commands share, and what they describe."""

import argparse

from companion.cli.options import count, level, positive, whole
from companion.errors import InputError
from companion.hardware import REFERENCE_HARDWARE
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.asks_table import read_asks
from companion.study.laboratory.rules import ARCHITECTURES, LAWS, SCHEDULES, Rules


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Budget, target and world of a laboratory, or of a class."""
    rules = Rules()
    parser.add_argument("--budget", type=positive, metavar="C", help=f"FLOP to spend (default: {rules.budget:g})")
    parser.add_argument("--gpu-hours", type=positive, metavar="H", help="GPU-hours to spend, instead of FLOP")
    parser.add_argument(
        "--hardware", default=REFERENCE_HARDWARE, metavar="NAME", help="row of data/hardware.csv (default: %(default)s)"
    )
    parser.add_argument(
        "--target",
        type=positive,
        default=rules.target_flops,
        metavar="C",
        help="FLOP of the run to predict (default: %(default)g)",
    )
    parser.add_argument(
        "--law", choices=tuple(LAWS), default=rules.law, help="what worlds are drawn around (default: %(default)s)"
    )
    parser.add_argument(
        "--context-length",
        type=whole,
        default=rules.context_length,
        metavar="T",
        help="tokens per sequence (default: %(default)s)",
    )
    parser.add_argument("--hybrid", action="store_true", help="a third architecture, half attention and half mLSTM")
    parser.add_argument("--level", type=level, default=rules.level, help="of the interval (default: %(default)s)")


def rules_of(arguments: argparse.Namespace) -> Rules:
    """The rules that the options of `add_rules` describe."""
    if arguments.budget is not None and arguments.gpu_hours is not None:
        raise InputError("--budget and --gpu-hours exclude each other: give one")
    in_hours = arguments.gpu_hours is not None
    return Rules(
        unit="gpu_hours" if in_hours else "flops",
        budget=arguments.gpu_hours if in_hours else arguments.budget or Rules().budget,
        target_flops=arguments.target,
        context_length=arguments.context_length,
        architectures=(*ARCHITECTURES, "hybrid") if arguments.hybrid else ARCHITECTURES,
        law=arguments.law,
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
