"""Warnings where a plan extrapolates beyond its data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.fitting.uncertainty import MOST
from companion.formatting import level_text, percent

#: Relative distance up to which numbers are equal but for rounding.
_SAME = 1e-9
#: Columns that both a plan and a run table have, with the words for each in a warning.
_COLUMNS = {
    "num_params": "parameters",
    "num_tokens": "tokens",
    "train_flops": "FLOP of training",
    "tokens_per_param": "tokens per parameter",
    "loss": "nats per token",
}


@dataclass(frozen=True)
class Ranges:
    """Least and largest value of what the runs of a law cover, by name, and the context lengths of the whole table."""

    limits: dict[str, tuple[float, float]]
    contexts: tuple[int, ...]

    @classmethod
    def of(cls, fitted: pd.DataFrame, table: pd.DataFrame) -> "Ranges":
        """Of the runs behind a law, and of all runs of its architecture (for the contexts)."""
        columns = {name: fitted[name].astype(float) for name in ("num_params", "num_tokens", "train_flops")}
        columns["tokens_per_param"] = columns["num_tokens"] / columns["num_params"]
        columns["loss"] = fitted["val_loss"].astype(float)
        contexts = sorted(table["context_length"].dropna().unique()) if "context_length" in table else []
        return cls(
            limits={name: (float(values.min()), float(values.max())) for name, values in columns.items()},
            contexts=tuple(int(context) for context in contexts),
        )


def no_intervals(widths: NDArray[np.float64], num_resamples: int, level: float) -> str:
    """Why resampled models (their `d_model`, NaN for none) give no intervals; empty where they do.

    Most are lost; or too few are left to expect even one in the two tails together; or all are equal.
    """
    usable = widths[np.isfinite(widths)]
    if usable.size < (1 - MOST) * num_resamples:
        return f"{percent(1 - usable.size / num_resamples)} of the resamples have no such model"
    if usable.size * (1 - level) < 1 - 1e-9:
        number = f"{usable.size} resample{'s' * (usable.size != 1)}"
        return f"{number}, at least {math.ceil(1 / (1 - level) - 1e-6)} are needed at {level_text(level)}"
    if np.ptp(usable) <= _SAME * usable.mean():
        return "all resamples end at the same model"
    return ""


def off_center(values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> list[str]:
    """A sentence on values that lie outside their own interval: what is fitted to all runs is in a tail of refits."""
    names = []
    for name, value in values.items():
        low, high = intervals[name]
        if value < low * (1 - _SAME) or value > high * (1 + _SAME):
            names.append(name)
    if not names:
        return []
    return [f"outside of its own interval: {', '.join(names)}; refits to resampled runs lie to one side of the fit"]


def below_roofline(values: Mapping[str, float]) -> list[str]:
    """A sentence for every time that the runtime model, far from its timings, puts below the hardware's least."""
    return [
        f"{name}: {values[f'{name}_s']:.3g} s is below the roofline's {values[f'{name}_roofline_s']:.3g} s"
        for name in ("ttft", "step_time")
        if values[f"{name}_s"] < values[f"{name}_roofline_s"] * (1 - 1e-9)
    ]


def range_warnings(
    values: Mapping[str, float], ranges: Ranges, context_length: int, law_context: int | None
) -> list[str]:
    """Sentences on every value that lies outside its range, and on a context that no law was fitted at."""
    warnings = []
    for name, words in _COLUMNS.items():
        low, high = ranges.limits[name]
        if not low * 0.999 <= values[name] <= high * 1.001:
            warnings.append(f"{name}: {values[name]:.4g} {words} is outside the runs' {low:.4g} to {high:.4g}")
    if ranges.contexts and not ranges.contexts[0] <= context_length <= ranges.contexts[-1]:
        warnings.append(
            f"context_length: {context_length} is outside the trained {ranges.contexts[0]} to {ranges.contexts[-1]}"
        )
    if law_context is not None and context_length != law_context:
        warnings.append(
            f"loss: the law is that of T = {law_context}; at T = {context_length} only the cost is counted again"
        )
    return warnings
