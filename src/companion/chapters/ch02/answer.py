"""The first screen of chapter 2: the fronts, their comparison, and the answer in numbers."""

from dataclasses import dataclass

import pandas as pd

from companion.chapters.applicability import Selection, choose_pair, optional
from companion.chapters.ch02.tables import labeled
from companion.fitting.pareto import FrontComparison, ParetoFront, Reading, compare_architectures, fit_front
from companion.fitting.pareto import matched_pairs as pairs_of
from companion.formatting import listed, number_word, percent, plural, power_of_ten, significant
from companion.plotting import Html, show_table
from companion.runs.select import subset


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """The fronts of a table at one context length, and what two of them say of each other.

    `fronts` by architecture. `found` compares `first` and `second` at equal compute, `pairs` at equal size
    (`companion.fitting.pareto.matched_pairs`); both are None where the table has no two fronts that share a range.
    """

    fronts: dict[str, ParetoFront]
    first: str = ""
    second: str = ""
    found: FrontComparison | None = None
    pairs: pd.DataFrame | None = None


def first_look(
    selection: Selection, first: str | None, second: str | None, reading: Reading, tolerance: float
) -> FirstLook:
    """The fronts of the selected runs and the comparison of two architectures, where the table has two.

    Parameters
    ----------
    first, second
        architectures to compare; None leaves the choice to `companion.chapters.applicability.choose_pair`.
    reading
        of the fronts between their runs.
    tolerance
        relative, for N and D that count as equal.
    """
    runs, fronts = selection.at_context, {}
    for name in selection.architectures:
        own = subset(runs, name)
        fronts[name] = fit_front(own["train_flops"], own["val_loss"])
    chosen = optional(choose_pair, selection.architectures, first, second)
    found = chosen and optional(compare_architectures, runs, *chosen, reading)
    if found is None:
        return FirstLook(fronts=fronts)
    one, other = chosen
    pairs = pairs_of(subset(runs, one), subset(runs, other), tolerance)
    return FirstLook(fronts=fronts, first=one, second=other, found=found, pairs=pairs)


def answer_facts(look: FirstLook, runs: pd.DataFrame) -> dict[str, str]:
    """Values of the answer's two sentences; of the second only where the table has pairs of equal size.

    Parameters
    ----------
    look
        from `first_look`.
    runs
        the whole table.
    """
    if look.found is None:
        held = plural(len(runs), "run")
        return {"c2_answer": f"The table holds {held}. It has no two architectures to compare at equal compute"}
    a, b = labeled(look.first), labeled(look.second)
    lower = f"The best {a} runs have a lower loss than the best {b} runs {where_lower(look.found.share_lower)}"
    factor = significant(look.found.flops_factor(), 2)
    facts = {"c2_first": a, "c2_second": b, "c2_factor": factor}
    facts["c2_answer"] = f"{lower}; for the same loss the {b} needs {factor} times the compute"
    if look.pairs is not None and len(look.pairs):
        facts["c2_num_pairs"] = f"{len(look.pairs)}"
        facts["c2_pairs_second"] = number_word(int((look.pairs["loss_gap"] < 0).sum()), "none")
    return facts


def where_lower(share: float) -> str:
    """Where the first of two fronts is lower, in words, from its share of the common range of log C."""
    if share in (0.0, 1.0):
        return f"at {'every' if share else 'no'} compute that both cover"
    return f"on {percent(share, 3)} of the range of compute that both cover"


def show_answer(look: FirstLook, runs: pd.DataFrame, context_length: int | None) -> Html:
    """The answer in numbers, a row per fact.

    Parameters
    ----------
    look
        from `first_look`.
    runs
        the whole table.
    context_length
        of the fronts, tokens; None for a table that names none.
    """
    by_name = runs["architecture"].value_counts().sort_index()
    rows = {
        "runs in the table": listed(f"{number} {labeled(name)}" for name, number in by_name.items()),
        "their compute": f"{power_of_ten(runs['train_flops'].sum(), 3)} FLOP",
    }
    if look.found is not None:
        rows |= _comparison(look, look.found)
    at_context = "" if context_length is None else f" The comparison is at T = {context_length} tokens."
    return show_table(
        pd.DataFrame({"fact": rows.keys(), "value": rows.values()}),
        name="run-table-answer",
        caption=f"The answer in numbers.{at_context}",
        labels={"fact": "what", "value": "in this table"},
    )


def _comparison(look: FirstLook, found: FrontComparison) -> dict[str, str]:
    """The rows that compare two architectures."""
    a, b = labeled(look.first), labeled(look.second)
    low, high = map(power_of_ten, found.flops_range)
    least, median, most = (significant(found.flops_factor(share), 2) for share in (0, 0.5, 1))
    gap = found.loss_gap
    return {
        "compute that both fronts cover": f"{low} to {high} FLOP ({significant(found.decades, 2)} factors of ten)",
        f"loss of the {b} minus that of the {a}": f"{significant(gap.quantile(0.5), 2)} nats/token in the median, "
        f"{gap.left[0]:.3f} at the lowest common compute, {gap.right[-1]:.3f} at the highest",
        f"compute of the {b} for the same loss": f"{median} times that of the {a} in the median, {least} to {most} "
        "times over all losses",
    }
