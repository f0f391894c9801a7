"""What chapter 10 shows of the records: one set of heads at one context, on one GPU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from companion.accounting.kernel_costs import CellShape
from companion.benchmarks.kernels.results import OURS, Timings, heads_of, of_heads, with_rooflines
from companion.benchmarks.kernels.shapes import NUM_TOKENS
from companion.chapters.kernel_tables import TITLES, label, nothing
from companion.hardware import Hardware
from companion.plotting import Html


@dataclass(frozen=True)
class Shown:
    """The cell that the page shows in full, and the timings of it.

    Attributes
    ----------
    timings
        of one GPU.
    cell
        heads, context and batch that are looked at.
    """

    timings: Timings
    cell: CellShape

    @classmethod
    def of(cls, timings: Timings, heads: Sequence[int], context_length: int) -> "Shown":
        """The cell with these heads (H, d_qk, d_hv), as many tokens as were timed, in chunks of 128."""
        n_heads, d_qk, d_hv = heads
        size = {"batch_size": NUM_TOKENS // context_length, "context_length": context_length}
        return cls(timings, CellShape(**size, n_heads=n_heads, d_qk=d_qk, d_hv=d_hv, chunk_size=128))

    @property
    def peaks(self) -> Hardware:
        """What the GPU of the timings reached."""
        return self.timings.peaks

    @property
    def heads(self) -> tuple[int, int, int]:
        """H, d_qk and d_hv."""
        return self.cell.n_heads, self.cell.d_qk, self.cell.d_hv

    @property
    def label(self) -> str:
        """The heads in words."""
        return label(self.heads)

    @property
    def context(self) -> int:
        """Tokens per sequence for the tables of times."""
        return int(self.cell.context_length)

    @property
    def shapes(self) -> dict[str, CellShape]:
        """The cell with the heads of every timed case, by their label."""
        return {label(n): replace(self.cell, n_heads=n[0], d_qk=n[1], d_hv=n[2]) for n in map(_whole, self.all_heads)}

    @property
    def all_heads(self) -> list[tuple[int, int, int]]:
        """H, d_qk and d_hv of every timed case."""
        return heads_of(self.timings)

    @cached_property
    def here(self) -> pd.DataFrame:
        """Timed rows of the heads, with rooflines."""
        return of_heads(with_rooflines(self.timings), self.heads)

    @property
    def at_context(self) -> pd.DataFrame:
        """Those at the context."""
        return self.here[self.here["context_length"] == self.context]

    @property
    def steps(self) -> pd.DataFrame:
        """Those of single steps."""
        return self.here[self.here["part"] == "step"]

    def row_of(self, implementation: str, part: str) -> pd.Series | None:
        """The timing of an implementation at the context; None if there is none."""
        rows = self.at_context
        found = rows[(rows["implementation"] == implementation) & (rows["part"] == part)]
        return found.iloc[0] if len(found) else None

    @property
    def ours(self) -> dict[str, pd.Series]:
        """The timings of our kernels at the context, by part, as far as there are any."""
        rows = {part: self.row_of(OURS, part) for part in TITLES}
        return {part: row for part, row in rows.items() if row is not None}

    @property
    def published(self) -> dict[str, dict[str, float]]:
        """How many times as long as ours the forms of `mlstm_kernels` take at the context, by name and part.

        The variant with a sigmoid input gate is another cell, and is left out.
        """
        names = [str(name) for name in self.at_context["implementation"].unique()]
        found: dict[str, dict[str, float]] = {}
        for name in names:
            if name.startswith("mlstm_kernels") and "sigmoid" not in name:
                rows = {part: self.row_of(name, part) for part in self.ours}
                found[name] = {
                    part: float(row["seconds_median"] / self.ours[part]["seconds_median"])
                    for part, row in rows.items()
                    if row is not None
                }
        return {name: ratios for name, ratios in found.items() if ratios}

    def untimed(self) -> Html:
        """In place of a figure or table of times."""
        return nothing(f"{self.label} was not timed on {self.timings.gpu}")


def _whole(heads: tuple[int, int, int]) -> tuple[int, int, int]:
    return int(heads[0]), int(heads[1]), int(heads[2])
