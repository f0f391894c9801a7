"""Fronts of loss over a cost: the best that a set of runs shows, and how far two such fronts lie apart.

The cost is compute C unless a caller says otherwise: tokens and GPU-hours have fronts of the same kind.

A front holds the runs that no other run beats (`companion.runs.pareto_front`). Between its runs the loss is not known
and has to be read off in some way (`READINGS`):

* `steps`: the lowest loss among the runs that cost no more. Assumes nothing; jumps at every run of the front.
* `linear`: straight lines in the logarithm of the cost from run to run. Where a budget was sampled at many sizes, its
  cheapest runs are on the front although far from the best, and the line to them leads astray.
* `hull`: the lower convex hull over the logarithm of the cost, straight lines between its corners. Every law
  E + k·C^-c with c > 0 is convex in log C, so runs above the hull are not what their compute can buy.

Two fronts are compared exactly, without a grid: the difference of two such curves is piecewise linear (`Curve`).
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from companion.errors import InputError
from companion.numeric import Values
from companion.runs.select import pareto_front, subset

Reading = Literal["hull", "linear", "steps"]
#: What a front's cost is unless a caller says otherwise.
COMPUTE = "compute (FLOP)"
READINGS: tuple[Reading, ...] = get_args(Reading)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A piecewise linear function on an interval; it may jump where two pieces meet.

    `edges` has shape (k + 1,) and increases; piece i runs from `left[i]` at `edges[i]` to `right[i]` at `edges[i + 1]`.
    """

    edges: NDArray[np.float64]
    left: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def minimum(self) -> float:
        """Least value."""
        return float(min(self.left.min(), self.right.min()))

    @property
    def maximum(self) -> float:
        """Largest value."""
        return float(max(self.left.max(), self.right.max()))

    @property
    def mean(self) -> float:
        """Mean over the interval."""
        return float(np.average((self.left + self.right) / 2, weights=np.diff(self.edges)))

    def share_below(self, level: float) -> float:
        """Share of the interval on which the function is below a level, between 0 and 1."""
        low, high = np.minimum(self.left, self.right), np.maximum(self.left, self.right)
        height = high - low
        flat = height == 0
        inside = np.clip((level - low) / np.where(flat, 1.0, height), 0.0, 1.0)
        return float(np.average(np.where(flat, low < level, inside), weights=np.diff(self.edges)))

    def share_above(self, level: float) -> float:
        """Share of the interval on which the function is above a level, between 0 and 1."""
        return Curve(edges=self.edges, left=-self.left, right=-self.right).share_below(-level)

    def quantile(self, share: float) -> float:
        """The level that the function stays at or below on this share of the interval; 0.5 gives its median."""
        levels = np.unique((self.left, self.right))
        below = np.array([self.share_below(level) for level in levels])  # jumps at the levels of flat pieces,
        up_to = np.array([1 - self.share_above(level) for level in levels])  # and is linear from one to the next
        at = int(np.argmax(up_to >= min(share, up_to[-1])))
        if at == 0 or below[at] < share:
            return float(levels[at])
        part = (share - up_to[at - 1]) / (below[at] - up_to[at - 1])
        return float(levels[at - 1] + part * (levels[at] - levels[at - 1]))


@dataclass(frozen=True, kw_only=True)
class ParetoFront:
    """Runs that no other run beats, cheapest first.

    `cost` increases and `loss` (nats per token) decreases, both of shape (k,). `rows` are the positions of these runs
    in the table they came from; of runs equal in both, the first. `label` says what the cost is, with its unit.
    """

    cost: NDArray[np.float64]
    loss: NDArray[np.float64]
    rows: NDArray[np.intp]
    label: str = COMPUTE

    @property
    def train_flops(self) -> NDArray[np.float64]:
        """The cost where it is compute, FLOP."""
        return self.cost

    def hull(self) -> "ParetoFront":
        """The corners of the lower convex hull of loss over log cost: a part of the front."""
        x, y, kept = np.log10(self.cost), self.loss, list[int]()
        for i in range(x.size):
            while len(kept) > 1:
                a, b = kept[-2], kept[-1]
                if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                    break
                kept.pop()
            kept.append(i)
        return replace(self, cost=self.cost[kept], loss=self.loss[kept], rows=self.rows[kept])

    def loss_at(self, cost: ArrayLike, reading: Reading = "hull") -> Values:
        """Loss at a cost, any shape; NaN outside the front's range."""
        front, steps = self._read(reading)
        x, at = np.log10(front.cost), np.log10(np.asarray(cost, dtype=float))
        if not steps:
            return np.interp(at, x, front.loss, left=np.nan, right=np.nan)
        inside = (at >= x[0]) & (at <= x[-1])
        return np.where(inside, front.loss[np.maximum(np.searchsorted(x, at, side="right") - 1, 0)], np.nan)

    def cost_at(self, loss: ArrayLike, reading: Reading = "hull") -> Values:
        """Least cost at which the front reaches a loss, any shape; NaN outside the losses of the front.

        With `steps` it is the cost of the cheapest run whose loss is no higher.
        """
        front, steps = self._read(reading)
        falling, at = front.loss[::-1], np.asarray(loss, dtype=float)
        if not steps:
            return 10 ** np.interp(at, falling, np.log10(front.cost)[::-1], left=np.nan, right=np.nan)
        inside = (at >= falling[0]) & (at <= falling[-1])
        place = np.maximum(np.searchsorted(falling, at, side="right") - 1, 0)
        return np.where(inside, front.cost[::-1][place], np.nan)

    def _read(self, reading: Reading) -> tuple["ParetoFront", bool]:
        """The corners that a reading uses, and whether it steps between them."""
        if reading not in READINGS:
            raise InputError(f"reading {reading!r} is not one of {', '.join(READINGS)}")
        return (self.hull() if reading == "hull" else self), reading == "steps"


def fit_front(cost: ArrayLike, loss: ArrayLike, label: str = COMPUTE) -> ParetoFront:
    """The front of a set of runs.

    Parameters
    ----------
    cost, loss
        shape (n,), n at least 1; a positive cost of each run, such as FLOP, and its loss in nats per token.
    label
        what the cost is, with its unit: for messages.

    Raises
    ------
    InputError
        if the shapes differ, there is no run, or a value is not finite.
    """
    costs, height = np.asarray(cost, dtype=float), np.asarray(loss, dtype=float)
    rows = pareto_front(costs, height)
    if not rows.size:
        raise InputError("a front needs at least one run")
    if not (costs > 0).all():
        raise InputError(f"{label} of a run on a front must be positive")
    rows = rows[np.concatenate(([True], np.diff(costs[rows]) > 0))]  # runs equal in both: the first stands for all
    return ParetoFront(cost=costs[rows], loss=height[rows], rows=rows, label=label)


def beaten(cost: ArrayLike, loss: ArrayLike, front: ParetoFront) -> NDArray[np.bool_]:
    """Which runs (n,) some run of a front beats: no higher cost, no higher loss, and better in one of the two.

    This needs no reading between runs.

    Parameters
    ----------
    cost, loss
        shape (n,), the front's cost and nats per token.
    """
    costs, height = np.asarray(cost, dtype=float), np.asarray(loss, dtype=float)
    at = np.searchsorted(front.cost, costs, side="right") - 1
    best_cost, best = front.cost[np.maximum(at, 0)], front.loss[np.maximum(at, 0)]
    return np.asarray((at >= 0) & (best <= height) & ((best < height) | (best_cost < costs)))


# ---- two fronts ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FrontComparison:
    """How far the second front lies above the first, where both are known.

    `loss_gap` is loss(second) − loss(first) in nats per token over log10 of the cost; `cost_gap` is log10 of
    cost(second) over cost(first) as a function of the loss. Positive values favor the first. `cost_range` and
    `loss_range` (nats per token) are the intervals that both fronts cover.
    """

    first: ParetoFront
    second: ParetoFront
    reading: Reading
    loss_gap: Curve
    cost_gap: Curve

    @property
    def flops_gap(self) -> Curve:
        """`cost_gap` where the cost is compute."""
        return self.cost_gap

    @property
    def cost_range(self) -> tuple[float, float]:
        """Cost that both fronts cover."""
        return float(10 ** self.loss_gap.edges[0]), float(10 ** self.loss_gap.edges[-1])

    @property
    def flops_range(self) -> tuple[float, float]:
        """`cost_range` where the cost is compute, FLOP."""
        return self.cost_range

    @property
    def loss_range(self) -> tuple[float, float]:
        """Losses that both fronts reach, nats per token."""
        return float(self.cost_gap.edges[0]), float(self.cost_gap.edges[-1])

    @property
    def decades(self) -> float:
        """Width of the common range of cost in factors of ten."""
        return float(self.loss_gap.edges[-1] - self.loss_gap.edges[0])

    @property
    def share_lower(self) -> float:
        """Share of the common range (in log cost) on which the first front is lower, between 0 and 1."""
        return self.loss_gap.share_above(0.0)

    def cost_factor(self, share: float = 0.5) -> float:
        """Quantile, over the common losses, of the cost of the second over that of the first; 0.5: the median."""
        return float(10 ** self.cost_gap.quantile(share))

    def flops_factor(self, share: float = 0.5) -> float:
        """`cost_factor` where the cost is compute."""
        return self.cost_factor(share)


def compare_fronts(first: ParetoFront, second: ParetoFront, reading: Reading = "hull") -> FrontComparison:
    """The gap between two fronts at equal cost, and the ratio of costs at equal loss.

    Parameters
    ----------
    first, second
        fronts over one kind of cost that share a range of it and a range of losses.
    reading
        how losses between the runs of a front are read off (see the module).

    Raises
    ------
    InputError
        if the fronts share no range of cost or of loss, or their costs are not of one kind.
    """
    if first.label != second.label:
        raise InputError(f"a front over {first.label} and one over {second.label} cannot be compared")
    (a, steps), (b, _) = first._read(reading), second._read(reading)
    x_a, x_b = np.log10(a.cost), np.log10(b.cost)
    loss_gap = _difference((x_b, b.loss), (x_a, a.loss), steps, first.label.replace(" (", " (log10 ", 1))
    cost_gap = _difference((b.loss[::-1], x_b[::-1]), (a.loss[::-1], x_a[::-1]), steps, "loss (nats per token)")
    return FrontComparison(first=first, second=second, reading=reading, loss_gap=loss_gap, cost_gap=cost_gap)


_Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def _difference(upper: _Points, lower: _Points, steps: bool, what: str) -> Curve:
    """`upper` minus `lower` where both are known; a step holds its value until the next point."""
    low, high = max(upper[0][0], lower[0][0]), min(upper[0][-1], lower[0][-1])
    if not low < high:
        spans = " and ".join(f"{x[0]:.4g} to {x[-1]:.4g}" for x, _ in (upper, lower))
        raise InputError(f"the two fronts share no range of {what}: {spans}")
    inner = np.union1d(upper[0], lower[0])
    edges = np.concatenate(([low], inner[(inner > low) & (inner < high)], [high]))
    if steps:
        values = [y[np.searchsorted(x, edges[:-1], side="right") - 1] for x, y in (upper, lower)]
        gap = values[0] - values[1]
        return Curve(edges=edges, left=gap, right=gap)
    gap = np.interp(edges, *upper) - np.interp(edges, *lower)
    return Curve(edges=edges, left=gap[:-1], right=gap[1:])


def compare_architectures(runs: pd.DataFrame, first: str, second: str, reading: Reading = "hull") -> FrontComparison:
    """`compare_fronts` of two architectures of a run table; choose one context length before.

    Raises
    ------
    InputError
        if an architecture has no runs, or the fronts share no range.
    """
    a, b = (fit_front(rows["train_flops"], rows["val_loss"]) for rows in (subset(runs, first), subset(runs, second)))
    return compare_fronts(a, b, reading)


def matched_pairs(first: pd.DataFrame, second: pd.DataFrame, tolerance: float = 0.02) -> pd.DataFrame:
    """Runs of two tables with nearly the same N and nearly the same D: what a comparison at equal size compares.

    Every run of `second` is paired with the run of `first` nearest in log N and log D, if both differ by no more than
    the tolerance.

    Parameters
    ----------
    first, second
        run tables.
    tolerance
        relative, above 0.

    Returns
    -------
    DataFrame
        with one row per pair: `first_row`, `second_row` (index labels), `num_params`, `num_tokens`, `tokens_per_param`,
        `train_flops` (FLOP; of the second run), `loss_gap` (nats per token) and `flops_ratio`, both second against
        first.
    """
    if not tolerance > 0:
        raise InputError(f"tolerance {tolerance} of matched pairs must be positive")
    size = ["num_params", "num_tokens"]
    logs_first, logs_second = (np.log(rows[size].to_numpy(dtype=float)) for rows in (first, second))
    nearest: list[tuple[int, int]] = []
    for j, at in enumerate(logs_second):
        distance = np.abs(logs_first - at).max(axis=1, initial=0.0)
        if distance.size and distance.min() <= np.log1p(tolerance):
            nearest.append((int(np.argmin(distance)), j))
    a, b = first.iloc[[i for i, _ in nearest]], second.iloc[[j for _, j in nearest]]
    return pd.DataFrame(
        {
            "first_row": a.index.to_numpy(),
            "second_row": b.index.to_numpy(),
            "num_params": b["num_params"].to_numpy(),
            "num_tokens": b["num_tokens"].to_numpy(),
            "tokens_per_param": (b["num_tokens"] / b["num_params"]).to_numpy(),
            "train_flops": b["train_flops"].to_numpy(),
            "loss_gap": b["val_loss"].to_numpy() - a["val_loss"].to_numpy(),
            "flops_ratio": b["train_flops"].to_numpy() / a["train_flops"].to_numpy(),
        }
    )
