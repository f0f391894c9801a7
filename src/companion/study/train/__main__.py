"""`python -m companion.study.train RECIPE.json --folder DIR`: train one run, by one process or by those of torchrun."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from companion.errors import InputError
from companion.study.train.files import read_json
from companion.study.train.recipe import Recipe

#: Largest recipe that is read, bytes.
_MAX_BYTES = 2**20
_EXAMPLES = """
examples:
  python -m companion.study.train recipe.json --folder runs
  torchrun --nproc-per-node 4 -m companion.study.train recipe.json --folder runs
      every process takes its part of each batch; the run and its files are the same

The recipe is what `Recipe.to_dict()` gives. A run that was ended goes on where its checkpoint is; one that is finished
is not run again. Exit status: 0 finished, 1 diverged or stopped, 2 wrong input.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of the command: 0 finished, 1 diverged or stopped, 2 wrong input."""
    options = parser().parse_args(arguments)
    try:
        recipe = read_recipe(options.recipe)
        with processes(options.device):
            return run(recipe, options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(
        prog="python -m companion.study.train",
        description="Train one language model from a recipe, and write its record RUN_ID.json.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("recipe", type=Path, metavar="RECIPE.json", help="what to train")
    made.add_argument("--folder", type=Path, required=True, metavar="DIR", help="for the record and checkpoints")
    made.add_argument("--device", metavar="NAME", help="cuda, cuda:1 or cpu (default: a GPU if there is one)")
    made.add_argument("--launch", metavar="NAME", help="eager, compiled or graph (default: the fastest there is)")
    made.add_argument("--micro-batch", type=int, metavar="N", help="sequences of a pass, where a batch does not fit")
    seconds = "between checkpoints, at least (default: %(default)g)"
    made.add_argument("--checkpoint-seconds", type=float, default=120.0, metavar="S", help=seconds)
    made.add_argument("--stop-after", type=int, metavar="N", help="end after N steps, with a checkpoint")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    made.add_argument("--json", action="store_true", help="print the whole record")
    return made


def run(recipe: Recipe, options: argparse.Namespace) -> int:
    """Train, and let process 0 print what came of it."""
    from companion.study.train.group import Group  # here: these need torch
    from companion.study.train.trainer import train

    result = train(
        recipe,
        options.folder,
        device=options.device,
        launch=options.launch,
        micro_batch=options.micro_batch,
        checkpoint_seconds=options.checkpoint_seconds,
        progress=not options.quiet,
        stop_after=options.stop_after,
    )
    if Group.current().rank == 0:
        print(json.dumps(result, ensure_ascii=False, allow_nan=False) if options.json else summary(result))
    return 0 if result["status"] == "finished" else 1


def summary(result: dict[str, Any]) -> str:
    """One line about a record, or about a run that was stopped.

    Examples
    --------
    >>> summary({"status": "stopped", "run_id": "0123456789abcdef", "step": 20})
    '0123456789abcdef stopped after step 20'
    """
    text = f"{result['run_id']} {result['status']} after step {result['step']}"
    if result["status"] != "finished":
        return text
    error = result["val_loss_stderr"]
    spread = "" if error is None else f" ± {error:.4f}"
    return (
        f"{text}: held-out loss {result['val_loss']:.4f}{spread} nats per token, {result['seconds']:.1f} s of training"
    )


def read_recipe(path: Path) -> Recipe:
    """The recipe of a JSON file.

    Raises
    ------
    InputError
        that names the file and what is wrong.
    """
    values = read_json(path, _MAX_BYTES)
    try:
        return Recipe.from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


@contextmanager
def processes(device: str | None) -> Iterator[None]:
    """Within, the processes that torchrun started are a group: over NCCL on GPUs, over gloo on a CPU."""
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield
        return
    import torch  # here: wrong input is reported without loading torch
    import torch.distributed as dist

    on_gpu = torch.cuda.is_available() and not (device or "cuda").startswith("cpu")
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise InputError(
            f"WORLD_SIZE is {size}, and the processes cannot join: {reason}; start them by torchrun"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
