"""Values and short texts for the prose on contexts beyond the runs and on pitfalls, by the names that it glues."""

from collections.abc import Mapping

import pandas as pd

from companion.chapters.ch07.words import context_label, named_contexts
from companion.chapters.labels import label_of, the
from companion.fitting.context.scaling import ContextTrend
from companion.formatting import count, interval, listed, power_of_ten, span_text

Facts = dict[str, str]


def far_facts(far: Mapping[str, pd.DataFrame], train_flops: float) -> Facts:
    """N\\* at the contexts that the text names.

    Parameters
    ----------
    far
        by architecture: tables of `optimum_by_context` at `train_flops` (FLOP).
    """
    shown = named_contexts(next(iter(far.values()))["context_length"].tolist())
    texts = []
    for name, table in far.items():
        sizes = [count(size) for size in table.set_index("context_length").loc[shown, "num_params"]]
        at = [f"{size} parameters at T = {context_label(length)}" for size, length in zip(sizes, shown, strict=True)]
        same = len(sizes) > 1 and len(set(sizes)) == 1
        texts.append(f"the best {label_of(name)} has {f'{sizes[0]} parameters at every T' if same else listed(at)}")
    return {"c7_far": "; ".join(texts), "c7_flops": power_of_ten(train_flops)}


def factor_facts(factors: pd.DataFrame) -> Facts:
    """Compute of the Transformer for the loss of xLSTM, by the laws; from `equal_loss_by_context`."""
    shown = named_contexts(factors["context_length"].tolist())
    values = factors.set_index("context_length")["factor"]
    times = [f"{values[length]:.0f} times at T = {context_label(length)}" for length in shown]
    times[0] = times[0].replace("times", "times the compute of xLSTM")
    return {"c7_factor": listed(times)}


def plan_facts(plans: pd.DataFrame) -> Facts:
    """True compute of plans by 6ND over their budget, and the loss that they give away; as for `show_plans`."""
    ends = [f"{value:.2g}" for value in (plans["overspent"].min(), plans["overspent"].max())]
    return {
        "c7_overspent": f"between {ends[0]} and {ends[1]}" if ends[0] != ends[1] else ends[0],
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
    times, exponents, far = [], [], 0.0
    for name, trend in trends.items():
        last = laws[name].iloc[-1]
        far = float(last["context_length"])
        times.append(f"{float(trend.power_law.law.predict(far)) / last['num_params']:.2g} times ({label_of(name)})")
        student = interval(trend.power_law.interval("exponent"))
        exponents.append(f"{trend.exponent:+.3f} {student} for {the(name)}")
    return {"c7_power": listed(times), "c7_power_at": context_label(far), "c7_student": listed(exponents)}


def rise_facts(rises: pd.DataFrame) -> Facts:
    """Rise of the loss at the optimum, and the part of prices; from `loss_rises`."""
    texts = []
    for name, rows in rises.groupby("architecture", sort=False):
        rise, price = (span_text(rows[column], "{:.3f}".format) for column in ("rise", "price"))
        texts.append(f"For {the(str(name))} the loss at the optimum rises by {rise}; prices account for {price}.")
    return {"c7_losses": " ".join(texts)}
