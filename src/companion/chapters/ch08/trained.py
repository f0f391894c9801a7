"""Chapter 8: the compute-optimal models that are compared, from the laws of a run table, and their comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from companion.chapters.applicability import need_identified, select_runs
from companion.errors import InputError, NotApplicable
from companion.fitting.fit import fit
from companion.hardware import Hardware
from companion.inference.compare import Comparison, Trained, at_equal_compute, at_equal_loss, compare_trained
from companion.inference.runtime_model import RuntimeModel
from companion.laws import LossSurface
from companion.plotting.style import architecture_label
from companion.runs.context_length import PAPER_CONTEXT
from companion.runs.shape_family import FamilyScale, fit_shape_family

#: Shortest context (tokens) of a comparison.
SHORTEST = 128


@dataclass(frozen=True, kw_only=True)
class TrainedPairs:
    """Pairs of compute-optimal models: of equal loss, by title, of equal compute, and of a tenth of that.

    `context_length` (tokens) is that of the laws. Without laws there are no pairs, and `reason` says why.
    """

    at_losses: Mapping[str, Mapping[str, Trained]]
    at_compute: Mapping[str, Trained]
    train_flops: float
    context_length: int
    reason: str = ""
    at_tenth: Mapping[str, Trained] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The pair that the chapter describes: the middle one of those at equal loss."""
        titles = list(self.at_losses)
        return titles[len(titles) // 2] if titles else ""


def train_pairs(
    runs_file: str | Path | None,
    names: Sequence[str],
    losses: Sequence[float],
    train_flops: float,
    context_length: int | None = None,
    num_resamples: int = 200,
) -> TrainedPairs:
    """Fit the law of each architecture, and find its best models for some losses and for one compute.

    Parameters
    ----------
    runs_file
        path of a run table; None for the paper's.
    names
        of the two architectures.
    losses, train_flops
        nats per token, and FLOP.
    context_length
        tokens, of the runs behind the laws; None: the table's own.
    num_resamples
        of the laws.

    Raises
    ------
    InputError
        if the paper's own runs are refused; those of a reader become the `reason`.
    """
    length = context_length or select_runs(runs_file).context_length or PAPER_CONTEXT
    try:
        selection = select_runs(runs_file, list(names), length, at_least=2)
        laws = {name: fit(LossSurface, selection.tables[name]) for name in names}
        need_identified({architecture_label(name): law for name, law in laws.items()})
        bootstraps = {name: law.bootstrap(num_resamples) for name, law in laws.items()}
        families = {name: fit_shape_family(selection.runs, name) for name in names}
        scales = {name: FamilyScale(family=families[name], context_length=length) for name in names}
        at_losses = {f"loss {loss:g}": at_equal_loss(laws, bootstraps, scales, loss) for loss in losses}
        at_compute, at_tenth = (at_equal_compute(laws, bootstraps, scales, train_flops / by) for by in (1, 10))
    except (InputError, NotApplicable) as error:
        if runs_file is None:
            raise
        reason = " ".join(str(error).split())
        return TrainedPairs(at_losses={}, at_compute={}, train_flops=train_flops, context_length=length, reason=reason)
    return TrainedPairs(
        at_losses=at_losses, at_compute=at_compute, train_flops=train_flops, context_length=length, at_tenth=at_tenth
    )


def compare_pairs(
    pairs: TrainedPairs,
    models: Mapping[tuple[str, str], RuntimeModel],
    batch_sizes: Sequence[int],
    longest: int,
    peaks: Hardware,
) -> dict[tuple[str, int], Comparison]:
    """Every pair at every batch, by title and batch; none without pairs, or without runtime models of all four times.

    `longest`: context (tokens) up to which they are compared, in powers of two.
    """
    needed: set[Any] = {(name, q) for name in pairs.at_compute for q in ("ttft", "step_time")}
    if not needed or not needed <= set(models):
        return {}
    reach = 2.0 ** np.arange(np.log2(SHORTEST), np.log2(longest) + 0.01)
    return {
        (title, batch): compare_trained(pair, models, reach, batch, hardware=peaks)
        for title, pair in {**pairs.at_losses, "equal compute": pairs.at_compute}.items()
        for batch in batch_sizes
    }
