"""Values and short texts for the prose on contexts beyond the runs and on pitfalls, by the names that it glues."""

from collections.abc import Mapping

import pandas as pd

from companion.chapters.ch07.words import (
    context_label,
    context_lengths,
    named_contexts,
    range_text,
    value_text,
)
from companion.chapters.names import label
from companion.fitting.context.prediction import (
    Explanation,
)
from companion.fitting.context.scaling import ContextTrend
from companion.fitting.equal_loss import compute_factors
from companion.formatting import count, interval, power_of_ten, significant

Facts = dict[str, str]


def far_facts(far: Mapping[str, pd.DataFrame], train_flops: float) -> Facts:
    """N\\* at the contexts that the text names, and where it is a size that nobody trained.

    Parameters
    ----------
    far
        by architecture: tables of `optimum_by_context` at `train_flops` (FLOP).
    """
    shown = named_contexts(next(iter(far.values()))["context_length"].tolist())
    long, brief = [], []
    for name, table in far.items():
        rows = table.set_index("context_length").loc[shown].reset_index().to_dict("records")
        sizes = [count(row["num_params"]) for row in rows]
        bounds = [f"[{count(row['num_params_low'])}, {count(row['num_params_high'])}]" for row in rows]
        at = [f"{n} {b} at T = {context_label(t)}" for n, b, t in zip(sizes, bounds, shown, strict=True)]
        untrained = ", ".join(map(context_label, table.loc[table["beyond_sizes"], "context_length"]))
        also = f"; outside the sizes that were trained at T = {untrained}" if untrained else ""
        long.append(f"{label(name)}: N* = {' and '.join(at)}{also}")
        brief.append(f"{' and '.join(sizes)} ({label(name)})")
    return {
        "c7_far": ". ".join(long),
        "c7_answer_far": ", ".join(brief),
        "c7_named": " and ".join(map(context_label, shown)),
        "c7_flops": power_of_ten(train_flops),
    }


def factor_facts(
    factors: pd.DataFrame | None, runs: pd.DataFrame, explanations: Mapping[str, Explanation], train_flops: float
) -> Facts:
    """Compute of the Transformer for the loss of xLSTM: by the laws, and by the fronts of the runs themselves.

    Parameters
    ----------
    factors
        from `equal_loss_by_context`; None if the table lacks one of the two.
    runs
        the run table.
    """
    if factors is None:
        return {"c7_factor": "The comparison at equal loss needs both architectures", "c7_answer_factor": ""}
    by_context = factors.set_index("context_length")
    shown = named_contexts(factors["context_length"].tolist())
    texts = []
    for length in (*context_lengths(each.measured for each in explanations.values()), *shown):
        for row in factors[factors["context_length"] == length].to_dict("records"):
            value = value_text(row["factor"], row["factor_low"], row["factor_high"], lambda v: significant(v, 2))
            texts.append(f"{value} at T = {context_label(length)}")
    text = (
        f"For the loss that xLSTM reaches with {power_of_ten(train_flops)} FLOP the Transformer needs that compute "
        "times "
        f"{', '.join(texts)}"
    )
    fronts = compute_factors(runs, {"table": runs["train_flops"]}, "xlstm", "transformer")
    if "context_length" in fronts and len(fronts):
        seen = [f"{row['flops_factor']:.2f} at T = {row['context_length']:.0f}" for row in fronts.to_dict("records")]
        text += ". No law is needed within the data: the fronts of the runs give a factor of "
        text += f"{', '.join(seen)} (median over losses)"
    times = " and ".join(f"{factor:.0f}" for factor in by_context.loc[shown, "factor"])
    answer = f"; for equal loss the Transformer would need {times} times the compute of xLSTM"
    return {"c7_factor": text, "c7_answer_factor": answer}


def plan_facts(plans: pd.DataFrame) -> Facts:
    """True compute of plans by 6ND over their budget, and the loss that they give away; as for `show_plans`."""
    return {
        "c7_overspent": f"{plans['overspent'].min():.2g} to {plans['overspent'].max():.2g}",
        "c7_lost": f"{plans['lost'].max():.4f}",
    }


def power_law_facts(trends: Mapping[str, ContextTrend], laws: Mapping[str, pd.DataFrame]) -> Facts:
    """The power law of N\\*(T) against the loss law at the longest context.

    Parameters
    ----------
    trends
        power laws through the optima, by architecture.
    laws
        tables of `optimum_by_context` at the same budgets.
    """
    texts = []
    for name, trend in trends.items():
        last = laws[name].iloc[-1]
        apart = float(trend.power_law.law.predict(last["context_length"])) / last["num_params"]
        student = interval(trend.power_law.interval("exponent"))
        texts.append(
            f"{label(name)}: at T = {context_label(last['context_length'])} the power law gives {apart:.2g} times the "
            "N* "
            f"of the law; exponent {trend.exponent:+.3f} with Student's interval {student}"
        )
    return {"c7_power": ". ".join(texts)}


def rise_facts(rises: pd.DataFrame) -> Facts:
    """Rise of the loss at the optimum, and the part of prices; from `loss_rises`."""
    texts = []
    for name, rows in rises.groupby("architecture", sort=False):
        rise, price = (range_text(rows[column], "{:+.3f}".format) for column in ("rise", "price"))
        texts.append(f"{name}: the loss at the optimum rises by {rise}, of which the price accounts for {price}")
    return {"c7_losses": "; ".join(texts)}
