"""Chapter 11: two architectures at equal loss, per token, per FLOP and per GPU-hour."""

import numpy as np
import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch11.shown import Costs
from companion.runs.recount import recount
from companion.training import cost_factors, decomposition, law_fronts, with_throughput
from companion.training.law_fronts import BEYOND

#: What a factor of the decomposition is called.
QUANTITIES = {
    "num_tokens": "tokens",
    "flops_per_token": "FLOPs per token",
    "train_flops": "FLOPs (product of the two)",
    "time_per_flop": "time per FLOP",
    "gpu_hours": "GPU-hours (product of all)",
}


def decompose(costs: Costs) -> pd.DataFrame:
    """`companion.training.decomposition` of the second architecture over the first, over their common losses.

    Raises
    ------
    NotApplicable
        if there are not two architectures with laws and common losses.
    """
    return decomposition(*costs.pair_laws(), costs.common_losses())


def hull_factors(costs: Costs) -> pd.DataFrame:
    """`companion.training.cost_factors` of the same pair: read off the hulls, over all losses that both reach."""
    return cost_factors(costs.logs, *costs.pair(), costs.context_length, group=costs.group)


def need_misleading_hulls(costs: Costs, hulls: pd.DataFrame, parts: pd.DataFrame) -> None:
    """Leave out what follows unless the hulls' median differs from the factor by the laws, and by missing budgets.

    Parameters
    ----------
    hulls, parts
        of `hull_factors` and `decompose`.

    Raises
    ------
    NotApplicable
        if the two agree within 5 %, or the runs were made for nearly all losses that the hulls share.
    """
    row = hulls.set_index("cost").astype(float).loc["gpu_hours"]
    law = factor_of(parts, "gpu_hours")
    need(abs(np.log(row["factor"] / law)) > np.log(1.05), "hulls and laws agree within 5 % here")
    missing = row["highest_loss"] - costs.common_losses()[-1]
    need(missing > 0.05 * (row["highest_loss"] - row["lowest_loss"]), "the runs were made for all losses shown here")


def ratio_readings(costs: Costs) -> pd.DataFrame:
    """The ratio of GPU-hours over the loss, second over first.

    Returns
    -------
    DataFrame
        with `loss` (all losses that both fronts of runs reach, ascending), `hulls` (read off the hulls) and `laws` (at
        smooth shapes; NaN where a law does not reach the loss).
    """
    first, second = costs.pair()
    fronts = [costs.fronts[name].hull() for name in (first, second)]
    low, high = max(front.loss[-1] for front in fronts), min(front.loss[0] for front in fronts)
    corners = np.concatenate([front.loss for front in fronts])
    inside = corners[(corners >= low) & (corners <= high)]
    losses = np.unique(np.concatenate((np.linspace(low, high, 121), inside)))
    one, two = (costs.fronts[name].cost_at(losses) for name in (first, second))
    laws = costs.pair_laws()
    smooth = [law.minima(losses, shapes="smooth")["gpu_hours"][:, 0] for law in laws]
    return pd.DataFrame({"loss": losses, "hulls": two / one, "laws": smooth[1] / smooth[0]})


def factor_of(parts: pd.DataFrame, quantity: str) -> float:
    """The factor of one quantity of `decompose`."""
    return float(parts.loc[parts["quantity"] == quantity, "factor"].iloc[0])


def decompose_by(costs: Costs, conventions: list[str]) -> pd.DataFrame:
    """The decomposition with FLOPs counted by other conventions, without intervals.

    Returns
    -------
    DataFrame
        with `convention` and a column for every quantity of `QUANTITIES`: its factor.

    Raises
    ------
    InputError
        if the logs lack shapes, or a convention is not known.
    """
    losses, rows = costs.common_losses(), []
    runs = pd.concat([costs.runs[name] for name in costs.pair()])
    for convention in conventions:
        counted = runs.assign(train_flops=recount(runs, convention, costs.logs.attrs.get("source")))
        again = with_throughput(counted, costs.hardware)
        laws = law_fronts(again, costs.context_length, num_resamples=0, group=costs.group)
        first, second = (laws[name] for name in costs.pair())
        found = decomposition(first, second, losses).set_index("quantity")["factor"]
        rows.append({"convention": convention} | {name: float(found[name]) for name in QUANTITIES})
    return pd.DataFrame(rows)


def hours_over_size(costs: Costs) -> dict[str, pd.DataFrame]:
    """GPU-hours to the loss of the page over the size, by architecture, by the law and smooth prices of a token.

    Returns
    -------
    dict
        tables of `LawFront.over_sizes` without the sizes whose compute leaves that of the runs, and with `trained`:
        whether the row is of a trained size at its own price instead.

    Raises
    ------
    NotApplicable
        if no law reaches the loss at three sizes.
    """
    found = {}
    for name in costs.names:
        if name not in costs.laws:
            continue
        law = costs.laws[name]
        least, most = law.flops_range
        both = (law.over_sizes(costs.loss, "measured"), law.over_sizes(costs.loss))
        table = pd.concat([each.assign(trained=at == 0) for at, each in enumerate(both)], ignore_index=True)
        table = table[table["train_flops"].between(least / BEYOND, most * BEYOND)]
        if (~table["trained"]).sum() >= 3:
            found[name] = table
    need(found, f"by no law a size that was trained reaches a loss of {costs.loss:g}")
    return found


def shifts(costs: Costs) -> pd.DataFrame:
    """`LawFront.size_shift` of every architecture with a law, at losses that its runs were made for.

    Returns
    -------
    DataFrame
        with `architecture` and the columns of `size_shift`, at the lowest and the highest of these losses, and at that
        of the page if it is between them.

    Raises
    ------
    NotApplicable
        if no architecture has a law there.
    """
    parts = []
    for name in costs.names:
        if name not in costs.laws:
            continue
        law, front = costs.laws[name], costs.fronts[name]
        grid = np.linspace(front.loss[-1], front.loss[0], 201)
        table = law.cheapest(grid)
        inside = grid[~table["extrapolated"] & np.isfinite(table["gpu_hours"])]
        if inside.size:
            own = [costs.loss] if inside[0] < costs.loss < inside[-1] else []
            losses = np.array([inside[0], *own, inside[-1]])
            parts.append(law.size_shift(losses).assign(architecture=name))
    need(parts, "no architecture has a law at losses that its runs were made for")
    return pd.concat(parts, ignore_index=True)
