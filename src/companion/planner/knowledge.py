"""What a run table and timings teach about each architecture that can be planned, and why another is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from companion.architectures import ARCHITECTURES, PAPER_ARCHITECTURES
from companion.errors import InputError, NotApplicable
from companion.fitting.bootstrap import MAX_RESAMPLES
from companion.fitting.fit import Fit, fit
from companion.fitting.solved import AT_BOUND, OUT_OF_ITERATIONS
from companion.fitting.uncertainty import Bootstrap
from companion.formatting import listed, percent
from companion.hardware import REFERENCE_HARDWARE
from companion.inference.compare import Method
from companion.inference.runtime_model import RuntimeModel, fit_runtime_model, paper_runtime_model
from companion.inference.timings import Quantity
from companion.laws import LossSurface
from companion.paths import data_dir
from companion.planner.ranges import Ranges
from companion.runs.context_length import ContextChoice, choose_context
from companion.runs.load import load_paper_runs
from companion.runs.select import subset
from companion.runs.shape_family import ShapeFamily, fit_shape_family, has_shapes, paper_family
from companion.runs.where import table_name
from companion.training.logs import load_training_logs
from companion.training.measured import MeasuredUtilization

#: Fewer runs than this give no law: it has six parameters.
MIN_RUNS = len(LossSurface.PARAMETERS) + 1
#: Residuals of log loss below this are rounding, not scatter.
_NO_SCATTER = 1e-6
#: A larger share of lost resamples is reported.
_REPORTED = 0.01
#: How far N of the table may be from the count of its shapes without a note, relative.
_DEVIATION = 0.2


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What the planner knows of one architecture: law, uncertainty, shapes, times, and ranges of the data."""

    architecture: str
    fit: Fit
    bootstrap: Bootstrap
    family: ShapeFamily
    #: runtime models; None where there are none, for the reason in `untimed`.
    ttft: RuntimeModel | None
    step_time: RuntimeModel | None
    ranges: Ranges
    #: context length of the runs behind the law; None where the table names none.
    law_context: int | None
    #: what a reader must know before any number: choices that were made, a law at a bound.
    notes: tuple[str, ...] = ()
    untimed: str = ""
    #: share of peak FLOP/s that training reached, of all architectures of the logs; None where this one has none, for
    #: the reason in `unlogged`.
    utilization: MeasuredUtilization | None = None
    unlogged: str = ""

    @property
    def times(self) -> tuple[RuntimeModel, RuntimeModel]:
        """The runtime models of time to first token and step time.

        Raises
        ------
        NotApplicable
            if there are none.
        """
        if self.ttft is None or self.step_time is None:
            raise NotApplicable(self.untimed)
        return self.ttft, self.step_time


class Learned(dict[str, Knowledge]):
    """`Knowledge` by architecture; `left_out` gives the reason for each architecture that is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out: dict[str, str] = {}


def learn(
    runs: pd.DataFrame | None = None,
    timings: pd.DataFrame | None = None,
    architectures: Sequence[str] | None = None,
    *,
    logs: pd.DataFrame | None = None,
    logs_hardware: str = REFERENCE_HARDWARE,
    context_length: int | None = None,
    prefer_context: int | None = None,
    experiment: str | None = None,
    timing: Method = "measured",
    num_resamples: int = 200,
    seed: int = 0,
) -> Learned:
    """Fit everything the planner needs, from the paper's tables unless others are given.

    Parameters
    ----------
    runs
        a run table.
    timings
        a table of inference timings (`companion.inference.timings.load_inference`).
    architectures
        which to plan for; by default all of the table that can be counted and, where times are measured, have times.
    context_length
        T in tokens of the runs that give the laws; by default `runs.context_length.choose_context` chooses, among
        contexts with enough runs (all runs where the table names no context).
    prefer_context
        T that is taken if its runs identify a law, and `context_length` is not given; the paper's table ignores it.
    experiment
        only runs of this experiment.
    timing
        `measured`: an architecture without timings is left out; `roofline`: it is planned with the least times of the
        hardware.
    logs, logs_hardware
        training logs (`companion.training.load_training_logs`), for the utilization that training reaches, and what
        they were trained on, a name of `data/hardware.csv`.
    num_resamples, seed
        of all bootstraps.

    Raises
    ------
    NotApplicable
        if no architecture can be planned: it has no shapes and times, too few runs, a law that is not identified.

    Examples
    --------
    >>> learn(architectures=["xlstm"], num_resamples=2)["xlstm"].law_context
    8192
    """
    if not 1 <= num_resamples <= MAX_RESAMPLES:
        raise InputError(f"bootstrap: {num_resamples} resamples; 1 to {MAX_RESAMPLES} can be drawn")
    table = load_paper_runs() if runs is None else runs
    measured = paper_utilization() if logs is None else MeasuredUtilization.of(logs, logs_hardware)
    learned = Learned()
    for name in architectures or sorted(table["architecture"].dropna().unique(), key=_order):
        try:
            fit, notes = _law(table, name, experiment, context_length, prefer_context)
            known = _known(table, timings, measured, name, fit, notes, num_resamples, seed)
            if timing == "measured":
                known.times  # noqa: B018 - raises where there are none
            learned[name] = known
        except InputError as error:
            learned.left_out[name] = str(error)
    if not learned:
        raise NotApplicable("; ".join(without_name(name, why) for name, why in _told_once(learned.left_out).items()))
    return learned


@cache
def paper_utilization() -> MeasuredUtilization:
    """Utilization from the authors' training logs (`data/training_logs.csv`)."""
    return MeasuredUtilization.of(load_training_logs())


def is_paper_table(runs: pd.DataFrame) -> bool:
    """Whether a table was loaded from the project's own file of runs."""
    source = runs.attrs.get("source")
    return source is not None and Path(source).absolute() == (data_dir() / "runs.csv").absolute()


def _order(name: str) -> tuple[bool, str]:
    return (name not in ARCHITECTURES, name)


def _told_once(left_out: dict[str, str]) -> dict[str, str]:
    """Reasons that only differ in the architecture's name, under all those names."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return {", ".join(names): reason for reason, names in by_reason.items()}


def without_name(name: str, message: str) -> str:
    """`NAME: message`, the name once."""
    return message if message.startswith(f"{name}:") else f"{name}: {message}"


def _law(
    table: pd.DataFrame, name: str, experiment: str | None, context: int | None, preferred: int | None
) -> tuple[Fit, tuple[pd.DataFrame, int | None, list[str]]]:
    """The law of one architecture, its runs, their context length, and what to say about the choice."""
    label = Path(table_name(table)).name
    if name not in ARCHITECTURES:
        raise NotApplicable(
            f"{label}: the planner has shapes and costs of {', '.join(ARCHITECTURES)} only; "
            "`companion fit` gives the law of these runs"
        )
    rows = subset(table, architecture=name, experiment=experiment, source=label)
    ours = is_paper_table(table)
    notes: list[str] = []
    if context is None and preferred is not None and not ours and (rows_at := _at(rows, preferred)) is not None:
        fit = _fitted(rows_at)
        if isinstance(fit, Fit):
            return fit, (rows_at, preferred, _counted(rows, rows_at, ContextChoice(preferred, "")))
        notes.append(f"no law of the runs at context_length {preferred}: {fit}")
    choice = choose_context(_with_enough(rows, context), context, source=label)
    chosen = rows if choice.context_length is None else rows[rows["context_length"] == choice.context_length]
    fit = _fitted(chosen)
    if not isinstance(fit, Fit):
        at = "" if choice.context_length is None else f" at context_length {choice.context_length}"
        raise NotApplicable(f"{label}: no law of {len(chosen)} runs{at}: {fit}")
    if not ours:
        notes += _counted(rows, chosen, choice)
    return fit, (chosen, choice.context_length, notes)


def _at(rows: pd.DataFrame, context: int) -> pd.DataFrame | None:
    """The runs at a context length; None where there are too few for a law."""
    chosen = rows[rows["context_length"] == context] if "context_length" in rows else rows.iloc[:0]
    return chosen if len(chosen) >= MIN_RUNS else None


def _with_enough(rows: pd.DataFrame, requested: int | None) -> pd.DataFrame:
    """The runs at contexts that have enough of them for a law; all runs where none has, or one was asked for."""
    if requested is not None or "context_length" not in rows:
        return rows
    counts = rows["context_length"].map(rows["context_length"].value_counts())
    enough = rows[counts >= MIN_RUNS]
    return enough if len(enough) else rows


def _fitted(rows: pd.DataFrame) -> Fit | str:
    """An identified law, or why there is none."""
    try:
        fitted = fit(LossSurface, rows)
    except InputError as error:
        return str(error).removeprefix("fit: ")
    return fitted if fitted.identified else f"it is {fitted.status}, {fitted.status_detail}"


def _counted(rows: pd.DataFrame, chosen: pd.DataFrame, choice: ContextChoice) -> list[str]:
    """What to say about the context that was chosen, and the runs that are left aside."""
    notes = [choice.note] if choice.note else []
    if choice.context_length is not None and (unknown := int(rows["context_length"].isna().sum())):
        notes.append(f"{unknown} run{'s' * (unknown > 1)} without a context_length left out of the law")
    return notes


def _known(
    table: pd.DataFrame,
    timings: pd.DataFrame | None,
    measured: MeasuredUtilization,
    name: str,
    fit: Fit,
    law_runs: tuple[pd.DataFrame, int | None, list[str]],
    num_resamples: int,
    seed: int,
) -> Knowledge:
    chosen, context, notes = law_runs
    times, untimed = _times(timings, name, num_resamples, seed)
    bootstrap = fit.bootstrap(num_resamples, seed=seed)
    family, of_shapes = _family(table, name)
    return Knowledge(
        architecture=name,
        fit=fit,
        bootstrap=bootstrap,
        family=family,
        ttft=times.get("ttft"),
        step_time=times.get("step_time"),
        ranges=Ranges.of(chosen, table[table["architecture"] == name]),
        law_context=context,
        notes=tuple([*_of_law(fit, bootstrap), *notes, *of_shapes]),
        untimed=untimed,
        utilization=measured if name in measured.curves else None,
        unlogged="" if name in measured.curves else _unlogged(measured, name),
    )


def _unlogged(measured: MeasuredUtilization, name: str) -> str:
    """Why there is no measured utilization of an architecture."""
    return (
        f"{Path(measured.source).name} has too few finished runs of {name}; it has enough of {listed(measured.curves)}"
    )


def _times(
    timings: pd.DataFrame | None, name: str, num_resamples: int, seed: int
) -> tuple[dict[str, RuntimeModel], str]:
    """The runtime models of an architecture by quantity, and why there are none; empty where there are."""
    quantities: tuple[Quantity, ...] = ("ttft", "step_time")
    fitted: dict[str, RuntimeModel] = {}
    try:
        for quantity in quantities:
            fitted[quantity] = (
                paper_runtime_model(name, quantity, num_resamples, seed)
                if timings is None
                else fit_runtime_model(timings, name, quantity, num_resamples=num_resamples, seed=seed)
            )
        return fitted, ""
    except InputError as error:
        return {}, str(error)


def _of_law(fit: Fit, bootstrap: Bootstrap) -> list[str]:
    """What stops a reader from trusting a law and its intervals."""
    notes = []
    if fit.status == AT_BOUND:
        notes.append(f"the law is at a bound ({fit.status_detail}): what is planned from it depends on the bound")
    if fit.status == OUT_OF_ITERATIONS:
        notes.append(f"the fit of the law ran out of iterations ({fit.status_detail}): it may not be the best one")
    if bootstrap.withheld:
        notes.append(f"no intervals: {bootstrap.withheld}")
    elif bootstrap.lost > _REPORTED:
        notes.append(
            f"{percent(bootstrap.lost)} of the resamples hold too few different runs for a law and are left out"
        )
    if fit.status != AT_BOUND and not bootstrap.withheld and bootstrap.at_bound > _REPORTED:
        notes.append(f"{percent(bootstrap.at_bound)} of the resampled laws are at a bound, where the intervals are cut")
    if (scatter := float(np.sqrt(np.mean(fit.residuals**2)))) < _NO_SCATTER:
        notes.append(f"the runs lie on the law to within {scatter:.0e}: without scatter intervals have no width")
    return notes


def _family(table: pd.DataFrame, name: str) -> tuple[ShapeFamily, list[str]]:
    """The shapes of a table, or those of the paper's models where it has none that make a family."""
    whose = "the paper's models" if name in PAPER_ARCHITECTURES else "its named sizes"
    if not has_shapes(table, name):
        return paper_family(name), [f"shapes are those of {whose}: the table has none"]
    try:
        family = fit_shape_family(table, name)
    except InputError as error:
        return paper_family(name), [f"shapes are those of {whose}: {str(error).partition(': ')[2]}"]
    if family.largest_deviation > _DEVIATION:
        return family, [f"num_params is up to {percent(family.largest_deviation)} from the count of the table's shapes"]
    return family, []
