"""Time to the first token and time of a step, of a Transformer, grouped heads, an xLSTM and a hybrid, size by size.

    python -m companion.benchmarks.models inference [--models NAME ...] [--sizes SIZE ...] [--out FILE] ...

also as `companion bench inference`. For every model and size: first the timed paths are checked against float32
weights; a model that fails is not timed. Then prompts are read (part `prefill`) and tokens are added to contexts (part
`step`), by the fastest launch: compiled blocks and CUDA graphs. A cell that does not fit into memory is recorded with
what it needs. Beside them the Llama of the `transformers` library reads prompts, where that is installed. Needs torch
and a CUDA GPU; `--device cpu` with `--sizes tiny` only tries the command.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from companion.benchmarks.models.models import MODELS, SIZES, TINY
from companion.benchmarks.models.options import add_options, chosen, chosen_models, positive
from companion.benchmarks.models.session import Session, say
from companion.errors import InputError

BENCHMARK = "model_inference"
FILE = "model_inference.jsonl"
#: Modules that decide what is measured and how, beside those of every suite.
MODULES = ("gate", "peer", "serving")
PARTS = ("check", "prefill", "step")
IMPLEMENTATIONS = ("companion", "transformers")
#: Tokens of a prompt, and of the context that a step adds to.
PROMPTS = (128, 1024, 4096, 16384, 65536, 131072)
CONTEXTS = (0, 1024, 4096, 16384, 65536, 131072)
BATCHES = (1, 8, 64)
#: Prompts, models, attentions and launches of the other library, of one sequence each.
PEER_PROMPTS = (1024, 16384, 65536)
PEER_MODELS = ("transformer", "grouped")
PEER_ATTENTIONS = ("sdpa", "flash_attention_2")
#: Exit status after a fault of the GPU.
FAULT = 3
_KEY = ("part", "model", "size", "implementation", "quantity", "batch_size", "prompt_tokens")


def add_inference_options(parser: argparse.ArgumentParser) -> None:
    """Options of both command lines."""
    add_options(parser, out=FILE)
    parser.set_defaults(suite="inference")
    parser.add_argument("--part", nargs="+", metavar="PART", help=f"of {', '.join(PARTS[1:])} (default: both)")
    parser.add_argument(
        "--implementations", nargs="+", metavar="NAME", help=f"of {', '.join(IMPLEMENTATIONS)} (default: both)"
    )
    parser.add_argument(
        "--prompts", nargs="+", type=whole, metavar="T", help="tokens of prompts and contexts (default: all)"
    )
    parser.add_argument("--batches", nargs="+", type=positive, metavar="B", help="sequences at once (default: all)")
    parser.add_argument("--all-launches", action="store_true", help="record every launch, not only the fastest")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile: eagerly, and as CUDA graphs")


def run(options: argparse.Namespace) -> int:
    """Do what the options say. Exit status: 0 done, 1 a check or a cell failed, 3 the GPU reported a fault.

    Raises
    ------
    InputError
        for options that are not known, without torch, or without the GPU that the options name.
    """
    if options.device == "cpu" and not options.all_launches:
        options.no_compile = True  # code for a CPU says nothing of a GPU
    models = chosen_models(options, SIZES)
    cells = {pair: planned(*pair, options) for pair in models}
    if options.list:
        print("\n".join(listing(cells)))
        return 0
    session = Session(options, BENCHMARK, MODULES, key=cell_of)
    from companion.benchmarks.models.peer import measure_peer
    from companion.benchmarks.models.serving import DeviceFault, measure_model

    left = {pair: [cell for cell in found if session.todo(cell)] for pair, found in cells.items()}
    session.total = sum(map(len, left.values()))
    try:
        for (model, size), found in left.items():
            for measure, name in ((measure_model, "companion"), (measure_peer, "transformers")):
                own = [cell for cell in found if cell["implementation"] == name]
                if own and not session.out_of_time():
                    try:
                        measure(session, model, size, own)
                    finally:
                        session.save()
    except DeviceFault as error:
        say(f"error: the GPU reported a fault ({error}); what was measured is recorded: go on with --resume")
        return FAULT
    return 1 if session.num_failed else 0


def planned(model: str, size: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Cells of a model and size, in the order in which they are measured, as the fields that name them.

    Raises
    ------
    InputError
        for values of options that are not known.
    """
    parts = chosen(options.part, PARTS[1:], "--part")
    implementations = chosen(options.implementations, IMPLEMENTATIONS, "--implementations")
    lengths = chosen(options.prompts, sorted({*PROMPTS, *CONTEXTS}), "--prompts")
    batches = chosen(options.batches, BATCHES, "--batches")
    if options.quick:
        lengths = [length for length in lengths if length <= 1024]
        batches = [batch for batch in batches if batch <= 8]
    common = {"model": model, "size": size}
    found: list[dict[str, Any]] = []
    if "companion" in implementations:
        for part, known in (("prefill", PROMPTS), ("step", CONTEXTS)):
            found += [
                {"part": part, **common, "implementation": "companion", "prompt_tokens": length, "batch_size": batch}
                for length in lengths
                for batch in batches
                if part in parts and length in known
            ]
    if "transformers" in implementations and "prefill" in parts and 1 in batches and model in PEER_MODELS:
        one = {"part": "prefill", **common, "implementation": "transformers", "batch_size": 1}
        found += [
            {**one, "attention": attention, "launch": launch, "prompt_tokens": length}
            for attention in PEER_ATTENTIONS
            for launch in (("eager",) if options.no_compile else ("eager", "compiled"))
            for length in lengths
            if length in PEER_PROMPTS
        ]
    if not found and not options.quick:
        raise InputError(f"--part, --prompts, --batches and --implementations leave no cell of {model} {size}")
    return found


def cell_of(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names a cell: how it is launched does only of the other library, of which every launch is a cell."""
    more = ("attention", "launch") if fields.get("implementation") == "transformers" else ()
    return tuple(fields.get(name) for name in (*_KEY, *more))


def listing(cells: Mapping[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    """Models, sizes and cells in words."""
    lines = [f"models: {', '.join(MODELS)}", f"sizes: {', '.join(SIZES)} (and {TINY}, to try the command)", "cells:"]
    for (model, size), found in cells.items():
        for name in dict.fromkeys((cell["implementation"], cell["part"]) for cell in found):
            own = [cell for cell in found if (cell["implementation"], cell["part"]) == name]
            lengths, batches = (list(dict.fromkeys(c[key] for c in own)) for key in ("prompt_tokens", "batch_size"))
            lines.append(
                f"  {model} {size}, {', '.join(name)}: {len(own)} of {', '.join(map(str, lengths))} tokens, "
                f"{', '.join(map(str, batches))} sequences"
            )
    return lines


def whole(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
