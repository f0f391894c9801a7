"""Claims about two architectures, judged on any run table that holds both: they hold, do not hold, or stay open.

The claims are those of arXiv 2510.02228 about training: on loss over compute, on the size of compute-optimal models, on
that size over the context length, and on the exponents of over-training. Every claim becomes a number with an interval,
and a fixed rule says which intervals confirm it and which refute it. An interval that does neither leaves the claim
open; then `needed` says what would decide it.

Optima of IsoFLOP profiles and what is computed from them are drawn as in `companion.fitting.isoflop.draws`; slopes of
over-training have Student's intervals.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count as numbers

import numpy as np
import pandas as pd

from companion.errors import InputError
from companion.fitting.bootstrap import check_resamples, interval_with_lost
from companion.fitting.isoflop.select import isoflop_runs
from companion.fitting.overtraining.exponents import fit_overtraining_slopes
from companion.fitting.overtraining.slope_tests import slope_trend
from companion.formatting import level_text, listed, plural
from companion.runs.context_length import choose_context
from companion.runs.select import subset
from companion.runs.where import table_name
from companion.study.claim_optima import Optima, Pair, contexts_of, optima_of, pairs_of, trends_of

__all__ = ["CANNOT_TELL", "DOES_NOT_HOLD", "HOLDS", "StudyClaim", "claims_frame", "equal_compute_pairs", "study_claims"]

HOLDS, DOES_NOT_HOLD, CANNOT_TELL = "holds", "does not hold", "cannot tell"
#: N* stays about the same over the context if its exponent lies within this of 0: 26 % for ten times the context.
SAME_SIZE = 0.1
#: Exponents of over-training are constant if, over all ratios, they change by less than this share of their mean.
SAME_SLOPE = 0.2
#: A claim about a range of compute needs profiles at this many budgets.
MIN_BUDGETS = 2
#: More runs than this many times those of the table are no advice.
_MOST_TIMES = 1000


@dataclass(frozen=True, kw_only=True)
class StudyClaim:
    """One claim, the number that it is about, and the verdict.

    Attributes
    ----------
    claim
        short name: `loss`, `size`, `size over context, NAME` or `over-training, NAME`.
    statement
        what is claimed, a sentence without its full stop.
    verdict
        `holds`, `does not hold` or `cannot tell`.
    quantity, unit
        what `value` is; the unit is empty for a pure number.
    value, low, high
        the number and its interval; NaN where the table gives none.
    num_runs
        runs behind the number.
    judged
        the rule: which intervals confirm the claim, and which refute it.
    needed
        what would decide the claim; empty where it is decided.
    """

    claim: str
    statement: str
    verdict: str
    quantity: str
    unit: str
    value: float
    low: float
    high: float
    num_runs: int
    judged: str
    needed: str


def study_claims(
    runs: pd.DataFrame,
    first: str = "xlstm",
    second: str = "transformer",
    *,
    context_length: int | None = None,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[StudyClaim]:
    """The paper's claims about training, judged on a run table: six rows, whatever the table holds.

    Parameters
    ----------
    runs
        a run table with both architectures. Profiles are its runs of the experiment `isoflop`, lines of over-training
        those of `tokenparam`; a table without these names is taken whole.
    first, second
        architectures: the claims are about the first against the second.
    context_length
        tokens, of all claims but those over the context; None leaves the choice to the table.
    level
        of the intervals. Several budgets share the error of one interval (Bonferroni).
    num_resamples, seed
        of the drawn optima.

    Returns
    -------
    list of StudyClaim
        a claim that the table has no runs for is `cannot tell`, with the reason in `needed`.

    Raises
    ------
    InputError
        if an architecture is missing or both are the same, the context is not in the table, a needed column is
        missing, or an option is out of range.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> for claim in study_claims(load_paper_runs(), num_resamples=200):
    ...     print(f"{claim.claim}: {claim.verdict}")
    loss: holds
    size: holds
    size over context, transformer: holds
    size over context, xlstm: holds
    over-training, xlstm: holds
    over-training, transformer: holds
    """
    length = _checked(runs, first, second, context_length, level)
    check_resamples(num_resamples)
    optima = _all_optima(runs, (first, second), length, num_resamples, seed)
    pairs = pairs_of(optima[first][length].found, optima[second][length].found)
    faults = {name: found[length].fault for name, found in optima.items()}
    return [
        _loss_claim(pairs, first, second, level, faults),
        _size_claim(pairs, first, second, level, faults),
        _context_claim(optima[second], second, level, shrinks=True),
        _context_claim(optima[first], first, level, shrinks=False),
        *(_slope_claim(runs, name, length, level) for name in (first, second)),
    ]


def claims_frame(claims: Sequence[StudyClaim]) -> pd.DataFrame:
    """The claims as a table, one row each, one column per field.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> claims_frame(study_claims(load_paper_runs(), num_resamples=100)).shape
    (6, 11)
    """
    return pd.DataFrame([asdict(each) for each in claims], columns=list(StudyClaim.__dataclass_fields__))


def equal_compute_pairs(
    runs: pd.DataFrame, first: str, second: str, context_length: int | None = None, tolerance: float = 0.2
) -> pd.DataFrame:
    """Runs of two architectures at one budget and of nearly one size: the most direct comparison that a table allows.

    Every IsoFLOP run of the first is paired with the run of the second at its budget that is nearest in size, and of
    its seed where the table has seeds.

    Parameters
    ----------
    runs
        a run table with the column `isoflop_budget`, or gaps in `train_flops` to read budgets off.
    first, second
        architectures.
    context_length
        tokens; None takes the runs of all.
    tolerance
        the sizes of a pair differ by no more than this, relative to the smaller.

    Returns
    -------
    DataFrame
        one row per pair: `isoflop_budget`, `num_params` and `tokens_per_param` (of the first), `size_ratio` (second
        over first), `loss_gap` (second less first, nats/token), and `seed` where the table has it; ordered by budget
        and size.

    Raises
    ------
    InputError
        if an architecture has no IsoFLOP runs, or no two runs are a pair.

    Examples
    --------
    >>> from companion.runs import load_paper_runs
    >>> pairs = equal_compute_pairs(load_paper_runs(), "xlstm", "transformer", 8192)
    >>> bool((pairs["loss_gap"] > 0).mean() > 0.5)
    True
    """
    keys = ["isoflop_budget", *(name for name in ("context_length", "seed") if name in runs)]
    others = {key: group for key, group in isoflop_runs(runs, second, context_length).groupby(keys)}
    rows = []
    for key, group in isoflop_runs(runs, first, context_length).groupby(keys):
        for run in group.to_dict("records") if key in others else ():
            apart = np.log(others[key]["num_params"] / run["num_params"])
            other = others[key].loc[apart.abs().idxmin()]
            if abs(apart[other.name]) <= math.log1p(tolerance):
                rows.append(
                    {name: run[name] for name in keys}
                    | {"num_params": run["num_params"], "tokens_per_param": run["num_tokens"] / run["num_params"]}
                    | {"size_ratio": other["num_params"] / run["num_params"]}
                    | {"loss_gap": other["val_loss"] - run["val_loss"]}
                )
    if not rows:
        raise InputError(f"{table_name(runs)}: no budget has runs of {first} and {second} of nearly one size")
    return pd.DataFrame(rows).sort_values(["isoflop_budget", "num_params"], ignore_index=True)


def _all_optima(
    runs: pd.DataFrame, names: Sequence[str], length: int | None, num_resamples: int, seed: int
) -> dict[str, dict[int | None, Optima]]:
    """The optima of every architecture by context, that of the claims first; every set has draws of its own."""
    seeds, optima = numbers(seed), dict[str, dict[int | None, Optima]]()
    for name in names:
        contexts = dict.fromkeys((length, *contexts_of(runs, name)))
        optima[name] = {at: optima_of(runs, name, at, num_resamples, next(seeds)) for at in contexts}
    return optima


def _checked(runs: pd.DataFrame, first: str, second: str, context_length: int | None, level: float) -> int | None:
    """The context length of the claims, after a look at the table and the options."""
    label = table_name(runs)
    for column in ("architecture", "num_params", "num_tokens", "train_flops", "val_loss"):
        if column not in runs:
            raise InputError(f"{label}: column {column!r} is missing")
    if first == second:
        raise InputError(f"first and second are both {first}: a claim compares two architectures")
    there = sorted(map(str, runs["architecture"].dropna().unique()))
    for name in (first, second):
        if name not in there:
            raise InputError(f"{label}: no runs with architecture {name}; the table has {', '.join(there) or 'none'}")
    if not 0 < level < 1:
        raise InputError(f"level {level:g} of an interval is not between 0 and 1")
    both = runs[runs["architecture"].isin((first, second))]
    return choose_context(both, context_length, source=label).context_length


# ---- the claims ------------------------------------------------------------------------------------


def _loss_claim(pairs: list[Pair], first: str, second: str, level: float, faults: dict[str, str]) -> StudyClaim:
    """Lower loss at every budget: the smallest gap must be above 0, and none may be below."""
    share = 1 - (1 - level) / max(len(pairs), 1)
    gaps = [(other.loss - one.loss, *interval_with_lost(other.losses - one.losses, share)) for one, other in pairs]
    value, low, high = min(gaps, default=(math.nan,) * 3, key=lambda gap: gap[0])
    verdict = CANNOT_TELL
    if any(gap[2] < 0 for gap in gaps):
        verdict = DOES_NOT_HOLD
    elif len(pairs) >= MIN_BUDGETS and all(gap[1] > 0 for gap in gaps):
        verdict = HOLDS
    return StudyClaim(
        claim="loss",
        statement=f"at every budget, the best {first} has a lower loss than the best {second}",
        verdict=verdict,
        quantity=f"smallest gap, {second} less {first}, of {plural(len(pairs), 'budget')}",
        unit="nats/token",
        value=value,
        low=low,
        high=high,
        num_runs=sum(each.num_runs for pair in pairs for each in pair),
        judged=f"holds if the gap is above 0 at all budgets, and there are {MIN_BUDGETS} of them, does not hold if it "
        f"is below 0 at one ({level_text(level)}, shared among budgets)",
        needed="" if verdict != CANNOT_TELL else _few_budgets(pairs, faults) or _more_runs(value, low, high, 0.0),
    )


def _size_claim(pairs: list[Pair], first: str, second: str, level: float, faults: dict[str, str]) -> StudyClaim:
    """Larger compute-optimal models: the mean ratio over the budgets must be above 1."""
    logs = [math.log(one.num_params / other.num_params) for one, other in pairs]
    value = low = high = math.nan
    if pairs:
        value = float(np.mean(logs))
        low, high = interval_with_lost(np.mean([one.log_size - other.log_size for one, other in pairs], axis=0), level)
    verdict = HOLDS if low > 0 else DOES_NOT_HOLD if high < 0 else CANNOT_TELL
    needed = _more_runs(value, low, high, 0.0) if pairs else _few_budgets(pairs, faults)
    value, low, high = (math.exp(each) for each in (value, low, high))
    return StudyClaim(
        claim="size",
        statement=f"the compute-optimal {first} is larger than the compute-optimal {second}",
        verdict=verdict,
        quantity=f"N* of {first} over N* of {second}, mean of {plural(len(pairs), 'budget')}",
        unit="",
        value=value,
        low=low,
        high=high,
        num_runs=sum(each.num_runs for pair in pairs for each in pair),
        judged="holds if the interval is above 1, does not hold if it is below",
        needed="" if verdict != CANNOT_TELL else needed,
    )


def _context_claim(optima: dict[int | None, Optima], name: str, level: float, *, shrinks: bool) -> StudyClaim:
    """The exponent of N*(T): below 0, or about 0."""
    trends = trends_of({length: each.found for length, each in optima.items() if length is not None})
    value = low = high = math.nan
    if trends:
        value = float(np.mean([slope for slope, _, _ in trends]))
        low, high = interval_with_lost(np.mean([samples for _, samples, _ in trends], axis=0), level)
    if shrinks:
        verdict = HOLDS if high < 0 else DOES_NOT_HOLD if low > 0 else CANNOT_TELL
        statement = f"the compute-optimal {name} becomes smaller as the context grows"
        judged = "holds if the interval is below 0, does not hold if it is above"
        needed = _more_runs(value, low, high, 0.0)
    else:
        verdict = _within(low, high, SAME_SIZE)
        statement = f"the compute-optimal {name} stays about the same size as the context grows"
        judged = f"holds if the interval is within ±{SAME_SIZE:g}, does not hold if it is outside"
        needed = _more_runs(value, low, high, -SAME_SIZE, SAME_SIZE)
    if not trends:
        needed = f"profiles of {name} with a minimum at two context lengths of one budget"
    return StudyClaim(
        claim=f"size over context, {name}",
        statement=statement,
        verdict=verdict,
        quantity=f"exponent of N* over T, mean of {plural(len(trends), 'budget')}",
        unit="",
        value=value,
        low=low,
        high=high,
        num_runs=sum(number for _, _, number in trends),
        judged=judged,
        needed="" if verdict != CANNOT_TELL else needed,
    )


def _slope_claim(runs: pd.DataFrame, name: str, context_length: int | None, level: float) -> StudyClaim:
    """Equal exponents at all ratios: their change from the smallest ratio to the largest, over the common exponent."""
    value = low = high = math.nan
    number, ratios, reason = 0, 0, ""
    try:
        slopes = fit_overtraining_slopes(subset(runs, name, context_length))
        number, ratios = len(slopes.data), len(slopes.laws)
        span = math.log10(max(slopes.laws) / min(slopes.laws))
        trend = slope_trend(slopes)
        scale = span / slopes.common_eta
        value = scale * trend.value
        low, high = sorted(scale * end for end in trend.interval(level))
    except InputError as error:  # no runs for it, one ratio, or no degree of freedom
        why = str(error).removeprefix("over-training: ").partition("; ")[0]
        reason = f"lines at two ratios of tokens to parameters or more, three computes or more each ({why})"
    verdict = _within(low, high, SAME_SLOPE)
    return StudyClaim(
        claim=f"over-training, {name}",
        statement=f"the exponent of loss over compute of the {name} is the same at all ratios of tokens to parameters",
        verdict=verdict,
        quantity=f"change of the exponent over {plural(ratios, 'ratio')}, as a share of the common one",
        unit="",
        value=value,
        low=low,
        high=high,
        num_runs=number,
        judged=f"holds if the interval is within ±{SAME_SLOPE:g}, does not hold if it is outside",
        needed="" if verdict != CANNOT_TELL else reason or _more_runs(value, low, high, -SAME_SLOPE, SAME_SLOPE),
    )


# ---- rules and words -------------------------------------------------------------------------------


def _within(low: float, high: float, bound: float) -> str:
    """The verdict on a number that is claimed to be within ±bound."""
    if -bound < low and high < bound:
        return HOLDS
    return DOES_NOT_HOLD if low > bound or high < -bound else CANNOT_TELL


def _few_budgets(pairs: list[Pair], faults: dict[str, str]) -> str:
    """What is missing where there are too few budgets; empty where there are enough."""
    if len(pairs) >= MIN_BUDGETS:
        return ""
    there = f"; there {'is' if len(pairs) == 1 else 'are'} {len(pairs)}"
    known = [fault for fault in faults.values() if fault]
    why = f" ({listed(known)})" if known else ""
    return f"profiles of both architectures with a minimum at {MIN_BUDGETS} budgets or more{there}{why}"


def _more_runs(value: float, low: float, high: float, *edges: float) -> str:
    """How many times as many runs would decide, if the value stays and scatter alone makes the interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "more runs per profile: too many of the drawn profiles have no minimum for an interval"
    distance = min(abs(value - edge) for edge in edges)
    times = math.inf if distance == 0 else ((high - low) / 2 / distance) ** 2
    if times > _MOST_TIMES:
        return "a rule with other bounds: the value lies so close to one that no number of runs decides"
    return (
        f"about {max(2, math.ceil(times))} times as many runs, if the value stays and scatter alone makes the interval"
    )
