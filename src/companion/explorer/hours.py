"""GPU-hours at a setting of the explorer: of the chosen model, and of the cheapest training that reaches one loss.

Both divide FLOPs by what a GPU does of them: its peak times the utilization that training logs show for the
architecture, the size and the context length (`companion.training.measured.MeasuredUtilization`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.errors import InputError
from companion.explorer.ranges import beyond
from companion.explorer.settings import Setting
from companion.fitting.bootstrap import interval_with_lost
from companion.hardware import get_hardware
from companion.laws import LossSurface, Optimum, compute_for_loss
from companion.numeric import Values
from companion.planner.knowledge import Knowledge
from companion.runs.shape_family import FamilyScale
from companion.training.measured import MeasuredUtilization

#: Why a number is missing, in a cell of the table.
NO_LOGS, NOT_REACHED = "no logs", "not reached"
_TRAINED = ("utilization", "train_gpu_hours")
#: What of the cheapest model the runs of the law do not cover, and what the logs do not.
_OF_TARGET = ("target", "target_logs")
#: Decimals of the scatter: the page's script has the same numbers.
_DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class Hours:
    """What is added to a result of `Explorer.evaluate`; a number is None where `missing` has the reason."""

    numbers: dict[str, float | None]
    intervals: dict[str, list[float]] = field(default_factory=dict)
    outside: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: "Hours") -> "Hours":
        return Hours(
            numbers=self.numbers | other.numbers,
            intervals=self.intervals | other.intervals,
            outside=[*self.outside, *other.outside],
            missing=self.missing | other.missing,
        )


def gpu_hours(train_flops: Values, utilization: Values, hardware: str) -> Any:
    """Hours that one GPU takes for C FLOP at a share of its peak; shapes broadcast.

    Examples
    --------
    >>> round(float(gpu_hours(1e21, 0.4, "h100-sxm")), 1)
    701.8
    """
    return train_flops / (utilization * get_hardware(hardware).peak_flops_per_s) / 3600


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where GPU-hours are asked for: a setting, the level of the intervals, what the logs were measured on."""

    setting: Setting
    level: float
    logs_hardware: str


def hours(
    known: Mapping[str, Knowledge],
    trained: Mapping[str, Mapping[str, float]],
    place: Place,
    ranges: Mapping[str, Mapping[str, list[float]]],
) -> dict[str, Hours]:
    """GPU-hours by architecture.

    Parameters
    ----------
    trained
        by architecture `num_params` and `loss` of the chosen model. The loss of the first architecture's is the one
        that all have to reach.
    ranges
        by architecture what the runs of the law cover.
    """
    first, loss = next(iter(known)), next(iter(trained.values()))["loss"]
    reached = {name: _Reached.of(each, loss, place, index) for index, (name, each) in enumerate(known.items())}
    found = {
        name: _of_model(each, trained[name]["num_params"], place)
        + _of_target(each, reached[name], loss, place, ranges[name])
        + _ratio(reached[name], reached[first], place.level)
        for name, each in known.items()
    }
    # a ratio leaves the data where one of its two does
    left = {name: [entry for entry in each.outside if entry["of"] in _OF_TARGET] for name, each in found.items()}
    for name, each in found.items():
        if name != first:
            each.outside.extend({**entry, "of": "ratio"} for entry in [*left[name], *left[first]])
    return found


def no_utilization(logs: pd.DataFrame) -> str:
    """Why training logs give no utilization of any architecture; empty where they do."""
    try:
        MeasuredUtilization.of(logs)
    except InputError as error:
        source = str(logs.attrs.get("source", ""))
        return str(error).replace(source, Path(source).name) if source else str(error)
    return ""


def scatter(knowledge: Knowledge, index: int, level: float) -> NDArray[np.float64]:
    """How far ln(utilization) of one further run lies from its mean, for each resampled law, shape (R,).

    In units of the half width of the interval that `MeasuredUtilization.at` gives at a level. Quantiles of Student's t
    in a fixed order, another one at every `index` among the architectures: the page's script has the same.
    """
    number, degrees = len(knowledge.bootstrap.laws), min(curve.degrees for curve in _curves(knowledge))
    order = np.random.default_rng(index).permutation(number)
    ends = stats.t.ppf((1 + level) / 2, degrees)
    return np.round(stats.t.ppf((order + 0.5) / number, degrees) / ends, _DECIMALS)


def utilization_model(knowledge: Knowledge, index: int, level: float) -> dict[str, Any] | None:
    """The measured utilization of an architecture as plain data for the page's script; None where there is none."""
    if knowledge.utilization is None:
        return None
    curves = [
        {
            "context_length": curve.context_length,
            "sizes": list(curve.sizes),
            "center": curve.center,
            "coefficients": curve.coefficients.tolist(),
            "covariance": curve.covariance.tolist(),
            "residual_variance": curve.residual_variance,
            "quantile": float(stats.t.ppf((1 + level) / 2, curve.degrees)),
        }
        for curve in _curves(knowledge)
    ]
    return {"curves": curves, "scatter": scatter(knowledge, index, level).tolist()}


@dataclass(frozen=True, kw_only=True)
class _Reached:
    """The cheapest training that reaches a loss: `found` by name, and GPU-hours with one value for each resampled law.

    `found` is None where the law never gets there, `gpu_hours` where no logs say; `samples` are NaN for a law of the
    bootstrap that never does.
    """

    found: dict[str, float] | None
    gpu_hours: float | None
    samples: NDArray[np.float64]

    @classmethod
    def of(cls, knowledge: Knowledge, loss: float, place: Place, index: int) -> "_Reached":
        setting = place.setting
        scale = FamilyScale(family=knowledge.family, context_length=setting.context_length)
        best = _cheapest(knowledge.fit.law, scale, loss)
        if not np.isfinite(best.train_flops[0]):
            return cls(found=None, gpu_hours=None, samples=np.array([]))
        names = ("train_flops", "num_params", "num_tokens", "tokens_per_param")
        found = {name: float(getattr(best, name)[0]) for name in names}
        if knowledge.utilization is None:
            return cls(found=found, gpu_hours=None, samples=np.array([]))
        where = (knowledge.architecture, setting.context_length, place.level)
        share = float(_share(knowledge.utilization, found["num_params"], *where))
        again = _cheapest(knowledge.bootstrap.laws, scale, loss)
        shares = np.full(again.num_params.shape, np.nan)
        kept = np.isfinite(again.num_params)
        drawn = scatter(knowledge, index, place.level)[kept]
        shares[kept] = _share(knowledge.utilization, again.num_params[kept], *where, drawn)
        return cls(
            found=found,
            gpu_hours=float(gpu_hours(found["train_flops"], share, setting.hardware)),
            samples=np.asarray(gpu_hours(again.train_flops, shares, setting.hardware)),
        )


def _cheapest(law: LossSurface, scale: FamilyScale, loss: float) -> Optimum:
    """`compute_for_loss`, all NaN where no law gets there."""
    try:
        return compute_for_loss(law, scale, loss)
    except InputError:
        none = np.full(len(law), np.nan)
        return Optimum(train_flops=none, num_params=none, num_tokens=none, loss=none)


def _share(
    measured: MeasuredUtilization, num_params: Values, architecture: str, length: int, level: float, drawn: Values = 0.0
) -> NDArray[np.float64]:
    """Utilization, moved from its mean by `drawn` half widths of its interval on a logarithmic scale."""
    found = measured.at(architecture, num_params, length, level)
    return np.minimum(found.value * (found.value / found.low) ** drawn, 1.0)


def _of_model(knowledge: Knowledge, num_params: float, place: Place) -> Hours:
    """Utilization and GPU-hours of the chosen model, C FLOP at N parameters."""
    if knowledge.utilization is None:
        return Hours(numbers=dict.fromkeys(_TRAINED), missing=dict.fromkeys(_TRAINED, NO_LOGS))
    setting = place.setting
    found = knowledge.utilization.at(knowledge.architecture, num_params, setting.context_length, place.level)
    low, share, high = (float(each) for each in (found.low, found.value, found.high))
    taken = [float(gpu_hours(setting.train_flops, each, setting.hardware)) for each in (share, high, low)]
    return Hours(
        numbers={"utilization": share, "train_gpu_hours": taken[0]},
        intervals={"utilization": [low, high], "train_gpu_hours": taken[1:]},
        outside=_beyond_logs(knowledge, num_params, place, "utilization"),
    )


def _of_target(
    knowledge: Knowledge, reached: _Reached, loss: float, place: Place, limits: Mapping[str, list[float]]
) -> Hours:
    """The loss to reach, and the cheapest model that does."""
    names = ("num_params", "train_flops")
    numbers: dict[str, float | None] = {"target_loss": loss, "target_gpu_hours": reached.gpu_hours}
    if reached.found is None:
        lost = [f"target_{name}" for name in (*names, "gpu_hours")]
        return Hours(numbers=numbers | dict.fromkeys(lost), missing=dict.fromkeys(lost, NOT_REACHED))
    values = {**reached.found, "context_length": float(place.setting.context_length)}
    bounds = interval_with_lost(reached.samples, place.level)
    return Hours(
        numbers=numbers | {f"target_{name}": reached.found[name] for name in names},
        intervals={"target_gpu_hours": list(bounds)} if np.isfinite(bounds).all() else {},
        outside=beyond({"target": limits}, {"target": values})
        + _beyond_logs(knowledge, reached.found["num_params"], place, "target_logs"),
        missing={"target_gpu_hours": NO_LOGS} if reached.gpu_hours is None else {},
    )


def _ratio(own: _Reached, first: _Reached, level: float) -> Hours:
    """GPU-hours to the loss over those of the first architecture; 1 for itself."""
    name = "target_gpu_hours_ratio"
    if own.gpu_hours is None or first.gpu_hours is None:
        missing = NOT_REACHED if own.found is None else NO_LOGS
        return Hours(numbers={name: None}, missing={name: missing})
    if own is first:
        return Hours(numbers={name: 1.0})
    number = min(len(own.samples), len(first.samples))
    bounds = interval_with_lost(own.samples[:number] / first.samples[:number], level)
    return Hours(
        numbers={name: own.gpu_hours / first.gpu_hours},
        intervals={name: list(bounds)} if np.isfinite(bounds).all() else {},
    )


def _curves(knowledge: Knowledge) -> Any:
    """The curves of an architecture that has logs, by increasing context length."""
    return () if knowledge.utilization is None else knowledge.utilization.curves[knowledge.architecture]


def _beyond_logs(knowledge: Knowledge, num_params: float, place: Place, of: str) -> list[dict[str, Any]]:
    """What of a model's utilization no log shows: its size at this context length, the context length, the hardware."""
    curves, setting = _curves(knowledge), place.setting
    if not curves:
        return []
    lengths = np.array([curve.context_length for curve in curves], dtype=float)
    inside = float(np.clip(setting.context_length, lengths[0], lengths[-1]))
    # the curves between which is interpolated: one where the context length was trained
    used = [curves[np.flatnonzero(lengths <= inside)[-1]], curves[np.flatnonzero(lengths >= inside)[0]]]
    sizes = [max(curve.sizes[0] for curve in used), min(curve.sizes[1] for curve in used)]
    limits = {"logged_params": sizes, "logged_context": [float(lengths[0]), float(lengths[-1])]}
    values = {"logged_params": num_params, "logged_context": float(setting.context_length)}
    found = beyond({of: limits}, {of: values})
    if setting.hardware != place.logs_hardware:
        of_logs = place.logs_hardware
        found.append({"of": of, "name": "hardware", "value": setting.hardware, "low": of_logs, "high": of_logs})
    return found
