"""Seconds, memory, and what the same GPU reaches at its best, for kernels. Needs torch and a CUDA GPU.

Every timing is of one call between two CUDA events, after calls that do not count. Inputs rotate through as many sets
as it takes to exceed the L2 cache four times, so that no call finds its inputs there; where one set is larger than that
there is one set.
"""

from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import Any

import torch

from companion.benchmarks import hardware
from companion.benchmarks.kernels.counts import significant

#: Calls that do not count.
WARM_UP = 3


def seconds(action: Callable[[int], Any], *, repeats: int, limit: float = 1.0, calls: int = 1) -> dict[str, Any]:
    """Median and quartiles of an action on the GPU; `action(number)` is called with 0, 1, 2, …

    Parameters
    ----------
    repeats
        timings; fewer (at least 5) if they would take longer than `limit` seconds.
    calls
        steps that one action makes: the times are per step.
    """
    for number in range(WARM_UP):
        action(number)
    torch.cuda.synchronize()
    first = _timed(action, WARM_UP, 1)[0]
    repeats = max(5, min(repeats, int(limit / max(first, 1e-6))))
    times = sorted(x / calls for x in _timed(action, WARM_UP + 1, repeats))
    low, middle, high = quantiles(times, n=4, method="inclusive")
    return {
        "seconds_median": significant(middle),
        "seconds_quartile_1": significant(low),
        "seconds_quartile_3": significant(high),
        "repeats": repeats,
    }


def peak_memory(action: Callable[[int], Any]) -> int:
    """Bytes that a call takes beyond what was allocated before it, at its highest point."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action(0)
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def num_sets(set_bytes: int) -> int:
    """Sets of inputs to rotate through: four times the L2 cache, or one that is larger than that."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(1, -(-4 * cache // max(set_bytes, 1)))


def measured_peaks(repeats: int = 20) -> dict[str, float]:
    """FLOP/s of a product of 8192² bf16 matrices, and bytes/s of a 2 GiB copy (read and written), measured now."""
    return {
        "peak_flops_per_s": significant(hardware.product(torch, repeats, size=8192)["flops_per_s"]),
        "peak_bytes_per_s": significant(hardware.copy(torch, repeats, size=2**31)["bytes_per_s"]),
    }


def graph_of(actions: Sequence[Callable[[], Any]]) -> Any:
    """A CUDA graph of several actions after one another, each of which has run before.

    Raises
    ------
    RuntimeError
        if one of them cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for action in actions:
            action()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for action in actions:
            action()
    return graph


def _timed(action: Callable[[int], Any], start: int, repeats: int) -> list[float]:
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for number, (begin, end) in enumerate(events):
        begin.record()
        action(start + number)
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in events]
