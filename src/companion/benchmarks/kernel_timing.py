"""Seconds, memory, and what the same GPU reaches at its best, for kernels. Needs torch and a CUDA GPU.

Every timing is of one call between two CUDA events, after calls that do not count. Inputs rotate through as many sets
as it takes to exceed the L2 cache four times, so that no call finds its inputs there; where one set is larger than that
there is one set. Useful FLOPs and least bytes are the same for every implementation of a computation, whatever it
really does, so that a share of the peak can be compared:

* FLOPs of the mLSTM: the chunkwise form at L = 64 with the masked half of the pairs left out (convention `tfla` of
  `companion.accounting`, causal factor 0.5); of attention: the causal half of both products; of a step: the recurrent
  form. Backward is twice forward.
* Bytes: every input read once and every output written once. Backward reads the inputs and the upstream gradient and
  writes the gradients of the inputs. A step reads and writes its state.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import quantiles
from typing import Any

import torch

from companion.accounting.conventions import TFLA
from companion.accounting.flops import mlstm_core_flops
from companion.benchmarks import hardware

#: Chunk length of the useful FLOPs, and calls that do not count.
FLOPS_CHUNK, WARM_UP = 64, 3
BYTES_OF_GATE = 4


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
        "seconds_median": _significant(middle),
        "seconds_quartile_1": _significant(low),
        "seconds_quartile_3": _significant(high),
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
        "peak_flops_per_s": _significant(hardware.product(torch, repeats, size=8192)["flops_per_s"]),
        "peak_bytes_per_s": _significant(hardware.copy(torch, repeats, size=2**31)["bytes_per_s"]),
    }


def sequence_counts(
    computation: str,
    *,
    batch_size: int,
    context_length: int,
    n_heads: int,
    d_qk: int,
    d_hv: int,
    backward: bool,
    element_bytes: int = 2,
) -> dict[str, float]:
    """`useful_flops` and `least_bytes` of whole sequences (see the module)."""
    tokens = batch_size * context_length * n_heads
    if computation == "attention":
        flops = float(tokens * context_length * (d_qk + d_hv))
    else:
        convention = replace(TFLA, name="useful", mlstm_causal_factor=0.5, chunk_size=FLOPS_CHUNK)
        flops = float(batch_size * mlstm_core_flops(n_heads, d_qk, d_hv, context_length, convention))
    gates = {"attention": 0, "forget_only": 1}.get(computation, 2)
    inputs = (2 * d_qk + d_hv) * element_bytes + gates * BYTES_OF_GATE
    outputs = d_hv * element_bytes
    moved = inputs + outputs + ((inputs + outputs + inputs) if backward else 0)
    return {"useful_flops": flops * (3 if backward else 1), "least_bytes": float(tokens * moved)}


def step_counts(*, batch_size: int, n_heads: int, d_qk: int, d_hv: int, state_bytes: int) -> dict[str, float]:
    """`useful_flops` and `least_bytes` of one step; `state_bytes` per number of C."""
    flops = 6 * d_qk * d_hv + 7 * d_qk + d_hv
    state = d_qk * d_hv * state_bytes + (d_qk + 1) * BYTES_OF_GATE
    vectors = (2 * d_qk + 2 * d_hv) * 2 + 2 * BYTES_OF_GATE
    heads = batch_size * n_heads
    return {"useful_flops": float(heads * flops), "least_bytes": float(heads * (2 * state + vectors))}


def shares(times: dict[str, Any], counts: dict[str, float], peaks: dict[str, float]) -> dict[str, float]:
    """Rates of the useful FLOPs and least bytes, alone and over the measured peaks."""
    flops, moved = (counts[name] / times["seconds_median"] for name in ("useful_flops", "least_bytes"))
    return {
        **counts,
        "flops_per_s": _significant(flops),
        "bytes_per_s": _significant(moved),
        "share_of_peak_flops": _significant(flops / peaks["peak_flops_per_s"]),
        "share_of_peak_bytes": _significant(moved / peaks["peak_bytes_per_s"]),
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


def _significant(value: float) -> float:
    return float(f"{value:.5g}")
