"""Options that every benchmark of models has, and which models they choose. Needs no torch."""

import argparse
from collections.abc import Sequence
from typing import Any

from companion.benchmarks.models.models import MODELS, TINY
from companion.errors import InputError


def add_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Options that every suite has; `out` is the file that records go to where none is named."""
    parser.add_argument("--models", nargs="+", metavar="NAME", help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--sizes", nargs="+", metavar="SIZE", help="of those that --list prints (default: all)")
    parser.add_argument("--quick", action="store_true", help="the smallest size and few cells only")
    parser.add_argument("--max-seconds", type=positive, metavar="S", help="begin no new cell after S seconds")
    parser.add_argument(
        "--cell-seconds", type=positive, default=10, metavar="S",
        help="leave out cells of which a repeat would take longer (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try the command")
    parser.add_argument("--out", default=out, metavar="FILE", help="append records here (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="leave out cells that the file holds already")
    parser.add_argument("--list", action="store_true", help="print models, sizes and cells, and do nothing")


def chosen(given: Sequence[Any] | None, known: Sequence[Any], option: str, more: Sequence[Any] = ()) -> list[Any]:
    """The values of an option in the order of `known`; all of these if none is given.

    Parameters
    ----------
    more
        values that are taken if they are named.

    Raises
    ------
    InputError
        for a value that is not known.
    """
    if given is None:
        return list(known)
    everything = [*known, *(value for value in more if value not in known)]
    for value in given:
        if value not in everything:
            raise InputError(f"{option}: {value!r} is not one of {', '.join(map(str, everything))}")
    return [value for value in everything if value in given]


def chosen_models(options: argparse.Namespace, sizes: Sequence[str]) -> list[tuple[str, str]]:
    """Models and sizes of the options, sizes first; `tiny` only where it is named.

    Raises
    ------
    InputError
        for a model or size that is not known.
    """
    models = chosen(options.models, MODELS, "--models")
    found = chosen(options.sizes, sizes, "--sizes", more=(TINY,))
    if options.quick and options.sizes is None:
        found = found[:1]
    return [(model, size) for size in found for model in models]


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)
