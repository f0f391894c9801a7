"""Records of timed models as chapter 14 shows them: the cells of one device, its peaks, the fastest setting of each.

Of several records of one cell the last one counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from companion.architectures import Architecture, make_architecture
from companion.benchmarks.models.tables import inference_table
from companion.benchmarks.records import read_records
from companion.chapters.timed_models import MODEL_LABELS
from companion.errors import InputError
from companion.hardware import Hardware, known_hardware
from companion.inference.compare import crossover
from companion.inference.timings import Quantity

#: The models, in the order of tables.
MODELS = ("transformer", "grouped", "xlstm", "hybrid")
#: Whose implementation was timed: that of `companion.models`, or the `transformers` library.
OURS, LIBRARY = "companion", "transformers"
#: The part of the records that holds a quantity.
PARTS: dict[Quantity, str] = {"ttft": "prefill", "step_time": "step"}
#: What names a cell; every launch of the library and of a copy is one of its own.
_CELL = ("part", "model", "size", "implementation", "batch_size", "prompt_tokens", "quantity")
_LAUNCH = ("launch", "attention")
#: Numbers of a cell that tables and figures show.
_NUMBERS = (
    "seconds_median", "seconds_low", "seconds_high", "peak_memory_bytes", "share_of_matmul_peak",
    "share_of_copy_bandwidth", "flops", "bytes", "kept_bytes", "error", "reference_error", "tolerance",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was timed on one device.

    Attributes
    ----------
    records
        of the device, in the order of the files.
    table
        the results of the last record of every cell; a cell that was left out has `skipped`.
    peaks
        what the device reached in the same runs: the median of each.
    datasheet
        its peaks as the vendor states them; None for a device that `data/hardware.csv` lacks.
    architectures
        by model and size.
    versions, dates
        of the records.
    """

    records: tuple[Mapping[str, Any], ...]
    table: pd.DataFrame
    peaks: Hardware
    datasheet: Hardware | None
    architectures: Mapping[tuple[str, str], Architecture]
    versions: Mapping[str, str]
    dates: tuple[str, str]

    @property
    def device(self) -> str:
        """Name of the device."""
        return self.peaks.label

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The timed cells of prefills, steps and copies."""
        return self.table[self.table["seconds_median"].notna()]

    @cached_property
    def best(self) -> pd.DataFrame:
        """The fastest launch and attention for every model, size, batch and number of tokens, by implementation."""
        keys = ["part", "implementation", "model", "size", "batch_size", "prompt_tokens"]
        ordered = self.cells.sort_values("seconds_median", kind="stable")
        return ordered.drop_duplicates(keys).sort_values(keys, kind="stable").reset_index(drop=True)

    @property
    def skipped(self) -> pd.DataFrame:
        """Cells that were left out, with the reason in `skipped`."""
        return self.table[self.table["skipped"].notna()]

    @property
    def checks(self) -> pd.DataFrame:
        """What was checked before anything was timed."""
        return self.table[self.table["part"] == "check"]

    @property
    def sizes(self) -> list[str]:
        """Sizes that were timed, the smallest first."""
        return sorted({size for _, size in self.architectures}, key=self._width)

    @property
    def models(self) -> list[str]:
        """Models that were timed, in the order of tables."""
        there = {model for model, _ in self.architectures}
        return [model for model in MODELS if model in there]

    @property
    def batches(self) -> list[int]:
        """Batches of prefills and steps."""
        return sorted({int(batch) for batch in self.best.loc[self.best["part"].isin(PARTS.values()), "batch_size"]})

    def size(self, wanted: str) -> str:
        """The wanted size, or the largest one if that was not timed."""
        return wanted if wanted in self.sizes else self.sizes[-1]

    def series(self, part: str, model: str, size: str, batch: int = 1, implementation: str = OURS) -> pd.DataFrame:
        """Cells of one model over the tokens, the fewest first; empty if there are none."""
        found = self._series.get((part, model, size, batch, implementation))
        return self.best.iloc[:0] if found is None else found

    @cached_property
    def _series(self) -> dict[Any, pd.DataFrame]:
        """Cells by part, model, size, batch and implementation."""
        names = ["part", "model", "size", "batch_size", "implementation"]
        return {name: rows.sort_values("prompt_tokens") for name, rows in self.best.groupby(names)}

    def at(
        self, part: str, model: str, size: str, tokens: int, batch: int = 1, implementation: str = OURS
    ) -> pd.Series | None:
        """One cell; None if it was not timed."""
        rows = self.series(part, model, size, batch, implementation)
        rows = rows[rows["prompt_tokens"] == tokens]
        return rows.iloc[0] if len(rows) else None

    def crossover(
        self, quantity: Quantity, first: str, second: str, size: str, batch: int = 1
    ) -> tuple[float, float] | None:
        """Tokens from which the first model stays faster, and the longest context timed for both.

        The tokens are those of `companion.inference.compare.crossover`. None with fewer than two common contexts.
        """
        sides = [
            self.series(PARTS[quantity], model, size, batch).set_index("prompt_tokens")["seconds_median"]
            for model in (first, second)
        ]
        ratio = (sides[1] / sides[0]).dropna()
        if len(ratio) < 2:
            return None
        tokens = ratio.index.to_numpy().clip(1)  # a step without a context sees its own token
        return float(crossover(tokens, ratio.to_numpy())), float(tokens[-1])

    def timings(self, model: str) -> pd.DataFrame:
        """The fastest settings of one model, with the columns of `companion.inference.load_inference`."""
        table = inference_table(self.records, models=[model], device=self.device)
        table.attrs["source"] = f"the timings on {self.device}, {MODEL_LABELS[model]}"
        return table

    def _width(self, size: str) -> int:
        return max(a.d_model * a.n_layers for (_, own), a in self.architectures.items() if own == size)


def load(path: str | Path, device: str | None = None) -> Measured:
    """Records of `model_inference.jsonl`, and of `model_prefix.jsonl` beside it if there is one.

    Parameters
    ----------
    device
        its name; None for the one timed last.

    Raises
    ------
    InputError
        if the file cannot be read, or has no timings of the device.
    """
    path = Path(path)
    records = [record for record in read_records(path) if record["benchmark"] == "model_inference"]
    if not records:
        raise InputError(f"{path}: no records of models (benchmark 'model_inference')")
    prefixes = path.with_name("model_prefix.jsonl")
    more = read_records(prefixes) if prefixes.exists() else []
    device = device or str(records[-1]["parameters"]["device"])
    own = [record for record in [*records, *more] if record["parameters"]["device"] == device]
    if not own:
        there = ", ".join(dict.fromkeys(str(record["parameters"]["device"]) for record in records))
        raise InputError(f"{path}: no records of {device}; there are {there}")
    results = _last_results(own)
    table = pd.DataFrame(results)
    for name in (*_CELL, *_LAUNCH, *_NUMBERS, "skipped", "verdict"):
        if name not in table:
            table[name] = None
    table = table.astype(dict.fromkeys(_NUMBERS, float))
    if table["seconds_median"].isna().all():
        raise InputError(f"{path}: no timings of {device}")
    timed = [result for result in results if "seconds_median" in result]
    known = {entry.label.split(" SXM")[0]: entry for entry in known_hardware().values() if "PCIe" not in entry.label}
    return Measured(
        records=tuple(own),
        table=table.drop(columns="shapes"),
        peaks=_peaks(own, device, known.get(device)),
        datasheet=known.get(device),
        architectures={(cell["model"], cell["size"]): _architecture(cell["shapes"]) for cell in timed},
        versions={name: str(value) for record in own for name, value in record["versions"].items() if value},
        dates=(own[0]["date"][:10], own[-1]["date"][:10]),
    )


def _peaks(records: list[dict[str, Any]], device: str, known: Hardware | None) -> Hardware:
    """What the device reached, the median over its records."""

    def of(name: str) -> float:
        values = [record["parameters"].get(name) for record in records]
        if None in values:
            raise InputError(f"records of {device}: no {name}; was the benchmark run on a GPU?")
        return float(median(values))

    found = Hardware(
        name=device,
        label=device,
        peak_flops_per_s=of("matmul_flops_per_s"),
        peak_bytes_per_s=of("copy_bytes_per_s"),
        memory_bytes=of("device_memory_bytes"),
        num_multiprocessors=1,  # no term of kernels that split a cache asks for it
        source="measured in the same runs",
    )
    return found if known is None else replace(found, num_multiprocessors=known.num_multiprocessors)


def _last_results(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All results of every cell in the last record that has it."""
    cells: dict[tuple[Any, ...], tuple[int, list[dict[str, Any]]]] = {}
    for number, record in enumerate(records):
        for result in record["results"]:
            several = result["implementation"] == LIBRARY or result["part"] == "prefix"
            name = tuple(result.get(field) for field in (*_CELL, *(_LAUNCH if several else ())))
            last, found = cells.get(name, (-1, []))
            cells[name] = (number, [*found, result] if number == last else [result])
    return [result for _, found in cells.values() for result in found]


def _architecture(shapes: Mapping[str, Any]) -> Architecture:
    return make_architecture(shapes["name"], **{name: value for name, value in shapes.items() if name != "name"})
