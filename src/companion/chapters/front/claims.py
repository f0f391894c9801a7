"""The paper's claims with what was found and a verdict: every verdict is a rule on numbers, and each can flip.

What the paper (arXiv 2510.02228) says is in our words. `place` says where it says so, as far as a copy of the paper or
the authors' public repository confirms the number of a section or figure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from companion.chapters.labels import label_of
from companion.fitting.context.scaling import ContextFit
from companion.fitting.pareto import FrontComparison
from companion.formatting import number_word, percent, plural, signed_percent, significant, span_text

HOLDS, HOLDS_IN_PART, HOLDS_NOT = "holds", "holds in part", "does not hold"

#: Below this many factors of ten a range is not "almost five orders of magnitude": it no longer rounds to five.
ALMOST_FIVE = 4.5
#: A test at 5 % finds a difference where p lies below.
SIGNIFICANT = 0.05
#: Least and largest share by which the paper says that the first token comes earlier, in whole percent.
EARLIER = (0.30, 0.50)
#: A step time that changes by no more than this over all contexts counts as independent of them.
STEADY = 0.05
#: A constant that changes by no more than this counts as the same.
SAME = 0.10


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper: what it says and where, what was found, the verdict, and the chapter that shows it.

    `chapter` is the name of the chapter's notebook. `verdict` is `HOLDS`, `HOLDS_IN_PART` or `HOLDS_NOT`.
    """

    says: str
    place: str
    found: str
    verdict: str
    chapter: str


def judge(holds: bool, in_part: bool) -> str:
    """The verdict: the first of the three whose condition is true."""
    return HOLDS if holds else HOLDS_IN_PART if in_part else HOLDS_NOT


def dominance_claim(fronts: FrontComparison) -> Claim:
    """Whether xLSTM has the lower loss at equal compute, and over how many orders of magnitude that can be seen.

    Parameters
    ----------
    fronts
        the front of xLSTM against that of the Transformer.
    """
    share, decades = fronts.share_lower, fronts.decades
    gap = significant(fronts.loss_gap.quantile(0.5), 2)
    where = "at all compute" if share == 1 else f"over {percent(share)} of the compute"
    found = f"Lower {where} that both were trained at, by {gap} nats per token in the median"
    wide = decades >= ALMOST_FIVE
    reach = f"that range spans {'' if wide else 'only '}{significant(decades, 2)} orders of magnitude."
    return Claim(
        says="xLSTM has the lower loss at equal training compute, over almost five orders of magnitude.",
        place="abstract and Figure 1 (left)",
        found=f"{found}; {'' if wide else 'but '}{reach}",
        verdict=judge(share == 1 and wide, share > 0.5),
        chapter="02_run_table",
    )


def overtraining_claim(tests: Mapping[str, pd.DataFrame]) -> Claim:
    """Whether loss falls with compute at one rate, whatever the number of tokens per parameter.

    Parameters
    ----------
    tests
        by architecture, of `companion.fitting.overtraining.slope_tests.parallel_tests`.
    """
    plain, sharp = (
        {name: float(table.set_index("shape")["p_value"].to_dict()[shape]) for name, table in tests.items()}
        for shape in ("straight", "by size")
    )
    rejected, doubted = ([name for name, p in values.items() if p < SIGNIFICANT] for values in (plain, sharp))
    words = ", ".join(f"{label_of(name)} {significant(p, 2)}" for name, p in plain.items())
    slope = "One slope of log loss over log compute for all ratios"
    if rejected:
        found = f"{slope} is rejected for {' and '.join(map(label_of, rejected))} (p: {words})."
    elif doubted:
        more = " and ".join(f"the {label_of(name)} (p = {significant(sharp[name], 1)})" for name in doubted)
        found = f"{slope} is not rejected (p: {words}). A sharper test, which lets each size deviate, rejects it for "
        found += f"{more}."
    else:
        found = f"{slope} is not rejected (p: {words}), nor by a sharper test, which lets each size deviate."
    return Claim(
        says="With more tokens per parameter, loss still falls with compute at the same rate.",
        place="part on over-training",
        found=found,
        verdict=judge(not rejected and not doubted, not rejected),
        chapter="05_overtraining",
    )


def size_claim(ratios: pd.DataFrame, cubics: pd.Series) -> Claim:
    """Whether the compute-optimal xLSTM is larger than the compute-optimal Transformer.

    Parameters
    ----------
    ratios
        of `companion.fitting.isoflop.compare.optimum_ratio`, N\\* of xLSTM over that of the Transformer.
    cubics
        the same ratios where cubics take the place of parabolas; NaN where one has no minimum.
    """
    above, below = int((ratios["low"] > 1).sum()), int((ratios["high"] < 1).sum())
    span = f"{ratios['ratio'].min():.2f} to {ratios['ratio'].max():.2f}"
    number = len(ratios)
    sure = f"{above} of {number} 95 % intervals lie above 1"
    if above == number:
        sure = "every 95 % interval lies above 1"
    other = f"{cubics.min():.2f} to {cubics.max():.2f}"
    return Claim(
        says="Compute-optimal xLSTMs are larger than compute-optimal Transformers.",
        place="part on compute-optimal training",
        found=f"The best xLSTM has {span} times the parameters at {plural(number, 'budget')}; {sure} "
        f"(with cubics for parabolas: {other}).",
        verdict=judge(above == number and bool((cubics > 1).all()), above > 0 and below == 0),
        chapter="03_isoflop",
    )


def context_claim(fits: Mapping[str, ContextFit]) -> Claim:
    """Whether a longer context shrinks the best Transformer and leaves the best xLSTM as it is.

    Parameters
    ----------
    fits
        `xlstm` and `transformer`.
    """
    changes = {}
    for name, fit in fits.items():
        first, last = fit.context_lengths[0], fit.context_lengths[-1]
        changes[name] = tuple(each - 1 for each in fit.change("num_params", first, last))
    (_, _, shrunk), (moved, low, high) = changes["transformer"], changes["xlstm"]
    shrinks, same = shrunk < 0, low <= 0 <= high
    small = abs(moved) < abs(changes["transformer"][0])
    between = span_text((low, high), signed_percent)
    note = f"the interval, {between}, includes zero" if same else f"not zero, the interval is {between}"
    words = [f"{label_of(name)} {signed_percent(changes[name][0])}" for name in ("transformer", "xlstm")]
    return Claim(
        says="As the context grows, the best Transformer shrinks and the best xLSTM stays nearly the same.",
        place="Figure 5",
        found=f"From a context of {first} to {last} tokens at equal compute: {words[0]}, {words[1]} ({note}).",
        verdict=judge(shrinks and small and same, shrinks and small),
        chapter="07_context_length",
    )


def serving_claim(timings: pd.DataFrame, prompt: int) -> Claim:
    """Whether xLSTM's first token comes 30 to 50 % earlier, and its steps take the same time at every context.

    The claim holds if both are so at every batch size that was timed; in part, if one is for the smallest batch.

    Parameters
    ----------
    timings
        as `companion.inference.load_inference` gives them; models of equal size and batch are compared.
    prompt
        length of the long prompt, tokens.
    """
    earlier, swings = _earlier(timings, prompt), _swings(timings)
    least = int(timings["batch_size"].min())
    single = earlier[earlier.index.get_level_values("batch_size") == least]
    more = earlier.drop(single.index)
    steady = swings[swings.index.get_level_values("batch_size") == least]
    moving = swings.drop(steady.index)
    found = (
        f"For {number_word(least)} sequence{'' if least == 1 else 's'}: {span_text(single)} earlier at "
        f"{plural(len(single), 'size')}, compared size by size; over all contexts a step changes by "
        f"{percent(float(steady.max()))} at most."
    )
    if len(more):
        found += f" In larger batches: {span_text(more)} earlier"
    if len(moving):
        worst: Any = moving.idxmax()
        size, batch = worst
        found += f"{';' if len(more) else ' In larger batches'} a step changes by up to "
        found += f"{percent(float(moving.max()))} ({str(size).upper()}, {plural(int(batch), 'sequence')})"
    return Claim(
        says="After 16k tokens xLSTM's first token comes 30 to 50 % earlier; its step time does not grow with context.",
        place="part on inference",
        found=found if found.endswith(".") else f"{found}.",
        verdict=judge(
            _in_range(earlier) and bool((swings <= STEADY).all()),
            _in_range(single) or bool((steady <= STEADY).all()),
        ),
        chapter="08_inference_time",
    )


def _earlier(timings: pd.DataFrame, prompt: int) -> pd.Series:
    """By which share xLSTM's first token comes earlier, by `model_size` and `batch_size`."""
    long = timings[timings["prefill_length"] == prompt]
    first = long.pivot_table("ttft_s", ["model_size", "batch_size"], "architecture")
    return (1 - first["xlstm"] / first["transformer"]).dropna()


def _swings(timings: pd.DataFrame) -> pd.Series:
    """Largest over least step time of xLSTM over all contexts, minus 1, by `model_size` and `batch_size`."""
    steps = timings[(timings["architecture"] == "xlstm") & timings["step_time_s"].notna()]
    times = steps.groupby(["model_size", "batch_size"])["step_time_s"].agg(["min", "max", "size"])
    times = times[times["size"] > 1]  # one context shows no change
    return times["max"] / times["min"] - 1


def _in_range(earlier: pd.Series) -> bool:
    return bool(earlier.round(2).between(*EARLIER).all())


def constants_claim(effects: pd.DataFrame) -> Claim:
    """Whether the constants of the published runtime models are overheads that the timings show.

    Parameters
    ----------
    effects
        of `companion.chapters.ch08.draws.draw_effects`.
    """
    prefill = effects[effects["quantity"] == "ttft"]
    constants = prefill.loc[prefill["parameter"] == "eps_s", "shift"].abs()
    rates = prefill.loc[prefill["parameter"] != "eps_s", "shift"].abs()
    moved = int((constants > SAME).sum())
    return Claim(
        says="Time to first token is FLOPs over a rate plus a constant overhead, both fitted for every model size.",
        place="part on inference",
        found="By default the authors' code fits one random resample. Fitted to all timings, "
        f"{moved} of {len(constants)} overheads change by more than {percent(SAME)}, the rates by at most "
        f"{percent(float(rates.max()))}.",
        verdict=judge(not moved, moved <= len(constants) / 2),
        chapter="08_inference_time",
    )
