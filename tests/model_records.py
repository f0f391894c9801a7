"""Records of timed models as the benchmark writes them, with times that a simple model of a device makes up."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from companion.accounting.inference import count_prefill, count_step
from companion.architectures import Architecture
from companion.benchmarks.models.models import MODELS, SIZES, architecture_of, shapes_of
from companion.benchmarks.records import append_record, new_record
from companion.inference.prefix import kept_by

PROMPTS = (128, 1024, 4096, 16384, 65536, 131072)
CONTEXTS = (0, *PROMPTS[1:])
BATCHES = (1, 8, 64)
PREFIXES = (1024, 4096, 16384, 65536)
#: Measured peaks of the made-up device, and which shares of them its kernels reach.
FLOPS, BANDWIDTH, MEMORY = 8e14, 4.3e12, 150e9
FREE = 0.95 * MEMORY
SHARES = {"products": 0.75, "copy": 0.9}
#: Seconds per layer of a pass and of a step.
LAYER, STEP_LAYER = 4e-5, 1e-5


def write_records(
    folder: Path,
    *,
    device: str = "NVIDIA H200",
    sizes: Sequence[str] = SIZES,
    models: Sequence[str] = MODELS,
    slower: float = 1.0,
    library: bool = True,
    prefixes: bool = True,
    noise: float = 0.02,
) -> Path:
    """`model_inference.jsonl` and `model_prefix.jsonl` of a device in a folder; the path of the first.

    `slower` multiplies all times.
    """
    rng, path = np.random.default_rng(0), folder / "model_inference.jsonl"
    parameters = {"device": device, "device_memory_bytes": MEMORY, "identity": "0" * 16}
    parameters |= {"copy_bytes_per_s": BANDWIDTH / slower, "matmul_flops_per_s": FLOPS / slower}

    def timed(seconds: float, flops: float, moved: float, held: float) -> dict[str, Any]:
        seconds *= slower * float(np.exp(noise * rng.standard_normal()))
        return {
            "seconds_median": seconds,
            "seconds_low": 0.99 * seconds,
            "seconds_high": 1.02 * seconds,
            "repeats": 10,
            "peak_memory_bytes": held,
            "flops": flops,
            "bytes": moved,
            "share_of_matmul_peak": flops / seconds / parameters["matmul_flops_per_s"],
            "share_of_copy_bandwidth": moved / seconds / parameters["copy_bytes_per_s"],
        }

    for size in sizes:
        for name in models:
            a = architecture_of(name, size)
            common = {"model": name, "size": size, "shapes": shapes_of(a), "implementation": "companion"}
            peer = library and name in ("transformer", "grouped")
            results = [_check(common), *_prefills(common, a, timed, peer), *_steps(common, a, timed)]
            _append(path, "model_inference", parameters, results)
            if prefixes and size in ("400m", "7b"):
                kept, results = kept_by(a), [_check(common, "a copied prefix, then steps")]
                for prefix in PREFIXES:
                    moved = float(kept.entry_bytes(prefix))
                    cell = {**common, "part": "prefix", "prompt_tokens": prefix, "batch_size": 1, "launch": "eager"}
                    seconds = 1e-5 * a.n_layers + 2 * moved / (SHARES["copy"] * BANDWIDTH)
                    results.append(cell | timed(seconds, 0.0, 2 * moved, moved) | {"kept_bytes": moved})
                _append(folder / "model_prefix.jsonl", "model_prefix", parameters, results)
    return path


def _prefills(common: dict[str, Any], a: Architecture, timed: Any, library: bool) -> list[dict[str, Any]]:
    """Prefills in two launches, and those of the library; what does not fit is left out."""
    found = []
    for batch, prompt in product(BATCHES, PROMPTS):
        costs = count_prefill(a, prompt, batch)
        cell = common | {"part": "prefill", "batch_size": batch, "prompt_tokens": prompt, "attention": "cudnn"}
        held, flops, moved = (float(x) for x in (costs.memory.total, costs.flops.total, costs.traffic.total))
        if held > FREE or batch * prompt > 2**20:
            found.append(cell | {"skipped": f"needs {held / 2**30:.1f} GiB, {FREE / 2**30:.1f} GiB are free"})
            continue
        seconds = max(flops / (SHARES["products"] * FLOPS), moved / BANDWIDTH) + LAYER * a.n_layers
        for launch, factor in (("eager", 1.3), ("compiled", 1.0)):
            found.append(cell | {"launch": launch} | timed(factor * seconds, flops, moved, held))
        for attention, factor in (("sdpa", 1.2), ("flash_attention_2", 1.5)) if library and batch == 1 else ():
            theirs = {"implementation": "transformers", "launch": "compiled", "attention": attention}
            found.append(cell | theirs | timed(factor * seconds, flops, moved, 1.1 * held))
    return found


def _steps(common: dict[str, Any], a: Architecture, timed: Any) -> list[dict[str, Any]]:
    """Steps as graphs; what does not fit is left out."""
    found = []
    for batch, context in product(BATCHES, CONTEXTS):
        costs = count_step(a, context + 1, batch)
        cell = common | {"part": "step", "batch_size": batch, "prompt_tokens": context, "launch": "graph"}
        held, moved = float(costs.memory.total), float(costs.traffic.weights + costs.traffic.cache)
        if held > FREE:
            found.append(cell | {"skipped": f"needs {held / 2**30:.1f} GiB, {FREE / 2**30:.1f} GiB are free"})
            continue
        seconds = moved / (SHARES["copy"] * BANDWIDTH) + STEP_LAYER * a.n_layers * (1 + (batch > 1))
        found.append(cell | timed(seconds, float(costs.flops.total), moved, held))
    return found


def _check(common: dict[str, Any], quantity: str = "steps, eager") -> dict[str, Any]:
    fields = {"part": "check", "quantity": quantity, "batch_size": 2}
    return common | fields | {
        "error": 0.012, "reference_error": 0.011, "tolerance": 0.05, "verdict": "pass", "reason": "",
    }  # fmt: skip


def _append(path: Path, benchmark: str, parameters: dict[str, Any], results: list[dict[str, Any]]) -> None:
    record = new_record(benchmark, f"python -m companion.benchmarks.models {benchmark}", parameters, results)
    record["versions"] |= {"torch": "2.13.0", "triton": "3.6.0", "transformers": "5.17.0"}
    append_record(path, record)
