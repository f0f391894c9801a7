"""A run of a benchmark of models: its options, the cells that are done already, and the records it leaves."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from companion.benchmarks.models.identity import code_identity
from companion.benchmarks.records import append_record, machine, new_record, read_records
from companion.errors import InputError

#: Fields that name a cell; those that a result lacks are None.
KEY = (
    "part", "model", "size", "implementation", "quantity", "batch_size", "prompt_tokens", "context_length", "launch",
    "recompute",
)  # fmt: skip
#: Results wait for this long at most, seconds, also within a model and size.
SAVE_SECONDS = 60
PACKAGES = ("torch", "triton", "transformers")
#: How the reason begins of a cell that was left out for --cell-seconds: with --resume it is tried again.
SLOW = "a repeat takes about"


class Session:
    """What one run shares: options, device, cells that are done, results that wait to be written, and the time.

    Parameters
    ----------
    options
        of `add_options`.
    benchmark
        name in the records, such as `model_inference`.
    modules
        of this package that decide what is measured, for the identity.
    key
        what names a cell, from its fields; by default those of `KEY`.

    Raises
    ------
    InputError
        without the device that the options name.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        benchmark: str,
        modules: Sequence[str],
        key: Callable[[Mapping[str, Any]], tuple[Any, ...]] | None = None,
    ) -> None:
        self.begin = time.monotonic()
        self.options, self.benchmark, self.cell = options, benchmark, key or cell
        self.out, self.device = Path(options.out), str(options.device)
        self.versions = versions()
        self.parameters = {"identity": _identity(tuple(modules)), **device_of(self.device)}
        self.done = self._done() if options.resume else set()
        self.parameters |= peaks_of(self.device)
        self.results: list[dict[str, Any]] = []
        self.total = self.count = self.num_failed = 0
        self.saved = 0.0

    def todo(self, fields: Mapping[str, Any]) -> bool:
        """Whether a cell is not in the file yet; always true without --resume."""
        return self.cell(fields) not in self.done

    def out_of_time(self) -> bool:
        """Whether no new cell may begin."""
        limit = self.options.max_seconds
        return limit is not None and time.monotonic() - self.begin > limit

    def too_slow(self, seconds: float) -> str:
        """Why a cell is left out of which a repeat would take so long; empty if it is not."""
        limit = self.options.cell_seconds
        return f"{SLOW} {seconds:.0f} s, the limit is {limit} s" if seconds > limit else ""

    def shares(self, seconds: float, flops: float, moved: float) -> dict[str, Any]:
        """Fields of a cell that took a time for its FLOPs and bytes: both, and their shares of what was measured."""
        flops_per_s, bytes_per_s = self.parameters["matmul_flops_per_s"], self.parameters["copy_bytes_per_s"]
        return {
            "flops": float(flops),
            "bytes": float(moved),
            "share_of_matmul_peak": None if flops_per_s is None else round(flops / seconds / flops_per_s, 5),
            "share_of_copy_bandwidth": None if bytes_per_s is None else round(moved / seconds / bytes_per_s, 5),
        }

    def add(self, result: Mapping[str, Any]) -> None:
        """Keep a result until `save`, and say it in one line with the time that is left."""
        self.results.append(dict(result))
        self.count += 1
        spent = time.monotonic() - self.begin
        left = spent / self.count * max(self.total - self.count, 0)
        if self.options.max_seconds is not None:
            left = min(left, max(self.options.max_seconds - spent, 0.0))
        say(f"[{self.count}/{self.total}, {spent:.0f} s, about {left:.0f} s left] {summary(result)}")
        if result.get("verdict") == "fail":
            self.num_failed += 1
        if spent - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Append what `add` kept as one record; nothing if there is nothing."""
        if not self.results:
            return
        record = new_record(self.benchmark, command(self.options), self.parameters, self.results, packages=())
        record["versions"] |= self.versions
        append_record(self.out, record)
        self.results = []
        self.saved = time.monotonic() - self.begin

    def _done(self) -> set[tuple[Any, ...]]:
        if not self.out.exists():
            return set()
        found = set()
        for record in read_records(self.out):
            same = record["benchmark"] == self.benchmark
            same = same and all(record["parameters"].get(k) == self.parameters[k] for k in ("identity", "device"))
            if same and all(record["versions"].get(name) == value for name, value in self.versions.items()):
                found |= {self.cell(result) for result in record["results"] if _final(result)}
        return found


@cache
def _identity(modules: tuple[str, ...]) -> str:
    return code_identity(modules)


def cell(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What names a cell: its values of `KEY`."""
    return tuple(fields.get(name) for name in KEY)


def _final(result: Mapping[str, Any]) -> bool:
    """Whether a result need not be measured again."""
    return not str(result.get("skipped", "")).startswith((SLOW, "failed")) and result.get("verdict") != "fail"


def summary(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    names = ("model", "size", "part", "implementation", "quantity", "launch", "attention")
    words = [str(result[name]) for name in names if result.get(name)]
    for name, unit in (("prompt_tokens", "tokens"), ("context_length", "tokens"), ("batch_size", "sequences")):
        words += [f"{result[name]} {unit}"] if name in result else []
    if "verdict" in result:
        reason = f" ({result['reason']})" if result.get("reason") else ""
        return f"{', '.join(words)}: {result['verdict']}, error {result['error']:.3g}{reason}"
    if "skipped" in result:
        return f"{', '.join(words)}: left out: {result['skipped']}"
    found = [f"{1e3 * result['seconds_median']:.4g} ms"]
    for name, peak in (("share_of_matmul_peak", "matmul"), ("share_of_copy_bandwidth", "copy")):
        found += [f"{result[name]:.3f} of {peak}"] if result.get(name) is not None else []
    return f"{', '.join(words)}: {', '.join(found)}"


def device_of(device: str) -> dict[str, Any]:
    """Name and memory of the device.

    Raises
    ------
    InputError
        without torch, or for `cuda` where torch sees no CUDA GPU.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(f"this benchmark needs torch (extra 'kernels'): {error}") from error
    if device == "cpu":
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return {"device": machine()["cpu"], "device_memory_bytes": memory}
    if not torch.cuda.is_available():
        raise InputError("this benchmark needs a CUDA GPU; torch sees none (--device cpu only tries the command)")
    properties = torch.cuda.get_device_properties(0)
    return {"device": properties.name, "device_memory_bytes": properties.total_memory}


def peaks_of(device: str) -> dict[str, float | None]:
    """What the GPU reaches now in a product of bf16 matrices of 8192² and in a copy; None on a CPU."""
    if device == "cpu":
        return {"copy_bytes_per_s": None, "matmul_flops_per_s": None}
    from companion.benchmarks.kernels.timing import measured_peaks

    found = measured_peaks()
    return {"copy_bytes_per_s": found["peak_bytes_per_s"], "matmul_flops_per_s": found["peak_flops_per_s"]}


def versions() -> dict[str, str | None]:
    """Versions of the packages that count; None for those that are absent."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def command(options: argparse.Namespace) -> str:
    """The command line that repeats a run: options that decide what is measured."""
    words = [f"python -m companion.benchmarks.models {options.suite}"]
    for name, value in vars(options).items():
        if name in ("suite", "out", "resume", "list", "max_seconds", "run", "command") or value in (None, False):
            continue
        text = "" if value is True else " ".join(map(str, value)) if isinstance(value, list) else str(value)
        words.append(f"--{name.replace('_', '-')} {text}".rstrip())
    return " ".join(words)


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
