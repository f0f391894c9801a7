"""Tables of chapter 2 on other people's run tables, on pairs of equal size, and in solutions."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from companion.chapters.ch02.overview import with_ranges
from companion.chapters.ch02.tables import labeled, share_of_range
from companion.errors import NotApplicable
from companion.fitting.isoflop import IsoflopFit
from companion.fitting.pareto import FrontComparison, beaten
from companion.formatting import count, interval, level_text, power_of_ten
from companion.plotting import Html, show_table

# ---- tables of one's own -------------------------------------------------------------------------


def show_first_runs(runs: pd.DataFrame, number: int = 3) -> Html:
    """The first runs of a table."""
    return show_table(runs.head(number), caption=f"The first of {len(runs)} runs.")


def show_first_rows(rows: pd.DataFrame) -> Html:
    """Rows of a file as they are in it: a row per column, so that every column can be seen.

    Parameters
    ----------
    rows
        as text (`pandas.read_csv` with `dtype=str`).
    """
    shown = rows.T.set_axis([f"row {number}" for number in range(1, len(rows) + 1)], axis=1)
    return show_table(
        shown.rename_axis("column").reset_index(),
        name="run-table-raw",
        caption="The first rows of the file, turned on their side.",
    )


def show_budgets(runs: pd.DataFrame, file_name: str) -> Html:
    """Runs by architecture and budget."""
    groups = runs.groupby(["architecture", "isoflop_budget"])
    return show_table(
        groups.size().reset_index(name="runs"),
        caption=f"Budgets found in {file_name}.",
        formats={"isoflop_budget": power_of_ten},
        labels={"isoflop_budget": "budget (FLOP)"},
    )


def show_exponents(fits: Mapping[str, IsoflopFit]) -> Html:
    """Exponents of N*(C) with their bootstrap intervals, by what was chosen."""
    rows = [
        {
            "choice": name,
            "optima": len(fit.optima),
            "exponent": fit.power_law.law.exponent,
            "interval": interval(fit.interval("exponent")),
        }
        for name, fit in fits.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        name="run-table-exponents",
        caption="Exponent of N*(C) in the foreign table.",
        formats={"exponent": "{:.3f}"},
        labels={"choice": "budgets", "interval": "95 % interval (bootstrap)"},
    )


# ---- pairs of equal size -------------------------------------------------------------------------


def need_pairs(pairs: pd.DataFrame, first: str, second: str, tolerance: float) -> None:
    """Leave out what follows in a section unless there are pairs.

    Raises
    ------
    NotApplicable
        if there are none.
    """
    if pairs.empty:
        raise NotApplicable(f"no two runs of {first} and {second} agree in N and D within {level_text(tolerance)}")


def show_pairs(pairs: pd.DataFrame, first: str, second: str) -> Html:
    """Every sixth row of `companion.fitting.pareto.matched_pairs`."""
    columns = ["num_params", "tokens_per_param", "loss_gap", "flops_ratio"]
    return show_table(
        pairs[columns].iloc[::6],
        name="run-table-pairs",
        caption=f"Every sixth pair of equal size: {labeled(second)} against {labeled(first)}.",
        formats=dict(zip(columns, [count, count, "{:+.4f}", "{:.2f}"], strict=True)),
        labels={"num_params": "N", "tokens_per_param": "M = D/N", "loss_gap": "loss gap (nats/token)"}
        | {"flops_ratio": "ratio of compute"},
    )


# ---- exercises -----------------------------------------------------------------------------------


def show_comparisons(results: Mapping[Any, FrontComparison], what: str, first: str, second: str) -> Html:
    """Comparisons of the fronts of two architectures, a row each.

    Parameters
    ----------
    results
        by what distinguishes them.
    what
        heading of that.
    """
    rows = [
        {
            what: name,
            "share": share_of_range(found.share_lower),
            "gap": found.loss_gap.quantile(0.5),
            "factor": found.flops_factor(),
            "beaten": f"{beaten(found.second.train_flops, found.second.loss, found.first).sum()} of "
            f"{found.second.rows.size}",
        }
        for name, found in results.items()
    ]
    return show_table(
        pd.DataFrame(rows),
        caption=f"{labeled(first)} against {labeled(second)}, by {what}.",
        formats={"gap": "{:+.4f}", "factor": "{:.2f}"},
        labels={"share": f"{labeled(first)} lower on", "gap": "median gap (nats/token)"}
        | {"factor": f"compute of {labeled(second)} at equal loss", "beaten": f"{labeled(second)} runs beaten"},
    )


def coarse_table(studies: Sequence[Mapping[str, Any]], runs: pd.DataFrame) -> pd.DataFrame:
    """How far studies of one budget with fewer sizes lie apart.

    Parameters
    ----------
    studies
        the best run of each study, a row of the run table with `optimum` (N at the minimum of the study's parabola).
    runs
        the runs of all studies.

    Returns
    -------
    DataFrame
        a row per `isoflop_budget`, as `show_coarse` takes it.
    """
    groups = pd.DataFrame(list(studies)).groupby("isoflop_budget")
    least = runs.groupby("isoflop_budget")["val_loss"].min()
    columns = {"best_min": groups["num_params"].min(), "best_max": groups["num_params"].max()}
    columns |= {"optimum_min": groups["optimum"].min(), "optimum_max": groups["optimum"].max()}
    return pd.DataFrame(columns | {"excess": groups["val_loss"].max() - least}).reset_index()


def show_coarse(coarse: pd.DataFrame) -> Html:
    """The best runs and the parabolas of studies with fewer sizes.

    Parameters
    ----------
    coarse
        by `isoflop_budget`: the least and largest N of the best runs of the studies (`best_min`, `best_max`) and of the
        optima of their parabolas (`optimum_min`, `optimum_max`), and `excess`, the worst of the best losses over the
        best of all runs (nats per token).
    """
    return show_table(
        with_ranges(coarse, dict.fromkeys(("best", "optimum"), count)),
        caption="The best N by the best run and by the parabola of four studies, each with every fourth size.",
        formats={"isoflop_budget": power_of_ten, "excess": "{:.4f}"},
        labels={"isoflop_budget": "budget (FLOP)", "excess": "worst excess of the best loss (nats/token)"}
        | {"best": "N of the best run", "optimum": "optimum of the parabola"},
    )
