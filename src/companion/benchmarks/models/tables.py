"""Records of the inference suite as tables. Needs neither torch nor a GPU."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from companion.benchmarks.models.models import MODELS
from companion.errors import InputError

BENCHMARK = "model_inference"
#: Column of the time of each part in a table of timings.
TIMES = {"prefill": "ttft_s", "step": "step_time_s"}
_CELL = ("part", "model", "size", "implementation", "batch_size", "prompt_tokens")


def measured_cells(
    records: Sequence[Mapping[str, Any]], *, device: str | None = None, implementation: str = "companion"
) -> pd.DataFrame:
    """Timed cells on one GPU: of every cell the fastest launch in the last record that has it.

    Parameters
    ----------
    records
        of `companion.benchmarks.records.read_records`; those of other benchmarks are left out.
    device
        name of the GPU; by default that of the last record.
    implementation
        `companion` or `transformers`.

    Returns
    -------
    DataFrame
        a row per cell with the fields of a result; `shapes` is a mapping.

    Raises
    ------
    InputError
        if there is no such cell.
    """
    own = [record for record in records if record["benchmark"] == BENCHMARK]
    if not own:
        raise InputError(f"records: none of benchmark {BENCHMARK!r}")
    device = own[-1]["parameters"]["device"] if device is None else device
    cells: dict[tuple[Any, ...], tuple[int, dict[str, Any]]] = {}
    for number, result in _timed(own, device, implementation):
        name = tuple(result[field] for field in _CELL)
        last, best = cells.get(name, (-1, result))
        if number > last or result["seconds_median"] < best["seconds_median"]:
            cells[name] = number, result
    if not cells:
        raise InputError(f"records: no timings of {implementation} on {device}")
    return pd.DataFrame([result for _, result in cells.values()])


def inference_table(
    records: Sequence[Mapping[str, Any]], *, models: Sequence[str] = MODELS, device: str | None = None
) -> pd.DataFrame:
    """Our timings with the columns of `companion.inference.timings.load_inference`, for the same fits.

    A prefill is a row with `ttft_s`, a step at a context of P tokens one with `step_time_s`, `prefill_length` P and
    `generation_length` 1. Grouped heads and hybrids carry their name in `model_size`, such as `7b hybrid`.

    Parameters
    ----------
    records, device
        as of `measured_cells`.
    models
        of `companion.benchmarks.models.models.MODELS`.

    Raises
    ------
    InputError
        if there are no such timings.
    """
    cells = measured_cells(records, device=device)
    cells = cells[cells["model"].isin(list(models))]
    if cells.empty:
        raise InputError(f"records: no timings of {', '.join(models)}")
    rows = []
    for cell in cells.to_dict("records"):
        shapes = dict(cell["shapes"])
        named = cell["model"] not in (architecture := shapes.pop("name"))
        rows.append(
            {
                "architecture": architecture,
                "model_size": f"{cell['size']} {cell['model']}" if named else cell["size"],
                **{name: int(value) for name, value in shapes.items()},
                "batch_size": int(cell["batch_size"]),
                "prefill_length": int(cell["prompt_tokens"]),
                "generation_length": 1,
                TIMES[cell["part"]]: cell["seconds_median"],
            }
        )
    table = pd.DataFrame(rows)
    for name in TIMES.values():
        table[name] = table[name] if name in table else float("nan")
    table.attrs["source"] = "our own timings"
    return table


def _timed(
    records: Sequence[Mapping[str, Any]], device: str, implementation: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, record in enumerate(records):
        if record["parameters"]["device"] == device:
            for result in record["results"]:
                if result["implementation"] == implementation and "seconds_median" in result:
                    yield number, result
