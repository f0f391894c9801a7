"""Fronts of loss over what training costs, from logs: compute, tokens, GPU-hours; and hours at a given loss.

A front of runs (`run_fronts`) assumes nothing but is made of the runs that came out best, so its value at a loss is a
little too good, and runs drawn again from the same runs repeat that: an interval from them misses. The intervals here
come from the law of the loss and the price of a token of each architecture (`companion.training.law_fronts`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.pareto import ParetoFront, Reading, compare_fronts, fit_front
from companion.formatting import listed
from companion.training.law_fronts import LawFront, Shapes, fit_law_front
from companion.training.throughput import ISOFLOP, finished

#: What training costs, by column of `with_throughput`, with the words and the unit that messages use.
COSTS = {"train_flops": "compute (FLOP)", "num_tokens": "tokens (tokens)", "gpu_hours": "time (GPU-hours)"}


def usual_context_length(logs: pd.DataFrame, group: str | None = ISOFLOP) -> int:
    """The context length with most architectures, of several the one with most runs; finished runs of a group count.

    Raises
    ------
    InputError
        if no run is finished.
    """
    counted = finished(logs, group=group).groupby("context_length")["architecture"].agg(["nunique", "size"])
    return int(counted.sort_values(["nunique", "size"], ascending=False, kind="stable").index[0])


def run_fronts(
    logs: pd.DataFrame, context_length: int, cost: str = "gpu_hours", group: str | None = ISOFLOP
) -> dict[str, ParetoFront]:
    """The front of the finished runs of every architecture, by its name.

    Parameters
    ----------
    logs
        of `with_throughput`.
    context_length
        tokens; only runs of one context length are compared.
    cost
        a column of `COSTS`.
    group
        runs of this group, see `finished`; None for all.

    Returns
    -------
    dict
        `rows` of a front are positions among the runs of `front_runs`.

    Raises
    ------
    InputError
        if there is no such run or no such cost.
    """
    label = _label(cost)
    return {
        name: fit_front(runs[cost], runs["val_loss"], label)
        for name, runs in front_runs(logs, context_length, group).items()
    }


def front_runs(logs: pd.DataFrame, context_length: int, group: str | None = ISOFLOP) -> dict[str, pd.DataFrame]:
    """The runs behind every front of `run_fronts`, by architecture: finished, of one context length and group."""
    runs = finished(logs, context_length, group)
    return {str(name): part for name, part in runs.groupby("architecture", sort=True)}


def _label(cost: str) -> str:
    if cost not in COSTS:
        raise InputError(f"cost {cost!r} is not one of {', '.join(COSTS)}")
    return COSTS[cost]


def cost_factors(
    logs: pd.DataFrame,
    first: str,
    second: str,
    context_length: int,
    reading: Reading = "hull",
    group: str | None = ISOFLOP,
) -> pd.DataFrame:
    """How much more the second architecture costs at equal loss, in each of `COSTS`, read off the fronts of runs.

    Fronts over tokens are a comparison at equal data: the largest models are on them, so the largest size that was
    trained decides.

    Parameters
    ----------
    logs
        of `with_throughput`.
    first, second
        values of the column `architecture`.
    context_length, reading, group
        see `run_fronts` and `companion.fitting.pareto`.

    Returns
    -------
    DataFrame
        with `cost`, `factor` (cost of the second over that of the first: the median over the losses that both reach),
        `smallest` and `largest` over these losses, and `lowest_loss` and `highest_loss`, their ends (nats per token).

    Raises
    ------
    InputError
        if an architecture has no finished run, or two fronts share no range.
    """
    rows = []
    for cost in COSTS:
        fronts = run_fronts(logs, context_length, cost, group)
        for name in (first, second):
            if name not in fronts:
                raise InputError(
                    f"no finished run of architecture {name!r} at context length {context_length}; there are "
                    f"{listed(fronts)}"
                )
        found = compare_fronts(fronts[first], fronts[second], reading)
        rows.append(
            {
                "cost": cost,
                "factor": found.cost_factor(),
                "smallest": found.cost_factor(0.0),
                "largest": found.cost_factor(1.0),
                "lowest_loss": found.loss_range[0],
                "highest_loss": found.loss_range[1],
            }
        )
    return pd.DataFrame(rows)


# ---- fronts with intervals ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LawFronts(Mapping[str, LawFront]):
    """The law front of every architecture that has one, by name; `reasons` says why the others have none."""

    fronts: dict[str, LawFront]
    reasons: dict[str, str]

    def __getitem__(self, name: str) -> LawFront:
        if name not in self.fronts:
            raise InputError(f"architecture {name!r} has no law: {self.reasons.get(name, 'no finished run')}")
        return self.fronts[name]

    def __contains__(self, name: object) -> bool:
        return name in self.fronts

    def __iter__(self) -> Iterator[str]:
        return iter(self.fronts)

    def __len__(self) -> int:
        return len(self.fronts)


def law_fronts(
    logs: pd.DataFrame,
    context_length: int,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
    group: str | None = ISOFLOP,
) -> LawFronts:
    """A law of the loss and prices of a token for every architecture at one context length.

    Where the runs of an architecture are too few or too alike for a law, `reasons` of the result says so.

    Raises
    ------
    InputError
        if there is no finished run at this context length.
    """
    fronts: dict[str, LawFront] = {}
    reasons: dict[str, str] = {}
    for name, runs in front_runs(logs, context_length, group).items():
        try:
            fronts[name] = fit_law_front(runs, num_resamples=num_resamples, seed=seed)
        except InputError as error:
            reasons[name] = str(error)
    return LawFronts(fronts=fronts, reasons=reasons)


def gpu_hours_at_loss(
    logs: pd.DataFrame,
    loss: float,
    context_length: int,
    *,
    laws: LawFronts | None = None,
    reading: Reading = "hull",
    level: float = 0.95,
    group: str | None = ISOFLOP,
) -> pd.DataFrame:
    """GPU-hours that every architecture takes to a loss: read off its front of runs, with an interval.

    The interval is that of the hours of the cheapest shape that was trained, from the law of the loss (see
    `LawFront.cheapest`), widened where it leaves out the value that was read off: a front's runs are the luckiest.

    Parameters
    ----------
    logs
        of `with_throughput`.
    loss
        nats per token.
    context_length
        tokens.
    laws
        of `law_fronts` for the same runs; None to fit them here, with 1,000 resamples.
    reading
        how the front is read between runs (`companion.fitting.pareto`).
    level
        of the interval, between 0 and 1.

    Returns
    -------
    DataFrame
        a row for each architecture: `architecture`, `gpu_hours` (NaN where the front does not reach the loss),
        `low` and `high` (NaN where no interval is known), `expected_gpu_hours` and `num_params` of the cheapest shape
        by the law, and `reason`: why a number is missing or not to be trusted, else empty.
    """
    known = law_fronts(logs, context_length, group=group) if laws is None else laws
    rows = []
    for name, front in run_fronts(logs, context_length, group=group).items():
        hours = float(front.cost_at(loss, reading))
        row: dict[str, str | float] = {"architecture": name, "gpu_hours": hours, "low": np.nan, "high": np.nan}
        row |= {"expected_gpu_hours": np.nan, "num_params": np.nan, "reason": ""}
        if np.isnan(hours):
            row["reason"] = (
                f"the front of {name} has losses from {front.loss[-1]:.4f} to {front.loss[0]:.4f}, not {loss:g}"
            )
        elif name not in known or not known[name].fit.identified:
            why = known[name].withheld if name in known else known.reasons.get(name, "no law")
            row["reason"] = f"no interval for {name}: {why}"
        else:
            best = known[name].cheapest([loss], level=level).iloc[0]
            low, high = best["gpu_hours_low"], best["gpu_hours_high"]
            row |= {"expected_gpu_hours": best["gpu_hours"], "num_params": best["num_params"]}
            row |= {"low": min(low, hours), "high": max(high, hours)} if np.isfinite(low) else {}
            row["reason"] = _doubt(known[name], best, loss)
        rows.append(row)
    return pd.DataFrame(rows)


def _doubt(law: LawFront, best: pd.Series, loss: float) -> str:
    """Why there is no interval, or one that reaches beyond the runs; else empty."""
    if law.withheld:
        return f"no interval for {law.architecture}: {law.withheld}"
    if best["extrapolated"]:
        least, most = law.flops_range
        return (
            f"by its law {law.architecture} reaches {loss:g} with {best['train_flops']:.3g} FLOP, outside its runs "
            f"({least:.3g} to {most:.3g}): the front shows no run made for this loss"
        )
    return ""


def front_bands(
    logs: pd.DataFrame,
    context_length: int,
    laws: LawFronts,
    *,
    cost: str = "gpu_hours",
    shapes: Shapes = "measured",
    num_points: int = 40,
    level: float = 0.95,
    group: str | None = ISOFLOP,
) -> pd.DataFrame:
    """Fronts by the law with their bands, on a grid of losses between the ends of each front of runs: for figures.

    Parameters
    ----------
    logs, context_length, cost, group
        see `run_fronts`.
    laws
        of `law_fronts` for the same runs.
    shapes, level
        see `LawFront.cheapest`.
    num_points
        losses in the grid; those at which the law would leave the compute of the runs are left out.

    Returns
    -------
    DataFrame
        the rows of `LawFront.cheapest`, with `architecture` in front.
    """
    parts = []
    for name, front in run_fronts(logs, context_length, cost, group).items():
        if name in laws:
            losses = np.linspace(front.loss[-1], front.loss[0], num_points)
            table = laws[name].cheapest(losses, cost, shapes, level)
            parts.append(table[~table["extrapolated"]].assign(architecture=name))
    if not parts:
        raise InputError(f"no architecture has a law at context length {context_length}")
    bands = pd.concat(parts, ignore_index=True)
    return bands[["architecture", *(column for column in bands if column != "architecture")]]


def decomposition(
    first: LawFront, second: LawFront, losses: np.ndarray, *, cost: str = "gpu_hours", level: float = 0.95
) -> pd.DataFrame:
    """Why two architectures differ per token, per FLOP and per GPU-hour: the factors of one number at equal loss.

    Both are trained at the size that reaches the loss at least cost. Then GPU-hours = tokens · FLOPs per token · time
    per FLOP, and time per FLOP is one over the utilization (times the peak, which both share).

    Parameters
    ----------
    first, second
        fronts by the law, with as many resamples.
    losses
        nats per token, shape (m,); both must reach them.
    cost
        what the sizes make least.
    level
        of the intervals.

    Returns
    -------
    DataFrame
        with `quantity` (`num_tokens`, `flops_per_token`, `train_flops` = the product of both, `time_per_flop`,
        `gpu_hours` = the product of all three), `factor` (second over first, geometric mean over the losses), `low` and
        `high`, its interval, `smallest` and `largest` over the losses.
    """
    points, samples = (_log_factors(first, second, losses, cost, resampled=each) for each in (False, True))
    rows = []
    for name in points:
        ratio = points[name][:, 0]
        drawn = samples[name].mean(axis=0) if samples else np.empty(0)
        low, high = LawFront.ends(np.exp(drawn), level)
        rows.append(
            {
                "quantity": name,
                "factor": float(np.exp(ratio.mean())),
                "low": low,
                "high": high,
                "smallest": float(np.exp(ratio.min())),
                "largest": float(np.exp(ratio.max())),
            }
        )
    return pd.DataFrame(rows)


def _log_factors(
    first: LawFront, second: LawFront, losses: np.ndarray, cost: str, *, resampled: bool
) -> dict[str, np.ndarray]:
    """log of second over first for each quantity, shape (m, R), or (m, 1) of the fits themselves; empty without any."""
    if resampled and (first.laws is None or second.laws is None):
        return {}
    one, two = (front.minima(losses, cost, "smooth", resampled=resampled) for front in (first, second))
    number = min(one["gpu_hours"].shape[1], two["gpu_hours"].shape[1])  # a resample that was lost has no partner
    log = {name: np.log(two[name][:, :number] / one[name][:, :number]) for name in COSTS}
    return {
        "num_tokens": log["num_tokens"],
        "flops_per_token": log["train_flops"] - log["num_tokens"],
        "train_flops": log["train_flops"],
        "time_per_flop": log["gpu_hours"] - log["train_flops"],
        "gpu_hours": log["gpu_hours"],
    }
