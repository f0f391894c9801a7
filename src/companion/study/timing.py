"""Times of what a study does: drawing tokens from the source, and training steps by launch.

`python -m companion.study.timing` measures them on a GPU and appends a record to `data/benchmarks/study.jsonl`. Tokens
are compared with those of the CPU first, and the first loss of every launch with that of an eager step. Needs torch.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from tqdm import tqdm

from companion.benchmarks.models.timed import release
from companion.benchmarks.records import deliver, new_record
from companion.errors import InputError
from companion.study.corpus.source import Source
from companion.study.sweep.ladder import KINDS, LADDER, study_architecture
from companion.study.train.determinism import deterministic
from companion.study.train.needed import peak_flops_of, predicted_memory_bytes
from companion.study.train.recipe import Recipe
from companion.study.train.result import device_name
from companion.study.train.step import LAUNCHES, TrainingStep

NAME = "study"
#: Sizes that are timed if none are named, and documents of a draw: a batch, and those of a block of steps.
SIZES, DOCUMENTS = ("0.3m", "1.2m", "5m", "17m", "55m"), (32, 64, 2048, 16384)
#: Steps, or draws, of one time; the least of `REPEATS` times counts.
STEPS, REPEATS = 12, 3
#: How far the first loss of a launch may be from the eager one, nats per token: sums in bfloat16 in another order.
TOLERANCE = 0.02


def time_draws(source: Source, context_length: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """Results for draws of `DOCUMENTS` documents: `documents`, `context_length`, `seconds`, `tokens_per_s`.

    Raises
    ------
    ArithmeticError
        if a token differs from that of the CPU.
    """
    few = 8
    if not torch.equal(
        source.sequences(5, few, context_length, device).cpu(), source.sequences(5, few, context_length)
    ):
        raise ArithmeticError(f"{source.name}: tokens on {device} differ from those on the CPU")
    for number in DOCUMENTS:

        def draw(number: int = number) -> None:
            source.sequences(0, number, context_length, device)

        draw()
        seconds = _seconds(draw, device)
        yield {
            "part": "draw",
            "documents": number,
            "context_length": context_length,
            "seconds": seconds,
            "tokens_per_s": number * context_length / seconds,
        }


def time_steps(recipe: Recipe, source: Source, device: torch.device, *, ordered: bool) -> Iterator[dict[str, Any]]:
    """Results of one recipe, a launch each: `launch`, `seconds_per_step`, `seconds_first`, `utilization`, memory.

    Parameters
    ----------
    ordered
        whether with deterministic algorithms, as `train` does.

    Raises
    ------
    ArithmeticError
        if the first loss of a launch is not that of an eager step.
    """
    peak = peak_flops_of(device_name(device))
    flops = recipe.train_flops / recipe.train_steps
    eager = None
    for launch in LAUNCHES if device.type == "cuda" else LAUNCHES[:1]:
        with deterministic() if ordered else nullcontext():
            release(device.type)
            begin = time.perf_counter()
            step = TrainingStep(recipe, device)
            step.tokens.copy_(source.sequences(0, recipe.batch_size_seqs, recipe.context_length, device))
            step.prepare(launch)
            step.make()
            loss = float(step.outcome[0])
            first = time.perf_counter() - begin
            eager = loss if eager is None else eager
            if not abs(loss - eager) <= TOLERANCE:
                raise ArithmeticError(f"{recipe.architecture}: first loss {loss} {launch}, {eager} eager")
            seconds = _seconds(step.make, device)
        yield {
            "part": "step",
            "num_params": recipe.num_params,
            "context_length": recipe.context_length,
            "tokens_per_step": recipe.tokens_per_step,
            "deterministic": ordered,
            "launch": step.launch,
            "seconds_per_step": seconds,
            "seconds_first": first,
            "train_flops_per_step": flops,
            "utilization": flops / (seconds * peak) if peak else None,
            "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            "predicted_memory_bytes": predicted_memory_bytes(recipe),
        }
        del step


def _seconds(action: Callable[[], None], device: torch.device) -> float:
    """Of one call: the least of some times of several."""
    found = []
    for _ in range(REPEATS):
        _wait(device)
        begin = time.perf_counter()
        for _ in range(STEPS):
            action()
        _wait(device)
        found.append((time.perf_counter() - begin) / STEPS)
    return min(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _recipe(kind: str, size: str, source: Source, context_length: int, tokens_per_step: int) -> Recipe:
    if tokens_per_step % context_length:
        raise InputError(
            f"--tokens-per-step {tokens_per_step}: no whole number of sequences of {context_length} tokens"
        )
    return Recipe(
        architecture=study_architecture(kind, size, source.vocab_size),
        corpus=source.name,
        context_length=context_length,
        batch_size_seqs=tokens_per_step // context_length,
        train_steps=1000,
        learning_rate=1e-3,
    )


def measure(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Results of all parts: those of `time_draws`, and of `time_steps` with `architecture` and `size`."""
    source = Source(vocab_size=options.vocab_size)
    found = list(time_draws(source, options.context_length, device))
    cells = [(kind, size, True) for kind in options.architectures for size in options.sizes]
    cells += [(kind, size, False) for kind, size, _ in cells if kind == "transformer"]  # what the order of sums costs
    for kind, size, ordered in tqdm(cells, unit="model", file=sys.stderr, disable=options.no_progress):
        recipe = _recipe(kind, size, source, options.context_length, options.tokens_per_step)
        label = {"architecture": kind, "size": size}
        found += [{**label, **each} for each in time_steps(recipe, source, device, ordered=ordered)]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line per result, append the record. Exit status 2 for bad input, 1 for a wrong result."""
    parser = argparse.ArgumentParser(
        prog="python -m companion.study.timing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--architectures", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME")
    parser.add_argument("--sizes", nargs="+", choices=LADDER, default=list(SIZES), metavar="SIZE", help="of the ladder")
    parser.add_argument("--vocab-size", type=int, default=1024, metavar="V", help="of the source (default: 1024)")
    parser.add_argument("--context-length", type=int, default=1024, metavar="T", help="default: 1024")
    parser.add_argument("--tokens-per-step", type=int, default=65536, metavar="N", help="default: 65536")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument(
        "--out", metavar="FILE", help="append here (default: study.jsonl in data/benchmarks of the checkout; - prints)"
    )
    options = parser.parse_args(arguments)
    try:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: torch sees no GPU here")
        device = torch.device(options.device)
        results = measure(options, device)
        parameters = {
            "device": device_name(device),
            "steps": STEPS,
            "repeats": REPEATS,
            **{name: getattr(options, name) for name in ("vocab_size", "context_length", "tokens_per_step")},
        }
        packages = ("numpy", "torch", "triton") if device.type == "cuda" else ("numpy", "torch")
        given = sys.argv[1:] if arguments is None else arguments
        command = " ".join(["python -m companion.study.timing", *given])
        deliver(new_record(NAME, command, parameters, results, packages), options.out, "study.jsonl", _lines(results))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ArithmeticError as error:
        print(f"wrong: {error}", file=sys.stderr)
        return 1
    return 0


def _lines(results: Sequence[dict[str, Any]]) -> str:
    return "\n".join(", ".join(f"{name} {_short(value)}" for name, value in each.items()) for each in results)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
