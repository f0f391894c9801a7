"""Tables of inference timings: how they are read and checked, and the model and the context that a row times."""

import os
import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray

from companion.accounting.conventions import PAPER
from companion.accounting.inference import count_prefill, count_step
from companion.architectures import ARCHITECTURES, Architecture, make_architecture
from companion.errors import InputError, NotApplicable
from companion.hardware import REFERENCE_HARDWARE, Hardware, get_hardware
from companion.inference.checks import gaps_note, repeats_note, unit_note
from companion.paths import data_dir
from companion.tables import read_table

Array = NDArray[np.float64]
Quantity = Literal["ttft", "step_time"]
#: Column of each quantity, seconds.
COLUMNS = {"ttft": "ttft_s", "step_time": "step_time_s"}

_SHAPES = ("d_model", "n_layers", "n_heads", "d_ff")
#: Shapes that a table may have; an empty cell stands for the value that `make_architecture` takes.
_MORE_SHAPES = (
    "d_qk", "d_hv", "vocab_size", "n_kv_heads", "tied_embeddings", "qk_norm", "window", "attention_every",
    "attention_heads",
)  # fmt: skip


def _column(dtype: type, *, strict: bool = True) -> pa.Column:
    check = pa.Check.gt(0, error="must be positive") if strict else pa.Check.ge(0, error="must not be negative")
    return pa.Column(dtype, check)


#: Nothing on a GPU takes less than a nanosecond, and nobody waits more than a year for a token.
_TIME = pa.Column(
    float, pa.Check.in_range(1e-9, 3e7, error="is not a time in seconds (1e-9 to 3e7)"), nullable=True, required=False
)
_SCHEMA = pa.DataFrameSchema(
    {
        "architecture": pa.Column(
            object, pa.Check.isin(list(ARCHITECTURES), error=f"is not one of {', '.join(ARCHITECTURES)}")
        ),
        "model_size": pa.Column(object),
        **{name: _column(int, strict=name != "d_ff") for name in _SHAPES},
        **{name: pa.Column(float, nullable=True, required=False) for name in _MORE_SHAPES},
        "num_params": pa.Column(int, pa.Check.gt(0, error="must be positive"), required=False),
        "batch_size": _column(int),
        "prefill_length": _column(int, strict=False),
        "generation_length": _column(int),
        "ttft_s": _TIME,
        "step_time_s": _TIME,
    }
)


def load_inference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A table of inference timings with the columns of `data/inference.csv` (see `data/README.md`).

    Required columns: `architecture, model_size, d_model, n_layers, n_heads, d_ff, batch_size, prefill_length,
    generation_length` and one of `ttft_s`, `step_time_s`; a time may be missing in any row. Optional columns for
    other shapes: `d_qk`, `d_hv`, `vocab_size`, `n_kv_heads`, `tied_embeddings` and `qk_norm` (0 or 1),
    `window`, `attention_every`, `attention_heads`.

    What does not stop a fit but may mislead it (another unit than seconds, rows that repeat others, an empty column of
    times) is a `UserWarning` each, and a sentence in the list `attrs["notes"]` of the result.

    Raises
    ------
    InputError
        one line that names file, row, column and value.

    Examples
    --------
    >>> len(load_inference("data/inference.csv"))
    1560
    """
    table = read_table(path, _SCHEMA)
    times = {name: table[name] for name in COLUMNS.values() if name in table}
    if not times:
        raise InputError(f"{os.fspath(path)}: columns 'ttft_s' and 'step_time_s' are both missing")
    if all(values.isna().all() for values in times.values()):
        raise InputError(f"{os.fspath(path)}: column {', '.join(map(repr, times))} is empty: no times")
    for _, row in table.drop_duplicates(_shape_columns(table)).iterrows():
        try:
            model_of(row)
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {row['architecture']} {row['model_size']}: {error}") from error
    table.attrs["source"] = os.fspath(path)
    table.attrs["notes"] = _notes(table, times)
    for note in table.attrs["notes"]:
        warnings.warn(f"{os.fspath(path)}: {note}", UserWarning, stacklevel=2)
    return table


def _notes(table: pd.DataFrame, times: dict[str, pd.Series]) -> list[str]:
    device = get_hardware(REFERENCE_HARDWARE)
    found = [gaps_note(times)]
    for quantity, column in COLUMNS.items():
        if column in times:
            least = least_seconds(table, quantity, device)  # type: ignore[arg-type]
            found.append(unit_note(column, times[column].to_numpy(dtype=float), least, device.label))
    keys = [*_shape_columns(table), "batch_size", "prefill_length", "generation_length", *times]
    found.append(repeats_note(table, keys))
    return [note for note in found if note]


def least_seconds(rows: pd.DataFrame, quantity: Quantity, hardware: str | Hardware = REFERENCE_HARDWARE) -> Array:
    """Roofline time of every row, shape (n,); NaN for a prefill of a prompt below one chunk."""
    least = np.full(len(rows), np.nan)
    batch = rows["batch_size"].to_numpy()
    prompt = rows["prefill_length"].to_numpy()
    for model, at in by_model(rows):
        if quantity == "ttft":
            at = at[prompt[at] >= PAPER.chunk_size]
            if not len(at):
                continue
            counted = count_prefill(model, prompt[at], batch[at])
        else:
            counted = count_step(model, middle_context(rows)[at], batch[at])
        least[at] = counted.roofline(hardware).seconds
    return least


def load_paper_inference() -> pd.DataFrame:
    """The authors' 1,560 timings (`data/inference.csv`).

    Examples
    --------
    >>> load_paper_inference()["architecture"].nunique()
    2
    """
    return load_inference(data_dir() / "inference.csv")


def measured(table: pd.DataFrame, architecture: str, quantity: Quantity, model_size: str | None = None) -> pd.DataFrame:
    """Rows with a measurement of one quantity for one architecture, and one size if given.

    Raises
    ------
    InputError
        if the quantity or size is not in the table; the message says what is.
    NotApplicable
        if the table has no such column of times, or no timings of the architecture.
    """
    source = table.attrs.get("source", "the table of timings")
    if quantity not in COLUMNS:
        raise InputError(f"quantity {quantity!r} is not one of {', '.join(COLUMNS)}")
    if COLUMNS[quantity] not in table:
        raise NotApplicable(f"{source}: no column {COLUMNS[quantity]!r}")
    chosen = table
    for name, value in (("architecture", architecture), ("model_size", model_size)):
        if value is not None:
            kept = chosen[chosen[name] == value]
            if kept.empty:
                there = ", ".join(dict.fromkeys(map(str, chosen[name])))
                error = NotApplicable if name == "architecture" else InputError
                raise error(f"{source}: no rows with {name} {value}; there are {there}")
            chosen = kept
    return chosen[chosen[COLUMNS[quantity]].notna()]


def model_of(row: Any) -> Architecture:
    """The model that a row of the table times."""
    shapes = {name: int(row[name]) for name in _SHAPES}
    given = {name: row[name] for name in _MORE_SHAPES if name in row and not pd.isna(row[name])}
    return make_architecture(row["architecture"], **shapes, **given)


def _shape_columns(table: pd.DataFrame) -> list[str]:
    return ["architecture", *_SHAPES, *(name for name in _MORE_SHAPES if name in table)]


def middle_context(rows: pd.DataFrame) -> Array:
    """Tokens of context at the middle of the generation, whole numbers, shape (n,)."""
    return np.asarray(rows["prefill_length"] + (rows["generation_length"] + 1) // 2, dtype=float)


def by_model(rows: pd.DataFrame) -> list[tuple[Architecture, NDArray[np.intp]]]:
    """Every different model of the rows, and the positions of its rows."""
    labels = rows.groupby(_shape_columns(rows), sort=False, dropna=False).ngroup().to_numpy()
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [(model_of(rows.iloc[at[0]]), at) for at in places]
