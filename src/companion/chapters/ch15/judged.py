"""Chapter 15: the paper's claims on the runs of the study, and the lines of over-training."""

import math
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch05.figures import overtraining_lines
from companion.chapters.ch15.study import OwnStudy, by_architecture, the
from companion.chapters.labels import label_of
from companion.errors import NotApplicable
from companion.fitting.overtraining import OvertrainingSlopes, fit_overtraining_slopes
from companion.formatting import interval, level_text, listed, number_word, plural, significant
from companion.plotting import Html, show, show_table
from companion.runs import load_paper_runs
from companion.study.claims import CANNOT_TELL, DOES_NOT_HOLD, HOLDS, StudyClaim, study_claims


def named(text: str, claims: Sequence[StudyClaim]) -> str:
    """A sentence of a claim with the labels of the page instead of the names of the table."""
    for name in sorted({each.claim.partition(", ")[2] for each in claims} - {""}, key=len, reverse=True):
        text = re.sub(rf"\b{re.escape(name)}\b", label_of(name), text)
    return text


def show_claims(claims: Sequence[StudyClaim], level: float) -> Html:
    """A row per claim: the statement, the number with its interval, the verdict, and what would decide it."""
    rows = [
        {
            "claim": capital(named(each.statement, claims)),
            "runs": each.num_runs,
            "number": number_text(each),
            "verdict": each.verdict,
            "paper": number_text(other) if other else "–",
            "judged": other.verdict if other else "–",
        }
        for each, other in zip(claims, paper_claims(claims, level), strict=True)
    ]
    return show_table(
        pd.DataFrame(rows),
        name="study-claims",
        caption=f"The paper's claims about training on the runs of this study, with {level_text(level)} intervals, and "
        "on the paper's runs by the same rules.",
        labels={"paper": "number, paper's runs", "judged": "verdict, paper's runs"},
    )


@cache
def _claims_of_the_paper(level: float) -> tuple[StudyClaim, ...]:
    return tuple(study_claims(load_paper_runs(), level=level))


def paper_claims(claims: Sequence[StudyClaim], level: float) -> list[StudyClaim | None]:
    """The same claims on the paper's runs; None for those of other architectures."""
    found = {each.claim: each for each in _claims_of_the_paper(level)}
    return [found.get(each.claim) for each in claims]


def show_rules(claims: Sequence[StudyClaim]) -> Html:
    """A row per claim: what its number is, when it holds, and what would decide it."""
    rows = [
        {
            "claim": capital(named(each.claim, claims)),
            "quantity": named(each.quantity, claims) + (f" ({each.unit})" if each.unit else ""),
            "rule": each.judged,
            "needed": named(each.needed, claims) or "decided",
        }
        for each in claims
    ]
    return show_table(
        pd.DataFrame(rows),
        name="study-rules",
        caption="The number behind each claim, the rule, and what would decide a claim that is open.",
        labels={"quantity": "number", "needed": "what would decide it"},
    )


def quote(text: str) -> str:
    """A name in quotation marks; a page makes them round."""
    return f'"{text}"'


def capital(text: str) -> str:
    """The text with a capital first letter; a label that starts it stays as it is."""
    return text if text.startswith("xLSTM") else text[:1].upper() + text[1:]


def number_text(claim: StudyClaim, unit: str = "") -> str:
    """The number of a claim with its unit and interval, or why there is none."""
    if not math.isfinite(claim.value):
        return "–"
    bounds = (claim.low, claim.high)
    decimals = 2 if abs(claim.value) >= 1 else 3
    unit = f" {unit}" if unit else ""
    value = f"{claim.value:.{decimals}f}"
    if all(map(math.isfinite, bounds)):
        return f"{value} {interval(bounds, decimals)}{unit}"
    return f"{value}{unit}, no interval"


def answer_facts(study: OwnStudy, claims: Sequence[StudyClaim]) -> dict[str, object]:
    """Values of the answer and of the section on claims."""
    open_ones = [each for each in claims if each.verdict == CANNOT_TELL]
    return {
        "c15_answer": answer_verdict(claims),
        "c15_so_far": so_far_verdict(study),
        "c15_decided": decided_verdict(claims),
        "c15_loss_gap": loss_text(claims),
        "c15_context_exponents": listed(
            f"{number_text(each)} for {the(each.claim.partition(', ')[2])} ({each.verdict})"
            for each in claims
            if each.claim.startswith("size over context")
        ),
        "c15_needed": listed(quote(named(each.claim, claims)) for each in open_ones) or "none",
        "c15_at": "unknown" if study.context_length is None else f"{study.context_length:,}",
        "c15_first": study.labels[0],
        "c15_second": study.labels[1],
        "c15_the_first": the(study.pair[0]),
        "c15_the_second": the(study.pair[1]),
    }


def answer_verdict(claims: Sequence[StudyClaim]) -> str:
    """A verdict: how many claims hold, do not hold and stay open."""
    verdicts = [each.verdict for each in claims]
    if set(verdicts) == {CANNOT_TELL}:
        return f"These runs decide none of the paper's {number_word(len(claims))} claims about training"
    if set(verdicts) == {HOLDS}:
        return f"All of the paper's {number_word(len(claims))} claims about training hold on these runs"
    kinds = {HOLDS: ("holds", "hold"), DOES_NOT_HOLD: ("does not hold", "do not hold")}
    kinds[CANNOT_TELL] = ("stays open", "stay open")
    words = [verb(verdicts.count(verdict), *forms) for verdict, forms in kinds.items() if verdict in verdicts]
    return f"Of the paper's {number_word(len(claims))} claims about training {listed(words)}"


def so_far_verdict(study: OwnStudy) -> str:
    """A verdict: how much of the design is trained."""
    if study.plan is None:
        return f"The table has {plural(len(study.runs), 'run')}"
    done = int(study.plan["trained"].sum())
    if done == len(study.plan):
        return f"All {done:,} planned runs are trained"
    return f"So far {done:,} of {len(study.plan):,} planned runs are trained"


def verb(number: int, one: str, several: str) -> str:
    """A count with its verb: one holds, four hold."""
    return f"{number_word(number)} {one if number == 1 else several}"


def decided_verdict(claims: Sequence[StudyClaim]) -> str:
    """A verdict: which claims these runs decide."""
    words = []
    for verdict, start in ((HOLDS, "these hold"), (DOES_NOT_HOLD, "these do not hold")):
        names = [quote(named(each.claim, claims)) for each in claims if each.verdict == verdict]
        words += [f"{start}: {listed(names)}"] if names else []
    return capital("; ".join(words)) if words else "These runs decide none of the claims yet"


def loss_text(claims: Sequence[StudyClaim]) -> str:
    """The gap in loss between the best models, with its interval."""
    claim = next(each for each in claims if each.claim == "loss")
    text = number_text(claim, claim.unit)
    return "unknown so far" if text == "–" else text


# ---- over-training -------------------------------------------------------------------------------


def slopes_of(study: OwnStudy) -> dict[str, OvertrainingSlopes]:
    """Lines of loss over compute by ratio; leaves out the section where no architecture has a line."""
    found, reasons = {}, []
    for name in study.pair:
        try:
            found[name] = fit_overtraining_slopes(study.of(name))
        except NotApplicable as error:
            reasons.append(f"{label_of(name)}: {str(error).removeprefix('over-training: ')}")
    need(found, ". ".join(reasons))
    return found


def show_lines(study: OwnStudy, slopes: dict[str, OvertrainingSlopes]) -> Html:
    """Loss over compute, a line per ratio of tokens to parameters."""
    spare = {}
    for name, fits in slopes.items():
        runs = study.of(name)
        runs = runs[runs["experiment"] == "tokenparam"] if "experiment" in runs else runs
        spare[name] = runs[~runs["val_loss"].isin(fits.data["val_loss"])]
    return show(
        overtraining_lines(slopes, spare),
        name="study-overtraining",
        alt="Loss over compute on logarithmic axes, a line per ratio of tokens to parameters, a panel for each "
        "architecture.",
        caption="Loss over compute at fixed ratios M of tokens to parameters. Crosses: runs of ratios that have fewer "
        "than three runs.",
    )


def show_slopes(slopes: dict[str, OvertrainingSlopes]) -> Html:
    """A row per architecture and ratio."""
    table = pd.concat([fits.table().assign(architecture=label_of(name)) for name, fits in slopes.items()])
    return show_table(
        table[["architecture", "tokens_per_param", "num_runs", "eta", "eta_standard_error"]],
        name="study-slopes",
        caption="Exponents η of loss over compute, by ratio of tokens to parameters.",
        formats={"tokens_per_param": "{:g}", "eta": "{:.4f}", "eta_standard_error": "{:.4f}"},
        labels={"tokens_per_param": "M", "num_runs": "runs", "eta": "η", "eta_standard_error": "standard error"},
    )


def slope_facts(slopes: dict[str, OvertrainingSlopes]) -> dict[str, object]:
    """Values of the section on over-training."""
    texts = [
        f"{fits.common_eta:.4f} {interval(fits.interval(), 4)} ({label_of(name)})" for name, fits in slopes.items()
    ]
    return {
        "c15_eta": listed(texts),
        "c15_num_ratios": " and ".join(dict.fromkeys(number_word(len(fits.laws)) for fits in slopes.values())),
        "c15_trend": trend_verdict(slopes),
        "c15_size_span": significant(max(span_of(fits) for fits in slopes.values()), 2),
    }


def span_of(slopes: OvertrainingSlopes) -> float:
    """The largest size on the lines over the smallest."""
    sizes = slopes.data["num_params"]
    return float(sizes.max() / sizes.min())


def trend_verdict(slopes: dict[str, OvertrainingSlopes]) -> str:
    """A verdict: whether the exponents rise or fall with the ratio."""
    words = {}
    for name, fits in slopes.items():
        change = np.diff([-fit.law.exponent for fit in fits.laws.values()])
        words[name] = "rise" if (change > 0).all() else "fall" if (change < 0).all() else "go up and down"
        if not change.size:
            words[name] = "cannot change with one ratio"
    return f"with the ratio they {by_architecture(words)}"
