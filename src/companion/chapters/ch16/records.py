"""Chapter 16: recorded experiments: the paper's runs replayed, simulated studies, and simulated laboratories."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion.paths import data_dir

#: A row of a table by its columns.
Row = dict[str, Any]
#: What V-optimal design follows in the sections on the loss, as `data/design_replay.csv` names it.
LOSS = "loss of the largest run"
#: Strategies of the replay and of the simulation in the order of tables and figures.
REPLAYED = ("V-optimal", "D-optimal", "largest affordable", "random", "by budget", "cheapest first")
SIMULATED = ("V-optimal", "D-optimal", "largest affordable", "random", "token/param grid", "IsoFLOP grid")
#: Truth and fitted law of the simulations in which the fitted law contains the truth, and of the others.
RIGHT = (("gamma = 1", "gamma = 1"), ("gamma = 1", "gamma free"), ("gamma free", "gamma free"))
WRONG = (
    ("further term", "gamma free"),
    ("further term", "gamma = 1"),
    ("gamma free", "gamma = 1"),
    ("product", "gamma = 1"),
)


@dataclass(frozen=True, kw_only=True)
class Records:
    """The three recorded tables: `replay`, `simulated` and `laboratories` (see `data/README.md`)."""

    replay: pd.DataFrame
    simulated: pd.DataFrame
    laboratories: pd.DataFrame


def load_records() -> Records:
    """The tables of the data folder; the replay with the columns of `judged`."""
    folder = data_dir()
    return Records(
        replay=judged(pd.read_csv(folder / "design_replay.csv")),
        simulated=pd.read_csv(folder / "design_simulated.csv"),
        laboratories=pd.read_csv(folder / "laboratory_coverage.csv"),
    )


def judged(replay: pd.DataFrame) -> pd.DataFrame:
    """Rows of a replay that can be compared, with how each interval fared.

    Kept are all strategies and, of V-optimal design, what it is for. Added: `half_width` of the interval, in the unit
    of `error`; `held_reference` and `held_observed`, whether the interval holds the value of the fit of all runs and
    the measured loss (NaN where there is none, or no fit); `between`, whether the round is neither the start, which all
    strategies share, nor the end, where they have seen the same runs.
    """
    table = replay[(replay["strategy"] != "V-optimal") | (replay["follow"] == replay["quantity"])].copy()
    positive = table["quantity"].str.startswith("loss")
    low, high = table["low"], table["high"]
    half = np.where(positive, np.log(high / low.where(positive)), high - low) / 2
    last = table.groupby(["architecture", "law"])["round"].transform("max")
    held = {}
    for name in ("reference", "observed"):
        known = table[name].notna() & low.notna()
        held[f"held_{name}"] = ((low <= table[name]) & (table[name] <= high)).astype(float).where(known)
    return table.assign(half_width=half, between=(table["round"] > 0) & (table["round"] < last), **held)


def of_quantity(replay: pd.DataFrame, quantity: str = LOSS) -> pd.DataFrame:
    """The judged rows of one quantity between start and end whose fit is identified."""
    return replay[(replay["quantity"] == quantity) & replay["between"] & replay["value"].notna()]


def by_strategy(replay: pd.DataFrame, quantity: str = LOSS, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """How each strategy fared between start and end, all seeds together: a row each, with `by` for every group.

    Columns: num_rows, `error` and `error_observed` (median of the absolute error against the fit of all runs, and
    against the measured loss), half_width (median), held_reference and held_observed (shares).
    """
    rows = of_quantity(replay, quantity)
    sizes = rows.assign(error=rows["error"].abs(), error_observed=rows["error_observed"].abs())
    found = sizes.groupby([*by, "strategy"], sort=False).agg(
        num_rows=("error", "size"),
        error=("error", "median"),
        error_observed=("error_observed", "median"),
        half_width=("half_width", "median"),
        held_reference=("held_reference", "mean"),
        held_observed=("held_observed", "mean"),
    )
    return found.reset_index()


def over_compute(replay: pd.DataFrame, architecture: str, law: str, quantity: str = LOSS) -> pd.DataFrame:
    """A row for every round and strategy of one replay: share_of_compute, half_width and absolute errors, medians."""
    rows = replay[(replay["architecture"] == architecture) & (replay["law"] == law) & (replay["quantity"] == quantity)]
    rows = rows.assign(error=rows["error"].abs(), error_observed=rows["error_observed"].abs())
    values = ["share_of_compute", "half_width", "error", "error_observed"]
    return rows.groupby(["round", "strategy"], sort=False)[values].median().reset_index()


def share_narrowest(replay: pd.DataFrame, quantity: str = LOSS) -> dict[str, float]:
    """In which share of the rounds between start and end each strategy has the narrowest interval, largest first.

    Several seeds count by their median; a strategy that never has it is left out.
    """
    places = ["architecture", "law", "round", "strategy"]
    widths = of_quantity(replay, quantity).groupby(places)["half_width"].median().reset_index()
    narrowest = widths.sort_values("half_width", kind="stable").drop_duplicates(places[:-1])["strategy"]
    return {str(name): float(share) for name, share in narrowest.value_counts(normalize=True).items()}


def end_error(replay: pd.DataFrame, architecture: str, law: str) -> float:
    """|ln(value / observed)| of the measured loss by the fit of all runs, which has seen that run as well."""
    rows = replay[(replay["architecture"] == architecture) & (replay["law"] == law) & (replay["quantity"] == LOSS)]
    return abs(float(np.log(rows["reference"].iloc[0] / rows["observed"].iloc[0])))


def named(table: pd.DataFrame, column: str = "strategy") -> dict[str, Row]:
    """The rows of a table by the text in a column; of several, the last one."""
    return {str(row[column]): {str(name): value for name, value in row.items()} for row in table.to_dict("records")}


def multiples_of(simulated: pd.DataFrame) -> list[float]:
    """Budgets for further runs over that of the start, ascending."""
    return sorted(float(each) for each in simulated["multiple"].unique() if each > 0)


def setting(simulated: pd.DataFrame, truth: str, law: str, multiple: float) -> dict[str, Row]:
    """The rows of one simulated setting by strategy; without the start."""
    chosen = (simulated["truth"] == truth) & (simulated["law"] == law) & (simulated["multiple"] == multiple)
    return named(simulated[chosen & (simulated["strategy"] != "start")])


def best_of_right(simulated: pd.DataFrame, column: str) -> list[str]:
    """The strategy with the least `column` in each setting with a right law and each budget for further runs."""
    found = [setting(simulated, *pair, each) for pair in RIGHT for each in multiples_of(simulated)]
    return [min(rows, key=lambda name: float(rows[name][column])) for rows in found]
