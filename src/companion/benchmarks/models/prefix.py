"""Time to copy what a model keeps of a prefix, and whether a copy goes on like a model that read everything.

    python -m companion.benchmarks.models prefix [--models NAME ...] [--sizes SIZE ...] [--out FILE] ...

also as `companion bench prefix`. For every model and size: first the logits after a continued copy are checked against
one pass with float32 weights; a model that fails is not timed. Then a memory of prefixes of several lengths is copied,
into a new one (launch `eager`) and into one that is there (`graph`), as a server does for every request that goes on
from a cached prefix. The prefill that a copy spares is in the records of `inference`. Needs torch and a CUDA GPU;
`--device cpu` with `--sizes tiny` only tries the command.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from companion.benchmarks.models.models import SIZES, TINY
from companion.benchmarks.models.options import add_options, chosen, chosen_models, positive
from companion.benchmarks.models.session import Session

BENCHMARK = "model_prefix"
FILE = "model_prefix.jsonl"
#: Modules that decide what is measured and how, beside those of every suite.
MODULES = ("gate", "prefix_copies")
#: Sizes that are measured unless others are named.
USUAL_SIZES = ("400m", "7b")
#: Tokens of the prefixes.
PREFIXES = (1024, 4096, 16384, 65536)
#: How a copy is launched: into new memory, or as a graph into memory that is there.
LAUNCHES = ("eager", "graph")
_KEY = ("part", "model", "size", "quantity", "batch_size", "prompt_tokens", "launch")


def add_prefix_options(parser: argparse.ArgumentParser) -> None:
    """Options of both command lines."""
    add_options(parser, out=FILE)
    parser.set_defaults(suite="prefix")
    parser.add_argument("--prefixes", nargs="+", type=positive, metavar="P", help="tokens of prefixes (default: all)")


def run(options: argparse.Namespace) -> int:
    """Do what the options say. Exit status: 0 done, 1 a check or a cell failed.

    Raises
    ------
    InputError
        for options that are not known, without torch, or without the GPU that the options name.
    """
    cells = {pair: planned(*pair, options) for pair in chosen_models(options, SIZES) if wanted(pair[1], options)}
    if options.list:
        print("\n".join(f"{model} {size}: {words(found)}" for (model, size), found in cells.items()))
        return 0
    session = Session(options, BENCHMARK, MODULES, key=cell_of)
    from companion.benchmarks.models.prefix_copies import measure_copies

    left = {pair: [cell for cell in found if session.todo(cell)] for pair, found in cells.items()}
    session.total = sum(map(len, left.values()))
    for (model, size), found in left.items():
        if found and not session.out_of_time():
            try:
                measure_copies(session, model, size, found)
            finally:
                session.save()
    return 1 if session.num_failed else 0


def wanted(size: str, options: argparse.Namespace) -> bool:
    """Whether a size is measured: those that are named, or the usual ones."""
    return options.sizes is not None or size in (USUAL_SIZES[:1] if options.quick else USUAL_SIZES)


def planned(model: str, size: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Cells of a model and size, as the fields that name them.

    Raises
    ------
    InputError
        for a length that is not known.
    """
    lengths = chosen(options.prefixes, PREFIXES, "--prefixes")
    lengths = lengths[:2] if options.quick or size == TINY else lengths
    launches = LAUNCHES if options.device == "cuda" else LAUNCHES[:1]
    common = {"part": "prefix", "model": model, "size": size, "implementation": "companion", "batch_size": 1}
    return [{**common, "prompt_tokens": length, "launch": launch} for length in lengths for launch in launches]


def cell_of(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names a cell."""
    return tuple(fields.get(name) for name in _KEY)


def words(cells: list[dict[str, Any]]) -> str:
    """Cells in words."""
    lengths, launches = (dict.fromkeys(str(cell[key]) for cell in cells) for key in ("prompt_tokens", "launch"))
    return f"copies of {', '.join(lengths)} tokens, {' and '.join(launches)}"
