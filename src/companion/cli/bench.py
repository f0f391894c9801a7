"""`companion bench`: measurements on the reader's own machine."""

import argparse
from collections.abc import Callable
from typing import Any

from companion.benchmarks.kernels.benchmark import add_options, run
from companion.benchmarks.models import inference, prefix, profiles, training


def add_bench(command: Callable[..., argparse.ArgumentParser], subparsers: Any) -> None:
    """Register the commands of `companion bench`; `command` is the maker of subparsers in `companion.cli.dispatch`."""
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
    parser = command(
        "inference",
        inference.run,
        "time to the first token and time of a step of whole models: Transformer, grouped heads, xLSTM, hybrid",
        "  companion bench inference --list\n"
        "  companion bench inference --quick --out mine.jsonl\n"
        "  companion bench inference --models xlstm transformer --sizes 7b --out mine.jsonl --resume\n"
        "  companion bench inference --sizes tiny --prompts 0 128 --batches 1 --device cpu   (without a GPU)",
        to=to,
    )
    inference.add_inference_options(parser)
    parser = command(
        "training",
        training.run,
        "time of a training step of whole models, launched eagerly, compiled, and as one CUDA graph",
        "  companion bench training --list\n"
        "  companion bench training --sizes 15m --contexts 2048 8192 --vocabulary 1024 --out mine.jsonl\n"
        "  companion bench training --models xlstm --launches compiled --out mine.jsonl --resume\n"
        "  companion bench training --sizes tiny --launches eager --device cpu   (without a GPU)",
        to=to,
    )
    training.add_training_options(parser)
    parser = command(
        "profile",
        profiles.run,
        "where the time of a step, of a layer of a prefill and of a training step goes, by component",
        "  companion bench profile --list\n"
        "  companion bench profile --part step --models xlstm transformer --out mine.jsonl\n"
        "  companion bench profile --sizes tiny --device cpu   (without a GPU)",
        to=to,
    )
    profiles.add_profile_options(parser)
    parser = command(
        "prefix",
        prefix.run,
        "time to copy what a model keeps of a prefix, and whether a copy goes on like the original",
        "  companion bench prefix --list\n"
        "  companion bench prefix --sizes 7b --out model_prefix.jsonl --resume\n"
        "  companion bench prefix --sizes tiny --device cpu   (without a GPU)",
        to=to,
    )
    prefix.add_prefix_options(parser)
