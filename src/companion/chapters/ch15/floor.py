"""Chapter 15: the parametric law beside the entropy of the source, which is known, and what the runs can see of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.chapters.applicability import need
from companion.chapters.ch15.study import OwnStudy, by_architecture
from companion.chapters.labels import label_of
from companion.errors import InputError
from companion.fitting import Fit, fit, profile
from companion.fitting.pareto import ParetoFront, fit_front
from companion.formatting import interval, listed, share_in_words, significant
from companion.laws import LossSurface
from companion.plotting import LABELS, Html, show, show_table
from companion.plotting.style import power_ticks, subplots

#: Objectives by what tables call them: the usual one of the package, and least squares.
OBJECTIVES = {"Huber, δ = 0.001": 1e-3, "least squares": math.inf}
#: Runs that a law with five free parameters needs to leave a residual that says something.
LEAST_RUNS = 8
#: What is said of a local exponent that has fewer than two values.
_TOO_FEW = "rests on too few runs for a trend"


@dataclass(frozen=True, kw_only=True)
class FloorFit:
    """One architecture by one objective: E free and E held at the floor, with the profile interval of the free E."""

    architecture: str
    objective: str
    free: Fit
    held: Fit
    low: float
    high: float
    floor: float

    @property
    def sees(self) -> bool:
        """Whether the interval of E contains the known floor."""
        return self.low <= self.floor <= self.high


def floor_of(study: OwnStudy) -> float:
    """The lowest loss that there can be at the context, nats per token; leaves out the section where nobody knows."""
    runs = study.at_context
    known = runs["loss_floor"].dropna() if "loss_floor" in runs else pd.Series(dtype=float)
    need(len(known) and np.ptp(known) == 0, "the table does not say the entropy of its source (loss_floor)")
    return float(known.iloc[0])


def fit_floors(study: OwnStudy) -> list[FloorFit]:
    """The law with gamma = 1, E free and E held at the floor, for every architecture and objective."""
    floor, found = floor_of(study), []
    for name in study.architectures:
        runs = study.of(name)
        if len(runs) < LEAST_RUNS:
            continue
        for words, delta in OBJECTIVES.items():
            try:
                free, held = (fit(LossSurface, runs, gamma=1, E=e, huber_delta=delta) for e in (None, floor))
            except InputError:  # one size, or one number of tokens
                continue
            low, high = profile(free, "E", width=2.0).interval() if free.parameters["E"] > 1e-3 else (0.0, math.inf)
            found.append(
                FloorFit(architecture=name, objective=words, free=free, held=held, low=low, high=high, floor=floor)
            )
    need(found, f"no architecture has {LEAST_RUNS} runs of several sizes")
    return found


def show_floors(fits: Sequence[FloorFit], name: str = "study-floors") -> Html:
    """A row per architecture and objective: E with its interval beside the floor, status, exponents."""
    rows = [
        {
            "architecture": label_of(each.architecture),
            "objective": each.objective,
            "floor": f"{each.free.parameters['E']:.2f} {ends_text(each)}",
            "sees": "yes" if each.sees else "no",
            "status": each.free.status,
            "free": exponents_text(each.free),
            "held": exponents_text(each.held),
        }
        for each in fits
    ]
    return show_table(
        pd.DataFrame(rows),
        name=name,
        caption=f"The law with γ = 1, fitted with E free and with E held at the entropy of the source, "
        f"{fits[0].floor:.3f} nats/token. The interval of E is that of its profile likelihood, 95 %.",
        labels={
            "floor": "E fitted (nats/token)",
            "sees": "entropy in the interval",
            "free": "α, β with E free",
            "held": "α, β with E held",
        },
    )


def ends_text(each: FloorFit) -> str:
    """The interval of E; an end that the runs do not set is open."""
    low = "0" if each.low <= 0 else f"{each.low:.2f}"
    high = "no end" if math.isinf(each.high) else f"{each.high:.2f}"
    return f"[{low}, {high}]"


def exponents_text(found: Fit) -> str:
    """Both exponents, and whether the runs determine them."""
    values = ", ".join(significant(found.parameters[name], 2) for name in ("alpha", "beta"))
    return values if found.identified else f"{values} (not identified)"


def show_reducible(study: OwnStudy, floor: float) -> Html:
    """Left: loss above the floor over compute, with the best runs. Right: its local slope."""
    figure, (left, right) = subplots(1, 2, height=3.4)
    for name in study.pair:
        runs, look = study.of(name), dict(study.looks[name])
        left.plot(
            runs["train_flops"], runs["val_loss"] - floor, look["marker"], color=look["color"], markersize=3, alpha=0.5
        )
        front = reducible_front(runs, floor)
        left.plot(front.cost, front.loss, color=look["color"], label=look["label"])
        middle, slope = local_slopes(front)
        right.plot(middle, slope, marker=look["marker"], color=look["color"], markersize=4, label=look["label"])
    left.set(xscale="log", yscale="log", xlabel=LABELS["train_flops"], ylabel="loss above the entropy (nats/token)")
    left.yaxis.set_major_formatter(lambda value, _: f"{value:.1f}")
    left.yaxis.set_minor_formatter(lambda value, _: f"{value:.1f}" if round(10 * value) % 2 == 0 else "")
    right.set(xscale="log", xlabel=LABELS["train_flops"], ylabel="local exponent", ylim=(0, None))
    power_ticks(left.xaxis)
    power_ticks(right.xaxis)
    left.legend()
    return show(
        figure,
        name="study-reducible",
        alt="Loss above the entropy over compute on logarithmic axes, falling slowly, and its local exponent.",
        caption="Left: loss above the entropy of the source, every run, and the best of every third of a decade. "
        "Right: the local exponent between these. A power law toward the entropy would keep one exponent; one that "
        "falls toward zero would mean a floor above the entropy.",
    )


def reducible_front(runs: pd.DataFrame, floor: float) -> ParetoFront:
    """The best runs by their loss above the floor: one of every third of a decade, if it beats the cheaper ones."""
    third = np.floor(3 * np.log10(runs["train_flops"]))
    best = runs.loc[runs.groupby(third)["val_loss"].idxmin()]
    return fit_front(best["train_flops"], best["val_loss"] - floor)


def local_slopes(front: ParetoFront) -> tuple[np.ndarray, np.ndarray]:
    """−d ln(L − floor)/d ln C between neighbors on a front: (middle compute, exponent), each of shape (k − 1,)."""
    log_c, log_l = np.log(front.cost), np.log(front.loss)
    return np.exp((log_c[1:] + log_c[:-1]) / 2), -np.diff(log_l) / np.diff(log_c)


def overall_slope(front: ParetoFront) -> float:
    """The exponent from the first to the last corner of a front; NaN for one corner."""
    if len(front.cost) < 2:
        return math.nan
    return float(-np.log(front.loss[-1] / front.loss[0]) / np.log(front.cost[-1] / front.cost[0]))


def floor_facts(study: OwnStudy, fits: Sequence[FloorFit], prefix: str = "c15_") -> dict[str, object]:
    """Values of a section on a floor, their names beginning with the prefix."""
    floor = floor_of(study)
    above = study.at_context["val_loss"] - floor
    fronts = {name: reducible_front(study.of(name), floor) for name in study.pair}
    slopes = {name: overall_slope(front) for name, front in fronts.items()}
    first = slopes[study.pair[0]]
    decades = math.log10(2) / first if first > 0 else math.nan
    facts = {
        "floor": f"{floor:.3f}",
        "losses": f"{study.at_context['val_loss'].min():.2f} to {study.at_context['val_loss'].max():.2f}",
        "above": f"{above.min():.2f} to {above.max():.2f}",
        "finds": finds_verdict(fits),
        "sees": sees_verdict(fits),
        "identified": identified_verdict(fits),
        "slopes": listed(f"{slope:.3f} ({label_of(name)})" for name, slope in slopes.items()),
        "bends": bend_verdict(fronts),
        "bend_says": bend_says_verdict(fronts, fits),
        "half": f"{decades:.1f} decades" if math.isfinite(decades) else "an unknown number of decades",
    }
    return {prefix + name: value for name, value in facts.items()}


def finds_verdict(fits: Sequence[FloorFit], within: float = 0.05) -> str:
    """A verdict: whether fits that are identified find the entropy, within a share of it."""
    near = [abs(each.free.parameters["E"] / each.floor - 1) < within for each in fits if each.free.identified]
    if near and all(near):
        return "It does"
    return "Some fits do" if any(near) else "It does not"


def sees_verdict(fits: Sequence[FloorFit]) -> str:
    """A verdict: whether the intervals of E are honest, which we can check because the entropy is known."""
    wrong = [each for each in fits if not each.sees]
    if not wrong:
        wide = sum(each.high - each.low > 1 for each in fits)
        reach = f"; {share_in_words(wide, len(fits))} reach over more than 1 nat/token" if wide else ""
        return f"Every interval contains the entropy{reach}"
    named = [f"{ends_text(each)} ({label_of(each.architecture)}, {each.objective})" for each in wrong]
    verb = "does" if len(wrong) == 1 else "do"
    return f"{listed(named)} {verb} not contain the entropy: such an interval is wrong, however narrow"


def identified_verdict(fits: Sequence[FloorFit]) -> str:
    """A verdict: whether the fits warn that E is not determined."""
    open_ones = [each for each in fits if not each.free.identified]
    if len(open_ones) == len(fits):
        return "Every fit with E free reports that the runs do not identify the law"
    if not open_ones:
        return "Every fit with E free is identified"
    return f"{len(open_ones)} of {len(fits)} fits with E free report that the runs do not identify the law"


def bend_verdict(fronts: Mapping[str, ParetoFront]) -> str:
    """A verdict: whether the local exponent falls, as it would toward a floor above the entropy."""
    return by_architecture({name: _bend(front) for name, front in fronts.items()})


def _bend(front: ParetoFront) -> str:
    slope = local_slopes(front)[1]
    if len(slope) < 2:
        return _TOO_FEW
    half = len(slope) // 2
    change = slope[-half:].mean() - slope[:half].mean()
    return "rises" if change > 0.2 * slope.mean() else "falls" if change < -0.2 * slope.mean() else "stays"


def bend_says_verdict(fronts: Mapping[str, ParetoFront], fits: Sequence[FloorFit]) -> str:
    """A verdict: what a local exponent that rises, stays or falls does to a fit of the law."""
    bends = {_bend(front) for front in fronts.values()}
    if bends == {"rises"}:
        below = sum(each.free.parameters["E"] < each.floor for each in fits)
        where = f"{'is' if below == 1 else 'are'} below the entropy"
        lower = f", but one toward a lower floor comes closer: {share_in_words(below, len(fits))} fitted E {where}"
        text = (
            "So the losses fall the faster the nearer they come to the entropy. A power law toward it does not do that"
        )
        return f"{text}{lower}" if 2 * below > len(fits) else text
    if bends == {"falls"}:
        return "So a power law toward a floor above the entropy describes these runs better than one toward it"
    if bends == {"stays"}:
        return "That is what a power law toward the entropy looks like"
    if _TOO_FEW in bends:
        return "So these runs do not say whether a power law toward the entropy describes them"
    return "Where the exponent changes, no power law toward the entropy describes the runs"


def held_text(fits: Sequence[FloorFit], level: float = 0.95, num_resamples: int = 200) -> dict[str, object]:
    """Exponents of the pair with E held, by least squares, with bootstrap intervals."""
    facts: dict[str, object] = {}
    for name in ("alpha", "beta"):
        texts = []
        for each in (one for one in fits if one.objective == "least squares"):
            bounds = each.held.bootstrap(num_resamples).interval(name, level)
            value = significant(each.held.parameters[name], 2)
            text = f"{value} {interval(bounds, 2)}" if np.isfinite(bounds).all() else f"{value}, not identified"
            texts.append(f"{text} ({label_of(each.architecture)})")
        facts[f"c15_held_{name}"] = "; ".join(texts)
    return facts
