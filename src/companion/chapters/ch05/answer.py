"""The first screen of chapter 5: is the rate the same at every ratio, and which change would have been missed."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from companion.chapters.applicability import of_experiment, optional
from companion.chapters.ch05.analysis import Slopes, Tables
from companion.chapters.ch05.words import LEVEL, each, p_text
from companion.chapters.labels import label_of, the
from companion.fitting.fit import fit
from companion.fitting.overtraining import OvertrainingSlopes
from companion.fitting.overtraining.cost import cost_at_equal_compute, fit_compute_scale
from companion.fitting.overtraining.slope_tests import (
    bending_if_possible,
    detectable_change,
    parallel_tests,
    slope_power,
)
from companion.formatting import interval, listed, percent, power_of_ten, signed
from companion.laws import LossSurface
from companion.plotting import Html, show_table

#: Changes of η that are simulated.
CHANGES = tuple(np.linspace(0, 0.012, 25))


def answers(slopes: Slopes) -> dict[str, dict[str, float]]:
    """What the tests of every architecture find.

    Returns
    -------
    dict
        by architecture: `p` of straight parallel lines; `sharp`, the same where every size has a deviation; `missed`,
        the change of η that the F test finds in 80 % of simulations (infinite if it finds none of `CHANGES`); `bend`
        and `bend_without`, the change of η per decade of compute, and that without the smallest model. NaN where the
        runs are too few.
    """
    return {name: _answer(fits) for name, fits in slopes.items()}


def _answer(fits: OvertrainingSlopes) -> dict[str, float]:
    tests = parallel_tests(fits).set_index("shape")["p_value"]
    power = optional(slope_power, fits, CHANGES)
    larger = fits.data[fits.data["num_params"] > fits.data["num_params"].min()]
    return {
        "p": float(tests["straight"]),
        "sharp": float(tests["by size"]),
        "missed": float("nan") if power is None else float(np.nan_to_num(detectable_change(power), nan=np.inf)),
        "bend": bending_if_possible(fits.data).value,
        "bend_without": bending_if_possible(larger).value,
    }


def price(
    tables: Tables, experiment: str | None, gamma: float | None, train_flops: float, ratio: float
) -> dict[str, float]:
    """Loss of one ratio above the optimum of the same compute, relative, by architecture.

    An architecture is left out where its runs do not identify the law, or the law has no optimum.
    """
    found = {name: optional(_price, table, experiment, gamma, train_flops, ratio) for name, table in tables.items()}
    return {name: value for name, value in found.items() if value is not None}


def _price(
    table: pd.DataFrame, experiment: str | None, gamma: float | None, train_flops: float, ratio: float
) -> float | None:
    design = of_experiment(table, experiment)
    law = fit(LossSurface, design, gamma=gamma)
    if not law.identified:
        return None
    cost = cost_at_equal_compute(law.law, fit_compute_scale(design), train_flops, [ratio])
    return float(cost["relative_penalty"][0])


def answer_table(
    slopes: Slopes,
    found: Mapping[str, Mapping[str, float]],
    prices: Mapping[str, float],
    train_flops: float,
    ratio: float,
) -> Html:
    """The answer in numbers, a column per architecture.

    Parameters
    ----------
    found
        of `answers`.
    prices
        of `price`, at `train_flops` (FLOP) and `ratio`.
    """
    texts = {
        "runs with a line": {name: f"{len(f.data)}, M = {_ratios(f)}" for name, f in slopes.items()},
        "common exponent η": {name: f"{f.common_eta:.4f} {interval(f.interval(), 4)}" for name, f in slopes.items()},
        "p of equal exponents; by a sharper test": _pairs(found, "p", "sharp", p_text),
        "smallest change of η that the test finds": {name: _missed(slopes[name], a) for name, a in found.items()},
        "Δη per decade of C; without the smallest model": _pairs(found, "bend", "bend_without", signed),
        f"loss at M = {ratio:g} above the optimum": {
            name: percent(value, decimals=1) for name, value in prices.items()
        },
    }
    rows = [
        {"quantity": quantity} | {label_of(name): text for name, text in each.items()}
        for quantity, each in texts.items()
        if each
    ]
    return show_table(
        pd.DataFrame(rows).fillna("–"),
        name="overtraining-answer",
        caption="Loss at fixed M as a power law of compute with exponent −η, with 95 % intervals. In the sharper test "
        "every size has a deviation of its own. The F test finds the smallest change, over all ratios, in 80 % of "
        "simulations."
        + (f" Loss above the optimum: at {power_of_ten(train_flops)} FLOP, by the parametric law." if prices else ""),
    )


def _ratios(fits: OvertrainingSlopes) -> str:
    first, *others = fits.laws
    return f"{first:g} to {others[-1]:g}" if others else f"{first:g}"


def _pairs(
    found: Mapping[str, Mapping[str, float]], first: str, second: str, style: Callable[[float], str]
) -> dict[str, str]:
    """Two values of every architecture, a dash for those that are unknown."""
    return {
        name: "; ".join(style(values[key]) if np.isfinite(values[key]) else "–" for key in (first, second))
        for name, values in found.items()
    }


def _missed(fits: OvertrainingSlopes, values: Mapping[str, float]) -> str:
    change = values["missed"]
    if not np.isfinite(change):
        return "–" if np.isnan(change) else f"more than {CHANGES[-1]:.4f}"
    return f"{change:.4f} ({percent(change / fits.common_eta)} of η)"


def answer_facts(slopes: Slopes, found: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Whether loss falls at the same rate at every ratio, and what the test cannot see; found from `answers`."""
    falls = each({name: percent(1 - 10**-fits.common_eta, decimals=1) for name, fits in slopes.items()})
    tested = [name for name, values in found.items() if np.isfinite(values["p"])]
    rejected = [name for name in tested if found[name]["p"] < LEVEL]
    where = "at every ratio"
    verdict = "Yes, as far as these runs can show"
    if not tested:
        verdict, where = "These runs cannot tell", "at the ratio of the runs"
    elif rejected:
        verdict, where = f"Not for {listed(map(the, rejected))}", "on average over the ratios"
    return {
        "c5_answer_rate": f"{verdict}: ten times the compute lowers the loss by {falls}, {where}",
        "c5_answer_limits": _limits(slopes, found, [name for name in tested if name not in rejected]),
        "c5_answer_runs": str(sum(len(fits.data) for fits in slopes.values())),
    }


def _limits(slopes: Slopes, found: Mapping[str, Mapping[str, float]], kept: Sequence[str]) -> str:
    """The change that would have been missed, and for whom a sharper test finds one."""
    missed = {name: found[name]["missed"] for name in kept if not np.isnan(found[name]["missed"])}
    shares = [min(change, CHANGES[-1]) / slopes[name].common_eta for name, change in missed.items()]
    sharp = [the(name) for name in kept if found[name]["sharp"] < LEVEL]
    texts = []
    if shares:
        size = f"by {'up to ' if np.isfinite(max(missed.values())) else ''}{percent(max(shares))}"
        start = "a" if np.isfinite(max(missed.values())) else "even a"
        texts.append(f"{start} change of the exponent {size} over the ratios could have gone unnoticed")
    if sharp:
        texts.append(f"a sharper test finds one for {listed(sharp)}")
    text = ", and ".join(texts) or "the runs are too few to say which change of the exponent they would show"
    return text[0].upper() + text[1:]
