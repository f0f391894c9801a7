"""Values in the sentences of chapter 2, by the name under which the notebook glues them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch02.answer import where_lower
from companion.chapters.ch02.figures import EXPERIMENT_LABELS
from companion.chapters.ch02.overview import (
    front_designs,
    learning_rate_overlap,
    profile_scatter,
    step_from_neighbor,
)
from companion.chapters.ch02.tables import labeled
from companion.fitting.isoflop import IsoflopFit
from companion.fitting.isoflop.profiles import IsoflopProfile
from companion.fitting.pareto import FrontComparison, ParetoFront, beaten
from companion.formatting import (
    count,
    listed,
    number_word,
    percent,
    plural,
    power_of_ten,
    share_in_words,
    significant,
)
from companion.runs.select import subset


def table_facts(runs: pd.DataFrame, paper: pd.DataFrame) -> dict[str, str]:
    """How many runs a table holds, what they cost, and how far the paper's runs reach beyond their budgets."""
    by_name = runs["architecture"].value_counts().sort_index()
    largest_budget = paper.loc[paper["experiment"] == "isoflop", "train_flops"].max()
    return {
        "c2_by_architecture": listed(f"{number} {labeled(name)}" for name, number in by_name.items()),
        "c2_num_runs": f"{len(runs)}",
        "c2_sum_flops": power_of_ten(runs["train_flops"].sum(), 3),
        "c2_flops_reach": count(paper["train_flops"].max() / largest_budget),
    }


def loss_facts(paper: pd.DataFrame) -> dict[str, str]:
    """Circular rows of the paper's table, and rows that published fits count twice."""
    imposed = paper[paper["imposed_published_fit"] == 1]
    multiplicity = paper["multiplicity_in_published_fits"]
    return {
        "c2_num_imposed": f"{len(imposed)}",
        "c2_imposed_where": listed(sorted(imposed["context_length"].unique())),
        "c2_paper_runs": f"{len(paper)}",
        "c2_paper_count": f"{multiplicity.sum()}",
        "c2_num_twice": f"{(multiplicity > 1).sum()}",
    }


def pair_facts(
    pair: pd.DataFrame, deviation: float, interval: tuple[float, float], paper: pd.DataFrame
) -> dict[str, str]:
    """What a pair of repeats says of one run, and the scatter of measured losses around their parabolas.

    Parameters
    ----------
    pair
        the two runs.
    deviation, interval
        of their losses, from `companion.chapters.ch02.deviation_of_pair`; nats per token.
    paper
        all runs, for their scatter.
    """
    scatter = profile_scatter(paper)
    measured = scatter.loc[scatter["num_imposed"] == 0, "deviation"]
    difference = pair["val_loss"].max() - pair["val_loss"].min()
    return {
        "c2_pair_size": count(pair["num_params"].iloc[0]),
        "c2_pair_tokens": count(pair["num_tokens"].iloc[0]),
        "c2_pair_difference": significant(difference, 2),
        "c2_deviation": significant(deviation, 2),
        "c2_between": " to ".join(significant(end, 2) for end in interval),
        "c2_scatter": " to ".join(significant(end, 2) for end in (measured.min(), measured.max())),
        "c2_scatter_ratio": significant(measured.median() / deviation, 2),
    }


def swap_facts(
    versions: Mapping[str, pd.DataFrame], profiles: Mapping[str, IsoflopProfile], rows: Sequence[Any]
) -> dict[str, str]:
    """How far the optimum moves, and the largest step within a width, where two losses are exchanged.

    Parameters
    ----------
    versions, profiles
        runs and parabola as stored, and exchanged, in this order.
    rows
        index labels of the two runs.
    """
    before, after = (profile.fit.law.x_opt for profile in profiles.values() if profile.fit is not None)
    stored, swapped = (max(abs(step_from_neighbor(runs, row)) for row in rows) for runs in versions.values())
    return {
        "c2_swap_moves": percent(abs(after / before - 1)),
        "c2_swap_step": f"{stored:.4f}",
        "c2_swap_other": f"{swapped:.4f}",
    }


def flops_facts(flops: pd.DataFrame) -> dict[str, str]:
    """Whether a table's compute agrees with its shapes, and its ratio to 6ND; `flops` from `flops_table`."""
    worst = flops["largest_deviation"].max()
    recounted = "This table does not hold the shapes of all runs, so the compute cannot be counted again."
    if not pd.isna(worst):
        recounted = f"The count from the shapes agrees with the column to within a relative {power_of_ten(worst, 1)}, "
        recounted += "which is the rounding of the column's six digits." if worst < 1e-5 else "which is not rounding."
    low, high = flops["ratio_min"].min(), flops["ratio_max"].max()
    return {"c2_recount": recounted, "c2_six": f"{significant(low, 2)} to {significant(high, 2)}"}


def rates_verdict(runs: pd.DataFrame, first: str, second: str) -> str:
    """Whether the two architectures share their learning rates, in one sentence."""
    widths, same = learning_rate_overlap(runs, first, second)
    if not widths:
        return "This table does not say how learning rates were chosen."
    both = f"Both architectures were trained at {plural(widths, 'combination')} of width and context"
    return (
        f"{both}, but at only {same} of them with the same learning rates."
        if same < widths
        else f"{both}, always with the same learning rates."
    )


def front_facts(runs: pd.DataFrame, fronts: Mapping[str, ParetoFront]) -> dict[str, str]:
    """How many runs every front holds, by design where the table names designs; `fronts` of `runs` by architecture."""
    parts = []
    for name, front in fronts.items():
        designs = front_designs(subset(runs, name), front.rows)
        named = [
            f"{number} {EXPERIMENT_LABELS.get(design, design)}"
            for design, number in zip(designs["experiment"], designs["num_runs"], strict=True)
            if design
        ]
        of_designs = f" ({listed(named)})" if named else ""
        parts.append(f"{plural(front.rows.size, f'{labeled(name)} run')}{of_designs}")
    return {"c2_front_runs": listed(parts)}


def gap_facts(found: FrontComparison, by_context: pd.DataFrame, context_length: int | None) -> dict[str, str]:
    """How far two fronts lie apart.

    Parameters
    ----------
    found
        the comparison of the two in one reading.
    by_context
        from `companion.chapters.ch02.overview.front_table`.
    context_length
        of the runs behind `found`; None for a table that names none.
    """
    back, front = found.first, found.second
    lost, lost_back = (_beaten(one, other) for one, other in ((front, back), (back, front)))
    spanned = max(front.train_flops[-1], back.train_flops[-1]) / min(front.train_flops[0], back.train_flops[0])
    low, high = found.flops_range
    spread = np.log10(by_context["to_flops"] / by_context["from_flops"])
    negative = int((by_context["smallest_gap"] < 0).sum())
    return {
        "c2_reading": found.reading,
        "c2_at_context": f"At a context of {context_length} tokens" if context_length else "Over all runs",
        "c2_beaten": share_in_words(int(lost.sum()), front.rows.size),
        "c2_beaten_back": share_in_words(int(lost_back.sum()), back.rows.size),
        "c2_unbeaten": _unbeaten(front.train_flops[~lost]),
        "c2_where_lower": where_lower(found.share_lower),
        "c2_decades": significant(found.decades, 2),
        "c2_decades_all": significant(np.log10(spanned), 2),
        "c2_median_gap": significant(found.loss_gap.quantile(0.5), 2),
        "c2_gap_low": f"{found.loss_gap.left[0]:.3f}",
        "c2_gap_high": f"{found.loss_gap.right[-1]:.3f}",
        "c2_flops_low": power_of_ten(low),
        "c2_flops_high": power_of_ten(high),
        "c2_factor_least": significant(found.flops_factor(0), 2),
        "c2_factor_most": significant(found.flops_factor(1), 2),
        "c2_short": significant(spread.min(), 2),
        "c2_share_least": percent(by_context["share_lower"].min(), 3),
        "c2_median_low": f"{by_context['median_gap'].min():.3f}",
        "c2_median_high": f"{by_context['median_gap'].max():.3f}",
        "c2_signs": f"{share_in_words(negative, len(by_context))} rows",
    }


def _beaten(front: ParetoFront, other: ParetoFront) -> np.ndarray:
    return beaten(front.train_flops, front.loss, other)


def _unbeaten(train_flops: np.ndarray) -> str:
    """How many runs are unbeaten, and the range of their compute, as the start of a sentence."""
    if not train_flops.size:
        return "None"
    ends = dict.fromkeys(map(power_of_ten, (train_flops.min(), train_flops.max())))
    return f"{number_word(train_flops.size).capitalize()}, with {' to '.join(ends)} FLOP"


def ledger_facts(ledger: pd.DataFrame) -> dict[str, str]:
    """How many published statistics are reproduced, and how many of these depend on reconstructed losses."""
    reproduced = ledger["verdict"].eq("reproduced")
    dependent = int((reproduced & ~ledger["independent"].astype(bool)).sum())
    return {
        "c2_ledger": f"{reproduced.sum()} of {len(ledger)}",
        "c2_ledger_dependent": f"{number_word(dependent, 'none')} of them depend{'' if dependent > 1 else 's'}",
    }


def foreign_facts(foreign: pd.DataFrame, fits: Mapping[str, IsoflopFit]) -> dict[str, str]:
    """Exponents of the foreign table: with its labels, and with budgets read off its compute, in this order."""
    before, after = (fit.power_law.law.exponent for fit in fits.values())
    return {
        "c2_foreign_runs": f"{len(foreign)}",
        "c2_foreign_before": f"{before:.3f}",
        "c2_foreign_after": f"{after:.3f}",
    }


def size_facts(pairs: pd.DataFrame, runs: pd.DataFrame, found: FrontComparison, tolerance: float) -> dict[str, str]:
    """Who wins at equal size, at which price, and how far from the front.

    Parameters
    ----------
    pairs
        from `companion.fitting.pareto.matched_pairs`; at least one.
    runs
        the table that the pairs are of.
    found
        the fronts of the same runs.
    tolerance
        of the pairs, relative.
    """
    wins, ratio = pairs["loss_gap"] < 0, pairs["flops_ratio"]
    losses = runs.loc[pairs["second_row"], "val_loss"].to_numpy()
    excess = pd.Series(losses - found.second.loss_at(pairs["train_flops"]))
    smallest, largest = pairs.sort_values("num_params")["flops_ratio"].iloc[[0, -1]]
    facts = {
        "c2_tolerance": percent(tolerance, 1),
        "c2_ratio_least": significant(ratio.min()),
        "c2_ratio_most": significant(ratio.max()),
        "c2_ratio_small": significant(smallest),
        "c2_ratio_large": significant(largest),
        "c2_pairs_median": significant(pairs["loss_gap"].median(), 2),
    }
    for winner, rows in (("first", ~wins), ("second", wins)):
        facts[f"c2_ratio_{winner}"] = significant(pairs.loc[rows, "tokens_per_param"].median(), 2)
        facts[f"c2_excess_{winner}"] = significant(excess[rows].median(), 2)
    return facts


# ---- solutions of exercises ----------------------------------------------------------------------


def circular_facts(tables: Mapping[str, pd.DataFrame], results: Mapping[str, FrontComparison]) -> dict[str, str]:
    """How many runs are left without the circular ones, and the median gap with and without them, in this order."""
    every, measured = tables.values()
    before, after = (found.loss_gap.quantile(0.5) for found in results.values())
    return {
        "c2_circular_left": f"{len(measured)} of the {len(every)}",
        "c2_circular_before": f"{before:.3f}",
        "c2_circular_after": f"{after:.3f}",
    }


def coarse_facts(coarse: pd.DataFrame) -> dict[str, str]:
    """How far the answers of studies with fewer sizes lie apart; `coarse` as `show_coarse` takes it."""
    best, optimum = ((coarse[f"{name}_max"] / coarse[f"{name}_min"]).max() for name in ("best", "optimum"))
    return {
        "c2_coarse_best": significant(best, 2),
        "c2_coarse_optimum": significant(optimum, 2),
        "c2_coarse_excess": f"{coarse['excess'].max():.4f}",
    }
