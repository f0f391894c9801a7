"""Seconds and memory of one action, on a CUDA GPU by its events, elsewhere by the clock of the process. Needs torch."""

import gc
import os
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import torch

#: What a cell takes of measuring, about, and how often it is repeated at least and at most.
SECONDS, LEAST, MOST = 0.5, 3, 30
#: An action that takes longer than this, seconds, is repeated once.
LONG = 3.0


def timing_of(action: Callable[[], Any], device: str) -> dict[str, Any]:
    """Times of an action that has run before; it is repeated for about half a second, 3 to 30 times.

    An action that takes more than three seconds is timed once. Every repeat is between two events of its own, which
    are all queued at once: the GPU waits for the host where the host is slower.

    Parameters
    ----------
    device
        `cuda` or `cpu`.

    Returns
    -------
    dict
        `seconds_median`, `seconds_low`, `seconds_high` (smallest and largest), `repeats`.
    """
    times = _times(action, 1, device)
    if times[0] <= LONG:
        times += _times(action, max(LEAST, min(MOST, int(SECONDS / max(times[0], 1e-9)))) - 1, device)
    low, middle, high = (float(f"{value:.5g}") for value in (min(times), median(times), max(times)))
    return {"seconds_median": middle, "seconds_low": low, "seconds_high": high, "repeats": len(times)}


def _times(action: Callable[[], Any], repeats: int, device: str) -> list[float]:
    if device != "cuda":
        marks = [time.perf_counter()]
        for _ in range(repeats):
            action()
            marks.append(time.perf_counter())
        return [max(end - begin, 1e-9) for begin, end in pairwise(marks)]
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize()
    for begin, end in events:
        begin.record()
        action()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in events]


def reset_peak(device: str) -> None:
    """Count the highest memory from here on."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """Most bytes that torch held at once since `reset_peak`, weights included; None on a CPU."""
    return int(torch.cuda.max_memory_allocated()) if device == "cuda" else None


def free_bytes(device: str) -> int:
    """Bytes that would be free if torch held nothing: those of the device that others do not hold."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def release(device: str) -> None:
    """Give memory back that nothing refers to, pools of CUDA graphs included."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def does_not_fit(needed: float, free: float) -> str:
    """Why a cell is left out, with both numbers in GiB.

    Examples
    --------
    >>> does_not_fit(210.3 * 2**30, 138.6 * 2**30)
    'needs 210.3 GiB, 138.6 GiB are free'
    """
    return f"needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
