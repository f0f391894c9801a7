"""`companion bench`: measurements on the reader's own machine."""

import argparse
from collections.abc import Callable
from typing import Any

from companion.benchmarks.kernels.benchmark import add_options, run


def add_bench(command: Callable[..., argparse.ArgumentParser], subparsers: Any) -> None:
    """Register `companion bench kernels`; `command` is the maker of subparsers in `companion.cli.dispatch`."""
    group = subparsers.add_parser("bench", help="measure on this machine", description="Measure on this machine.")
    to = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = command(
        "kernels",
        run,
        "correctness and speed of the mLSTM kernels beside plain torch, published kernels and attention",
        "  companion bench kernels --list\n"
        "  companion bench kernels --quick --out mine.jsonl\n"
        "  companion bench kernels --part checks step-checks configurations --processes 16 --out checks.jsonl\n"
        "  companion bench kernels --part forward training --cases 8x256x512 T8192 --out mine.jsonl --resume\n"
        "  TRITON_INTERPRET=1 companion bench kernels --part checks --cases tiny --device cpu   (without a GPU)",
        to=to,
    )
    add_options(parser)
