"""Values in the sentences of chapter 2, by the name under which the notebook glues them, and its printed solutions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.chapters.ch02.overview import (
    learning_rate_overlap,
    profile_scatter,
    step_from_neighbor,
)
from companion.chapters.ch02.tables import labeled
from companion.fitting.isoflop import IsoflopFit
from companion.fitting.isoflop.profiles import IsoflopProfile
from companion.fitting.pareto import FrontComparison, ParetoFront, beaten
from companion.formatting import count, percent, power_of_ten, significant


def table_facts(runs: pd.DataFrame, paper: pd.DataFrame) -> dict[str, str]:
    """How many runs a table holds, what they cost, and how far the paper's runs reach beyond their budgets."""
    by_name = runs["architecture"].value_counts().sort_index()
    largest_budget = paper.loc[paper["experiment"] == "isoflop", "train_flops"].max()
    return {
        "c2_by_architecture": ", ".join(f"{number} {labeled(name)}" for name, number in by_name.items()),
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
        "c2_imposed_where": " and ".join(f"{value}" for value in sorted(imposed["context_length"].unique())),
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
        "c2_pair_difference": power_of_ten(difference),
        "c2_deviation": power_of_ten(deviation),
        "c2_between": " to ".join(map(power_of_ten, interval)),
        "c2_scatter": " to ".join(map(power_of_ten, (measured.min(), measured.max()))),
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
        "c2_swap_moves": power_of_ten(abs(after / before - 1)),
        "c2_swap_step": f"{stored:.4f}",
        "c2_swap_other": f"{swapped:.4f}",
    }


def flops_facts(flops: pd.DataFrame) -> dict[str, str]:
    """Whether a table's compute agrees with its shapes, and its ratio to 6ND; `flops` from `flops_table`."""
    worst = flops["largest_deviation"].max()
    recounted = "This table does not hold the shapes of all runs, so its FLOPs cannot be counted again."
    if not pd.isna(worst):
        recounted = f"The count from shapes agrees with the column to a relative {power_of_ten(worst, 1)}: "
        recounted += "it keeps six digits."
    low, high = flops["ratio_min"].min(), flops["ratio_max"].max()
    return {
        "c2_recount": recounted,
        "c2_six": f"{significant(low, 2)} to {significant(high, 2)}",
    }


def rates_verdict(runs: pd.DataFrame, first: str, second: str) -> str:
    """Whether the two architectures share their learning rates, in one sentence."""
    widths, same = learning_rate_overlap(runs, first, second)
    if not widths:
        return "This table does not say how learning rates were chosen."
    both = f"Both architectures were trained at {widths} combinations of width and context"
    return f"{both}, and at {same} of them with the same learning rates."


def gap_facts(
    found: FrontComparison, by_context: pd.DataFrame, first: str, second: str, context_length: int | None
) -> dict[str, str]:
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
    return {
        "c2_first": labeled(first),
        "c2_second": labeled(second),
        "c2_reading": found.reading,
        "c2_at_context": f"At a context of {context_length} tokens" if context_length else "Over all runs",
        "c2_beaten": f"{lost.sum()}",
        "c2_on_front": f"{front.rows.size}",
        "c2_beaten_back": f"{lost_back.sum()}",
        "c2_on_front_back": f"{back.rows.size}",
        "c2_unbeaten": _unbeaten(front.train_flops[~lost]),
        "c2_share_lower": percent(found.share_lower, 4),
        "c2_decades": significant(found.decades, 2),
        "c2_decades_all": significant(np.log10(spanned), 2),
        "c2_median_gap": significant(found.loss_gap.quantile(0.5), 2),
        "c2_gap_low": f"{found.loss_gap.left[0]:.3f}",
        "c2_gap_high": f"{found.loss_gap.right[-1]:.3f}",
        "c2_flops_low": power_of_ten(low),
        "c2_flops_high": power_of_ten(high),
        "c2_factor": significant(found.flops_factor(), 2),
        "c2_factor_least": significant(found.flops_factor(0), 2),
        "c2_factor_most": significant(found.flops_factor(1), 2),
        "c2_short": significant(spread.min(), 2),
        "c2_signs": f"{(by_context['smallest_gap'] < 0).sum()} of its {len(by_context)} rows",
    }


def _beaten(front: ParetoFront, other: ParetoFront) -> np.ndarray:
    return beaten(front.train_flops, front.loss, other)


def _unbeaten(train_flops: np.ndarray) -> str:
    """How many runs are unbeaten, and the range of their compute."""
    if not train_flops.size:
        return "none"
    ends = dict.fromkeys(map(power_of_ten, (train_flops.min(), train_flops.max())))
    return f"{train_flops.size} ({' to '.join(ends)} FLOP)"


def ledger_facts(ledger: pd.DataFrame) -> dict[str, str]:
    """How many published statistics are reproduced."""
    return {"c2_ledger": f"{ledger['verdict'].eq('reproduced').sum()} of {len(ledger)}"}


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
        "c2_num_pairs": f"{len(pairs)}",
        "c2_pairs_second": f"{wins.sum()}",
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


def circular_solution(tables: Mapping[str, pd.DataFrame], results: Mapping[str, FrontComparison]) -> str:
    """Solution of the exercise on circular rows; both arguments by what the runs are."""
    lines = []
    for name, runs in tables.items():
        share, gap = percent(results[name].share_lower, 4), f"{results[name].loss_gap.quantile(0.5):.4f}"
        lines.append(f"{name}: {len(runs)} runs, xLSTM lower on {share}, median gap {gap}")
    lines += ["A front needs only the best runs.", "What matters is whether measured runs lie close to them."]
    return "\n".join(lines)


def coarse_solution(coarse: pd.DataFrame) -> str:
    """Solution of the exercise on studies with fewer sizes; `coarse` as `show_coarse` takes it."""
    factor = significant((coarse["largest"] / coarse["least"]).max(), 2)
    return (
        f"Best sizes differ by up to a factor of {factor},\n"
        f"and the best loss is up to {coarse['excess'].max():.4f} nats/token too high.\n"
        "The bottom of the valley is flat: one best run says little about the\n"
        "best size. A parabola uses all sizes."
    )


def six_solution(results: Mapping[str, FrontComparison]) -> str:
    """Solution of the exercise on fronts over 6ND; `results` by reading."""
    lines = []
    for name, found in results.items():
        gap, factor = f"{found.loss_gap.quantile(0.5):.3f}", significant(found.flops_factor(), 2)
        share = percent(found.share_lower, 4)
        lines.append(f"{name}: xLSTM lower on {share}, median gap {gap} nats/token, factor {factor}")
        lost = _beaten(found.second, found.first)
    lines.append(f"Outright beaten on the Transformer's front: {lost.sum()} of {lost.size}.")
    lines += [
        "6ND leaves the sequence mixer out: attention comes for free,",
        "and equal compute turns into equal N times D.",
    ]
    return "\n".join(lines)
