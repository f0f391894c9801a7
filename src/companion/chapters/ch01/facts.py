"""Values in the sentences of chapter 1, by the name under which the notebook glues them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from companion.accounting import Convention, TrainingFlops, count_flops, num_params
from companion.architectures import Architecture, preset
from companion.benchmarks.accounting import slowest_total
from companion.benchmarks.records import latest_record
from companion.chapters.ch01.figures import six_nd_ranges
from companion.chapters.ch01.tables import timed_models
from companion.chapters.labels import the
from companion.formatting import (
    count,
    listed,
    number_word,
    percent,
    power_of_ten,
    share_in_words,
    significant,
    span_text,
)
from companion.paths import data_dir
from companion.plotting import ARCHITECTURE_LABELS


def opening_facts(
    runs: pd.DataFrame, models: Mapping[str, Architecture], size: str, context_length: int, convention: Convention
) -> dict[str, str]:
    """Inputs of the chapter, FLOPs per token of its models, their core's share and ratio to 6ND."""
    ranges = six_nd_ranges(runs).items()
    facts = {
        "c1_six_ranges": listed(f"{low} to {high} ({label})" for label, (low, high) in ranges),
        "c1_num_runs": f"{len(runs)}",
        "c1_size": size,
        "c1_convention": convention.name,
        "c1_context": f"{context_length}",
    }
    for name, model in models.items():
        cost = count_flops(model, context_length, convention)
        facts[f"c1_token_{name}"] = power_of_ten(float(cost.train_flops_per_token), 3)
        facts[f"c1_core_{name}"] = percent(float(cost.share("mixer_core")))
        facts[f"c1_six_{name}"] = _over_six_nd(model, cost)
        small = preset(name, "160m")
        facts[f"c1_six_small_{name}"] = _over_six_nd(small, count_flops(small, context_length, convention))
    return facts


def _over_six_nd(model: Architecture, cost: TrainingFlops) -> str:
    return significant(cost.train_flops_per_token / (6 * num_params(model)), 3)


def chunk_facts(terms: pd.DataFrame) -> dict[str, str]:
    """Number and share of the matrix products among the terms of `companion.chapters.ch01.formulas.chunk_table`."""
    large = terms[terms["matrix_product"]]
    return {
        "c1_num_large": number_word(len(large)),
        "c1_large_share": percent(large["share"].sum(), 3),
        "c1_small_share": percent(1 - large["share"].sum(), 2),
    }


def check_facts(check: pd.DataFrame) -> dict[str, str]:
    """How many runs have the N and the C of their shapes; `check` from `companion.runs.conventions.check_counts`."""
    found = check.sum(numeric_only=True).astype(object)
    total = int(found["num_runs"])
    return {
        "c1_same_params": share_in_words(int(found["num_params_equal"]), total),
        "c1_same_flops": share_in_words(int(found["train_flops_equal"]), total),
        "c1_largest_difference": power_of_ten(float(check["largest_difference"].max()), 2),
    }


def published_facts(totals: pd.DataFrame, sizes: pd.DataFrame) -> dict[str, str]:
    """Published totals and sizes of models beside ours, and how many come out again; both tables from the ledger."""
    [total] = totals[totals["quantity"] == "sum_train_flops"].to_dict("records")
    differ = int((sizes["verdict"] == "differs").sum())
    both = pd.concat([totals, sizes])
    again = both["verdict"] == "reproduced"
    return {
        "c1_total_ours": power_of_ten(total["ours"], 11),
        "c1_total_published": power_of_ten(total["published"], 11),
        "c1_sizes": number_word(len(sizes)),
        "c1_sizes_differ": number_word(differ, "none"),
        "c1_sizes_named": share_in_words(int(timed_models(sizes)["d_ff_of_N"].notna().sum()), differ),
        "c1_ledger_reproduced": share_in_words(int(again.sum()), len(both)),
        "c1_ledger_independent": share_in_words(
            int((again & both["independent"].astype(bool)).sum()), int(again.sum())
        ),
    }


def crossing_facts(crossings: Sequence[Mapping[str, Any]], size: str) -> dict[str, str]:
    """The crossings of one size, in tokens."""
    [crossing] = [row for row in crossings if row["size"] == size]
    return {f"c1_{name}": f"{crossing[name]:.0f}" for name in ("equal_cores", "equal_cost", "half")}


def core_facts(shares: pd.DataFrame) -> dict[str, str]:
    """How many runs spend more than half of their compute on the mixer core."""
    return {"c1_above_half": share_in_words(int((shares["core_share"] > 0.5).sum()), len(shares))}


def embedding_facts(shares: pd.DataFrame) -> dict[str, str]:
    """Shares of the embedding in the smallest and in the largest model of a table."""
    facts = {}
    for end, value in {"smallest": shares["num_params"].min(), "largest": shares["num_params"].max()}.items():
        at_end = shares[shares["num_params"] == value]
        facts[f"c1_{end}_params"] = count(value)
        facts[f"c1_{end}_weights"] = percent(at_end["params_share"].max())
        facts[f"c1_{end}_compute"] = span_text(at_end["flops_share"])
    return facts


def slope_facts(shifts: pd.DataFrame, tfla_slopes: pd.DataFrame) -> dict[str, str]:
    """How far counts with different causal factors are from the printed changes of the slope.

    Parameters
    ----------
    shifts
        from `companion.chapters.ch01.tables.slope_shifts`; a column `F = 0.75` becomes the fact `c1_miss_75`.
    tfla_slopes
        the rows of the ledger on the slopes under tfla.
    """
    facts = {
        "c1_slopes_reproduced": share_in_words(int((tfla_slopes["verdict"] == "reproduced").sum()), len(tfla_slopes)),
        "c1_slopes_shift": power_of_ten(float(shifts["printed"].abs().max()), 1),
        "c1_slopes_tolerance": power_of_ten(float(tfla_slopes["tolerance"].min()), 1),
    }
    for column in shifts.columns.drop(["ratio", "printed"]):
        miss = (shifts[column] - shifts["printed"]).abs().max()
        factor = float(column.removeprefix("F = "))
        facts[f"c1_miss_{100 * factor:.0f}"] = power_of_ten(float(miss), 1)
    return facts


def shift_facts(medians: pd.DataFrame) -> dict[str, str]:
    """How far a convention moves the architectures apart, and where; `medians` from `median_ratios`."""
    widest = medians.sort_values("apart").iloc[-1]
    where = f", T = {widest['context_length']:.0f}" if "context_length" in medians else ""
    return {"c1_apart": significant(widest["apart"], 3), "c1_apart_where": f"{widest['convention']}{where}"}


@dataclass(frozen=True)
class Spread:
    """Two conventions that disagree about a factor: its values, which conventions give them, and `where` in words."""

    where: str
    low: float
    high: float
    low_by: str
    high_by: str


def widest_spread(factors: pd.DataFrame) -> Spread:
    """The context length at which the conventions of `compute_factors` disagree most about the median factor.

    NaN and dashes if there is nothing to compare.
    """
    if factors.empty:
        return Spread("in these runs", float("nan"), float("nan"), "–", "–")
    groups: list[tuple[str, pd.DataFrame]] = [("in these runs", factors)]
    if "context_length" in factors:
        groups = [(f"at T = {length:.0f}", rows) for length, rows in factors.groupby("context_length")]
    spreads = []
    for where, rows in groups:
        ordered = rows.sort_values("flops_factor", kind="stable")
        values, names = ordered["flops_factor"].to_numpy(), ordered["convention"].to_list()
        spreads.append(Spread(where, float(values[0]), float(values[-1]), names[0], names[-1]))
    return max(spreads, key=lambda spread: spread.high / spread.low)


def factor_facts(factors: pd.DataFrame, first: str, second: str) -> dict[str, str]:
    """Where conventions disagree most about the compute at equal loss; from `compute_factors` of the two."""
    spread = widest_spread(factors)
    below = int((factors["smallest"] < 1).sum())
    return {
        "c1_first": the(first),
        "c1_second": the(second),
        "c1_factor_where": spread.where,
        "c1_factor_low": significant(spread.low, 3),
        "c1_factor_high": significant(spread.high, 3),
        "c1_factor_low_by": spread.low_by,
        "c1_factor_high_by": spread.high_by,
        "c1_factor_crossed": _crossed(below, len(factors), the(second)),
    }


def _crossed(below: int, total: int, second: str) -> str:
    """Whether the second architecture is ever the cheaper one, as a sentence without its full stop."""
    if not below:
        return f"In no row of the table is {second} ever the cheaper one"
    rows = f"{number_word(below)} of the {number_word(total)} rows"
    return f"In {rows} the range reaches below 1: at some losses {second} is then the cheaper one"


def speed_facts() -> dict[str, str]:
    """The latest record of how fast the package counts."""
    record = latest_record(data_dir() / "benchmarks" / "accounting.jsonl", "accounting")
    slowest, machine = slowest_total(record), record["machine"]
    versions = f"NumPy {record['versions']['numpy']}, {record['date'][:10]}"
    return {
        "c1_record_number": f"{record['parameters']['num_configurations']:,}",
        "c1_record_seconds": f"{slowest['seconds']:.2f}",
        "c1_record_case": f"{ARCHITECTURE_LABELS[slowest['architecture']]}, {slowest['convention']}",
        "c1_record_machine": f"{machine['cpu']} with {machine['cores']} cores, {versions}",
    }
