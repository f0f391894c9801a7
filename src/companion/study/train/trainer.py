"""Training one model from its recipe to its record, with checkpoints between. Needs torch."""

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from companion.benchmarks.models.timed import release
from companion.errors import InputError
from companion.models.model import check_tokens
from companion.study.corpus.base import Corpus
from companion.study.train.checkpoint import DamagedCheckpoint, checkpoint_path, read_checkpoint, write_checkpoint
from companion.study.train.determinism import deterministic
from companion.study.train.group import Group
from companion.study.train.history import diverged_after
from companion.study.train.interrupts import Interrupts
from companion.study.train.recipe import Recipe
from companion.study.train.records import read_record, record_path, write_record
from companion.study.train.result import Progress, evaluation_of, record_of
from companion.study.train.setting import (
    check_corpus,
    locked,
    memory_error,
    on_device,
    open_for,
    usable_device,
    usable_launch,
)
from companion.study.train.step import TrainingStep

#: Steps between two looks at the losses, at most, and tokens that are drawn ahead for them.
BLOCK_STEPS, BLOCK_TOKENS = 64, 2**24
#: Seconds after which a bar appears.
_BAR_AFTER = 2.0


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    device: torch.device | str | None = None,
    corpus: Corpus | None = None,
    launch: str | None = None,
    micro_batch: int | None = None,
    checkpoint_seconds: float = 120.0,
    progress: bool = True,
    stop_after: int | None = None,
    processes_per_gpu: int | None = 1,
) -> dict[str, Any]:
    """The record of a run: the one in the folder, or that of the run done now.

    A run that was ended (by SIGINT, SIGTERM, or a machine that failed) goes on from its checkpoint, with the same
    losses bit by bit as if it had not been: on the same machine, with the same versions, launch and `micro_batch`.
    Nothing in a run is random but its first weights.

    Parameters
    ----------
    folder
        for `RUN_ID.json`, and until that is there `RUN_ID.pt` and `RUN_ID.lock`; made if missing.
    device
        `cuda`, `cuda:1`, `cpu`; the first GPU if there is one, else the CPU.
    corpus
        the one of the recipe, if it is open already.
    launch
        of `eager`, `compiled`, `graph`. On a GPU by default `graph`, or `compiled` where several processes train: the
        reduction of their gradients is not captured. On a CPU `eager`.
    micro_batch
        sequences of one forward and backward pass, where a whole batch does not fit: gradients are added up. The run
        is the same but for the order of sums.
    checkpoint_seconds
        between two checkpoints, at least.
    progress
        whether to show a bar on stderr, for runs of more than two seconds.
    stop_after
        end after so many steps, with a checkpoint; the result is then `{"status": "stopped", "run_id", "step"}`.
    processes_per_gpu
        how many train on this GPU at once, None where nobody knows: the record keeps it, since times are those of a run
        alone only where it is 1.

    Returns
    -------
    dict
        see `companion.study.train.records`; `status` is `finished` or `diverged`; `stopped` as with `stop_after` where
        another thread asked for it (`companion.study.train.interrupts.stop_runs`).

    Raises
    ------
    RunInProgress
        if another process trains it.
    InputError
        if the recipe and the corpus do not fit together, the device is missing or its memory too small, or a file
        cannot be read or written.
    KeyboardInterrupt, SystemExit
        for SIGINT and SIGTERM, after a checkpoint.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from companion.architectures import make_architecture
    >>> a = make_architecture("transformer", d_model=32, n_layers=1, n_heads=2, vocab_size=64)
    >>> run = {"corpus": "source:vocab_size=64", "context_length": 32, "batch_size_seqs": 8, "train_steps": 20}
    >>> recipe = Recipe(architecture=a, **run, learning_rate=3e-3, held_out_sequences=16)
    >>> with TemporaryDirectory() as folder:
    ...     record = train(recipe, folder, device="cpu", progress=False)
    >>> record["status"], record["num_tokens"], record["loss_floor"] < record["val_loss"]
    ('finished', 5120, True)
    """
    if not checkpoint_seconds >= 0:
        raise InputError(f"checkpoint_seconds: {checkpoint_seconds} is not a time of at least 0")
    group = Group.current()
    folder = Path(folder)
    place = usable_device(device, group)
    chosen = usable_launch(launch, place, group)
    path = record_path(folder, recipe.run_id)

    def there() -> dict[str, Any] | None:
        return read_record(path) if os.path.lexists(path) else None

    with on_device(place):
        if (found := group.once(there)) is not None:
            return found
        with locked(folder, recipe.run_id, group), Interrupts(recipe.run_id) as interrupts:
            if (found := group.once(there)) is not None:  # another process may have finished it meanwhile
                return found
            try:
                with deterministic():
                    run = _Run(recipe, folder, place, group, corpus, micro_batch, processes_per_gpu)
                    run.prepare(chosen)
                    result = run.go(interrupts, checkpoint_seconds, progress, stop_after)
                    del run
            except RuntimeError as error:
                if (missing := memory_error(error, recipe, micro_batch, group)) is None:
                    raise
                raise missing from error
            if place.type == "cuda":
                release(place.type)  # to processes that share the GPU
    interrupts.leave()
    return result


class _Run:
    """A run while it is trained."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        group: Group,
        corpus: Corpus | None,
        micro_batch: int | None,
        processes_per_gpu: int | None,
    ) -> None:
        self.recipe, self.folder, self.device, self.group = recipe, folder, device, group
        self.processes_per_gpu = processes_per_gpu
        self.corpus = open_for(recipe) if corpus is None else corpus
        check_corpus(recipe, self.corpus)
        self.step = TrainingStep(recipe, device, group, micro_batch)
        self.held_out = self.corpus.held_out(recipe.held_out_sequences, recipe.context_length, device)
        check_tokens(recipe.architecture, self.held_out)
        self.progress = Progress.start(recipe)
        self.path = checkpoint_path(folder, recipe.run_id)

    def prepare(self, launch: str) -> None:
        """Compile and capture the step, and go to where a checkpoint is."""
        begin = time.perf_counter()
        self.step.prepare(launch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        compiled = time.perf_counter() - begin
        kept = self.group.once(self._resume)
        if kept is not None:
            self.progress = kept
            self.group.spread_(self.step.state().values())
        self.progress.seconds_compile += compiled

    def go(
        self, interrupts: Interrupts, checkpoint_seconds: float, progress: bool, stop_after: int | None
    ) -> dict[str, Any]:
        """Train to the end, to a signal, or for some steps."""
        recipe, done = self.recipe, self.progress
        last = recipe.train_steps if stop_after is None else min(recipe.train_steps, done.step + max(0, stop_after))
        saved, diverged = time.monotonic(), None
        shown: dict[str, Any] = {"desc": recipe.run_id, "unit": "step", "delay": _BAR_AFTER, "file": sys.stderr}
        hidden = not progress or self.group.rank > 0
        with tqdm(total=recipe.train_steps, initial=done.step, disable=hidden, **shown) as bar:
            while done.step < last and diverged is None:
                if self.group.any(interrupts.stopping, self.device):
                    break
                self._block(min(last, self._next_evaluation()), interrupts, saved + checkpoint_seconds, bar)
                diverged = diverged_after(recipe, done.losses[: done.step])
                if diverged is None and done.step in recipe.evaluation_steps:
                    diverged = self._evaluate()
                bar.set_postfix(loss=f"{done.losses[done.step - 1]:.4f}", refresh=False)
                if time.monotonic() - saved >= checkpoint_seconds and done.step < last:
                    self._save()
                    saved = time.monotonic()
        if diverged is None and done.step < recipe.train_steps:
            self._save()
            return {"status": "stopped", "run_id": recipe.run_id, "step": done.step}
        return self._finish(diverged)

    def _next_evaluation(self) -> int:
        return next(step for step in self.recipe.evaluation_steps if step > self.progress.step)

    def _block(self, last: int, interrupts: Interrupts, due: float, bar: Any) -> None:
        """Some steps, at most to `last`, and then one look at their losses; fewer if a signal or a checkpoint waits."""
        recipe, done, step = self.recipe, self.progress, self.step
        number = max(1, min(BLOCK_STEPS, BLOCK_TOKENS // recipe.tokens_per_step, last - done.step))
        begin = time.perf_counter()
        tokens = self._draw(done.step, number)
        first: Any = done.step + np.arange(number)
        rates = torch.as_tensor(recipe.learning_rate_at(first), dtype=torch.float32, device=self.device)
        outcomes = torch.zeros(number, 2, device=self.device)
        made = 0
        for made in range(1, number + 1):
            step.tokens.copy_(tokens[made - 1])
            step.rate.copy_(rates[made - 1])
            step.make()
            outcomes[made - 1].copy_(step.outcome)
            bar.update()
            # together, several processes look at the end of a block alone, since all must make as many steps
            if self.group.size == 1 and (interrupts.stopping or time.monotonic() >= due):
                break
        values = outcomes[:made].cpu().numpy()
        done.seconds += time.perf_counter() - begin
        done.losses[done.step : done.step + made], done.grad_norms[done.step : done.step + made] = values.T
        done.step += made

    def _draw(self, step: int, number: int) -> Tensor:
        """Tokens (number, b, T + 1) of some steps: sequences of a batch follow each other, and so do batches."""
        recipe, group = self.recipe, self.group
        batch, own, length = recipe.batch_size_seqs, group.part(recipe.batch_size_seqs), recipe.context_length
        if group.size == 1:
            tokens = self.corpus.sequences(step * batch, number * batch, length, self.device)
        else:
            firsts = [(step + later) * batch + group.rank * own for later in range(number)]
            tokens = torch.cat([self.corpus.sequences(first, own, length, self.device) for first in firsts])
        check_tokens(recipe.architecture, tokens)
        return tokens.view(number, own, length + 1)

    def _evaluate(self) -> int | None:
        """Measure the held-out loss; the step if it is not finite."""
        done = self.progress
        losses = self.group.once(lambda: self.step.sequence_losses(self.held_out))
        done.evaluations.append(evaluation_of(done.step, losses))
        return done.step if done.evaluations[-1]["val_loss"] is None else None

    # ---- files ----------------------------------------------------------------------------------

    def _resume(self) -> Progress | None:
        """Weights and moments of the checkpoint, and how far it is; None without one, or with one that is damaged."""
        try:
            kept = read_checkpoint(self.path, self.recipe.run_id)
            if kept is None:
                return None
            losses, norms = kept["losses"].numpy(), kept["grad_norms"].numpy()
            self._load(kept["state"])
        except DamagedCheckpoint as error:
            warnings.warn(f"{error}; the run begins again", stacklevel=2)
            return None
        return Progress(losses=losses, grad_norms=norms, **kept["progress"])

    def _load(self, state: dict[str, Tensor]) -> None:
        try:
            self.step.load(state)
        except InputError as error:
            raise DamagedCheckpoint(f"{self.path}: {error}") from error

    def _save(self) -> None:
        done = self.progress
        self._note_memory()
        names = ("step", "evaluations", "seconds", "seconds_compile", "peak_memory_bytes")
        if self.group.rank == 0:
            state = {
                "run_id": self.recipe.run_id,
                "progress": {name: getattr(done, name) for name in names},
                "losses": torch.from_numpy(done.losses),
                "grad_norms": torch.from_numpy(done.grad_norms),
                "state": self.step.state(),
            }
            write_checkpoint(self.path, state)

    def _note_memory(self) -> None:
        if self.device.type == "cuda":
            highest = int(torch.cuda.max_memory_allocated(self.device)) - self.step.foreign_bytes
            self.progress.peak_memory_bytes = max(highest, self.progress.peak_memory_bytes or 0)

    def _finish(self, diverged: int | None) -> dict[str, Any]:
        """Write the record, and remove the checkpoint."""
        if diverged is not None:
            self.progress.step = diverged
        self._note_memory()

        def written() -> dict[str, Any]:
            gpus = self.group.size if self.device.type == "cuda" else 0
            where: dict[str, Any] = {"launch": self.step.launch, "device": self.device, "num_gpus": gpus}
            where["processes_per_gpu"] = self.processes_per_gpu
            record = record_of(self.recipe, self.progress, self.corpus, diverged=diverged is not None, **where)
            path = write_record(self.folder, record)
            self.path.unlink(missing_ok=True)
            return read_record(path)

        return self.group.once(written)
