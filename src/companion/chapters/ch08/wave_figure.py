"""How attention reads a cache: the authors' timings beside a measurement on a GPU of one's own."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.chapters.ch08.figures import GREY, SIZE_MARKERS
from companion.inference.timings import measured, middle_context
from companion.plotting.style import subplots

_LOOKS = {
    "efficient_attention": ("#cc78bc", "o"),
    "flash_attention": ("#029e73", "^"),
    "cudnn_attention": ("#ca9161", "D"),
}
_SIZE_COLORS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494")


def cache_slopes(table: pd.DataFrame, architecture: str = "transformer") -> pd.DataFrame:
    """What one more token of cache costs a step, per layer: the slope of step time over context.

    Returns
    -------
    DataFrame with a row per model size and batch that were timed at three contexts or more: `model_size`,
    `batch_size`, `heads` (batch times heads of the model), `seconds_per_token_and_layer`.
    """
    rows = measured(table, architecture, "step_time")
    rows = rows.assign(context=middle_context(rows))
    found = []
    batch: Any
    for (size, batch), group in rows.groupby(["model_size", "batch_size"], sort=False):
        if group["context"].nunique() >= 3:
            # relative weights: short contexts count as much as long ones
            slope = np.polyfit(group["context"], group["step_time_s"], 1, w=1 / group["step_time_s"])[0]
            first = group.iloc[0]
            found.append(
                {
                    "model_size": size,
                    "batch_size": batch,
                    "heads": int(batch) * int(first["n_heads"]),
                    "seconds_per_token_and_layer": slope / first["n_layers"],
                }
            )
    columns = ["model_size", "batch_size", "heads", "seconds_per_token_and_layer"]
    return pd.DataFrame(found, columns=columns)


def cache_waves(slopes: pd.DataFrame, results: pd.DataFrame, gpu: str, head_width: int) -> Figure:
    """Left: the authors' slopes of step time over context; right: one layer's cache read on a GPU of one's own.

    Parameters
    ----------
    slopes
        of `cache_slopes`.
    results
        of `companion.benchmarks.hardware.measured_on`.
    gpu, head_width
        which of the results.
    """
    figure, (left, right) = subplots(1, 2, height=3.9, sharey=True)
    for number, (size, group) in enumerate(slopes.groupby("model_size", sort=False)):
        look: dict[str, Any] = {"color": _SIZE_COLORS[number % 7], "marker": SIZE_MARKERS[number % 7]}
        line = group.sort_values("heads")
        left.plot(line["heads"], 1e9 * line["seconds_per_token_and_layer"], label=size, markersize=4, **look)
    rows = results[(results["part"] == "cache") & (results["gpu"] == gpu) & (results["head_width"] == head_width)]
    for backend, group in rows.groupby("backend", sort=False):
        color, marker = _LOOKS.get(str(backend), (GREY, "."))
        nanoseconds = 1e9 * group["seconds_median"] / group["context_length"]
        label = str(backend).removesuffix("_attention")
        right.plot(group["heads"], nanoseconds, color=color, marker=marker, markersize=4, label=label)
    count = int(rows["num_multiprocessors"].iloc[0])
    for ax in (left, right):
        for wave in (1, 2, 3):
            ax.axvline(wave * count, color=GREY, linewidth=0.8, linestyle=":")
        ax.set(xscale="log", yscale="log", xlabel="heads: batch × heads of the model", xlim=(8, 1500))
        ax.set_xticks(
            [16, 32, 64, count, 2 * count, 512, 1024], ["16", "32", "64", f"{count}", f"{2 * count}", "512", "1024"]
        )
        ax.minorticks_off()
    left.set(title="authors' step times", ylabel="time per cached token and layer (ns)")
    right.set(title=f"{gpu.removeprefix('NVIDIA ').split(' ')[0]}, heads of {head_width}")
    left.legend(title="model", ncols=2)
    right.legend(title="torch backend")
    return figure
