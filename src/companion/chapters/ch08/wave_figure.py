"""Chapter 8: how attention reads a cache, in the authors' timings and in a measurement on a GPU of one's own."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.chapters.ch08.figures import GREY
from companion.hardware import Hardware
from companion.plotting.style import INK, architecture_look, subplots

_LOOKS = {
    "efficient_attention": ("#cc78bc", "o", "-"),
    "flash_attention": ("#029e73", "^", "--"),
    "cudnn_attention": ("#d55e00", "D", ":"),
}


def bandwidths_and_waves(
    bandwidths: pd.DataFrame,
    times: pd.DataFrame,
    peaks: Hardware,
    results: pd.DataFrame,
    gpu: str,
    head_width: int,
) -> Figure:
    """Left: fitted bandwidth of every size over the width of its heads. Right: time per cached token over heads.

    Parameters
    ----------
    bandwidths, times
        of `companion.inference.terms`: `bandwidth_by_head_width` and `cached_token_times`.
    peaks
        the device: its bandwidth is a line on the left, its number of multiprocessors a staircase on the right.
    results
        of `companion.benchmarks.hardware.measured_on`.
    gpu, head_width
        which of the results.
    """
    figure, (left, right) = subplots(1, 2, height=3.7)
    _draw_bandwidths(left, bandwidths, peaks)
    color = architecture_look(["transformer"])["transformer"]["color"]
    right.plot(times["heads_in_batch"], 1e9 * times["seconds"], "s", color=color, markersize=4, label="authors")
    single = float(times.loc[times["heads_in_batch"] <= peaks.num_multiprocessors, "seconds"].median() * 1e9)
    heads = np.geomspace(times["heads_in_batch"].min(), times["heads_in_batch"].max(), 500)
    waves = single * np.ceil(heads / peaks.num_multiprocessors)
    right.plot(heads, waves, color=INK, linewidth=1, label=f"waves of {peaks.num_multiprocessors}")
    rows = results[(results["part"] == "cache") & (results["gpu"] == gpu) & (results["head_width"] == head_width)]
    for backend, group in rows.groupby("backend", sort=False):
        look_color, marker, dashes = _LOOKS.get(str(backend), (GREY, ".", "-"))
        nanoseconds = 1e9 * group["seconds_median"] / group["context_length"]
        label = f"ours, {str(backend).removesuffix('_attention')}"
        right.plot(group["heads"], nanoseconds, dashes, color=look_color, marker=marker, markersize=3.5, label=label)
    right.set(xscale="log", yscale="log", xlabel="heads in the batch", ylabel="ns per cached token and layer")
    figure.legend(handles=right.get_legend_handles_labels()[0], loc="outside lower center", ncols=3)
    return figure


def _draw_bandwidths(ax: Axes, table: pd.DataFrame, peaks: Hardware) -> None:
    color = architecture_look(["transformer"])["transformer"]["color"]
    beta = table["beta_eff_bytes_per_s"] / 1e12
    ends = np.stack([beta - table["low"] / 1e12, table["high"] / 1e12 - beta])
    bounds = np.where(np.isfinite(ends), ends, 0).clip(min=0)  # an end that is not known has no bar
    ax.errorbar(table["head_width"], beta, yerr=bounds, linestyle="", marker="s", color=color, markersize=5)
    last = table["head_width"].max()
    for width, group in table.groupby("head_width"):
        ax.annotate(  # below the line, which rises to the right
            ", ".join(group["model_size"]), (width, group["beta_eff_bytes_per_s"].min() / 1e12),
            xytext=(6, -11), textcoords="offset points", fontsize=9,
        )  # fmt: skip
    grid = np.array([0, last * 1.15])
    ax.plot(grid, grid * table["per_width"].median() / 1e12, color=GREY, linewidth=1)
    peak = peaks.peak_bytes_per_s / 1e12
    ax.axhline(peak, color=GREY, linewidth=1, linestyle="--")
    ax.set(xlabel="width of a head", ylabel="fitted bandwidth (TB/s)", xlim=(0, 1.35 * last))
    ax.annotate(  # above the line and at its end: at the start it would look like a legend
        "peak of the device", (1.35 * last, peak), xytext=(-3, 3), textcoords="offset points", fontsize=9,
        ha="right", va="bottom",
    )  # fmt: skip
    ax.set_ylim(0, 1.15 * max(peak, ax.get_ylim()[1] / 1.15))
