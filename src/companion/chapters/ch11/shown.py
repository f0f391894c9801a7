"""What chapter 11 works on: training logs, one context length, and the fronts and laws of every architecture there."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.applicability import choose_pair, need
from companion.errors import InputError
from companion.fitting.pareto import ParetoFront
from companion.hardware import Hardware, get_hardware
from companion.numeric import Array
from companion.training import gpu_hours_at_loss, law_fronts, load_training_logs, run_fronts, with_throughput
from companion.training.fronts import LawFronts, front_runs, usual_context_length
from companion.training.law_fronts import BEYOND, LawFront
from companion.training.throughput import ISOFLOP

#: Losses at which two architectures are compared, evenly spaced.
NUM_LOSSES = 25


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Training logs and what follows from them at one context length.

    Attributes
    ----------
    logs
        all logs, with throughput (`companion.training.with_throughput`).
    context_length
        tokens; that of the fronts.
    loss
        nats per token, at which GPU-hours are read off.
    group
        of the runs behind the fronts; None for all.
    hardware
        whose peak utilizations are shares of.
    fronts, laws
        fronts of loss over GPU-hours by architecture: of the runs, and by the law of the loss.
    of_paper
        the logs are those of the authors.
    notes
        what was chosen for the reader's table.
    """

    logs: pd.DataFrame
    context_length: int
    loss: float
    group: str | None
    hardware: Hardware
    fronts: dict[str, ParetoFront]
    laws: LawFronts
    of_paper: bool
    notes: tuple[str, ...]

    @cached_property
    def runs(self) -> dict[str, pd.DataFrame]:
        """The runs behind the fronts, by architecture."""
        return front_runs(self.logs, self.context_length, self.group)

    @cached_property
    def hours(self) -> pd.DataFrame:
        """GPU-hours to the loss (`companion.training.gpu_hours_at_loss`), the cheapest architecture first."""
        found = gpu_hours_at_loss(self.logs, self.loss, self.context_length, laws=self.laws, group=self.group)
        return found.sort_values("gpu_hours", kind="stable", na_position="last").reset_index(drop=True)

    @property
    def names(self) -> list[str]:
        """Architectures, the cheapest at the loss first."""
        return [str(name) for name in self.hours["architecture"]]

    def pair(self) -> tuple[str, str]:
        """The two architectures that are compared, the cheaper one first.

        Raises
        ------
        NotApplicable
            if there is one only.
        """
        chosen = choose_pair(self.names)
        first, second = sorted(chosen, key=self.names.index)
        return first, second

    def pair_laws(self) -> tuple[LawFront, LawFront]:
        """The laws of these two.

        Raises
        ------
        NotApplicable
            if there is one architecture only, or one of them has no law.
        """
        for name in self.pair():
            need(name in self.laws, f"{name} has no law of the loss: {self.laws.reasons.get(name, 'no finished run')}")
        first, second = (self.laws[name] for name in self.pair())
        return first, second

    def common_losses(self) -> Array:
        """Losses that the runs of both architectures were made for, nats per token, ascending.

        The fronts of both reach them, and by the laws neither takes less compute than its smallest run: below, a
        cheaper run would do, which nobody made.

        Raises
        ------
        NotApplicable
            if there are none.
        """
        laws, fronts = self.pair_laws(), [self.fronts[name] for name in self.pair()]
        low, high = max(front.loss[-1] for front in fronts), min(front.loss[0] for front in fronts)
        need(low < high, "the two architectures reach no common loss")
        grid = np.linspace(low, high, 201)
        inside = np.ones(grid.size, dtype=bool)
        for law in laws:
            flops = law.minima(grid)["train_flops"][:, 0]
            least, most = law.flops_range
            inside &= (flops >= least) & (flops <= most * BEYOND)
        need(inside.sum() > 1, "there is no loss that the runs of both architectures were made for")
        return np.linspace(grid[inside][0], grid[inside][-1], NUM_LOSSES)


def load_costs(
    logs_file: str | Path | None,
    context_length: int | None,
    loss: float | None,
    hardware: str,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Costs:
    """The logs of the chapter with fronts and laws; without a file those of the authors.

    A context length or a loss that a reader's table does not have is replaced by one that it has; a note says so.

    Raises
    ------
    InputError
        if the file cannot be read or is not a table of training logs, if no run is finished, or if the authors' logs
        lack the context length.
    """
    with warnings.catch_warnings():  # the page shows the notes; a warning would name folders of the machine
        warnings.simplefilter("ignore", UserWarning)
        loaded = load_training_logs(logs_file)
    device = get_hardware(hardware)
    logs = with_throughput(loaded, device)
    logs.attrs["source"] = "the authors' logs" if logs_file is None else Path(logs_file).name
    group = ISOFLOP if "group" in logs and (logs["group"] == ISOFLOP).any() else None
    notes = list(loaded.attrs["notes"])
    chosen = usual_context_length(logs, group) if context_length is None else context_length
    if logs_file is not None and not (logs["context_length"] == chosen).any():
        usual = usual_context_length(logs, group)
        notes.append(f"no run has T = {chosen}: the chapter shows T = {usual}")
        chosen = usual
    fronts = run_fronts(logs, chosen, group=group)
    level, note = usable_loss(fronts, loss)
    return Costs(
        logs=logs,
        context_length=chosen,
        loss=level,
        group=group,
        hardware=device,
        fronts=fronts,
        laws=law_fronts(logs, chosen, num_resamples=num_resamples, seed=seed, group=group),
        of_paper=logs_file is None,
        notes=(*notes, *([note] if note else [])),
    )


def usable_loss(fronts: dict[str, ParetoFront], loss: float | None) -> tuple[float, str]:
    """The loss itself if some front reaches it; else the middle of the losses that the fronts share, and a note.

    Raises
    ------
    InputError
        if there is no front.
    """
    if not fronts:
        raise InputError("no architecture has a front of loss over GPU-hours")
    ends = [(float(front.loss[-1]), float(front.loss[0])) for front in fronts.values()]
    if loss is not None and any(low <= loss <= high for low, high in ends):
        return float(loss), ""
    low, high = max(low for low, _ in ends), min(high for _, high in ends)
    if low > high:  # nothing in common: that of the first
        low, high = ends[0]
    middle = round((low + high) / 2, 3)
    middle = middle if low <= middle <= high else (low + high) / 2
    return middle, "" if loss is None else f"no front reaches a loss of {loss:g}: the chapter shows {middle:g}"


def each_row(table: pd.DataFrame) -> Iterator[Any]:
    """The rows of a table, its columns as attributes."""
    return iter(table.itertuples())
