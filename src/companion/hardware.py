"""Peaks of accelerators: one table (`data/hardware.csv`), each row with its source."""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from companion.errors import InputError
from companion.paths import data_dir

#: The authors name no device. They normalize by 989e12 FLOP/s, and their step times jump where a batch has more heads
#: than this one has multiprocessors (chapter 8).
REFERENCE_HARDWARE = "h100-sxm"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One accelerator.

    `peak_flops_per_s` is dense bf16 matrix FLOP/s, `peak_bytes_per_s` the bandwidth of device memory, `memory_bytes`
    its size as the vendor prints it (1 GB = 1e9 bytes), `num_multiprocessors` the units that each run blocks of their
    own.

    Raises
    ------
    InputError
        if a peak is not positive.
    """

    name: str
    label: str
    peak_flops_per_s: float
    peak_bytes_per_s: float
    memory_bytes: float
    num_multiprocessors: int
    source: str

    def __post_init__(self) -> None:
        for field in ("peak_flops_per_s", "peak_bytes_per_s", "memory_bytes", "num_multiprocessors"):
            if not getattr(self, field) > 0:
                raise InputError(f"hardware {self.name}: {field} {getattr(self, field)} is not positive")

    @property
    def ridge(self) -> float:
        """FLOP per byte above which compute, not memory, is the limit (Williams, Waterman, Patterson 2009)."""
        return self.peak_flops_per_s / self.peak_bytes_per_s


def load_hardware(path: str | os.PathLike[str]) -> dict[str, Hardware]:
    """Hardware of a table with the columns of `data/hardware.csv`, by name.

    Raises
    ------
    InputError
        if the file cannot be read, or a column or value is wrong; the message names it.
    """
    import pandera.pandas as pa  # here: who counts on a GPU machine without pandera needs no table

    from companion.tables import read_table

    positive = pa.Check.gt(0, error="must be positive")
    floats = ("peak_flops_per_s", "peak_bytes_per_s", "memory_bytes")
    columns = {
        "name": pa.Column(object, unique=True),
        "label": pa.Column(object),
        **{name: pa.Column(float, positive) for name in floats},
        "num_multiprocessors": pa.Column(int, positive),
        "source": pa.Column(object),
    }
    rows: Any = read_table(path, pa.DataFrameSchema(columns)).to_dict("records")
    return {row["name"]: Hardware(**{name: row[name] for name in columns}) for row in rows}


@lru_cache(maxsize=1)
def known_hardware() -> dict[str, Hardware]:
    """The project's own table, by name."""
    return load_hardware(data_dir() / "hardware.csv")


def get_hardware(hardware: str | Hardware) -> Hardware:
    """The hardware of that name, or the object itself.

    Raises
    ------
    InputError
        if there is none of that name.
    """
    if isinstance(hardware, Hardware):
        return hardware
    known = known_hardware()
    if hardware not in known:
        raise InputError(f"hardware {hardware!r} is not known; there are {', '.join(known)}")
    return known[hardware]


def hardware_table() -> pd.DataFrame:
    """All known hardware as a table, a row each."""
    return pd.DataFrame([vars(entry) for entry in known_hardware().values()])
