"""What chapter 10 shows of the records: one set of heads at one context, on one GPU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from companion.accounting.kernel_costs import CellShape
from companion.benchmarks.kernels.results import OURS, OURS_DETACHED, Timings, heads_of, of_heads, with_rooflines
from companion.benchmarks.kernels.shapes import NUM_TOKENS
from companion.hardware import Hardware
from companion.plotting import Html, show_table

#: Parts of the timings, and what the page calls them.
TITLES = {"forward": "forward", "training": "forward and backward"}


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


def label(heads: Sequence[int]) -> str:
    """H × (d_qk, d_hv)."""
    return f"{int(heads[0])} × ({int(heads[1])}, {int(heads[2])})"


def joined(parts: Sequence[str]) -> str:
    """Parts of a sentence as a list: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def short_name(implementation: str) -> str:
    """An implementation as figures and tables write it: `ours, detached`, `xl_chunk, L = 128`."""
    if " step" in implementation:
        return implementation.replace(" step", "").replace("companion", "ours")
    name = implementation.removeprefix("mlstm_kernels ").replace("companion", "ours").replace(", chunk", ", L =")
    return name.replace("detached normaliser", "detached")


def nothing(note: str) -> Html:
    """In place of a figure or table for which there are no records."""
    return show_table(pd.DataFrame({"note": [note]}), caption="Nothing to show.")


def short_gpu(names: pd.Series) -> pd.Series:
    """Names of GPUs without their maker and memory."""
    return names.str.replace(r"^NVIDIA |[ -]\d+GB.*", "", regex=True)


def passes_of(table: pd.DataFrame, context: int) -> pd.DataFrame:
    """Rows of our passes, the detached one in training alone, at three contexts, widest heads first.

    Parameters
    ----------
    table
        with `gpu`, `part`, `case` and `implementation` (`companion.benchmarks.kernels.log`).

    Returns
    -------
    The rows with `heads`, `pass` (in words), `T` (tokens) and a short `gpu`.
    """
    detached = (table["implementation"] == OURS_DETACHED) & (table["part"] == "training")
    table = table[((table["implementation"] == OURS) | detached) & table["part"].isin(list(TITLES))]
    sizes = table["case"].str.extract(r"(\d+)x(\d+)x(\d+)-T(\d+)").astype(int)
    table = table.assign(
        heads=[label(n) for n in sizes[[0, 1, 2]].to_numpy().tolist()], T=sizes[3], state=sizes[1] * sizes[2]
    )
    table["pass"] = table["part"] + table["implementation"].map({OURS_DETACHED: ", detached"}).fillna("")
    table["gpu"] = short_gpu(table["gpu"])
    table = table[table["T"].isin([2048, context, 65536])]
    return table.sort_values(["state", "pass", "gpu", "T"], ascending=[False, True, True, True])


def by_context(table: pd.DataFrame, cells: Sequence[str]) -> pd.DataFrame:
    """A row per heads, pass and GPU of `passes_of`, and a column of these texts for every context."""
    index = ["heads", "pass", "gpu"]
    wide = table.assign(text=cells).pivot_table(index=index, columns="T", values="text", aggfunc="last", sort=False)
    return wide.rename(columns=lambda tokens: f"T = {tokens}").rename_axis(columns=None).reset_index().fillna("")


def _whole(heads: tuple[int, int, int]) -> tuple[int, int, int]:
    return int(heads[0]), int(heads[1]), int(heads[2])
