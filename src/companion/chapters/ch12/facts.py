"""Chapter 12: what its sentences say about batch sizes and about budgets by another count."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from companion.chapters.ch12.study import LEAST_PAIRS, Study, num_logged, parted
from companion.chapters.labels import label_of, the
from companion.formatting import (
    count,
    interval,
    listed,
    number_word,
    percent,
    plural,
    power_of_ten,
    share_in_words,
    signed,
    signed_percent,
    significant,
    span_text,
)
from companion.training.batch import MeanDifference, StepTrend
from companion.training.batch_effects import CriticalBatchFit, OptimumShift

#: Rank correlation from which on a difference is said to grow or shrink with the steps.
CLEAR_TREND = 0.5
#: Exponent of D in the critical batch of language models (arXiv 2505.13738, "Power Lines").
PUBLISHED_EXPONENT = 0.46


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
    equal = study.pairs[study.pairs["same_learning_rate"]]
    enough = len(equal) >= LEAST_PAIRS  # else the learning rate may be part of the difference
    pairs, alike = (equal, "N, D and learning rate") if enough else (study.pairs, "N and D")
    values = pairs["difference"].to_numpy(float)
    extreme = float(values[np.abs(values).argmax()])
    where = " where the steps are few" if falls_with_steps(pairs) else ""
    larger = "twice the batch" if study.batches[1] == 2 * study.batches[0] else "a larger batch"
    mean = float(values.mean())
    most = f"{abs(extreme):.3f}" if mean * extreme > 0 else higher(extreme)
    return (
        f"A table of final losses does not show what the batch did: with {larger}, runs of equal {alike} end "
        f"{higher(mean)} on average, and up to {most}{where}"
    )


def twins_answer(study: Study) -> str:
    """How far two trainings of one configuration end apart, and whether their curves show where they part."""
    if study.twins is None:
        return "No configuration was trained twice here, so the table cannot show how much is chance or accident"
    gap = study.losses[study.twins[0]] - study.losses[study.twins[1]]
    text = f"Nor does it show what happened on the way: two trainings of one configuration end {gap:.3f} apart"
    found = parted(study)
    if found is None:
        return text
    return f"{text}, and {'not even' if found[0] is None else 'only'} their curves show where they part"


def falls_with_steps(pairs: pd.DataFrame) -> bool:
    """Whether the differences are clearly smaller where the larger batch takes more steps."""
    steps, sizes = pairs["second_steps"], pairs["difference"].abs()
    if min(steps.nunique(), sizes.nunique()) < 2:  # nothing to rank
        return False
    return bool(stats.spearmanr(steps, sizes).statistic < -CLEAR_TREND)


# ---- batch size ------------------------------------------------------------------------------------------


def pair_facts(study: Study, mean: MeanDifference) -> dict[str, str]:
    """How the pairs differ, and what else differs in them."""
    pairs, batches = study.pairs, study.batches
    assert pairs is not None
    assert batches is not None
    above, schedule = int((pairs["difference"] > 0).sum()), schedule_words(pairs)
    return {
        "c12_num_pairs": plural(len(pairs), "pair"),
        "c12_partners": share_in_words(len(pairs), num_logged(study)),
        "c12_first_batch": f"{batches[0]:g}",
        "c12_second_batch": f"{batches[1]:g}",
        "c12_pair_architecture": the(str(pairs["architecture"].iloc[0])),
        "c12_pair_context": f" at T = {pairs['context_length'].iloc[0]}" if "context_length" in pairs else "",
        "c12_mean": f"{signed(mean.mean, 3)} nats per token {interval(mean.t_interval)}",
        "c12_range": f"{signed(mean.smallest, 3)} to {signed(mean.largest, 3)}",
        "c12_above": share_in_words(above, len(pairs)),
        "c12_rates": rate_words(pairs),
        "c12_where": (
            "The differences are largest where the larger batch leaves few steps"
            if falls_with_steps(pairs)
            else "The differences show no clear trend over the steps"
        ),
    } | ({"c12_schedule": schedule} if schedule else {})


def rate_words(pairs: pd.DataFrame) -> str:
    """In how many pairs the learning rates differ, in which direction, and where."""
    known = [name for name in ("first_learning_rate", "second_learning_rate") if name in pairs]
    if len(known) < 2 or pairs[known].isna().any(axis=None):
        return "The learning rates of some pairs are unknown. We repeat what follows where both are known and equal"
    ordered = pairs.sort_values("second_steps", kind="stable").reset_index(drop=True)
    different = ordered[~ordered["same_learning_rate"]]
    if different.empty:
        return "The learning rates are equal in all pairs"
    changes = different["second_learning_rate"] / different["first_learning_rate"]
    way = {1: ": they are higher at the larger batch", -1: ": they are lower at the larger batch", 0: ""}
    words = f"In {share_in_words(len(different), len(pairs))} pairs the learning rates differ, too"
    words += way[int((changes > 1).all()) - int((changes < 1).all())]
    last = int(different.index.max()) + 1
    if last <= len(pairs) / 2:
        words += f". Those pairs are among the {number_word(last)} with the fewest steps"
    return f"{words}. We therefore repeat what follows with equal learning rates"


def schedule_words(pairs: pd.DataFrame) -> str:
    """What share of their steps warm-up and cool-down take; empty where the table does not say."""
    if "second_schedule_share" not in pairs or pairs["second_schedule_share"].isna().any():
        return ""
    shares, steps = pairs["second_schedule_share"], pairs["second_steps"]
    fixed = (shares * steps).round().unique()
    most = int(np.argmin(steps))
    if len(fixed) > 1:
        return f"Warm-up and cool-down together take {span_text(shares)} of the steps at the larger batch"
    return (
        f"Warm-up and cool-down together take {fixed[0]:,.0f} steps in every run. With fewer steps that is a larger "
        f"share of the run: {percent(float(shares.iloc[most]))} of the {steps.iloc[most]:,} steps of the shortest, and "
        f"{percent(shares.min())} of those of the longest"
    )


def trend_facts(trends: Mapping[str, StepTrend]) -> dict[str, str]:
    """The exponents of the differences over the steps, of all pairs and of those with equal learning rates."""
    first, last = next(iter(trends.values())), list(trends.values())[-1]
    low, high = last.interval("exponent")
    if low <= 0:
        verdict = "does not clearly fall with the steps"
    elif low <= 1 <= high:
        verdict = "falls about as one over the steps"
    else:
        verdict = f"falls {'faster' if low > 1 else 'more slowly'} than one over the steps"
    facts = {"c12_trend_same": _exponent(last), "c12_trend_verdict": verdict}
    if first.exponent != last.exponent:
        apart = first.interval("exponent")[0] > high or first.interval("exponent")[1] < low
        words = "steeper" if first.exponent > last.exponent else "flatter"
        facts |= {
            "c12_trend_all": _exponent(first),
            "c12_trend_rates": f"make the trend {words}" if apart else "do not change the trend beyond its interval",
        }
    return facts


def _exponent(fitted: StepTrend | CriticalBatchFit) -> str:
    return f"{fitted.exponent:.2f} {interval(fitted.interval('exponent'), 2)}"


def shift_facts(shift: OptimumShift, same: OptimumShift | None, windows: pd.DataFrame) -> dict[str, str]:
    """How far the batch moves the best size, from all pairs, from equal learning rates, and from sizes near it."""
    facts = {
        "c12_shift": change_of_size(shift.ratio, shift.interval()),
        "c12_shift_same": (
            ""
            if same is None
            else f". From the pairs with equal learning rates alone it is {change_of_size(same.ratio)}"
        ),
    }
    if len(windows) > 1:
        facts["c12_shift_range"] = span_text(windows["ratio"] - 1, signed_percent)
    return facts


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
    """The critical batch that the pairs imply, how many of them the relation describes, and the published exponent."""
    fitted = pairs[pairs["same_learning_rate"]]  # the relation holds for their tokens
    tokens, bounds = fitted["second_num_tokens"], found.interval("exponent")
    described = int(implied["critical_batch"].notna().sum())
    inside = "inside" if bounds[0] <= PUBLISHED_EXPONENT <= bounds[1] else "outside"
    form = "These pairs do not show whether it grows with the tokens"
    if bounds[0] > 0:
        form = "That it grows with the tokens agrees with the published form"
        form += f", and the published exponent lies {inside} this interval"
    elif bounds[1] < 0:
        form = "By these pairs it falls with the tokens, against the published form"
    facts = {
        "c12_critical_exponent": _exponent(found),
        "c12_critical_form": form,
        "c12_critical_few": f"{count(float(found.predict(tokens.min())), 2)} tokens",
        "c12_critical_many": f"{count(float(found.predict(tokens.max())), 2)} tokens",
        "c12_critical_batches": " and ".join(
            count(float(pairs[f"{side}_batch"].iloc[0]), 2) for side in ("first", "second")
        ),
        "c12_described": share_in_words(described, len(implied)) + " pairs",
        "c12_longer": "less" if found.exponent > 0 else "more",
    }
    if everything.exponent != found.exponent:
        facts["c12_critical_exponent_all"] = _exponent(everything)
    return facts


def other_pairs_facts(study: Study) -> dict[str, str]:
    """What the pairs at other batch sizes show; nothing where there are none."""
    said = []
    for (first, second), pairs in study.other_pairs.items():
        who = listed(label_of(name) for name in dict.fromkeys(pairs["architecture"]))
        values = pairs["difference"]
        trend = ", again most where the steps are few" if falls_with_steps(pairs) else ""
        said.append(
            f"{plural(len(pairs), 'pair')} ({who}, batch {second:g} instead of {first:g}) differ by "
            f"{signed(values.min(), 3)} to {signed(values.max(), 3)} nats per token{trend}"
        )
    return {"c12_other_pairs": "; ".join(said)} if said else {}


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
    by = {name: rows for name, rows in constancy.groupby("convention")}
    flat = {name: int(((rows["low"] < 0) & (rows["high"] > 0)).sum()) for name, rows in by.items()}
    number = profiles["profile"].nunique()
    return {
        "c12_count_runs": f"{len(profiles)}",
        "c12_count_profiles": number_word(number),
        "c12_count_flat": share_in_words(flat[chosen], number) + " profiles",
        "c12_count_spread": span_text(by[chosen]["spread"] - 1),
        "c12_count_means": listed(dict.fromkeys(map(power_of_ten, by[chosen]["mean_count"]))),
        "c12_count_paper_trend": share_in_words(number - flat["paper"], number) + " profiles",
        "c12_count_six_spread": span_text(by["6ND"]["spread"] - 1),
    }


def optimum_facts(optima: pd.DataFrame) -> dict[str, str]:
    """N\\* of the profiles against the prediction: at the batch of the law, and at another; and exponents of both."""
    usual = optima["batch_size_seqs"].max()
    same, half = optima[optima["batch_size_seqs"] == usual], optima[optima["batch_size_seqs"] != usual]
    same = same.sort_values("mean_count")
    low, top = same.iloc[0], same.iloc[-1]
    inside = int(((same["ratio_low"] < 1) & (same["ratio_high"] > 1)).sum())
    other = half.iloc[0] if len(half) else low
    steps = np.log(top["mean_count"] / np.array([low["mean_count"], other["mean_count"]]))
    slopes = np.log(top["measured"] / np.array([low["measured"], other["measured"]])) / steps
    beyond = same[same["outside"]]
    return {
        "c12_measured": f"{count(top['measured'])} [{count(top['low'])}, {count(top['high'])}]",
        "c12_predicted": count(top["predicted"]),
        "c12_unaware": count(top["unaware"]),
        "c12_agree": share_in_words(inside, len(same)) + " profiles",
        "c12_usual_ratios": listed(_ratio(row) for row in same.to_dict("records")),
        "c12_outside": listed(power_of_ten(row["mean_count"]) for row in beyond.to_dict("records")) or "no profile",
        "c12_moved": significant(float(top["moved_predicted"]), 2),
        "c12_usual_batch": f"{usual:g}",
        "c12_half_batch": f"{other['batch_size_seqs']:g}",
        "c12_half_ratio": _ratio(other),
        "c12_double_ratio": _measured_ratio(low, other),
        "c12_slope_same": f"{slopes[0]:.2f}",
        "c12_slope_mixed": f"{slopes[1]:.2f}",
    }


def _ratio(row: Any) -> str:
    return f"{row['ratio']:.2f} {interval((row['ratio_low'], row['ratio_high']), 2)}"


def _measured_ratio(first: Any, second: Any) -> str:
    """N\\* of one profile over that of another, measured; their runs are independent, so half widths add in squares."""
    value = first["measured"] / second["measured"]
    below = np.hypot(np.log(first["measured"] / first["low"]), np.log(second["high"] / second["measured"]))
    above = np.hypot(np.log(first["high"] / first["measured"]), np.log(second["measured"] / second["low"]))
    return f"{value:.2f} {interval((value * np.exp(-below), value * np.exp(above)), 2)}"
