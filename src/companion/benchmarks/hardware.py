"""What a GPU reaches of its peaks: matrix products, copies, and reading a cache of keys and values.

The first two say how near a vendor's peak a plain program comes. The third shows why the step time of a Transformer can
be flat in its batch and then jump: a kernel that reads the cache of one head in one block leaves multiprocessors idle
until there are as many heads as them, and then begins another wave; one that splits the context does not.

Needs torch (extra `kernels`) and a CUDA GPU. No result is timed before it has been compared with a float32 reference.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from companion.benchmarks.records import deliver, new_record, read_records
from companion.errors import InputError

NAME = "hardware"
#: Numbers of heads (batch times heads of a model) around which waves of 108, 114 and 132 multiprocessors end.
HEADS = (16, 32, 64, 96, 112, 120, 128, 132, 136, 144, 160, 192, 224, 256, 264, 272, 288, 320, 384, 396, 400, 512)
#: Ways in which torch computes attention; what each does with a single query is measured here, not assumed.
BACKENDS = ("EFFICIENT_ATTENTION", "FLASH_ATTENTION", "CUDNN_ATTENTION")
#: Largest relative error of bf16 attention against float32 that counts as right.
TOLERANCE = 1e-2


def measure(context_length: int, head_width: int, repeats: int) -> list[dict[str, Any]]:
    """Results of all parts, one mapping each (see `data/benchmarks/README.md`).

    Raises
    ------
    InputError
        without torch or a CUDA GPU.
    ArithmeticError
        if a product or an attention differs from its reference.
    """
    torch = _torch()
    torch.manual_seed(0)
    return [product(torch, repeats), copy(torch, repeats), *_cache_reads(torch, context_length, head_width, repeats)]


def measured_on(path: Path) -> pd.DataFrame:
    """All results of a file of records as a table: the fields of a result, `gpu` and `num_multiprocessors`.

    Of several records of one GPU, context and head width the last one counts.

    Raises
    ------
    InputError
        if the file cannot be read, or holds no record of this benchmark.
    """
    latest = {}
    for record in read_records(path):
        if record["benchmark"] == NAME:
            parameters = record["parameters"]
            latest[tuple(parameters[name] for name in ("gpu", "context_length", "head_width"))] = record
    if not latest:
        raise InputError(f"{path}: no record of benchmark {NAME!r}")
    tables = [
        pd.DataFrame(record["results"]).assign(
            **{name: record["parameters"][name] for name in ("gpu", "num_multiprocessors", "head_width")}
        )
        for record in latest.values()
    ]
    return pd.concat(tables, ignore_index=True)


def gpu() -> dict[str, Any]:
    """Name, multiprocessors, memory and driver of the GPU.

    Raises
    ------
    InputError
        without torch or a CUDA GPU.
    """
    torch = _torch()
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    return {
        "gpu": properties.name,
        "num_multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "driver": driver[0] if driver else None,
        "cuda": torch.version.cuda,
    }


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"this benchmark needs torch (extra 'kernels'): {error}") from error
    if not torch.cuda.is_available():
        raise InputError("this benchmark needs a CUDA GPU; torch sees none")
    return torch


def _seconds(torch: Any, action: Callable[[int], Any], repeats: int) -> dict[str, float]:
    """Median, least and largest seconds of an action on the GPU, after three that do not count."""
    for number in range(3):
        action(number)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for number, (start, end) in enumerate(events):
        start.record()
        action(number)
        end.record()
    torch.cuda.synchronize()
    seconds = [start.elapsed_time(end) / 1e3 for start, end in events]
    return {"seconds_median": median(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds)}


def product(torch: Any, repeats: int, size: int = 8192) -> dict[str, Any]:
    """FLOP/s of a product of size² bf16 matrices, compared with float32 first."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rows = slice(0, 64)
    _compare((a @ b)[rows].float(), a[rows].float() @ b.float(), "product")
    times = _seconds(torch, lambda _: a @ b, repeats)
    return {"part": "product", "size": size, **times, "flops_per_s": 2 * size**3 / times["seconds_median"]}


def copy(torch: Any, repeats: int, size: int = 2**32) -> dict[str, Any]:
    """Bytes/s, read and written, of a copy of `size` bytes on the GPU."""
    source = torch.randint(0, 255, (size,), device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    times = _seconds(torch, lambda _: target.copy_(source), repeats)
    if not torch.equal(source, target):
        raise ArithmeticError("copy: source and target differ")
    return {"part": "copy", "size": size, **times, "bytes_per_s": 2 * size / times["seconds_median"]}


def _cache_reads(torch: Any, context_length: int, head_width: int, repeats: int) -> list[dict[str, Any]]:
    """One query per head against its cache, for every backend and number of heads; inputs rotate past the L2 cache."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    attend, results = torch.nn.functional.scaled_dot_product_attention, []
    for heads in HEADS:
        shape = (1, heads, context_length, head_width)
        sets = [[torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2)] for _ in range(2)]
        query = torch.randn(1, heads, 1, head_width, device="cuda", dtype=torch.bfloat16)
        keys, values = sets[0]
        scores = (query.float() @ keys.float().transpose(-1, -2)) / head_width**0.5
        reference = scores.softmax(-1) @ values.float()
        for backend in BACKENDS:
            common = {"part": "cache", "backend": backend.lower(), "heads": heads, "context_length": context_length}
            with sdpa_kernel(getattr(SDPBackend, backend)):
                try:
                    found = attend(query, keys, values)
                except RuntimeError as refusal:
                    reason = " ".join(str(refusal).split())[:200]
                    results.append({**common, "head_width": head_width, "skipped": reason})
                    continue
                error = _compare(found.float(), reference, f"attention, {backend}, {heads} heads")
                action = partial(_alternate, attend, query, sets)
                times = _seconds(torch, action, repeats)
            moved = 2 * heads * context_length * head_width * 2
            rate = moved / times["seconds_median"]
            results.append({**common, "head_width": head_width, "error": error, **times, "bytes_per_s": rate})
    return results


def _alternate(attend: Any, query: Any, sets: list[list[Any]], number: int) -> Any:
    return attend(query, *sets[number % len(sets)])


def _compare(found: Any, reference: Any, what: str) -> float:
    error = float((found - reference).norm() / reference.norm())
    if not error < TOLERANCE:
        raise ArithmeticError(f"{what}: relative error {error:.3g} against float32")
    return error


def summary(results: Sequence[dict[str, Any]]) -> str:
    """A line per result: what was measured, and its rate."""
    lines = []
    for row in results:
        rate = row.get("flops_per_s") or row.get("bytes_per_s") or 0.0
        lines.append(f"{row['part']:<8} {row.get('backend', ''):<20} {row.get('heads', ''):>4} {rate:.4g} per second")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, append the record. Exit status 2 for wrong input, 1 for wrong results."""
    parser = argparse.ArgumentParser(prog="python -m companion.benchmarks.hardware", description=__doc__)
    parser.add_argument("--context-length", type=int, default=16384, metavar="T", help="tokens of the cache")
    parser.add_argument("--head-width", type=int, default=128, metavar="D", help="numbers per key and per value")
    parser.add_argument("--repeats", type=int, default=30, metavar="N", help="timings of each part; the median counts")
    parser.add_argument(
        "--out", default="hardware.jsonl", metavar="FILE", help="append the record here; `-` for stdout"
    )
    options = parser.parse_args(arguments)
    try:
        parameters = {name: getattr(options, name) for name in ("context_length", "head_width", "repeats")}
        results = measure(**parameters)
        command = "python -m companion.benchmarks.hardware " + " ".join(
            f"--{name.replace('_', '-')} {value}" for name, value in parameters.items()
        )
        record = new_record(NAME, command, {**gpu(), **parameters}, results, packages=("torch",))
        deliver(record, options.out, f"{NAME}.jsonl", summary(results))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ArithmeticError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
