"""Chapter 8: how attention reads a cache, in the authors' timings beside a measurement on a GPU of one's own."""

from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.chapters.ch08.figures import GREY, SIZE_MARKERS
from companion.plotting.style import INK, architecture_look, subplots

_LOOKS = {
    "efficient_attention": ("#cc78bc", "o", "-"),
    "flash_attention": ("#029e73", "^", "--"),
    "cudnn_attention": ("#ca9161", "D", ":"),
}


def cache_waves(
    times: pd.DataFrame, num_multiprocessors: int, results: pd.DataFrame, gpu: str, head_width: int
) -> Figure:
    """Left: what one more cached token costs a step, with the staircase of waves; right: kernels on a GPU of one's own.

    Parameters
    ----------
    times
        of `companion.inference.terms.cached_token_times`.
    num_multiprocessors
        of the staircase.
    results
        of `companion.benchmarks.hardware.measured_on`.
    gpu, head_width
        which of the results.
    """
    figure, (left, right) = subplots(1, 2, height=3.7, sharey=True)
    color = architecture_look(["transformer"])["transformer"]["color"]
    for (size, group), marker in zip(times.groupby("model_size", sort=False), cycle(SIZE_MARKERS)):
        left.plot(
            group["heads_in_batch"], 1e9 * group["seconds"], marker, color=color, markersize=4.5, label=str(size),
            markeredgecolor=INK, markeredgewidth=0.4,
        )  # fmt: skip
    single = float(times.loc[times["heads_in_batch"] <= num_multiprocessors, "seconds"].median() * 1e9)
    heads = np.geomspace(times["heads_in_batch"].min(), times["heads_in_batch"].max(), 500)
    left.plot(heads, single * np.ceil(heads / num_multiprocessors), color=INK, linewidth=1)
    rows = results[(results["part"] == "cache") & (results["gpu"] == gpu) & (results["head_width"] == head_width)]
    for backend, group in rows.groupby("backend", sort=False):
        look_color, marker, dashes = _LOOKS.get(str(backend), (GREY, ".", "-"))
        nanoseconds = 1e9 * group["seconds_median"] / group["context_length"]
        label = str(backend).removesuffix("_attention")
        right.plot(
            group["heads"], nanoseconds, dashes, color=look_color, marker=marker, markersize=4, label=label
        )  # fmt: skip
    _head_axis(left, "authors' step times", num_multiprocessors, (10, 1.3 * heads[-1]))
    count = int(rows["num_multiprocessors"].iloc[0])
    _head_axis(right, f"{gpu.removeprefix('NVIDIA ').split(' ')[0]}, heads of {head_width}", count, (10, 1200))
    left.set_ylabel("time per cached token and layer (ns)")
    left.legend(title="model", ncols=2, loc="upper left")
    right.legend(title="kernel of PyTorch", loc="upper left")
    return figure


def _head_axis(ax: Axes, title: str, num_multiprocessors: int, ends: Any) -> None:
    for wave in (1, 2, 3):
        ax.axvline(wave * num_multiprocessors, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel="heads in the batch", title=title, xlim=ends)
