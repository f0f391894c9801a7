"""Chapter 8: what the step times of a Transformer say about its attention kernel, and about the device."""

import numpy as np
import pandas as pd

from companion.chapters.ch08.common import extremes
from companion.chapters.ch08.wave_figure import bandwidths_and_waves
from companion.formatting import listed, percent
from companion.hardware import Hardware, hardware_table
from companion.inference.runtime_model import RuntimeModel
from companion.inference.terms import memory_of_steps
from companion.plotting import Html, show

#: Bounds on the number of multiprocessors (`companion.inference.terms.multiprocessor_bounds`).
Bounds = tuple[float, float]
#: Memory of the largest device that the authors may have used, bytes (NVIDIA H200).
LARGEST_MEMORY = 141e9
#: Times this factor below the waves are no longer near them.
_NEAR_WAVES = 1.1
#: Heads at which the kernels on GPUs at hand are compared.
_HEADS = 32


def kernel_figure(
    bandwidths: pd.DataFrame, slopes: pd.DataFrame, bounds: Bounds, peaks: Hardware, reads: pd.DataFrame
) -> Html:
    """Fitted bandwidths over the width of a head, and the time for a cached token over the heads in the batch.

    Parameters
    ----------
    bandwidths, slopes, bounds
        from `companion.inference.terms`: `bandwidth_by_head_width`, `cached_token_times`, `multiprocessor_bounds`.
    reads
        from `companion.benchmarks.hardware.measured_on`.
    """
    gpu, widest = reads["gpu"].iloc[0], int(reads["head_width"].max())
    return show(
        bandwidths_and_waves(bandwidths, slopes, peaks, reads, gpu, widest),
        name="inference-kernel",
        alt="First: fitted bandwidth over the width of a head, points on a straight line through the origin, far below "
        "the peak. Second: the authors' time per cached token over heads is flat, then rises in steps; one of three "
        "kernels on a GPU at hand does so too.",
        caption="First panel: bandwidths fitted to the Transformer's step are proportional to the width of a head, "
        f"{bandwidths['per_width'].min() / 1e9:.1f} to {bandwidths['per_width'].max() / 1e9:.1f} GB/s per unit. "
        f"Second: one more cached token costs the same up to {bounds[0]:.0f} heads and about twice as much from "
        f"{bounds[1]:.0f}. Waves of {peaks.num_multiprocessors}: the multiprocessors of {peaks.label}. Ours: one "
        f"layer's cache of {reads['context_length'].max():,.0f} tokens, heads of {widest}, read by PyTorch's kernels "
        f"efficient, flash and cudnn on {gpu}.",
    )


def wave_facts(slopes: pd.DataFrame, reads: pd.DataFrame, peaks: Hardware) -> dict[str, str]:
    """How far the authors' times stay below the waves in crowded batches, and the step of a kernel at hand.

    Parameters
    ----------
    slopes, reads
        as in `kernel_figure`.
    """
    heads, wave = slopes["heads_in_batch"], peaks.num_multiprocessors
    single = slopes.loc[heads <= wave, "seconds"].median()
    below = single * np.ceil(heads / wave) / slopes["seconds"]
    near = heads[(heads > wave) & (below > _NEAR_WAVES)].min()
    timed = reads[(reads["part"] == "cache") & (reads["backend"] == "efficient_attention")]
    widest = timed[timed["head_width"] == timed["head_width"].max()].groupby(["gpu", "heads"])["seconds_median"].first()
    steps = [
        own[own.index > wave].iloc[0] / own[own.index <= wave].iloc[-1]
        for own in (widest.loc[gpu] for gpu in widest.index.unique("gpu"))
    ]
    return {
        "c8_wave_heads": f"{near:,.0f}" if np.isfinite(near) else "any number of",
        "c8_wave_below": f"{below.max():.1f}",
        "c8_own_step": extremes(steps, "{:.1f}"),
    }


def kernel_facts(bandwidths: pd.DataFrame, variants: pd.DataFrame) -> dict[str, str]:
    """Range of the fitted bandwidths, and how far waves instead of bytes cut the misfit of the step times.

    Parameters
    ----------
    bandwidths, variants
        from `companion.inference.terms`: `bandwidth_by_head_width` and `cache_term_variants`.
    """
    beta, table = bandwidths["beta_eff_bytes_per_s"] / 1e12, variants.set_index("cache_term")
    misfit, share = table["rms_log_error"], table["share_of_bytes"]
    both = "tokens × waves, and bytes of all heads"
    return {
        "c8_step_bandwidths": f"{beta.min():.2f} to {beta.max():.2f}",
        "c8_misfit_bytes": f"{misfit['bytes of all heads']:.2f}",
        "c8_misfit_waves": f"{misfit['tokens × waves']:.3f}",
        "c8_misfit_both": f"{misfit[both]:.3f}",
        "c8_share_of_bytes": percent(share[both], decimals=1),
        "c8_misfit_width": f"{misfit['tokens × waves, and × head width']:.3f}",
    }


def own_facts(reads: pd.DataFrame) -> dict[str, str]:
    """Times per cached token on every GPU at hand: with wide and narrow heads, by kernels that split the cache."""
    widths = sorted(reads["head_width"].dropna().unique())
    timed = reads[reads["part"] == "cache"].assign(ns=1e9 * reads["seconds_median"] / reads["context_length"])
    cache = timed.set_index(["gpu", "head_width", "backend", "heads"])["ns"].sort_index()
    found: dict[str, list[str]] = {"wide": [], "narrow": [], "split": [], "copies": []}
    names, rates = [], []
    for gpu in dict.fromkeys(reads["gpu"]):
        name = gpu.removeprefix("NVIDIA ").split(" ")[0]
        others = cache[gpu, widths[-1]].drop("efficient_attention", level="backend")
        copied = reads.loc[(reads["gpu"] == gpu) & (reads["part"] == "copy"), "bytes_per_s"].max() / 1e12
        names.append(name)
        found["wide"].append(f"{cache[gpu, widths[-1], 'efficient_attention', _HEADS]:.0f}")
        found["narrow"].append(f"{cache[gpu, widths[0], 'efficient_attention', _HEADS]:.0f}")
        found["split"].append(f"{others.xs(_HEADS, level='heads').min():.1f}")
        found["copies"].append(f"{copied:.2f}")
        rates.append(copied)
    widest, narrowest = f"{widths[-1]:.0f}", f"{widths[0]:.0f}"
    facts = {"c8_own_heads": f"{_HEADS}", "c8_own_widest": widest, "c8_own_narrowest": narrowest}
    facts |= {f"c8_own_{key}": listed(values) for key, values in found.items()}
    for key in ("wide", "narrow"):  # a number that all of them share stands once
        same = len(set(found[key])) == 1 and len(names) > 1
        facts[f"c8_own_{key}"] = found[key][0] if same else facts[f"c8_own_{key}"]
    facts["c8_own_gpus"] = listed(names)
    return facts | {"c8_own_copies_ratio": f"{max(rates) / min(rates):.1f}"}


def device_facts_of_timings(
    timings: pd.DataFrame, steps: RuntimeModel, bounds: Bounds, scan: pd.DataFrame, peaks: Hardware
) -> dict[str, str]:
    """What the timings say about the device: multiprocessors, memory, bandwidth.

    Parameters
    ----------
    steps
        runtime model of the xLSTM's step.
    bounds, scan
        from `companion.inference.terms`: `multiprocessor_bounds` and `multiprocessor_scan`.
    """
    devices = hardware_table()
    possible = (devices["num_multiprocessors"] >= bounds[0]) & (devices["num_multiprocessors"] < bounds[1])
    within = scan[(scan["num_multiprocessors"] >= bounds[0]) & (scan["num_multiprocessors"] < bounds[1])]
    flat, least = within["rms_log_error"], within.sort_values("rms_log_error")["num_multiprocessors"].iloc[0]
    memory = memory_of_steps(timings)
    largest = memory.loc[memory["timed"], "bytes"].max()
    failed = memory[~memory["timed"] & memory["bytes"].between(largest, LARGEST_MEMORY, inclusive="neither")]
    rates = steps.table().set_index("term")

    def rate(term: str) -> str:
        row = rates.loc[term]
        return f"{row['rate'] / 1e12:.2f} [{row['rate_low'] / 1e12:.2f}, {row['rate_high'] / 1e12:.2f}]"

    return {
        "c8_waves_low": f"{bounds[0]:.0f}",
        "c8_waves_high": f"{bounds[1]:.0f}",
        "c8_devices_left": listed(list(devices.loc[possible, "label"])),
        "c8_devices_excluded": listed(list(devices.loc[~possible, "label"])),
        "c8_scan": f"{flat.min():.3f} (at {least:.0f}) to {flat.max():.3f}",
        "c8_largest_step": f"{largest / 1e9:.0f} GB",
        "c8_failed_steps": f"{len(failed)}",
        "c8_peak_memory": f"{peaks.memory_bytes / 1e9:.0f} GB",
        "c8_rate_weights": rate("weight_bytes"),
        "c8_rate_states": rate("state_bytes"),
        "c8_peak_bandwidth": f"{peaks.peak_bytes_per_s / 1e12:.2f}",
    }
