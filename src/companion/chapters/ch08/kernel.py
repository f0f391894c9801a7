"""Chapter 8: what the step times of a Transformer say about its attention kernel, and about the device."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from companion.chapters.ch08 import figures
from companion.chapters.ch08.wave_figure import cache_slopes, cache_waves
from companion.hardware import Hardware, hardware_table
from companion.inference.runtime_model import RuntimeModel
from companion.inference.terms import memory_of_steps
from companion.plotting import Html, show, show_table

#: Bounds on the number of multiprocessors (`companion.inference.terms.multiprocessor_bounds`).
Bounds = tuple[float, float]
#: Memory of the largest device that the authors may have used, bytes (NVIDIA H200).
LARGEST_MEMORY = 141e9
#: Heads at which the kernels on GPUs at hand are compared.
_HEADS = 32
_DEVICE_FAMILY = "A100|H100|H200"


def head_width_figure(bandwidths: pd.DataFrame, peaks: Hardware) -> Html | None:
    """Fitted bandwidths over the width of a head (`inference.terms.bandwidth_by_head_width`); None without any."""
    if bandwidths.empty:
        return None
    return show(
        figures.bandwidth_over_head_width(bandwidths, {peaks.label: peaks.peak_bytes_per_s}),
        name="inference-head-width",
        alt="Fitted bandwidth over the width of a head: points on a straight line through the origin, far below the "
        "peak.",
        caption="Fitted bandwidths of the step time are proportional to the width of a head: "
        f"{bandwidths['per_width'].min() / 1e9:.1f} to {bandwidths['per_width'].max() / 1e9:.1f} GB/s per unit of "
        "width.",
    )


def waves_figure(
    slopes: pd.DataFrame | None, bounds: Bounds | None, scan: pd.DataFrame | None, peaks: Hardware
) -> Html | None:
    """Time per cached token over heads in the batch, and the scan over multiprocessors; None without step times.

    Parameters
    ----------
    slopes, bounds, scan
        from `companion.inference.terms`: `cached_token_times`, `multiprocessor_bounds`, `multiprocessor_scan`.
    """
    if slopes is None or bounds is None or scan is None:
        return None
    devices = hardware_table().query("num_multiprocessors <= 208")
    devices = devices[devices["label"].str.contains(_DEVICE_FAMILY)]
    devices = devices.assign(label=devices["label"].str.replace("NVIDIA ", "").str.replace(" 80 GB", ""))
    return show(
        figures.attention_waves(slopes, peaks.num_multiprocessors, scan, devices),
        name="inference-waves",
        alt="Left: time per cached token over heads in the batch, flat, then rising in steps. Right: misfit over "
        "multiprocessors.",
        caption=f"Left: one more cached token costs the same up to {bounds[0]:.0f} heads in the batch and twice as "
        f"much from {bounds[1]:.0f}; line: waves of {peaks.num_multiprocessors}. Right: misfit of one model for all "
        "sizes if waves had this many heads. The largest batches were timed at short contexts only.",
    )


def variants_table(variants: pd.DataFrame | None) -> Html | None:
    """Terms for the cache (`companion.inference.terms.cache_term_variants`); None without step times."""
    if variants is None:
        return None
    return show_table(
        variants,
        caption="Terms for the cache in one model of all step times of the Transformer. Last column: share of all "
        "time that goes to terms in bytes or head width.",
        formats={"rms_log_error": "{:.3f}", "share_of_bytes": "{:.1%}"},
        labels={"cache_term": "term for the cache", "rms_log_error": "rms of ln(predicted/measured)"}
        | {"share_of_bytes": "share of terms in bytes"},
    )


def own_waves_figure(attention: RuntimeModel | None, reads: pd.DataFrame) -> Html | None:
    """The timings' slopes beside kernels on a GPU at hand; None without step times.

    Parameters
    ----------
    attention
        runtime model of the Transformer's step.
    reads
        from `companion.benchmarks.hardware.measured_on`.
    """
    if attention is None:
        return None
    gpu, widest = reads["gpu"].iloc[0], int(reads["head_width"].max())
    return show(
        cache_waves(cache_slopes(attention.rows), reads, gpu, widest),
        name="inference-own-waves",
        alt="Left: the authors' time per cached token over heads. Right: the same for three kernels; one is flat up "
        "to the first wave.",
        caption=f"Left: the authors' step times. Right: one layer's cache of {reads['context_length'].max():.0f} "
        f"tokens on {gpu}, three kernels of PyTorch; dotted: full waves. One kernel behaves as the authors' does, "
        "two split the cache.",
    )


def own_gpu_words(reads: pd.DataFrame) -> str:
    """Times per cached token on every GPU at hand: with wide and narrow heads, and by a kernel that splits it."""
    widths = sorted(reads["head_width"].dropna().unique())
    timed = reads[reads["part"] == "cache"].assign(ns=1e9 * reads["seconds_median"] / reads["context_length"])
    cache = timed.set_index(["gpu", "head_width", "backend", "heads"])["ns"].sort_index()
    found = []
    for gpu in dict.fromkeys(reads["gpu"]):
        wide, narrow = (cache.get((gpu, width, "efficient_attention", _HEADS)) for width in (widths[-1], widths[0]))
        others = cache[gpu, widths[-1]].drop("efficient_attention", level="backend")
        split = others.xs(_HEADS, level="heads").min()
        peak = reads.loc[(reads["gpu"] == gpu) & (reads["part"] == "copy"), "bytes_per_s"].max() / 1e12
        found.append(
            f"{gpu}, {_HEADS} heads: {wide:.0f} ns per cached token with heads of {widths[-1]:.0f}, {narrow:.0f} "
            f"with heads of {widths[0]:.0f}; {split:.1f} with a kernel that splits the cache (copies reach "
            f"{peak:.2f} TB/s)"
        )
    return ". ".join(found)


def evidence_table(
    timings: pd.DataFrame, models: Mapping[tuple[str, str], RuntimeModel], bounds: Bounds | None, peaks: Hardware
) -> Html:
    """What the timings say about the device: multiprocessors, memory, bandwidth."""
    rows: list[dict[str, Any]] = []
    if bounds is not None:
        seen = f"at least {bounds[0]:.0f}, fewer than {bounds[1]:.0f} heads in one wave"
        rows.append({"what": "multiprocessors", "timings": seen, "of": f"{peaks.num_multiprocessors}"})
        memory = memory_of_steps(timings)
        largest = memory.loc[memory["timed"], "bytes"].max()
        failed = memory[~memory["timed"] & memory["bytes"].between(largest, LARGEST_MEMORY, inclusive="neither")]
        seen = (
            f"largest step timed holds {largest / 1e9:.0f} GB of weights and cache; all {len(failed)} between that "
            "and 141 GB failed"
        )
        rows.append({"what": "memory", "timings": seen, "of": f"{peaks.memory_bytes / 1e9:.0f} GB"})
    for name, term, what in (("xlstm", "weight_bytes", "weights"), ("xlstm", "state_bytes", "states")):
        if (name, "step_time") in models:
            row = models[name, "step_time"].table().set_index("term").loc[term]
            rates = f"{row['rate'] / 1e12:.2f} [{row['rate_low'] / 1e12:.2f}, {row['rate_high'] / 1e12:.2f}] TB/s"
            seen = f"{what} of the xLSTM move at {rates}"
            rows.append({"what": "bandwidth", "timings": seen, "of": f"{peaks.peak_bytes_per_s / 1e12:.2f} TB/s"})
    return show_table(
        pd.DataFrame(rows, columns=["what", "timings", "of"]),
        caption="What the timings say about the device.",
        labels={"of": peaks.label, "timings": "in the timings"},
    )


def kernel_facts(
    bandwidths: pd.DataFrame,
    variants: pd.DataFrame | None,
    bounds: Bounds | None,
    scan: pd.DataFrame | None,
    *,
    of_paper: bool,
) -> dict[str, str]:
    """Verdicts on the kernel and the device behind the Transformer's step times; `of_paper`: they are the authors'."""
    if variants is None or bounds is None or scan is None:
        unknown = "This table has no step times of a Transformer to show it on"
        kernel = "Without step times of a Transformer, nothing is said about its kernel"
        return {"c8_waves": unknown, "c8_answer_kernel": kernel, "c8_device": unknown}
    beta = bandwidths["beta_eff_bytes_per_s"] / 1e12
    kernel = (
        f"The Transformer's timed steps show a kernel, not the device: bandwidths of {beta.min():.2f} to "
        f"{beta.max():.2f} TB/s follow the width of a head, and heads wait in waves for a multiprocessor"
    )
    return {
        "c8_waves": waves_words(variants),
        "c8_answer_kernel": kernel,
        "c8_device": device_verdict(bounds, scan, of_paper=of_paper),
    }


def waves_words(variants: pd.DataFrame) -> str:
    """How far waves instead of bytes cut the misfit of the Transformer's step times."""
    table = variants.set_index("cache_term")
    worst, good = table.loc["bytes of all heads"], table.loc["tokens × waves"]
    both = table.loc["tokens × waves, and bytes of all heads"]
    return (
        "Counting waves instead of bytes cuts the misfit of one model for all sizes from "
        f"{worst['rms_log_error']:.2f} to {good['rms_log_error']:.3f}; bytes on top of waves take "
        f"{both['share_of_bytes']:.1%} of the time and leave it at {both['rms_log_error']:.3f}"
    )


def device_verdict(bounds: Bounds, scan: pd.DataFrame, *, of_paper: bool) -> str:
    """Which devices the waves leave; for the authors' timings, which of these is most likely."""
    devices = hardware_table()
    possible = (devices["num_multiprocessors"] >= bounds[0]) & (devices["num_multiprocessors"] < bounds[1])
    inside, outside = (", ".join(devices.loc[rows, "label"]) for rows in (possible, ~possible))
    within = scan[(scan["num_multiprocessors"] >= bounds[0]) & (scan["num_multiprocessors"] < bounds[1])]
    flat, least = within["rms_log_error"], within.sort_values("rms_log_error")["num_multiprocessors"].iloc[0]
    found = (
        f"Of the devices in our table the waves leave {inside}, and exclude {outside}. A fine scan says no more: "
        f"within these bounds the misfit is {flat.min():.3f} (at {least:.0f}) to {flat.max():.3f}, too little to "
        "decide"
    )
    if not of_paper:
        return found
    return (
        f"{found}. Of these, L40S and RTX 4090 have less than a third of the bandwidth seen and an H200 has memory "
        "for the steps that failed: most likely it was an H100 SXM. The rate of the states, if they are held in 4 "
        "bytes, lies above its peak, which is inside the interval; states of small models may stay in the device's "
        "cache"
    )
