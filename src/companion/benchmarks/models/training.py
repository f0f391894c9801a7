"""`companion bench training`: the time of a training step of 65,536 tokens, for sequences from 512 to 65,536 tokens.

A step is the forward and backward pass of a model with random weights on random tokens, AdamW, and the release of the
gradients; weights float32, products bfloat16 by autocast. It is launched eagerly, compiled, and as one CUDA graph of
the compiled step. Nothing is timed whose loss and gradients are further from plain torch in float32 than rounding
explains.
"""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

from companion.architectures import Architecture
from companion.benchmarks.models.inference import FAULT
from companion.benchmarks.models.models import TINY, Widths, architecture_from, architecture_of, shapes_of
from companion.benchmarks.models.options import add_options, chosen, positive
from companion.benchmarks.models.session import KEY, Session, say

NAME = "model_training"
#: Modules that decide what is measured.
MODULES = ("gate", "training_step", "training_checks", "training_cells")
#: Models that are trained; `grouped` too where it is named.
MODELS = ("transformer", "xlstm", "hybrid")
#: Sizes besides the paper's presets, by their weights outside of embeddings: width, layers and heads of the Transformer
#: and of the xLSTM. With the vocabulary of the presets, 86m is 160m.
OWN_SIZES: dict[str, tuple[Widths, Widths]] = {
    "5m": ((256, 6, 4), (256, 6, 4)),
    "15m": ((384, 8, 6), (384, 8, 6)),
    "86m": ((768, 12, 12), (768, 12, 6)),
}
SIZES = ("5m", "15m", "160m", "400m", "1.4b")
#: Sizes whose blocks are run again in the backward pass instead of keeping what they compute.
RECOMPUTED = ("1.4b",)
TOKENS = 65_536
CONTEXTS = tuple(2**k for k in range(9, 17))
#: Fewer cells where a launch or a size takes long: each adds what the others do not show.
EAGER_CONTEXTS, LARGE_CONTEXTS = (1024, 8192, 32_768), (1024, 8192, 65_536)
LAUNCHES = ("eager", "compiled", "compiled graph")
VOCABULARY = 50_304
#: Tokens, contexts and vocabulary of the size for tests.
TINY_TOKENS, TINY_CONTEXTS, TINY_VOCABULARY = 256, (64, 128), 256


class Cell(NamedTuple):
    """One time: a context length and how the step is launched."""

    context_length: int
    launch: str


def architecture_to_train(model: str, size: str, vocabulary: int = VOCABULARY) -> Architecture:
    """The architecture of a model and a size of `SIZES`, `86m`, or `tiny`.

    Raises
    ------
    InputError
        for a model or a size that is not known.

    Examples
    --------
    >>> architecture_to_train("hybrid", "15m").layers[1].number
    1
    """
    if size in OWN_SIZES:
        return architecture_from(model, *OWN_SIZES[size], vocab_size=vocabulary)
    a = architecture_of(model, size)
    if size == TINY or vocabulary == a.vocab_size:
        return a
    shapes = {name: value for name, value in shapes_of(a).items() if name not in ("name", "vocab_size")}
    return type(a)(**shapes, vocab_size=vocabulary)


def cells_of(options: argparse.Namespace, model: str, size: str) -> list[Cell]:
    """The cells of a model and a size that the options ask for, all of a launch after one another.

    Without a GPU there are no graphs, and of the mLSTM no compiled steps: its plain form is a loop over chunks.

    Raises
    ------
    InputError
        for a context or a launch that is not known.
    """
    known = TINY_CONTEXTS if size == TINY else CONTEXTS
    usual = LARGE_CONTEXTS if size in RECOMPUTED else known
    if options.quick:
        usual = usual[:2]
    contexts = chosen(options.contexts, known, "--contexts") if options.contexts else usual
    on_cpu = LAUNCHES[: 2 if model in ("transformer", "grouped") else 1]
    available = LAUNCHES if options.device == "cuda" else on_cpu
    wanted = chosen(options.launches, available, "--launches") if options.launches else available
    cells = []
    for launch in wanted:
        # a large model waits for its GPU, not for its launches: eagerly and in a graph only where they are named
        if size in RECOMPUTED and launch != "compiled" and not options.launches:
            continue
        some = contexts
        if launch == "eager" and not options.contexts and size != TINY:
            some = [context for context in contexts if context in EAGER_CONTEXTS]
        cells += [Cell(context, launch) for context in some]
    return cells


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Options of `companion bench training`."""
    add_options(parser, f"{NAME}.jsonl")
    parser.add_argument("--contexts", nargs="+", type=positive, metavar="T", help="tokens of a sequence")
    parser.add_argument("--launches", nargs="+", metavar="NAME", help=f"of {', '.join(LAUNCHES)}")
    rows = "rows of the embedding (default: %(default)s)"
    parser.add_argument("--vocabulary", type=positive, default=VOCABULARY, metavar="V", help=rows)
    parser.set_defaults(suite="training")


def run(options: argparse.Namespace) -> int:
    """Measure what the options ask for. Exit status: 0 done, 1 a check or a cell failed, 3 the GPU reported a fault.

    Raises
    ------
    InputError
        for an option that is wrong, or without the device.
    """
    plan = plan_of(options)
    if options.list:
        for model, size, cells in plan:
            contexts = sorted({cell.context_length for cell in cells})
            launches = dict.fromkeys(cell.launch for cell in cells)
            print(f"{model} {size}: {len(cells)} cells: {', '.join(map(str, contexts))} tokens; {', '.join(launches)}")
        return 0
    session = Session(options, NAME, MODULES, key=cell_of)
    fields = [fields_of(options, model, size, cell) for model, size, cells in plan for cell in cells]
    session.total = sum(session.todo(each) for each in fields)
    from companion.benchmarks.models.serving import DeviceFault  # here: these need torch
    from companion.benchmarks.models.training_cells import measure

    for model, size, cells in plan:
        left = [each for cell in cells if session.todo(each := fields_of(options, model, size, cell))]
        if left and not session.out_of_time():
            try:
                measure(session, architecture_to_train(model, size, options.vocabulary), left)
            except DeviceFault as error:
                say(f"error: the GPU reported a fault ({error}); what was measured is recorded: go on with --resume")
                return FAULT
            finally:
                session.save()
    return 1 if session.num_failed else 0


def cell_of(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names a cell."""
    return tuple(fields.get(name) for name in (*KEY, "vocabulary"))


def plan_of(options: argparse.Namespace) -> list[tuple[str, str, list[Cell]]]:
    """Models, sizes and their cells, the smallest first; without hybrids that are too flat to have attention."""
    models = chosen(options.models, MODELS, "--models", more=("grouped",))
    sizes = chosen(options.sizes, SIZES, "--sizes", more=(*OWN_SIZES, TINY))
    if options.quick and options.sizes is None:
        sizes = sizes[:1]
    plan = []
    for size in sizes:
        for model in models:
            a = architecture_to_train(model, size, options.vocabulary)
            if model != "hybrid" or all(int(layer.number) for layer in a.layers):
                plan.append((model, size, cells_of(options, model, size)))
    return plan


def fields_of(options: argparse.Namespace, model: str, size: str, cell: Cell) -> dict[str, Any]:
    """What a cell is, before it is measured."""
    tokens = TINY_TOKENS if size == TINY else TOKENS
    return {
        "part": "training",
        "model": model,
        "size": size,
        "implementation": "companion",
        "launch": cell.launch,
        "context_length": cell.context_length,
        "batch_size": tokens // cell.context_length,
        "tokens_per_step": tokens,
        "recompute": size in RECOMPUTED,
        "vocabulary": TINY_VOCABULARY if size == TINY else options.vocabulary,
    }
