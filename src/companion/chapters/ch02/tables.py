"""Tables of chapter 2 with their captions, rows of `overview` and of the library."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from companion.chapters.ch02.overview import (
    count_table,
    front_designs,
    settings_table,
    step_from_neighbor,
    with_ranges,
)
from companion.errors import NotApplicable
from companion.fitting.isoflop import IsoflopFit
from companion.fitting.isoflop.profiles import IsoflopProfile
from companion.fitting.pareto import ParetoFront
from companion.formatting import count, percent, power_of_ten
from companion.plotting import ARCHITECTURE_LABELS, Html, show_table
from companion.runs import COLUMNS
from companion.runs.select import subset


def labeled(name: Any) -> str:
    """What the book calls an architecture; other people's keep their names."""
    return ARCHITECTURE_LABELS.get(str(name), str(name))


# ---- what a table holds --------------------------------------------------------------------------


def show_columns(runs: pd.DataFrame) -> Html:
    """The known columns of a run table: unit, meaning, and the value of the first run."""
    known = [COLUMNS[name] for name in runs.columns if name in COLUMNS]
    dictionary = pd.DataFrame(
        {
            "column": [spec.name for spec in known],
            "first run": [f"{runs[spec.name].iloc[0]}" for spec in known],
            "unit": [spec.unit for spec in known],
            "required": ["yes" if spec.required else "" for spec in known],
            "meaning": [spec.meaning for spec in known],
        }
    )
    return show_table(dictionary, caption=f"The {len(known)} known columns of this table, and its first run.")


def show_counts(runs: pd.DataFrame) -> Html:
    """`count_table` with its caption."""
    ranges = dict.fromkeys(("num_params", "num_tokens", "tokens_per_param"), count)
    names = sorted(map(str, runs["architecture"].unique()))
    return show_table(
        with_ranges(count_table(runs), ranges),
        caption="Runs by design, and their ranges of parameters, tokens and tokens per parameter.",
        formats={"context_length": "{:.0f}", "isoflop_budget": power_of_ten},
        labels={"context_length": "T (tokens)", "isoflop_budget": "budget (FLOP)", "num_params": "N", "num_tokens": "D"}
        | {"tokens_per_param": "M = D/N"}
        | {name: labeled(name) for name in names},
    )


def show_settings(runs: pd.DataFrame) -> Html:
    """`settings_table` with its caption."""
    styles = {"learning_rate": "{:.4f}".format, "batch_tokens": count, "train_steps": count}
    settings = with_ranges(settings_table(runs), styles)
    return show_table(
        settings.assign(architecture=settings["architecture"].map(labeled)),
        caption="Peak learning rates, tokens per batch and optimizer steps.",
        formats={"context_length": "{:.0f}"},
        labels={"context_length": "T (tokens)", "num_runs": "runs", "learning_rate": "learning rate"}
        | {"batch_tokens": "batch (tokens)", "train_steps": "steps"},
    )


# ---- losses of the paper's runs ------------------------------------------------------------------


def show_sources(paper: pd.DataFrame) -> Html:
    """Where the losses of the paper's runs come from."""
    keys = ["source", "loss_uncertainty", "imposed_published_fit"]
    return show_table(
        paper.groupby(keys).size().reset_index(name="num_runs"),
        caption="Where the losses come from and how well they are recorded.",
        formats={
            "loss_uncertainty": lambda value: power_of_ten(value, 1),
            "imposed_published_fit": lambda value: "yes" if value else "no",
        },
        labels={
            "loss_uncertainty": "recording error (nats/token)",
            "num_runs": "runs",
            "imposed_published_fit": "published fit imposed",
        },
    )


def show_counted_twice(paper: pd.DataFrame) -> Html:
    """Budgets whose runs several published fits count twice."""
    keys = ["architecture", "context_length", "isoflop_budget"]
    again = paper[paper["multiplicity_in_published_fits"] > 1]
    twice = again.groupby(keys).size().reset_index(name="counted twice")
    twice = twice.merge(paper.groupby(keys).size().rename("runs").reset_index())
    return show_table(
        twice.assign(architecture=twice["architecture"].map(labeled)),
        caption="Runs that several published fits count twice (column multiplicity_in_published_fits).",
        formats={"isoflop_budget": power_of_ten},
        labels={"context_length": "T (tokens)", "isoflop_budget": "budget (FLOP)"},
    )


def show_pair(pair: pd.DataFrame) -> Html:
    """The runs of one configuration that was trained twice."""
    return show_table(
        pair[["experiment", "num_params", "num_tokens", "learning_rate", "val_loss"]],
        caption="The two runs that agree in architecture, T, N and D.",
        formats={"val_loss": "{:.5f}"},
    )


def show_swap(
    versions: Mapping[str, pd.DataFrame], profiles: Mapping[str, IsoflopProfile], rows: Sequence[Any]
) -> Html:
    """Steps of two runs from their neighbors of the same width, and the optimum, for each assignment of the losses.

    Parameters
    ----------
    versions
        runs of one budget, by what the losses are.
    profiles
        the parabola of each version.
    rows
        index labels of the two runs.
    """
    swap = pd.DataFrame(
        [
            {
                "losses": name,
                "one": step_from_neighbor(runs, rows[0]),
                "other": step_from_neighbor(runs, rows[1]),
                "x_opt": _optimum(profiles[name]),
            }
            for name, runs in versions.items()
        ]
    )
    widths = next(iter(versions.values())).loc[list(rows), "d_model"].tolist()
    return show_table(
        swap,
        caption="Loss of each run minus that of its neighbor of the same width (nats/token), and the optimum of the "
        "parabola.",
        formats={"one": "{:+.4f}", "other": "{:+.4f}", "x_opt": lambda value: count(value, 5)},
        labels={"one": f"step, width {widths[0]}", "other": f"step, width {widths[1]}", "x_opt": "optimal N"},
    )


def _optimum(profile: IsoflopProfile) -> float:
    return float("nan") if profile.fit is None else float(profile.fit.law.x_opt)


# ---- consistency and fronts ----------------------------------------------------------------------


def show_flops(flops: pd.DataFrame) -> Html:
    """Rows of `companion.chapters.ch02.overview.flops_table`."""
    return show_table(
        flops.assign(architecture=flops["architecture"].map(labeled)),
        caption="train_flops: largest deviation from a count by shapes, and ratio to 6 N D.",
        formats={
            "context_length": "{:.0f}",
            "largest_deviation": lambda value: power_of_ten(value, 1),
            "ratio_min": "{:.2f}",
            "ratio_median": "{:.2f}",
            "ratio_max": "{:.2f}",
        },
        labels={"context_length": "T (tokens)", "num_runs": "runs", "largest_deviation": "deviation"}
        | {"ratio_min": "C/6ND: least", "ratio_median": "median", "ratio_max": "largest"},
    )


def show_front_designs(runs: pd.DataFrame, fronts: Mapping[str, ParetoFront]) -> Html:
    """Which experiments the runs of every front belong to; `fronts` of `runs` by architecture."""
    parts = [
        front_designs(subset(runs, name), front.rows).assign(architecture=labeled(name))
        for name, front in fronts.items()
    ]
    designs = pd.concat(parts, ignore_index=True)
    designs.insert(0, "architecture", designs.pop("architecture"))
    return show_table(
        designs,
        caption="Runs of the fronts by design.",
        formats=dict.fromkeys(("train_flops_min", "train_flops_max"), lambda value: power_of_ten(value, 3)),
        labels={"num_runs": "runs on the front", "train_flops_min": "from C (FLOP)", "train_flops_max": "to C (FLOP)"},
    )


def show_contexts(by_context: pd.DataFrame, first: str, second: str) -> Html:
    """Rows of `companion.chapters.ch02.overview.front_table`."""
    shown = by_context.rename(columns={"from_flops": "C_min", "to_flops": "C_max"})
    lost, runs = (shown.pop(f"second_{name}_on_front").astype(str) for name in ("beaten", "runs"))
    shown.insert(2, "beaten", lost + " of " + runs)
    return show_table(
        with_ranges(shown, {"C": power_of_ten}),
        caption=f"{labeled(first)} against {labeled(second)} by context length T and reading.",
        formats={
            "share_lower": lambda value: percent(value, 4),
            "median_gap": "{:+.3f}",
            "smallest_gap": "{:+.3f}",
            "flops_factor": "{:.2f}",
        },
        labels={"context_length": "T (tokens)", "share_lower": "lower on", "median_gap": "median gap"}
        | {"smallest_gap": "least gap", "flops_factor": "factor", "C": "common C (FLOP)"},
    )


def show_ledger(ledger: pd.DataFrame) -> Html:
    """Published statistics of the run table beside ours; `ledger` of the section `run_table_statistics`."""
    return show_table(
        ledger[["quantity", "verdict", "published", "ours"]],
        caption="Published statistics of the run table, and ours.",
        formats={"published": "{:.10g}", "ours": "{:.10g}"},
    )


# ---- tables of one's own -------------------------------------------------------------------------


def show_first_runs(runs: pd.DataFrame, number: int = 3) -> Html:
    """The first runs of a table."""
    return show_table(runs.head(number), caption=f"The first of {len(runs)} runs.")


def show_budgets(runs: pd.DataFrame, file_name: str) -> Html:
    """Runs by architecture and budget."""
    groups = runs.groupby(["architecture", "isoflop_budget"])
    return show_table(
        groups.size().reset_index(name="runs"),
        caption=f"Budgets found in {file_name}.",
        formats={"isoflop_budget": power_of_ten},
    )


def show_exponents(fits: Mapping[str, IsoflopFit]) -> Html:
    """Exponents of N*(C) with their bootstrap intervals, by what was chosen."""
    rows = []
    for name, fit in fits.items():
        low, high = fit.interval("exponent")
        exponent = fit.power_law.law.exponent
        rows.append({"choice": name, "optima": len(fit.optima), "exponent": exponent, "low": low, "high": high})
    return show_table(
        pd.DataFrame(rows),
        caption="Exponent of N*(C) of the foreign table, with 95 % bootstrap intervals.",
        formats=dict.fromkeys(("exponent", "low", "high"), "{:.3f}"),
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
        raise NotApplicable(f"no two runs of {first} and {second} agree in N and D within {tolerance:.0%}")


def show_pairs(pairs: pd.DataFrame, first: str, second: str) -> Html:
    """Every sixth row of `companion.fitting.pareto.matched_pairs`."""
    columns = ["num_params", "tokens_per_param", "loss_gap", "flops_ratio"]
    return show_table(
        pairs[columns].iloc[::6],
        caption=f"Every sixth pair: {labeled(second)} against {labeled(first)}.",
        formats=dict(zip(columns, [count, count, "{:+.4f}", "{:.2f}"], strict=True)),
    )


def show_coarse(coarse: pd.DataFrame) -> Html:
    """The best runs of studies with fewer sizes.

    Parameters
    ----------
    coarse
        by `isoflop_budget`: the `least` and the `largest` N of the best runs of the studies, and `excess`, the worst of
        their losses over the best of all runs (nats per token).
    """
    return show_table(
        coarse,
        caption="Best run of four studies that train every fourth size.",
        formats={"isoflop_budget": power_of_ten, "least": count, "largest": count, "excess": "{:.4f}"},
        labels={"isoflop_budget": "budget (FLOP)", "least": "least best N", "largest": "largest best N"}
        | {"excess": "worst excess of loss (nats/token)"},
    )
