"""Records of timed models as the benchmark writes them, with times that a simple model of a device makes up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from companion.accounting.inference import count_prefill, count_step
from companion.architectures import Architecture, preset
from companion.benchmarks.records import append_record, new_record
from companion.inference.prefix import kept_by

SIZES = ("160m", "400m", "1.4b", "7b")
MODELS = ("transformer", "grouped", "xlstm", "hybrid")
PROMPTS = (128, 1024, 4096, 16384, 65536, 131072)
CONTEXTS = (0, *PROMPTS[1:])
BATCHES = (1, 8, 64)
PREFIXES = (1024, 4096, 16384, 65536)
#: Measured peaks of the made-up device, and which shares of them its kernels reach.
FLOPS, BANDWIDTH, MEMORY = 8e14, 4.3e12, 150e9
SHARES = {"products": 0.75, "copy": 0.9}
#: Seconds per layer of a pass and of a step.
LAYER, STEP_LAYER = 4e-5, 1e-5


def model_of(model: str, size: str) -> Architecture:
    """The architecture of a timed model."""
    heads = int(preset("transformer", size).n_heads)
    shared = {"n_kv_heads": heads // 4 if heads % 4 == 0 else heads}
    if model in ("transformer", "grouped"):
        return preset("transformer", size, **(shared if model == "grouped" else {}))
    more = {"attention_every": 8, "attention_heads": heads, **shared}
    return preset("xlstm", size, **(more if model == "hybrid" else {}))


def shapes_of(architecture: Architecture) -> dict[str, Any]:
    """Keyword arguments of `make_architecture` as JSON."""
    given = {name: value for name, value in architecture.shapes().items() if value is not None}
    return {"name": architecture.name, **{k: v if isinstance(v, bool) else int(v) for k, v in given.items()}}


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
            a = model_of(name, size)
            common = {"model": name, "size": size, "shapes": shapes_of(a), "implementation": "companion"}
            results = [_check(common)]
            for batch in BATCHES:
                for prompt in PROMPTS:
                    results += _cells(common, a, batch, prompt, timed, library and name in ("transformer", "grouped"))
            _append(path, "model_inference", parameters, results)
            if prefixes and size in ("400m", "7b"):
                kept, results = kept_by(a), []
                for prefix in PREFIXES:
                    moved = float(kept.entry_bytes(prefix))
                    cell = {**common, "part": "prefix", "prompt_tokens": prefix, "batch_size": 1, "launch": "eager"}
                    seconds = 1e-5 * a.n_layers + 2 * moved / (SHARES["copy"] * BANDWIDTH)
                    results.append(cell | timed(seconds, 0.0, 2 * moved, moved) | {"kept_bytes": moved})
                _append(folder / "model_prefix.jsonl", "model_prefix", parameters, results)
    return path


def _cells(
    common: dict[str, Any], a: Architecture, batch: int, prompt: int, timed: Any, library: bool
) -> list[dict[str, Any]]:
    """A prefill in two launches, one of the library, and a step; what does not fit is left out."""
    prefill, step = count_prefill(a, prompt, batch), count_step(a, prompt + 1, batch)
    cell = common | {"batch_size": batch, "prompt_tokens": prompt, "attention": "cudnn"}
    found, held = [], float(prefill.memory.total)
    if held > 0.95 * MEMORY or batch * prompt > 2**20:
        skipped = {"skipped": f"needs {held / 2**30:.1f} GiB, {0.95 * MEMORY / 2**30:.1f} GiB are free"}
        found.append(cell | {"part": "prefill", "launch": "compiled"} | skipped)
    else:
        flops, moved = float(prefill.flops.total), float(prefill.traffic.total)
        seconds = max(flops / (SHARES["products"] * FLOPS), moved / BANDWIDTH) + LAYER * a.n_layers
        for launch, factor in (("eager", 1.3), ("compiled", 1.0)):
            found.append(cell | {"part": "prefill", "launch": launch} | timed(factor * seconds, flops, moved, held))
        if library:
            theirs = {"implementation": "transformers", "launch": "compiled", "part": "prefill"}
            found.append(cell | theirs | timed(1.2 * seconds, flops, moved, 1.1 * held))
    if float(step.memory.total) > 0.95 * MEMORY:
        return [*found, cell | {"part": "step", "launch": "graph", "skipped": "needs 300.0 GiB, 132.7 GiB are free"}]
    flops, moved = float(step.flops.total), float(step.traffic.total)
    seconds = moved / (SHARES["copy"] * BANDWIDTH) + STEP_LAYER * a.n_layers * (1 + (batch > 1))
    return [*found, cell | {"part": "step", "launch": "graph"} | timed(seconds, flops, moved, float(step.memory.total))]


def _check(common: dict[str, Any]) -> dict[str, Any]:
    quantity = {"part": "check", "quantity": "logits of a step after a prefill", "batch_size": 2}
    return common | quantity | {
        "error": 0.012, "reference_error": 0.011, "tolerance": 0.05, "verdict": "pass", "reason": "",
    }  # fmt: skip


def _append(path: Path, benchmark: str, parameters: dict[str, Any], results: list[dict[str, Any]]) -> None:
    record = new_record(benchmark, f"python -m companion.benchmarks.models {benchmark}", parameters, results)
    record["versions"] |= {"torch": "2.13.0", "triton": "3.6.0", "transformers": "5.17.0"}
    append_record(path, record)
