"""From a budget and a workload to a model: which size, on how many tokens, at what cost, and how certain it is.

For each architecture two models are planned. The *loss-optimal* one spends the training budget best (or reaches the
target loss with least training compute): of all models with its FLOPs it has the least loss, as in the paper, although
a larger one may train at a higher utilization. The *cost-optimal* one reaches the same loss with the least device time
of training and serving together: served often enough, a smaller model trained for longer is cheaper. Losses come from
the parametric law, training cost from exact accounting at the context length and from the utilization that logs show
at the model's size, times from the runtime model of the authors' measurements. Every number carries a bootstrap
interval, and a warning where it lies outside the data.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.architectures import Architecture, Attention
from companion.errors import InputError, NotApplicable
from companion.fitting.bootstrap import percentile_interval
from companion.formatting import percent
from companion.hardware import get_hardware
from companion.laws import LossSurface, compute_for_loss, optimum
from companion.planner.costs import cheapest_in_total, numbers_of, passes_of, probabilities_of, served_shapes
from companion.planner.knowledge import Knowledge, Learned, learn, without_name
from companion.planner.ranges import below_roofline, no_intervals, off_center, range_warnings
from companion.planner.request import LAW_CONTEXT, Request
from companion.planner.utilization import optimum_for_hours, utilization_warnings
from companion.runs.shape_family import FamilyScale

__all__ = [
    "COST_OPTIMAL",
    "LOSS_OPTIMAL",
    "HoursRatio",
    "Knowledge",
    "Learned",
    "Plan",
    "PlannedModel",
    "Request",
    "learn",
    "plan",
]

Array = NDArray[np.float64]
LOSS_OPTIMAL, COST_OPTIMAL = "loss-optimal", "cost-optimal"
#: Pairs of resamples behind the interval of a ratio.
_NUM_PAIRS = 100_000


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """One planned model. `numbers` and `intervals` go by the same names, with units in them; `model` could be built."""

    architecture: str
    objective: str
    numbers: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    model: Architecture
    fits: bool
    fit_message: str
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, ready for JSON; the numbers are beside `architecture` and `objective`."""
        entries = asdict(self)
        numbers = entries.pop("numbers")
        return {"architecture": self.architecture, "objective": self.objective, **numbers, **entries} | {
            "model": self.model.shapes()
        }


@dataclass(frozen=True, kw_only=True)
class HoursRatio:
    """How many times the GPU-hours of the `first` architecture the `second` needs to be trained to a loss: at least 1.

    Of both loss-optimal models; the interval pairs their resamples at random, as neither's data say anything of the
    other's. NaN where either has no intervals.
    """

    first: str
    second: str
    ratio: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Planned models, two for each architecture, and notes on what could not be planned.

    `request` has the context length that was planned for. `first` are those of `notes` that a reader must know before
    any number: which law is behind them, and what is wrong with it. `gpu_hours_ratios` compare every two architectures
    that reach a target loss; none for other budgets, whose losses differ.
    """

    request: Request
    models: tuple[PlannedModel, ...]
    notes: tuple[str, ...]
    level: float
    first: tuple[str, ...] = ()
    gpu_hours_ratios: tuple[HoursRatio, ...] = ()

    def table(self) -> pd.DataFrame:
        """A row per model: architecture, objective, every value with `_low` and `_high`, and whether it fits."""
        rows = []
        for planned in self.models:
            row: dict[str, Any] = {"architecture": planned.architecture, "objective": planned.objective}
            for name, value in planned.numbers.items():
                low, high = planned.intervals[name]
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            rows.append(row | {"fits": planned.fits})
        return pd.DataFrame(rows)


def plan(request: Request, known: Mapping[str, Knowledge] | None = None, *, level: float = 0.95) -> Plan:
    """Plan a model of every known architecture.

    Parameters
    ----------
    request
        budget and workload.
    known
        from `learn`; by default what the paper's tables teach.
    level
        of the intervals.

    Raises
    ------
    InputError
        if no architecture can be planned; the message says why for each.

    Examples
    --------
    >>> known = learn(architectures=["xlstm"], num_resamples=2)
    >>> round(plan(Request(train_flops=1e21), known).models[0].numbers["num_params"] / 1e9, 1)
    3.2
    """
    known = learn() if known is None else known
    request, first = at_context(request, known)
    left_out = known.left_out if isinstance(known, Learned) else {}
    first += [f"{without_name(name, reason)} (left out)" for name, reason in left_out.items()]
    models: list[PlannedModel] = []
    notes: list[str] = []
    hours: dict[str, Array] = {}
    for name, knowledge in known.items():
        first += [f"{name}: {note}" for note in knowledge.notes]
        try:
            planned, found, hours[name] = _plan_one(request, knowledge, level)
        except InputError as error:
            notes.append(without_name(name, str(error)))
        else:
            models, notes = models + planned, notes + found
    if not models:
        raise InputError("; ".join(notes))
    return Plan(
        request=request,
        models=tuple(models),
        notes=(*first, *notes),
        level=level,
        first=tuple(first),
        gpu_hours_ratios=() if request.target_loss is None else _ratios(models, hours, level),
    )


def _ratios(models: Sequence[PlannedModel], hours: Mapping[str, Array], level: float) -> tuple[HoursRatio, ...]:
    """Ratios of GPU-hours, the architecture that needs fewer first; `hours` are the resamples by architecture."""
    best = {model.architecture: model for model in models if model.objective == LOSS_OPTIMAL}
    by_hours = sorted(best, key=lambda name: best[name].numbers["train_gpu_hours"])
    found = []
    for pair in itertools.combinations(by_hours, 2):
        fewer, more = (best[name].numbers["train_gpu_hours"] for name in pair)
        interval = (float("nan"), float("nan"))
        if all(np.isfinite(best[name].intervals["train_gpu_hours"]).all() for name in pair):
            draw = np.random.default_rng(3)
            drawn = [hours[name][draw.integers(len(hours[name]), size=_NUM_PAIRS)] for name in pair]
            interval = percentile_interval(drawn[1] / drawn[0], level)
        found.append(HoursRatio(first=pair[0], second=pair[1], ratio=more / fewer, interval=interval))
    return tuple(found)


def at_context(request: Request, known: Mapping[str, Knowledge]) -> tuple[Request, list[str]]:
    """A request with a context length: its own, else that of most laws; and what to say of a choice by default."""
    if request.context_length is not None:
        return request, []
    contexts = [knowledge.law_context for knowledge in known.values() if knowledge.law_context is not None]
    chosen = max(contexts, key=contexts.count) if contexts else LAW_CONTEXT
    missing = [] if contexts or not known else [f"context_length {chosen}: the runs name none"]
    return replace(request, context_length=chosen), missing


def _plan_one(request: Request, knowledge: Knowledge, level: float) -> tuple[list[PlannedModel], list[str], Array]:
    """Planned models, notes, and the resampled GPU-hours of training the loss-optimal one (none without resamples)."""
    if request.timing == "measured" and knowledge.untimed:
        raise NotApplicable(f"{knowledge.untimed}; timing roofline needs none")
    scale = FamilyScale(family=knowledge.family, context_length=request.context)
    if request.prompt < scale.least_context:
        raise InputError(f"prompt_length {request.prompt} is shorter than one chunk of {scale.least_context} tokens")
    laws = [knowledge.fit.law]
    if not knowledge.bootstrap.withheld:
        laws.append(knowledge.bootstrap.laws)
    drawn = [
        _least_loss(request, knowledge, scale, each, resampled=again)
        for each, again in zip(laws, (False, True), strict=False)
    ]
    if np.isnan(drawn[0]["d_model"]).any():
        raise NotApplicable("the law has no such model; only some of its resamples have")
    best, hours = _planned(LOSS_OPTIMAL, request, knowledge, scale, drawn, level)
    planned, notes = [best], []
    unreached = float(np.mean(np.isnan(drawn[-1]["d_model"])))
    if unreached:
        notes.append(
            f"{knowledge.architecture}: {percent(unreached)} of the resampled laws never get there; the intervals "
            "leave them out, so their upper ends are too low"
        )
    if request.prefill_tokens + request.generated_tokens > 0:
        try:
            cheapest = [
                cheapest_in_total(request, knowledge, scale, each, found["loss"], again)
                for each, found, again in zip(laws, drawn, (False, True), strict=False)
            ]
            planned.append(_planned(COST_OPTIMAL, request, knowledge, scale, cheapest, level)[0])
            if (lost := float(np.mean(np.isnan(cheapest[-1]["d_model"]))) - unreached) > 0:
                notes.append(
                    f"{knowledge.architecture}, {COST_OPTIMAL}: no size fits in {percent(lost)} of the resamples, "
                    "which the intervals leave out"
                )
        except InputError as error:
            notes.append(f"{knowledge.architecture}, {COST_OPTIMAL}: {error}")
    return planned, notes, hours


def _least_loss(
    request: Request, knowledge: Knowledge, scale: FamilyScale, laws: LossSurface, *, resampled: bool
) -> dict[str, Array]:
    """Widths, tokens and losses of the loss-optimal models of the request's budget, one per law."""
    if request.target_loss is not None:
        best = compute_for_loss(laws, scale, request.target_loss)
    elif request.train_flops is not None:
        best = optimum(laws, scale, np.full(len(laws), request.train_flops))
    else:
        best = optimum_for_hours(request, knowledge, laws, scale, probabilities_of(len(laws), resampled))
    return {"d_model": np.asarray(best.d_model), "num_tokens": best.num_tokens, "loss": best.loss}


def _planned(
    objective: str,
    request: Request,
    knowledge: Knowledge,
    scale: FamilyScale,
    drawn: Sequence[dict[str, Array]],
    level: float,
) -> tuple[PlannedModel, Array]:
    """Values at the fitted law and coefficients, intervals from all resamples at once, if `drawn` has any.

    Also the resampled GPU-hours of training.
    """
    samples = [
        numbers_of(request, knowledge, scale, found, scattered=scattered)
        for found, scattered in zip(drawn, (False, True), strict=False)
    ]
    values = {name: float(value[0]) for name, value in samples[0].items()}
    intervals = dict.fromkeys(values, (float("nan"), float("nan")))
    undefined = ""
    if len(drawn) > 1:
        undefined = no_intervals(drawn[1]["d_model"], len(knowledge.bootstrap.theta), level)
        if not undefined:
            intervals = {name: percentile_interval(spread, level) for name, spread in samples[1].items()}
    shapes = served_shapes(request, knowledge, drawn[0]["d_model"][0])
    message = max(passes_of(request, shapes), key=lambda one: float(one.memory.total)).fit_message(request.hardware)
    model = knowledge.family.rounded(values["num_params"], request.kv_groups)
    made = PlannedModel(
        architecture=knowledge.architecture,
        objective=objective,
        numbers=values,
        intervals=intervals,
        model=model,
        fits=not message,
        fit_message=message,
        warnings=tuple(
            ([f"no intervals: {undefined}"] if undefined else [])
            + off_center(values, intervals)
            + range_warnings(values, knowledge.ranges, request.context, knowledge.law_context)
            + below_roofline(values)
            + utilization_warnings(request, knowledge, values["num_params"])
            + _beyond_timings(request, knowledge, values["num_params"])
            + _hardware_warnings(request, knowledge)
            + _head_warnings(request, model)
        ),
    )
    return made, samples[1]["train_gpu_hours"] if len(samples) > 1 else np.empty(0)


def _head_warnings(request: Request, model: Architecture) -> list[str]:
    heads = [mixer.n_heads for mixer, _ in model.layers if isinstance(mixer, Attention)]
    if not heads or request.kv_groups <= min(heads):
        return []
    return [f"kv_groups {request.kv_groups}: the model has {min(heads)} heads, which share one of keys and values"]


def _beyond_timings(request: Request, knowledge: Knowledge, num_params: float) -> list[str]:
    if knowledge.untimed:
        return []
    ttft, step_time = knowledge.times
    return ttft.outside(num_params, request.prompt, request.batch_size) + step_time.outside(
        num_params, request.context, request.batch_size
    )


def _hardware_warnings(request: Request, knowledge: Knowledge) -> list[str]:
    if knowledge.ttft is None or request.hardware == knowledge.ttft.hardware.name:
        return []
    timed = knowledge.ttft.hardware
    target = get_hardware(request.hardware).label
    return [f"times were measured on hardware like {timed.label}; for {target} they are scaled by its peaks"]
