"""Least seconds of a timed cell, by the rooflines of our kernels. Needs no torch and no GPU."""

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pandas as pd

from companion.accounting.inference import BF16
from companion.accounting.kernel_costs import (
    CARRIED_TILE,
    CellShape,
    Pass,
    attention_kernel_costs,
    best_kernel_chunk,
    cell_kernel_costs,
    chunk_size_scan,
    keeps_states,
    pass_seconds,
    step_cost,
)
from companion.benchmarks.kernels.other_cells import OTHER_CELLS
from companion.hardware import Hardware

#: Parts of the timings, and what the accounting calls them.
PASS_OF_PART: dict[str, Pass] = {"forward": "forward", "training": "forward+backward"}
#: Tokens of the chunks with which our forward pass carries the state in one kernel.
_FUSED_CHUNK = 128


class Way(NamedTuple):
    """How our kernels may compute a cell: its shape with the length of chunks, and where its states go.

    `carried_tile` and `keep_states` are those of `companion.accounting.kernel_costs.cell_kernel_costs`.
    """

    cell: CellShape
    carried_tile: int | None
    keep_states: bool

    def seconds(self, peaks: Hardware, passes: Pass) -> float:
        """Roofline seconds."""
        costs = cell_kernel_costs(self.cell, carried_tile=self.carried_tile, keep_states=self.keep_states)
        return pass_seconds(costs, peaks, passes)


def roofline_seconds(row: pd.Series, shape: CellShape, peaks: Hardware) -> float:
    """Least seconds of a timed row of this shape; NaN where something else than mLSTM or attention is computed."""
    if row["part"] == "step":
        wide = 2.0 if row["state_dtype"] == "bfloat16" else 4.0
        return float(step_cost(shape, precision=replace(BF16, bytes_per_state=wide)).roofline(peaks).seconds)
    passes = PASS_OF_PART[str(row["part"])]
    if row["computation"] == "attention":
        return pass_seconds(attention_kernel_costs(shape), peaks, passes)
    if row["computation"] in OTHER_CELLS:
        return float("nan")
    return least_kernels(shape, peaks, passes).seconds(peaks, passes)


@cache
def least_kernels(shape: CellShape, peaks: Hardware, passes: Pass) -> Way:
    """The way of least roofline time: states and outputs in two kernels at any chunk, or in one at chunks of 128.

    With a backward pass states are kept where our kernels keep them; a forward pass alone has no gradient.
    """
    with_gradient = passes != "forward"
    chunk = best_kernel_chunk(chunk_size_scan(shape, peaks, keep_states=with_gradient), passes)
    ways = []
    for size, carried in ((chunk, None), (_FUSED_CHUNK, CARRIED_TILE)):
        cell = replace(shape, chunk_size=size)
        ways.append(Way(cell, carried, with_gradient and keeps_states(cell)))
    return min(ways, key=lambda way: way.seconds(peaks, passes))
