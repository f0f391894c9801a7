"""Tables of chapter 2 on the paper's runs and their fronts, with their captions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch02.figures import EXPERIMENT_LABELS
from companion.chapters.ch02.overview import (
    count_table,
    front_designs,
    settings_table,
    step_from_neighbor,
    with_ranges,
)
from companion.fitting.isoflop.profiles import IsoflopProfile
from companion.fitting.pareto import ParetoFront
from companion.formatting import count, percent, power_of_ten
from companion.plotting import ARCHITECTURE_LABELS, Html, show_table
from companion.runs import COLUMNS
from companion.runs.select import subset


def labeled(name: Any) -> str:
    """What the book calls an architecture; other people's keep their names."""
    return ARCHITECTURE_LABELS.get(str(name), str(name))


def _design(name: Any) -> str:
    return "–" if pd.isna(name) else EXPERIMENT_LABELS.get(str(name), str(name))


# ---- what a table holds --------------------------------------------------------------------------


def show_columns(runs: pd.DataFrame) -> Html:
    """The known columns of a run table: value and unit of the first run, and meaning; required ones are marked."""
    known = [COLUMNS[name] for name in runs.columns if name in COLUMNS]
    dictionary = pd.DataFrame(
        {
            "column": [f"{spec.name} *" if spec.required else spec.name for spec in known],
            "first run": [f"{runs[spec.name].iloc[0]} {spec.unit}".strip() for spec in known],
            "meaning": [spec.meaning for spec in known],
        }
    )
    return show_table(
        dictionary,
        name="run-table-columns",
        caption=f"The {len(known)} known columns of this table, and its first run. A star marks required columns.",
    )


def show_counts(runs: pd.DataFrame) -> Html:
    """`count_table` with design and budget in one column, and its caption."""
    counts = with_ranges(count_table(runs), dict.fromkeys(("num_params", "num_tokens", "tokens_per_param"), count))
    keys = zip(counts.pop("experiment"), counts.pop("isoflop_budget"), strict=True)
    designs = [
        _design(name) if pd.isna(budget) else f"{_design(name)}, {power_of_ten(budget)}" for name, budget in keys
    ]
    counts.insert(0, "design", designs)
    names = sorted(map(str, runs["architecture"].unique()))
    return show_table(
        counts,
        name="run-table-counts",
        caption="Number of runs by design, and their ranges of parameters, tokens and tokens per parameter.",
        formats={"context_length": "{:.0f}"},
        labels={"design": "design, budget (FLOP)", "context_length": "T (tokens)", "num_params": "N", "num_tokens": "D"}
        | {"tokens_per_param": "M = D/N"}
        | {name: labeled(name) for name in names},
    )


def show_settings(runs: pd.DataFrame) -> Html:
    """`settings_table` with its caption."""
    styles = {"learning_rate": "{:.4f}".format, "batch_tokens": count, "train_steps": count}
    settings = with_ranges(settings_table(runs), styles)
    return show_table(
        settings.assign(
            architecture=settings["architecture"].map(labeled), experiment=settings["experiment"].map(_design)
        ),
        name="run-table-settings",
        caption="Peak learning rates, tokens per batch and optimizer steps.",
        formats={"context_length": "{:.0f}"},
        labels={"experiment": "design", "context_length": "T (tokens)", "num_runs": "runs"}
        | {"learning_rate": "learning rate", "batch_tokens": "batch (tokens)", "train_steps": "steps"},
    )


# ---- losses of the paper's runs ------------------------------------------------------------------


def show_sources(paper: pd.DataFrame) -> Html:
    """Where the losses of the paper's runs come from."""
    keys = ["source", "loss_uncertainty", "imposed_published_fit"]
    return show_table(
        paper.groupby(keys).size().reset_index(name="num_runs"),
        name="run-table-sources",
        caption="Where the losses come from, and how precisely they are recorded.",
        formats={
            "loss_uncertainty": lambda value: power_of_ten(value, 1),
            "imposed_published_fit": lambda value: "yes" if value else "no",
        },
        labels={
            "loss_uncertainty": "recording error (nats/token)",
            "num_runs": "runs",
            "imposed_published_fit": "moved to the published parabola",
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
        name="run-table-twice",
        caption="Runs that several published fits count twice (column multiplicity_in_published_fits).",
        formats={"isoflop_budget": power_of_ten},
        labels={"context_length": "T (tokens)", "isoflop_budget": "budget (FLOP)"},
    )


def show_pair(pair: pd.DataFrame) -> Html:
    """The runs of one configuration that was trained twice."""
    rows = pair[["experiment", "num_params", "num_tokens", "learning_rate", "val_loss"]]
    return show_table(
        rows.assign(experiment=rows["experiment"].map(_design)),
        name="run-table-pair",
        caption="The two runs with the same architecture, T, N and D.",
        formats={"num_params": "{:,}", "num_tokens": "{:,}", "val_loss": "{:.5f}"},
        labels={"experiment": "design", "num_params": "N", "num_tokens": "D", "learning_rate": "learning rate"}
        | {"val_loss": "loss (nats/token)"},
    )


def show_swap(
    versions: Mapping[str, pd.DataFrame], profiles: Mapping[str, IsoflopProfile], rows: Sequence[Any]
) -> Html:
    """How far two runs lie above their neighbors of the same width, and the optimum, for each order of the losses.

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
        name="run-table-swap",
        caption="How far each run lies above its neighbor of the same width, and the optimum of the parabola.",
        formats={"one": "{:+.4f}", "other": "{:+.4f}", "x_opt": lambda value: count(value, 5)},
        labels={"one": f"step at width {widths[0]} (nats/token)", "other": f"step at width {widths[1]} (nats/token)"}
        | {"x_opt": "optimal N"},
    )


def _optimum(profile: IsoflopProfile) -> float:
    return float("nan") if profile.fit is None else float(profile.fit.law.x_opt)


# ---- consistency and fronts ----------------------------------------------------------------------


def show_flops(flops: pd.DataFrame) -> Html:
    """Rows of `companion.chapters.ch02.overview.flops_table`."""
    ends = zip(flops["ratio_median"], flops["ratio_min"], flops["ratio_max"], strict=True)
    ratios = [f"{median:.2f} ({low:.2f}–{high:.2f})" for median, low, high in ends]
    shown = flops.assign(architecture=flops["architecture"].map(labeled), ratio=ratios)
    return show_table(
        shown.drop(columns=["ratio_min", "ratio_median", "ratio_max"]),
        name="run-table-flops",
        caption="Training compute C: its largest relative deviation from a count by shapes, and its ratio to 6 N D.",
        formats={"context_length": "{:.0f}", "largest_deviation": lambda value: power_of_ten(value, 1)},
        labels={"context_length": "T (tokens)", "num_runs": "runs", "largest_deviation": "deviation from the shapes"}
        | {"ratio": "C / 6ND: median (range)"},
    )


def show_front_designs(runs: pd.DataFrame, fronts: Mapping[str, ParetoFront]) -> Html:
    """Which experiments the runs of every front belong to; `fronts` of `runs` by architecture."""
    parts = [
        front_designs(subset(runs, name), front.rows).assign(architecture=labeled(name))
        for name, front in fronts.items()
    ]
    designs = pd.concat(parts, ignore_index=True)
    designs.insert(0, "architecture", designs.pop("architecture"))
    designs["experiment"] = [_design(name or None) for name in designs["experiment"]]
    return show_table(
        with_ranges(designs, {"train_flops": lambda value: power_of_ten(value, 3)}),
        name="run-table-front-designs",
        caption="The runs on each front by design.",
        labels={"experiment": "design", "num_runs": "runs on the front", "train_flops": "their C (FLOP)"},
    )


def show_common(by_context: pd.DataFrame, second: str) -> Html:
    """What the comparisons of `companion.chapters.ch02.overview.front_table` rest on, a row per context length."""
    rows = by_context.drop_duplicates("context_length").rename(columns={"from_flops": "C_min", "to_flops": "C_max"})
    lost, on_front = (rows[f"second_{name}_on_front"].astype(str) for name in ("beaten", "runs"))
    shown = rows[["context_length", "C_min", "C_max"]].assign(
        decades=np.log10(rows["C_max"] / rows["C_min"]), beaten=lost + " of " + on_front
    )
    return show_table(
        with_ranges(shown, {"C": power_of_ten})[["context_length", "C", "decades", "beaten"]],
        name="run-table-common",
        caption=f"Compute that both fronts cover, and beaten runs on the front of the {labeled(second)}.",
        formats={"decades": "{:.1f}"},
        labels={"context_length": "T (tokens)", "C": "common C (FLOP)", "beaten": f"{labeled(second)} runs beaten"}
        | {"decades": "factors of ten"},
    )


def show_contexts(by_context: pd.DataFrame, first: str, second: str) -> Html:
    """The comparison of `companion.chapters.ch02.overview.front_table` by context length and reading."""
    columns = ["context_length", "reading", "share_lower", "median_gap", "smallest_gap", "flops_factor"]
    one, other = labeled(first), labeled(second)
    return show_table(
        by_context[columns],
        name="run-table-contexts",
        caption=f"Fronts by context T and reading, {one} against {other}: the share of the common range of log C on "
        f"which the {one} has the lower loss; the loss of the {other} minus that of the {one}; and, in the median over "
        f"losses, the compute of the {other} over that of the {one}.",
        formats={
            "share_lower": share_of_range,
            "median_gap": "{:+.3f}",
            "smallest_gap": "{:+.3f}",
            "flops_factor": "{:.2f}",
        },
        labels={"context_length": "T (tokens)", "share_lower": f"{one} lower on"}
        | {"median_gap": "median gap (nats/token)", "smallest_gap": "least gap (nats/token)"}
        | {"flops_factor": f"compute of {other} at equal loss"},
    )


def share_of_range(share: float) -> str:
    """A share of the compute that two fronts cover, as text: `all`, `none`, or per cent."""
    if share in (0.0, 1.0):
        return "all" if share else "none"
    return percent(share, 3)


_STATISTICS = {
    "train_flops_quantiles": "smallest, quartiles and largest C",
    "num_tokens_quantiles": "smallest, quartiles and largest D",
    "num_params_quantiles": "smallest, quartiles and largest N",
    "sum_train_flops": "total compute",
    "paper_count": "runs as the paper counts them",
}


def show_ledger(ledger: pd.DataFrame) -> Html:
    """Published statistics of the run table beside ours, a row per kind; `ledger` of `run_table_statistics`."""
    kinds = ledger["quantity"].str.split(".").str[0].map(_STATISTICS).fillna("numbers of runs")
    rows = []
    for kind, group in ledger.groupby(kinds, sort=False):
        reproduced = f"{group['verdict'].eq('reproduced').sum()} of {len(group)}"
        apart = (group["ours"] / group["published"] - 1).abs().max()
        rows.append({"statistic": kind, "reproduced": reproduced, "apart": apart})
    return show_table(
        pd.DataFrame(rows),
        name="run-table-ledger",
        caption="Published statistics against ours, for the run table.",
        # below that it is the order of a sum
        formats={"apart": lambda value: power_of_ten(value if value > 1e-12 else 0.0, 1)},
        labels={"apart": "largest relative difference"},
    )
