"""Records of whole models that the page shows: one GPU, the newest time of every cell; ours or those of a reader."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from companion.benchmarks.records import read_records
from companion.chapters.timed_models import since_then
from companion.errors import InputError, NotApplicable
from companion.paths import data_dir

TRAINING, PROFILE = "model_training", "model_profile"
#: What names a cell; fields that a result lacks are left out of it.
CELL = (
    "part", "model", "size", "implementation", "quantity", "launch", "context_length", "prompt_tokens", "batch_size",
    "component", "recompute", "vocabulary",
)  # fmt: skip
#: Sizes from the smallest to the largest; others come last.
SIZES = ("5m", "15m", "86m", "160m", "400m", "830m", "1.4b", "2.7b", "7b")


@dataclass(frozen=True)
class Suite:
    """Results of one benchmark on one GPU.

    Attributes
    ----------
    device
        name of the GPU.
    matmul_flops_per_s, copy_bytes_per_s
        what it reached in the same run.
    results
        a row per cell of the newest record that has it.
    measured
        when and with which versions the newest record was made, in words.
    """

    device: str
    matmul_flops_per_s: float
    copy_bytes_per_s: float
    results: pd.DataFrame
    measured: str

    @cached_property
    def timed(self) -> pd.DataFrame:
        """Cells with a time."""
        known = self.results.reindex(columns=[*dict.fromkeys((*self.results.columns, "seconds_median"))])
        return known[known["seconds_median"].notna()]

    @cached_property
    def skipped(self) -> pd.DataFrame:
        """Cells that did not fit, with the reason in `skipped`."""
        return self.results[self.results["skipped"].notna()] if "skipped" in self.results else self.results[:0]

    @cached_property
    def checks(self) -> pd.DataFrame:
        """Comparisons with a reference, with `verdict`."""
        return self.results[self.results["part"] == "check"]

    @property
    def short_device(self) -> str:
        """The GPU without its maker: H200."""
        return self.device.removeprefix("NVIDIA ")


def load_suite(benchmark: str, where: str | Path | None = None) -> Suite:
    """The newest results of a benchmark on the GPU of the last record.

    Parameters
    ----------
    benchmark
        `TRAINING` or `PROFILE`.
    where
        a file of records, or a folder with such files; None takes ours.

    Raises
    ------
    NotApplicable
        if there are no such records.
    InputError
        if a file cannot be read.
    """
    path = data_dir() / "benchmarks" / f"{benchmark}.jsonl" if where is None else Path(where).expanduser()
    if where is not None and not path.exists():
        raise InputError(f"{path}: no such file or folder of records")
    if where is None:
        files = [path] if path.exists() else []
    else:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    records = [record for file in files for record in read_records(file) if record["benchmark"] == benchmark]
    if not records:
        raise NotApplicable(f"there are no records of {benchmark}")
    parameters = records[-1]["parameters"]
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        if record["parameters"]["device"] == parameters["device"]:
            for result in record["results"]:
                cells[tuple(result.get(name) for name in CELL)] = result
    return Suite(
        device=str(parameters["device"]),
        matmul_flops_per_s=float(parameters.get("matmul_flops_per_s") or "nan"),
        copy_bytes_per_s=float(parameters.get("copy_bytes_per_s") or "nan"),
        results=pd.DataFrame(list(cells.values())),
        measured=measured_text(records[-1]) + since_then(records[-1:]),
    )


def measured_text(record: Mapping[str, Any]) -> str:
    """Date and versions of a record: 2026-11-30, torch 2.13.0, triton 3.7.1."""
    versions = [f"{name} {record['versions'][name]}" for name in ("torch", "triton") if record["versions"].get(name)]
    return ", ".join([str(record["date"])[:10], *versions])


def own_suite(benchmark: str, where: str | Path | None) -> Suite | None:
    """A reader's results of a benchmark; None if no place is named, or it has none of this benchmark."""
    if where is None:
        return None
    try:
        return load_suite(benchmark, where)
    except NotApplicable:
        return None


def in_order(sizes: Any) -> list[str]:
    """Sizes from small to large."""
    known = list(dict.fromkeys(map(str, sizes)))
    return sorted(known, key=lambda size: (SIZES.index(size) if size in SIZES else len(SIZES), size))
