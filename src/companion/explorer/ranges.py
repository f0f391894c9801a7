"""What the data behind the explorer's numbers cover, and which values of a setting lie beyond."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from companion.explorer.settings import Setting
from companion.inference.runtime_model import RuntimeModel
from companion.inference.timings import middle_context
from companion.planner.knowledge import Knowledge

#: How far a value may pass the end of a range before it counts as outside: data are rounded.
MARGIN = 1e-3


def ranges_of(knowledge: Knowledge) -> dict[str, dict[str, list[float]]]:
    """Least and largest value that the data hold of everything a number depends on, by what the number is."""
    limits, (ttft, step_time) = knowledge.ranges.limits, knowledge.times
    trained = {name: list(limits[name]) for name in ("num_params", "num_tokens", "tokens_per_param", "train_flops")}
    if contexts := knowledge.ranges.contexts:
        trained["context_length"] = [float(contexts[0]), float(contexts[-1])]
    return {
        "loss": trained,
        "optimum": {**trained},
        "ttft": _timed(ttft, ttft.rows["prefill_length"]),
        "step_time": _timed(step_time, middle_context(step_time.rows)),
    }


def _timed(model: RuntimeModel, context: Any) -> dict[str, list[float]]:
    """The ranges behind `RuntimeModel.outside`."""
    batch, length = model.rows["batch_size"].to_numpy(dtype=float), np.asarray(context, dtype=float)
    columns = {
        "num_params": model.rows["num_params"].to_numpy(dtype=float),
        "context_length": length,
        "batch_size": batch,
        "batch_tokens": batch * length,
    }
    return {name: [float(values.min()), float(values.max())] for name, values in columns.items()}


def values_of(numbers: Mapping[str, float], setting: Setting) -> dict[str, dict[str, float]]:
    """What `ranges_of` bounds, at one setting."""
    given = {"train_flops": setting.train_flops, "context_length": float(setting.context_length)}
    names = ("num_params", "num_tokens", "tokens_per_param")
    served = {
        "num_params": numbers["num_params"],
        "context_length": float(setting.context_length),
        "batch_size": float(setting.batch_size),
        "batch_tokens": float(setting.context_length * setting.batch_size),
    }
    return {
        "loss": {name: numbers[name] for name in names} | given,
        "optimum": {name: numbers[f"optimal_{name}"] for name in names} | given,
        "ttft": served,
        "step_time": served,
    }


def beyond(
    ranges: Mapping[str, Mapping[str, list[float]]], values: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    found = []
    for of, limits in ranges.items():
        for name, (low, high) in limits.items():
            value = values[of][name]
            if value > high * (1 + MARGIN) or value < low * (1 - MARGIN):
                found.append({"of": of, "name": name, "value": value, "low": low, "high": high})
    return found
