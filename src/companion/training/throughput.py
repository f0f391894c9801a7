"""What a run did for its time: tokens per second, model FLOP utilization, GPU-hours."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.formatting import plural, quoted, significant
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware

#: Runs of the paper's design: compared architectures differ in nothing but shapes.
ISOFLOP = "isoflop"
#: Columns that `with_throughput` adds.
THROUGHPUT_COLUMNS = ("tokens_per_second_per_gpu", "utilization", "gpu_hours")
#: Sizes between which `utilization_by_size` takes medians, parameters.
SIZE_EDGES = (150e6, 400e6, 1.2e9)


def with_throughput(logs: pd.DataFrame, hardware: str | Hardware = REFERENCE_HARDWARE) -> pd.DataFrame:
    """The logs with what follows from their step times.

    Parameters
    ----------
    logs
        of `load_training_logs`.
    hardware
        whose peak the utilization is a share of; a name of `data/hardware.csv`.

    Returns
    -------
    DataFrame
        a copy with `tokens_per_second_per_gpu`; `utilization`, the model FLOP utilization, FLOPs of the convention that
        `train_flops` was counted by over those that the GPUs' peak allows (Chowdhery et al. 2022, appendix B), so that
        FLOPs of recomputation do not count; and `gpu_hours` = median step time · steps · GPUs, without validation and
        start-up. NaN where the log has no step time or no GPU count.
    """
    peak = get_hardware(hardware).peak_flops_per_s if isinstance(hardware, str) else hardware.peak_flops_per_s
    steps = logs["train_steps"].astype(float)
    gpu_seconds = logs["step_time_s"] * logs["num_gpus"]
    return logs.assign(
        tokens_per_second_per_gpu=logs["num_tokens"] / steps / gpu_seconds,
        utilization=logs["train_flops"] / steps / gpu_seconds / peak,
        gpu_hours=gpu_seconds * steps / 3600,
    )


def beyond_peak(logs: pd.DataFrame, hardware: str | Hardware = REFERENCE_HARDWARE) -> str:
    """Which runs of `with_throughput` would do more than their hardware can, in words; empty if none would."""
    above = logs[logs["utilization"] > 1]
    if above.empty:
        return ""
    device = get_hardware(hardware) if isinstance(hardware, str) else hardware
    first, rest = above.iloc[0], len(above) - 1
    others = "" if rest == 0 else f", and {plural(rest, 'other run')} would exceed it too"
    name, times = quoted(first.get("run", above.index[0])), significant(first["utilization"], 4)
    return (
        f"run {name} would use {times} times the peak of {device.label}{others}: step times in another unit, other "
        "GPUs, or too few of them?"
    )


def finished(logs: pd.DataFrame, context_length: int | None = None, group: str | None = ISOFLOP) -> pd.DataFrame:
    """Finished runs with a loss, a step time and a GPU count; of one context length and one group, if given.

    Where the table has no column `group`, or it is empty, every run belongs to every group.

    Raises
    ------
    InputError
        if none is left; the message names what there is.
    """
    known = logs[["val_loss", "step_time_s", "num_gpus"]].notna().all(axis=1) & (logs["status"] == "finished")
    if context_length is not None:
        known &= logs["context_length"] == context_length
    if group is not None and "group" in logs:
        known &= logs["group"].isna() | (logs["group"] == group)
    if not known.any():
        sets = logs[["architecture", "context_length"]].drop_duplicates()
        there = ", ".join(f"{row.architecture} at T = {row.context_length}" for row in sets.itertuples())
        raise InputError(
            f"{logs.attrs.get('source', 'training logs')}: no finished run with val_loss, step_time_s and num_gpus"
            f"{'' if context_length is None else f' at context length {context_length}'}; the table has {there}"
        )
    return logs[known]


def utilization_by_size(logs: pd.DataFrame, edges: Sequence[float] = SIZE_EDGES) -> pd.DataFrame:
    """Median utilization and throughput by architecture, context length and size.

    Parameters
    ----------
    logs
        of `with_throughput`.
    edges
        sizes at which one class ends and the next begins, parameters.

    Returns
    -------
    DataFrame
        with `architecture`, `context_length`, `smallest` and `largest` (N of the class's runs), `num_runs`,
        `utilization` with its quartiles `utilization_q25` and `utilization_q75`, and `tokens_per_second_per_gpu`
        (median).
    """
    known = logs[logs["utilization"].notna()]
    classes = np.searchsorted(np.asarray(edges, dtype=float), known["num_params"].to_numpy(float), side="right")
    groups = known.assign(size_class=classes).groupby(["architecture", "context_length", "size_class"])
    table = groups.agg(
        smallest=("num_params", "min"),
        largest=("num_params", "max"),
        num_runs=("run", "size"),
        utilization=("utilization", "median"),
        utilization_q25=("utilization", lambda values: values.quantile(0.25)),
        utilization_q75=("utilization", lambda values: values.quantile(0.75)),
        tokens_per_second_per_gpu=("tokens_per_second_per_gpu", "median"),
    )
    return table.reset_index().drop(columns="size_class")
