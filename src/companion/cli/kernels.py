"""`companion kernels`: kernels compiled before they are needed."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from companion.architectures import ARCHITECTURES, PRESET_SIZES, preset
from companion.cli.commands import print_json, print_table
from companion.cli.options import add_json, whole
from companion.errors import InputError
from companion.formatting import plural

_DTYPES = ("bfloat16", "float16", "float32")
_PASSES = ("forward", "backward", "step")


def add_kernels(command: Callable[..., argparse.ArgumentParser], subparsers: Any) -> None:
    """Register `companion kernels warm-up`; `command` is the maker of subparsers in `companion.cli.dispatch`."""
    group = subparsers.add_parser(
        "kernels", help="compile kernels before they are needed", description="Compile kernels before they are needed."
    )
    to = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = command(
        "warm-up",
        warm_up,
        "compile the Triton kernels of the mLSTM for the GPU of this machine, so that no first call waits for them",
        "  companion kernels warm-up --shape 4x128x256 --shape 8x256x512\n"
        "  companion kernels warm-up --model xlstm --size 160m 7b --passes forward backward\n"
        "  companion kernels warm-up --heads 8 --d-qk 256 --d-hv 512 --dtype bfloat16 float32 --batch-size 8\n"
        "  companion kernels warm-up --model xlstm --size 7b --list   (what would be compiled; needs no GPU)\n"
        "\n"
        "Kernels go to Triton's cache (TRITON_CACHE_DIR, by default ~/.triton/cache), where processes on a GPU of the\n"
        "same kind find them.",
        to=to,
    )
    parser.add_argument(
        "--shape",
        action="append",
        type=_shape,
        default=[],
        metavar="HxQKxHV",
        help="number of heads, their d_qk and d_hv, such as 8x256x512 (repeatable)",
    )
    for option, meaning in (
        ("--heads", "number of heads, with --d-qk and --d-hv: one more shape"),
        ("--d-qk", "width of queries and keys of a head, from 16 to 512"),
        ("--d-hv", "width of values of a head, from 16 to 512"),
    ):
        parser.add_argument(option, type=whole, metavar="N", help=meaning)
    parser.add_argument("--model", choices=tuple(ARCHITECTURES), help="heads of models of this architecture")
    parser.add_argument("--size", nargs="+", choices=PRESET_SIZES, help="of --model, the paper's (default: all)")
    parser.add_argument("--dtype", nargs="+", choices=_DTYPES, default=_DTYPES[:1], help="default: bfloat16")
    parser.add_argument(
        "--chunk-size", type=whole, metavar="L", help="tokens per chunk (default: the operator's choice)"
    )
    parser.add_argument("--passes", nargs="+", choices=_PASSES, default=_PASSES, help="default: all of them")
    parser.add_argument(
        "--batch-size", nargs="+", type=whole, metavar="B", help="of calls to come (default: 1 4 16 64)"
    )
    parser.add_argument(
        "--context-length", nargs="+", type=whole, metavar="T", help="of calls to come (default: 2048 8192 16384)"
    )
    parser.add_argument("--gate", default="exponential", choices=("exponential", "sigmoid"), help="of the input")
    parser.add_argument("--initial-state", action="store_true", help="also calls that go on from a state")
    parser.add_argument("--list", action="store_true", help="print what would be compiled, and compile nothing")
    add_json(parser)


def warm_up(arguments: argparse.Namespace) -> None:
    """`companion kernels warm-up`: compile; say what was compiled, how long it took and where it is."""
    named = _shapes(arguments)
    try:
        from triton import knobs

        from companion.kernels.mlstm import warm_up as work
    except ImportError as error:
        raise InputError(f"kernels warm-up needs torch and Triton (extra 'kernels', on Linux): {error}") from error
    shapes = [_heads(work, arguments, *entry, dtype) for entry in named.items() for dtype in arguments.dtype]
    result: dict[str, Any] = {
        "shapes": [_row(heads) for heads in shapes],
        "passes": list(arguments.passes),
        "gate": arguments.gate,
        "cache": str(knobs.cache.dir),
    }
    if not arguments.list:
        result |= _compile(work, arguments, shapes)
    if arguments.json:
        return print_json(result)
    print_table(pd.DataFrame(result["shapes"]))
    if not arguments.list:
        print()
        print_table(pd.DataFrame(result["kernels"].items(), columns=["kernel", "compiled"]))
        number = plural(sum(result["kernels"].values()), "kernel")
        print(f"\n{number} for {', '.join(result['passes'])} in {result['seconds']:.1f} s")
    print(f"Triton's cache: {result['cache']}")
    return None


def _compile(work: Any, arguments: argparse.Namespace, shapes: list[Any]) -> dict[str, Any]:
    """How often each kernel was compiled, and seconds of all."""
    options = {"batch_sizes": arguments.batch_size, "context_lengths": arguments.context_length}
    begun = time.perf_counter()
    with _bar() as report:
        names = work.warm_up(
            shapes,
            passes=arguments.passes,
            gate=arguments.gate,
            initial_state=arguments.initial_state,
            device=work.usable_gpu(),
            report=report,
            **{name: value for name, value in options.items() if value},
        )
    return {"kernels": dict(Counter(names).most_common()), "seconds": time.perf_counter() - begun}


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A bar with the time left on stderr, if that is a terminal and tqdm is there: what draws it, or None."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    with tqdm(desc="kernels", disable=not sys.stderr.isatty()) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not number of heads, d_qk and d_hv, such as 8x256x512")
    n_heads, d_qk, d_hv = map(int, parts)
    return n_heads, d_qk, d_hv


def _shapes(arguments: argparse.Namespace) -> dict[tuple[int, int, int], str]:
    """Heads, d_qk and d_hv of all shapes, each once, and the options that named them."""
    found = {shape: f"--shape {'x'.join(map(str, shape))}" for shape in arguments.shape}
    options = {"--heads": arguments.heads, "--d-qk": arguments.d_qk, "--d-hv": arguments.d_hv}
    given = {name: value for name, value in options.items() if value is not None}
    if given and len(given) < len(options):
        missing = ", ".join(name for name in options if name not in given)
        raise InputError(f"missing {missing} (or give --shape)")
    if given:
        found.setdefault(tuple(given.values()), " ".join(f"{name} {value}" for name, value in given.items()))
    if arguments.size and not arguments.model:
        raise InputError(f"--size {' '.join(arguments.size)}: of which architecture? Give --model")
    if arguments.model:
        mixers = [
            layers.mixer
            for size in arguments.size or PRESET_SIZES
            for layers in preset(arguments.model, size).layers
            if layers.mixer.name == "mlstm"
        ]
        if not mixers:
            raise InputError(f"--model {arguments.model}: its layers have no mLSTM")
        for mixer in mixers:
            found.setdefault((int(mixer.n_heads), int(mixer.d_qk), int(mixer.d_hv)), f"--model {arguments.model}")
    if not found:
        raise InputError("no shapes: give --shape, --heads with --d-qk and --d-hv, or --model")
    return found


def _heads(work: Any, arguments: argparse.Namespace, shape: tuple[int, int, int], named: str, dtype: str) -> Any:
    """What kernels are compiled for; a wrong value is named by its option."""
    import torch

    try:
        return work.Heads(*shape, getattr(torch, dtype), arguments.chunk_size)
    except InputError as error:
        name, _, words = str(error).partition(": ")
        if name == "chunk_size":
            raise InputError(f"--chunk-size {words}") from error
        raise InputError(f"{named}: {name} {words}") from error


def _row(heads: Any) -> dict[str, Any]:
    return {
        "heads": heads.n_heads,
        "d_qk": heads.d_qk,
        "d_hv": heads.d_hv,
        "dtype": str(heads.dtype).removeprefix("torch."),
        "chunk_size": heads.tokens_per_chunk,
    }
