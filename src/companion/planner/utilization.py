"""The share of the hardware's peak that training reaches: as asked for, as measured by logs, or assumed; and what
follows from it: device time, and the compute that device hours buy."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.formatting import listed, percent
from companion.hardware import get_hardware
from companion.laws import LossSurface, Optimum, optimum_where
from companion.planner.knowledge import Knowledge
from companion.planner.request import SECONDS_PER_HOUR, Request
from companion.runs.shape_family import FamilyScale
from companion.training.measured import MeasuredUtilization

Array = NDArray[np.float64]
#: Utilization of an architecture that no logs have: between the 21 % and 46 % of peak that arXiv 2204.02311, table 3,
#: lists for large Transformers.
ASSUMED_UTILIZATION = 0.4


def measured_utilization(request: Request, knowledge: Knowledge) -> MeasuredUtilization | None:
    """The utilization of logs where a plan takes it: no number is given, and the logs have the architecture."""
    return knowledge.utilization if request.utilization is None else None


def utilization_of(
    request: Request, knowledge: Knowledge, num_params: ArrayLike, probability: ArrayLike = 0.5
) -> Array:
    """Share of the peak that training a model of N parameters reaches; the shape of both arguments, broadcast.

    Parameters
    ----------
    probability
        of a further run to stay below it (`MeasuredUtilization.quantile`); a number given or assumed has no spread.
    """
    if (measured := measured_utilization(request, knowledge)) is not None:
        return measured.quantile(knowledge.architecture, num_params, request.context, probability)
    share = ASSUMED_UTILIZATION if request.utilization is None else request.utilization
    return np.full(np.broadcast_shapes(np.shape(num_params), np.shape(probability)), share)


def training_seconds(
    request: Request,
    knowledge: Knowledge,
    scale: FamilyScale,
    width: ArrayLike,
    tokens: ArrayLike,
    probability: ArrayLike = 0.5,
) -> Array:
    """Device seconds of training a width of the family on tokens; all arrays broadcast. See `utilization_of`."""
    price = scale.family.flops_per_token(width, scale.context_length, scale.convention)
    share = utilization_of(request, knowledge, scale.family.num_params(width), probability)
    return np.asarray(price * np.asarray(tokens) / (share * get_hardware(request.hardware).peak_flops_per_s))


def optimum_for_hours(
    request: Request, knowledge: Knowledge, laws: LossSurface, scale: FamilyScale, probability: ArrayLike = 0.5
) -> Optimum:
    """Models of least loss at the compute C that `request.gpu_hours` buy, one per law: C = hours · u(N, T) · peak.

    u is that of the model itself, so C and N are found together, and the hours are spent exactly.

    Parameters
    ----------
    probability
        one per law: at which quantile of a further run's utilization. What a run reaches shows after a few of its
        steps, and then its tokens are chosen to fill the hours. So the scatter of the utilization moves C, D and the
        loss of a resample, and never the hours.
    """
    device_flops = np.float64(request.gpu_hours) * SECONDS_PER_HOUR * get_hardware(request.hardware).peak_flops_per_s

    def flops(num_params: Any, chance: Any) -> Any:
        return device_flops * utilization_of(request, knowledge, num_params, chance)

    try:
        return optimum_where(laws, scale, flops, probability)
    except InputError as error:
        raise InputError(f"{error} (gpu_hours {request.gpu_hours:g})") from None


def utilization_warnings(request: Request, knowledge: Knowledge, num_params: float) -> list[str]:
    """Sentences on a utilization that is assumed, from beyond the logs, or from other hardware."""
    if request.utilization is not None:
        return []
    measured = knowledge.utilization
    if measured is None:
        reason = f"; {knowledge.unlogged}" if knowledge.unlogged else ""
        return [f"utilization: {percent(ASSUMED_UTILIZATION)} is assumed{reason}"]
    notes = measured.outside(knowledge.architecture, num_params, request.context)
    if request.hardware != measured.hardware:
        logged, target = (get_hardware(name).label for name in (measured.hardware, request.hardware))
        notes.append(f"utilization: measured on {logged}; the same share of the peak is assumed for {target}")
    return notes


def utilization_source(request: Request, knowledge: Knowledge) -> str:
    """Where a plan's utilization comes from, in words."""
    if request.utilization is not None:
        return f"{percent(request.utilization)}, as given"
    measured = knowledge.utilization
    if measured is None:
        return f"{percent(ASSUMED_UTILIZATION)}, assumed"
    lengths = listed(measured.context_lengths(knowledge.architecture))
    device, file = get_hardware(measured.hardware).label, Path(measured.source).name
    if measured.of_authors:
        kept = f"the authors' runs on {device}, with their kernels, GPU counts and full recomputation of activations"
    else:
        kept = f"runs on {device}, with their kernels and GPU counts"
    return f"measured at T = {lengths} ({file}): {kept}"
