"""A backend that trains: every ask is a real run of a small model, by `companion.study.train`.

The same ask finds the record of its run, so it has the same answer; a run that was interrupted goes on from its
checkpoint. FLOP are known before a run starts and are charged exactly. Hours of a GPU are predicted; what is charged is
what was measured, and at most the prediction, so that a budget cannot be overspent by a slow machine.

The target is trained with a seed that no ask has, on the same tokens. Nobody knows the best run there, so scores have
no part for the choice; the distance to the loss floor is shown where the corpus knows its floor.

What the ledger keeps honest, and what not: it holds what was asked, in order, and its budget. Whoever trains models
beside it leaves no trace, and so does whoever reads a checkpoint or copies the folder: there is no hidden world to keep
from anyone.

Importing this module needs no torch; training and opening a corpus do.
"""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from companion.errors import InputError
from companion.formatting import count, significant
from companion.study.laboratory.asks import Ask
from companion.study.laboratory.backend import Cost, Outcome, Regret
from companion.study.laboratory.chance import is_number
from companion.study.laboratory.rules import Rules
from companion.study.laboratory.training_corpus import needs_torch, open_known
from companion.study.laboratory.training_runs import cost_of, final_seed, recipe_of, trained
from companion.study.train.needed import FIXED_BYTES, predicted_memory_bytes
from companion.study.train.recipe import Recipe
from companion.study.train.records import DamagedRecord, read_record, record_path, set_aside

if TYPE_CHECKING:
    from companion.study.corpus.base import Corpus

#: A CPU keeps float32 where a GPU keeps bfloat16.
_CPU_TIMES = 2.0


@dataclass(frozen=True)
class Trainer:
    """Trains the runs of a laboratory; a backend and a referee.

    Attributes
    ----------
    rules
        of the laboratory: what is trained, and where.
    folder
        of records and checkpoints; made by the first run.
    progress
        show a bar on stderr for runs of more than two seconds.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from companion.study.laboratory.training_setup import training_rules
    >>> rules = training_rules("source:vocab_size=16", device="cpu", context_length=16, budget=1e10, target_flops=1e11)
    >>> ask = Ask(architecture="xlstm", num_params=60_000, num_tokens=2560, learning_rate=3e-3, batch_size_seqs=8)
    >>> ask = ask.checked(rules)
    >>> with TemporaryDirectory() as folder:
    ...     trainer = Trainer(rules, Path(folder), progress=False)
    ...     first, again = trainer.run(ask), trainer.run(ask)
    >>> first == again, first.train_flops == trainer.cost(ask).train_flops
    (True, True)
    """

    rules: Rules
    folder: Path
    progress: bool = True

    def cost(self, ask: Ask) -> Cost:
        """FLOP, which are exact, and predicted hours of the device."""
        return cost_of(ask, self.rules)

    def run(self, ask: Ask) -> Outcome:
        """Train it, or find its record.

        Raises
        ------
        InputError
            if it cannot be trained here: no torch, no such device, too little memory, another corpus.
        """
        return self._outcome(recipe_of(ask, self.rules), ask)

    def final(self, ask: Ask) -> Outcome:
        """As `run`, with the seed of the target."""
        return self._outcome(self._final_recipe(ask), ask)

    def regret(self, ask: Ask, outcome: Outcome, target_flops: float) -> Regret | None:
        """None: nobody knows the best run."""
        return None

    def loss_floor(self, ask: Ask) -> tuple[float, float] | None:
        """Lowest mean loss that any model can reach there, nats per token, and its standard error.

        It is that of the record of the target; None without one, or where the corpus does not know its floor.
        """
        try:
            record = read_record(record_path(self.folder, self._final_recipe(ask).run_id))
        except InputError:
            return None
        floor, error = record["loss_floor"], record["loss_floor_stderr"]
        return (float(floor), float(error)) if is_number(floor) and is_number(error) else None

    def check_possible(self, asks: Sequence[Ask]) -> None:
        """Raise an InputError for the first ask that cannot be trained on this device with this corpus."""
        with needs_torch():
            from companion.study.train.group import Group
            from companion.study.train.setting import check_corpus, usable_device
        if not asks:
            return
        device = usable_device(trained(self.rules).device, Group.current())
        there = _memory_bytes(device)
        for ask in asks:
            recipe = recipe_of(ask, self.rules)
            check_corpus(recipe, self.corpus)
            needed = predicted_memory_bytes(recipe)
            if device.type == "cpu":
                needed = _CPU_TIMES * (needed - FIXED_BYTES)
            if needed > there:
                raise InputError(
                    f"batch_size_seqs {ask.batch_size_seqs}: a run of {count(ask.num_params)} parameters needs about "
                    f"{significant(needed / 2**30)} GiB of memory, {device} has {significant(there / 2**30)} GiB: take "
                    "a smaller batch or a smaller model"
                )

    @cached_property
    def corpus(self) -> "Corpus":
        """The corpus of the rules, opened.

        Raises
        ------
        InputError
            if it cannot be opened, or its tokens are not those that the laboratory was made with.
        """
        return open_known(trained(self.rules))

    # ---- one run -----------------------------------------------------------------------------------

    def _final_recipe(self, ask: Ask) -> Recipe:
        return recipe_of(ask, self.rules, seed=final_seed(ask, self.rules))

    def _outcome(self, recipe: Recipe, ask: Ask) -> Outcome:
        """From the record of a run; one that cannot be read is kept under another name, and the run is done again."""
        try:
            return self._read(self._record(recipe), recipe, ask)
        except DamagedRecord as error:
            kept = set_aside(record_path(self.folder, recipe.run_id))
            warnings.warn(f"{str(error).split('; delete')[0]}: kept as {kept.name}; trained again", stacklevel=3)
        return self._read(self._record(recipe), recipe, ask)

    def _record(self, recipe: Recipe) -> dict[str, Any]:
        with needs_torch():
            from companion.study.train import train
        return train(recipe, self.folder, device=trained(self.rules).device, corpus=self.corpus, progress=self.progress)

    def _read(self, record: dict[str, Any], recipe: Recipe, ask: Ask) -> Outcome:
        """What a record says; it is damaged if its loss, its steps or its time cannot be."""
        loss, step, seconds = record["val_loss"], record["step"], record["seconds"]
        finished = record["status"] == "finished"
        possible = (
            (is_number(loss) and loss > 0 if finished else loss is None)
            and isinstance(step, int)
            and (step == recipe.train_steps if finished else 0 < step <= recipe.train_steps)
            and is_number(seconds)
            and seconds > 0
        )
        if not possible:
            path = record_path(self.folder, recipe.run_id)
            raise DamagedRecord(f"{path}: val_loss, step or seconds cannot be those of the run")
        cost, share, hours = self.cost(ask), step / recipe.train_steps, seconds / 3600
        if self.rules.unit == "gpu_hours":
            hours = min(hours, cost.gpu_hours)
        return Outcome(val_loss=loss, train_flops=share * cost.train_flops, gpu_hours=hours, share_done=share)


def _memory_bytes(device: Any) -> float:
    """Memory of a device, all of it; infinite where the system does not say."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Unix
        return math.inf
