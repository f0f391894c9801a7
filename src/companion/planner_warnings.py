"""Where a plan leaves the data that its numbers come from."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

#: What a plan predicts and a run table knows, with how it is told.
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
    told = []
    for name, words in _COLUMNS.items():
        low, high = ranges.limits[name]
        if not low * 0.999 <= values[name] <= high * 1.001:
            told.append(f"{name}: {values[name]:.4g} {words} is outside the runs' {low:.4g} to {high:.4g}")
    if ranges.contexts and not ranges.contexts[0] <= context_length <= ranges.contexts[-1]:
        told.append(
            f"context_length: {context_length} is outside the trained {ranges.contexts[0]} to {ranges.contexts[-1]}"
        )
    if law_context is not None and context_length != law_context:
        told.append(
            f"loss: the law is that of T = {law_context}; at T = {context_length} only the cost is counted anew"
        )
    return told
