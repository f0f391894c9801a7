"""Records as the suites on training steps and profiles write them, with times that follow a simple rule."""

from pathlib import Path
from typing import Any

from companion.accounting import count_flops
from companion.architectures import Architecture, preset
from companion.benchmarks.records import append_record, new_record

GPU = "NVIDIA Test"
PEAKS = {"matmul_flops_per_s": 800e12, "copy_bytes_per_s": 4e12}
CONTEXTS = (512, 2048, 8192, 32768)
LAUNCHES = {"eager": 1.5, "compiled": 1.04, "compiled graph": 1.0}
TOKENS = 65_536


def models_of(size: str) -> dict[str, Architecture]:
    heads = int(preset("transformer", size).n_heads)
    hybrid = preset("xlstm", size, attention_every=8, attention_heads=heads)
    return {"transformer": preset("transformer", size), "xlstm": preset("xlstm", size), "hybrid": hybrid}


def training_results(sizes: tuple[str, ...], handicap: float = 1.2) -> list[dict[str, Any]]:
    """Steps that take their FLOPs at 40 % of the peak; those of the xLSTM `handicap` times as long."""
    results: list[dict[str, Any]] = []
    for size in sizes:
        for model, made in models_of(size).items():
            for context in CONTEXTS:
                flops = float(count_flops(made, context).train_flops(TOKENS))
                base = flops / (0.4 * PEAKS["matmul_flops_per_s"]) * (handicap if model == "xlstm" else 1.0)
                for launch, factor in LAUNCHES.items():
                    seconds = base * factor
                    results.append(
                        {"part": "training", "model": model, "size": size, "implementation": "companion"}
                        | {"launch": launch, "context_length": context, "batch_size": TOKENS // context}
                        | {"tokens_per_step": TOKENS, "recompute": False, "vocabulary": 50304, "flops": flops}
                        | {"seconds_median": seconds, "seconds_low": seconds, "seconds_high": seconds}
                        | {"peak_memory_bytes": 2 * 10**10, "repeats": 3, "optimizer": "AdamW, fused"}
                        | {"share_of_matmul_peak": flops / seconds / PEAKS["matmul_flops_per_s"]}
                        | {"tokens_per_s": TOKENS / seconds, "attention": "cudnn"}
                    )
            results.append(
                {"part": "check", "model": model, "size": size, "implementation": "companion", "launch": "eager"}
                | {"quantity": "loss", "error": 1e-4, "reference_error": 1e-4, "tolerance": 2e-4, "verdict": "pass"}
            )
    return results


#: Milliseconds and least milliseconds of components.
COMPONENTS = {
    "qkv": (1.0, 0.9), "heads": (0.1, 0.05), "out": (0.5, 0.4), "ffn_up": (1.5, 1.4), "ffn_down": (0.8, 0.75),
    "norms": (0.3, 0.1), "gaps": (0.2, 0.0),
}  # fmt: skip
CORES = {"transformer": ("attention", (2.0, 1.9)), "xlstm": ("mlstm", (0.6, 0.2))}


def profile_results() -> list[dict[str, Any]]:
    """A generated token and a training step of both architectures."""
    results = []
    for part, size, context, batch in (("step", "7b", 16384, 1), ("training", "400m", 8192, 8)):
        for model, (core, times) in CORES.items():
            cell = {"part": part, "model": model, "size": size, "context_length": context, "batch_size": batch}
            rows = COMPONENTS | {core: times} | ({"optimizer": (0.4, 0.3)} if part == "training" else {})
            whole = sum(seconds for seconds, _ in rows.values())
            for component, (seconds, least) in rows.items():
                results.append(
                    {**cell, "component": component, "seconds": seconds / 1e3, "roofline_seconds": least / 1e3}
                    | {"flops": 1.0, "bytes": 1.0, "share": seconds / whole, "kernels": 2, "launch": "graph"}
                )
            results.append(
                {**cell, "component": "whole", "seconds": whole / 1e3, "roofline_seconds": 1e-3, "share": 1.0}
            )
    return results


def write_records(folder: Path, sizes: tuple[str, ...] = ("160m", "400m"), device: str = GPU, **more: Any) -> Path:
    """Files of both suites in a folder."""
    parameters = {"device": device, "device_memory_bytes": 1e11, "identity": "0" * 16, **PEAKS}
    training, profile = "companion bench training", "companion bench profile"
    for name, command, results in (
        ("model_training", training, training_results(sizes, **more)),
        ("model_profile", profile, profile_results()),
    ):
        append_record(folder / f"{name}.jsonl", new_record(name, command, parameters, results))
    return folder
