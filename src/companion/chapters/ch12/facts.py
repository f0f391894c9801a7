"""Chapter 12: what its sentences say about batch sizes and about budgets by another count."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from companion.chapters.ch12.study import Study
from companion.chapters.labels import label_of, the
from companion.formatting import (
    count,
    interval,
    number_word,
    percent,
    plural,
    power_of_ten,
    share_in_words,
    signed,
    significant,
    span_text,
)
from companion.training.batch import MeanDifference, StepTrend
from companion.training.batch_effects import CriticalBatchFit, OptimumShift
from companion.training.curve_faults import parting

#: Rank correlation from which on a difference is said to grow or shrink with the steps.
CLEAR_TREND = 0.5


def higher(value: float, decimals: int = 3) -> str:
    """A difference of losses in words: `0.034 nats per token higher`."""
    return f"{abs(value):.{decimals}f} nats per token {'higher' if value >= 0 else 'lower'}"


def answer_facts(study: Study) -> dict[str, str]:
    """The two sentences at the top of the page."""
    return {"c12_answer_batch": batch_answer(study), "c12_answer_twins": twins_answer(study)}


def batch_answer(study: Study) -> str:
    """What another batch did to the final loss at equal N and D."""
    if study.pairs is None or study.batches is None:
        return "These runs do not show what another batch would have done: no shape was trained at two batch sizes"
    differences = study.pairs["difference"]
    values = differences.to_numpy(float)
    extreme = float(values[np.abs(values).argmax()])
    where = " where the steps are few" if falls_with_steps(study.pairs) else ""
    larger = "twice the batch" if study.batches[1] == 2 * study.batches[0] else "a larger batch"
    mean = float(differences.mean())
    most = f"{abs(extreme):.3f}" if mean * extreme > 0 else higher(extreme)
    return (
        f"A table of final losses does not show what the batch did: with {larger}, runs of equal N and D end "
        f"{higher(mean)} on average, and up to {most}{where}"
    )


def twins_answer(study: Study) -> str:
    """How far two trainings of one configuration end apart, and where they part."""
    if study.twins is None:
        return "No configuration was trained twice here, so the table cannot show how much is chance or accident"
    gap = study.losses[study.twins[0]] - study.losses[study.twins[1]]
    text = f"Nor does it show what happened on the way: two trainings of one configuration end {gap:.3f} apart"
    if study.curves is None:
        return text
    step, _ = parting(study.curves, *study.twins)
    return (
        f"{text}, and {'not even their curves show where they part' if step is None else 'only their curves show why'}"
    )


def falls_with_steps(pairs: pd.DataFrame) -> bool:
    """Whether the differences are clearly smaller where the larger batch takes more steps."""
    return bool(stats.spearmanr(pairs["second_steps"], pairs["difference"].abs()).statistic < -CLEAR_TREND)


# ---- batch size ------------------------------------------------------------------------------------------


def pair_facts(study: Study, mean: MeanDifference) -> dict[str, str]:
    """How the pairs differ, and what besides the batch differs in them."""
    pairs, batches = study.pairs, study.batches
    assert pairs is not None
    assert batches is not None
    other = int((~pairs["same_learning_rate"]).sum())
    last = int(np.flatnonzero(~pairs.sort_values("second_steps", kind="stable")["same_learning_rate"]).max(initial=-1))
    above = int((pairs["difference"] > 0).sum())
    shares = pairs["second_schedule_share"] if "second_schedule_share" in pairs else pd.Series(dtype=float)
    facts = {
        "c12_num_pairs": plural(len(pairs), "pair"),
        "c12_first_batch": f"{batches[0]:g}",
        "c12_second_batch": f"{batches[1]:g}",
        "c12_pair_architecture": the(str(pairs["architecture"].iloc[0])),
        "c12_mean": f"{higher(mean.mean)} {interval(mean.t_interval)}",
        "c12_range": f"{signed(mean.smallest, 3)} to {signed(mean.largest, 3)}",
        "c12_above": f"{share_in_words(above, len(pairs))} differences",
        "c12_other_rate": share_in_words(other, len(pairs)) + " pairs" if other else "none of the pairs",
        "c12_other_rate_where": (
            f", all among the {number_word(last + 1)} with the fewest steps" if 0 <= last < len(pairs) / 2 else ""
        ),
        "c12_where": (
            "They are largest where the larger batch leaves few steps"
            if falls_with_steps(pairs)
            else "They show no clear trend over the steps"
        ),
        "c12_steps": f"{pairs['second_steps'].min():,} to {pairs['second_steps'].max():,}",
        "c12_schedule": "the logs do not say what share of a run warm-up and cool-down take",
    }
    if shares.notna().any():
        most = int(np.nanargmax(shares.to_numpy(float)))
        facts["c12_schedule"] = (
            f"warm-up and cool-down together take {percent(shares.max())} of the "
            f"{pairs['second_steps'].iloc[most]:,} steps of the shortest run, and {percent(shares.min())} of those of "
            "the longest"
        )
    return facts


def trend_facts(trends: Mapping[str, StepTrend]) -> dict[str, str]:
    """The exponents of the differences over the steps, of all pairs and of those with equal learning rates."""
    words = {name: f"{trend.exponent:.2f} {interval(trend.interval('exponent'), 2)}" for name, trend in trends.items()}
    *_, last = trends.values()
    low, high = last.interval("exponent")
    verdict = "as one over the steps" if low <= 1 <= high else ("faster" if low > 1 else "more slowly")
    verdict += "" if low <= 1 <= high else " than one over the steps"
    return {
        "c12_trend_all": next(iter(words.values())),
        "c12_trend_same": list(words.values())[-1],
        "c12_trend_verdict": verdict,
    }


def shift_facts(shift: OptimumShift, same: OptimumShift | None, windows: pd.DataFrame) -> dict[str, str]:
    """How far the batch moves the best size, from all pairs, from equal learning rates, and from sizes near it."""
    near = windows[windows["decades"] == windows["decades"].min()] if len(windows) else windows
    return {
        "c12_shift": change_of_size(shift.ratio, shift.interval()),
        "c12_shift_same": "cannot be had from equal learning rates" if same is None else change_of_size(same.ratio),
        "c12_shift_range": span_text((1 - windows["ratio"]).abs()) if len(windows) else "undefined",
        "c12_shift_near": change_of_size(float(near["ratio"].iloc[0])) if len(near) else "undefined",
    }


def change_of_size(ratio: float, bounds: tuple[float, float] | None = None) -> str:
    """A ratio of two sizes in words: `15 % smaller`, with an interval `15 % smaller [13 to 17 %]`."""
    words = f"{percent(abs(1 - ratio))} {'smaller' if ratio < 1 else 'larger'}"
    if bounds is None:
        return words
    if min(bounds) < 1 < max(bounds):
        return f"{words} (interval of the ratio {interval(bounds, 2)})"
    return f"{words} (interval {span_text(abs(1 - bound) for bound in bounds)})"


def exponent_facts(budget: float, before: float, change: ArrayLike, growing: ArrayLike, power: float) -> dict[str, str]:
    """What the batch does to the exponent of N\\*: at one budget alone, and where it grows with compute.

    Parameters
    ----------
    budget
        whose batch is the larger one, FLOP.
    before
        the exponent at the smaller batch.
    change, growing
        with interval: (value, low, high); of `exponent_change` and `scaled_batch_change`.
    power
        of C by which the batch grows.
    """
    at, grows = (np.asarray(values, dtype=float) for values in (change, growing))
    return {
        "c12_budget": power_of_ten(budget),
        "c12_exponent_before": f"{before:.3f}",
        "c12_exponent_change": f"{signed(at[0], 3)} {interval((min(at[1:]), max(at[1:])))}",
        "c12_exponent_growing": f"{signed(grows[0], 3)} {interval((min(grows[1:]), max(grows[1:])))}",
        "c12_batch_power": f"{power:g}",
    }


def critical_facts(
    found: CriticalBatchFit, everything: CriticalBatchFit, pairs: pd.DataFrame, implied: pd.DataFrame
) -> dict[str, str]:
    """The critical batch that the pairs imply, and how many of them the relation describes."""
    low, high = pairs["second_num_tokens"].min(), pairs["second_num_tokens"].max()
    grows = found.interval("exponent")[0] > 0
    described = int(implied["critical_batch"].notna().sum())
    return {
        "c12_critical_exponent": f"{found.exponent:.2f} {interval(found.interval('exponent'), 2)}",
        "c12_critical_exponent_all": f"{everything.exponent:.2f} {interval(everything.interval('exponent'), 2)}",
        "c12_critical_form": (
            "That it grows with the tokens agrees with the published form"
            if grows
            else "These pairs do not show whether it grows with the tokens"
        ),
        "c12_critical_range": f"{count(float(found.predict(low)), 2)} to {count(float(found.predict(high)), 2)} tokens",
        "c12_critical_batches": " and ".join(
            count(float(pairs[f"{side}_batch"].iloc[0]), 2) for side in ("first", "second")
        ),
        "c12_described": share_in_words(described, len(implied)) + " pairs",
    }


def other_pairs_facts(study: Study) -> dict[str, str]:
    """What the pairs at other batch sizes show."""
    said = []
    for (first, second), pairs in study.other_pairs.items():
        who = " and ".join(label_of(name) for name in dict.fromkeys(pairs["architecture"]))
        values = pairs["difference"]
        trend = ", again most where the steps are few" if falls_with_steps(pairs) else ""
        said.append(
            f"{plural(len(pairs), 'pair')} ({who}, batch {second:g} instead of {first:g}) differ by "
            f"{signed(values.min(), 3)} to {signed(values.max(), 3)} nats per token{trend}"
        )
    return {"c12_other_pairs": "; ".join(said) or "There are no pairs at other batch sizes"}


def own_budget_facts(optima: pd.DataFrame, budget: float) -> dict[str, str]:
    """The paper's budget that was trained at twice the batch, against the law of the budgets below it."""
    row = optima.iloc[0]
    bounds = (float(row["ratio_low"]), float(row["ratio_high"]))
    return {
        "c12_own_budget": power_of_ten(budget),
        "c12_own_batch": f"{row['batch_size_seqs']:g}",
        "c12_own_shift": change_of_size(float(row["ratio"]), bounds),
    }


# ---- budgets by another count ------------------------------------------------------------------------------


def count_facts(profiles: pd.DataFrame, constancy: pd.DataFrame, chosen: str) -> dict[str, str]:
    """Which count the budgets follow."""
    flat = constancy.assign(flat=(constancy["low"] < 0) & (constancy["high"] > 0))
    number = flat["convention"].value_counts().max()
    own = flat[flat["convention"] == chosen]
    others = flat[flat["convention"] == "paper"]
    return {
        "c12_count_runs": f"{len(profiles)}",
        "c12_count_profiles": number_word(profiles["profile"].nunique()),
        "c12_count_flat": share_in_words(int(own["flat"].sum()), int(number)) + " profiles",
        "c12_count_spread": percent(float(own["spread"].max() - 1)),
        "c12_count_paper_flat": share_in_words(int(others["flat"].sum()), int(number)) + " profiles",
        "c12_count_means": ", ".join(power_of_ten(value) for value in own["mean_count"]),
    }


def optimum_facts(optima: pd.DataFrame) -> dict[str, str]:
    """N\\* of the profiles against the prediction: at the batch of the law, and at another; and exponents of both."""
    usual = optima["batch_size_seqs"].max()
    same, half = optima[optima["batch_size_seqs"] == usual], optima[optima["batch_size_seqs"] != usual]
    top = same.loc[same["mean_count"].idxmax()]
    inside = int(((same["ratio_low"] < 1) & (same["ratio_high"] > 1)).sum())
    low = same.loc[same["mean_count"].idxmin()]
    other = half.iloc[0] if len(half) else low
    steps = np.log(top["mean_count"] / np.array([low["mean_count"], other["mean_count"]]))
    slopes = np.log(top["measured"] / np.array([low["measured"], other["measured"]])) / steps
    measured = f"{power_of_ten(top['measured'], 3)} [{_mantissas(top['low'], top['high'])}]"
    return {
        "c12_measured": measured,
        "c12_predicted": power_of_ten(top["predicted"], 3),
        "c12_unaware": power_of_ten(top["unaware"], 3),
        "c12_agree": share_in_words(inside, len(same)) + " profiles",
        "c12_moved": significant(float(top["moved_predicted"]), 2),
        "c12_usual_batch": f"{usual:g}",
        "c12_half_batch": f"{other['batch_size_seqs']:g}",
        "c12_half_ratio": f"{other['ratio']:.2f} {interval((other['ratio_low'], other['ratio_high']), 2)}",
        "c12_slope_same": f"{slopes[0]:.2f}",
        "c12_slope_mixed": f"{slopes[1]:.2f}",
    }


def _mantissas(low: float, high: float) -> str:
    return f"{power_of_ten(low, 3)}, {power_of_ten(high, 3)}"
